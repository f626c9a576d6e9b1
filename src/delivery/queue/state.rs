//! The rules of the queue as plain state: what may be handed over, what must go to disk, and what a
//! settled record leaves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{MAX_DONE, MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES};
use crate::delivery::spool::{Backlog, Row};
use crate::delivery::ticket::Ticket;
use crate::event::Record;

/// What a record costs in memory besides its own bytes: its entry, its ticket and its headers' handles.
pub(super) const COST_OF_A_RECORD: usize = 1024;

/// The feeder takes the lock once for so many records, and then asks the producer whether it has failed:
/// what it takes after that might overtake.
pub(in crate::delivery) const BATCH: usize = 100;

/// With records waiting and no acknowledgement at all for so long, the producer is replaced: the
/// brokers may have moved to other addresses, and "stuck without an error" is a known state of Kafka
/// clients. One leaderless partition alone is no reason, since others then still acknowledge.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const MOST_PATIENCE: Duration = Duration::from_secs(600);

/// Numbers rise from the front of the window, through the backlog, to the end of the tail.
#[derive(Debug)]
pub(super) struct State {
    /// What a producer has been given, and not all of it settled.
    pub(super) window: VecDeque<Entry>,
    /// The place in the window from which on the current producer has been given nothing.
    pub(super) next: usize,
    /// How many records follow the window on disk, and only there.
    pub(super) backlog: usize,
    /// What came last, and is in memory only.
    pub(super) tail: VecDeque<Entry>,
    /// The highest number that has been in the window.
    pub(super) taken_to: Option<u64>,
    /// Up to this number everything is settled or on disk.
    pub(super) spooled_to: Option<u64>,
    /// Of records that are not safe.
    pub(super) bytes: usize,
    /// Of records in the window.
    pub(super) window_bytes: usize,
    /// Who waits for a record that Kafka has acknowledged, and has not been told.
    pub(super) acked: Vec<(Arc<Record>, Arc<Ticket>)>,
    /// Rows on disk that are settled, and can go.
    pub(super) done: Vec<u64>,
    /// Rows on disk that Kafka refuses, and are to be marked.
    pub(super) refused: Vec<u64>,

    /// Of the current producer. A report of an older one counts only where it says "acked".
    pub(super) generation: u64,
    pub(super) in_flight: usize,
    /// Nothing follows one that travels alone before it has arrived.
    pub(super) last_travels_alone: bool,
    pub(super) failure: Option<String>,
    /// Whether the current producer has settled anything, and when that last happened.
    pub(super) progress: bool,
    pub(super) last_progress: Instant,
    pub(super) patience: Duration,
    /// The service is stopping: nothing more is read from disk.
    pub(super) finishing: bool,
    pub(super) stopping: bool,
    pub(super) feeder_waits: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// None once it is settled: the entry then only waits for those before it.
    pub(super) record: Option<Arc<Record>>,
    /// None once it is safe.
    pub(super) ticket: Option<Arc<Ticket>>,
    pub(super) accepted: Instant,
    pub(super) handed_over: Instant,
    /// Kafka has refused a batch that it was in. Kafka refuses whole batches, so it is sent again with
    /// nothing else in flight: only of a record that was sent alone does one know that it is the
    /// record that is refused.
    pub(super) suspect: bool,
    /// Whether it was handed over so, and nothing since.
    pub(super) alone: bool,
    pub(super) on_disk: bool,
    /// Kafka refuses it, and no other topic is left: it only waits for the disk.
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

    fn is_unsafe(&self) -> bool {
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

/// A record that has left the queue.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) number: u64,
    pub(super) record: Arc<Record>,
    pub(super) ticket: Option<Arc<Ticket>>,
    pub(super) handed_over: Instant,
    pub(super) on_disk: bool,
}

impl State {
    /// Records on disk, and no producer has begun.
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
            done: Vec::new(),
            refused: Vec::new(),
            generation: 0,
            in_flight: 0,
            last_travels_alone: false,
            failure: None,
            progress: false,
            last_progress: Instant::now(),
            patience: PATIENCE,
            finishing: false,
            stopping: false,
            feeder_waits: false,
        }
    }

    /// Takes the next records for the producer, as many as its window lets in.
    pub(super) fn hand_over(&mut self) -> Vec<(u64, Arc<Record>)> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < BATCH && self.advance() {
            let Some(entry) = self.window.get_mut(self.next) else {
                break;
            };
            let Some(record) = entry.record.as_ref().filter(|_| !entry.refused) else {
                self.next += 1;
                continue;
            };
            if self.in_flight > 0 && (entry.suspect || self.last_travels_alone) {
                break;
            }
            if self.in_flight == 0 {
                self.last_progress = now;
            }
            entry.alone = entry.suspect;
            self.last_travels_alone = entry.suspect;
            entry.handed_over = now;
            batch.push((entry.number, Arc::clone(record)));
            self.next += 1;
            self.in_flight += 1;
        }
        batch
    }

    /// Whether there is an entry at `next`, once the window has taken one from the tail where it may:
    /// never past the backlog.
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
        self.take(entry);
        true
    }

    fn take(&mut self, entry: Entry) {
        self.taken_to = Some(entry.number);
        self.window_bytes += entry.record.as_ref().map_or(0, |record| record.size());
        self.window.push_back(entry);
    }

    /// Settled entries behind the front count too: that bounds the window's memory, and how much a
    /// new producer repeats.
    fn is_full(&self) -> bool {
        self.window.len() >= MAX_IN_FLIGHT || self.window_bytes >= MAX_IN_FLIGHT_BYTES
    }

    /// After which number the feeder should read from disk, if it should.
    pub(super) fn wants_backlog(&self) -> bool {
        let is_next = self.next == self.window.len() && self.backlog > 0;
        let is_free = !self.is_full() && (self.in_flight == 0 || !self.last_travels_alone);
        is_next && is_free && self.done.len() < MAX_DONE && !self.finishing
    }

    /// Takes in what was read from disk.
    pub(super) fn loaded(&mut self, records: Vec<(u64, Record)>) {
        self.backlog = self.backlog.saturating_sub(records.len());
        for (number, record) in records {
            let mut entry = Entry::new(number, Arc::new(record), None);
            entry.on_disk = true;
            self.take(entry);
        }
    }

    /// What is neither settled nor on disk, in order: all of it, or what fits into so many bytes.
    pub(super) fn rows(&self, limit: usize) -> Vec<Row> {
        let mut bytes = 0;
        let rows = self.not_spooled().filter_map(Entry::row);
        let fits = |row: &Row| {
            let fits = bytes < limit;
            bytes += row.record.size() + COST_OF_A_RECORD;
            fits
        };
        rows.take_while(fits).collect()
    }

    /// The oldest record that is neither settled nor on disk.
    pub(super) fn oldest_unsafe(&self) -> Option<Instant> {
        let oldest = self.not_spooled().find(|entry| entry.is_unsafe());
        oldest.map(|entry| entry.accepted)
    }

    fn not_spooled(&self) -> impl Iterator<Item = &Entry> {
        let spooled = |entry: &Entry| Some(entry.number) <= self.spooled_to;
        let first = self.window.partition_point(spooled);
        self.window.range(first..).chain(&self.tail)
    }

    /// These rows are on disk: takes the tickets of those that were not safe before. The others can
    /// be deleted again.
    pub(super) fn spooled(&mut self, rows: &[Row]) -> Vec<(Arc<Record>, Arc<Ticket>)> {
        let mut safe = Vec::new();
        for row in rows {
            self.spooled_to = self.spooled_to.max(Some(row.number));
            let first = self.tail.front().map(|entry| entry.number);
            let ticket = if first == Some(row.number) {
                self.backlog += 1;
                self.bytes -= row.record.size() + COST_OF_A_RECORD;
                self.tail.pop_front().and_then(|entry| entry.ticket)
            } else {
                self.spooled_in_window(row)
            };
            safe.extend(ticket.map(|ticket| (Arc::clone(&row.record), ticket)));
        }
        safe
    }

    fn spooled_in_window(&mut self, row: &Row) -> Option<Arc<Ticket>> {
        let at = self.find(row.number);
        let entry = at.and_then(|at| self.window.get_mut(at));
        let Some(entry) = entry.filter(|entry| entry.record.is_some()) else {
            // Settled during the write.
            self.done.push(row.number);
            return None;
        };
        entry.on_disk = true;
        entry.replaces = None;
        let ticket = entry.ticket.take();
        self.bytes -= row.record.size() + COST_OF_A_RECORD;
        if entry.refused {
            if !row.refused {
                self.refused.push(row.number);
            }
            entry.record = None;
            self.window_bytes -= row.record.size();
            self.drop_settled();
        }
        ticket
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.in_flight > 0 && self.last_progress.elapsed() >= self.patience
    }

    pub(super) fn find(&self, number: u64) -> Option<usize> {
        self.window
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()
    }

    pub(super) fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let at = self.find(number)?;
        self.window.get_mut(at)
    }

    /// Takes a record out; None where an earlier report has done so.
    pub(super) fn settle(&mut self, number: u64) -> Option<Left> {
        self.last_progress = Instant::now();
        let entry = self.entry(number)?;
        let record = entry.record.take()?;
        let left = Left {
            number,
            ticket: entry.ticket.take(),
            handed_over: entry.handed_over,
            on_disk: entry.on_disk,
            record,
        };
        let replaced = entry.replaces.take();
        self.done.extend(replaced);
        self.progress = true;
        self.window_bytes -= left.record.size();
        if !left.on_disk {
            self.bytes -= left.record.size() + COST_OF_A_RECORD;
        }
        self.drop_settled();
        Some(left)
    }

    /// A number leaves at the front only, so that the front is always the oldest record to begin with
    /// again.
    fn drop_settled(&mut self) {
        let is_settled = |entry: &Entry| entry.record.is_none();
        while self.window.front().is_some_and(is_settled) {
            self.window.pop_front();
            self.next = self.next.saturating_sub(1);
        }
    }
}
