//! The fields of every command and what is expected of each, in words for whoever sent it.

use serde::Deserialize;
use serde_json::Value;

use super::explain::{Field, Shape, Texts};
use super::read;
use crate::domain::{CommandId, CorrelationId, WorkerId};

const TIME: &str = "an RFC 3339 time such as 2030-01-31T08:00:00Z";

const COMMAND_ID: Field = Field {
    name: "command_id",
    required: true,
    shape: Shape::Plain(|v| CommandId::deserialize(v).is_ok(), "a string of the form [A-Za-z0-9_-]{1,64}"),
};
const EXPIRES_AT: Field = optional("expires_at", Shape::Plain(|v| read::expires_at(v).is_ok(), TIME));
const CORRELATION_ID: Field = optional(
    "correlation_id",
    Shape::Plain(|v| CorrelationId::deserialize(v).is_ok(), "a string of 1 to 128 printable ASCII characters"),
);

const fn worker_id(required: bool) -> Field {
    let expected = "a string of the form [a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?";
    Field { name: "worker_id", required, shape: Shape::Plain(|v| WorkerId::deserialize(v).is_ok(), expected) }
}

const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, required: false, shape }
}

pub(super) const PROVISION: &[Field] = &[
    COMMAND_ID,
    worker_id(false),
    optional("spec", Shape::Object(SPEC)),
    optional("registration", Shape::Object(REGISTRATION)),
    EXPIRES_AT,
    CORRELATION_ID,
];

/// The words of `command` stay hidden like the environment: tokens are passed there too.
const SPEC: &[Field] = &[
    optional(
        "image",
        Shape::Plain(
            |v| read::image(v).is_ok(),
            "1 to 255 printable ASCII characters without blanks, not starting with -",
        ),
    ),
    optional(
        "command",
        Shape::Hidden(|v| read::command(v).is_ok(), "a non-empty array of strings without NUL, the first not empty"),
    ),
    optional("env", Shape::Texts(ENV)),
    optional("labels", Shape::Texts(LABELS)),
    optional("cpus", Shape::Plain(|v| read::cpus(v).is_ok(), "a number from 0.001 to 1000000")),
    optional("memory_mb", Shape::Plain(|v| read::memory_mb(v).is_ok(), "a whole number from 1 to 1073741824")),
    optional("gpus", Shape::Plain(|v| u32::deserialize(v).is_ok(), "a whole number from 0 to 4294967295")),
];

const ENV: Texts = Texts {
    max: read::MAX_ENV,
    key: read::env_name,
    key_expected: "[A-Za-z_][A-Za-z0-9_]*",
    value: read::no_nul,
    value_expected: "a string without NUL",
    secret: true,
};

const LABELS: Texts = Texts {
    max: read::MAX_LABELS,
    key: read::label_key,
    key_expected: "[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?",
    value: read::label_value,
    value_expected: "a string of at most 256 printable characters",
    secret: false,
};

const REGISTRATION: &[Field] = &[
    optional("enabled", Shape::Plain(Value::is_boolean, "true or false")),
    optional("max_retries", Shape::Plain(|v| read::max_retries(v).is_ok(), "a whole number from 0 to 100")),
    optional("timeout_ms", Shape::Plain(|v| read::timeout_ms(v).is_ok(), "a whole number from 1 to 86400000")),
];

pub(super) const TERMINATE: &[Field] = &[
    COMMAND_ID,
    worker_id(true),
    optional("reason", Shape::Plain(|v| read::reason(v).is_ok(), "a string of at most 200 characters")),
    optional("grace_ms", Shape::Plain(|v| read::grace_ms(v).is_ok(), "a whole number from 0 to 86400000")),
    optional("force", Shape::Plain(Value::is_boolean, "true or false")),
    EXPIRES_AT,
    CORRELATION_ID,
];

pub(super) const POOL: &[Field] = &[
    COMMAND_ID,
    Field {
        name: "size",
        required: true,
        shape: Shape::Plain(|v| read::size(v).is_ok(), "a whole number from 0 to 1000000"),
    },
    EXPIRES_AT,
    CORRELATION_ID,
];

pub(super) const SWEEP: &[Field] = &[COMMAND_ID];
