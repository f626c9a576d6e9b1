//! What waits in a queue, and why, as far as the queue knows.

use std::time::{Duration, Instant};

use super::Queue;
use crate::kafka::TopicStatistics;

/// A failure is taken as the reason why records wait for this long. A record that has failed is
/// tried again within seconds, and librdkafka reports one of a missing topic after 30 s.
const FAILURE_CURRENT: Duration = Duration::from_secs(15);

/// A healthy Kafka takes less time for a record.
const LONG: Duration = Duration::from_secs(2);

/// The most partitions that a text lists.
const LISTED_PARTITIONS: usize = 10;

/// What waits for Kafka, in flight or not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) struct Waiting {
    /// Records that are in memory only.
    pub(in crate::delivery) in_memory: usize,
    /// Their bytes.
    pub(in crate::delivery) bytes: usize,
    /// How long the oldest of them has waited.
    pub(in crate::delivery) oldest: Duration,
    /// Records on disk.
    pub(in crate::delivery) on_disk: usize,
    /// When the oldest record that Kafka has not acknowledged was received, in ms since 1970-01-01
    /// UTC; `None` if there is none, or only on disk and not read yet.
    pub(in crate::delivery) received: Option<i64>,
}

impl Waiting {
    /// Whether a record waits for longer than a healthy Kafka takes, on disk or in memory.
    pub(in crate::delivery) fn is_long(&self) -> bool {
        self.on_disk > 0 || self.oldest >= LONG
    }
}

/// What is known of the topic of a queue that can keep records waiting.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// Why a record was last not delivered, and when.
    failure: Option<(String, Instant)>,
    /// The main producer has records for the topic and does not find it.
    is_missing: bool,
    leaderless: Vec<i32>,
}

impl Obstacles {
    pub(super) fn note_failure(&mut self, reason: String, now: Instant) {
        self.failure = Some((reason, now));
    }

    /// The obstacle, as text that follows the name of the topic.
    fn text(&self, now: Instant) -> Option<String> {
        let failure = self.failure.as_ref();
        let is_current = |at: Instant| now.saturating_duration_since(at) < FAILURE_CURRENT;
        if let Some((reason, _)) = failure.filter(|(_, at)| is_current(*at)) {
            return Some(reason.clone());
        }
        let listed = self.leaderless.iter().take(LISTED_PARTITIONS);
        let listed: Vec<String> = listed.map(ToString::to_string).collect();
        match self.leaderless.len() {
            0 if self.is_missing => Some("has not been found".to_owned()),
            0 => None,
            1 => Some(format!("has no leader for partition {}", listed.concat())),
            2..=LISTED_PARTITIONS => Some(format!(
                "has no leader for partitions {}",
                listed.join(", ")
            )),
            count => Some(format!("has no leader for {count} partitions")),
        }
    }
}

impl Queue {
    /// What waits for Kafka.
    pub(in crate::delivery) fn waiting(&self) -> Waiting {
        let state = self.lock();
        let in_partitions = state.partitions.iter().map(|partition| partition.on_disk);
        let first = [&state.fresh, &state.spooled].map(|entries| entries.first_key_value());
        let first = first.into_iter().flatten();
        Waiting {
            received: first.map(|(_, entry)| entry.record.times.received).min(),
            in_memory: state.fresh.len(),
            bytes: state.bytes,
            oldest: (state.oldest_volatile()).map_or(Duration::ZERO, |oldest| oldest.elapsed()),
            on_disk: state.spooled.len() + state.untracked_on_disk + in_partitions.sum::<usize>(),
        }
    }

    /// Takes note of what the main producer knows of the topic.
    pub(in crate::delivery) fn note_topic(&self, topic: TopicStatistics) {
        let obstacles = &mut self.lock().obstacles;
        obstacles.is_missing = topic.partitions == 0;
        obstacles.leaderless = topic.leaderless;
    }

    /// Why the records wait although a broker is connected, as text that follows the topic's name.
    pub(in crate::delivery) fn obstacle(&self, now: Instant) -> Option<String> {
        self.lock().obstacles.text(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_failure_or_what_the_topic_lacks() {
        let now = Instant::now();
        let mut obstacles = Obstacles::default();
        let text = |obstacles: &Obstacles| obstacles.text(now).unwrap_or_default();
        assert_eq!(text(&obstacles), "");
        obstacles.is_missing = true;
        assert_eq!(text(&obstacles), "has not been found");
        obstacles.is_missing = false;
        obstacles.leaderless = vec![3];
        assert_eq!(text(&obstacles), "has no leader for partition 3");
        obstacles.leaderless = vec![0, 3];
        assert_eq!(text(&obstacles), "has no leader for partitions 0, 3");
        obstacles.leaderless = (0..11).collect();
        assert_eq!(text(&obstacles), "has no leader for 11 partitions");
        obstacles.note_failure("is not writable".to_owned(), now);
        assert_eq!(text(&obstacles), "is not writable");
        obstacles.leaderless.clear();
        let later = now + FAILURE_CURRENT;
        assert_eq!(obstacles.text(later), None);
    }
}
