//! The stream of dead letters.

use std::collections::BTreeMap;

use bytes::Bytes;
use enlist::domain::{Pool, Refusal, Verb};
use tokio::time::{Duration, Instant};

/// `Nats-Msg-Id` is remembered for so long.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A dead letter as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) sequence: u64,
    pub(crate) pool: Pool,
    pub(crate) verb: Verb,
    /// `_` where it could not be read.
    pub(crate) id: String,
    pub(crate) refusal: Refusal,
    pub(crate) message: u64,
    pub(crate) deliveries: u64,
    pub(crate) body: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct DeadLetters {
    letters: Vec<Letter>,
    newest: BTreeMap<(Pool, Verb, String), usize>,
    /// `Nats-Msg-Id`: one letter a message.
    of_message: BTreeMap<(Pool, u64), Instant>,
}

/// What the server says to a dead letter.
pub(crate) enum Posted {
    Stored,
    Duplicate,
    WrongLast,
}

impl DeadLetters {
    pub(crate) fn newest(&self, pool: &Pool, verb: Verb, id: &str) -> Option<&Letter> {
        self.newest.get(&(pool.clone(), verb, id.to_owned())).map(|at| &self.letters[*at])
    }

    /// Stores it; where `after` is given, only if that is still the newest of its command.
    pub(crate) fn post(&mut self, mut letter: Letter, after: Option<u64>) -> Posted {
        let subject = (letter.pool.clone(), letter.verb, letter.id.clone());
        let newest = self.newest.get(&subject).map_or(0, |at| self.letters[*at].sequence);
        if after.is_some_and(|after| after != newest) {
            return Posted::WrongLast;
        }
        let before = self.of_message.get(&(letter.pool.clone(), letter.message));
        if before.is_some_and(|at| at.elapsed() < DUPLICATE_WINDOW) {
            return Posted::Duplicate;
        }
        letter.sequence = self.last() + 1;
        self.of_message.insert((letter.pool.clone(), letter.message), Instant::now());
        self.newest.insert(subject, self.letters.len());
        self.letters.push(letter);
        Posted::Stored
    }

    pub(crate) fn last(&self) -> u64 {
        self.letters.len() as u64
    }

    pub(crate) fn of(&self, pool: &Pool) -> impl Iterator<Item = &Letter> {
        self.letters.iter().filter(move |letter| letter.pool == *pool)
    }
}
