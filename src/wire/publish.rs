//! What the server answers to a publish.

use serde::Deserialize;

/// A stored message's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubAck {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// It was there already, by its `Nats-Msg-Id`.
    pub duplicate: bool,
}

/// An error of the server's API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub struct ApiError {
    /// Like an HTTP status.
    #[serde(default)]
    pub code: u64,
    /// The server's own number (nats-server, `server/errors.json`).
    #[serde(default)]
    pub err_code: u64,
    /// For people.
    #[serde(default)]
    pub description: String,
}

impl ApiError {
    /// A compare-and-set that failed, or that the server could not decide: 10071 and 10164 both ask to read the head again.
    #[must_use]
    pub fn is_wrong_last_sequence(&self) -> bool {
        matches!(self.err_code, 10071 | 10164)
    }
}

impl PubAck {
    /// Reads the reply to a publish. A reply that cannot be read is an [`ApiError`] with number 0.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            seq: Option<u64>,
            #[serde(default)]
            duplicate: bool,
            error: Option<ApiError>,
        }
        let unreadable = |description: String| ApiError { code: 0, err_code: 0, description };
        match serde_json::from_slice(body) {
            Ok(Answer { error: Some(error), .. }) => Err(error),
            Ok(Answer { seq: Some(sequence), duplicate, error: None }) => Ok(Self { sequence, duplicate }),
            Ok(Answer { seq: None, .. }) => Err(unreadable("a reply without a sequence".into())),
            Err(error) => Err(unreadable(format!("an unreadable reply: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pub_ack_and_an_error_are_told_apart() {
        let ack = PubAck::read(br#"{"stream":"ENLIST_EVENTS","seq":7}"#).unwrap();
        assert_eq!(ack, PubAck { sequence: 7, duplicate: false });
        let error = PubAck::read(
            br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"X","seq":0}"#,
        )
        .unwrap_err();
        assert!(error.is_wrong_last_sequence());
        assert!(PubAck::read(b"nonsense").is_err());
    }
}
