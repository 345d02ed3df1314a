//! Where a stream stands, asked by one who may lack the right to, or who comes before there is a fleet.

use std::time::Instant;

use super::batch::BatchError;
use super::connection::Connection;
use super::requests::{RequestError, Requests};
use super::stored::{self, ReadStoredError};
use crate::text::cut;

/// `JSStreamNotFoundErr` of nats-server.
const NO_STREAM: u64 = 10059;

/// The sequence of a stream's newest message, or why it cannot be told, at once where a right is missing.
pub async fn standing(
    connection: &Connection,
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
) -> Result<u64, BatchError> {
    let (begun, subject, stream) = (Instant::now(), format!("{api_prefix}.STREAM.INFO.{stream}"), stream.to_owned());
    let asked = stored::last_sequence(requests, api_prefix, &stream);
    let asked = connection.unless_refused(begun, &[&subject], asked).await;
    match asked.map_err(|said| BatchError::Forbidden { stream: stream.clone(), complaint: cut(&said, 300) })? {
        Ok(sequence) => Ok(sequence),
        Err(ReadStoredError::Request(RequestError::NoResponders)) => Err(BatchError::NobodyThere { stream }),
        Err(ReadStoredError::Request(RequestError::TimedOut)) => Err(BatchError::TimedOut { stream, subject }),
        Err(ReadStoredError::Request(RequestError::Disconnected)) => Err(BatchError::Disconnected),
        Err(ReadStoredError::Api(error)) if error.err_code == NO_STREAM => Err(BatchError::NobodyThere { stream }),
        Err(error) => Err(BatchError::Refused { stream, cause: error.to_string() }),
    }
}
