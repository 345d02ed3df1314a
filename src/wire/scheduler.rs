//! Requests to the scheduler and its replies.
//!
//! Both sides pass over fields that they do not know: the two are upgraded on different days.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::to_json;
use crate::domain::{Capabilities, Pool, WorkerId, WorkerType};
use crate::text::cut;

/// A request or reply that cannot be read. Its text is escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Asks the scheduler to take a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegisterRequest {
    /// The worker's name in its pool.
    pub worker_id: WorkerId,
    /// Its pool.
    pub pool: Pool,
    /// Made, or found.
    pub worker_type: WorkerType,
    /// The provider's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// How to reach it, where there is a way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The fence: a scheduler should ignore a register below an epoch it has seen for that worker.
    pub epoch: u64,
    /// The event this is told from.
    pub rev: u64,
    /// Number of this try, from 1.
    #[cfg_attr(test, schemars(range(min = 1, max = u32::MAX)))]
    pub attempt: u32,
    /// After this moment nobody waits for the answer.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    #[serde(serialize_with = "crate::text::moment")]
    pub expires_at: Timestamp,
}

/// The scheduler's answer to a register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RegisterReply {
    /// Taken.
    Accepted,
    /// Had been taken before; counts as accepted.
    Already,
    /// Refused: not tried again.
    Rejected {
        /// The scheduler's code.
        #[serde(default)]
        code: String,
        /// The scheduler's words.
        #[serde(default)]
        message: String,
    },
    /// Ask again after a while; not counted as a try.
    Busy {
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
}

/// Tells the scheduler that a worker goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnregisterRequest {
    /// The worker's name in its pool.
    pub worker_id: WorkerId,
    /// Its pool.
    pub pool: Pool,
    /// The provider's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The fence.
    pub epoch: u64,
    /// Why it goes.
    pub reason: String,
    /// How long the worker may drain, in milliseconds.
    pub grace_ms: u64,
}

/// The scheduler's answer to an unregister.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum UnregisterReply {
    /// It is out.
    Accepted,
    /// It was not in; just as good.
    Unknown,
    /// Still draining: ask again.
    Busy {
        /// How long to wait, in milliseconds; the asker's own pace if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

/// Asks which workers the scheduler knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListRequest {
    /// Of this pool only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A page of the scheduler's workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListReply {
    /// The workers.
    pub workers: Vec<Listed>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A worker that the scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Listed {
    /// Its name in its pool.
    pub worker_id: WorkerId,
    /// Its pool.
    pub pool: Pool,
    /// The epoch under which it was registered.
    pub epoch: u64,
}

macro_rules! message {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The body to send.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                to_json(self, 512)
            }

            /// Reads a body. Never panics, whatever the bytes.
            pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
                read($what, body)
            }
        }
    };
}
pub(super) use message;

message!(RegisterRequest, "register request");
message!(RegisterReply, "register reply");
message!(UnregisterRequest, "unregister request");
message!(UnregisterReply, "unregister reply");
message!(ListRequest, "list request");

impl ListReply {
    /// The body to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self, 64 + 96 * self.workers.len())
    }

    /// Reads a page. A worker whose pool or name is none of ours in form is left out: a scheduler may well know others,
    /// and one of those must not make the whole list unreadable.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Page {
            workers: Vec<Entry>,
            #[serde(default)]
            next: Option<String>,
        }
        #[derive(Deserialize)]
        struct Entry {
            worker_id: String,
            pool: String,
            epoch: u64,
        }
        let Page { workers, next } = read("list reply", body)?;
        let ours = |Entry { worker_id, pool, epoch }| {
            Some(Listed { worker_id: WorkerId::new(worker_id).ok()?, pool: Pool::new(pool).ok()?, epoch })
        };
        Ok(Self { workers: workers.into_iter().filter_map(ours).collect(), next: next.filter(|next| !next.is_empty()) })
    }
}

/// Reads an object; an array, which a derived reader would take field by field, is refused.
pub(super) fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Unreadable> {
    let unreadable = |why: &dyn std::fmt::Display| {
        let found = String::from_utf8_lossy(&body[..body.len().min(480)]);
        Unreadable(format!("{what}: {}: found {}", cut(&why.to_string(), 160), cut(&found, 120)))
    };
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(unreadable(&"expected an object"));
    }
    serde_json::from_slice(body).map_err(|error| unreadable(&error))
}
