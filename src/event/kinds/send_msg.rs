//! A message was sent, or could not be. ZEGOCLOUD's page "Message sent".
//!
//! Its sample had the name `zim_send_msg` until 2025-04-28.

use super::message::{
    CONV_ID, CONV_TYPE, FROM_USER_ID, IDENTITY, IDENTITY_WITHOUT_IDS, MSG_BODY, MSG_ID, MSG_SEQ,
    MSG_TIME, MSG_TYPE, PAYLOAD, SEND_RESULT, SUB_MSG_TYPE, USER_LIST,
};
use crate::event::field::{FieldSpec, NUMBER_OR_ZERO, optional};
use crate::event::kind::{Family, Kind};

/// According to the English page of 2025-09-19, the field is left out if it is 0.
const SOURCE: FieldSpec = optional(
    "source",
    NUMBER_OR_ZERO,
    "What sent the message. 0, also if the callback had none: a client. 1: the server API.",
);

pub(super) static KIND: Kind = Kind {
    name: "send_msg",
    aliases: &["zim_send_msg"],
    family: Family::Message,
    ce_type: "com.zegocloud.zim.message.sent.v1",
    schema: "urn:zim2kafka:schema:message-sent:v1",
    about: "A message was sent, or could not be.",
    page: "message-sent",
    fields: &[
        FROM_USER_ID,
        CONV_TYPE,
        CONV_ID,
        MSG_ID,
        MSG_SEQ,
        MSG_TYPE,
        SUB_MSG_TYPE,
        SOURCE,
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
        r#"{"event":"send_msg","from_user_id":"u_ada","conv_type":2,"conv_id":"grp-7f3a","msg_type":1,"sub_msg_type":0,"msg_body":"Shall we start?","msg_id":"857639062792568901","msg_seq":17,"payload":"{\"client\":\"demo\"}","msg_time":1757577646123,"send_result":0}"#,
        r#"{"event":"send_msg","from_user_id":"u_ada","conv_type":0,"conv_id":"u_bao","msg_type":1,"sub_msg_type":0,"msg_body":"See you at eight","msg_id":"857639062792568911","msg_seq":5,"payload":"","msg_time":1757577646123,"send_result":0}"#,
        r#"{"event":"send_msg","from_user_id":"u_ada","conv_type":0,"conv_id":"","msg_type":1,"sub_msg_type":0,"msg_body":"Your order is on its way","msg_id":"","payload":"","msg_time":1757577646123,"send_result":0,"source":1,"user_list":[{"UserId":"u_bao","MsgId":"857639062792568914","MsgSeq":9},{"UserId":"u_cem","MsgId":""}]}"#,
    ],
    ..Kind::USUAL
};
