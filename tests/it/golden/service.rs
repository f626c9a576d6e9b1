//! The record that a service with nothing configured publishes for each golden callback.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use zim2kafka::callback::sign;

use super::*;
use crate::support::app::App;
use crate::support::ids;

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(elapsed.expect("a clock").as_millis()).expect("a date")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_nothing_configured_publishes_every_golden_record_byte_for_byte() {
    let app = App::embedded(|settings| settings.secrets(SECRETS));
    let cases = cases();
    let mut posted = Vec::new();
    let mut all = Vec::new();
    for case in cases.iter().filter(|case| case.rejected.is_none()) {
        let headers: Vec<_> = (case.content_type.iter())
            .map(|text| ("content-type", text.as_str()))
            .collect();
        let before = now();
        let answer = app.post_with(&headers, case.bytes()).await;
        let sent = before..=now();
        let status = case.status.unwrap_or(200);
        assert_eq!(answer.status.as_u16(), status, "{}", case.name);
        if case.passed {
            assert_eq!(answer.text(), r#"{"result":0}"#, "{}", case.name);
        }
        let Some(mut expected) = case.expected() else {
            continue;
        };
        // 0 means "now" to librdkafka.
        expected.timestamp = expected.timestamp.max(1);
        let answer = answer.json();
        let word = match expected.topic.as_str() {
            TOPIC => "published",
            _ => "dead_lettered",
        };
        let id = answer["event_id"].clone();
        if answer != json!({"status": word, "event_id": id}) {
            all.push(format!("{}: {answer}", case.name));
            continue;
        }
        let id = id.as_str().expect("an id").to_owned();
        posted.push((case.name.clone(), expected, id, sent));
    }
    report(&all, cases.len());
    let kafka = Kafka::at(app.kafka.brokers());
    let (posted, lines) = tokio::task::spawn_blocking(move || {
        let mut found: HashMap<_, _> = [TOPIC, DEAD_LETTER_TOPIC]
            .into_iter()
            .map(|topic| {
                let in_topic = posted
                    .iter()
                    .filter(|(_, expected, ..)| expected.topic == topic);
                (topic.to_owned(), by_id(&kafka, topic, in_topic.count()))
            })
            .collect();
        let mut lines = Vec::new();
        for (case, expected, id, sent) in &posted {
            let found = found
                .get_mut(&expected.topic)
                .and_then(|found| found.get_mut(id));
            let Some(record) = found.and_then(Vec::pop) else {
                lines.push(format!("{}: there is no record {id}", case));
                continue;
            };
            let record = with_golden_arrival(&expected.topic, record, sent.clone());
            let differences = differences(expected, &record);
            if !differences.is_empty() {
                lines.push(format!("{}:\n{}", case, differences.join("\n")));
            }
        }
        (posted.len(), lines)
    })
    .await
    .expect("it reads");
    report(&lines, posted);
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn a_stale_callback_is_the_golden_dead_letter() {
    let app = App::embedded(|settings| settings.tolerance(Duration::from_secs(600)));
    let mut expected = Vec::new();
    for (age, detail) in [
        (3_600_400, "3600 s old"),
        (-3_600_800, "3600 s in the future"),
    ] {
        // A tenth of a second is left for the way to the service.
        let timestamp = now() - age;
        let (timestamp, nonce) = (timestamp.to_string(), rand::random::<u32>().to_string());
        let body = json!({
            "appid": "1",
            "event": "group_join",
            "group_id": "g1",
            "join_type": "Apply",
            "new_user_ids": ["u1"],
            "timestamp": timestamp,
            "nonce": nonce,
            "signature": sign("secret", &timestamp, &nonce).to_hex(),
        });
        let body = body.to_string();
        let answer = app.post(body.clone()).await;
        assert_eq!(answer.json()["status"], "dead_lettered");
        expected.push((timestamp, detail, body));
    }
    for letter in app.dead_letters(expected.len()).await {
        let at = expected
            .iter()
            .position(|(.., body)| body.as_bytes() == letter.value);
        let (timestamp, detail, body) = expected.swap_remove(at.expect("it was sent"));
        assert_eq!(letter.key.as_deref(), Some(b"g1".as_slice()));
        let headers = [
            ("event_id", ids::of_dead_letter(body.as_bytes())),
            ("dead_letter_reason", "stale".to_owned()),
            ("dead_letter_detail", format!("its timestamp is {detail}")),
            ("callback_timestamp", timestamp),
            ("received_at", letter.timestamp.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        let found: Vec<_> = (letter.headers.iter())
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
            .collect();
        assert_eq!(found, headers);
    }
    assert!(expected.is_empty(), "{expected:?}");
    app.stop().await.expect("it stops in order");
}
