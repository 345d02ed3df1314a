//! A verb's own connection, for sending commands and hearing of them.

use futures_util::stream::BoxStream;

use crate::bus::batch::BatchError;
use crate::bus::connection;
use crate::bus::requests::Requests;
use crate::bus::subjects::Subjects;
use crate::bus::view::{Filter, Seen, View, wanted};
use crate::config::Config;
use crate::domain::{Pool, Worker};

pub(super) use crate::bus::orders::{LOOK_EVERY, News, NotTaken, Order, Orders, Told};

/// Connects as the settings say.
pub(super) async fn connect(config: &Config, name: &str) -> anyhow::Result<Orders> {
    let connection = connection::connect(&config.nats, name).await?;
    let requests = Requests::start(connection.client.clone()).await?;
    let subjects = Subjects::new(&config.prefix);
    Ok(Orders::new(connection, requests, subjects, config.nats.domain.as_deref(), config.nats.shown_url()).by_view())
}

/// The fleet, for reading.
pub(super) fn view(orders: &Orders) -> View {
    let view = View::on(orders.connection.client.clone(), orders.subjects.clone(), &orders.api_prefix);
    view.heeding(orders.connection.clone())
}

/// The newest record of each worker and pool, all of them.
pub(super) fn whole(orders: &Orders, pool: Option<&Pool>) -> BoxStream<'static, Result<Seen, BatchError>> {
    view(orders).whole(&orders.connection, &orders.requests, pool)
}

/// Each worker that is wanted, and its place in the view.
pub(super) fn workers(orders: &Orders, filter: Filter) -> BoxStream<'static, Result<(Worker, u64), BatchError>> {
    wanted(whole(orders, filter.pool.as_ref()), filter)
}

/// What a person can do about a fleet that cannot be read.
pub(super) fn no_fleet(orders: &Orders, error: &BatchError) -> anyhow::Error {
    let (prefix, url) = (orders.subjects.prefix(), &orders.url);
    let advice = match error {
        BatchError::NobodyThere { .. } => format!(
            "no fleet has prefix {prefix} at {url}: a replica makes its streams when it starts (enlist run); \
             --prefix, --nats-url and --context say where to look"
        ),
        BatchError::Forbidden { .. } => {
            "ask as one who may, such as the operator of `enlist auth init`; `enlist doctor` tells all that is missing"
                .to_owned()
        }
        BatchError::TimedOut { .. } => "enlist doctor tells what is missing".to_owned(),
        BatchError::Disconnected | BatchError::Refused { .. } => "it may be tried again".to_owned(),
    };
    anyhow::anyhow!("{error}; {advice}")
}
