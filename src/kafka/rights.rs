//! Checks the right to write to a topic without writing to it.
//!
//! Kafka reports what a client may do with a topic (KIP-430, brokers from 2.3 on). rust-rdkafka
//! does not expose that request, so this calls librdkafka directly. The obvious alternative,
//! sending a record that is too large, would make brokers log an error at each start, and a broker
//! without a limit would store it.
#![expect(
    unsafe_code,
    reason = "librdkafka's C functions; no pointer leaves this file"
)]

use std::ffi::{CString, c_char};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_AclOperation_t, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
    rd_kafka_AdminOptions_set_include_authorized_operations, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_authorized_operations,
    rd_kafka_admin_op_t, rd_kafka_error_destroy, rd_kafka_event_DescribeTopics_result,
    rd_kafka_event_destroy, rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new,
    rd_kafka_queue_poll,
};
use rdkafka::client::{Client, ClientContext};

/// Whether Kafka allows this client to write to the topic. `None` if it does not report that, as
/// old brokers and some compatible ones. Blocks for at most `timeout`.
pub(super) fn may_write<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Option<bool> {
    let name = CString::new(topic).ok()?;
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call. Everything created here is destroyed here, once.
    // DescribeTopics copies the names and the options, and the queue delivers only this event. What
    // the event lends is read before the event is destroyed.
    unsafe {
        let kafka = client.native_ptr();
        let options =
            rd_kafka_AdminOptions_new(kafka, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let error = rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let queue = rd_kafka_queue_new(kafka);
        let mut may = None;
        if error.is_null() {
            rd_kafka_DescribeTopics(kafka, topics, options, queue);
            let event = rd_kafka_queue_poll(queue, milliseconds);
            if !event.is_null() {
                may = read(event);
                rd_kafka_event_destroy(event);
            }
        } else {
            rd_kafka_error_destroy(error);
        }
        rd_kafka_queue_destroy(queue);
        rd_kafka_TopicCollection_destroy(topics);
        rd_kafka_AdminOptions_destroy(options);
        may
    }
}

/// Reads the rights on the first topic of the event.
///
/// # Safety
///
/// The event must come from librdkafka and must not be destroyed yet.
unsafe fn read(event: *mut rd_kafka_event_t) -> Option<bool> {
    // SAFETY: each pointer is checked before it is followed, and the counts are librdkafka's own.
    // The operations are read as numbers, because a number that the enum does not know is not a
    // valid value of it.
    unsafe {
        let result = rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = rd_kafka_DescribeTopics_result_topics(result, ptr::from_mut(&mut count));
        if topics.is_null() || count == 0 {
            return None;
        }
        let mut count = 0;
        let operations =
            rd_kafka_TopicDescription_authorized_operations(*topics, ptr::from_mut(&mut count));
        if operations.is_null() || count == 0 {
            return None;
        }
        let write = rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as u32;
        Some(slice::from_raw_parts(operations.cast::<u32>(), count).contains(&write))
    }
}
