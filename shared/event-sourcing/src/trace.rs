//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>, level 1): the thread that every event of a story hangs
//! on, carried whether anybody exports traces or not.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::random_id;

/// The target of spans that tell the story of an order.
pub const STORY: &str = "story";

/// Where in which trace something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: String,
    span_id: String,
    flags: String,
    /// The vendors' own list, passed on as it came.
    pub state: String,
    origin: Origin,
}

/// Where a trace context comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It came with a request or an event.
    Read,
    /// Nothing readable came: nobody knows of it but us.
    MadeUp,
    /// It is that of a span that somebody collects: whatever happens in it hangs on it.
    Span,
}

impl TraceContext {
    /// A trace of its own.
    #[must_use]
    pub fn new() -> Self {
        let trace_id = random_id().simple().to_string();
        Self { trace_id, span_id: span_id(), flags: "01".to_owned(), state: String::new(), origin: Origin::MadeUp }
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
                    origin: Origin::Read,
                }
            }
            _ => Self::new(),
        }
    }

    /// Of a span that somebody collects.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        if span.is_disabled() {
            return None;
        }
        let context = span.context();
        let span = context.span();
        let it = span.span_context();
        it.is_valid().then(|| Self {
            trace_id: it.trace_id().to_string(),
            span_id: it.span_id().to_string(),
            flags: format!("{:02x}", it.trace_flags().to_u8()),
            state: it.trace_state().header(),
            origin: Origin::Span,
        })
    }

    /// Of the span in which this is called, if somebody collects it.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    /// Where a step happens that no request and no event begins: a span of its own, if somebody collects spans. What
    /// happens in it hangs on it, and it hangs on this.
    #[must_use]
    pub fn step(&self, name: &'static str) -> Self {
        let span = info_span!(target: STORY, parent: None, "step", otel.name = name);
        // It has just been made, so it has no parent yet; while nobody collects spans it needs none.
        let _ = span.set_parent(self.elsewhere());
        Self::of(&span).unwrap_or_else(|| self.clone())
    }

    /// As the OpenTelemetry SDK knows it: where somebody else's span is, if it is known.
    #[must_use]
    pub fn elsewhere(&self) -> Context {
        match self.origin {
            Origin::MadeUp => Context::new(),
            Origin::Read | Origin::Span => Context::new().with_remote_span_context(self.span_context()),
        }
    }

    /// As the OpenTelemetry SDK names it; an invalid one if nobody knows of it.
    #[must_use]
    pub fn span_context(&self) -> SpanContext {
        if self.origin == Origin::MadeUp {
            return SpanContext::NONE;
        }
        let trace_id = TraceId::from_hex(&self.trace_id).unwrap_or(TraceId::INVALID);
        let span_id = SpanId::from_hex(&self.span_id).unwrap_or(SpanId::INVALID);
        let flags = TraceFlags::new(u8::from_str_radix(&self.flags, 16).unwrap_or_default());
        SpanContext::new(trace_id, span_id, flags, true, self.state.parse().unwrap_or(TraceState::NONE))
    }

    /// The id of the trace, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// Where what happens here is: in the span that somebody collects, or in a step of its own.
    #[must_use]
    pub fn child(&self) -> Self {
        if self.origin == Origin::Span { self.clone() } else { Self { span_id: span_id(), ..self.clone() } }
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
            let read = TraceContext::read(Some(&fresh.traceparent()), None);
            assert_eq!(read.traceparent(), fresh.traceparent());
        }
    }
}
