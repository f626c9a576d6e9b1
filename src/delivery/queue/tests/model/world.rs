//! What surrounds the queue: clients, the disk, Kafka. The queues in it are the real ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::parts::{id, queues, record};
use super::{Action, Broken};
use crate::delivery::queue::*;
use crate::event::Lane;
use crate::kafka::Report;
use crate::spool::Row;

/// A message as a producer has it.
#[derive(Debug, Clone, Copy)]
struct Message {
    lane: Lane,
    generation: u64,
    number: u64,
    id: u64,
    group: u8,
}

/// An event as its sender knows it.
#[derive(Debug)]
struct Sent {
    group: u8,
    poison: bool,
    ticket: Option<Arc<Ticket>>,
    answered: bool,
    /// Events of its group that were answered before it was sent.
    after: Vec<u64>,
}

pub(super) struct World {
    broken: Option<Broken>,
    queues: [Arc<Queue>; 2],
    sent: Vec<Sent>,
    disk: BTreeMap<u64, (Lane, Record)>,
    /// What the spooler is about to write. It does nothing else meanwhile.
    writing: Option<Vec<Row>>,
    /// With the producers, in order.
    flying: VecDeque<Message>,
    /// Of producers that are gone, in order.
    landing: VecDeque<Message>,
    reports: VecDeque<(Message, Outcome)>,
    /// Whether the lane's producer has failed. From then on nothing that it is given reaches Kafka:
    /// librdkafka's gapless guarantee, or its refusal of a topic that it knows to be missing.
    failed: [bool; 2],
    /// What each topic holds, in order.
    topics: [Vec<u64>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Acked,
    Refused,
    Failed,
}

impl World {
    pub(super) fn new(broken: Option<Broken>) -> Self {
        Self {
            broken,
            queues: queues(&BTreeMap::new(), false),
            sent: Vec::new(),
            disk: BTreeMap::new(),
            writing: None,
            flying: VecDeque::new(),
            landing: VecDeque::new(),
            reports: VecDeque::new(),
            failed: [false; 2],
            topics: [Vec::new(), Vec::new()],
        }
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn lanes(&self) -> [(Lane, Arc<Queue>); 2] {
        let [events, dead] = &self.queues;
        [
            (Lane::Events, Arc::clone(events)),
            (Lane::DeadLetters, Arc::clone(dead)),
        ]
    }

    pub(super) fn step(&mut self, step: Action) -> Result<(), TestCaseError> {
        match step {
            Action::Send { group, poison } => self.send(group, poison),
            Action::HandOver => self.hand_over(),
            Action::Take { group, reported } => self.take(group, reported),
            Action::Report => self.report(),
            Action::Notify => self.notify(),
            Action::Fail { lands } => self.fail(lands),
            Action::Land => self.land(),
            Action::StartOver => self.begin_generation(),
            Action::Read => self.read(),
            Action::Write => self.write(),
            Action::Written { fails } => self.written(fails),
            Action::Delete { part } => self.delete(part),
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

    fn hand_over(&mut self) {
        for (lane, queue) in self.lanes() {
            let backlog = queue.lock().backlog;
            if self.is(Broken::TailBeforeTheBacklog) {
                queue.lock().backlog = 0;
            }
            let batch = queue.lock().hand_over();
            let mut state = queue.lock();
            state.backlog = state.backlog.max(backlog);
            let generation = state.generation;
            drop(state);
            for (number, record) in batch {
                if self.is(Broken::DeleteBeforeTheReport) {
                    self.disk.remove(&number);
                }
                let group = record.key.as_ref().map_or(0, |key| key[0]);
                let id = id(&record);
                self.flying.push_back(Message {
                    lane,
                    generation,
                    number,
                    id,
                    group,
                });
            }
        }
    }

    /// Kafka takes or refuses a whole batch, which here is what is on its way of a group.
    fn take(&mut self, group: u8, reported: bool) {
        for lane in [Lane::Events, Lane::DeadLetters] {
            let mine = |message: &Message| message.group == group && message.lane == lane;
            let batch: Vec<Message> = self.flying.iter().copied().filter(mine).collect();
            self.flying.retain(|message| !mine(message));
            let lost = self.failed[lane as usize];
            let refused = !lost
                && lane == Lane::Events
                && batch
                    .iter()
                    .any(|message| self.sent[message.id as usize].poison);
            for message in batch {
                let verdict = match (refused, reported) {
                    (true, _) => Outcome::Refused,
                    (false, true) if !lost => Outcome::Acked,
                    (false, _) => Outcome::Failed,
                };
                if !refused && !lost {
                    self.topics[lane as usize].push(message.id);
                }
                self.reports.push_back((message, verdict));
            }
            if refused {
                self.drop_flying(lane, false);
            }
            // A report that is lost fails the producer too: it cannot know.
            self.failed[lane as usize] |= refused || !reported;
        }
    }

    fn drop_flying(&mut self, lane: Lane, lands: bool) {
        let lands = lands && !self.failed[lane as usize];
        let (gone, rest): (VecDeque<_>, _) = self
            .flying
            .drain(..)
            .partition(|message| message.lane == lane);
        self.flying = rest;
        for message in gone {
            if lands {
                self.landing.push_back(message);
            }
            self.reports.push_back((message, Outcome::Failed));
        }
    }

    fn report(&mut self) {
        let Some((message, verdict)) = self.reports.pop_front() else {
            return;
        };
        let queue = &self.queues[message.lane as usize];
        let (generation, number) = (message.generation, message.number);
        match verdict {
            Outcome::Acked => queue.report(generation, number, Report::Acked),
            Outcome::Failed => queue.report(generation, number, Report::Failed("failed")),
            Outcome::Refused if self.is(Broken::FinalAlsoInABatch) => {
                queue.refuse(generation, number, "refused");
            }
            Outcome::Refused => queue.report(generation, number, Report::Rejected("refused")),
        }
    }

    fn notify(&self) {
        self.queues.iter().for_each(|queue| queue.notify_acked());
    }

    fn fail(&mut self, lands: bool) {
        for lane in [Lane::Events, Lane::DeadLetters] {
            self.drop_flying(lane, lands);
            self.failed[lane as usize] = true;
        }
    }

    fn land(&mut self) {
        let message = self.landing.pop_front();
        let poison = |message: &Message| self.sent[message.id as usize].poison;
        if let Some(message) = message.filter(|message| !poison(message)) {
            self.topics[message.lane as usize].push(message.id);
        }
    }

    fn begin_generation(&mut self) {
        for (lane, queue) in self.lanes() {
            let failed = std::mem::take(&mut self.failed[lane as usize]);
            if queue.lock().failure.is_none() && !failed {
                continue;
            }
            self.failed[lane as usize] = failed;
            self.drop_flying(lane, true);
            while !self.reports.is_empty() {
                self.report();
            }
            self.failed[lane as usize] = false;
            let next = queue.lock().next;
            if self.is(Broken::ForgetWhoWaits) {
                queue.lock().acked.clear();
            }
            queue.begin_generation();
            if self.is(Broken::GoOnAfterAFailure) {
                queue.lock().next = next;
            }
        }
    }

    fn read(&mut self) {
        if self.writing.is_some() {
            return;
        }
        for (lane, queue) in self.lanes() {
            if !queue.lock().wants_backlog() {
                continue;
            }
            let after = queue.lock().taken_to;
            let rows = self
                .disk
                .iter()
                .filter(|(number, (of, _))| *of == lane && Some(**number) > after);
            queue.add_from_disk(
                rows.map(|(number, (_, record))| (*number, record.clone()))
                    .take(2)
                    .collect(),
            );
        }
    }

    fn write(&mut self) {
        let queues = self.queues.iter();
        let rows = || queues.flat_map(|queue| queue.volatile_rows(4000)).collect();
        self.writing.get_or_insert_with(rows);
        if self.is(Broken::AnswerBeforeTheWrite) {
            self.notify_spooled();
        }
    }

    fn written(&mut self, fails: bool) {
        let rows = self.writing.clone().unwrap_or_default();
        if !fails {
            self.commit(&rows);
            if !self.is(Broken::AnswerBeforeTheWrite) {
                self.notify_spooled();
            }
        }
        self.writing = None;
    }

    fn notify_spooled(&self) {
        let rows = self.writing.as_deref().unwrap_or_default();
        for (lane, queue) in self.lanes() {
            let of = |row: &&Row| row.lane == lane;
            queue.mark_spooled(&rows.iter().filter(of).cloned().collect::<Vec<_>>());
        }
    }

    fn commit(&mut self, rows: &[Row]) {
        for row in rows {
            self.disk
                .insert(row.number, (row.lane, (*row.record).clone()));
            self.disk.retain(|number, _| Some(*number) != row.replaces);
        }
    }

    fn delete(&mut self, part: bool) {
        if self.writing.is_some() {
            return;
        }
        for queue in &self.queues {
            let mut done = queue.deletable_rows();
            done.truncate(if part { 1 } else { done.len() });
            for number in &done {
                self.disk.remove(number);
            }
            queue.mark_deleted(done.len());
        }
    }

    fn kill(&mut self, written: bool) {
        let rows = self.writing.take().unwrap_or_default();
        if written {
            self.commit(&rows);
        }
        let failed = self.failed;
        let flying = self.flying.drain(..);
        self.landing
            .extend(flying.filter(|message| !failed[message.lane as usize]));
        self.failed = [false; 2];
        self.reports.clear();
        self.sent.iter_mut().for_each(|sent| sent.ticket = None);
        let hidden = self.is(Broken::NewOnesBeforeTheSpool);
        self.queues = queues(&self.disk, hidden);
    }

    /// Who has been answered, and whether that was true.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let on_disk: BTreeSet<u64> = self.disk.values().map(|(_, record)| id(record)).collect();
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
            for step in [
                Action::Read,
                Action::HandOver,
                Action::Take {
                    group: 0,
                    reported: true,
                },
                Action::Take {
                    group: 1,
                    reported: true,
                },
            ] {
                self.step(step)?;
            }
            while !self.reports.is_empty() {
                self.step(Action::Report)?;
            }
            for step in [
                Action::Notify,
                Action::StartOver,
                Action::Write,
                Action::Written { fails: false },
                Action::Delete { part: false },
            ] {
                self.step(step)?;
            }
            if self.is(Broken::NewOnesBeforeTheSpool) {
                // Comes to it in the end.
                let queue = &self.queues[0];
                let after = queue.lock().taken_to;
                if !queue.lock().wants_backlog() && after.is_none() {
                    queue.lock().backlog = self.disk.len();
                }
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
        Ok(())
    }
}
