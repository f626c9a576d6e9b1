//! The publisher: one thread that hands the records of all queues to Kafka's producers and passes
//! on their reports.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::lanes::Lanes;
use super::producers::Producers;
use super::wakeup::Wakeups;
use crate::failpoint;

/// The pause between two turns, in which records and reports accumulate. Waking a thread for each
/// of them costs more than the rest of a callback. A record that arrives while the publisher waits
/// is handed over at once.
const TURN_PAUSE_MIN: Duration = Duration::from_micros(500);

/// The pause doubles up to this while there is nothing to hand over and nothing reported.
const TURN_PAUSE_MAX: Duration = Duration::from_millis(2);

/// How long an idle publisher waits before it looks for what nobody wakes it for: the producers'
/// statistics and errors, and partitions whose pause has ended.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// The running publisher.
pub(super) struct Publisher {
    wakeups: Arc<Wakeups>,
    thread: JoinHandle<()>,
}

/// Whether a turn found work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Nothing,
    Something,
}

impl Publisher {
    /// Starts the thread.
    pub(super) fn start(
        lanes: Arc<Lanes>,
        producers: Producers,
        wakeups: Arc<Wakeups>,
    ) -> io::Result<Self> {
        let mut worker = Worker {
            lanes,
            producers,
            wakeups: Arc::clone(&wakeups),
        };
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || {
                worker.run();
                worker.producers.stop();
            })?;
        Ok(Self { wakeups, thread })
    }

    /// Ends the thread and all producers, even if records still wait.
    pub(super) fn stop(self) {
        self.wakeups.publisher.stop();
        (self.thread.join()).expect("a panic in the publisher ends the process");
    }
}

struct Worker {
    lanes: Arc<Lanes>,
    producers: Producers,
    wakeups: Arc<Wakeups>,
}

impl Worker {
    fn run(&mut self) {
        let mut pause = TURN_PAUSE_MIN;
        while !self.wakeups.publisher.is_stopped() {
            let turn = self.turn(Instant::now());
            match turn {
                Turn::Something => {
                    pause = TURN_PAUSE_MIN;
                    thread::sleep(pause);
                }
                Turn::Nothing if self.producers.are_busy() => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(TURN_PAUSE_MAX);
                }
                Turn::Nothing => {
                    self.wakeups.publisher.wait(Instant::now() + IDLE_WAIT);
                }
            }
        }
    }

    /// Passes on reports, then hands over what may be handed over.
    fn turn(&mut self, now: Instant) -> Turn {
        let mut turn = Turn::Nothing;
        if self.producers.poll(now) > 0 {
            turn = Turn::Something;
        }
        let pacing = self.producers.pacing();
        for lane in self.lanes.all() {
            loop {
                let route = |via| self.producers.route(&lane.topic, via, now);
                let batch = lane.queue.hand_over(now, pacing, route);
                if batch.is_empty() {
                    break;
                }
                failpoint::hit("publisher");
                turn = Turn::Something;
                self.producers.send(lane, batch, now);
            }
        }
        turn
    }
}
