//! Signed sample callbacks, as the sender makes them.

use serde_json::json;
use zeroize::Zeroizing;

use crate::callback::{Secrets, sign};
use crate::commands::Failure;

/// Signs callbacks with the secret of an application.
pub(in crate::commands) struct Signer {
    appid: String,
    secret: Zeroizing<String>,
}

impl Signer {
    /// A signer for this application, or for the first one that has a secret.
    pub(in crate::commands) fn new(
        secrets: &Secrets,
        appid: Option<&str>,
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
        })
    }

    /// The body of one group-joined callback, signed at `now` (milliseconds since 1970-01-01 UTC).
    /// Its group is one of `groups`.
    pub(in crate::commands) fn group_joined(&self, number: u64, groups: u64, now: i64) -> String {
        // As long as ZEGOCLOUD's nonces can be; shorter ones would collide within a long run.
        let nonce = rand::random_range(0..10_u64.pow(18)).to_string();
        let signature = sign(&self.secret, &now.to_string(), &nonce);
        let invited = number % 3 == 2;
        let users: Vec<_> = (0..=number % 2)
            .map(|at| format!("user-{}", 2 * number + at))
            .collect();
        let mut callback = json!({
            "appid": self.appid,
            "event": "group_join",
            "group_id": format!("group-{}", number % groups),
            "nonce": nonce,
            "signature": signature.to_hex(),
            "join_type": if invited { "Invited" } else { "Apply" },
            "new_user_ids": users,
            "timestamp": now,
        });
        if invited && let Some(fields) = callback.as_object_mut() {
            fields.insert("operator_account".to_owned(), json!("host"));
        }
        callback.to_string()
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(in crate::commands) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A `curl` command that posts this body, to be pasted into a shell.
pub(in crate::commands) fn curl(url: &str, body: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    format!(
        "curl -sS -H 'content-type: application/json' -d {} {}",
        quoted(body),
        quoted(url)
    )
}
