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
        self.callback_by(&mut rand::rng(), event, number, now)
    }

    /// The same, varied by these random numbers.
    pub(super) fn callback_by(
        &self,
        random: &mut impl Rng,
        event: &Sample,
        number: u64,
        now: i64,
    ) -> String {
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
        let body = Variation::new(random, self.groups, now).body(event);
        self.signed(body, timestamp, &nonce)
    }

    /// Users join the groups in turn.
    fn group_joined(&self, random: &mut impl Rng, number: u64, now: i64) -> String {
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
        let body = fields.map(|(name, value)| (name.to_owned(), value));
        self.signed(body.collect(), now, &nonce)
    }

    fn signed(&self, mut body: Map<String, Value>, timestamp: i64, nonce: &str) -> String {
        let signature = sign(&self.secret, &timestamp.to_string(), nonce);
        let signed = [
            ("appid", json!(self.appid)),
            ("nonce", json!(nonce)),
            ("signature", json!(signature.to_hex())),
            ("timestamp", json!(timestamp)),
        ];
        body.extend(signed.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(body).to_string()
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(in crate::commands) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A `curl` command that posts this body, to be pasted into a shell.
pub(in crate::commands) fn curl(url: &str, body: &str) -> String {
    format!(
        "curl -sS -H 'content-type: application/json' -d {} {}",
        quoted(body),
        quoted(url)
    )
}

/// One word of a shell's command line.
pub(in crate::commands) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
