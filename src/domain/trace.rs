//! W3C trace context: the trace that a command is part of. Carried along as it came, never invented.

use std::sync::Arc;

/// A `traceparent` of version 00.
const LENGTH: usize = 55;
/// What the specification asks everybody to carry; more than that may be dropped, and is.
const LONGEST_STATE: usize = 512;

/// The `traceparent` of a command and its `tracestate`; cheap to clone.
///
/// Foreign text that goes into headers, events and environments: only what has the exact form gets here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(Arc<Texts>);

#[derive(Debug, PartialEq, Eq)]
struct Texts {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// Reads both texts. A `traceparent` that is none is as good as absent, as the specification has it: nobody's command
    /// fails for its trace. A `tracestate` that is none is left out.
    #[must_use]
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parent.trim();
        let fields = parent.get(..LENGTH)?;
        let mut parts = fields.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let set = |text: &str| text.bytes().any(|byte| byte != b'0');
        let formed = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && parts.next().is_none();
        let rest = &parent[LENGTH..];
        // A later version may have more to say behind another dash; what this one knows of it is passed on as this one.
        let known = if version == "00" {
            rest.is_empty()
        } else {
            version != "ff" && (rest.is_empty() || rest.starts_with('-'))
        };
        if !(formed && set(trace) && set(span) && known) {
            return None;
        }
        let state = state.map(str::trim).filter(|state| is_state(state)).map(ToOwned::to_owned);
        Some(Self(Arc::new(Texts { parent: format!("00{}", &fields[2..]), state })))
    }

    /// `00-<trace>-<parent>-<flags>`.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.0.parent
    }

    /// What systems on the way have added.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.0.state.as_deref()
    }

    /// As a worker that is part of the trace finds it in its environment.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("TRACEPARENT", self.traceparent())].into_iter().chain(self.tracestate().map(|state| ("TRACESTATE", state)))
    }
}

fn is_state(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_STATE && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parent(text: &str) -> Option<String> {
        TraceContext::read(text, None).map(|trace| trace.traceparent().to_owned())
    }

    #[test]
    fn what_has_the_form_is_carried_as_it_came() {
        let trace = TraceContext::read(PARENT, Some("vendor=a:1,other=b")).unwrap();
        assert_eq!((trace.traceparent(), trace.tracestate()), (PARENT, Some("vendor=a:1,other=b")));
        let environment: Vec<_> = trace.environment().collect();
        assert_eq!(environment, [("TRACEPARENT", PARENT), ("TRACESTATE", "vendor=a:1,other=b")]);
        assert_eq!(parent(PARENT).unwrap(), PARENT);
    }

    #[test]
    fn what_has_not_is_as_good_as_absent() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let no_parent = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let upper = PARENT.to_uppercase();
        let (longer, never) = (format!("{PARENT}-x"), PARENT.replacen("00", "ff", 1));
        let shifted = "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01";
        for text in ["", "x", zeros, no_parent, &upper, &longer, &never, shifted, &PARENT[..54], "00-é"] {
            assert_eq!(parent(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_this_one_goes() {
        let later = PARENT.replacen("00", "cc", 1);
        assert_eq!(parent(&later).unwrap(), PARENT);
        assert_eq!(parent(&format!("{later}-what-the-future-holds")).unwrap(), PARENT);
        assert_eq!(parent(&format!("{later}.x")), None);
    }

    #[test]
    fn a_state_that_could_not_be_a_header_is_left_out() {
        for state in ["", "a=b\nEvil: header", "a=\u{e9}", &"x".repeat(513)] {
            assert_eq!(TraceContext::read(PARENT, Some(state)).unwrap().tracestate(), None, "{state:?}");
        }
    }
}
