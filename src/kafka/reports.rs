//! What the reports on a batch of records mean.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::events::Batch;
use super::failures::why_not_delivered;

/// What a producer reports about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Kafka stored it and returned its offset.
    Acked,
    /// Kafka will never take this record.
    Rejected(String),
    /// Kafka rejected a batch without naming a record. The culprit may be this record or another
    /// one.
    Suspect(String),
    /// Kafka rejected the batch because of another record, or because of its size. It may take this
    /// record.
    Bystander,
    /// Anything else: the record may be in the topic or not. The text is the reason, to be shown
    /// after the name of the topic.
    Failed(String),
}

/// Reports on records of one topic.
pub(crate) struct Reports {
    pub(crate) topic: String,
    pub(crate) records: Vec<(u64, Report)>,
    /// The bytes of the keys and values of the batch, if Kafka rejected it because of its size. To
    /// find the record that is too large, another producer sends smaller batches.
    pub(crate) too_large: Option<usize>,
}

/// What the reports on a batch say about each of its records.
///
/// If Kafka names the records that it rejects (KIP-467, brokers from 2.4 on), librdkafka gives the
/// others `InvalidDifferentRecord`, and the named ones `InvalidRecord` or, if there is only one, the
/// error of the batch. Otherwise all have the error of the batch. So it is known who is meant if
/// any record has another error than the batch, or if the batch has only one record.
pub(super) fn judge(batch: Batch) -> Reports {
    let is_too_large = batch.records.len() > 1
        && matches!(
            batch.error,
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
        );
    let differs = |code: RDKafkaErrorCode| code != batch.error;
    let is_named = batch.records.len() == 1
        || batch.records.iter().any(|record| differs(record.error)) && is_final(batch.error);
    let report = |code: RDKafkaErrorCode, offset: i64| match code {
        RDKafkaErrorCode::NoError if offset >= 0 => Report::Acked,
        // librdkafka's conclusion and not Kafka's answer.
        RDKafkaErrorCode::NoError => Report::Failed("acknowledges without an offset".to_owned()),
        RDKafkaErrorCode::InvalidDifferentRecord => Report::Bystander,
        _ if is_too_large => Report::Bystander,
        code => {
            let reason = KafkaError::MessageProduction(code).to_string();
            match is_final(code) {
                true if is_named => Report::Rejected(reason),
                true => Report::Suspect(reason),
                false => Report::Failed(why_not_delivered(code)),
            }
        }
    };
    let records = batch.records.iter();
    let records = records.map(|record| (record.number, report(record.error, record.offset)));
    Reports {
        records: records.collect(),
        topic: batch.topic,
        too_large: is_too_large.then_some(batch.bytes),
    }
}

/// Whether Kafka rejects the record itself, permanently. Everything else counts as an outage: a
/// missing topic, a missing right, and any code we do not know, because that must never drop an
/// event.
pub(super) fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}

#[cfg(test)]
mod tests {
    use super::super::events::RecordReport;
    use super::*;
    use RDKafkaErrorCode::{
        InvalidDifferentRecord, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge, NoError,
        NotEnoughReplicas,
    };

    fn reports(error: RDKafkaErrorCode, records: &[(RDKafkaErrorCode, i64)]) -> Vec<Report> {
        let records = records.iter().zip(0..);
        let records = records.map(|(&(error, offset), number)| RecordReport {
            number,
            error,
            offset,
        });
        let batch = Batch {
            topic: "t".to_owned(),
            partition: 0,
            bytes: 0,
            error,
            records: records.collect(),
        };
        let reports = judge(batch).records;
        reports.into_iter().map(|(_, report)| report).collect()
    }

    fn short(report: &Report) -> &'static str {
        match report {
            Report::Acked => "acked",
            Report::Rejected(_) => "rejected",
            Report::Suspect(_) => "suspect",
            Report::Bystander => "bystander",
            Report::Failed(_) => "failed",
        }
    }

    #[test]
    fn a_rejection_counts_for_the_records_that_kafka_names() {
        for (batch, records, expected) in [
            (
                NoError,
                &[(NoError, 7), (NoError, -1)][..],
                &["acked", "failed"][..],
            ),
            // One record is named.
            (
                InvalidTimestamp,
                &[(InvalidDifferentRecord, -1), (InvalidTimestamp, -1)],
                &["bystander", "rejected"],
            ),
            // Two, and all of them.
            (
                InvalidTimestamp,
                &[
                    (InvalidRecord, -1),
                    (InvalidDifferentRecord, -1),
                    (InvalidRecord, -1),
                ],
                &["rejected", "bystander", "rejected"],
            ),
            (
                InvalidTimestamp,
                &[(InvalidRecord, -1), (InvalidRecord, -1)],
                &["rejected", "rejected"],
            ),
            // None, unless there is only one.
            (
                InvalidRecord,
                &[(InvalidRecord, -1), (InvalidRecord, -1)],
                &["suspect", "suspect"],
            ),
            (
                MessageSizeTooLarge,
                &[(MessageSizeTooLarge, -1), (MessageSizeTooLarge, -1)],
                &["bystander", "bystander"],
            ),
            (
                MessageSizeTooLarge,
                &[(MessageSizeTooLarge, -1)],
                &["rejected"],
            ),
            (NotEnoughReplicas, &[(NotEnoughReplicas, -1)], &["failed"]),
        ] {
            let reports = reports(batch, records);
            let reports: Vec<_> = reports.iter().map(short).collect();
            assert_eq!(reports, expected, "{batch:?}");
        }
    }
}
