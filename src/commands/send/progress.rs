//! How far `send` is: a bar on a terminal, a line now and then in a log.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use super::summary::Counts;
use crate::log;

/// How often the bar is drawn.
const DRAW_PAUSE: Duration = Duration::from_millis(100);

/// The time for the terminal to remove the bar.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a line is logged if stderr is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the progress until it is finished.
pub(super) enum Progress {
    /// A bar, drawn by a thread of its own: a terminal may stop taking output (ctrl-s), which must
    /// hold up neither callbacks nor signals.
    Bar {
        /// Dropped at the end.
        is_over: mpsc::Sender<()>,
        drawing: JoinHandle<()>,
    },
    Lines(JoinHandle<()>),
}

impl Progress {
    /// Shows these counts, of `count` callbacks.
    pub(super) fn start(count: Option<u64>, counts: impl Fn() -> Counts + Send + 'static) -> Self {
        if !log::is_terminal() {
            return Self::Lines(tokio::spawn(async move {
                let mut clock = interval_at(Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
                loop {
                    clock.tick().await;
                    tracing::info!("{}", counts());
                }
            }));
        }
        let (is_over, over) = mpsc::channel();
        let drawing = tokio::task::spawn_blocking(move || {
            let bar = bar(count);
            while over.recv_timeout(DRAW_PAUSE) == Err(RecvTimeoutError::Timeout) {
                bar.set_position(counts().finished());
            }
            bar.finish_and_clear();
        });
        Self::Bar { is_over, drawing }
    }

    pub(super) async fn finish(self) {
        match self {
            Self::Bar { is_over, drawing } => {
                drop(is_over);
                // A terminal that blocks must not prevent the summary.
                let _ = tokio::time::timeout(CLEAR_TIMEOUT, drawing).await;
            }
            Self::Lines(lines) => lines.abort(),
        }
    }
}

fn bar(count: Option<u64>) -> ProgressBar {
    match count {
        Some(count) => ProgressBar::new(count).with_style(
            ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}")
                .expect("a constant template is valid"),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {pos} answered, {per_sec}")
                .expect("a constant template is valid"),
        ),
    }
}
