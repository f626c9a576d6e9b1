//! The distance of Kafka decides how many shards records are spread over, and how often a producer
//! gets more records of a partition.

use std::time::Duration;

use super::queue::Pacing;
use crate::kafka::PARTITION_DEPTH;

/// The shards, each with a producer for what is not on disk.
pub(super) const SHARDS: usize = 8;
const SHARDS_MEDIUM: usize = 4;

/// Below these round trips fewer shards are used: a near Kafka needs no further requests in flight,
/// and fewer requests with more records cost less CPU time.
const NEAR_ROUND_TRIP: Duration = Duration::from_micros(1500);
const MEDIUM_ROUND_TRIP: Duration = Duration::from_millis(4);

/// The shortest time after which a producer gets more records of a partition than pacing allows.
const PACING_LAPSE_MIN: Duration = Duration::from_secs(1);

/// How many shards are in use at this round trip.
pub(super) fn shards(round_trip: Duration) -> usize {
    if round_trip < NEAR_ROUND_TRIP {
        1
    } else if round_trip < MEDIUM_ROUND_TRIP {
        SHARDS_MEDIUM
    } else {
        SHARDS
    }
}

/// When a producer gets more records of a partition at this round trip.
pub(super) fn pacing(round_trip: Duration) -> Pacing {
    if round_trip < NEAR_ROUND_TRIP {
        // Kafka answers before the next turn of the publisher.
        return Pacing::NONE;
    }
    // Fewer requests with more records leave the connection to other partitions.
    Pacing {
        depth: PARTITION_DEPTH,
        interval: round_trip / 2,
        lapse: (4 * round_trip).max(PACING_LAPSE_MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_round_trip_means_more_shards_and_longer_intervals() {
        let of = |milliseconds| {
            let round_trip = Duration::from_millis(milliseconds);
            (shards(round_trip), pacing(round_trip).interval.as_millis())
        };
        assert_eq!(
            [0, 1, 2, 4, 10].map(of),
            [(1, 0), (1, 0), (4, 1), (8, 2), (8, 5)]
        );
        assert_eq!(pacing(Duration::from_millis(10)).lapse, PACING_LAPSE_MIN);
        assert_eq!(pacing(Duration::from_millis(500)).lapse.as_millis(), 2000);
    }
}
