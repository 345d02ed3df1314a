//! What stands in the log and is no event: NATS holds no permission against where an answer goes, so that whoever may ask
//! the server anything can have the answer stored on a subject of the log, where it hides the event below it.
//!
//! A `PubAck` or an answer of the `JetStream` API has no header; a copy of a stored message has the server's own.

use async_nats::HeaderMap;

use super::stored::Stored;
use crate::wire::event::WRITER;

/// Where the message stood that this is a copy of. The server adds it to each copy, after the headers that the message has.
const COPY: &str = "Nats-Stream";
/// The same of what a stream has taken from another: every entry of the view has it, and no event.
const TAKEN: &str = "Nats-Stream-Source";

/// For people.
pub const NO_EVENT: &str = "it is no event of enlist: somebody has used this subject as a reply subject";

/// Whether a message of the log, as a consumer delivers it, is no event.
#[must_use]
pub fn in_log(headers: Option<&HeaderMap>) -> bool {
    headers.is_none_or(|headers| !is_event(|name| headers.get(name).is_some(), &[COPY, TAKEN]))
}

/// The same of a copy of it that the server has made, or of an entry of the view: one `Nats-Stream` is the copy's own.
#[must_use]
pub fn in_copy(headers: &HeaderMap) -> bool {
    headers.get_all(COPY).count() > 1 || headers.get(WRITER).is_none()
}

/// The same of an entry of the view, as a consumer delivers it.
#[must_use]
pub fn in_view(headers: Option<&HeaderMap>) -> bool {
    headers.is_none_or(|headers| !is_event(|name| headers.get(name).is_some(), &[COPY]))
}

impl Stored {
    /// Whether it stands in the log and is no event.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        !is_event(|name| self.header(name).is_some(), &[COPY, TAKEN])
    }

    /// Whether it stands in the view and shows no event.
    #[must_use]
    pub fn shows_foreign(&self) -> bool {
        !is_event(|name| self.header(name).is_some(), &[COPY])
    }
}

fn is_event(has: impl Fn(&'static str) -> bool, copied: &[&'static str]) -> bool {
    has(WRITER) && !copied.iter().any(|name| has(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, "x");
        }
        headers
    }

    #[test]
    fn an_event_has_its_writer_s_header_and_none_that_a_copy_has() {
        assert!(in_log(None) && in_log(Some(&headers(&["Content-Type"]))));
        assert!(!in_log(Some(&headers(&[WRITER, "Nats-Expected-Last-Subject-Sequence"]))));
        for copied in [COPY, TAKEN] {
            assert!(in_log(Some(&headers(&[WRITER, copied]))), "{copied}");
        }
    }

    #[test]
    fn an_entry_of_the_view_was_taken_from_the_log_and_is_no_copy_of_a_copy() {
        assert!(!in_view(Some(&headers(&[WRITER, TAKEN]))));
        assert!(in_view(None) && in_view(Some(&headers(&[TAKEN]))) && in_view(Some(&headers(&[WRITER, COPY, TAKEN]))));
    }

    #[test]
    fn a_reader_s_copy_of_an_event_is_told_from_its_copy_of_a_copy() {
        assert!(!in_copy(&headers(&[WRITER, COPY])));
        assert!(!in_copy(&headers(&[WRITER, TAKEN, COPY])), "an entry of the view");
        assert!(in_copy(&headers(&[WRITER, COPY, TAKEN, COPY])) && in_copy(&headers(&[COPY])));
    }
}
