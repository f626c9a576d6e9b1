//! Rows that Kafka has rejected: the spooler marks them, and makes dead letters of the events among
//! them whose dead letters found no space, in an earlier run or in this one.

use super::lanes::Lanes;
use super::wakeup::Wakeups;
use crate::log::{Chain, LogThrottle};
use crate::spool::{self, Share, Spool};

/// How far the refused events on disk have been read.
#[derive(Debug)]
pub(super) struct RefusedRows {
    /// Events after this row still need dead letters; `None` if no event does.
    after: Option<u64>,
    log: LogThrottle,
}

impl Default for RefusedRows {
    /// An earlier run may have left some.
    fn default() -> Self {
        Self {
            after: Some(0),
            log: LogThrottle::default(),
        }
    }
}

impl RefusedRows {
    /// Marks some of the rows that Kafka has rejected, and wakes the spooler if there are more.
    pub(super) fn mark(
        &mut self,
        spool: &mut Spool,
        lanes: &Lanes,
        wakeups: &Wakeups,
    ) -> Result<(), spool::Error> {
        for (queue, share) in lanes.shares() {
            let refused = queue.unmarked_refused();
            let Some(first) = refused.first() else {
                continue;
            };
            let marked = spool.mark_refused(&refused)?;
            queue.mark_refused(refused.get(..marked).unwrap_or(&refused));
            if share == Share::Events {
                let before = first.saturating_sub(1);
                self.after = Some(self.after.unwrap_or(before).min(before));
            }
            if !queue.unmarked_refused().is_empty() {
                wakeups.spooler.wake();
            }
        }
        Ok(())
    }

    /// Makes dead letters of some events, while their queue has space.
    pub(super) fn dead_letter(
        &mut self,
        spool: &Spool,
        lanes: &Lanes,
        wakeups: &Wakeups,
    ) -> Result<(), spool::Error> {
        let Some(after) = self.after else {
            return Ok(());
        };
        let dead_letters = lanes.dead_letters();
        if !dead_letters.has_space() {
            return Ok(());
        }
        let scan = match spool.refused_events(after) {
            Ok(scan) => scan,
            Err(error @ spool::Error::Damaged(_)) => return Err(error),
            Err(error) => {
                if self.log.is_due() {
                    tracing::error!(
                        "cannot read the rejected events in the spool ({}); retrying. Check the disk of ZIM2KAFKA_SPOOL_DIR",
                        Chain(&error)
                    );
                }
                return Ok(());
            }
        };
        let replaced = dead_letters.replaced_rows();
        for (number, record) in scan.records {
            let is_new = !replaced.contains(&number);
            if is_new && dead_letters.enqueue_letter_of(number, &record).is_err() {
                return Ok(());
            }
            self.after = Some(number);
        }
        self.after = scan.end.filter(|_| !scan.complete);
        if self.after.is_some() {
            wakeups.spooler.wake();
        }
        Ok(())
    }
}
