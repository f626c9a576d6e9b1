//! A user went online, logged out or went offline. ZEGOCLOUD's page "Login and logout".
//!
//! The page does not define which fields come with which action.

use crate::event::field::{NUMBER, Subject, Type, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "user_action",
    family: Family::User,
    ce_type: "com.zegocloud.zim.user.presence-changed.v1",
    schema: "urn:zim2kafka:schema:user-presence-changed:v1",
    about: "A user went online, logged out or went offline.",
    page: "login-and-logout",
    fields: &[
        required("user_id", Type::Id(Subject::User), "The user."),
        optional("user_name", Type::Text, "The user's nickname.").user_name(),
        optional(
            "os",
            Type::Text,
            "The user's platform, such as ANDROID, IOS_PHONE, PC or WEB. Other values can occur.",
        ),
        required(
            "action",
            NUMBER,
            "0: online. 1: logged out. 2: offline, after a lost connection. Other values can occur.",
        ),
        optional(
            "session_id",
            Type::ServerId,
            "The connection. A user may have several.",
        ),
        optional("relogin", NUMBER, "0: first login. 1: repeated login."),
        optional(
            "login_time",
            Type::Time,
            "When the user logged in, in milliseconds since 1970-01-01 UTC.",
        ),
        optional(
            "logout_time",
            Type::Time,
            "When the user logged out, in milliseconds since 1970-01-01 UTC.",
        ),
        optional(
            "logout_reason",
            Type::Text,
            "Why the user logged out. ZEGOCLOUD's pages do not list the values.",
        ),
        optional(
            "offline_time",
            Type::Time,
            "When the user went offline, in milliseconds since 1970-01-01 UTC.",
        ),
    ],
    identity: &[
        "user_id",
        "session_id",
        "action",
        "relogin",
        "login_time",
        "logout_time",
        "offline_time",
    ],
    examples: &[
        r#"{"event":"user_action","user_id":"u_ada","user_name":"Ada","os":"ANDROID","action":0,"session_id":"930821637828251648","login_time":1757577601,"relogin":"0"}"#,
        r#"{"event":"user_action","user_id":"u_ada","user_name":"Ada","os":"ANDROID","action":1,"session_id":"930821637828251648","login_time":1757577601,"relogin":"0","logout_time":1757577641,"logout_reason":"logout"}"#,
        r#"{"event":"user_action","user_id":"u_ada","user_name":"Ada","os":"ANDROID","action":2,"session_id":"930821637828251648","login_time":1757577601,"relogin":"0","offline_time":1757577641}"#,
    ],
    ..Kind::USUAL
};
