//! Where a setting comes from, and what is wrong with it: told by the same words in mistakes and in `check-config`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value was found. Ordered as mistakes are told: the file from top to bottom, then what lies over it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    File {
        /// The file's name as it was given.
        name: Arc<str>,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// A context of the `nats` command line.
    Context(Arc<str>),
    /// An environment variable.
    Env(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column: _ } => write!(f, "{name}:{line}"),
            Self::Context(name) => write!(f, "context {name}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing wrong with the settings. Safe to show: secrets are left out, foreign text is escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub origin: Origin,
    /// Which setting, say `pools.web.memory_mb`; empty where the file as a whole cannot be read.
    pub setting: String,
    /// What was found and what was expected.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, setting, problem } = self;
        match origin {
            Origin::File { name, line, column } => write!(f, "{name}:{line}:{column}: ")?,
            Origin::Context(_) | Origin::Env(_) | Origin::Flag(_) => write!(f, "{origin}: ")?,
            Origin::Default => {}
        }
        if !setting.is_empty() {
            write!(f, "{setting}: ")?;
        }
        f.write_str(problem)
    }
}

/// Why there are no settings to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// All that is wrong, one a line.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// One effective setting, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, say `pools.web.memory_mb`.
    pub name: String,
    /// Its value as it may be shown; secrets are `[hidden]`, what is unset is `-`.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Every effective setting with its origin; `Display` prints one aligned line a setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(pub Vec<Setting>);

impl Settings {
    /// The setting of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == name)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One overlong value must not push every origin off the screen.
        let width = |of: fn(&Setting) -> &str, most: usize| {
            self.0.iter().map(|s| of(s).chars().count().min(most)).max().unwrap_or(0)
        };
        let (names, values) = (width(|s| &s.name, 48), width(|s| &s.value, 48));
        for Setting { name, value, origin } in &self.0 {
            writeln!(f, "{name:names$}  {value:values$}  {origin}")?;
        }
        Ok(())
    }
}
