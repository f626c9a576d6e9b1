//! The answer to `before_send_msg`, the one callback whose answer decides something.

use bytes::Bytes;
use serde_json::json;

/// Whether chat messages may be sent. ZEGOCLOUD holds each message back until its `before_send_msg`
/// is answered, for at most 2.5 s, and asks at most twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BeforeSend {
    /// No opinion: ZEGOCLOUD's own content moderation decides, if it is in use.
    #[default]
    Neutral,
    /// They are sent, even if ZEGOCLOUD's own content moderation objects.
    Send,
    /// They are not sent.
    Refuse {
        /// What the sender's client shows.
        reason: Option<String>,
    },
}

impl BeforeSend {
    /// What an operator should know before all messages are sent.
    pub fn warning(&self) -> Option<&'static str> {
        match self {
            Self::Send => Some(
                "every before_send_msg is answered with result 1, which overrides ZEGOCLOUD's own content moderation: messages that it objects to are sent. ZIM2KAFKA_BEFORE_SEND=neutral leaves the decision to it",
            ),
            Self::Neutral | Self::Refuse { .. } => None,
        }
    }

    /// The body of the answer, as ZEGOCLOUD's page "Message not sent yet" defines it.
    pub(super) fn body(&self) -> Bytes {
        let answer = match self {
            Self::Neutral => json!({ "result": 0 }),
            Self::Send => json!({ "result": 1 }),
            Self::Refuse { reason: None } => json!({ "result": 3 }),
            Self::Refuse {
                reason: Some(reason),
            } => json!({ "result": 3, "reason": reason }),
        };
        answer.to_string().into()
    }
}
