//! How far `send` is.

use indicatif::ProgressBar;

use super::summary::Counts;
use crate::commands::progress::{Shown, bar};

/// Shows the counts of callbacks.
pub(super) struct Sent<F> {
    /// How many are sent in all, if that is known.
    pub(super) total: Option<u64>,
    pub(super) counts: F,
}

impl<F: Fn() -> Counts + Send + 'static> Shown for Sent<F> {
    fn bar(&self) -> ProgressBar {
        let Some(total) = self.total else {
            return bar("{spinner} {pos} answered, {per_sec} {msg}");
        };
        let bar = bar("{wide_bar} {pos}/{len} {per_sec} {eta} {msg}");
        bar.set_length(total);
        bar
    }

    fn draw(&mut self, bar: &ProgressBar) {
        let counts = (self.counts)();
        bar.set_position(counts.finished());
        if let Some(failure) = counts.failure {
            bar.set_message(failure);
        }
    }

    fn line(&mut self) -> Option<String> {
        Some((self.counts)().to_string())
    }
}
