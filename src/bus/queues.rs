//! The pools that have a queue on the broker, as the server lists them: page by page.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::connection::Connection;
use super::requests::Requests;
use super::streams::StreamsError;
use super::subjects::Subjects;
use crate::domain::Pool;
use crate::text::cut;
use crate::wire::publish::ApiError;

const PATIENCE: Duration = Duration::from_secs(5);

/// A page of names. The server has no array where it has no name.
#[derive(Deserialize)]
struct Page {
    error: Option<ApiError>,
    #[serde(default)]
    total: usize,
    streams: Option<Vec<String>>,
}

/// Every pool of the fleet that has a queue, whoever serves it.
pub async fn queues(
    connection: &Connection,
    requests: &Requests,
    subjects: &Subjects,
    api_prefix: &str,
) -> Result<Vec<Pool>, StreamsError> {
    let subject = format!("{api_prefix}.STREAM.NAMES");
    let failed = |cause: String| {
        let action = "list the queues of the pools".to_owned();
        StreamsError::Server { action, cause: cut(&cause, 300), complaint: String::new() }
    };
    // Whoever asks tells of it.
    connection.tries(&subject);
    let prefix = format!("{}_CMD_", subjects.prefix().as_str().to_ascii_uppercase());
    let (mut pools, mut offset) = (Vec::new(), 0);
    loop {
        let query = json!({ "subject": format!("{}.cmd.*.provision", subjects.prefix()), "offset": offset });
        let sent = requests.send(subject.clone(), None, query.to_string().into(), PATIENCE);
        let reply = connection.unless_refused(Instant::now(), &[&subject], sent).await.map_err(failed)?;
        let reply = reply.map_err(|error| failed(error.to_string()))?;
        let page: Page = serde_json::from_slice(&reply.payload).map_err(|error| failed(error.to_string()))?;
        if let Some(error) = page.error {
            return Err(failed(error.to_string()));
        }
        let names = page.streams.unwrap_or_default();
        offset += names.len();
        pools.extend(names.iter().filter_map(|name| Pool::new(name.strip_prefix(&prefix)?).ok()));
        if names.is_empty() || offset >= page.total {
            return Ok(pools);
        }
    }
}
