//! Topics come and go, and their partitions have leaders.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Kafka, PATIENCE, patiently, wait_for};

/// What a broker says of one partition, brokers by their ids.
#[derive(Debug, PartialEq)]
pub(crate) struct Partition {
    pub(crate) id: i32,
    pub(crate) leader: Option<usize>,
    /// The replicas that have all acknowledged records, the leader's included; sorted.
    pub(crate) in_sync: Vec<usize>,
}

impl Kafka {
    /// Creates a topic, replicated as the cluster does by default, and waits until every partition
    /// has a leader.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        const BY_DEFAULT: i32 = -1;
        self.create_topic_with(name, partitions, BY_DEFAULT, settings);
    }

    /// Creates a topic with one replica of each partition, and waits as above.
    pub(crate) fn create_unreplicated_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, 1, &[("min.insync.replicas", "1")]);
    }

    fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
        settings: &[(&str, &str)],
    ) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let created = wait_for(self.admin().create_topics([&topic], &AdminOptions::new()));
        let refused = created
            .expect("the cluster answers")
            .into_iter()
            .find_map(Result::err);
        assert_eq!(refused, None, "topic {name} was not created");
        self.wait_for_partitions(name, |found| {
            let led = found.iter().filter(|partition| partition.leader.is_some());
            Some(led.count()) == usize::try_from(partitions).ok()
        });
    }

    /// Deletes a topic, and waits until it is gone.
    pub(crate) fn delete_topic(&self, name: &str) {
        let deleted = wait_for(self.admin().delete_topics(&[name], &AdminOptions::new()));
        let refused = deleted
            .expect("the cluster answers")
            .into_iter()
            .find_map(Result::err);
        assert_eq!(refused, None, "topic {name} was not deleted");
        self.wait_for_partitions(name, <[Partition]>::is_empty);
    }

    /// Adds partitions to a topic, and waits until all `partitions` have a leader.
    pub(crate) fn add_partitions(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let added = wait_for(
            self.admin()
                .create_partitions([&more], &AdminOptions::new()),
        );
        let refused = added
            .expect("the cluster answers")
            .into_iter()
            .find_map(Result::err);
        assert_eq!(refused, None, "topic {name} got no partitions");
        self.wait_for_partitions(name, |found| {
            let led = found.iter().filter(|partition| partition.leader.is_some());
            led.count() == partitions
        });
    }

    /// Deletes the records of a partition before this offset, as retention does.
    pub(crate) fn delete_records(&self, name: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(name, partition, Offset::Offset(before))
            .expect("an offset");
        let deleted = wait_for(self.admin().delete_records(&offsets, &AdminOptions::new()));
        let deleted = deleted.expect("the cluster answers");
        for partition in deleted.elements() {
            assert_eq!(partition.error(), Ok(()), "{name}");
        }
    }

    /// Deletes the consumer groups whose names begin like this, as Kafka does after
    /// `offsets.retention.minutes`. There must be one.
    pub(crate) fn delete_groups(&self, prefix: &str) {
        let client: BaseConsumer = self.client().create().expect("the settings are sound");
        let groups = client
            .fetch_group_list(None, PATIENCE)
            .expect("the cluster answers");
        let names = groups.groups().iter().map(|group| group.name());
        let names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
        assert_ne!(names, [""; 0], "no group {prefix}…");
        let deleted = wait_for(self.admin().delete_groups(&names, &AdminOptions::new()));
        let refused = deleted
            .expect("the cluster answers")
            .into_iter()
            .find_map(Result::err);
        assert_eq!(refused, None, "{names:?} were not deleted");
    }

    /// Sets the settings of a topic, and all others to the defaults.
    pub(crate) fn change_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (setting, value) in settings {
            change = change.set(setting, value);
        }
        let changed = wait_for(self.admin().alter_configs([&change], &AdminOptions::new()));
        let refused = changed
            .expect("the cluster answers")
            .into_iter()
            .find_map(Result::err);
        assert_eq!(refused, None, "topic {name} was not changed");
    }

    pub(super) fn change_broker(&self, id: i32, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Broker(id)).set(name, value);
        let changed = wait_for(self.admin().alter_configs([&change], &AdminOptions::new()));
        let refused = changed
            .expect("the cluster answers")
            .into_iter()
            .find_map(Result::err);
        assert_eq!(refused, None, "{name} of broker {id} was not changed");
    }

    /// The broker that leads a partition at this moment, if one does.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let partitions = self.partitions(topic);
        let found = partitions.into_iter().find(|found| found.id == partition);
        found.expect("the topic has this partition").leader
    }

    /// All partitions of a topic in order; none of one that does not exist.
    pub(crate) fn partitions(&self, topic: &str) -> Vec<Partition> {
        let client: BaseConsumer = self.client().create().expect("the settings are sound");
        let ask = |time| client.fetch_metadata(Some(topic), time);
        let metadata = patiently(topic, PATIENCE, ask);
        let topics = metadata.topics().iter();
        let partitions = topics.flat_map(|topic| topic.partitions());
        let mut partitions: Vec<Partition> = partitions.map(Partition::of).collect();
        partitions.sort_by_key(|partition| partition.id);
        partitions
    }

    fn wait_for_partitions(&self, topic: &str, is_so: impl Fn(&[Partition]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let partitions = self.partitions(topic);
            if is_so(&partitions) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "topic {topic}: {partitions:?} after {PATIENCE:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("the settings are sound")
    }
}

impl Partition {
    fn of(partition: &MetadataPartition) -> Self {
        let broker = |id: &i32| usize::try_from(*id).ok();
        let mut in_sync: Vec<_> = partition.isr().iter().filter_map(broker).collect();
        in_sync.sort_unstable();
        Self {
            id: partition.id(),
            // -1 where there is none.
            leader: broker(&partition.leader()),
            in_sync,
        }
    }
}
