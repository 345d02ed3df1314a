//! One dead letter back into its queue. Each step leaves the letter where it is, so that whoever dies in between has lost
//! nothing; it goes last.
//!
//! 1. The record of the refusal goes: it would refuse the command again, as it is there to. What it stands in the way of, a
//!    try of the same command that stood still all the while, is as good as the one that is asked for here: whichever of
//!    them is first has the worker, by compare-and-set.
//! 2. The command is stored in its queue, in bytes that differ from the letter's: a replica that refuses it again at once
//!    would take the old letter for this one's, and that one is about to go.
//! 3. The letter goes, by its own number.

use std::collections::HashMap;
use std::fmt::Write as _;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::remove;
use crate::bus::commands::{self, PutError};
use crate::bus::letters::Letter;
use crate::bus::orders::Orders;
use crate::bus::requests::RequestError;
use crate::bus::stored::ReadStoredError;
use crate::crash::{self, CrashPoint};
use crate::domain::{CommandId, EndedBy, Pool, Reason, State, Verb, Worker, WorkerId, WorkerKey, WorkerType};
use crate::journal::nats::NatsJournal;
use crate::journal::{Journal as _, PurgeError, ReadError, Scanned};
use crate::wire::command::{MAX_BYTES, PoolCommand, ProvisionCommand, TerminateCommand};

/// Why a letter is where it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReplayed {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Purge(#[from] PurgeError),
    #[error(transparent)]
    Letter(#[from] ReadStoredError),
    #[error("pool {0} is not served: there is no queue to put the command into; a replica makes it when it starts")]
    NoPool(String),
    #[error("the command is not in its queue, as far as the broker has said: {0}; the letter stays")]
    Put(PutError),
    #[error("worker {0} of the command's first try is still on its way out; replay the letter once it has ended")]
    StillEnding(WorkerKey),
    #[error(
        "the record of host {0} refuses the command for good, and is never removed; send it under another command id"
    )]
    HostRefuses(WorkerKey),
    #[error(
        "the command fills its {MAX_BYTES} bytes to the last one, so that its new letter could not be told from this one; \
         send it shorter"
    )]
    Whole,
}

/// The hosts that pools have in the log, read once for all letters.
#[derive(Default)]
pub(super) struct Hosts(Mutex<HashMap<Pool, Vec<WorkerKey>>>);

impl Hosts {
    /// The host whose record refuses the command, whoever has the host now.
    async fn that_refuses(
        &self,
        journal: &NatsJournal,
        pool: &Pool,
        command_id: &CommandId,
        chosen: Option<&WorkerId>,
    ) -> Result<Option<WorkerKey>, ReadError> {
        let mut known = self.0.lock().await;
        let hosts = match (chosen, known.get(pool)) {
            (Some(chosen), _) => vec![WorkerKey::new(pool.clone(), chosen.clone())],
            (None, Some(hosts)) => hosts.clone(),
            (None, None) => {
                let hosts = hosts_of(journal, pool).await?;
                known.insert(pool.clone(), hosts.clone());
                hosts
            }
        };
        for host in hosts {
            let history = journal.history(&host).await?;
            let newest = history.into_iter().rev().find(|entry| entry.worker.command_id == *command_id);
            if newest.is_some_and(|entry| is_host(&entry.worker) && refuses(&entry.worker, command_id)) {
                return Ok(Some(host));
            }
        }
        Ok(None)
    }
}

async fn hosts_of(journal: &NatsJournal, pool: &Pool) -> Result<Vec<WorkerKey>, ReadError> {
    let mut hosts = std::collections::HashSet::new();
    let take = |scanned| {
        if let Scanned::Worker(entry) = scanned
            && is_host(&entry.worker)
        {
            hosts.insert(entry.worker.key());
        }
    };
    journal.scan(pool, take).await?;
    Ok(hosts.into_iter().collect())
}

/// Not the record of a refusal, which stands under the name that a made worker would have.
fn is_host(worker: &Worker) -> bool {
    worker.worker_type == WorkerType::Static && worker.worker_id != WorkerId::derived(&worker.pool, &worker.command_id)
}

/// Puts a letter's command back; says what was done.
pub(super) async fn replay(
    orders: &Orders,
    journal: &NatsJournal,
    hosts: &Hosts,
    letter: &Letter,
) -> Result<String, NotReplayed> {
    let renewed = renewed(letter.verb, &letter.letter.body, Timestamp::now());
    let (body, expired) = renewed.ok_or(NotReplayed::Whole)?;
    let cleared = match (&letter.command_id, letter.verb) {
        (Some(command_id), Verb::Provision) => clear(journal, hosts, letter, command_id).await?,
        _ => Vec::new(),
    };
    crash::point(CrashPoint::RefusalPurged);
    // By the letter, so that a replay that was cut off here is not stored twice, as long as the broker remembers.
    let message_id = format!("replay-{}-{}", orders.subjects.dead_stream(), letter.number);
    let subject = orders.subjects.command(&letter.pool, letter.verb);
    let put =
        commands::put(&orders.requests, subject, &message_id, body, letter.trace.as_ref()).await.map_err(|error| {
            match error {
                PutError::Request(RequestError::NoResponders) => NotReplayed::NoPool(letter.pool.to_string()),
                error => NotReplayed::Put(error),
            }
        })?;
    crash::point(CrashPoint::Replayed);
    remove(orders, letter.number).await?;
    let name = letter.command_id.as_ref().map_or("without an id", CommandId::as_str);
    let mut told = if put.duplicate {
        format!("command {name} was put back before")
    } else {
        format!("command {name} is in the queue again, number {}", put.sequence)
    };
    if expired {
        told.push_str(", without its expires_at, which was over");
    }
    for key in cleared {
        let _ = write!(told, "; the record that refused it, of {key}, is gone");
    }
    Ok(told)
}

/// Takes away what the log has of the command's refusal.
async fn clear(
    journal: &NatsJournal,
    hosts: &Hosts,
    letter: &Letter,
    command_id: &CommandId,
) -> Result<Vec<WorkerKey>, NotReplayed> {
    let derived = WorkerId::derived(&letter.pool, command_id);
    let chosen = ProvisionCommand::decode(&letter.letter.body).ok().and_then(|command| command.worker_id);
    // Before anything goes: a host's record is never purged, as its epoch is the fence of the next one who has the host.
    let refusal = journal.head(&WorkerKey::new(letter.pool.clone(), derived.clone())).await?;
    if refusal.is_none_or(|head| head.worker.worker_type == WorkerType::Static)
        && let Some(host) = hosts.that_refuses(journal, &letter.pool, command_id, chosen.as_ref()).await?
    {
        return Err(NotReplayed::HostRefuses(host));
    }
    let mut cleared = Vec::new();
    for id in [Some(derived.clone()), chosen.filter(|id| *id != derived)].into_iter().flatten() {
        let key = WorkerKey::new(letter.pool.clone(), id);
        let Some(head) = journal.head(&key).await? else { continue };
        if !refuses(&head.worker, command_id) {
            continue;
        }
        if head.worker.state != State::Terminated {
            return Err(NotReplayed::StillEnding(key));
        }
        journal.purge(&key, head.sequence).await?;
        cleared.push(key);
    }
    Ok(cleared)
}

/// Whether the record is enlist's own refusal of the command.
fn refuses(worker: &Worker, command_id: &CommandId) -> bool {
    let by_enlist = |EndedBy { command_id: by, reason }: &EndedBy| {
        by.as_ref() == Some(command_id) && reason.as_deref().and_then(Reason::from_name).is_some()
    };
    worker.command_id == *command_id && worker.ended_by.as_ref().is_some_and(by_enlist)
}

/// The command's bytes, never the same ones; whether an `expires_at` that is over was left out. `None` where there are no
/// others.
fn renewed(verb: Verb, body: &Bytes, now: Timestamp) -> Option<(Bytes, bool)> {
    let over = |expires_at: &mut Option<Timestamp>| expires_at.take_if(|at| *at <= now).is_some();
    let without = match verb {
        Verb::Provision => ProvisionCommand::decode(body)
            .ok()
            .and_then(|mut command| over(&mut command.expires_at).then(|| command.encode())),
        Verb::Terminate => TerminateCommand::decode(body)
            .ok()
            .and_then(|mut command| over(&mut command.expires_at).then(|| command.encode())),
        Verb::Pool => PoolCommand::decode(body)
            .ok()
            .and_then(|mut command| over(&mut command.expires_at).then(|| command.encode())),
        Verb::Sweep => None,
    };
    match without {
        Some(body) => Some((body.into(), true)),
        None => Some((respaced(body)?, false)),
    }
}

/// The same command with a blank more at its end, or with those that it has gone: no reader minds.
fn respaced(body: &Bytes) -> Option<Bytes> {
    let trimmed = body.trim_ascii_end();
    if trimmed.len() < body.len() {
        return Some(body.slice(..trimmed.len()));
    }
    (body.len() < MAX_BYTES).then(|| [trimmed, b"\n"].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_other_ones_and_the_command_is_the_same() {
        for body in [r#"{"command_id":"c-1"}"#, "{\"command_id\":\"c-1\"}\n", "not JSON", ""] {
            let body = Bytes::from_static(body.as_bytes());
            let (again, expired) = renewed(Verb::Provision, &body, Timestamp::now()).unwrap();
            assert!(again != body && !expired, "{body:?}");
            assert_eq!(again.trim_ascii_end(), body.trim_ascii_end());
        }
    }

    #[test]
    fn only_an_expiry_that_is_over_is_left_out() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let command = |at: &str| Bytes::from(format!(r#"{{"command_id":"c-1","expires_at":"{at}"}}"#));
        let (body, expired) = renewed(Verb::Provision, &command("2026-01-01T00:00:00Z"), now).unwrap();
        assert!(expired && body == r#"{"command_id":"c-1"}"#, "{body:?}");
        assert!(!renewed(Verb::Provision, &command("2026-01-03T00:00:00Z"), now).unwrap().1);
    }

    #[test]
    fn a_command_that_cannot_be_told_from_its_letter_is_not_put_back() {
        for (length, renewable) in [(MAX_BYTES - 1, true), (MAX_BYTES, false), (MAX_BYTES + 1, false)] {
            let body = Bytes::from(vec![b'x'; length]);
            assert_eq!(renewed(Verb::Provision, &body, Timestamp::now()).is_some(), renewable, "{length}");
        }
    }
}
