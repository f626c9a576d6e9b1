//! The quota of the spool, of which each lane has a part of its own.

use serde_json::json;

use super::{Scene, wait_until};
use crate::support::app::callback;

#[test]
fn events_and_dead_letters_cannot_use_each_others_part_of_the_quota() {
    const EVENT: &str = "group_join";
    const DEAD_LETTER: &str = "another_event";
    let note = "n".repeat(100 * 1024);
    for (first, second) in [(EVENT, DEAD_LETTER), (DEAD_LETTER, EVENT)] {
        let scene = Scene::new();
        let service = scene.start(&[("ZIM2KAFKA_SPOOL_MAX_BYTES", "4MiB")]);
        let is_durable = |event: &str, number: usize| {
            let group = format!("g{number}");
            let fields = json!({"event": event, "group_id": group, "note": note});
            let answer = service.post(callback(fields));
            assert!(!answer.contains("\"published\""), "{answer}");
            answer.starts_with("HTTP/1.1 200")
        };
        let filled = (0..100).take_while(|number| is_durable(first, *number));
        let filled = filled.count();
        assert!((20..36).contains(&filled), "{first}: {filled}");
        for number in 100..103 {
            let log = service.process.stderr();
            assert!(is_durable(second, number), "{second}: {log}");
        }
        assert!(!is_durable(first, 200), "{first}");
        wait_until(&service, "it is logged", || {
            service
                .process
                .stderr()
                .contains("ZIM2KAFKA_SPOOL_MAX_BYTES")
        });
        scene.kafka_comes();
        wait_until(&service, "the spool is empty", || {
            service.metric("zim2kafka_spool_records") == 0.0
        });
        wait_until(&service, "there is space again", || {
            let answer = service.post(callback(json!({"group_id": "after"})));
            answer.starts_with("HTTP/1.1 200")
        });
    }
}
