//! A broker that goes down while programs start does not end the tests.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rdkafka::mocking::MockCluster;

use crate::support::start::{Start, broker_down};

#[test]
fn a_mock_broker_goes_down_and_comes_back_while_programs_start() {
    let cluster = MockCluster::new(1).expect("it starts");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let ended = Command::new("true").finish().expect("it is everywhere");
                assert!(ended.status.success());
            }
        });
        for _ in 0..20 {
            broker_down(&cluster, 1);
            cluster.broker_up(1).expect("there is one");
        }
        done.store(true, Ordering::Relaxed);
    });
}
