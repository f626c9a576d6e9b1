//! Prints the members of each group by its joins: `cargo run --example consumer -- localhost:9092`.

#![allow(clippy::indexing_slicing, reason = "a missing JSON value is null")]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message};
use serde_json::Value;

/// A duplicate usually arrives within minutes.
const REMEMBERED: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args()
        .nth(1)
        .unwrap_or("localhost:9092".to_owned());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "members-rust")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&["zim.group-joined"])?;
    let mut seen: HashMap<Vec<u8>, Instant> = HashMap::new();
    let mut members: HashMap<String, HashSet<String>> = HashMap::new();
    for message in consumer.iter() {
        let message = message?;
        let id = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == "ce_id"));
        let id = id
            .and_then(|header| header.value)
            .unwrap_or_default()
            .to_vec();
        seen.retain(|_, when| when.elapsed() < REMEMBERED);
        if seen.insert(id, Instant::now()).is_none() {
            let event: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
            let group = event["group_id"].as_str().unwrap_or_default().to_owned();
            let users = event["new_user_ids"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let group_members = members.entry(group.clone()).or_default();
            // A set: a repeated join adds nobody.
            group_members.extend(users.map(str::to_owned));
            println!("{group} has {} members", group_members.len());
        }
        consumer.commit_message(&message, CommitMode::Async)?;
    }
    Ok(())
}
