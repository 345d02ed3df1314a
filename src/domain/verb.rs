//! What a command asks for.

/// What a publisher asks for; the last token of a command's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Make a worker.
    Provision,
    /// Remove a worker.
    Terminate,
    /// Hold a pool at a size.
    Pool,
    /// Compare the records with the world.
    Sweep,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 4] = [Self::Provision, Self::Terminate, Self::Pool, Self::Sweep];

    /// The token in subjects and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Terminate => "terminate",
            Self::Pool => "pool",
            Self::Sweep => "sweep",
        }
    }
}
