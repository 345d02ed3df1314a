//! Trace context in the headers of messages.

use async_nats::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::TraceContext;

/// Names the trace and the span in it that asked.
pub const TRACEPARENT: &str = "traceparent";
/// What systems on the way have added.
pub const TRACESTATE: &str = "tracestate";

/// The trace that a message says it is part of. Publishers write the names in any case, as they do over HTTP.
#[must_use]
pub fn read(headers: Option<&HeaderMap>) -> Option<TraceContext> {
    let headers = headers?;
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| AsRef::<str>::as_ref(name).eq_ignore_ascii_case(wanted));
        found.and_then(|(_, values)| values.first()).map(HeaderValue::as_str)
    };
    TraceContext::read(header(TRACEPARENT)?, header(TRACESTATE))
}

/// Says of a message which trace it is part of.
pub fn put(headers: &mut HeaderMap, trace: Option<&TraceContext>) {
    let Some(trace) = trace else { return };
    headers.insert(HeaderName::from_static(TRACEPARENT), trace.traceparent());
    if let Some(state) = trace.tracestate() {
        headers.insert(HeaderName::from_static(TRACESTATE), state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_is_read_back_from_the_headers_it_was_put_into_and_in_any_case() {
        let trace = TraceContext::read(PARENT, Some("a=b"));
        let mut headers = HeaderMap::new();
        put(&mut headers, trace.as_ref());
        assert_eq!(read(Some(&headers)), trace);
        let mut foreign = HeaderMap::new();
        foreign.insert("Traceparent", PARENT);
        foreign.insert("Tracestate", "a=b");
        assert_eq!(read(Some(&foreign)), trace);
    }

    #[test]
    fn without_one_nothing_is_read_or_put() {
        let mut headers = HeaderMap::new();
        put(&mut headers, None);
        assert!(headers.is_empty());
        headers.insert("tracestate", "a=b");
        assert_eq!((read(Some(&headers)), read(None)), (None, None));
    }
}
