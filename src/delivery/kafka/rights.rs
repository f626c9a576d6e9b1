//! Whether we may write to a topic, asked without writing to it.
//!
//! Kafka tells who asks what it may do with a topic (KIP-430, brokers from 2.3 on). rust-rdkafka does
//! not offer the question, so it is put to librdkafka itself. The obvious other way, a record that is
//! too large to be taken, would make brokers log an error at each start, and end up in the topic of
//! one that does not look.
#![expect(
    unsafe_code,
    reason = "librdkafka's C functions; nothing of them leaves this file"
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

/// Whether Kafka lets us write to the topic. None where it does not say, as old brokers, and some that
/// only speak its protocol. Blocks for as long as `timeout`.
pub(super) fn may_write<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Option<bool> {
    let name = CString::new(topic).ok()?;
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call and all that is made here, which is destroyed here, once.
    // DescribeTopics copies the names and the options; the queue's only event is ours. What the event
    // lends is read before it is destroyed.
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

/// What the event says of its first topic.
///
/// # Safety
///
/// The event must be one that librdkafka gave, and not destroyed yet.
unsafe fn read(event: *mut rd_kafka_event_t) -> Option<bool> {
    // SAFETY: each pointer is looked at before it is followed, and counts are librdkafka's own. The
    // operations are read as numbers, since one that the enum does not know would not be a value of it.
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
