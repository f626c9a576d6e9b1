//! The callbacks of `send`, in the order in which they are posted.

use form_urlencoded::Serializer;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value};
use strum::{IntoStaticStr, VariantArray};

use super::events::{Sample, Sequence};
use super::sample::{Post, Signer, Unsigned};
use crate::commands::names::one_of;
use crate::event::Presence;

/// What is unusual about the callbacks, so that an operator can see how the service and its
/// consumers treat that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Scenario {
    /// Each is posted again after its answer.
    Resend,
    /// Each is followed by another one with the same signature.
    Reuse,
    /// They are signed a day ago.
    Stale,
    /// They are signed with a secret that nobody knows.
    WrongSecret,
    /// They are form fields.
    Form,
    /// They are percent-encoded JSON.
    Percent,
    /// They lack the fields that their event requires.
    Invalid,
}

/// The age of stale callbacks. A longer tolerance than a day would hardly be one.
const STALE_AGE: i64 = 24 * 60 * 60 * 1000;

impl Scenario {
    /// What it does and how the service answers, for the help.
    fn about(self) -> &'static str {
        match self {
            Self::Resend => "each callback twice; the second is answered duplicate",
            Self::Reuse => {
                "each signature with two bodies; both are answered published, the second gets the header ce_signaturereused"
            }
            Self::Stale => "signed a day ago; answered dead_lettered",
            Self::WrongSecret => {
                "signed with another secret; answered 401, not retried, exit code 1"
            }
            Self::Form => "form fields instead of JSON; answered published",
            Self::Percent => "percent-encoded JSON; answered published",
            Self::Invalid => "without the fields that the event requires; answered dead_lettered",
        }
    }

    /// How many bodies each callback is posted as.
    pub(super) fn posts(scenario: Option<Self>) -> u64 {
        match scenario {
            Some(Self::Resend | Self::Reuse) => 2,
            _ => 1,
        }
    }

    /// The scenario of this name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        one_of("a scenario", Self::VARIANTS, name)
    }

    /// All names, for shells.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Self::VARIANTS.iter().map(<&'static str>::from)
    }
}

/// The help of `--scenario`.
pub(super) fn help() -> String {
    let scenario = |scenario: &Scenario| {
        let name = <&str>::from(scenario);
        format!("- {name}: {}", scenario.about())
    };
    let scenarios: Vec<_> = Scenario::VARIANTS.iter().map(scenario).collect();
    format!(
        "Send unusual callbacks instead of plain ones:\n{}",
        scenarios.join("\n")
    )
}

/// Makes the callbacks of a run.
pub(super) struct Callbacks {
    pub(super) signer: Signer,
    pub(super) events: Sequence,
    pub(super) scenario: Option<Scenario>,
    random: StdRng,
}

impl Callbacks {
    /// With the same seed the callbacks differ only in times and signatures.
    pub(super) fn new(
        signer: Signer,
        events: Sequence,
        scenario: Option<Scenario>,
        seed: u64,
    ) -> Self {
        Self {
            signer,
            events,
            scenario,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// A number of any callback of the run.
    pub(super) fn any_number(&mut self) -> u64 {
        // Joins have users by their number.
        self.random.random_range(0..1_000_000)
    }

    /// The bodies of the callback with this number, signed at `now` (milliseconds since 1970-01-01
    /// UTC). The second one is posted when the first is answered.
    pub(super) fn posts(&mut self, number: u64, now: i64) -> Vec<Post> {
        let Self {
            signer,
            events,
            scenario,
            random,
        } = self;
        let event = events.at(number);
        let now = match scenario {
            Some(Scenario::Stale) => now - STALE_AGE,
            _ => now,
        };
        let mut unsigned = signer.unsigned(random, event, number, now);
        let json = |fields: Map<String, Value>| Post::json(Value::Object(fields).to_string());
        match scenario {
            None | Some(Scenario::Stale) => vec![json(signer.sign(unsigned))],
            Some(Scenario::Resend) => vec![json(signer.sign(unsigned)); 2],
            Some(Scenario::Reuse) => {
                // Joins differ by their number, the others by chance.
                let mut others =
                    (1..).map(|next| signer.unsigned(random, event, number + next, now));
                let other = others.find(|other| other.fields != unsigned.fields);
                let other = other.map(|other| Unsigned {
                    fields: other.fields,
                    ..unsigned.clone()
                });
                let both = std::iter::once(unsigned).chain(other);
                both.map(|unsigned| json(signer.sign(unsigned))).collect()
            }
            Some(Scenario::WrongSecret) => {
                let secret = hex::encode(rand::random::<[u8; 16]>());
                vec![json(signer.sign_with(&secret, unsigned))]
            }
            Some(Scenario::Form) => vec![form(&signer.sign(unsigned))],
            Some(Scenario::Percent) => {
                let body = Value::Object(signer.sign(unsigned)).to_string();
                vec![Post {
                    body: utf8_percent_encode(&body, NON_ALPHANUMERIC).to_string(),
                    content_type: FORM,
                }]
            }
            Some(Scenario::Invalid) => {
                unsigned.fields.retain(|name, _| !is_required(event, name));
                vec![json(signer.sign(unsigned))]
            }
        }
    }
}

fn is_required(event: &Sample, name: &str) -> bool {
    let mut fields = event.fields.iter();
    fields.any(|field| field.name == name && field.presence == Presence::Required)
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The fields as a form: a list of texts as `name[]=`, other lists and objects as JSON texts.
fn form(fields: &Map<String, Value>) -> Post {
    let mut form = Serializer::new(String::new());
    for (name, value) in fields {
        let texts = value.as_array().map(|list| {
            let texts = list.iter().map(Value::as_str);
            texts.collect::<Option<Vec<_>>>().unwrap_or_default()
        });
        match (value, texts) {
            (Value::Null, _) => {}
            (Value::String(text), _) => {
                form.append_pair(name, text);
            }
            (_, Some(texts)) if !texts.is_empty() => {
                for text in texts {
                    form.append_pair(&format!("{name}[]"), text);
                }
            }
            (other, _) => {
                form.append_pair(name, &other.to_string());
            }
        }
    }
    Post {
        body: form.finish(),
        content_type: FORM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::{RawCallback, Secrets, TimestampUnit};
    use crate::commands::send::events::names;
    use crate::event::{BEFORE_SEND_MESSAGE, EVENTS, Policy, Reason, kind_of};

    const NOW: i64 = 1_795_749_465_108;

    /// How many callbacks of each event are looked at.
    const CALLBACKS: u64 = 20;

    fn secrets() -> Secrets {
        Secrets::parse_list("1=secret").expect("a list")
    }

    fn callbacks(event: &str, scenario: Option<Scenario>, seed: u64) -> Callbacks {
        let signer = Signer::new(&secrets(), None, 7).expect("it has a secret");
        let events = Sequence::named(event).expect("it is known");
        Callbacks::new(signer, events, scenario, seed)
    }

    /// The posts of some callbacks of every event.
    fn each(scenario: Scenario) -> impl Iterator<Item = (&'static str, Vec<Post>)> {
        let events = names().filter(|name| Sequence::named(name).is_ok());
        events.flat_map(move |event| {
            let mut callbacks = callbacks(event, Some(scenario), 1);
            (0..CALLBACKS).map(move |number| (event, callbacks.posts(number, NOW)))
        })
    }

    /// The timestamp, the signature and what the body becomes; the first is the event's name.
    #[track_caller]
    fn judged(post: &Post) -> (i64, Result<&'static str, Reason>) {
        let raw = RawCallback {
            body: post.body.clone().into(),
            content_type: None,
            trace: None,
            received_at: NOW,
        };
        let json = raw.json().expect("an object or a form");
        let unverified = json.decode().expect("it is not repeated");
        let callback = secrets().authenticate(unverified, TimestampUnit::Auto);
        let callback = callback.unwrap_or_else(|why| panic!("{why:?}: {}", post.body));
        let kind = match kind_of(&callback) {
            Ok(kind) => kind,
            Err(why) => return (callback.timestamp(), Err(why.reason)),
        };
        let record = kind.record(&callback, &Policy::default());
        let name = record.map(|_| kind.name).map_err(|why| why.reason);
        (callback.timestamp(), name)
    }

    fn is_question(post: &Post) -> bool {
        post.body.contains(BEFORE_SEND_MESSAGE)
    }

    #[test]
    fn forms_and_percent_encoded_bodies_become_the_same_events() {
        for scenario in [Scenario::Form, Scenario::Percent] {
            for (event, posts) in each(scenario) {
                let [post] = &posts[..] else {
                    panic!("{posts:?}");
                };
                assert!(!post.body.contains(['{', '"', ' ']), "{}", post.body);
                assert_eq!(post.content_type, "application/x-www-form-urlencoded");
                if EVENTS.iter().any(|kind| kind.name == event) {
                    assert_eq!(judged(post).1, Ok(event), "{}", post.body);
                }
            }
        }
    }

    #[test]
    fn a_resend_is_the_same_body_and_a_reuse_is_another_with_the_same_signature() {
        for (_, posts) in each(Scenario::Resend) {
            assert_eq!(posts.len(), 2);
            assert_eq!(posts[0], posts[1]);
        }
        let signed = |post: &Post| {
            let body: Value = serde_json::from_str(&post.body).expect("JSON");
            let fields = ["appid", "timestamp", "nonce", "signature"];
            fields.map(|name| body[name].to_string())
        };
        for (_, posts) in each(Scenario::Reuse) {
            let [first, second] = &posts[..] else {
                panic!("{posts:?}");
            };
            assert_ne!(first.body, second.body);
            assert_eq!(signed(first), signed(second));
            if !is_question(first) {
                assert!(judged(first).1.is_ok() && judged(second).1.is_ok());
            }
        }
        for scenario in [None, Some(Scenario::Resend), Some(Scenario::Reuse)] {
            let posts = callbacks("group_join", scenario, 1).posts(0, NOW);
            assert_eq!(posts.len() as u64, Scenario::posts(scenario));
        }
    }

    #[test]
    fn stale_callbacks_are_a_day_old_and_valid_otherwise() {
        for (_, posts) in each(Scenario::Stale) {
            let age = NOW - judged(&posts[0]).0;
            assert!((0..1000).contains(&(age - STALE_AGE)), "{age}");
            if !is_question(&posts[0]) {
                assert!(judged(&posts[0]).1.is_ok(), "{posts:?}");
            }
        }
    }

    #[test]
    fn invalid_callbacks_are_authentic_and_lack_what_their_event_needs() {
        for (_, posts) in each(Scenario::Invalid) {
            if !is_question(&posts[0]) {
                assert_eq!(judged(&posts[0]).1, Err(Reason::InvalidEvent), "{posts:?}");
            }
        }
    }

    #[test]
    fn a_wrong_secret_makes_a_signature_that_is_refused() {
        for (_, posts) in each(Scenario::WrongSecret) {
            let raw = RawCallback {
                body: posts[0].body.clone().into(),
                content_type: None,
                trace: None,
                received_at: NOW,
            };
            let json = raw.json().expect("an object");
            let unverified = json.decode().expect("an object");
            let refused = secrets().authenticate(unverified, TimestampUnit::Auto);
            assert!(refused.is_err(), "{posts:?}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_callbacks_and_another_makes_others() {
        let made = |seed| {
            let mut callbacks = callbacks("mix", None, seed);
            let posts = (0..CALLBACKS).flat_map(|number| callbacks.posts(number, NOW));
            posts.map(|post| post.body).collect::<Vec<_>>()
        };
        assert_eq!(made(7), made(7));
        let (one, other) = (made(7), made(8));
        assert!(one.iter().all(|body| !other.contains(body)));
    }

    #[test]
    fn a_scenario_with_a_typo_is_refused_with_the_one_that_is_meant() {
        for (name, instead) in [
            ("resent", "did you mean resend?"),
            ("wrong_secret", "did you mean wrong-secret?"),
            ("Wrong-Secret", "did you mean wrong-secret?"),
            ("secret", "did you mean wrong-secret?"),
            (
                "x",
                "write one of resend, reuse, stale, wrong-secret, form, percent, invalid",
            ),
        ] {
            let refused = Scenario::named(name).expect_err(name);
            assert!(refused.contains(instead), "{refused}");
        }
        for name in Scenario::names() {
            assert_eq!(Scenario::named(name).map(<&str>::from), Ok(name));
        }
    }
}
