//! What callback number `n` of a run says. It is computed from the seed each time it is needed, so
//! that a million of them need not be kept.

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// All callbacks of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) appid: String,
    pub(crate) secret: String,
}

/// One in so many is not publishable, and becomes a dead letter.
const DEAD: u64 = 50;

/// One in so many has many users, and about 20 kB.
const LARGE: u64 = 101;

/// The marker by which a record tells its number, wherever it turns up.
pub(super) fn marker(seed: u64, number: u64) -> String {
    format!("n{number}-{seed:x}")
}

impl Plan {
    /// Whether it becomes a dead letter.
    pub(crate) fn is_dead(&self, number: u64) -> bool {
        self.dice(number, 1).is_multiple_of(DEAD)
    }

    /// The record's value, but for what only the service knows: `event_id` and `received_at`.
    pub(super) fn value(&self, number: u64, group: &str, timestamp: u64) -> Value {
        let invited = self.dice(number, 2).is_multiple_of(2);
        let mut value = json!({
            "event": "group_join",
            "appid": self.appid,
            "group_id": group,
            "join_type": if invited { "Invited" } else { "Apply" },
            "operator_account": if invited { json!("boss & co") } else { Value::Null },
            "new_user_ids": self.users(number),
            "timestamp": timestamp,
        });
        if self.dice(number, 3).is_multiple_of(4) {
            value["extra"] = json!({"note": "100%25 + \u{1F600}", "n": 1});
        }
        value
    }

    fn users(&self, number: u64) -> Vec<String> {
        let count = match self.dice(number, 4) {
            dice if dice.is_multiple_of(LARGE) => 900,
            dice => dice % 4,
        };
        let others =
            (0..count).map(|at| format!("user-{at}-{}", self.dice(number, at) % 1_000_000));
        std::iter::once(marker(self.seed, number))
            .chain(others)
            .collect()
    }

    /// The body that is posted, the same at each attempt.
    pub(super) fn body(&self, number: u64, group: &str, timestamp: u64) -> Vec<u8> {
        let mut body = self.value(number, group, timestamp);
        let fields = body.as_object_mut().expect("an object");
        if let Some(Value::Object(extra)) = fields.remove("extra") {
            fields.extend(extra);
        }
        if fields["operator_account"].is_null() {
            fields.remove("operator_account");
        }
        if self.is_dead(number) {
            fields.insert("join_type".to_owned(), "Scan".into());
        }
        let (timestamp, nonce) = (timestamp.to_string(), number.to_string());
        fields.insert("signature".to_owned(), self.sign(&timestamp, &nonce).into());
        fields.insert("timestamp".to_owned(), timestamp.into());
        fields.insert("nonce".to_owned(), nonce.into());
        body.to_string().into_bytes()
    }

    /// By ZEGOCLOUD's page: SHA-1, in lower-case hex, of the sorted and joined secret, timestamp,
    /// nonce.
    fn sign(&self, timestamp: &str, nonce: &str) -> String {
        let mut parts = [self.secret.as_str(), timestamp, nonce];
        parts.sort_unstable();
        hex::encode(Sha1::digest(parts.concat()))
    }

    /// A number that looks random, and is always the same (splitmix64).
    fn dice(&self, number: u64, purpose: u64) -> u64 {
        let mut x = (self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_add(purpose.wrapping_mul(0xd1b5_4a32_d192_ed03));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
