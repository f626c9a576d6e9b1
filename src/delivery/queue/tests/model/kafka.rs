//! Kafka and librdkafka, as far as the queue depends on them.

use std::collections::VecDeque;

use super::Broken;
use super::parts::EVENTS;
use super::world::{Message, Producer, World};
use crate::delivery::queue::*;
use crate::kafka::Report;

impl World {
    fn is_strict(&self, message: &Message) -> bool {
        let strict =
            |producer: &Producer| producer.via == Via::Run && producer.id == message.producer;
        self.producers.iter().any(strict) && !self.is(Broken::RunByARelaxedProducer)
    }

    pub(super) fn is_poison(&self, message: &Message) -> bool {
        message.lane == EVENTS && self.sent[message.id as usize].poison
    }

    /// Kafka takes one message. With `concludes`, those before it in its producer and group are
    /// reported as acknowledged without an offset: some of them it has refused before.
    pub(super) fn take(&mut self, at: usize, concludes: bool) {
        let Some(message) = self.flying.get(at % self.flying.len().max(1)).copied() else {
            return;
        };
        let is_before = |other: &Message| {
            (other.producer, other.group, other.lane)
                == (message.producer, message.group, message.lane)
        };
        let before: Vec<Message> = self
            .flying
            .iter()
            .take_while(|other| **other != message)
            .copied()
            .filter(is_before)
            .collect();
        // What Kafka refuses for good stays where it is for now.
        let before: Vec<Message> = match concludes {
            true => before
                .into_iter()
                .filter(|other| !self.is_poison(other))
                .collect(),
            false => before,
        };
        let may_overtake = match self.is_strict(&message) {
            true => before.len() == 1 && !self.known.contains_key(&message.producer),
            false => true,
        };
        if self.is_poison(&message) || !before.is_empty() && !may_overtake {
            return;
        }
        self.known.insert(message.producer, message);
        self.flying.retain(|other| *other != message);
        self.topics[message.lane].push(message.id);
        self.reports.push_back((message, Report::Acked));
        if concludes {
            let report = match self.is(Broken::BelieveAConclusion) {
                true => Report::Acked,
                false => Report::Failed("without an offset".to_owned()),
            };
            self.flying.retain(|other| !before.contains(other));
            let reports = before.into_iter().map(|other| (other, report.clone()));
            self.reports.extend(reports);
        }
    }

    pub(super) fn take_batch(&mut self, at: usize, named: bool) {
        let Some(first) = self.flying.get(at % self.flying.len().max(1)).copied() else {
            return;
        };
        let is_in = |other: &Message| {
            (other.producer, other.group, other.lane) == (first.producer, first.group, first.lane)
        };
        let batch: Vec<Message> = self.flying.iter().copied().filter(is_in).collect();
        self.flying.retain(|other| !is_in(other));
        let is_refused = batch.iter().any(|message| self.is_poison(message));
        let is_strict = self.is_strict(&first);
        for message in &batch {
            let is_culprit = named || batch.len() == 1 || self.is(Broken::FinalAlsoInABatch);
            let reason = || "refused".to_owned();
            let report = match (is_refused, is_culprit) {
                (false, _) => Report::Acked,
                (true, false) => Report::Suspect(reason()),
                (true, true) if self.is_poison(message) || !named => Report::Rejected(reason()),
                (true, true) => Report::Bystander,
            };
            if !is_refused {
                self.known.insert(message.producer, *message);
                self.topics[message.lane].push(message.id);
            }
            self.reports.push_back((*message, report));
        }
        if is_refused && is_strict {
            // The end of this producer; first it reports on what it had.
            while !self.reports.is_empty() {
                self.report();
            }
            self.end(first.producer, false);
        }
    }

    pub(super) fn fail(&mut self, at: usize, lands: bool) {
        if let Some(producer) = self.producers.get(at % self.producers.len().max(1)) {
            self.end(producer.id, lands);
        }
    }

    /// Ends a producer. What it had is reported as failed, later.
    fn end(&mut self, producer: ProducerId, lands: bool) {
        self.producers.retain(|other| other.id != producer);
        let (gone, rest): (VecDeque<_>, _) = self
            .flying
            .drain(..)
            .partition(|message| message.producer == producer);
        self.flying = rest;
        for queue in &self.queues {
            queue.producer_lost(producer);
        }
        for message in gone {
            if lands {
                self.landing.push_back((message, true));
            }
            let reason = Report::Failed("purged".to_owned());
            self.reports.push_back((message, reason));
        }
    }

    pub(super) fn land(&mut self, reported: bool) {
        let landed = self.landing.pop_front();
        if let Some((message, is_alive)) = landed.filter(|(message, _)| !self.is_poison(message)) {
            self.topics[message.lane].push(message.id);
            if reported && is_alive {
                self.reports.push_back((message, Report::Acked));
            }
        }
    }
}
