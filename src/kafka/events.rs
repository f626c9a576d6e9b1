//! What librdkafka's threads report to a producer, read from its event queue.
//!
//! rust-rdkafka's own loop calls back once for each record and leaves out what only the whole event
//! holds: which records were one batch, and the error of that batch. Both decide whether Kafka has
//! named the records that it rejects. So this reads the events itself.
#![expect(
    unsafe_code,
    reason = "librdkafka's C functions; no pointer leaves this file"
)]

use std::ffi::{CStr, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings::{
    RD_KAFKA_EVENT_DR, RD_KAFKA_EVENT_ERROR, RD_KAFKA_EVENT_LOG, RD_KAFKA_EVENT_STATS,
};
use rdkafka::bindings::{
    rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_error_string, rd_kafka_event_log,
    rd_kafka_event_message_next, rd_kafka_event_stats, rd_kafka_event_t, rd_kafka_event_type,
    rd_kafka_message_t, rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_poll,
    rd_kafka_queue_t, rd_kafka_topic_name,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::types::RDKafkaErrorCode;

/// One event of a producer.
pub(super) enum Event {
    /// Reports on records. Those that Kafka answered come together, batch by batch.
    Reports(Batch),
    /// librdkafka's statistics, as JSON.
    Statistics(Vec<u8>),
    /// An error of the client, as opposed to one of a record.
    Error {
        code: RDKafkaErrorCode,
        reason: String,
    },
    /// A line of librdkafka's log.
    Log {
        level: RDKafkaLogLevel,
        facility: String,
        message: String,
    },
}

/// The reports on records of one topic and partition.
pub(super) struct Batch {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The keys and values, not compressed.
    pub(super) bytes: usize,
    /// The error of the whole batch.
    pub(super) error: RDKafkaErrorCode,
    pub(super) records: Vec<RecordReport>,
}

/// The report on one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordReport {
    pub(super) number: u64,
    pub(super) error: RDKafkaErrorCode,
    /// Negative if librdkafka concludes that Kafka has the record, but Kafka did not say so.
    pub(super) offset: i64,
}

/// The event queue of a producer.
pub(super) struct EventQueue(*mut rd_kafka_queue_t);

// SAFETY: librdkafka's queues have their own lock.
unsafe impl Send for EventQueue {}
unsafe impl Sync for EventQueue {}

impl EventQueue {
    /// The queue of this client, which must outlive it.
    pub(super) fn of<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client is alive. Its queue is destroyed once, when this is dropped.
        Self(unsafe { rd_kafka_queue_get_main(client.native_ptr()) })
    }

    /// The next event; `None` if there is none now.
    pub(super) fn poll(&self) -> Option<Event> {
        self.wait(Duration::ZERO)
    }

    /// The next event, if there is one within this time.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Event> {
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        loop {
            // SAFETY: what an event lends is copied before the event is destroyed, once.
            unsafe {
                let event = rd_kafka_queue_poll(self.0, milliseconds);
                if event.is_null() {
                    return None;
                }
                let read = read(event);
                rd_kafka_event_destroy(event);
                if read.is_some() {
                    return read;
                }
            }
        }
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: it is not used any more.
        unsafe { rd_kafka_queue_destroy(self.0) }
    }
}

/// # Safety
///
/// The event must come from librdkafka and must not be destroyed yet.
unsafe fn read(event: *mut rd_kafka_event_t) -> Option<Event> {
    // SAFETY: each function is called with an event of its type only.
    unsafe {
        match rd_kafka_event_type(event) {
            RD_KAFKA_EVENT_DR => {
                let mut batch = Batch {
                    topic: String::new(),
                    partition: 0,
                    bytes: 0,
                    error: rd_kafka_event_error(event).into(),
                    records: Vec::new(),
                };
                while let Some(message) = rd_kafka_event_message_next(event).as_ref() {
                    if batch.topic.is_empty() {
                        batch.topic = topic(message);
                        batch.partition = message.partition;
                    }
                    batch.bytes += message.len + message.key_len;
                    batch.records.push(RecordReport {
                        number: message._private as u64,
                        error: message.err.into(),
                        offset: message.offset,
                    });
                }
                Some(Event::Reports(batch))
            }
            RD_KAFKA_EVENT_STATS => {
                let json = CStr::from_ptr(rd_kafka_event_stats(event));
                Some(Event::Statistics(json.to_bytes().to_vec()))
            }
            RD_KAFKA_EVENT_ERROR => Some(Event::Error {
                code: rd_kafka_event_error(event).into(),
                reason: text(rd_kafka_event_error_string(event)),
            }),
            RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
                let failed =
                    rd_kafka_event_log(event, &raw mut facility, &raw mut message, &raw mut level);
                (failed == 0).then(|| Event::Log {
                    level: log_level(level),
                    facility: text(facility),
                    message: text(message),
                })
            }
            _ => None,
        }
    }
}

/// # Safety
///
/// The message must not be destroyed yet.
unsafe fn topic(message: &rd_kafka_message_t) -> String {
    if message.rkt.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka keeps the topic while it has a message of it.
    unsafe { text(rd_kafka_topic_name(message.rkt)) }
}

/// # Safety
///
/// Null, or a C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is not null.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().trim().to_owned()
}

/// The levels of syslog(3), as librdkafka uses them.
fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}
