//! One partition: what waits for it, and whether it may have more with the producers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pacing::{Holders, Pacing};
use super::{ProducerId, Via};
use crate::kafka::{MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_RECORDS};

/// A partition may always have this many records with the producers and as many from disk.
const SHARE_MIN: usize = if cfg!(test) { 2 } else { 16 };

/// The pause of a partition after a record of it has failed, doubled with each further failure
/// until Kafka acknowledges a record. Until then one record is tried at a time.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// For this long after an acknowledgement, Kafka surely knows the producer, unless the timestamp of
/// the record was too old or the topic was deleted. In tests, time is moved by hand.
const RUN_KNOWN: Duration = Duration::from_secs(if cfg!(test) { 1_000_000 } else { 1 });

/// Records and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

const IN_FLIGHT_MAX: Load = Load {
    records: MAX_IN_FLIGHT_RECORDS,
    bytes: MAX_IN_FLIGHT_BYTES,
};

impl Load {
    pub(super) fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.records -= 1;
        self.bytes -= bytes;
    }

    /// How many more records a partition with this load may have.
    pub(super) fn room(self, total: Self, max: Self) -> usize {
        let free = (max.records.saturating_sub(total.records) / 2).max(SHARE_MIN);
        let free_bytes = max.bytes.saturating_sub(total.bytes) / 2;
        if self.records > 0 && self.bytes >= free_bytes {
            return 0;
        }
        free.saturating_sub(self.records)
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Partition {
    /// Records to be handed over, by their source.
    waiting: [VecDeque<u64>; 4],
    /// The source that had the last turn.
    last_source: Option<Source>,
    pub(super) suspect_in_flight: bool,
    in_flight: Load,
    /// The producers that have those in flight.
    holders: Holders,
    pub(super) loaded: Load,
    /// The producer of runs of which Kafka acknowledged a record last, and when.
    run_acked: Option<(ProducerId, Instant)>,
    pause: Option<Pause>,
    /// Whether it is in a list of its topic.
    pub(super) is_listed: bool,
    /// Rows that are on disk only.
    pub(super) on_disk: usize,
    /// All rows up to this number have been read.
    pub(super) read_to: u64,
    /// The lowest number that was put on disk only since the last plan of a read.
    pub(super) dropped: Option<u64>,
}

/// The groups of a partition's waiting records. A producer that takes nothing holds up only its own
/// group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Those that are to be handed over alone, one after the other.
    Suspects,
    /// Rows from disk, one of each key.
    Backlog,
    /// Rows from disk, many of a key.
    Runs,
    /// All others.
    Fresh,
}

impl Source {
    pub(super) fn of(via: Via) -> Self {
        match via {
            Via::Suspect => Self::Suspects,
            Via::Backlog => Self::Backlog,
            Via::Run => Self::Runs,
            Via::Shard(_) | Via::Side => Self::Fresh,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Partition {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.records
    }

    /// All rows up to this number have been read and are still in memory or settled.
    pub(super) fn effective_read_to(&self) -> u64 {
        let dropped = self.dropped.map(|number| number.saturating_sub(1));
        dropped.map_or(self.read_to, |dropped| dropped.min(self.read_to))
    }

    /// The records that wait in one of the sources, in order.
    pub(super) fn waiting(&mut self, source: Source) -> &mut VecDeque<u64> {
        let [suspects, backlog, runs, fresh] = &mut self.waiting;
        match source {
            Source::Suspects => suspects,
            Source::Backlog => backlog,
            Source::Runs => runs,
            Source::Fresh => fresh,
        }
    }

    /// The sources in the order in which they are asked for the next record: all but the suspects
    /// take turns.
    pub(super) fn sources(&self) -> [Source; 4] {
        use Source::{Backlog, Fresh, Runs, Suspects};
        match self.last_source {
            Some(Backlog) => [Suspects, Runs, Fresh, Backlog],
            Some(Runs) => [Suspects, Fresh, Backlog, Runs],
            _ => [Suspects, Backlog, Runs, Fresh],
        }
    }

    /// Whether a record is to be handed over alone, or is being tried so.
    pub(super) fn has_suspects(&self) -> bool {
        let [suspects, ..] = &self.waiting;
        !suspects.is_empty() || self.suspect_in_flight
    }

    pub(super) fn has_work(&self) -> bool {
        let [suspects, others @ ..] = &self.waiting;
        let has_others = others.iter().any(|waiting| !waiting.is_empty());
        has_others || !suspects.is_empty() && !self.suspect_in_flight
    }

    /// Begins a turn: decides which producers get nothing in it.
    pub(super) fn pace(&mut self, pacing: Pacing, now: Instant) {
        self.holders.pace(pacing, now);
    }

    /// Whether a producer gets nothing in this turn.
    pub(super) fn is_paced(&self, producer: ProducerId) -> bool {
        self.holders.is_paced(producer)
    }

    /// Whether a record may be handed over. After a pause, only one may be in flight.
    pub(super) fn may_send(&self, total: Load, now: Instant) -> bool {
        let allowed = match self.pause {
            // Records handed over before the pause may be with a producer that is stuck.
            Some(pause) => {
                now >= pause.until && !self.holders.got_any_since(pause.until - pause.length)
            }
            None => true,
        };
        allowed && self.in_flight.room(total, IN_FLIGHT_MAX) > 0
    }

    /// Whether the producer of runs may get a record. The first one goes alone, until Kafka has
    /// acknowledged it.
    ///
    /// librdkafka builds the next request while one is in flight, and sends it even if that one is
    /// refused. Kafka refuses it too, because a sequence number is missing, but only if it knows the
    /// producer. So a record after which Kafka would not remember the producer goes alone too.
    pub(super) fn may_have_run(
        &self,
        producer: ProducerId,
        is_remembered: bool,
        now: Instant,
    ) -> bool {
        let is_known = self.run_acked.is_some_and(|(by, acked)| {
            by == producer && now.saturating_duration_since(acked) < RUN_KNOWN
        });
        is_known && is_remembered || !self.holders.has(producer)
    }

    /// Kafka has acknowledged a record of a run.
    pub(super) fn run_acked(&mut self, by: ProducerId, now: Instant) {
        self.run_acked = Some((by, now));
    }

    /// Takes note of the turn of a source.
    pub(super) fn took_turn(&mut self, source: Source) {
        match source {
            Source::Suspects => self.suspect_in_flight = true,
            _ => self.last_source = Some(source),
        }
    }

    pub(super) fn enter_flight(&mut self, to: ProducerId, bytes: usize, now: Instant) {
        self.in_flight.add(bytes);
        self.holders.add(to, now);
    }

    pub(super) fn leave_flight(&mut self, from: ProducerId, bytes: usize) {
        self.in_flight.remove(bytes);
        self.holders.remove(from);
    }

    /// Pauses because a record has failed.
    pub(super) fn pause(&mut self, now: Instant) {
        let length = match self.pause {
            Some(pause) if now < pause.until => return,
            Some(pause) => (pause.length * 2).min(PAUSE_MAX),
            None => PAUSE_MIN,
        };
        let until = now + length;
        self.pause = Some(Pause { until, length });
    }

    /// Ends the pauses, because Kafka has acknowledged a record.
    pub(super) fn resume(&mut self) {
        self.pause = None;
    }

    /// A record that was waiting is on disk only.
    pub(super) fn drop_to_disk(&mut self, number: u64) {
        let dropped = self.dropped.unwrap_or(number);
        self.dropped = Some(dropped.min(number));
        for queue in &mut self.waiting {
            if queue.front() == Some(&number) {
                queue.pop_front();
            }
        }
    }
}
