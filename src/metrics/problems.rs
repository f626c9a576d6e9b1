//! The last problems, for the status page. Equal ones are one line with a count.
//!
//! Requests that are not authentic have lines of their own, so that strangers cannot push out the
//! other lines. No line contains text of a request, unless the settings or the code contain it too.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;

/// The lines about the service and about authentic callbacks. The oldest gives way to a new one.
pub const MAX_PROBLEMS: usize = 20;

/// The lines about requests that are not authentic.
pub const MAX_UNAUTHENTICATED_PROBLEMS: usize = 5;

/// The most characters of a text of a line.
const MAX_TEXT_CHARS: usize = 500;

/// How often the detail of a line is replaced: making the text may cost more than counting.
const DETAIL_INTERVAL: Duration = Duration::from_secs(1);

/// What happened. Problems with the same parts are one line.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// What became of it, such as `dead letter`.
    pub kind: &'a str,
    /// The application, if it is a configured one.
    pub appid: Option<&'a str>,
    /// The event, if it is a known one.
    pub event: Option<&'static str>,
    /// Why. Contains nothing that differs each time.
    pub reason: &'a str,
}

impl<'a> Problem<'a> {
    /// A problem of the service itself.
    pub fn of_service(kind: &'a str) -> Self {
        Self {
            kind,
            appid: None,
            event: None,
            reason: "",
        }
    }
}

/// Equal problems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemLine {
    kind: String,
    appid: Option<String>,
    event: Option<&'static str>,
    reason: String,
    /// More about the last one, or what to do.
    detail: String,
    count: u64,
    /// When the first and the last occurred, in ms since 1970-01-01 UTC.
    first: u64,
    last: u64,
}

/// The last problems.
#[derive(Debug, Default)]
pub struct Problems {
    authentic: Mutex<VecDeque<ProblemLine>>,
    unauthenticated: Mutex<VecDeque<ProblemLine>>,
}

impl Problems {
    /// A problem of the service or of an authentic callback.
    pub fn add(&self, problem: Problem<'_>, detail: impl FnOnce() -> String) {
        let lines = &mut self.authentic.lock();
        add(lines, MAX_PROBLEMS, problem, detail, SystemTime::now());
    }

    /// A request that is not authentic.
    pub fn add_unauthenticated(&self, problem: Problem<'_>, detail: impl FnOnce() -> String) {
        let (lines, limit) = (
            &mut self.unauthenticated.lock(),
            MAX_UNAUTHENTICATED_PROBLEMS,
        );
        add(lines, limit, problem, detail, SystemTime::now());
    }

    /// The lines about the service and authentic callbacks, and those about other requests, each
    /// with the last problem first.
    pub fn lines(&self) -> [Vec<ProblemLine>; 2] {
        [&self.authentic, &self.unauthenticated].map(|lines| lines.lock().iter().cloned().collect())
    }
}

fn add(
    lines: &mut VecDeque<ProblemLine>,
    limit: usize,
    problem: Problem<'_>,
    detail: impl FnOnce() -> String,
    now: SystemTime,
) {
    let now = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let known = lines.iter().position(|line| line.is_of(&problem));
    let line = match known.and_then(|at| lines.remove(at)) {
        Some(mut line) => {
            if u128::from(now.abs_diff(line.last)) >= DETAIL_INTERVAL.as_millis() {
                line.detail = shortened(&detail());
            }
            line.count += 1;
            line.last = now;
            line
        }
        None => ProblemLine {
            kind: shortened(problem.kind),
            appid: problem.appid.map(str::to_owned),
            event: problem.event,
            reason: shortened(problem.reason),
            detail: shortened(&detail()),
            count: 1,
            first: now,
            last: now,
        },
    };
    lines.truncate(limit - 1);
    lines.push_front(line);
}

impl ProblemLine {
    fn is_of(&self, problem: &Problem<'_>) -> bool {
        self.kind == problem.kind
            && self.appid.as_deref() == problem.appid
            && self.event == problem.event
            && self.reason == shortened_str(problem.reason)
    }
}

fn shortened_str(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_TEXT_CHARS);
    end.map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
}

fn shortened(text: &str) -> String {
    shortened_str(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn problem<'a>(appid: Option<&'a str>, reason: &'a str) -> Problem<'a> {
        Problem {
            kind: "dead letter",
            appid,
            event: Some("send_msg"),
            reason,
        }
    }

    #[test]
    fn equal_problems_are_one_line_with_a_count_and_the_last_detail() {
        let mut lines = VecDeque::new();
        let mut add = |appid, reason, detail: &str, second| {
            let detail = || detail.to_owned();
            add(&mut lines, 3, problem(appid, reason), detail, at(second));
        };
        add(Some("1"), "stale", "5 s old", 1);
        add(Some("2"), "stale", "6 s old", 2);
        add(Some("1"), "invalid", "", 3);
        add(Some("1"), "stale", "9 s old", 4);
        add(Some("1"), "stale", "a detail within the same second", 4);
        let shown: Vec<_> = (lines.iter())
            .map(|line| {
                let appid = line.appid.as_deref().unwrap_or_default();
                (
                    appid,
                    line.reason.as_str(),
                    line.detail.as_str(),
                    line.count,
                )
            })
            .collect();
        let expected = [
            ("1", "stale", "9 s old", 3),
            ("1", "invalid", "", 1),
            ("2", "stale", "6 s old", 1),
        ];
        assert_eq!(shown, expected);
        let first = lines.front().expect("a line");
        assert_eq!((first.first, first.last), (1000, 4000));
    }

    #[test]
    fn a_new_problem_takes_the_line_of_the_oldest() {
        let mut lines = VecDeque::new();
        for second in 1..=10 {
            let reason = second.to_string();
            add(
                &mut lines,
                4,
                problem(None, &reason),
                String::new,
                at(second),
            );
            // It occurs all the time, so it is never the oldest.
            add(
                &mut lines,
                4,
                problem(None, "often"),
                String::new,
                at(second),
            );
        }
        let reasons: Vec<_> = lines.iter().map(|line| line.reason.as_str()).collect();
        assert_eq!(reasons, ["often", "10", "9", "8"]);
        assert_eq!(lines.front().map(|line| line.count), Some(10));
    }

    #[test]
    fn strangers_push_out_no_line_about_the_service() {
        let problems = Problems::default();
        problems.add(problem(Some("1"), "real"), String::new);
        for number in 0..1000 {
            let reason = number.to_string();
            problems.add_unauthenticated(problem(None, &reason), String::new);
        }
        let [authentic, unauthenticated] = problems.lines();
        assert_eq!(authentic.len(), 1);
        assert_eq!(unauthenticated.len(), MAX_UNAUTHENTICATED_PROBLEMS);
        for number in 0..1000 {
            problems.add(problem(None, &number.to_string()), String::new);
        }
        assert_eq!(problems.lines()[0].len(), MAX_PROBLEMS);
    }

    #[test]
    fn a_line_has_a_bounded_length_and_long_equal_texts_are_one_line() {
        let mut lines = VecDeque::new();
        let long = "ä".repeat(10_000);
        for _ in 0..2 {
            add(&mut lines, 4, problem(None, &long), || long.clone(), at(1));
        }
        assert_eq!(lines.len(), 1);
        let line = lines.front().expect("a line");
        assert_eq!(line.reason.chars().count(), MAX_TEXT_CHARS);
        assert_eq!(line.detail.chars().count(), MAX_TEXT_CHARS);
    }
}
