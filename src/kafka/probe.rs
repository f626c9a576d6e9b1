//! Connects to Kafka, to each bootstrap server, and to each broker that has a partition of our
//! topics.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::client_config::{Ordering, of_producer};
use super::events::{Event, EventQueue};
use super::retry::watermarks;
use super::statistics::Statistics;
use super::{BrokerStatus, Error, KafkaSettings};
use crate::finding::Step;

/// How long a bootstrap server may take, from the first attempt to connect.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a leader of partitions may take. All are asked at once: librdkafka waits all of this time
/// for one that cannot be reached.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(8);

/// How long to wait for a broker at an address that Kafka advertises, if no leader is known.
const ADVERTISED_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for the attempts to connect after all brokers have failed: a name may have several
/// addresses, of which librdkafka tries one at a time.
const OTHER_ADDRESSES_TIME: Duration = Duration::from_millis(1500);

/// How often it is checked whether a broker answers.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long to set up a connection, unless the operator sets it. The default of 30 s is too long for
/// someone who waits for the result.
const SETUP_TIMEOUT: &str = "socket.connection.setup.timeout.ms";
const SETUP_TIMEOUT_MS: &str = "5000";

/// Which brokers can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachability {
    /// Whether a broker can be asked about topics.
    pub is_any_reached: bool,
    /// Those that cannot.
    pub unreached: Vec<Unreached>,
}

/// A broker that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// Whose address it is.
    pub address: Address,
    /// What failed; `None` if nothing has failed so far, and nothing has answered.
    pub step: Option<Step>,
    /// The broker and the reason.
    pub text: String,
}

/// Where the address of a broker comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// It is a bootstrap server, and none of them answers.
    Bootstrap,
    /// It is a bootstrap server, and another one answers.
    OneBootstrap,
    /// A bootstrap server answers, and Kafka advertises this address.
    Advertised,
}

/// Connects to Kafka, to each bootstrap server, and to the leader of each partition of our topics.
/// Returns what could not be reached. Blocks for some seconds if there is something.
///
/// # Errors
///
/// If librdkafka does not accept the settings.
pub fn probe(settings: &KafkaSettings) -> Result<Reachability, Error> {
    let probe = Probe::new(settings, &settings.brokers)?;
    let topic = settings.routes.dead_letter_topic();
    if !probe.reaches_any(topic) {
        let address = match probe.was_answered() {
            true => Address::Advertised,
            false => Address::Bootstrap,
        };
        return Ok(Reachability {
            is_any_reached: false,
            unreached: unreached(address, &probe.status),
        });
    }
    let mut leaders = BTreeMap::new();
    for topic in settings.routes.topics() {
        leaders.extend(probe.leaders(topic));
    }
    let client = probe.inner.client();
    let (reached, mut not_reached) = thread::scope(|scope| {
        let servers = scope.spawn(|| unreached_servers(settings, topic));
        let asking = leaders.values().map(|(topic, partition)| {
            scope.spawn(move || reaches_leader(client, topic, *partition))
        });
        let asking = Vec::from_iter(asking).into_iter();
        let reached = asking
            .filter_map(|asking| asking.join().ok())
            .filter(|is_reached| *is_reached)
            .count();
        (reached, servers.join().unwrap_or_default())
    });
    let are_all = match leaders.is_empty() {
        false => reached == leaders.len(),
        // librdkafka connects to some broker all the same.
        true => probe.reaches_advertised(),
    };
    probe.poll();
    if !are_all {
        let advertised = unreached(Address::Advertised, &probe.status);
        let is_other = |one: &Unreached| advertised.iter().all(|other| other.text != one.text);
        not_reached.retain(is_other);
        not_reached.extend(advertised);
    }
    Ok(Reachability {
        // One that leads no partition of ours can describe the topics too.
        is_any_reached: are_all || reached > 0 || probe.status.advertised_was_up(),
        unreached: not_reached,
    })
}

/// The bootstrap servers that do not answer, if there are several. librdkafka is content with the
/// first one that does.
fn unreached_servers(settings: &KafkaSettings, topic: &str) -> Vec<Unreached> {
    let servers: Vec<&str> = settings.brokers.split(',').collect();
    if servers.len() < 2 {
        return Vec::new();
    }
    let ask = |server: &str| {
        let probe = Probe::new(settings, server).ok()?;
        let is_reached = probe.reaches_any(topic) || probe.was_answered();
        let mut unreached = unreached(Address::OneBootstrap, &probe.status);
        for unreached in &mut unreached {
            if unreached.text.is_empty() {
                unreached.text = format!("{server}: no answer");
            }
        }
        (!is_reached).then_some(unreached)
    };
    let ask = &ask;
    thread::scope(|scope| {
        let asking = servers
            .iter()
            .map(|server| scope.spawn(move || ask(server)));
        let asking = Vec::from_iter(asking).into_iter();
        let answers = asking.filter_map(|asking| asking.join().ok().flatten());
        answers.flatten().collect()
    })
}

/// A client that sends no records.
struct Probe {
    // First, because it must be dropped before the client.
    events: EventQueue,
    inner: BaseProducer,
    status: BrokerStatus,
    was_up: AtomicBool,
}

impl Probe {
    /// A client that knows these bootstrap servers.
    fn new(settings: &KafkaSettings, servers: &str) -> Result<Self, Error> {
        let mut client = settings.client();
        client.set("bootstrap.servers", servers);
        if client.get(SETUP_TIMEOUT).is_none() {
            client.set(SETUP_TIMEOUT, SETUP_TIMEOUT_MS);
        }
        let inner: BaseProducer = of_producer(client, Ordering::Relaxed).create()?;
        Ok(Self {
            events: EventQueue::of(inner.client()),
            inner,
            status: BrokerStatus::new(None),
            was_up: AtomicBool::new(false),
        })
    }

    /// Whether a bootstrap server has answered, because an address is known that Kafka advertises.
    /// librdkafka may then have left the server before it could be asked about a topic.
    fn was_answered(&self) -> bool {
        !self.status.failed_steps(true).is_empty()
    }

    fn poll(&self) {
        while let Some(event) = self.events.poll() {
            match event {
                Event::Statistics(json) => {
                    if let Some(statistics) = Statistics::parse(&json) {
                        self.status.take_statistics(&statistics, &self.was_up);
                    }
                }
                Event::Error { code, reason } => self.status.take_probe_error(code, &reason),
                Event::Log {
                    facility, message, ..
                } => self.status.take_log(&facility, &message),
                Event::Reports(_) => {}
            }
        }
    }

    /// Asks for this topic. Returns whether a broker can be reached.
    fn reaches_any(&self, topic: &str) -> bool {
        let began = Instant::now();
        let mut down_since = None;
        while began.elapsed() < BOOTSTRAP_TIMEOUT {
            let asked = Instant::now();
            let client = self.inner.client();
            if client.fetch_metadata(Some(topic), PROBE_INTERVAL).is_ok() {
                return true;
            }
            // It may fail at once.
            thread::sleep(PROBE_INTERVAL.saturating_sub(asked.elapsed()));
            self.poll();
            if self.status.is_down() {
                let since = *down_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= OTHER_ADDRESSES_TIME {
                    return false;
                }
            }
        }
        false
    }

    /// Whether a broker can be reached at an address that Kafka advertises, or none was tried.
    fn reaches_advertised(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < ADVERTISED_TIMEOUT && !self.status.advertised_was_up() {
            self.poll();
            if !self.status.failed_steps(true).is_empty() {
                return false;
            }
            thread::sleep(PROBE_INTERVAL);
        }
        true
    }

    /// A partition of each broker that leads one of this topic, by the broker's number.
    fn leaders(&self, topic: &str) -> BTreeMap<i32, (String, i32)> {
        let client = self.inner.client();
        let metadata = client.fetch_metadata(Some(topic), LEADERS_TIMEOUT);
        let topics = metadata.iter().flat_map(|metadata| metadata.topics());
        let partitions = topics.flat_map(|found| found.partitions());
        let led = partitions.filter(|partition| partition.leader() >= 0);
        led.map(|partition| (partition.leader(), (topic.to_owned(), partition.id())))
            .collect()
    }
}

/// Whether the leader of this partition answers, even if it refuses the request.
fn reaches_leader<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> bool {
    match watermarks(client, topic, partition, LEADERS_TIMEOUT) {
        Ok(_) => true,
        // librdkafka's own errors are negative, Kafka's are not.
        Err(error) => error
            .rdkafka_error_code()
            .is_some_and(|code| code as i32 > 0),
    }
}

fn unreached(address: Address, status: &BrokerStatus) -> Vec<Unreached> {
    let is_advertised = address == Address::Advertised;
    let failed = status.failed_steps(is_advertised);
    let unreached = |step, text| Unreached {
        address,
        step,
        text,
    };
    if failed.is_empty() {
        let waiting = match is_advertised {
            false => status.errors(),
            true => status.advertised_errors(),
        };
        return vec![unreached(None, waiting)];
    }
    let failed = failed.into_iter();
    failed
        .map(|(step, text)| unreached(Some(step), text))
        .collect()
}
