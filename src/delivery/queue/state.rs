//! The rules of the queue as plain state: what may be handed over, what must go to disk, and what
//! follows once a record is settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::MAX_UNDELETED_ROWS;
use crate::delivery::ticket::Ticket;
use crate::event::Record;
use crate::kafka::{MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_RECORDS};
use crate::spool::{Backlog, Row};

/// The memory that a record takes besides its own bytes: its entry, its ticket, its headers'
/// handles.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 1024;

/// The most records that are handed over under one lock. The publisher then asks whether the
/// producer has failed, because records sent after a failure could overtake.
pub(in crate::delivery) const BATCH_RECORDS: usize = 100;

/// With records in flight and no acknowledgement for this long, the producer is replaced: the
/// brokers may have new addresses, and "stuck without an error" is a known state of Kafka clients.
/// A single leaderless partition does not cause this, since others still acknowledge.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The state of a lane. Numbers rise from the front of the window, through the backlog, to the end
/// of the tail.
#[derive(Debug)]
pub(super) struct QueueState {
    /// Records that a producer has been given, until those before them are settled too.
    pub(super) window: VecDeque<Entry>,
    /// The index in the window of the first record that the current producer has not been given.
    pub(super) next: usize,
    /// How many records follow the window that are on disk only.
    pub(super) backlog: usize,
    /// The newest records, in memory only.
    pub(super) tail: VecDeque<Entry>,
    /// The highest number that has been in the window.
    pub(super) taken_to: Option<u64>,
    /// Up to this number everything is settled or on disk.
    pub(super) spooled_to: Option<u64>,
    /// Bytes of the records that are not durable, overhead included.
    pub(super) bytes: usize,
    /// Bytes of the records in the window.
    pub(super) window_bytes: usize,
    /// Records that Kafka has acknowledged, with tickets still to be resolved.
    pub(super) acked: Vec<(Arc<Record>, Arc<Ticket>)>,
    /// Rows on disk that are settled and can be deleted.
    pub(super) deletable: Vec<u64>,
    /// Rows on disk that Kafka rejects and that are still to be marked so.
    pub(super) unmarked_refused: Vec<u64>,

    /// The current producer's generation. Of an older one, only `Report::Acked` counts.
    pub(super) generation: u64,
    pub(super) in_flight: usize,
    /// Whether the last record handed over is in flight alone, so that nothing may follow it yet.
    pub(super) last_is_alone: bool,
    pub(super) failure: Option<String>,
    /// Whether the current producer has settled any record.
    pub(super) progress: bool,
    pub(super) last_progress: Instant,
    pub(super) stall_timeout: Duration,
    /// The service is shutting down: nothing more is read from disk.
    pub(super) finishing: bool,
    pub(super) stopping: bool,
    pub(super) publisher_waits: bool,
}

/// A record in the queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// `None` once settled; the entry then only waits for those before it.
    pub(super) record: Option<Arc<Record>>,
    /// `None` once durable.
    pub(super) ticket: Option<Arc<Ticket>>,
    pub(super) accepted: Instant,
    pub(super) handed_over: Instant,
    /// Kafka has rejected a batch that held this record. Kafka rejects whole batches, so the record
    /// is sent again alone: only then is a rejection known to concern this record.
    pub(super) suspect: bool,
    /// Whether it was handed over alone and nothing has been since.
    pub(super) alone: bool,
    pub(super) on_disk: bool,
    /// Kafka rejects it permanently and no other topic is left. It waits to be written to disk.
    pub(super) refused: bool,
    /// The row of the event whose dead letter this is.
    pub(super) replaces: Option<u64>,
}

impl Entry {
    pub(super) fn new(number: u64, record: Arc<Record>, ticket: Option<Arc<Ticket>>) -> Self {
        let now = Instant::now();
        Self {
            number,
            record: Some(record),
            ticket,
            accepted: now,
            handed_over: now,
            suspect: false,
            alone: false,
            on_disk: false,
            refused: false,
            replaces: None,
        }
    }

    fn is_volatile(&self) -> bool {
        self.record.is_some() && !self.on_disk
    }

    fn row(&self) -> Option<Row> {
        let record = self.record.as_ref().filter(|_| !self.on_disk)?;
        Some(Row {
            refused: self.refused,
            replaces: self.replaces,
            ..Row::new(self.number, Arc::clone(record))
        })
    }
}

/// A record that has been settled and has left the queue.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) number: u64,
    pub(super) record: Arc<Record>,
    pub(super) ticket: Option<Arc<Ticket>>,
    pub(super) handed_over: Instant,
    pub(super) on_disk: bool,
}

impl QueueState {
    /// A queue with these records on disk and no producer yet.
    pub(super) fn new(on_disk: Backlog) -> Self {
        Self {
            window: VecDeque::new(),
            next: 0,
            backlog: on_disk.rows,
            tail: VecDeque::new(),
            taken_to: None,
            spooled_to: on_disk.last,
            bytes: 0,
            window_bytes: 0,
            acked: Vec::new(),
            deletable: Vec::new(),
            unmarked_refused: Vec::new(),
            generation: 0,
            in_flight: 0,
            last_is_alone: false,
            failure: None,
            progress: false,
            last_progress: Instant::now(),
            stall_timeout: STALL_TIMEOUT,
            finishing: false,
            stopping: false,
            publisher_waits: false,
        }
    }

    /// Takes the next records for the producer, as many as the window admits.
    pub(super) fn hand_over(&mut self) -> Vec<(u64, Arc<Record>)> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < BATCH_RECORDS && self.advance() {
            let Some(entry) = self.window.get_mut(self.next) else {
                break;
            };
            let Some(record) = entry.record.as_ref().filter(|_| !entry.refused) else {
                self.next += 1;
                continue;
            };
            if self.in_flight > 0 && (entry.suspect || self.last_is_alone) {
                break;
            }
            if self.in_flight == 0 {
                self.last_progress = now;
            }
            entry.alone = entry.suspect;
            self.last_is_alone = entry.suspect;
            entry.handed_over = now;
            batch.push((entry.number, Arc::clone(record)));
            self.next += 1;
            self.in_flight += 1;
        }
        batch
    }

    /// Whether there is an entry at `next`, after moving one from the tail into the window if that
    /// is allowed: never past the backlog.
    fn advance(&mut self) -> bool {
        if self.next < self.window.len() {
            return true;
        }
        if self.backlog > 0 || self.is_full() {
            return false;
        }
        let Some(entry) = self.tail.pop_front() else {
            return false;
        };
        self.push_to_window(entry);
        true
    }

    fn push_to_window(&mut self, entry: Entry) {
        self.taken_to = Some(entry.number);
        self.window_bytes += entry.record.as_ref().map_or(0, |record| record.size());
        self.window.push_back(entry);
    }

    /// Settled entries behind the front count too. That bounds the window's memory and how much a
    /// new producer repeats.
    fn is_full(&self) -> bool {
        self.window.len() >= MAX_IN_FLIGHT_RECORDS || self.window_bytes >= MAX_IN_FLIGHT_BYTES
    }

    /// Whether the publisher should read more from disk, behind [`taken_to`](Self::taken_to).
    pub(super) fn wants_backlog(&self) -> bool {
        let is_next = self.next == self.window.len() && self.backlog > 0;
        let has_space = !self.is_full() && (self.in_flight == 0 || !self.last_is_alone);
        let may_read = self.deletable.len() < MAX_UNDELETED_ROWS && !self.finishing;
        is_next && has_space && may_read
    }

    /// Adds records that were read from disk.
    pub(super) fn add_from_disk(&mut self, records: Vec<(u64, Record)>) {
        self.backlog = self.backlog.saturating_sub(records.len());
        for (number, record) in records {
            let mut entry = Entry::new(number, Arc::new(record), None);
            entry.on_disk = true;
            self.push_to_window(entry);
        }
    }

    /// The records that are not durable, in order, up to about this many bytes.
    pub(super) fn volatile_rows(&self, limit: usize) -> Vec<Row> {
        let mut bytes = 0;
        let rows = self.not_spooled().filter_map(Entry::row);
        let fits = |row: &Row| {
            let fits = bytes < limit;
            bytes += row.record.size() + RECORD_OVERHEAD_BYTES;
            fits
        };
        rows.take_while(fits).collect()
    }

    /// When the oldest record that is not durable was accepted.
    pub(super) fn oldest_volatile(&self) -> Option<Instant> {
        let oldest = self.not_spooled().find(|entry| entry.is_volatile());
        oldest.map(|entry| entry.accepted)
    }

    fn not_spooled(&self) -> impl Iterator<Item = &Entry> {
        let spooled = |entry: &Entry| Some(entry.number) <= self.spooled_to;
        let first = self.window.partition_point(spooled);
        self.window.range(first..).chain(&self.tail)
    }

    /// Takes note that these rows are on disk. Returns the tickets of records that were not durable
    /// before; rows of records settled meanwhile become deletable.
    pub(super) fn mark_spooled(&mut self, rows: &[Row]) -> Vec<(Arc<Record>, Arc<Ticket>)> {
        let mut durable = Vec::new();
        for row in rows {
            self.spooled_to = self.spooled_to.max(Some(row.number));
            let first = self.tail.front().map(|entry| entry.number);
            let ticket = if first == Some(row.number) {
                self.backlog += 1;
                self.bytes -= row.record.size() + RECORD_OVERHEAD_BYTES;
                self.tail.pop_front().and_then(|entry| entry.ticket)
            } else {
                self.mark_spooled_in_window(row)
            };
            durable.extend(ticket.map(|ticket| (Arc::clone(&row.record), ticket)));
        }
        durable
    }

    fn mark_spooled_in_window(&mut self, row: &Row) -> Option<Arc<Ticket>> {
        let entry = self.entry(row.number);
        let Some(entry) = entry.filter(|entry| entry.record.is_some()) else {
            // Settled during the write.
            self.deletable.push(row.number);
            return None;
        };
        entry.on_disk = true;
        entry.replaces = None;
        let ticket = entry.ticket.take();
        let is_refused = entry.refused;
        if is_refused {
            entry.record = None;
        }
        self.bytes -= row.record.size() + RECORD_OVERHEAD_BYTES;
        if is_refused {
            if !row.refused {
                self.unmarked_refused.push(row.number);
            }
            self.window_bytes -= row.record.size();
            self.drop_settled();
        }
        ticket
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.in_flight > 0 && self.last_progress.elapsed() >= self.stall_timeout
    }

    pub(super) fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let index = (self.window)
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()?;
        self.window.get_mut(index)
    }

    /// Takes a record out of the queue; `None` if an earlier report has done so.
    pub(super) fn settle(&mut self, number: u64) -> Option<Removed> {
        self.last_progress = Instant::now();
        let entry = self.entry(number)?;
        let record = entry.record.take()?;
        let removed = Removed {
            number,
            ticket: entry.ticket.take(),
            handed_over: entry.handed_over,
            on_disk: entry.on_disk,
            record,
        };
        let replaced = entry.replaces.take();
        self.deletable.extend(replaced);
        self.progress = true;
        self.window_bytes -= removed.record.size();
        if !removed.on_disk {
            self.bytes -= removed.record.size() + RECORD_OVERHEAD_BYTES;
        }
        self.drop_settled();
        Some(removed)
    }

    /// Drops settled entries at the front only, so that the front is always the oldest record to
    /// begin with again.
    fn drop_settled(&mut self) {
        let is_settled = |entry: &Entry| entry.record.is_none();
        while self.window.front().is_some_and(is_settled) {
            self.window.pop_front();
            self.next = self.next.saturating_sub(1);
        }
    }
}
