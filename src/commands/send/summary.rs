//! The results of `send`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The quantiles of the latency that are reported, with their names.
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// How many callbacks were sent and what became of them.
pub(super) struct Summary {
    pub(super) sent: u64,
    pub(super) succeeded: u64,
    pub(super) retried: u64,
    pub(super) given_up: u64,
    pub(super) unfinished: u64,
    /// The answers with 2xx, by their names.
    pub(super) answers: BTreeMap<String, u64>,
    /// The attempts without one, by their reasons.
    pub(super) failures: BTreeMap<String, u64>,
    /// Microseconds from the start of an attempt to its answer, for all answers.
    latency: Histogram<u64>,
    elapsed: Duration,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            sent: 0,
            succeeded: 0,
            retried: 0,
            given_up: 0,
            unfinished: 0,
            answers: BTreeMap::new(),
            failures: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, 60_000_000, 3)
                .expect("constant bounds are valid"),
            elapsed: Duration::ZERO,
        }
    }
}

/// What is known while callbacks are sent.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    sent: u64,
    succeeded: u64,
    retried: u64,
    given_up: u64,
    /// Why most of the failed attempts failed.
    pub(super) failure: Option<String>,
}

impl Counts {
    /// The callbacks that are answered with 2xx or given up.
    pub(super) fn finished(&self) -> u64 {
        self.succeeded + self.given_up
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            succeeded,
            retried,
            given_up,
            failure,
        } = self;
        write!(
            f,
            "sent {sent}, 2xx {succeeded}, retried {retried}, given up {given_up}"
        )?;
        match failure {
            Some(failure) => write!(f, "; {failure}"),
            None => Ok(()),
        }
    }
}

impl Summary {
    pub(super) fn record_latency(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(micros);
    }

    /// The counts so far.
    pub(super) fn progress(&self) -> Counts {
        let most = self.failures.iter().max_by_key(|(_, attempts)| **attempts);
        Counts {
            sent: self.sent,
            succeeded: self.succeeded,
            retried: self.retried,
            given_up: self.given_up,
            failure: most.map(|(failure, _)| failure.clone()),
        }
    }

    /// Completes it: no more answers are waited for.
    pub(super) fn end(&mut self, elapsed: Duration) {
        self.unfinished = self.sent - self.succeeded - self.given_up;
        self.elapsed = elapsed;
    }

    /// Answers with 2xx a second.
    fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        match seconds > 0.0 {
            true => self.succeeded as f64 / seconds,
            false => 0.0,
        }
    }

    /// The latency at each of [`QUANTILES`], in milliseconds; none without an answer.
    fn latencies(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let quantiles = QUANTILES.into_iter().filter(|_| !self.latency.is_empty());
        quantiles.map(|(name, quantile)| {
            let micros = self.latency.value_at_quantile(quantile);
            (name, micros as f64 / 1000.0)
        })
    }

    /// One JSON object, for programs.
    pub(super) fn json(&self) -> Value {
        let latencies = self
            .latencies()
            .map(|(name, ms)| (name.to_owned(), json!(ms)));
        json!({
            "sent": self.sent,
            "succeeded": self.succeeded,
            "retried": self.retried,
            "given_up": self.given_up,
            "unfinished": self.unfinished,
            "seconds": self.elapsed.as_secs_f64(),
            "succeeded_per_second": self.rate(),
            "answers": self.answers,
            "failures": self.failures,
            "latency_ms": latencies.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// For people.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |f: &mut fmt::Formatter<'_>, counts: &BTreeMap<String, u64>| {
            let mut counts = counts.iter();
            counts.try_for_each(|(name, count)| writeln!(f, "            {count} × {name}"))
        };
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, "sent        {} in {seconds:.1} s", self.sent)?;
        writeln!(f, "2xx         {} ({:.0}/s)", self.succeeded, self.rate())?;
        lines(f, &self.answers)?;
        writeln!(f, "retried     {}", self.retried)?;
        writeln!(f, "given up    {}", self.given_up)?;
        if self.unfinished > 0 {
            writeln!(f, "unfinished  {}", self.unfinished)?;
        }
        lines(f, &self.failures)?;
        let latencies = self
            .latencies()
            .map(|(name, ms)| format!("{name} {ms:.2} ms"));
        let latencies: Vec<_> = latencies.collect();
        match latencies.is_empty() {
            true => write!(f, "no answer"),
            false => write!(f, "answered in {}", latencies.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let mut summary = Summary {
            sent: 5,
            succeeded: 3,
            retried: 2,
            given_up: 1,
            answers: BTreeMap::from([("published".to_owned(), 3)]),
            failures: BTreeMap::from([("answer 503 Service Unavailable".to_owned(), 3)]),
            ..Summary::default()
        };
        summary.record_latency(Duration::from_micros(1500));
        summary.end(Duration::from_secs(2));
        summary
    }

    #[test]
    fn people_and_programs_get_the_same_numbers() {
        assert_eq!(
            summary().to_string(),
            "sent        5 in 2.0 s\n\
             2xx         3 (2/s)\n            3 × published\n\
             retried     2\n\
             given up    1\n\
             unfinished  1\n            3 × answer 503 Service Unavailable\n\
             answered in p50 1.50 ms, p90 1.50 ms, p99 1.50 ms, p99.9 1.50 ms, max 1.50 ms"
        );
        assert_eq!(
            summary().progress().to_string(),
            "sent 5, 2xx 3, retried 2, given up 1; answer 503 Service Unavailable"
        );
        let json = summary().json();
        for (name, value) in [
            ("sent", json!(5)),
            ("succeeded", json!(3)),
            ("retried", json!(2)),
            ("given_up", json!(1)),
            ("unfinished", json!(1)),
            ("seconds", json!(2.0)),
            ("succeeded_per_second", json!(1.5)),
            ("answers", json!({"published": 3})),
            ("failures", json!({"answer 503 Service Unavailable": 3})),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        let latency = json["latency_ms"].as_object().expect("an object");
        assert_eq!(latency.len(), QUANTILES.len());
        assert!(
            latency
                .values()
                .all(|ms| ms.as_f64().is_some_and(|ms| ms.round() == 2.0))
        );
    }

    #[test]
    fn without_an_answer_there_is_no_latency() {
        let mut summary = Summary::default();
        summary.end(Duration::ZERO);
        assert!(summary.to_string().ends_with("\nno answer"));
        assert_eq!(summary.json()["latency_ms"], json!({}));
        assert_eq!(summary.json()["succeeded_per_second"], 0.0);
    }
}
