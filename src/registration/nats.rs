//! The scheduler over NATS: a request each, as section 5 of the contract has it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;

use super::{ListedWorker, RegisterWorker, RegistrationError, UnregisterWorker, WorkerRegistrationPort};
use crate::bus::requests::{RequestError, Requests};
use crate::bus::trace;
use crate::config::SchedulerConfig;
use crate::domain::{Pool, TraceContext};
use crate::telemetry::in_scheduler_span;
use crate::wire::scheduler::{
    ListReply, ListRequest, Listed, RegisterReply, RegisterRequest, Unreadable, UnregisterReply, UnregisterRequest,
};

/// When a draining scheduler that does not say when is asked again.
const DRAIN_PACE: Duration = Duration::from_millis(500);
/// Pages of one list at most: a scheduler whose `next` goes round in circles must not hold a sweep for ever.
const MAX_PAGES: usize = 10_000;
/// Pages in a row at most that tell nothing new: a list that only says that there is more, or begins again and again, is
/// asked as fast as it answers.
const MAX_EMPTY: usize = 100;

/// A scheduler that listens on three subjects.
#[derive(Debug, Clone)]
pub struct NatsScheduler {
    requests: Requests,
    register: Subject,
    unregister: Subject,
    list: Subject,
    try_timeout: Duration,
}

impl NatsScheduler {
    /// A scheduler on the subjects of `config`.
    #[must_use]
    pub fn new(requests: Requests, config: &SchedulerConfig) -> Self {
        let SchedulerConfig { register, unregister, list, try_timeout, unregister_timeout: _ } = config;
        Self {
            requests,
            register: Subject::from(register.as_str()),
            unregister: Subject::from(unregister.as_str()),
            list: Subject::from(list.as_str()),
            try_timeout: *try_timeout,
        }
    }

    async fn ask(
        &self,
        subject: &Subject,
        body: Vec<u8>,
        trace: Option<&TraceContext>,
    ) -> Result<Message, RequestError> {
        let headers = trace.map(|trace| {
            let mut headers = HeaderMap::new();
            trace::put(&mut headers, Some(trace));
            headers
        });
        self.requests.send(subject.clone(), headers, Bytes::from(body), self.try_timeout).await
    }

    async fn register_now(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        let reply = self.ask(&self.register, RegisterRequest::from(request).encode(), request.trace.as_ref()).await?;
        match RegisterReply::decode(&reply.payload)? {
            RegisterReply::Accepted | RegisterReply::Already => Ok(()),
            RegisterReply::Rejected { code, message } => Err(RegistrationError::Rejected { code, message }),
            RegisterReply::Busy { retry_after_ms } => {
                Err(RegistrationError::Busy { retry_after: Duration::from_millis(retry_after_ms) })
            }
        }
    }

    async fn unregister_now(&self, request: &UnregisterWorker) -> Result<(), RegistrationError> {
        let reply =
            self.ask(&self.unregister, UnregisterRequest::from(request).encode(), request.trace.as_ref()).await?;
        match UnregisterReply::decode(&reply.payload)? {
            UnregisterReply::Accepted | UnregisterReply::Unknown => Ok(()),
            UnregisterReply::Busy { retry_after_ms } => {
                Err(RegistrationError::Busy { retry_after: retry_after_ms.map_or(DRAIN_PACE, Duration::from_millis) })
            }
        }
    }
}

impl WorkerRegistrationPort for NatsScheduler {
    async fn register_worker(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        in_scheduler_span("register", self.register_now(request)).await
    }

    async fn unregister_worker(&self, request: &UnregisterWorker) -> Result<(), RegistrationError> {
        in_scheduler_span("unregister", self.unregister_now(request)).await
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Option<Vec<ListedWorker>>, RegistrationError> {
        let (mut workers, mut empty) = (BTreeMap::new(), 0);
        let mut request = ListRequest { pool: Some(pool.clone()), after: None };
        for _ in 0..MAX_PAGES {
            let reply = match self.ask(&self.list, request.encode(), None).await {
                // Only before the first page: half a list would make the sweep register anew what is registered.
                Err(RequestError::NoResponders) if request.after.is_none() => return Ok(None),
                answer => answer?,
            };
            let ListReply { workers: page, next } = ListReply::decode(&reply.payload)?;
            let mut is_empty = true;
            for Listed { worker_id, pool: of, epoch } in page {
                // A scheduler may not know the filter: another pool's worker would look like one without a record.
                if of != *pool {
                    is_empty = false;
                    continue;
                }
                // Listed twice, the higher epoch counts: what is told to it must not be below any that it has seen.
                match workers.entry(worker_id) {
                    Entry::Vacant(place) => {
                        is_empty = false;
                        place.insert(epoch);
                    }
                    Entry::Occupied(mut known) => *known.get_mut() = epoch.max(*known.get()),
                }
            }
            empty = if is_empty { empty + 1 } else { 0 };
            if next.is_none() {
                let listed = |(worker_id, epoch)| ListedWorker { worker_id, pool: pool.clone(), epoch };
                return Ok(Some(workers.into_iter().map(listed).collect()));
            }
            if next == request.after || empty > MAX_EMPTY {
                break;
            }
            request.after = next;
        }
        Err(RegistrationError::Unreadable("the scheduler's list has no end".to_owned()))
    }
}

impl From<RequestError> for RegistrationError {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::NoResponders => "no_responders",
            RequestError::TimedOut => "timeout",
            RequestError::Disconnected => "disconnected",
            // A subject setting that cannot be, or a limit of the broker: an operator mends it and the sweep goes on, so it
            // is no refusal by the scheduler.
            RequestError::Unsendable(_) => "unsendable",
        };
        Self::Unavailable { code, message: error.to_string() }
    }
}

impl From<Unreadable> for RegistrationError {
    fn from(Unreadable(message): Unreadable) -> Self {
        Self::Unreadable(message)
    }
}
