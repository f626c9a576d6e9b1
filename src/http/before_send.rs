//! The answer to `before_send_msg`, the only callback whose answer has an effect at the sender.

use bytes::Bytes;
use serde_json::json;

/// Whether chat messages may be sent. ZEGOCLOUD holds each message back until its `before_send_msg`
/// is answered, for at most 2.5 s, and asks at most twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BeforeSend {
    /// No opinion: ZEGOCLOUD's own content moderation decides, if it is in use.
    #[default]
    Neutral,
    /// Messages are sent, even if ZEGOCLOUD's own content moderation objects.
    Send,
    /// Messages are not sent.
    Refuse {
        /// The text that the sender's client shows.
        reason: Option<String>,
    },
}

impl BeforeSend {
    /// The warning for [`BeforeSend::Send`], which overrides content moderation.
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
