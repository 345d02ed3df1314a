//! A verb's own connection, for sending commands and hearing of them.

use crate::bus::connection;
use crate::bus::requests::Requests;
use crate::bus::subjects::Subjects;
use crate::config::Config;

pub(super) use crate::bus::orders::{LOOK_EVERY, News, Order, Orders, Told};

/// Connects as the settings say.
pub(super) async fn connect(config: &Config, name: &str) -> anyhow::Result<Orders> {
    let connection = connection::connect(&config.nats, name).await?;
    let requests = Requests::start(connection.client.clone()).await?;
    let subjects = Subjects::new(&config.prefix);
    Ok(Orders::new(connection, requests, subjects, config.nats.domain.as_deref(), config.nats.shown_url()))
}
