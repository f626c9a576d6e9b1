//! The metrics of the spool.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use super::series::{counter, gauge, register};

/// The metrics of the spool. Without one, all stay at zero.
#[derive(Debug)]
pub struct SpoolMetrics {
    records: IntGauge,
    refused: IntGauge,
    bytes: IntGauge,
    max_bytes: IntGauge,
    /// When the oldest record arrived, in ms since 1970-01-01 UTC; 0 if there is none.
    oldest: AtomicI64,
    oldest_age: Gauge,
    syncs: IntCounter,
    replayed: IntCounter,
    lost: IntCounter,
    corruptions: IntCounter,
}

impl SpoolMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            records: gauge(registry, "zim2kafka_spool_records", "Records in the spool."),
            refused: gauge(
                registry,
                "zim2kafka_spool_refused_records",
                "Records in the spool that Kafka has rejected permanently. Events become dead letters; dead letters are sent again by the next start.",
            ),
            bytes: gauge(
                registry,
                "zim2kafka_spool_bytes",
                "Bytes that the spool uses on disk.",
            ),
            max_bytes: gauge(
                registry,
                "zim2kafka_spool_max_bytes",
                "Bytes that the spool may use on disk.",
            ),
            oldest: AtomicI64::new(0),
            oldest_age: register(
                registry,
                Gauge::new(
                    "zim2kafka_spool_oldest_record_age_seconds",
                    "Age of the oldest record in the spool that Kafka has not rejected permanently; 0 if there is none.",
                ),
            ),
            syncs: counter(
                registry,
                "zim2kafka_spool_syncs_total",
                "Batches of records written to the spool and synced to disk.",
            ),
            replayed: counter(
                registry,
                "zim2kafka_spool_replayed_records_total",
                "Records from the spool that Kafka has acknowledged.",
            ),
            lost: counter(
                registry,
                "zim2kafka_spool_lost_records_total",
                "Records lost to disk damage.",
            ),
            corruptions: counter(
                registry,
                "zim2kafka_spool_corruptions_total",
                "How often the spool was found damaged.",
            ),
        }
    }

    /// There is a spool, which may use this many bytes.
    pub fn set_max_bytes(&self, max_bytes: u64) {
        self.max_bytes
            .set(i64::try_from(max_bytes).unwrap_or(i64::MAX));
    }

    /// The file of the spool is being loaded; these are its bytes so far.
    pub fn set_bytes_loaded(&self, bytes: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The records of the spool are being read; this many so far.
    pub fn set_records_read(&self, records: usize) {
        self.records.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A spool was opened that may use this many bytes. If it was damaged, `lost` records could not
    /// be recovered.
    pub fn opened(&self, max_bytes: u64, lost: Option<usize>) {
        self.set_max_bytes(max_bytes);
        if let Some(lost) = lost {
            self.corruptions.inc();
            self.lost.inc_by(lost as u64);
        }
    }

    /// The contents of the spool: records, how many of them Kafka has rejected permanently, bytes,
    /// and when the oldest of the others arrived, in ms since 1970-01-01 UTC.
    pub fn set_contents(&self, records: i64, refused: i64, bytes: u64, oldest: Option<i64>) {
        self.records.set(records);
        self.refused.set(refused);
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
    }

    /// The bytes that the spool uses on disk and may use.
    pub fn bytes(&self) -> (u64, u64) {
        let bytes = |gauge: &IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        (bytes(&self.bytes), bytes(&self.max_bytes))
    }

    /// How many records the spool holds.
    pub fn records(&self) -> u64 {
        u64::try_from(self.records.get()).unwrap_or(0)
    }

    /// How many records were lost to disk damage.
    pub fn lost_records(&self) -> u64 {
        self.lost.get()
    }

    /// The age of the oldest record that Kafka has not rejected permanently; zero if there is none.
    pub fn oldest_age(&self) -> Duration {
        self.update_age();
        Duration::try_from_secs_f64(self.oldest_age.get()).unwrap_or_default()
    }

    /// How many records Kafka has rejected permanently.
    pub fn refused_records(&self) -> usize {
        usize::try_from(self.refused.get()).unwrap_or(0)
    }

    /// How many records from the spool Kafka has acknowledged.
    pub fn replayed_records(&self) -> u64 {
        self.replayed.get()
    }

    /// Records were written and synced.
    pub fn synced(&self) {
        self.syncs.inc();
    }

    /// Kafka acknowledged a record from the spool.
    pub fn replayed(&self) {
        self.replayed.inc();
    }

    /// Updates the age.
    pub(super) fn update_age(&self) {
        let oldest = self.oldest.load(Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let age = (now.as_secs_f64() - oldest as f64 / 1000.0).max(0.0);
        self.oldest_age.set(if oldest == 0 { 0.0 } else { age });
    }
}
