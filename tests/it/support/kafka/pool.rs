//! Clusters that one test has to itself, and that the next one takes over.

use std::ops::Deref;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::cluster::Cluster;
use super::left_out;
use super::machine::Jvm;

impl Cluster {
    /// A cluster that no other test uses meanwhile, with that many brokers, numbered from 1. It is
    /// one that an earlier test gave back, or a new one. All of its brokers serve, and its proxies
    /// pass.
    ///
    /// None only if `ZIM2KAFKA_TEST_KAFKA=off`; the test is then named at the end of the run.
    ///
    /// # Panics
    ///
    /// When there is no Kafka to be had (the message says how to provide one), or it does not start
    /// (with its log).
    #[track_caller]
    pub(crate) fn exclusive(brokers: usize) -> Option<Exclusive> {
        if !left_out::is_wanted() {
            return None;
        }
        let ready = match Pool::take(brokers) {
            Some(cluster) => cluster.restore().map(|()| cluster),
            None => Cluster::try_start(brokers, Jvm::QuickStart),
        };
        // Only a cluster that is ready is given back, so a failure must be counted here.
        let cluster = ready.unwrap_or_else(|error| {
            Pool::put(brokers, None);
            panic!("{error}")
        });
        Some(Exclusive(Some(cluster)))
    }
}

/// Clusters that tests have given back, for the next test: a start costs some ten seconds of CPU
/// time for each broker. They end with the process.
struct Pool {
    free: Vec<Cluster>,
    /// The numbers of brokers of the clusters in use.
    in_use: Vec<usize>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    in_use: Vec::new(),
});
static PUT: Condvar = Condvar::new();

impl Pool {
    /// At most so many clusters with this many brokers: each runs on, and costs memory and CPU
    /// time.
    fn limit(brokers: usize) -> usize {
        if brokers > 1 { 1 } else { 3 }
    }

    /// A free cluster, or none if the caller is to start one. Waits if there are too many already.
    fn take(brokers: usize) -> Option<Cluster> {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let in_use = pool.in_use.iter().filter(|of| **of == brokers).count();
            if in_use < Self::limit(brokers) {
                pool.in_use.push(brokers);
                let free = pool.free.iter().position(|of| of.size() == brokers);
                return free.map(|at| pool.free.swap_remove(at));
            }
            pool = PUT.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives a cluster back, or counts one that has ended.
    fn put(brokers: usize, cluster: Option<Cluster>) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = pool.in_use.iter().position(|of| *of == brokers) {
            pool.in_use.swap_remove(at);
        }
        pool.free.extend(cluster);
        PUT.notify_all();
    }
}

/// A cluster that one test has to itself, to stop, freeze and start its brokers. It is given back
/// when this is dropped, unless the test failed: then it ends.
pub(crate) struct Exclusive(Option<Cluster>);

impl Exclusive {
    /// Ends the cluster instead of giving it back.
    pub(crate) fn end(mut self) {
        if let Some(cluster) = self.0.take() {
            let brokers = cluster.size();
            drop(cluster);
            Pool::put(brokers, None);
        }
    }
}

impl Deref for Exclusive {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Some(cluster) = self.0.take() {
            let brokers = cluster.size();
            Pool::put(brokers, Some(cluster).filter(|_| !thread::panicking()));
        }
    }
}
