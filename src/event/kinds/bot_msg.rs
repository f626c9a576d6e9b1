//! A user sent a message to a bot. ZEGOCLOUD's page "One to one conversation bot message sent".
//!
//! Until 2026-01-05 the page described messages that bots sent. `send_msg` may report the same
//! message.

use super::message::{
    CONV_ID, CONV_TYPE, FROM_USER_ID, IDENTITY, IDENTITY_WITHOUT_IDS, MSG_BODY, MSG_ID, MSG_SEQ,
    MSG_TIME, MSG_TYPE, PAYLOAD, SEND_RESULT, SUB_MSG_TYPE, USER_LIST,
};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "bot_msg",
    family: Family::Message,
    ce_type: "com.zegocloud.zim.message.bot-received.v1",
    schema: "urn:zim2kafka:schema:message-bot-received:v1",
    about: "A bot received a message.",
    page: "one-to-one-conversation-bot-message-sent",
    fields: &[
        FROM_USER_ID,
        CONV_TYPE,
        CONV_ID,
        MSG_ID,
        MSG_SEQ,
        MSG_TYPE,
        SUB_MSG_TYPE,
        MSG_BODY,
        PAYLOAD,
        MSG_TIME,
        SEND_RESULT,
        USER_LIST,
    ],
    identity: IDENTITY,
    identity_time: Some("msg_time"),
    identity_without_ids: IDENTITY_WITHOUT_IDS,
    own_time: Some("msg_time"),
    examples: &[
        r#"{"event":"bot_msg","from_user_id":"u_ada","conv_type":0,"conv_id":"@RBT#helper","msg_type":1,"sub_msg_type":0,"msg_body":"What is on today?","msg_id":"857639062792568950","msg_seq":4,"payload":"","msg_time":1757577646123,"send_result":0}"#,
    ],
    ..Kind::USUAL
};
