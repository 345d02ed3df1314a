//! What became of a write that was not simply stored: decided by the record's head, and written again while nobody has won.
//!
//! It knows neither broker nor record, so that simulation runs it against a log that lies.

use std::time::Duration;

use super::{AppendError, ReadError};
use crate::mutant::{self, Mutant};

/// A leader election takes seconds; a command in hand waits for it rather than go through its queue again.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What the log has said to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is stored, at this place.
    Stored(u64),
    /// 10071 or 10164: another one was stored first, or nobody has won.
    Refused,
    /// It may be stored, now or later.
    Unknown(String),
}

/// The newest event of the record that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its place; 0 where there is none.
    pub sequence: u64,
    /// It is the very write that is to be decided: the same event by the same writer, whose answer was lost.
    pub ours: bool,
}

/// What became of a write after the event at `after`, whose first answer was `published`. The same write may be sent any
/// number of times, as the log compares and sets; `chance` draws a number from 0 to 1.
pub async fn decide<P, H>(
    after: u64,
    mut published: Published,
    publish: impl Fn() -> P,
    head: impl Fn() -> H,
    chance: impl Fn() -> f64,
) -> Result<u64, AppendError>
where
    P: Future<Output = Published>,
    H: Future<Output = Result<Head, ReadError>>,
{
    let mut tries = 1;
    loop {
        let why = match published {
            Published::Stored(sequence) => return Ok(sequence),
            Published::Refused if mutant::on(Mutant::RefusedIsLost) => return Err(AppendError::Conflict),
            Published::Refused => "the compare-and-set was not decided".to_owned(),
            Published::Unknown(error) => error,
        };
        let why = match head().await {
            Ok(Head { sequence, ours: true }) => return Ok(sequence),
            Ok(Head { sequence, ours: false }) if sequence != after => return Err(AppendError::Conflict),
            // Nothing is stored, or not yet: the same write may be tried again.
            Ok(_) => why,
            Err(ReadError(error)) => error,
        };
        if tries == TRIES {
            return Err(AppendError::Unavailable(why));
        }
        let window = FIRST_PAUSE.saturating_mul(1 << tries).min(LONGEST_PAUSE);
        tokio::time::sleep(window.mul_f64(chance())).await;
        tries += 1;
        published = publish().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn decided(first: Published, head: Head) -> (Result<u64, AppendError>, u32) {
        let sent = Cell::new(0);
        let publish = || async {
            sent.set(sent.get() + 1);
            Published::Stored(9)
        };
        let decided = decide(4, first, publish, || async { Ok(head) }, || 0.5).await;
        (decided, sent.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_where_nobody_has_won_is_no_loss() {
        assert_eq!(decided(Published::Refused, Head { sequence: 4, ours: false }).await, (Ok(9), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn another_s_event_is_a_loss_and_our_own_is_none() {
        let unknown = || Published::Unknown("no answer".to_owned());
        for first in [Published::Refused, unknown()] {
            let lost = decided(first, Head { sequence: 7, ours: false }).await;
            assert_eq!(lost, (Err(AppendError::Conflict), 0));
        }
        assert_eq!(decided(unknown(), Head { sequence: 7, ours: true }).await, (Ok(7), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_never_says_is_given_up() {
        let away = || async { Published::Unknown("no answer".to_owned()) };
        let head = || async { Ok(Head { sequence: 4, ours: false }) };
        let given_up = decide(4, Published::Refused, away, head, || 0.5).await;
        assert_eq!(given_up, Err(AppendError::Unavailable("no answer".to_owned())));
    }
}
