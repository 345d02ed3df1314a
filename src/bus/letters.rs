//! Dead letters, read in the order in which they were stored.

use async_nats::HeaderValue;
use futures_util::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;

use super::batch::{BatchError, Copied};
use super::trace;
use super::view::View;
use crate::domain::{CommandId, Pool, TraceContext, Verb};
use crate::wire::dead_letter::DeadLetter;

/// A dead letter, and where it stands.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its place in the stream of dead letters.
    pub number: u64,
    /// When the server stored it.
    pub time: Timestamp,
    /// The pool that the command was for.
    pub pool: Pool,
    /// What it asked for.
    pub verb: Verb,
    /// Its id, where it could be read.
    pub command_id: Option<CommandId>,
    /// The trace that it was part of.
    pub trace: Option<TraceContext>,
    /// The letter.
    pub letter: DeadLetter,
}

impl View {
    /// Every dead letter, oldest first, of all pools or of one; two batches are held at most. What this version cannot read is
    /// passed over.
    #[must_use]
    pub fn letters(&self, pool: Option<&Pool>) -> BoxStream<'static, Result<Letter, BatchError>> {
        let all = self.dead_letters(pool).stream();
        all.filter_map(|copied| std::future::ready(copied.map(read).transpose())).boxed()
    }
}

fn read(copied: Copied) -> Option<Letter> {
    let Copied { subject, sequence, time, headers, body } = copied;
    let trace = trace::read(Some(&headers));
    let letter = DeadLetter::decode(|name| headers.get(name).map(HeaderValue::as_str), body);
    let letter = letter.inspect_err(|error| tracing::warn!(%subject, sequence, %error, "passed over")).ok()?;
    let mut tokens = subject.split('.').skip(2);
    let pool = Pool::new(tokens.next()?).ok()?;
    let verb = tokens.next()?;
    let verb = Verb::ALL.into_iter().find(|known| known.as_str() == verb)?;
    // `_` stands for one that could not be read.
    let command_id = tokens.next().filter(|id| *id != "_").and_then(|id| CommandId::new(id).ok());
    Some(Letter { number: sequence, time, pool, verb, command_id, trace, letter })
}
