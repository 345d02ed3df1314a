//! `get` and `list`: the fleet as the server's own projection has it. For reading; it may trail the log.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Failure, Reply};
use crate::bus::foreign;
use crate::bus::orders::Orders;
use crate::bus::stored;
use crate::bus::view::{Filter, Record, Seen, View};
use crate::domain::WorkerKey;
use crate::wire::scheduler::Unreadable;
use crate::wire::service::{GetRequest, WorkersReply, WorkersRequest};

/// A page ends early where it would be longer than this: a message has its limit, 1 MiB unless the server says otherwise.
const MOST_BYTES: usize = 512 * 1024;
/// Records that one request walks at most: few may be wanted of many.
const WALKED: usize = 20_000;
/// How long it may take. What has been found by then is a page.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Reader {
    orders: Orders,
    view: View,
}

impl Reader {
    pub(super) fn new(orders: &Orders, domain: Option<&str>) -> Self {
        let view = View::new(orders.connection.client.clone(), orders.subjects.clone(), domain);
        Self { orders: orders.clone(), view }
    }

    pub(super) async fn get(&self, body: &[u8]) -> Answer {
        let GetRequest { pool, worker_id } = GetRequest::decode(body).map_err(unreadable)?;
        let key = WorkerKey::new(pool, worker_id);
        let Orders { requests, subjects, api_prefix, .. } = &self.orders;
        let found = stored::last(requests, api_prefix, &subjects.view_stream(), &subjects.view_of(&key)).await;
        match found.map_err(|error| Failure::away(&error))? {
            Some(shown) if shown.shows_foreign() => {
                Err(Failure::new(503, format!("the view does not show {key} now: {}", foreign::NO_EVENT)))
            }
            Some(stored) => Ok(Reply::event(stored.body)),
            None => Err(Failure::new(404, format!("no worker {key} is on record"))),
        }
    }

    pub(super) async fn list(&self, body: &[u8]) -> Answer {
        let WorkersRequest { pool, states, after, limit } = WorkersRequest::decode(body).map_err(unreadable)?;
        let records = self.view.records(pool.as_ref(), after.unwrap_or_default());
        let filter = Filter { pool, states, ..Filter::default() };
        Ok(Reply::json(page(records, &filter, limit as usize).await?.encode()))
    }
}

/// The workers of a page. It ends where it is full, and where the view has been walked for long enough: the next one goes on
/// there.
async fn page<E: std::fmt::Display>(
    mut records: impl Stream<Item = Result<Seen, E>> + Unpin,
    filter: &Filter,
    limit: usize,
) -> Result<WorkersReply, Failure> {
    let (mut reply, mut last, mut bytes) = (WorkersReply { workers: Vec::new(), next: None }, 0, 0);
    let end = Instant::now() + PATIENCE;
    for walked in 0.. {
        let seen = match timeout_at(end, records.next()).await {
            Ok(Some(seen)) => seen.map_err(|error| Failure::away(&error))?,
            Ok(None) => break,
            Err(_) if walked == 0 => {
                return Err(Failure::new(503, "the view gives no answer in time; ask again later"));
            }
            Err(_) => {
                reply.next = Some(last);
                break;
            }
        };
        let Seen { sequence, record, .. } = seen;
        if walked == WALKED {
            reply.next = Some(last);
            break;
        }
        if let Record::Worker(worker) = record
            && filter.takes(&worker)
        {
            bytes += WorkersReply::size_of(&worker);
            // One more than fits is seen, so that the last page says that it is.
            if reply.workers.len() == limit || (bytes > MOST_BYTES && !reply.workers.is_empty()) {
                reply.next = Some(last);
                break;
            }
            reply.workers.push(*worker);
        }
        last = sequence;
    }
    Ok(reply)
}

fn unreadable(Unreadable(why): Unreadable) -> Failure {
    Failure::new(400, why)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn of_no_use(sequence: u64) -> Seen {
        let record = Record::Unreadable(String::new(), String::new());
        Seen { sequence, time: jiff::Timestamp::UNIX_EPOCH, record }
    }

    fn view(upto: u64) -> impl Stream<Item = Result<Seen, std::convert::Infallible>> + Unpin {
        stream::iter((1..=upto).map(|sequence| Ok(of_no_use(sequence))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_walks_so_far_and_so_long_and_says_where_the_next_one_goes_on() {
        let walked = u64::try_from(WALKED).unwrap();
        for (there, next) in [(walked, None), (walked + 1, Some(walked))] {
            let reply = page(view(there), &Filter::default(), 1).await.ok().unwrap();
            assert_eq!((reply.workers.len(), reply.next), (0, next), "{there}");
        }
        let slow = view(3).chain(stream::pending());
        assert_eq!(page(slow, &Filter::default(), 1).await.ok().unwrap().next, Some(3));
        let silent = stream::pending::<Result<Seen, std::convert::Infallible>>();
        assert!(page(silent, &Filter::default(), 1).await.is_err());
    }
}
