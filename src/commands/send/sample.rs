//! Signed sample callbacks, as the sender makes them.

use rand::{Rng, RngExt};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::events::Sample;
use super::variation::{Variation, server_id};
use crate::callback::{Secrets, TimestampUnit, sign};
use crate::commands::Failure;
use crate::config::unit_of;
use crate::event::GROUP_JOIN;

/// A callback before it is signed.
#[derive(Debug, Clone)]
pub(super) struct Unsigned {
    /// All fields but the signed ones.
    pub(super) fields: Map<String, Value>,
    /// In the unit of the event's family.
    pub(super) timestamp: i64,
    pub(super) nonce: String,
}

/// A body as it is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Post {
    pub(in crate::commands) body: String,
    pub(in crate::commands) content_type: &'static str,
}

impl Post {
    pub(in crate::commands) fn json(body: String) -> Self {
        Self {
            body,
            content_type: "application/json",
        }
    }
}

/// Signs callbacks with the secret of an application.
pub(in crate::commands) struct Signer {
    appid: String,
    secret: Zeroizing<String>,
    /// How many groups, and how many rooms, the callbacks are about.
    groups: u64,
}

impl Signer {
    /// A signer for this application, or for the first one that has a secret.
    pub(in crate::commands) fn new(
        secrets: &Secrets,
        appid: Option<&str>,
        groups: u64,
    ) -> Result<Self, Failure> {
        let found = match appid {
            Some(appid) => secrets.secret_of(appid).map(|secret| (appid, secret)),
            None => secrets.first(),
        };
        let (appid, secret) = found.ok_or_else(|| {
            let appid = appid.unwrap_or_default();
            Failure::Usage(format!(
                "--appid {appid}: there is no secret for it; add {appid}=… to ZIM2KAFKA_CALLBACK_SECRETS or its file"
            ))
        })?;
        Ok(Self {
            // The wildcard is not an application; its secret is valid for any.
            appid: if appid == "*" {
                "1".to_owned()
            } else {
                appid.to_owned()
            },
            secret: Zeroizing::new(secret.to_owned()),
            groups,
        })
    }

    /// The body of one callback of this event, signed at `now` (milliseconds since 1970-01-01 UTC).
    /// `number` counts the callbacks.
    pub(in crate::commands) fn callback(&self, event: &Sample, number: u64, now: i64) -> String {
        let unsigned = self.unsigned(&mut rand::rng(), event, number, now);
        Value::Object(self.sign(unsigned)).to_string()
    }

    /// The same before it is signed, varied by these random numbers.
    pub(super) fn unsigned(
        &self,
        random: &mut impl Rng,
        event: &Sample,
        number: u64,
        now: i64,
    ) -> Unsigned {
        if event.name == GROUP_JOIN {
            return self.group_joined(random, number, now);
        }
        let unit = unit_of(event.family).unwrap_or(TimestampUnit::Seconds);
        let timestamp = match unit {
            TimestampUnit::Milliseconds => now,
            _ => now / 1000,
        };
        // ZEGOCLOUD's pages show nonces of both lengths.
        let digits = if random.random() { 6 } else { 19 };
        let nonce = server_id(random, digits);
        let fields = Variation::new(random, self.groups, now).body(event);
        Unsigned {
            fields,
            timestamp,
            nonce,
        }
    }

    /// Users join the groups in turn.
    fn group_joined(&self, random: &mut impl Rng, number: u64, now: i64) -> Unsigned {
        // As long as ZEGOCLOUD's nonces can be; shorter ones would collide within a long run.
        let nonce = random.random_range(0..10_u64.pow(18)).to_string();
        let invited = number % 3 == 2;
        let users: Vec<_> = (0..=number % 2)
            .map(|at| format!("user-{}", 2 * number + at))
            .collect();
        let fields = [
            ("event", json!(GROUP_JOIN)),
            ("group_id", json!(format!("group-{}", number % self.groups))),
            (
                "join_type",
                json!(if invited { "Invited" } else { "Apply" }),
            ),
            ("new_user_ids", json!(users)),
        ];
        let operator = invited.then(|| ("operator_account", json!("host")));
        let fields = fields.into_iter().chain(operator);
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        Unsigned {
            fields: fields.collect(),
            timestamp: now,
            nonce,
        }
    }

    /// Adds the signed fields.
    pub(super) fn sign(&self, unsigned: Unsigned) -> Map<String, Value> {
        self.sign_with(&self.secret, unsigned)
    }

    /// Adds the signed fields, with a signature by this secret.
    pub(super) fn sign_with(&self, secret: &str, unsigned: Unsigned) -> Map<String, Value> {
        let Unsigned {
            mut fields,
            timestamp,
            nonce,
        } = unsigned;
        let signature = sign(secret, &timestamp.to_string(), &nonce);
        let signed = [
            ("appid", json!(self.appid)),
            ("nonce", json!(nonce)),
            ("signature", json!(signature.to_hex())),
            ("timestamp", json!(timestamp)),
        ];
        fields.extend(signed.map(|(name, value)| (name.to_owned(), value)));
        fields
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(in crate::commands) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A `curl` command that posts this, to be pasted into a shell.
pub(in crate::commands) fn curl(url: &str, ca: Option<&str>, post: &Post) -> String {
    let ca = ca.map_or(String::new(), |ca| format!("--cacert {} ", quoted(ca)));
    format!(
        "curl -sS {ca}-H 'content-type: {}' -d {} {}",
        post.content_type,
        quoted(&post.body),
        quoted(url)
    )
}

/// One word of a shell's command line.
pub(in crate::commands) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
