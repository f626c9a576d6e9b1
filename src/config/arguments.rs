//! The flags, their variables and their defaults, and how their values are written.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::callback::TimestampUnit;
use crate::http::Networks;

#[derive(Debug, Clone, Args)]
#[expect(
    missing_docs,
    reason = "a doc comment here would take the place of the command's own text"
)]
pub struct ServeArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub callback: CallbackArgs,
    #[command(flatten)]
    pub connections: ConnectionArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub topics: TopicArgs,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub deadlines: DeadlineArgs,
}

/// The two ports.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ports")]
#[expect(missing_docs, reason = "the flattened part says itself what it is")]
pub struct ListenArgs {
    /// Where callbacks are received, and nothing else
    #[arg(
        long,
        env = "ZIM2KAFKA_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The admin port.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ports")]
pub struct AdminArgs {
    /// Where metrics, health and the status page are
    #[arg(
        long,
        env = "ZIM2KAFKA_ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9464"
    )]
    pub admin_listen: SocketAddr,
}

/// What callbacks must be like.
#[derive(Clone, Args)]
#[command(next_help_heading = "Callbacks")]
pub struct CallbackArgs {
    /// The path that the sender posts to; may hold a segment that nobody is to guess
    #[arg(
        long,
        env = "ZIM2KAFKA_CALLBACK_PATH",
        value_name = "PATH",
        default_value = "/callbacks/zim"
    )]
    pub callback_path: String,
    /// A file of `appid=secret` lines, instead of ZIM2KAFKA_CALLBACK_SECRETS
    #[arg(long, env = "ZIM2KAFKA_CALLBACK_SECRETS_FILE", value_name = "FILE")]
    pub callback_secrets_file: Option<PathBuf>,
    /// What the sender's timestamps must be: auto, s or ms
    #[arg(
        long,
        env = "ZIM2KAFKA_TIMESTAMP_UNIT",
        value_name = "UNIT",
        default_value = "auto"
    )]
    pub timestamp_unit: TimestampUnit,
    /// Callbacks older or newer go to the dead-letter topic as stale; off accepts any
    #[arg(
        long,
        env = "ZIM2KAFKA_TIMESTAMP_TOLERANCE",
        value_name = "DURATION",
        default_value = "10m"
    )]
    pub timestamp_tolerance: Tolerance,
    /// A larger body is answered 413; at most 900000 bytes
    #[arg(
        long,
        env = "ZIM2KAFKA_BODY_LIMIT",
        value_name = "SIZE",
        default_value = "512KiB"
    )]
    pub body_limit: Size,
}

impl fmt::Debug for CallbackArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path is a secret too.
        f.debug_struct("CallbackArgs").finish_non_exhaustive()
    }
}

/// Who may connect to the callback port, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionArgs {
    /// Connections on the callback port at once; over it, idle ones are closed first
    #[arg(long, env = "ZIM2KAFKA_MAX_CONNECTIONS", value_name = "N", default_value = "4096",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Connections from one address at once, but for trusted proxies; off for no limit
    #[arg(
        long,
        env = "ZIM2KAFKA_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value = "off"
    )]
    pub max_connections_per_address: AtMost,
    /// How long a kept-alive connection may be silent: longer than a balancer's own time
    #[arg(
        long,
        env = "ZIM2KAFKA_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "75s"
    )]
    pub idle_timeout: Time,
    /// A PEM file with the certificate and its chain: HTTPS on the callback port
    #[arg(long, env = "ZIM2KAFKA_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the certificate's key
    #[arg(long, env = "ZIM2KAFKA_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The networks that callbacks may come from; others are answered 403 [default: all]
    #[arg(long, env = "ZIM2KAFKA_ALLOWED_NETWORKS", value_name = "CIDR,…")]
    pub allowed_networks: Option<Networks>,
    /// The proxies whose X-Forwarded-For says where a callback comes from [default: none]
    #[arg(long, env = "ZIM2KAFKA_TRUSTED_PROXIES", value_name = "CIDR,…")]
    pub trusted_proxies: Option<Networks>,
}

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap servers, separated by commas
    #[arg(long, env = "ZIM2KAFKA_KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub kafka_brokers: Option<String>,
    /// A file of librdkafka properties, besides ZIM2KAFKA_KAFKA_PROPERTIES
    #[arg(long, env = "ZIM2KAFKA_KAFKA_PROPERTIES_FILE", value_name = "FILE")]
    pub kafka_properties_file: Option<PathBuf>,
    /// The topic of events
    #[arg(
        long,
        env = "ZIM2KAFKA_TOPIC",
        value_name = "TOPIC",
        default_value = "zim.group-joined"
    )]
    pub topic: String,
    /// The topic of what is authentic but not publishable
    #[arg(
        long,
        env = "ZIM2KAFKA_DEAD_LETTER_TOPIC",
        value_name = "TOPIC",
        default_value = "zim.dead-letter"
    )]
    pub dead_letter_topic: String,
}

/// How missing topics are created.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct TopicArgs {
    /// Create missing topics at start
    #[arg(
        long,
        env = "ZIM2KAFKA_CREATE_TOPICS",
        value_name = "true|false",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub create_topics: bool,
    /// Partitions of a topic that is created
    #[arg(long, env = "ZIM2KAFKA_TOPIC_PARTITIONS", value_name = "N", default_value = "12",
          value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,
    /// Replicas of a topic that is created [default: the broker's]
    #[arg(long, env = "ZIM2KAFKA_TOPIC_REPLICATION", value_name = "N",
          value_parser = clap::value_parser!(i32).range(1..=100))]
    pub topic_replication: Option<i32>,
}

/// What is made safe on disk while Kafka is late.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Spool")]
pub struct SpoolArgs {
    /// Folder of the spool, on a disk that stays; without one, an event that Kafka does not take in time is answered 503
    #[arg(long, env = "ZIM2KAFKA_SPOOL_DIR", value_name = "FOLDER")]
    pub spool_dir: Option<PathBuf>,
    /// What the spool may use on disk; over it new events are answered 503
    #[arg(
        long,
        env = "ZIM2KAFKA_SPOOL_MAX_BYTES",
        value_name = "SIZE",
        default_value = "1GiB"
    )]
    pub spool_max_bytes: Size,
    /// How long Kafka may take before an event is also made safe on disk
    #[arg(
        long,
        env = "ZIM2KAFKA_SPOOL_AFTER",
        value_name = "DURATION",
        default_value = "250ms"
    )]
    pub spool_after: Time,
}

/// How long things may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Deadlines")]
pub struct DeadlineArgs {
    /// Every callback is answered within it, counted from the last byte of its body
    #[arg(
        long,
        env = "ZIM2KAFKA_ANSWER_DEADLINE",
        value_name = "DURATION",
        default_value = "2s"
    )]
    pub answer_deadline: Time,
    /// At a stop: still accepting, but not ready
    #[arg(
        long,
        env = "ZIM2KAFKA_DRAIN_DELAY",
        value_name = "DURATION",
        default_value = "3s"
    )]
    pub drain_delay: Time,
    /// At a stop: all in all
    #[arg(
        long,
        env = "ZIM2KAFKA_STOP_DEADLINE",
        value_name = "DURATION",
        default_value = "8s"
    )]
    pub stop_deadline: Time,
}

/// What is logged, to stderr.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Filter directives, such as `warn` or `info,zim2kafka::delivery=debug`
    #[arg(
        long,
        env = "ZIM2KAFKA_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    pub log: String,
    /// text for people, json for machines
    #[arg(
        long,
        env = "ZIM2KAFKA_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A duration as `250ms` or `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A duration, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance(pub Option<Duration>);

/// A number from 1 on, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtMost(pub Option<usize>);

/// A size as `512KiB`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration: jiff::SignedDuration = text
            .parse()
            .map_err(|_| "write a duration as 250ms, 2s or 5m".to_owned())?;
        Duration::try_from(duration)
            .map(Self)
            .map_err(|_| "a duration cannot be negative".to_owned())
    }
}

impl FromStr for Tolerance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let Time(duration) = text.parse()?;
        Ok(Self(Some(duration)))
    }
}

impl FromStr for AtMost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number @ 1..) => Ok(Self(Some(number))),
            _ if text == "off" => Ok(Self(None)),
            _ => Err("write a number from 1 on, or off"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size: bytesize::ByteSize = text
            .parse()
            .map_err(|_| "write a size as 512KiB or 500000".to_owned())?;
        usize::try_from(size.as_u64())
            .map(Self)
            .map_err(|_| "the size is too large for this machine".to_owned())
    }
}
