//! What surrounds the queue: clients, the disk, Kafka. The queues in it are the real ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::parts::{DEAD_LETTERS, EVENTS, SPOOL_AFTER, group, id, is_old, lane_of, queues, record};
use super::{Action, Broken, Due};
use crate::delivery::queue::keys::BrokenGuard;
use crate::delivery::queue::*;
use crate::kafka::Report;
use crate::spool::Row;

/// A message as a producer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) lane: usize,
    pub(super) producer: ProducerId,
    pub(super) number: u64,
    pub(super) id: u64,
    pub(super) group: u8,
}

/// An event as its sender knows it.
#[derive(Debug)]
pub(super) struct Sent {
    group: u8,
    pub(super) poison: bool,
    ticket: Option<Arc<Ticket>>,
    answered: bool,
    /// Events of its group that were answered before it was sent.
    after: Vec<u64>,
}

/// A producer that is in use, by the kind of records that it is for.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) via: Via,
    pub(super) id: ProducerId,
}

/// So short that it is reached.
const PACING: Pacing = Pacing {
    depth: 3,
    lapse: Duration::from_secs(3600),
    interval: Duration::ZERO,
};

/// Rows by lane, the last number that was looked at, and whether it is the last of all.
type Scanned = ([Vec<(u64, Record)>; 2], u64, bool);

pub(super) struct World {
    pub(super) broken: Option<Broken>,
    pub(super) queues: [Arc<Queue>; 2],
    pub(super) sent: Vec<Sent>,
    disk: BTreeMap<u64, Record>,
    /// What the spooler is about to write. It does nothing else meanwhile.
    writing: Option<Vec<Row>>,
    /// What is on disk, and the queue does not know it yet.
    committed: Option<Vec<Row>>,
    /// What the reader is about to read.
    plans: Option<[Option<ReadPlan>; 2]>,
    /// What it has read, and the queues do not have yet.
    scanned: Option<Scanned>,
    pub(super) producers: Vec<Producer>,
    last_id: ProducerId,
    /// Those of which Kafka has taken a message, with the last one.
    pub(super) known: BTreeMap<ProducerId, Message>,
    /// With the producers, in order.
    pub(super) flying: VecDeque<Message>,
    /// Of producers that are gone, in order, and whether their process is still there.
    pub(super) landing: VecDeque<(Message, bool)>,
    pub(super) reports: VecDeque<(Message, Report)>,
    /// What each topic holds, in order.
    pub(super) topics: [Vec<u64>; 2],
    now: Instant,
}

impl World {
    pub(super) fn new(broken: Option<Broken>) -> Self {
        let mut world = Self {
            broken,
            queues: queues(&BTreeMap::new(), false),
            sent: Vec::new(),
            disk: BTreeMap::new(),
            writing: None,
            committed: None,
            plans: None,
            scanned: None,
            producers: Vec::new(),
            last_id: 0,
            known: BTreeMap::new(),
            flying: VecDeque::new(),
            landing: VecDeque::new(),
            reports: VecDeque::new(),
            topics: [Vec::new(), Vec::new()],
            now: Instant::now(),
        };
        world.break_guard();
        world
    }

    pub(super) fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn break_guard(&mut self) {
        if self.is(Broken::RunOfOldRows) {
            self.queues[0].lock().producer_expiration = Duration::from_secs(1 << 40);
        }
        self.queues[0].lock().keys.broken = match self.broken {
            Some(Broken::NoGuard) => Some(BrokenGuard::None),
            Some(Broken::GuardOfAnotherKey) => Some(BrokenGuard::AnotherKey),
            Some(Broken::GuardWithoutTheDisk) => Some(BrokenGuard::WithoutTheDisk),
            Some(Broken::GuardWithoutOtherProducers) => Some(BrokenGuard::WithoutOtherProducers),
            Some(Broken::GoOnWithARun) => Some(BrokenGuard::GoOnWithARun),
            Some(Broken::WholeRunAtOnce) => Some(BrokenGuard::WholeRunAtOnce),
            _ => None,
        };
    }

    pub(super) fn step(&mut self, step: Action) -> Result<(), TestCaseError> {
        // Pauses end between any two steps.
        self.now += Duration::from_secs(10);
        match step {
            Action::Send { group, poison } => self.send(group, poison),
            Action::Burst { group } => self.burst(group)?,
            Action::HandOver {
                missing,
                takes,
                shards,
            } => self.hand_over(missing, takes, shards)?,
            Action::Take { at } => self.take(at, false),
            Action::Conclude { at } => self.take(at, true),
            Action::TakeBatch { at, named } => self.take_batch(at, named),
            Action::Report => self.report(),
            Action::Fail { at, lands } => self.fail(at, lands),
            Action::Land { reported } => self.land(reported),
            Action::Forget => self.known.retain(|_, last| !is_old(last.id, last.group)),
            Action::Plan => self.plan(),
            Action::Scan => self.scan(),
            Action::Read => self.read()?,
            Action::Write(due) => self.write(due),
            Action::Written { fails } => self.written(fails),
            Action::Marked => self.marked(),
            Action::Delete { part } => self.delete(part),
            Action::Partitions { count } => self.set_partitions(count),
            Action::Kill { written } => self.kill(written),
        }
        self.look()
    }

    fn send(&mut self, group: u8, poison: bool) {
        let number = self.sent.len() as u64;
        let before = |(id, sent): (usize, &Sent)| {
            (sent.answered && sent.group == group).then_some(id as u64)
        };
        let after = self.sent.iter().enumerate().filter_map(before).collect();
        let ticket = self.queues[0]
            .enqueue(record(number, group))
            .expect("there is room");
        self.sent.push(Sent {
            group,
            poison,
            ticket: Some(ticket),
            answered: false,
            after,
        });
    }

    fn burst(&mut self, group: u8) -> Result<(), TestCaseError> {
        for _ in 0..5 {
            self.send(group, false);
            self.write(Due::All);
            self.written(false);
            self.marked();
            self.look()?;
        }
        Ok(())
    }

    fn hand_over(&mut self, missing: u8, takes: usize, shards: u32) -> Result<(), TestCaseError> {
        for lane in [EVENTS, DEAD_LETTERS] {
            let Self {
                producers, last_id, ..
            } = self;
            let route = |via: Via| {
                let (via, bit) = match via {
                    Via::Shard(hash) => (Via::Shard(hash % shards), hash % shards % 5),
                    Via::Backlog => (via, 5),
                    Via::Run => (via, 6),
                    Via::Side | Via::Suspect => (Via::Side, 7),
                };
                if missing & (1 << bit) != 0 {
                    return None;
                }
                let known = producers.iter().find(|producer| producer.via == via);
                let id = known.map(|producer| producer.id);
                Some(id.unwrap_or_else(|| {
                    *last_id += 1;
                    producers.push(Producer { via, id: *last_id });
                    *last_id
                }))
            };
            let mut batch = self.queues[lane].hand_over(self.now, PACING, route);
            let unsent = batch.split_off(takes.min(batch.len()));
            for Outgoing { to, number, record } in batch {
                if self.is(Broken::DeleteBeforeTheReport) {
                    self.disk.remove(&number);
                }
                let message = Message {
                    lane,
                    producer: to,
                    number,
                    id: id(&record),
                    group: group(&record),
                };
                prop_assert!(
                    !self.flying.contains(&message),
                    "{number} is handed to a producer that has it"
                );
                self.flying.push_back(message);
            }
            for Outgoing { to, number, .. } in unsent.into_iter().rev() {
                self.queues[lane].return_unsent(to, number);
            }
        }
        Ok(())
    }

    pub(super) fn report(&mut self) {
        let Some((message, report)) = self.reports.pop_front() else {
            return;
        };
        let queue = &self.queues[message.lane];
        let mut producer = message.producer;
        if self.is(Broken::CountAnOldFailure) && report != Report::Acked {
            let with = |producer: &&Producer| queue.lock().is_with(producer.id, message.number);
            producer = self
                .producers
                .iter()
                .find(with)
                .map_or(producer, |other| other.id);
        }
        queue.report(producer, vec![(message.number, report)]);
    }

    fn plan(&mut self) {
        let queues = self.queues.each_ref();
        self.plans
            .get_or_insert_with(|| queues.map(|queue| queue.plan_read()));
    }

    /// Reads from the disk as it is now.
    fn scan(&mut self) {
        let Some(plans) = self.plans.as_mut().filter(|_| self.scanned.is_none()) else {
            return;
        };
        let Some(after) = plans.iter().flatten().map(|plan| plan.after).min() else {
            self.plans = None;
            return;
        };
        let (mut records, mut end, mut complete) = ([Vec::new(), Vec::new()], after, true);
        for (number, record) in self.disk.range(after + 1..) {
            let lane = lane_of(record);
            let key = record.key.as_deref();
            let wants = |plan: &mut ReadPlan| plan.wants(*number, key);
            if plans[lane].as_mut().is_some_and(wants) {
                records[lane].push((*number, record.clone()));
            }
            end = *number;
            if records[0].len() + records[1].len() >= 4 {
                complete = false;
                break;
            }
        }
        self.scanned = Some((records, end, complete));
    }

    /// Gives the queues what was read.
    fn read(&mut self) -> Result<(), TestCaseError> {
        self.scan();
        let (Some(plans), Some((records, end, complete))) =
            (self.plans.take(), self.scanned.take())
        else {
            return Ok(());
        };
        for ((queue, plan), records) in self.queues.iter().zip(plans).zip(records) {
            let Some(plan) = plan else { continue };
            if self.is(Broken::ForgetWhatWasDropped) {
                let mut state = queue.lock();
                for partition in state.partitions.iter_mut() {
                    partition.dropped = None;
                    partition.read_to = end;
                }
            }
            let added = queue.add_from_disk(&plan, records, end, complete);
            let is_broken = self.broken.is_some();
            prop_assert!(is_broken || added.is_ok(), "records are missing");
            if self.is(Broken::ForgetWhatWasDropped) {
                for partition in queue.lock().partitions.iter_mut() {
                    partition.dropped = None;
                }
            }
        }
        Ok(())
    }

    fn set_partitions(&self, count: usize) {
        for queue in &self.queues {
            queue.set_partitions(count);
        }
    }

    fn write(&mut self, due: Due) {
        if self.writing.is_some() || self.committed.is_some() {
            return;
        }
        let now = Instant::now();
        let (now, limit) = match due {
            Due::All => (now + SPOOL_AFTER, 4000),
            Due::Oldest => (now + SPOOL_AFTER, 1),
            Due::Urgent => (now, 4000),
        };
        let rows = |queue: &Arc<Queue>| queue.due_rows(now, limit);
        self.writing = Some(self.queues.iter().flat_map(rows).collect());
        if self.is(Broken::AnswerBeforeTheWrite) {
            self.notify_spooled(self.writing.as_deref().unwrap_or_default());
        }
    }

    fn written(&mut self, fails: bool) {
        let Some(rows) = self.writing.take() else {
            return;
        };
        if !fails {
            self.commit(&rows);
            self.committed = Some(rows);
        }
    }

    fn marked(&mut self) {
        let Some(rows) = self.committed.take() else {
            return;
        };
        if !self.is(Broken::AnswerBeforeTheWrite) {
            self.notify_spooled(&rows);
        }
    }

    fn notify_spooled(&self, rows: &[Row]) {
        for (lane, queue) in self.queues.iter().enumerate() {
            let of = |row: &&Row| lane_of(&row.record) == lane;
            queue.mark_spooled(&rows.iter().filter(of).cloned().collect::<Vec<_>>());
            let replaced: Vec<u64> = rows.iter().filter_map(|row| row.replaces).collect();
            queue.mark_deleted(&replaced);
        }
    }

    fn commit(&mut self, rows: &[Row]) {
        for row in rows {
            self.disk.insert(row.number, (*row.record).clone());
            self.disk.retain(|number, _| Some(*number) != row.replaces);
        }
    }

    fn delete(&mut self, part: bool) {
        if self.writing.is_some() || self.committed.is_some() {
            return;
        }
        for queue in &self.queues {
            let mut done = queue.deletable_rows();
            done.truncate(if part { 1 } else { done.len() });
            for number in &done {
                self.disk.remove(number);
            }
            for queue in &self.queues {
                queue.mark_deleted(&done);
            }
        }
    }

    fn kill(&mut self, written: bool) {
        let rows = self.writing.take().unwrap_or_default();
        if written {
            self.commit(&rows);
        }
        self.landing
            .extend(self.flying.drain(..).map(|message| (message, false)));
        self.landing
            .iter_mut()
            .for_each(|(_, is_alive)| *is_alive = false);
        self.committed = None;
        self.reports.clear();
        self.producers.clear();
        self.plans = None;
        self.scanned = None;
        self.sent.iter_mut().for_each(|sent| sent.ticket = None);
        self.queues = queues(&self.disk, self.is(Broken::ForgetTheDiskAtAStart));
        self.break_guard();
    }

    /// Who has been answered, and whether that was true.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let on_disk: BTreeSet<u64> = self.disk.values().map(id).collect();
        for (id, sent) in self.sent.iter_mut().enumerate() {
            let settled = sent.ticket.as_ref().and_then(|ticket| ticket.get());
            if settled.is_none() || sent.answered {
                continue;
            }
            let safe = matches!(settled, Some(Settled::Durable(..)));
            prop_assert!(safe, "{id} is refused");
            let id = id as u64;
            let published = self.topics.iter().any(|topic| topic.contains(&id));
            prop_assert!(
                published || on_disk.contains(&id),
                "{id} is answered and not safe"
            );
            sent.answered = true;
        }
        Ok(())
    }

    /// Everything is well again, for long enough.
    pub(super) fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 + 4 * self.sent.len() {
            for step in [Action::Plan, Action::Read, Action::HAND_OVER] {
                self.step(step)?;
            }
            while !self.flying.is_empty() {
                self.step(Action::TakeBatch {
                    at: 0,
                    named: false,
                })?;
            }
            while !self.reports.is_empty() {
                self.step(Action::Report)?;
            }
            for step in [
                Action::Write(Due::All),
                Action::Written { fails: false },
                Action::Marked,
                Action::Delete { part: false },
            ] {
                self.step(step)?;
            }
            let is_done = self.disk.is_empty()
                && self
                    .sent
                    .iter()
                    .all(|sent| sent.answered || sent.ticket.is_none());
            if is_done && self.queues.iter().all(|queue| queue.is_at_rest()) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn judge(&self) -> Result<(), TestCaseError> {
        let [events, dead] = &self.topics;
        let first = |id: u64| events.iter().position(|found| *found == id);
        for (id, sent) in self.sent.iter().enumerate() {
            let id = id as u64;
            prop_assert!(
                !sent.poison || first(id).is_none(),
                "the model takes no poison"
            );
            prop_assert!(
                sent.poison || !dead.contains(&id),
                "{id} is valid, and a dead letter"
            );
            prop_assert!(
                sent.answered || sent.ticket.is_none(),
                "{id} waits for an answer that never comes"
            );
            if sent.answered {
                prop_assert!(first(id).is_some() || dead.contains(&id), "{id} is lost");
            }
            for before in &sent.after {
                let in_order = match (first(*before), first(id)) {
                    (Some(before), Some(this)) => before < this,
                    _ => true,
                };
                prop_assert!(
                    in_order,
                    "{before} was answered before {id} came, and stands behind it"
                );
            }
        }
        prop_assert!(self.disk.is_empty(), "left on disk: {:?}", self.disk.keys());
        for queue in &self.queues {
            let state = queue.lock();
            prop_assert_eq!((state.bytes, state.in_flight()), (0, 0));
            prop_assert!(state.fresh.is_empty() && state.spooled.is_empty());
            prop_assert!(state.replaced.is_empty() && state.urgent.is_empty());
        }
        Ok(())
    }
}
