//! The fields that the events of messages share. ZEGOCLOUD's pages "Message sent" and "One to one
//! conversation bot message sent".
//!
//! For a message of the server API in a one-to-one chat, `conv_id` is empty and `user_list` has the
//! receivers. Its members had other names until 2025-05-09.

use crate::event::field::{FieldSpec, NUMBER, Subject, Type, optional, required};

pub(super) const FROM_USER_ID: FieldSpec = required(
    "from_user_id",
    Type::Id(Subject::User),
    "The user who sent the message.",
);

pub(super) const CONV_TYPE: FieldSpec = required(
    "conv_type",
    NUMBER,
    "0: one to one. 1: room. 2: group. 3: channel. Other values can occur.",
);

pub(super) const CONV_ID: FieldSpec = optional(
    "conv_id",
    Type::Id(Subject::Conversation),
    "The room, group or channel; in a one-to-one chat, the receiver. Null for a one-to-one message of the server API.",
);

pub(super) const MSG_ID: FieldSpec = optional(
    "msg_id",
    Type::ServerId,
    "The ID of the message; null if the server API sent it to several users, because user_list then has an ID for each receiver. Both send_msg and bot_msg may report a message to a bot, with the same msg_id.",
);

pub(super) const MSG_SEQ: FieldSpec = optional(
    "msg_seq",
    NUMBER,
    "The sequence number of the message in its conversation; it increases.",
);

pub(super) const MSG_TYPE: FieldSpec = required(
    "msg_type",
    NUMBER,
    "1: text. 10: several parts. 11: image. 12: file. 13: audio. 14: video. 100: combined. 200: custom. Other values can occur.",
);

pub(super) const SUB_MSG_TYPE: FieldSpec = optional(
    "sub_msg_type",
    NUMBER,
    "The app's own type of a custom message; it has a meaning only with msg_type 200.",
);

pub(super) const MSG_BODY: FieldSpec = optional(
    "msg_body",
    Type::Text,
    "The message as it was sent: text, or JSON, which clients send percent-encoded.",
)
.content();

pub(super) const PAYLOAD: FieldSpec = optional(
    "payload",
    Type::Text,
    "Data that the app attached, as text.",
)
.content();

pub(super) const MSG_TIME: FieldSpec = optional(
    "msg_time",
    Type::Time,
    "When ZEGOCLOUD received the message, in milliseconds since 1970-01-01 UTC. It is also the record's Kafka timestamp, unless it differs from the signed timestamp by more than ZIM2KAFKA_TIMESTAMP_TOLERANCE.",
);

pub(super) const SEND_RESULT: FieldSpec = optional(
    "send_result",
    NUMBER,
    "0: sent. Otherwise an error code of ZEGOCLOUD: the message was not sent.",
);

pub(super) const USER_LIST: FieldSpec = optional(
    "user_list",
    Type::Items {
        members: RECEIVER,
        // ZEGOCLOUD's own sample of a client's message has an empty list.
        empty_is_null: true,
    },
    "The receivers of a one-to-one message of the server API.",
);

const RECEIVER: &[FieldSpec] = &[
    optional("user_id", Type::Id(Subject::User), "The receiver."),
    optional(
        "msg_id",
        Type::ServerId,
        "The ID of the message to this receiver; null if it was not sent.",
    ),
    optional(
        "msg_seq",
        NUMBER,
        "The sequence number of the message in its conversation.",
    ),
];

/// The fields that the id of a message is computed from.
pub(super) const IDENTITY: &[&str] = &[
    "from_user_id",
    "conv_type",
    "conv_id",
    "msg_id",
    "user_list",
    "send_result",
];

/// Further fields that it is computed from, if there is no message ID.
pub(super) const IDENTITY_WITHOUT_IDS: &[&str] = &["msg_type", "sub_msg_type"];
