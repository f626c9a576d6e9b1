//! The lanes: each topic with the queue of its records.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::queue::Queue;
use crate::event::Routes;
use crate::spool::Share;

/// A topic and the queue of its records.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic: String,
    pub(super) queue: Arc<Queue>,
    /// The number of partitions; 0 until it is known.
    partitions: AtomicUsize,
    has_order: bool,
}

impl Lane {
    fn new(topic: &str, queue: Arc<Queue>, has_order: bool) -> Self {
        Self {
            topic: topic.to_owned(),
            queue,
            partitions: AtomicUsize::new(0),
            has_order,
        }
    }

    /// Sets the number of partitions, once it is known or has changed; 0 if the topic is missing.
    pub(super) fn set_partitions(&self, count: usize) {
        if count == 0 {
            return;
        }
        let before = self.partitions.swap(count, Ordering::Relaxed);
        let topic = &self.topic;
        if before != 0 && before != count {
            if self.has_order {
                tracing::warn!(
                    "{topic}: the number of partitions has changed from {before} to {count}; keys move to other partitions, so events of a key from before and after the change may be read out of order"
                );
            } else {
                tracing::info!(
                    "{topic}: the number of partitions has changed from {before} to {count}"
                );
            }
        }
        self.queue.set_partitions(count);
    }
}

/// All lanes, in the order of [`Routes::topics`]: that of dead letters is the last.
#[derive(Debug)]
pub(super) struct Lanes {
    routes: Routes,
    all: Vec<Lane>,
}

impl Lanes {
    /// The lanes of these routes. `queue` creates the queue of the topic at this place, with that of
    /// dead letters unless it is that one.
    pub(super) fn new(
        routes: &Routes,
        mut queue: impl FnMut(usize, Option<Arc<Queue>>) -> Queue,
    ) -> Self {
        let topics = routes.event_topics();
        let dead_letters = Arc::new(queue(topics.len(), None));
        let event_lane = |(at, topic): (usize, &String)| {
            let queue = queue(at, Some(Arc::clone(&dead_letters)));
            Lane::new(topic, Arc::new(queue), true)
        };
        let mut all: Vec<Lane> = topics.iter().enumerate().map(event_lane).collect();
        // Dead letters have no order.
        all.push(Lane::new(routes.dead_letter_topic(), dead_letters, false));
        Self {
            routes: routes.clone(),
            all,
        }
    }

    /// All of them. That of dead letters is the last.
    pub(super) fn all(&self) -> &[Lane] {
        &self.all
    }

    /// Those of events.
    pub(super) fn events(&self) -> &[Lane] {
        self.all.split_last().map_or(&[], |(_, events)| events)
    }

    /// Which topic each event goes to.
    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The queue of dead letters.
    pub(super) fn dead_letters(&self) -> &Queue {
        let (last, _) = self.all.split_last().expect("there is always that one");
        &last.queue
    }

    /// The queues of all of them.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.all.iter().map(|lane| &lane.queue)
    }

    /// The queues of all of them, each with the share of the spool that its rows use.
    pub(super) fn shares(&self) -> impl Iterator<Item = (&Arc<Queue>, Share)> {
        let events = self.events().len();
        let share = move |place| match place < events {
            true => Share::Events,
            false => Share::DeadLetters,
        };
        (self.queues().enumerate()).map(move |(place, queue)| (queue, share(place)))
    }

    /// The place of the lane of this event, or of dead letters; `None` if the event has no topic.
    pub(super) fn place_of(&self, event: Option<&str>) -> Option<usize> {
        self.routes.place_of(event)
    }

    /// The queue of this event, or of dead letters; `None` if the event has no topic.
    pub(super) fn queue_of(&self, event: Option<&str>) -> Option<&Arc<Queue>> {
        let lane = self.all.get(self.place_of(event)?)?;
        Some(&lane.queue)
    }

    /// The lane of a topic.
    pub(super) fn of_topic(&self, topic: &str) -> Option<&Lane> {
        self.all.iter().find(|lane| lane.topic == topic)
    }
}
