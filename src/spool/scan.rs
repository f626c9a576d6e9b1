//! The limits of a read of many rows, and its result.

use std::time::{Duration, Instant};

use super::{MAX_READ_BYTES, MAX_READ_RECORDS, TIME_SLICE};
use crate::event::Record;

/// The rows that were read.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The records that were wanted, in the order of their numbers.
    pub(crate) records: Vec<(u64, Record)>,
    /// The last number that was looked at, that of a row that is not wanted included; `None` if no row
    /// follows the start of the scan.
    pub(crate) end: Option<u64>,
    /// Whether the scan reached the last row.
    pub(crate) complete: bool,
}

/// A scan ends when it reaches one of these, but looks at one row at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) records: usize,
    /// The bytes after which no further record is taken.
    pub(super) bytes: usize,
    pub(super) time: Duration,
}

pub(super) const LIMITS: Limits = Limits {
    records: MAX_READ_RECORDS,
    bytes: MAX_READ_BYTES,
    time: TIME_SLICE,
};

impl Limits {
    /// Whether a scan that began at this time ends here.
    pub(super) fn are_reached(self, scan: &Scan, bytes: usize, began: Instant) -> bool {
        scan.records.len() >= self.records || bytes >= self.bytes || began.elapsed() >= self.time
    }
}
