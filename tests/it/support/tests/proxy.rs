//! What `support::proxy` promises, before real brokers. The tests share the proxy of the shared
//! cluster, and so take turns.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::{SOON, publish};
use crate::support::kafka::{Cluster, Partition, shared_cluster};
use crate::support::proxy::{Fault, Proxy};

/// A cluster of one broker, whose proxy is this test's for now.
pub(super) struct Scene {
    pub(super) cluster: &'static Cluster,
    pub(super) topic: String,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    pub(super) fn new() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let cluster = shared_cluster()?;
        let topic = cluster.unique_topic("support-proxy");
        cluster.create_topic(&topic, 1, &[]);
        // A test that failed has left nothing that the next one minds.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self {
            cluster,
            topic,
            _turn: turn,
        })
    }

    pub(super) fn proxy(&self) -> &Proxy {
        self.cluster.proxy(1)
    }

    /// A client that goes through the proxy, and gives a record up after this long.
    pub(super) fn client(&self, timeout: Duration) -> ClientConfig {
        let mut client = self.cluster.client();
        client.set("bootstrap.servers", self.cluster.proxied());
        client.set("message.timeout.ms", timeout.as_millis().to_string());
        client
    }

    /// Publishes through the proxy, by a client of its own.
    #[track_caller]
    fn goes_through(&self, key: &str) {
        publish(&self.client(SOON), &self.topic, key).expect("it is published");
    }

    #[track_caller]
    fn does_not_go_through(&self, key: &str) {
        let result = publish(&self.client(Duration::from_secs(1)), &self.topic, key);
        result.expect_err("nothing can have arrived");
    }

    /// The keys of the topic, past the proxy.
    pub(super) fn keys(&self) -> Vec<String> {
        let records = self.cluster.read_all(&self.topic).into_iter();
        let text = |key| String::from_utf8(key).expect("the keys are text");
        records
            .map(|record| text(record.key.expect("it has one")))
            .collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.proxy().pass();
    }
}

/// A connection of no client's, to see what becomes of it.
struct Probe(TcpStream);

impl Probe {
    fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).expect("the proxy listens"))
    }

    /// Whether it ends, and how, within this time; broken is a reset.
    fn ends(&self, within: Duration) -> Option<std::io::Result<usize>> {
        use std::io::{ErrorKind, Read};
        self.0.set_read_timeout(Some(within)).expect("a duration");
        let read = (&self.0).read(&mut [0]);
        let open = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        (!read.as_ref().is_err_and(open)).then_some(read)
    }

    #[track_caller]
    fn is_reset(&self) {
        let end = self.ends(SOON).expect("it ends");
        let error = end.expect_err("it is broken, not closed");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_client_reads_and_writes_through_the_proxy_and_nowhere_else() {
    let Some(scene) = Scene::new() else { return };
    let accepted = scene.proxy().accepted();
    scene.goes_through("passed");
    assert!(scene.proxy().accepted() > accepted);
    let consumer: BaseConsumer = scene.client(SOON).create().expect("the settings are sound");
    let metadata = consumer.fetch_metadata(None, SOON).expect("it answers");
    let known: Vec<_> = metadata
        .brokers()
        .iter()
        .map(|broker| broker.port())
        .collect();
    assert_eq!(known, [i32::from(scene.proxy().address().port())]);
    let mut all = rdkafka::TopicPartitionList::new();
    all.add_partition_offset(&scene.topic, 0, rdkafka::Offset::Beginning)
        .expect("an offset");
    consumer.assign(&all).expect("a topic");
    let record = consumer.poll(SOON).expect("in time").expect("it is read");
    assert_eq!(record.key(), Some("passed".as_bytes()));
}

#[test]
fn a_stalled_proxy_takes_connections_and_carries_nothing_until_it_passes() {
    let Some(scene) = Scene::new() else { return };
    let producer: BaseProducer = scene.client(SOON).create().expect("the settings are sound");
    let send = |key| {
        let record = BaseRecord::to(&scene.topic).key(key).payload("value");
        producer.send(record).expect("the queue has room");
    };
    send("before");
    producer.flush(SOON).expect("it passes");

    let before = Probe::connect(scene.proxy().address());
    scene.proxy().stall();
    let after = Probe::connect(scene.proxy().address());
    send("meanwhile");
    scene.does_not_go_through("given up");
    let second = Duration::from_secs(1);
    assert!(producer.flush(second).is_err(), "a stalled proxy passes");
    for probe in [&before, &after] {
        assert!(probe.ends(Duration::from_millis(100)).is_none());
    }
    assert_eq!(scene.keys(), ["before"]);

    scene.proxy().pass();
    producer.flush(SOON).expect("it passes");
    assert_eq!(scene.keys(), ["before", "meanwhile"]);
}

#[test]
fn the_reports_of_the_next_requests_are_lost_after_the_append() {
    let Some(scene) = Scene::new() else { return };
    let proxy = scene.proxy();
    let mut once = scene.client(SOON);
    once.set("message.send.max.retries", "0");
    let lost = proxy.inject(Fault::LoseResponse.next(1));
    publish(&once, &scene.topic, "lost").expect_err("its report is lost");
    assert_eq!(lost.injected(), 1);
    assert_eq!(scene.keys(), ["lost"]);
    publish(&once, &scene.topic, "reported").expect("only one was to be lost");

    // Who tries again without idempotence publishes again.
    let lost = proxy.inject(Fault::LoseResponse.next(2));
    let mut again = scene.client(SOON);
    again.set("enable.idempotence", "false");
    publish(&again, &scene.topic, "thrice").expect("in the end");
    assert_eq!(lost.injected(), 2);
    let keys = ["lost", "reported", "thrice", "thrice", "thrice"];
    assert_eq!(scene.keys(), keys);

    // With it, the broker knows it again.
    let lost = proxy.inject(Fault::LoseResponse.next(2));
    again.set("enable.idempotence", "true");
    publish(&again, &scene.topic, "once").expect("in the end");
    assert_eq!(lost.injected(), 2);
    assert_eq!(scene.keys(), [&keys[..], &["once"]].concat());

    let ended = proxy.inject(Fault::LoseResponse.next(1));
    proxy.pass();
    assert_eq!((ended.left(), ended.injected()), (0, 0));
}

#[test]
fn a_delayed_line_keeps_order_and_throughput() {
    const DELAY: Duration = Duration::from_millis(200);
    const RECORDS: usize = 100;
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client(SOON);
    // A request for each record, and many of them on the line at once.
    client
        .set("batch.num.messages", "1")
        .set("max.in.flight", "20")
        .set("enable.idempotence", "false");
    let producer: BaseProducer = client.create().expect("the settings are sound");
    let publish = |key: &str| {
        let record = BaseRecord::to(&scene.topic).key(key).payload("value");
        producer.send(record).expect("the queue has room");
    };
    publish("first");
    producer.flush(SOON).expect("it passes");

    scene.proxy().delay(DELAY);
    let began = Instant::now();
    publish("second");
    producer.flush(SOON).expect("it passes");
    let one = began.elapsed();
    assert!(one >= 2 * DELAY, "{one:?}");

    let keys: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    let began = Instant::now();
    keys.iter().for_each(|key| publish(key));
    producer.flush(SOON).expect("it passes");
    let all = began.elapsed();
    // Twenty by twenty they take five round trips; one by one they would take a hundred.
    assert!(all < 50 * DELAY, "{all:?}");
    assert_eq!(scene.keys()[2..], keys);
}

#[test]
fn a_cut_ends_the_connections_that_there_are_and_no_others() {
    let Some(scene) = Scene::new() else { return };
    let probe = carried(&scene);
    scene.proxy().cut();
    probe.is_reset();
    scene.goes_through("after the cut");
}

#[test]
fn a_refusing_proxy_ends_every_connection_until_it_passes() {
    let Some(scene) = Scene::new() else { return };
    let before = carried(&scene);
    scene.proxy().refuse();
    before.is_reset();
    Probe::connect(scene.proxy().address()).is_reset();
    scene.does_not_go_through("refused");
    scene.proxy().pass();
    scene.goes_through("passed");
    assert_eq!(scene.keys(), ["after the probe", "passed"]);
}

/// A connection that the proxy carries already, rather than one that waits to be taken.
fn carried(scene: &Scene) -> Probe {
    let probe = Probe::connect(scene.proxy().address());
    // Connections are taken in order.
    scene.goes_through("after the probe");
    probe
}

#[test]
fn leaders_move_and_replicas_catch_up_in_a_cluster_of_three_behind_proxies() {
    let Some(cluster) = Cluster::exclusive(3) else {
        return;
    };
    let topic = cluster.unique_topic("support-leaders");
    cluster.create_topic(&topic, 3, &[]);
    let leaders = || [0, 1, 2].map(|partition| cluster.leader(&topic, partition));
    let mut client = cluster.client();
    client.set("bootstrap.servers", cluster.proxied());
    publish(&client, &topic, "before").expect("it is published");

    let before = leaders();
    cluster.move_leaders(&topic);
    for (before, now) in before.iter().zip(leaders()) {
        assert!(now.is_some() && now != *before, "{before:?} {now:?}");
    }
    publish(&client, &topic, "after").expect("it is published");

    // Every broker is behind its own proxy.
    let single = cluster.unique_topic("support-leader");
    cluster.create_topic(&single, 1, &[]);
    let leader = cluster.leader(&single, 0).expect("it has one");
    cluster.proxy(leader).refuse();
    let mut impatient = client.clone();
    impatient.set("message.timeout.ms", "1000");
    publish(&impatient, &single, "refused").expect_err("its leader cannot be reached");
    cluster.proxy(leader).pass();
    publish(&client, &single, "passed").expect("it is published");

    cluster.stop(leader);
    cluster.wait_until(&topic, |partitions| {
        let moved = |at: &Partition| at.leader != Some(leader) && at.leader.is_some();
        partitions
            .iter()
            .all(|at| moved(at) && at.in_sync.len() == 2)
    });
    publish(&client, &topic, "two are enough").expect("it is published");
    cluster.start_again(leader);
    cluster.wait_until(&topic, |partitions| {
        partitions.iter().all(|at| at.in_sync == [1, 2, 3])
    });

    cluster.delete_topic(&topic);
    assert_eq!(cluster.partitions(&topic), []);
}
