//! Dead letters: the command's bytes as they came, and headers that say why it was not carried out.

use bytes::Bytes;

use crate::domain::{Reason, Refusal};
use crate::text::cut;

/// The reason, for programs.
pub const REASON: &str = "Enlist-Reason";
/// The reason, for people.
pub const DETAIL: &str = "Enlist-Detail";
/// The subject that the command came in on.
pub const SUBJECT: &str = "Enlist-Subject";
/// Its sequence in the pool's queue.
pub const SEQUENCE: &str = "Enlist-Sequence";
/// How often it was delivered.
pub const DELIVERIES: &str = "Enlist-Deliveries";

/// The longest header value, in bytes.
pub const MAX_HEADER: usize = 1024;

/// A command that will not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub refusal: Refusal,
    /// The subject it came in on.
    pub subject: String,
    /// Its sequence in the pool's queue.
    pub sequence: u64,
    /// How often it was delivered.
    pub deliveries: u64,
    /// The command's bytes as they came.
    pub body: Bytes,
}

/// A dead letter whose headers cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter's header {header} cannot be read: found {found}")]
pub struct DeadLetterUnreadable {
    /// The header.
    pub header: &'static str,
    /// Its value, escaped and cut.
    pub found: String,
}

impl DeadLetter {
    /// Names and values of its headers; every value is a single line of at most [`MAX_HEADER`] bytes.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, String); 5] {
        let Self { refusal: Refusal { reason, detail }, subject, sequence, deliveries, body: _ } = self;
        [
            (REASON, reason.as_str().into()),
            (DETAIL, header_value(detail)),
            (SUBJECT, header_value(subject)),
            (SEQUENCE, sequence.to_string()),
            (DELIVERIES, deliveries.to_string()),
        ]
    }

    /// Reads a dead letter back; `header` looks a header up.
    pub fn decode<'h>(
        header: impl Fn(&'static str) -> Option<&'h str>,
        body: Bytes,
    ) -> Result<Self, DeadLetterUnreadable> {
        let text = |name| header(name).ok_or(DeadLetterUnreadable { header: name, found: "nothing".into() });
        let number = |name| {
            let found = text(name)?;
            found.parse().map_err(|_| DeadLetterUnreadable { header: name, found: cut(found, 80) })
        };
        let reason = text(REASON)?;
        let reason =
            Reason::from_name(reason).ok_or_else(|| DeadLetterUnreadable { header: REASON, found: cut(reason, 80) })?;
        Ok(Self {
            refusal: Refusal::new(reason, text(DETAIL)?),
            subject: text(SUBJECT)?.into(),
            sequence: number(SEQUENCE)?,
            deliveries: number(DELIVERIES)?,
            body,
        })
    }
}

/// Foreign text as one line that a header can carry.
fn header_value(text: &str) -> String {
    let mut line = cut(text.trim(), MAX_HEADER);
    while line.len() > MAX_HEADER {
        line.pop();
    }
    line
}
