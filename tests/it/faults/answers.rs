//! The answers of the service, by the partition of the event.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::audit::{Contents, Durable, Found, Log};

/// A longer time without an event that is answered `published` is a pause.
const PAUSE: Duration = Duration::from_millis(500);

/// The answers to events, in the order in which they came. Dead letters have no partition that
/// counts here.
#[derive(Debug)]
pub(super) struct Answers(Vec<Answer>);

#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) partition: i32,
    /// Since the load began.
    pub(super) began: Duration,
    pub(super) ended: Duration,
    /// `None` for a request that failed.
    pub(super) durable: Option<Durable>,
}

/// Some of the answers, counted.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) published: usize,
    pub(super) spooled: usize,
    /// How long the answers took, from the fastest to the slowest.
    times: Vec<Duration>,
}

impl Answers {
    pub(super) fn new(log: &Log, contents: &Contents) -> Self {
        let place = |found: &Found| Some((found.number?, found.partition));
        let partitions: BTreeMap<u64, i32> = contents.events.iter().filter_map(place).collect();
        let mut all = Vec::new();
        for (number, sent) in (0..).zip(&log.sent) {
            let Some(&partition) = partitions.get(&number) else {
                continue;
            };
            all.extend(sent.attempts.iter().map(|attempt| Answer {
                number,
                partition,
                began: Duration::from_micros(attempt.began),
                ended: Duration::from_micros(attempt.ended),
                durable: attempt.durable,
            }));
        }
        all.sort_by_key(|answer| answer.ended);
        Self(all)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.0.iter()
    }

    /// Counts the answers to requests of some partitions that began within this time.
    pub(super) fn figures(&self, during: Range<Duration>, is_of: impl Fn(i32) -> bool) -> Figures {
        let mut figures = Figures::default();
        for answer in &self.0 {
            if !during.contains(&answer.began) || !is_of(answer.partition) {
                continue;
            }
            match answer.durable {
                Some(Durable::Published) => figures.published += 1,
                Some(Durable::Spooled) => figures.spooled += 1,
                None => continue,
            }
            figures.times.push(answer.ended - answer.began);
        }
        figures.times.sort_unstable();
        figures
    }

    /// The times within this one in which no event of some partitions was answered `published`.
    pub(super) fn pauses(
        &self,
        during: Range<Duration>,
        is_of: impl Fn(i32) -> bool,
    ) -> Vec<Duration> {
        let published = self
            .0
            .iter()
            .filter(|answer| answer.durable == Some(Durable::Published) && is_of(answer.partition));
        let ended = published.map(|answer| answer.ended);
        let ended = ended.filter(|ended| during.contains(ended));
        let mut pauses = Vec::new();
        let mut last = during.start;
        for now in ended.chain([during.end]) {
            if now - last > PAUSE {
                pauses.push(now - last);
            }
            last = now;
        }
        pauses
    }
}

impl Figures {
    /// The latency at this quantile, in thousandths: 990 for p99.
    pub(super) fn quantile(&self, thousandths: usize) -> Duration {
        let at = self.times.len() * thousandths / 1000;
        let time = self.times.get(at).or(self.times.last());
        time.copied().unwrap_or_default()
    }

    pub(super) fn p99(&self) -> Duration {
        self.quantile(990)
    }

    /// Whether at least 99.9 % were answered `published`.
    pub(super) fn are_published(&self) -> bool {
        self.published > 0 && self.spooled * 999 <= self.published
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} published, {} spooled, p99 {:?}, p99.9 {:?}, slowest {:?}",
            self.published,
            self.spooled,
            self.p99(),
            self.quantile(999),
            self.quantile(1000),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn answers(ended: &[(u64, i32, Option<Durable>)]) -> Answers {
        let answer = |&(ended, partition, durable): &(u64, i32, Option<Durable>)| Answer {
            number: 0,
            partition,
            began: MS(ended - 10),
            ended: MS(ended),
            durable,
        };
        Answers(ended.iter().map(answer).collect())
    }

    #[test]
    fn a_pause_is_a_time_without_a_published_answer() {
        let published = Some(Durable::Published);
        let answers = answers(&[
            (100, 1, published),
            (600, 1, published),
            // Of these, none ends the pause.
            (900, 1, Some(Durable::Spooled)),
            (900, 1, None),
            (900, 2, published),
            (1101, 1, published),
        ]);
        let pauses = |during: Range<u64>| {
            let during = MS(during.start)..MS(during.end);
            answers.pauses(during, |partition| partition == 1)
        };
        assert_eq!(pauses(100..1200), [MS(501)]);
        assert_eq!(pauses(100..1101), [MS(501)]);
        assert_eq!(pauses(0..100).len(), 0);
        assert_eq!(pauses(700..1700), [MS(599)]);
        assert_eq!(pauses(2000..3000), [MS(1000)]);
    }

    #[test]
    fn one_answer_in_a_thousand_may_be_spooled() {
        let figures = |published: usize, spooled: usize| {
            let published = std::iter::repeat_n((20, 1, Some(Durable::Published)), published);
            let spooled = std::iter::repeat_n((20, 1, Some(Durable::Spooled)), spooled);
            let others = [(20, 1, None), (20, 2, Some(Durable::Spooled))];
            let all: Vec<_> = published.chain(spooled).chain(others).collect();
            answers(&all).figures(MS(0)..MS(15), |partition| partition == 1)
        };
        let most = figures(999, 1);
        assert_eq!((most.published, most.spooled), (999, 1));
        assert!(most.are_published() && !figures(998, 1).are_published());
        assert_eq!((most.p99(), most.quantile(1000)), (MS(10), MS(10)));
    }
}
