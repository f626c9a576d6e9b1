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

/// The progress of a command, as a bar and as a line.
pub(super) trait Shown: Send + 'static {
    /// The bar for a terminal.
    fn bar(&self) -> ProgressBar;

    /// Brings the bar up to date.
    fn draw(&mut self, bar: &ProgressBar);

    /// The line for a log; `None` if there is nothing to report.
    fn line(&mut self) -> Option<String>;
}

/// Shows how far a command is, on a thread of its own: a terminal may stop taking output (ctrl-s),
/// which must hold up neither the work nor signals.
pub(super) struct Progress {
    /// Dropped at the end.
    is_over: mpsc::Sender<()>,
    showing: JoinHandle<()>,
}

impl Progress {
    /// Begins to show it.
    pub(super) fn start(mut shown: impl Shown) -> Self {
        let (is_over, over) = mpsc::channel();
        let goes_on = move |pause| over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
        let showing = tokio::task::spawn_blocking(move || {
            if !log::is_terminal() {
                while goes_on(LINE_INTERVAL) {
                    if let Some(line) = shown.line() {
                        tracing::info!("{line}");
                    }
                }
                return;
            }
            let bar = shown.bar();
            while goes_on(DRAW_INTERVAL) {
                shown.draw(&bar);
            }
            bar.finish_and_clear();
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

/// A bar in this style.
pub(super) fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::no_length().with_style(style.expect("a constant template is valid"))
}

/// Shows a [`Counter`].
struct Counted {
    counter: Arc<Counter>,
    /// When it was last shown, the step then, and how much of it was done.
    last: (Instant, Step, u64),
}

impl Counter {
    /// Shows the count while a command works.
    pub(super) fn show(self: &Arc<Self>) -> Progress {
        Progress::start(Counted {
            counter: Arc::clone(self),
            last: (Instant::now(), Step::default(), 0),
        })
    }
}

impl Shown for Counted {
    fn bar(&self) -> ProgressBar {
        bar("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}")
    }

    fn draw(&mut self, bar: &ProgressBar) {
        let (step, done) = self.counter.read();
        if step == Step::default() {
            // Nothing has begun.
            return;
        }
        if step != self.last.1 {
            bar.reset();
            bar.set_length(step.total);
            bar.set_message(step.what.clone());
            self.last.1 = step;
        }
        bar.set_position(done);
    }

    fn line(&mut self) -> Option<String> {
        let (step, done) = self.counter.read();
        if step == Step::default() {
            return None;
        }
        let (at, before, done_before) = &self.last;
        let since = match *before == step {
            true => *done_before,
            false => 0,
        };
        let rate = done.saturating_sub(since) as f64 / at.elapsed().as_secs_f64();
        let Step { what, total } = &step;
        let line = format!("{what}: {done} of {total}, {rate:.0}/s");
        self.last = (Instant::now(), step, done);
        Some(line)
    }
}
