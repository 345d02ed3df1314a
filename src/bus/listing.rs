//! The whole view, once: by a consumer, where the server lets us make one.
//!
//! The server counts what is left behind each batch of direct gets by a look at every subject, so that a fleet of 100,000
//! costs it seconds; a consumer has it look once. But whoever may make one may have it deliver anywhere, the log included,
//! so that the role of a reader does not have that right: then it is batches.

use std::time::{Duration, Instant};

use futures_util::stream::{BoxStream, StreamExt as _, unfold};

use super::batch::BatchError;
use super::connection::Connection;
use super::foreign;
use super::pass::{Pass, Passed};
use super::requests::Requests;
use super::view::{Seen, View, read};
use crate::domain::Pool;

/// A server that does not let us says so to the connection alone, and within a round trip.
const ASKED_EVERY: Duration = Duration::from_millis(10);

/// Where a listing stands. Moved with each record, and so kept small.
enum Listing {
    /// Nothing is asked for yet.
    Begins(Box<(View, Connection, Requests, Option<Pool>)>),
    /// The consumer delivers; where it breaks, the rest comes in batches.
    Passes { pass: Box<Pass>, reached: u64, rest: Box<(View, Option<Pool>)> },
    /// Batches.
    Walks(BoxStream<'static, Result<Seen, BatchError>>),
}

impl View {
    /// The newest record of every worker and pool as [`View::records`] gives them, sooner: it is for who wants them all. At
    /// most 32 MiB of messages are on their way, which is where the server waits for the reader.
    #[must_use]
    pub fn whole(
        self,
        connection: &Connection,
        requests: &Requests,
        pool: Option<&Pool>,
    ) -> BoxStream<'static, Result<Seen, BatchError>> {
        let (connection, requests, pool) = (connection.clone(), requests.clone(), pool.cloned());
        unfold(Listing::Begins(Box::new((self, connection, requests, pool))), Listing::next).boxed()
    }
}

impl Listing {
    async fn next(mut self) -> Option<(Result<Seen, BatchError>, Self)> {
        loop {
            self = match self {
                Self::Begins(begins) => {
                    let (view, connection, requests, pool) = *begins;
                    match begin(&view, &connection, &requests, pool.as_ref()).await {
                        Some(pass) => Self::Passes { pass: Box::new(pass), reached: 0, rest: Box::new((view, pool)) },
                        None => Self::Walks(view.records(pool.as_ref(), 0)),
                    }
                }
                Self::Passes { mut pass, reached, rest } => {
                    if pass.left() == 0 {
                        return None;
                    }
                    match pass.next().await {
                        Ok(Passed::Message(message, sequence)) => {
                            let is_foreign = foreign::in_view(message.headers.as_ref());
                            let record = read(message.subject.into_string(), is_foreign, &message.payload);
                            let seen = Seen { sequence, time: pass.time(), record };
                            return Some((Ok(seen), Self::Passes { pass, reached: sequence, rest }));
                        }
                        // What was left when the server told has been overtaken by what is newer.
                        Ok(Passed::Quiet) => return None,
                        Err(_) => Self::Walks(rest.0.records(rest.1.as_ref(), reached)),
                    }
                }
                Self::Walks(mut walk) => {
                    let seen = walk.next().await?;
                    return Some((seen, Self::Walks(walk)));
                }
            };
        }
    }
}

/// `None` where no consumer is to be had.
async fn begin(view: &View, connection: &Connection, requests: &Requests, pool: Option<&Pool>) -> Option<Pass> {
    let begun = Instant::now();
    let (stream, filter) = view.projection(pool);
    let subject = format!("{}.CONSUMER.CREATE.{stream}", view.api_prefix());
    connection.tries(&subject);
    let mut beginning = std::pin::pin!(Pass::begin(requests, view.api_prefix(), &stream, &filter));
    loop {
        match tokio::time::timeout(ASKED_EVERY, beginning.as_mut()).await {
            Ok(pass) => return pass.ok(),
            Err(_) if connection.complaint_since(begun).is_some_and(|text| text.contains(&subject)) => return None,
            Err(_) => {}
        }
    }
}
