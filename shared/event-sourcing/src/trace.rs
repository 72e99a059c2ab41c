//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>, level 1): the thread that every event of a story hangs
//! on, carried whether anybody exports traces or not.

use crate::random_id;

/// Where in which trace something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: String,
    span_id: String,
    flags: String,
    /// The vendors' own list, passed on as it came.
    pub state: String,
}

impl TraceContext {
    /// A trace of its own.
    #[must_use]
    pub fn new() -> Self {
        let trace_id = random_id().simple().to_string();
        Self { trace_id, span_id: span_id(), flags: "01".to_owned(), state: String::new() }
    }

    /// What came in with a request or an event; a trace of its own if that says nothing readable.
    #[must_use]
    pub fn read(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let hex = |text: &str, length| {
            text.len() == length
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && (length == 2 || text.bytes().any(|byte| byte != b'0'))
        };
        let printable = |byte| matches!(byte, b' '..=b'~');
        let parts: Vec<_> = traceparent.unwrap_or_default().split('-').collect();
        match parts[..] {
            [version, trace_id, span_id, flags, ..]
                if hex(version, 2)
                    && version != "ff"
                    && (version != "00" || parts.len() == 4)
                    && hex(trace_id, 32)
                    && hex(span_id, 16)
                    && hex(flags, 2) =>
            {
                Self {
                    trace_id: trace_id.to_owned(),
                    span_id: span_id.to_owned(),
                    flags: flags.to_owned(),
                    // Printable ASCII, or it was nothing that anybody may pass on (section 3.3).
                    state: tracestate.filter(|state| state.bytes().all(printable)).unwrap_or_default().to_owned(),
                }
            }
            _ => Self::new(),
        }
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: span_id(), ..self.clone() }
    }

    /// As a `traceparent` header or attribute.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags)
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

fn span_id() -> String {
    // The second half of a random UUID: its two fixed bits make it never all zeros.
    random_id().simple().to_string()[16..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_keeps_its_trace_and_every_step_has_a_span_of_its_own() {
        let parent = TraceContext::read(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), Some("a=1"));
        let child = parent.child();
        assert!(child.traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert_ne!(child.traceparent(), parent.traceparent());
        assert_eq!(child.state, "a=1");
    }

    #[test]
    fn a_state_that_nobody_may_pass_on_is_left_behind() {
        let parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        for state in ["a=\0", "a=1\n", "a=ü"] {
            assert_eq!(TraceContext::read(parent, Some(state)).state, "");
        }
    }

    #[test]
    fn what_cannot_be_read_begins_a_trace_of_its_own() {
        for unreadable in [
            "",
            "garbage",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let fresh = TraceContext::read(Some(unreadable), Some("a=1"));
            assert_eq!(fresh.state, "", "{unreadable}");
            assert_eq!(TraceContext::read(Some(&fresh.traceparent()), None), fresh);
        }
    }
}
