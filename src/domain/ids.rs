//! Names as validated newtypes: only these may become subject tokens, so nothing is ever escaped.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A name that does not have the form its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?} is not of the form {expected}")]
pub struct InvalidToken {
    /// Which kind of name was read.
    pub what: &'static str,
    /// The text as found, cut to 80 characters.
    pub found: String,
    /// The regular expression that the name must match.
    pub expected: &'static str,
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $what:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The regular expression that every value matches.
            pub const PATTERN: &'static str = $pattern;

            /// Reads a name, or says what was found and what was expected.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidToken> {
                let text = text.as_ref();
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(InvalidToken { what: $what, found: text.chars().take(80).collect(), expected: $pattern })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidToken;
            fn from_str(text: &str) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidToken;
            fn try_from(text: String) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": concat!("^(", $pattern, ")$") })
            }
        }
    };
}

token!(
    /// The first token of every subject of a fleet; streams carry it in upper case.
    Prefix,
    "prefix",
    "[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?",
    |t| is_label(t, 20)
);
token!(
    /// An operator's template for workers.
    Pool,
    "pool",
    "[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?",
    |t| is_label(t, 20)
);
token!(
    /// A worker within its pool.
    WorkerId,
    "worker_id",
    "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
    |t| is_label(t, 40)
);
token!(
    /// The publisher's name of one command; the key of "one command, one outcome".
    CommandId,
    "command_id",
    "[A-Za-z0-9_-]{1,64}",
    |t| (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
);
token!(
    /// The publisher's own thread of events; copied, never interpreted.
    CorrelationId,
    "correlation_id",
    r"[^\x00-\x1f\x7f-\x9f]{1,128}",
    |t| (1..=128).contains(&t.chars().count()) && !t.chars().any(char::is_control)
);

/// Lower-case letters, digits and inner dashes, at most `max` bytes.
fn is_label(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= max
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|b| edge(b) || *b == b'-')
}

impl WorkerId {
    /// The id of a worker whose command names none: `w-` and the first 26 characters of lower-case base32 of
    /// SHA-256(`<pool>/<command_id>`), so that a redelivery finds the same worker.
    #[must_use]
    pub fn derived(pool: &Pool, command: &CommandId) -> Self {
        let digest =
            Sha256::new().chain_update(pool.as_str()).chain_update("/").chain_update(command.as_str()).finalize();
        let text = data_encoding::BASE32_NOPAD.encode(&digest).to_ascii_lowercase();
        Self(Arc::from(format!("w-{}", &text[..26])))
    }
}

/// A worker is known by pool and worker id together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey {
    /// The pool it belongs to.
    pub pool: Pool,
    /// Its name within the pool.
    pub worker_id: WorkerId,
}

impl WorkerKey {
    /// The key of a worker.
    #[must_use]
    pub fn new(pool: Pool, worker_id: WorkerId) -> Self {
        Self { pool, worker_id }
    }
}

impl fmt::Display for WorkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.worker_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_worker_id_is_the_base32_of_the_hash_of_pool_and_command() {
        // printf 'gpu/c-1' | sha256sum | xxd -r -p | base32 | tr A-Z a-z | cut -c1-26
        let id = WorkerId::derived(&Pool::new("gpu").unwrap(), &CommandId::new("c-1").unwrap());
        assert_eq!(id.as_str().len(), 28);
        assert!(WorkerId::new(id.as_str()).is_ok());
        assert_eq!(id, WorkerId::derived(&Pool::new("gpu").unwrap(), &CommandId::new("c-1").unwrap()));
        assert_ne!(id, WorkerId::derived(&Pool::new("gpu2").unwrap(), &CommandId::new("c-1").unwrap()));
    }

    #[test]
    fn tokens_that_could_break_a_subject_are_refused() {
        for bad in ["", ".", "a.b", "*", ">", "a b", "-a", "a-", "A", "_", "a\u{e9}", "twenty-one-characters"] {
            assert!(Pool::new(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(Pool::new("a").is_ok() && Pool::new("gpu-a").is_ok() && Pool::new("12345678901234567890").is_ok());
        assert!(
            CommandId::new("A_b-9").is_ok()
                && CommandId::new("a.b").is_err()
                && CommandId::new("x".repeat(65)).is_err()
        );
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_was_expected() {
        let error = Pool::new("No Good").unwrap_err().to_string();
        assert_eq!(error, "pool \"No Good\" is not of the form [a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?");
    }
}
