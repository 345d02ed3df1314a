//! A pool's work queue: at least once, and no better than that.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use enlist::bus::streams::ACK_WAIT;
use enlist::domain::Verb;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Within it the server takes one message of an id.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    pub(crate) news: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    messages: BTreeMap<u64, Message>,
    ids: BTreeMap<String, (Instant, u64)>,
    /// Every message that ever was.
    sent: Vec<Sent>,
}

#[derive(Debug)]
struct Message {
    verb: Verb,
    body: Bytes,
    deliveries: u64,
    due: Instant,
}

/// A message that was published.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) sequence: u64,
    pub(crate) verb: Verb,
    pub(crate) body: Bytes,
    /// When it came.
    pub(crate) at: Instant,
    /// How far log and dead letters went at its ack.
    pub(crate) acked: Option<(u64, u64)>,
}

/// A message as it is given out.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) sequence: u64,
    pub(crate) verb: Verb,
    pub(crate) body: Bytes,
    pub(crate) deliveries: u64,
}

impl Queue {
    /// Takes a message, unless one of its id came within the window; `None` for one that misses the window by ill luck.
    pub(crate) fn publish(&self, verb: Verb, id: Option<&str>, body: Bytes) -> (u64, bool) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        if let Some((at, sequence)) = id.and_then(|id| state.ids.get(id))
            && now.duration_since(*at) < DUPLICATE_WINDOW
        {
            return (*sequence, false);
        }
        state.last += 1;
        let sequence = state.last;
        if let Some(id) = id {
            state.ids.insert(id.to_owned(), (now, sequence));
        }
        state.sent.push(Sent { sequence, verb, body: body.clone(), at: now, acked: None });
        state.messages.insert(sequence, Message { verb, body, deliveries: 0, due: now });
        self.news.notify_one();
        (sequence, true)
    }

    /// Messages that are due, each given out until its ack wait is over.
    pub(crate) fn give(&self) -> Vec<Given> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        let due = state.messages.iter_mut().filter(|(_, message)| message.due <= now);
        due.map(|(sequence, message)| {
            message.deliveries += 1;
            message.due = now + ACK_WAIT;
            let Message { verb, body, deliveries, .. } = message;
            Given { sequence: *sequence, verb: *verb, body: body.clone(), deliveries: *deliveries }
        })
        .collect()
    }

    /// When a message came.
    pub(crate) fn sent_at(&self, sequence: u64) -> Instant {
        let state = self.state.lock().unwrap();
        state.sent.iter().find(|sent| sent.sequence == sequence).unwrap().at
    }

    /// Messages of a verb that are not acked.
    pub(crate) fn waiting(&self, verb: Verb) -> usize {
        self.state.lock().unwrap().messages.values().filter(|message| message.verb == verb).count()
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.state.lock().unwrap().messages.values().map(|message| message.due).min()
    }

    /// A sign of life, or a nak: it is due again after that.
    pub(crate) fn due_in(&self, sequence: u64, after: Duration) {
        if let Some(message) = self.state.lock().unwrap().messages.get_mut(&sequence) {
            message.due = Instant::now() + after;
        }
        self.news.notify_one();
    }

    pub(crate) fn ack(&self, sequence: u64, events: u64, dead: u64) {
        let mut state = self.state.lock().unwrap();
        if state.messages.remove(&sequence).is_some()
            && let Some(sent) = state.sent.iter_mut().find(|sent| sent.sequence == sequence)
        {
            sent.acked = Some((events, dead));
        }
    }

    pub(crate) fn holds(&self, sequence: u64) -> bool {
        self.state.lock().unwrap().messages.contains_key(&sequence)
    }

    /// What is left, sweeps apart, which come for ever.
    pub(crate) fn left(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state
            .messages
            .iter()
            .filter(|(_, message)| message.verb != Verb::Sweep)
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().sent.clone()
    }

    pub(crate) fn body(&self, sequence: u64) -> Option<(Verb, Bytes)> {
        let state = self.state.lock().unwrap();
        let at = usize::try_from(sequence).unwrap().checked_sub(1)?;
        state.sent.get(at).map(|sent| (sent.verb, sent.body.clone()))
    }
}
