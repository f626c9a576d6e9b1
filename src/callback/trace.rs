//! `TraceContext`: the trace that a request belongs to, by W3C Trace Context.
//!
//! The service starts no span of its own. It passes the context on unchanged, so that a consumer
//! continues the trace of the proxy in front.

use std::fmt;
use std::iter;
use std::num::NonZeroU128;

use bytes::Bytes;

/// The names of the two headers, in requests and in records.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// A longer `tracestate` is dropped. The specification asks for at least this length.
const TRACESTATE_BYTES_MAX: usize = 512;

/// The trace context of a request. Anyone who can post chooses it: the signature does not cover it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    traceparent: Bytes,
    tracestate: Option<Bytes>,
}

/// The id that all spans of a trace share. It is displayed as 32 hexadecimal digits, as in
/// `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

impl TraceContext {
    /// The trace context of a request or of a record, by the values that it has for a header's name.
    ///
    /// `None` unless there is exactly one `traceparent` and it is valid in version 00: other versions
    /// may mean something that a consumer would misread. A `tracestate` in several headers is joined
    /// with commas, in order. One that is empty, too long or not printable ASCII is dropped alone.
    pub fn from_headers<V, I>(values: impl Fn(&'static str) -> I) -> Option<Self>
    where
        V: AsRef<[u8]>,
        I: IntoIterator<Item = V>,
    {
        let mut traceparents = values(TRACEPARENT).into_iter();
        let (Some(traceparent), None) = (traceparents.next(), traceparents.next()) else {
            return None;
        };
        // Copied, because it is a slice of the connection's read buffer, which must not live on.
        let traceparent = traceparent.as_ref();
        Some(Self {
            trace_id: trace_id(traceparent)?,
            traceparent: Bytes::copy_from_slice(traceparent),
            tracestate: tracestate(values(TRACESTATE)),
        })
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The headers of a record that carry it on.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        let tracestate = self.tracestate.iter().map(|value| (TRACESTATE, value));
        iter::once((TRACEPARENT, &self.traceparent)).chain(tracestate)
    }

    /// Whether a header of a record belongs to its trace context.
    pub fn is_header(name: &str) -> bool {
        [TRACEPARENT, TRACESTATE].contains(&name)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The trace id of a valid `traceparent` of version 00:
/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
fn trace_id(traceparent: &[u8]) -> Option<TraceId> {
    let mut fields = traceparent
        .strip_prefix(b"00-")?
        .split(|byte| *byte == b'-');
    let trace_id = hex(fields.next()?, 32)?;
    hex(fields.next()?, 16).filter(|parent_id| *parent_id != 0)?;
    // The flags. Bits that version 00 does not define are passed on too.
    hex(fields.next()?, 2)?;
    match fields.next() {
        None => NonZeroU128::new(trace_id).map(TraceId),
        Some(_) => None,
    }
}

/// The value of this number of lower-case hexadecimal digits.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    let is_lower_case = text
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != digits || !is_lower_case {
        return None;
    }
    u128::from_str_radix(str::from_utf8(text).ok()?, 16).ok()
}

fn tracestate<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Option<Bytes> {
    let mut joined = Vec::new();
    for value in values {
        let value = value.as_ref();
        if !joined.is_empty() && !value.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(value);
        if joined.len() > TRACESTATE_BYTES_MAX {
            return None;
        }
    }
    let is_printable = joined.iter().all(|byte| matches!(byte, b' '..=b'~'));
    (!joined.is_empty() && is_printable).then(|| joined.into())
}
