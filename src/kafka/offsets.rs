//! Finds acknowledgements that repeat an earlier one.
//!
//! If Kafka answers that a topic is not authorized, librdkafka 2.12 removes its partitions and adds
//! them again later, with the sequence numbers of the time when it removed them. What the removed
//! partition has sent in between is forgotten, so two different batches get the same sequence number.
//! Kafka takes the second one for a repetition of the first, does not append it, and acknowledges it
//! with the offset of the first.

use std::collections::{HashMap, VecDeque};

use rdkafka::types::RDKafkaErrorCode;

use super::events::Batch;

/// Kafka recognises repetitions of this many batches of a producer and partition.
const KNOWN_BATCHES: usize = 5;

/// The first offsets of the last acknowledged batches of one producer, by topic and partition.
#[derive(Debug, Default)]
pub(super) struct AckedOffsets(HashMap<(String, i32), VecDeque<i64>>);

impl AckedOffsets {
    /// Takes the offsets from a batch that Kafka took for a repetition of an earlier one, so that it
    /// does not count as acknowledged.
    pub(super) fn disbelieve_repetition(&mut self, batch: &mut Batch) {
        let first = batch.records.first().map(|record| record.offset);
        let is_acked = batch.error == RDKafkaErrorCode::NoError;
        let Some(first) = first.filter(|offset| is_acked && *offset >= 0) else {
            return;
        };
        if self.is_repeated(&batch.topic, batch.partition, first) {
            tracing::warn!(
                "Kafka acknowledged {} records of topic {} as a repetition of other ones; they are sent again",
                batch.records.len(),
                batch.topic
            );
            for record in &mut batch.records {
                record.offset = -1;
            }
        }
    }

    /// Takes note of the first offset of an acknowledged batch. Returns whether one of the batches
    /// before has it too, so that Kafka has not appended this one.
    fn is_repeated(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let last = self.0.entry((topic.to_owned(), partition)).or_default();
        if last.contains(&offset) {
            return true;
        }
        if last.len() == KNOWN_BATCHES {
            last.pop_front();
        }
        last.push_back(offset);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::RecordReport;
    use super::*;

    #[test]
    fn a_batch_that_repeats_an_offset_is_not_acknowledged() {
        let mut acked = AckedOffsets::default();
        let mut offsets = |error, offset| {
            let record = |number| RecordReport {
                number,
                error,
                offset: offset + number as i64,
            };
            let mut batch = Batch {
                topic: "t".to_owned(),
                partition: 0,
                bytes: 0,
                error,
                records: vec![record(0), record(1)],
            };
            acked.disbelieve_repetition(&mut batch);
            let offsets = batch.records.iter().map(|record| record.offset);
            offsets.collect::<Vec<_>>()
        };
        let (acknowledged, failed) = (
            RDKafkaErrorCode::NoError,
            RDKafkaErrorCode::NotEnoughReplicas,
        );
        assert_eq!(offsets(acknowledged, 7), [7, 8]);
        assert_eq!(offsets(failed, 7), [7, 8]);
        assert_eq!(offsets(acknowledged, 9), [9, 10]);
        assert_eq!(offsets(acknowledged, 7), [-1, -1]);
    }

    #[test]
    fn an_offset_is_repeated_if_one_of_the_last_batches_of_its_partition_has_it() {
        let mut acked = AckedOffsets::default();
        for offset in [7, 8, 12] {
            assert!(!acked.is_repeated("t", 0, offset));
        }
        assert!(acked.is_repeated("t", 0, 7) && acked.is_repeated("t", 0, 12));
        assert!(!acked.is_repeated("t", 1, 7) && !acked.is_repeated("u", 0, 7));
        for offset in 20..25 {
            assert!(!acked.is_repeated("t", 0, offset));
        }
        // As many others later, Kafka does not recognise it any more.
        assert!(!acked.is_repeated("t", 0, 7));
    }
}
