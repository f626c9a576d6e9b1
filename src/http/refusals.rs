//! Counts refused requests, and logs each kind at most once a minute, and the rest at a stop.
//!
//! A sender with a wrong URL, a proxy with a wrong setting and a disk that hangs look alike from
//! outside: nothing arrives. No line contains text of a request.

use std::sync::Arc;
use std::time::Instant;

use strum::VariantArray;
use tracing::field;

use crate::callback::TraceId;
use crate::event::Label;
use crate::log::{Due, Tally};
use crate::metrics::{ConnectionMetrics, Problem, Problems, RefusalReason};

/// What was refused. Each kind has a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(super) enum Refused {
    OtherPath,
    SlashAtTheEnd,
    OtherPathNotPost,
    Get,
    OtherMethod,
    NotHttp,
    HeadTooLarge,
    CutOff,
    SlowHead,
    ProxyHeader,
    TlsWithoutCertificate,
    Http2,
    PlainHttp,
    ProxyHeaderBeforeTls,
    UntrustedCertificate,
    Handshake,
    Forbidden,
    ContentEncoding,
    BodyBroken,
    BodyTooSlow,
    BodyTooLarge,
    HeaderTooLarge,
    BodiesFull,
    ConnectionsFull,
    QueueFull,
    NotDurableInTime,
    Rejected,
}

/// The parts of a line: `3 requests` + which + `were` + done + `in the last minute` + rest.
struct Line {
    noun: &'static str,
    which: &'static str,
    done: &'static str,
    rest: &'static str,
}

/// Counts refusals and logs them.
#[derive(Debug)]
pub(crate) struct Refusals {
    metrics: ConnectionMetrics,
    problems: Arc<Problems>,
    /// Each with the trace id of an example, if it has one.
    tallies: [Tally<Option<TraceId>>; Refused::VARIANTS.len()],
}

impl Refusals {
    pub(super) fn new(metrics: ConnectionMetrics, problems: Arc<Problems>) -> Self {
        Self {
            metrics,
            problems,
            tallies: Default::default(),
        }
    }

    /// Counts a request of this trace, and logs it if its line is due.
    pub(super) fn count(&self, refused: Refused, trace_id: Option<TraceId>) {
        if let Some(reason) = refused.reason() {
            self.metrics.request_refused(reason);
        }
        if let Some(tally) = self.tallies.get(refused as usize)
            && let Some(due) = tally.add(Instant::now(), || trace_id)
        {
            refused.log(&due);
        }
        if !refused.is_authentic() {
            self.list(refused, None, None);
        }
    }

    /// Lists it as a problem: of an authentic callback with its application, if that is a configured
    /// one, and its event.
    pub(super) fn list(&self, refused: Refused, appid: Option<&str>, event: Option<Label>) {
        let Line {
            noun,
            which,
            done,
            rest,
        } = refused.line();
        let (reason, advice) = match which.trim_matches([' ', ',']) {
            "" => (rest, ""),
            which => (which, rest),
        };
        let event = event.filter(|event| *event != Label::OTHER);
        let problem = Problem {
            kind: &format!("{noun} {done}"),
            appid,
            event: event.map(Label::name),
            reason: reason.trim_start_matches([' ', ';']),
        };
        let detail = || advice.trim_start_matches([' ', ';']).to_owned();
        match refused.is_authentic() {
            true => self.problems.add(problem, detail),
            false => self.problems.add_unauthenticated(problem, detail),
        }
    }

    /// Logs what was refused in the last minute and is not logged yet; to be called each second.
    pub(super) fn log_due(&self, now: Instant) {
        for (refused, tally) in Refused::VARIANTS.iter().zip(&self.tallies) {
            if let Some(due) = tally.take_due(now) {
                refused.log(&due);
            }
        }
    }
}

impl Refused {
    /// Whether the callback was authentic.
    pub(super) fn is_authentic(self) -> bool {
        matches!(
            self,
            Self::ConnectionsFull | Self::QueueFull | Self::NotDurableInTime | Self::Rejected
        )
    }

    /// Why it ended before it was a callback. `None` for what is counted as a callback.
    fn reason(self) -> Option<RefusalReason> {
        match self {
            Self::OtherPath | Self::SlashAtTheEnd | Self::OtherPathNotPost => {
                Some(RefusalReason::NotFound)
            }
            Self::Get | Self::OtherMethod => Some(RefusalReason::Method),
            Self::NotHttp
            | Self::HeadTooLarge
            | Self::CutOff
            | Self::SlowHead
            | Self::ProxyHeader
            | Self::TlsWithoutCertificate
            | Self::Http2 => Some(RefusalReason::Http),
            Self::PlainHttp
            | Self::ProxyHeaderBeforeTls
            | Self::UntrustedCertificate
            | Self::Handshake => Some(RefusalReason::Tls),
            Self::Forbidden
            | Self::ContentEncoding
            | Self::BodyBroken
            | Self::BodyTooSlow
            | Self::BodyTooLarge
            | Self::HeaderTooLarge
            | Self::BodiesFull
            | Self::ConnectionsFull
            | Self::QueueFull
            | Self::NotDurableInTime
            | Self::Rejected => None,
        }
    }

    fn line(self) -> Line {
        let (noun, which, done, rest) = match self {
            Self::OtherPath => (
                "request",
                " to a path other than ZIM2KAFKA_CALLBACK_PATH",
                "answered 404",
                "; compare the URL in ZEGOCLOUD's console (a slash at the end counts), and check whether a proxy changes the path",
            ),
            Self::SlashAtTheEnd => (
                "request",
                " to a path that differs from ZIM2KAFKA_CALLBACK_PATH only by a slash at its end",
                "answered 404",
                "; correct the URL in ZEGOCLOUD's console",
            ),
            Self::OtherPathNotPost => (
                "request",
                " to a path other than ZIM2KAFKA_CALLBACK_PATH with a method other than POST",
                "answered 404",
                "; the sender does not send these. The health check of a load balancer should request /livez on the admin port",
            ),
            Self::Get => (
                "request",
                " to ZIM2KAFKA_CALLBACK_PATH with GET or HEAD",
                "answered 405",
                "; browsers and health checks send these. The health check of a load balancer should request /livez on the admin port",
            ),
            Self::OtherMethod => (
                "request",
                " to ZIM2KAFKA_CALLBACK_PATH with a method other than POST",
                "answered 405",
                "; the sender uses POST only; check whether a proxy changes the method",
            ),
            Self::NotHttp => (
                "request",
                " that is not valid HTTP/1.1",
                "answered 400",
                "; port scanners send these; if callbacks are missing, check the proxy in front",
            ),
            Self::HeadTooLarge => (
                "request",
                " with a head of more than 24 KiB or 100 fields",
                "answered 431 or 414",
                "; check which fields the proxy in front adds",
            ),
            Self::CutOff => (
                "connection",
                " that ended within the head of its first request",
                "closed",
                "; port scanners do this; if callbacks are missing, check the proxy and the network in front",
            ),
            Self::SlowHead => (
                "connection",
                " on which the head of a request did not arrive in 10 s",
                "closed",
                "; clients that send slowly cause these; if callbacks are missing, check the proxy and the network in front",
            ),
            Self::ProxyHeader => (
                "connection",
                " that began with a PROXY protocol header",
                "closed",
                "; turn the PROXY protocol off at the load balancer; it can send X-Forwarded-For instead (ZIM2KAFKA_TRUSTED_PROXIES)",
            ),
            Self::TlsWithoutCertificate => (
                "connection",
                " that began with a TLS handshake, on a port without TLS,",
                "closed",
                "; the URL in ZEGOCLOUD's console begins with https://: set ZIM2KAFKA_TLS_CERT and ZIM2KAFKA_TLS_KEY, or terminate TLS at a proxy in front",
            ),
            Self::Http2 => (
                "connection",
                " that began with HTTP/2",
                "closed",
                "; let the proxy in front use HTTP/1.1 for this service",
            ),
            Self::PlainHttp => (
                "connection",
                " that began with HTTP instead of TLS",
                "closed",
                "; the URL in ZEGOCLOUD's console must begin with https://. If a proxy in front terminates TLS, unset ZIM2KAFKA_TLS_CERT and ZIM2KAFKA_TLS_KEY",
            ),
            Self::ProxyHeaderBeforeTls => (
                "connection",
                " that began with a PROXY protocol header instead of TLS",
                "closed",
                "; turn the PROXY protocol off at the load balancer",
            ),
            Self::UntrustedCertificate => (
                "TLS handshake",
                "",
                "ended by the client",
                "; it probably does not accept the certificate. ZIM2KAFKA_TLS_CERT needs a certificate of a public authority for the host in the URL, with its whole chain; ZIM2KAFKA_LOG=debug logs the reason of each",
            ),
            Self::Handshake => (
                "TLS handshake",
                "",
                "not completed",
                "; port scanners and clients without TLS 1.2 cause these; ZIM2KAFKA_LOG=debug logs the reason of each",
            ),
            Self::Forbidden => (
                "request",
                " from an address that ZIM2KAFKA_ALLOWED_NETWORKS does not contain",
                "answered 403",
                "; if callbacks are missing, add the sender's network or, behind a proxy, set ZIM2KAFKA_TRUSTED_PROXIES",
            ),
            Self::ContentEncoding => (
                "callback",
                " with a Content-Encoding",
                "malformed and answered 415",
                "; a proxy in front compresses bodies, or the sender writes a charset there, which belongs in Content-Type",
            ),
            Self::BodyBroken => (
                "callback",
                " whose body could not be read to its end",
                "malformed and answered 400",
                "; check the proxy and the network in front",
            ),
            Self::BodyTooSlow => (
                "callback",
                " whose body did not arrive in 10 s",
                "answered 408",
                "; check the network in front",
            ),
            Self::BodyTooLarge => (
                "callback",
                " with a body over ZIM2KAFKA_BODY_LIMIT",
                "answered 413",
                "; if the sender sends these, raise the limit",
            ),
            Self::HeaderTooLarge => (
                "callback",
                " with a header of more than 64 fields or 16 KiB",
                "answered 431",
                "; check which fields the proxy in front adds",
            ),
            Self::BodiesFull => (
                "callback",
                "",
                "answered 503",
                " because the bodies that are being received fill the memory for bodies; clients that send large bodies slowly cause this; ZIM2KAFKA_MAX_CONNECTIONS_PER_ADDRESS limits each of them",
            ),
            Self::ConnectionsFull => (
                "callback",
                "",
                "answered 503",
                " because all connections of ZIM2KAFKA_MAX_CONNECTIONS wait for Kafka, and a newer one needed the slot; raise it, or check why Kafka accepts records slowly",
            ),
            Self::QueueFull => (
                "callback",
                "",
                "answered 503",
                " because the queue is full; the sender drops an event after 62 s of this. Kafka cannot be reached or accepts records too slowly: /readyz on the admin port gives the reason",
            ),
            Self::NotDurableInTime => (
                "callback",
                "",
                "answered 503",
                " because the event was not stored durably within ZIM2KAFKA_ANSWER_DEADLINE; the sender drops an event after 62 s of this. /readyz on the admin port gives the reason",
            ),
            Self::Rejected => (
                "callback",
                "",
                "answered 503",
                " because Kafka rejects it and no dead letter could be stored; the sender drops an event after 62 s of this. Check max.message.bytes of the dead-letter topic",
            ),
        };
        Line {
            noun,
            which,
            done,
            rest,
        }
    }

    fn text(self, count: u64) -> String {
        let Line {
            noun,
            which,
            done,
            rest,
        } = self.line();
        let (s, were) = if count == 1 {
            ("", "was")
        } else {
            ("s", "were")
        };
        format!("{count} {noun}{s}{which} {were} {done} in the last minute{rest}")
    }

    /// Warns if an event may be lost. The others are usual on any port of the internet.
    fn log(self, due: &Due<Option<TraceId>>) {
        let text = self.text(due.count);
        let trace_id = due.example.flatten().map(field::display);
        match (self, self.reason()) {
            (Self::OtherPath | Self::SlashAtTheEnd, _) => tracing::warn!(trace_id, "{text}"),
            (Self::Forbidden, _) | (_, Some(_)) => tracing::info!(trace_id, "{text}"),
            (_, None) => tracing::warn!(trace_id, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_and_advises() {
        assert_eq!(
            Refused::OtherPath.text(6),
            "6 requests to a path other than ZIM2KAFKA_CALLBACK_PATH were answered 404 in the last minute; compare the URL in ZEGOCLOUD's console (a slash at the end counts), and check whether a proxy changes the path"
        );
        assert_eq!(
            Refused::Handshake.text(1),
            "1 TLS handshake was not completed in the last minute; port scanners and clients without TLS 1.2 cause these; ZIM2KAFKA_LOG=debug logs the reason of each"
        );
    }

    #[test]
    fn every_kind_has_a_line_of_its_own() {
        let mut lines: Vec<_> = (Refused::VARIANTS.iter().map(|kind| kind.text(1))).collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), Refused::VARIANTS.len());
    }
}
