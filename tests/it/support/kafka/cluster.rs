//! Brokers of our own: started, stopped, started again, and gone at the end.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::broker::{Broker, Distances, Ports};
use super::machine::{Jvm, Machine};
use super::security::{self, SaslSsl};
use super::topics::Partition;
use super::{Kafka, run_java_on};
use crate::support::proxy::Proxy;

/// How long brokers may take to come up: some seconds on an idle machine, much more beside a
/// compiler.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// One or more brokers. They end when this is dropped, and at the latest with the process. What
/// every cluster can do is on [`Kafka`], which this derefs to.
pub(crate) struct Cluster {
    kafka: Kafka,
    settings: String,
    brokers: Vec<Broker>,
    machine: Machine,
}

/// What a cluster is like.
pub(crate) struct Setup<'a> {
    pub(crate) brokers: usize,
    pub(crate) jvm: Jvm,
    /// Puts a [`Distance`](crate::support::distance::Distance) in front of the listeners of
    /// [`Cluster::distant`] and [`Cluster::sasl_ssl`].
    pub(crate) is_distant: bool,
    /// More lines of `server.properties`.
    pub(crate) settings: &'a str,
}

impl Cluster {
    /// Starts that many brokers, numbered from 1, and waits until all of them serve. Topics are
    /// replicated to all of them; from two brokers on, `acks=all` needs two that have the record.
    ///
    /// # Errors
    ///
    /// That there is no Kafka to be had (the message says how to provide one), or that it does not
    /// start (with its log).
    pub(crate) fn try_start(brokers: usize, jvm: Jvm) -> Result<Cluster, String> {
        Cluster::try_start_as(&Setup {
            brokers,
            jvm,
            is_distant: false,
            settings: "",
        })
    }

    /// The same, with more choices.
    ///
    /// # Errors
    ///
    /// As [`Cluster::try_start`].
    pub(crate) fn try_start_as(setup: &Setup<'_>) -> Result<Cluster, String> {
        // A start keeps every core busy. Two at once would only take longer, and run into
        // deadlines.
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempts = 3;
        loop {
            attempts -= 1;
            // Between the moment a port was seen free and the moment a broker binds it, somebody
            // else can take it.
            match Cluster::start_on(&Ports::free(setup.brokers), setup) {
                Err(error) if attempts > 0 && is_about_a_taken_port(&error) => {}
                settled => return settled,
            }
        }
    }

    fn start_on(ports: &[Ports], setup: &Setup<'_>) -> Result<Cluster, String> {
        let of_clients = |of: &Ports| [of.plain, of.secure, of.proxied];
        let to_publish: Vec<u16> = ports.iter().flat_map(of_clients).collect();
        let machine = Machine::start(setup.jvm, &to_publish)?;
        let brokers = (1..)
            .zip(ports)
            .map(|(id, ports)| Broker::new(&machine, id, *ports, setup.is_distant));
        let cluster = Cluster {
            kafka: Kafka::at(&addresses(ports.iter().map(|ports| ports.plain))),
            settings: setup.settings.to_owned(),
            brokers: brokers.collect(),
            machine,
        };
        cluster.prepare()?;
        cluster
            .brokers
            .iter()
            .try_for_each(|broker| broker.launch(&cluster.machine))?;
        cluster.wait_until_it_serves()?;
        Ok(cluster)
    }

    /// The number of its brokers.
    pub(crate) fn size(&self) -> usize {
        self.brokers.len()
    }

    /// Undoes what a test did to brokers and proxies. Topics have unique names and may stay.
    pub(crate) fn restore(&self) -> Result<(), String> {
        for broker in &self.brokers {
            broker.proxy.pass();
            if broker.is_wanted() {
                broker.signal(&self.machine, "CONT")?;
            } else {
                broker.launch(&self.machine)?;
            }
        }
        self.wait_until_it_serves()
    }

    /// Kills a broker (SIGKILL); its data stay.
    pub(crate) fn stop(&self, broker: usize) {
        self.broker(broker).kill(&self.machine);
    }

    /// Starts a stopped broker on the same ports with the same data, and waits until it serves.
    ///
    /// # Panics
    ///
    /// When it does not serve in time, with its log.
    pub(crate) fn start_again(&self, broker: usize) {
        let launched = self.broker(broker).launch(&self.machine);
        let serves = launched.and_then(|()| self.wait_until_it_serves());
        serves.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Freezes a broker (SIGSTOP): it keeps its connections, takes new ones, and answers nothing.
    pub(crate) fn freeze(&self, broker: usize) {
        let frozen = self.broker(broker).signal(&self.machine, "STOP");
        frozen.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets a frozen broker go on.
    pub(crate) fn thaw(&self, broker: usize) {
        let thawed = self.broker(broker).signal(&self.machine, "CONT");
        thawed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The bootstrap servers for clients that go through the proxies, one before each broker. What
    /// [`Kafka`] offers goes past them, whatever they do.
    pub(crate) fn proxied(&self) -> String {
        let proxies = self.brokers.iter().map(|broker| broker.proxy.address());
        addresses(proxies.map(|address| address.port()))
    }

    /// The bootstrap servers behind those proxies. What they advertise are the proxies.
    pub(crate) fn behind_proxies(&self) -> String {
        addresses(self.brokers.iter().map(|broker| broker.ports.proxied))
    }

    /// The proxy before one broker. Those of the shared cluster are for the tests of `support`.
    pub(crate) fn proxy(&self, broker: usize) -> &Proxy {
        &self.broker(broker).proxy
    }

    /// The bootstrap servers for clients that are a round trip away. What [`Kafka`] offers is not.
    ///
    /// # Panics
    ///
    /// If the cluster was not set up to be distant.
    #[allow(dead_code, reason = "only the benchmarks use it")]
    pub(crate) fn distant(&self) -> String {
        let ports = self.distances().map(|distance| distance.plain.address());
        addresses(ports.map(|address| address.port()))
    }

    /// Sets the round trip to all distant listeners. Without it there is no delay.
    ///
    /// # Panics
    ///
    /// As [`Cluster::distant`].
    #[allow(dead_code, reason = "only the benchmarks use it")]
    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        for Distances { plain, secure } in self.distances() {
            plain.set_round_trip(round_trip);
            secure.set_round_trip(round_trip);
        }
    }

    /// The number of connections to all distant listeners since the start.
    ///
    /// # Panics
    ///
    /// As [`Cluster::distant`].
    #[allow(dead_code, reason = "only the benchmarks use it")]
    pub(crate) fn distant_connections(&self) -> usize {
        self.distances()
            .map(|distances| distances.plain.opened() + distances.secure.opened())
            .sum()
    }

    fn distances(&self) -> impl Iterator<Item = &Distances> {
        let distances = self.brokers.iter().map(|broker| broker.distances.as_ref());
        distances.map(|distances| distances.expect("the cluster was set up to be distant"))
    }

    /// The listener with TLS and passwords.
    pub(crate) fn sasl_ssl(&self) -> SaslSsl {
        SaslSsl {
            brokers: addresses(self.brokers.iter().map(Broker::secure_port)),
            ca_pem: security::certificate(&self.machine),
        }
    }

    /// Denies the SASL user an operation (`WRITE`, `DESCRIBE`, …) on a topic, and no other; or on
    /// all groups or transactional ids with a prefix: `group:PREFIX`, `transactional_id:PREFIX`.
    /// Brokers follow within moments, not at once.
    pub(crate) fn deny(&self, resource: &str, operation: &str) {
        self.change_acl("deny", resource, operation);
    }

    /// Takes back what [`Cluster::deny`] did.
    pub(crate) fn allow_again(&self, topic: &str, operation: &str) {
        self.change_acl("allow-again", topic, operation);
    }

    /// Makes another broker the leader of every partition of a topic, while it serves, and waits
    /// until every running broker says so. Wants two brokers in sync at least.
    pub(crate) fn move_leaders(&self, topic: &str) {
        let before: Vec<_> = self.kafka.partitions(topic);
        self.java("Leaders.java", &[self.kafka.brokers(), topic]);
        self.wait_until(topic, |now| {
            let mut both = before.iter().zip(now);
            both.all(|(before, now)| now.leader.is_some() && now.leader != before.leader)
        });
    }

    /// Waits until every running broker says so of a topic's partitions, as after one of
    /// [`Cluster::stop`] and [`Cluster::start_again`]: brokers learn it one by one.
    #[track_caller]
    pub(crate) fn wait_until(&self, topic: &str, is_so: impl Fn(&[Partition]) -> bool) {
        let deadline = Instant::now() + START_PATIENCE;
        for broker in self.brokers.iter().filter(|broker| broker.is_wanted()) {
            let kafka = Kafka::at(&addresses([broker.ports.plain]));
            loop {
                let partitions = kafka.partitions(topic);
                if is_so(&partitions) {
                    break;
                }
                let now = format!("broker {} still says {partitions:?}", broker.id);
                assert!(Instant::now() < deadline, "{now}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Changes one setting of every broker. None of its other settings may have been changed.
    pub(crate) fn change_setting(&self, name: &str, value: &str) {
        for broker in &self.brokers {
            let id = i32::try_from(broker.id).expect("ids are small");
            self.kafka.change_broker(id, name, value);
        }
    }

    fn change_acl(&self, action: &str, topic: &str, operation: &str) {
        let arguments = [
            action,
            self.kafka.brokers(),
            SaslSsl::USERNAME,
            topic,
            operation,
        ];
        self.java("Acls.java", &arguments);
    }

    fn java(&self, source: &str, arguments: &[&str]) {
        let done = run_java_on(&self.machine, source, arguments);
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    fn broker(&self, id: usize) -> &Broker {
        let broker = self.brokers.iter().find(|broker| broker.id == id);
        broker.unwrap_or_else(|| panic!("brokers are numbered from 1 to {}", self.brokers.len()))
    }

    /// Makes the certificate that all brokers share, and each one's folder. Every step is a Java of
    /// its own, which takes a second to start: they run side by side.
    fn prepare(&self) -> Result<(), String> {
        // Kafka takes any text for this. A broker that dials the port of a test cluster that is no
        // more is refused because of it.
        let id = format!("zim2kafka-{:016x}", rand::random::<u64>());
        let settings = self.settings();
        let users = security::users();
        thread::scope(|scope| {
            let certificate = scope.spawn(|| security::make_certificate(&self.machine));
            let prepare = |broker: &Broker| broker.prepare(&self.machine, &settings, &id, &users);
            let steps: Vec<_> = self
                .brokers
                .iter()
                .map(|broker| scope.spawn(move || prepare(broker)))
                .collect();
            let mut steps = steps.into_iter().chain([certificate]);
            steps.try_for_each(|step| step.join().expect("the steps return their errors"))
        })
    }

    fn settings(&self) -> String {
        let voter =
            |broker: &Broker| format!("{}@127.0.0.1:{}", broker.id, broker.ports.controller);
        let voters: Vec<String> = self.brokers.iter().map(voter).collect();
        let voters = voters.join(",");
        let replicas = self.brokers.len();
        let needed = replicas.min(2);
        format!(
            "controller.quorum.voters={voters}
{keystore}
default.replication.factor={replicas}
min.insync.replicas={needed}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={needed}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={needed}
{settings}
",
            settings = self.settings,
            keystore = security::keystore(&self.machine),
        )
    }

    /// Waits until each running broker, asked itself, knows all the running ones.
    fn wait_until_it_serves(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        let running: Vec<&Broker> = self
            .brokers
            .iter()
            .filter(|broker| broker.is_wanted())
            .collect();
        for broker in &running {
            let client = Kafka::at(&addresses([broker.ports.plain])).client();
            let client: BaseConsumer = client.create().expect("the settings are sound");
            while !knows(&client, &running) {
                if broker.has_ended() {
                    return Err(broker.report("ended instead of serving"));
                }
                if Instant::now() > deadline {
                    return Err(broker.report(&format!("does not serve after {START_PATIENCE:?}")));
                }
            }
        }
        Ok(())
    }
}

impl Deref for Cluster {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        &self.kafka
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for broker in &self.brokers {
            broker.kill(&self.machine);
        }
    }
}

/// Asks for half a second at most, which also is the pace of the loop that asks again.
fn knows(client: &BaseConsumer, running: &[&Broker]) -> bool {
    let Ok(metadata) = client.fetch_metadata(None, Duration::from_millis(500)) else {
        return false;
    };
    let known: Vec<usize> = metadata
        .brokers()
        .iter()
        .filter_map(|broker| broker.id().try_into().ok())
        .collect();
    running.iter().all(|broker| known.contains(&broker.id))
}

fn addresses(ports: impl IntoIterator<Item = u16>) -> String {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let addresses: Vec<String> = ports.into_iter().map(address).collect();
    addresses.join(",")
}

/// As Java and Docker say it.
fn is_about_a_taken_port(error: &str) -> bool {
    let error = error.to_lowercase();
    error.contains("address already in use") || error.contains("port is already allocated")
}
