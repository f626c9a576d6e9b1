//! Shows how far a command has come: a bar on a terminal, otherwise a line in the log now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::log;

/// How often the bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// How often a line is logged if there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The time for the terminal to remove the bar.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts what a command has done of its current step.
#[derive(Debug, Default)]
pub(super) struct Counter {
    step: Mutex<Step>,
    done: AtomicU64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Step {
    /// Such as `publishing dead letters`.
    what: String,
    total: u64,
}

impl Counter {
    /// Begins a step of this many parts.
    pub(super) fn begin(&self, what: &str, total: u64) {
        let mut step = self.step.lock();
        what.clone_into(&mut step.what);
        step.total = total;
        self.done.store(0, Ordering::Relaxed);
    }

    /// Another part is done.
    pub(super) fn add(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> (Step, u64) {
        let step = self.step.lock();
        (step.clone(), self.done.load(Ordering::Relaxed))
    }
}

/// Shows a [`Counter`], on a thread of its own: a terminal may stop taking output (ctrl-s), which
/// must hold up neither the work nor signals.
pub(super) struct Progress {
    /// Dropped at the end.
    is_over: mpsc::Sender<()>,
    showing: JoinHandle<()>,
}

impl Progress {
    /// Begins to show it.
    pub(super) fn start(counter: &Arc<Counter>) -> Self {
        let counter = Arc::clone(counter);
        let (is_over, over) = mpsc::channel();
        let showing = tokio::task::spawn_blocking(move || match log::is_terminal() {
            true => draw(&counter, &over),
            false => log_lines(&counter, &over),
        });
        Self { is_over, showing }
    }

    /// Removes the bar.
    pub(super) async fn finish(self) {
        drop(self.is_over);
        // A terminal that blocks must not prevent the result.
        let _ = tokio::time::timeout(CLEAR_TIMEOUT, self.showing).await;
    }
}

fn draw(counter: &Counter, over: &mpsc::Receiver<()>) {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(0).with_style(style.expect("a constant template is valid"));
    let mut shown = Step::default();
    while over.recv_timeout(DRAW_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let (step, done) = counter.read();
        if step == Step::default() {
            // Nothing has begun.
            continue;
        }
        if step != shown {
            bar.reset();
            bar.set_length(step.total);
            bar.set_message(step.what.clone());
            shown = step;
        }
        bar.set_position(done);
    }
    bar.finish_and_clear();
}

fn log_lines(counter: &Counter, over: &mpsc::Receiver<()>) {
    let mut last = (Instant::now(), Step::default(), 0);
    while over.recv_timeout(LINE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let (step, done) = counter.read();
        if step == Step::default() {
            continue;
        }
        let (at, before, done_before) = &last;
        let since = match *before == step {
            true => *done_before,
            false => 0,
        };
        let rate = done.saturating_sub(since) as f64 / at.elapsed().as_secs_f64();
        let Step { what, total } = &step;
        tracing::info!("{what}: {done} of {total}, {rate:.0}/s");
        last = (Instant::now(), step, done);
    }
}
