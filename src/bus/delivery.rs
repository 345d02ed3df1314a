//! One delivered command: kept alive while it is worked on, and settled once, by value.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Message, Subject};
use bytes::Bytes;
use jiff::Timestamp;

use super::requests::{RequestError, Requests};
use super::stored::{self, Stored};
use super::streams::ACK_WAIT;
use super::subjects::Subjects;
use super::trace;
use crate::crash::{self, CrashPoint};
use crate::domain::{CommandId, Pool, Refusal, TraceContext, Verb};
use crate::wire::command;
use crate::wire::dead_letter::{DeadLetter, SEQUENCE};
use crate::wire::publish::PubAck;

/// Progress is told at a third of the ack wait.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 3);
const PATIENCE: Duration = Duration::from_secs(5);
const ACK_TRIES: usize = 3;

/// What becomes of a command's message.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// Its outcome is stored: remove it.
    Done,
    /// It will not be carried out: store a dead letter, then remove it.
    DeadLetter {
        /// For the dead letter's subject; `None` where it could not be read.
        command_id: Option<CommandId>,
        /// Why.
        refusal: Refusal,
    },
    /// Deliver it again after a while.
    Retry(Duration),
    /// Another try has it in hand: say nothing, its own delivery will settle it.
    Leave,
}

/// What deliveries have in common.
#[derive(Debug)]
pub struct Desk {
    /// Sends acks and dead letters.
    pub requests: Requests,
    /// Names.
    pub subjects: Subjects,
    /// The pool that is served.
    pub pool: Pool,
    /// Its stream, for the header `Nats-Msg-Id` of dead letters.
    pub stream: String,
    /// `$JS.API`, or that of a domain.
    pub api_prefix: String,
}

/// A command's message in hand.
#[derive(Debug)]
#[must_use = "a delivery that is dropped comes back only after the ack wait"]
pub struct Delivery {
    desk: Arc<Desk>,
    verb: Verb,
    reply: Subject,
    subject: Subject,
    body: Bytes,
    /// How often the server has delivered it; not exact.
    deliveries: u64,
    /// Its place in its queue.
    sequence: u64,
    /// When the server stored it there.
    stored_at: Timestamp,
    /// The trace that its publisher says it is part of.
    trace: Option<TraceContext>,
}

impl Delivery {
    /// Takes a pulled message. `None` where it is no message of a consumer.
    pub fn new(desk: Arc<Desk>, message: Message) -> Option<Self> {
        let Message { subject, reply, payload, headers, .. } = message;
        let reply = reply?;
        let Told { deliveries, sequence, stored_at } = read_reply(&reply)?;
        let token = subject.rsplit('.').next()?;
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == token)?;
        let trace = trace::read(headers.as_ref());
        Some(Self { desk, verb, reply, subject, body: payload, deliveries, sequence, stored_at, trace })
    }

    /// The command.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it asks for.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// How often the server has delivered it, this time included; a hint.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Its place in its queue.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When the server stored it there, by the server's clock.
    #[must_use]
    pub fn stored_at(&self) -> Timestamp {
        self.stored_at
    }

    /// The trace that it is part of, where it is part of one.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Whether an earlier delivery of this very message has stored its dead letter and could not ack it. What was refused
    /// stays refused: a pool that was full may have room by now, and the command would have two outcomes.
    pub async fn is_buried(&self) -> Result<bool, String> {
        // One whose id cannot be read is refused each time.
        let Some(command_id) = command::id_of(self.verb, &self.body) else { return Ok(false) };
        let subject = self.desk.subjects.dead(&self.desk.pool, self.verb, Some(&command_id));
        let newest = self.newest(&subject).await?;
        let sequence = self.sequence.to_string();
        Ok(newest.is_some_and(|letter| letter.body == self.body && letter.header(SEQUENCE) == Some(sequence.as_str())))
    }

    /// What [`Progress::tell`] needs; cheap.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { requests: self.desk.requests.clone(), reply: self.reply.clone() }
    }

    /// Does with the message what the verdict says. Says how it went, for the log.
    pub async fn settle(self, verdict: Verdict) -> Settled {
        match verdict {
            Verdict::Done => self.ack().await,
            Verdict::DeadLetter { command_id, refusal } => Box::pin(self.bury(command_id, refusal)).await,
            Verdict::Retry(after) => self.nak(after).await,
            Verdict::Leave => Settled::Left,
        }
    }

    /// The ack is a request, so that we know it has arrived. After three tries it is left: the command comes back, finds
    /// its outcome, and is acked then.
    async fn ack(self) -> Settled {
        for _ in 0..ACK_TRIES {
            match self.desk.requests.send(self.reply.clone(), None, Bytes::from_static(b"+ACK"), PATIENCE).await {
                Ok(_) => return Settled::Acked,
                Err(RequestError::NoResponders | RequestError::TimedOut) => {}
                Err(RequestError::Disconnected | RequestError::Unsendable(_)) => break,
            }
        }
        Settled::Left
    }

    async fn nak(self, after: Duration) -> Settled {
        let body = format!("-NAK {{\"delay\":{}}}", after.as_nanos());
        let sent = self.desk.requests.client().publish(self.reply.clone(), body.into());
        match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(())) => Settled::Delayed,
            Ok(Err(_)) | Err(_) => Settled::Left,
        }
    }

    /// The command is removed only after its dead letter is stored: a crash between the two stores it once, since the
    /// next delivery finds it there.
    async fn bury(self, command_id: Option<CommandId>, refusal: Refusal) -> Settled {
        crash::point(CrashPoint::Refused);
        let letter = DeadLetter {
            refusal,
            subject: self.subject.to_string(),
            sequence: self.sequence,
            deliveries: self.deliveries,
            body: self.body.clone(),
        };
        match self.store(command_id.as_ref(), &letter).await {
            Ok(first) => {
                crash::point(CrashPoint::DeadLetterStored);
                match self.ack().await {
                    Settled::Acked => Settled::Buried { command_id, refusal: letter.refusal, first },
                    other => other,
                }
            }
            Err(why) => {
                tracing::warn!(error = %why, "a dead letter could not be stored; the command stays in its queue");
                self.nak(Duration::from_secs(1)).await
            }
        }
    }

    /// Stores the dead letter, compared and set against the newest one of the same command id; `false` where it is there
    /// already.
    async fn store(&self, command_id: Option<&CommandId>, letter: &DeadLetter) -> Result<bool, String> {
        let subject = self.desk.subjects.dead(&self.desk.pool, self.verb, command_id);
        let mut newest = 0;
        for _ in 0..ACK_TRIES {
            let mut headers = HeaderMap::new();
            for (name, value) in letter.headers() {
                headers.insert(name, HeaderValue::from(value.as_str()));
            }
            // Whoever sends the command again finds what it came with.
            trace::put(&mut headers, self.trace.as_ref());
            headers.insert("Nats-Msg-Id", format!("{}-{}", self.desk.stream, self.sequence).as_str());
            if command_id.is_some() {
                headers.insert("Nats-Expected-Last-Subject-Sequence", HeaderValue::from(newest));
            }
            let answer = self.desk.requests.send(subject.clone(), Some(headers), letter.body.clone(), PATIENCE).await;
            match answer.map(|message| PubAck::read(&message.payload)) {
                Ok(Ok(ack)) => return Ok(!ack.duplicate),
                Ok(Err(error)) if error.is_wrong_last_sequence() => {
                    let Some(stored) = self.newest(&subject).await? else { continue };
                    // This very one: the same message, or a copy of it. One command has one dead letter, though its copy
                    // may find another reason: the pool was full, and by now its name is taken.
                    if stored.body == letter.body {
                        return Ok(false);
                    }
                    newest = stored.sequence;
                }
                Ok(Err(error)) => return Err(error.to_string()),
                // It may be stored all the same; the next round finds out.
                Err(error @ (RequestError::NoResponders | RequestError::TimedOut)) => tracing::debug!(%error),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("no answer".into())
    }

    /// The newest dead letter on a subject.
    async fn newest(&self, subject: &str) -> Result<Option<Stored>, String> {
        let Desk { requests, subjects, api_prefix, .. } = &*self.desk;
        stored::last(requests, api_prefix, &subjects.dead_stream(), subject).await.map_err(|error| error.to_string())
    }
}

/// Tells the server that a command is being worked on. It proves nothing about ownership: the event log does.
#[derive(Debug, Clone)]
pub struct Progress {
    requests: Requests,
    reply: Subject,
}

impl Progress {
    /// Restarts the message's ack wait.
    pub async fn tell(&self) {
        let sent = self.requests.client().publish(self.reply.clone(), Bytes::from_static(b"+WPI"));
        // A progress ack that does not get out in time is worth nothing later.
        let _ = tokio::time::timeout(PATIENCE, sent).await;
    }
}

/// How a delivery was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Removed from the queue.
    Acked,
    /// Removed from the queue, its dead letter is stored.
    Buried {
        /// As in the dead letter's subject.
        command_id: Option<CommandId>,
        /// Why.
        refusal: Refusal,
        /// Whether this delivery stored it; an earlier one may have, and died before its ack.
        first: bool,
    },
    /// It comes again after the delay.
    Delayed,
    /// It comes again after the ack wait, unless another delivery of it is settled first.
    Left,
}

/// What an ack subject tells of its message.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    deliveries: u64,
    sequence: u64,
    stored_at: Timestamp,
}

/// Reads an ack subject, `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<stored at, ns>.…`, or with
/// domain and account hash after `ACK` (nats-server, `server/consumer.go`).
fn read_reply(reply: &str) -> Option<Told> {
    let tokens = reply.strip_prefix("$JS.ACK.")?;
    let before = match tokens.split('.').count() {
        7 => 2,
        n if n >= 9 => 4,
        _ => return None,
    };
    let mut told = tokens.split('.').skip(before);
    let (deliveries, sequence, _, stored_at) = (told.next()?, told.next()?, told.next()?, told.next()?);
    let stored_at = Timestamp::from_nanosecond(stored_at.parse().ok()?).ok()?;
    Some(Told { deliveries: deliveries.parse().ok()?, sequence: sequence.parse().ok()?, stored_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_and_sequence_are_read_from_both_forms_of_an_ack_subject() {
        let told = |deliveries, sequence| {
            Some(Told { deliveries, sequence, stored_at: "1970-01-01T00:00:01.7Z".parse().unwrap() })
        };
        assert_eq!(read_reply("$JS.ACK.ENLIST_CMD_a.provision.2.17.9.1700000000.5"), told(2, 17));
        assert_eq!(read_reply("$JS.ACK._.hash.ENLIST_CMD_a.provision.3.18.9.1700000000.5.rnd"), told(3, 18));
        assert_eq!(read_reply("$JS.ACK._.hash.ENLIST_CMD_a.provision.3.18.9.1700000000.5"), told(3, 18));
        for other in ["_INBOX.x", "$JS.ACK", "$JS.ACK.a.b.2.17.9.1700000000", "$JS.ACK.a.b.2.17.9.1700000000.5.x"] {
            assert_eq!(read_reply(other), None, "{other}");
        }
    }
}
