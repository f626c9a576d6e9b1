//! The flags with their variables and defaults, and the syntax of their values.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::callback::TimestampUnit;
use crate::http::Networks;

#[derive(Debug, Clone, Args)]
#[expect(
    missing_docs,
    reason = "a doc comment here would replace the help of the command"
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
#[expect(
    missing_docs,
    reason = "a doc comment here would replace the help of the flattened part"
)]
pub struct ListenArgs {
    /// Address of the callback port
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
    /// Address of the admin port: metrics, health and status page
    #[arg(
        long,
        env = "ZIM2KAFKA_ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9464"
    )]
    pub admin_listen: SocketAddr,
}

/// Which callbacks are accepted.
#[derive(Clone, Args)]
#[command(next_help_heading = "Callbacks")]
pub struct CallbackArgs {
    /// Path that the sender posts to; may contain an unguessable segment
    #[arg(
        long,
        env = "ZIM2KAFKA_CALLBACK_PATH",
        value_name = "PATH",
        default_value = "/callbacks/zim"
    )]
    pub callback_path: String,
    /// File of `appid=secret` lines, instead of ZIM2KAFKA_CALLBACK_SECRETS
    #[arg(long, env = "ZIM2KAFKA_CALLBACK_SECRETS_FILE", value_name = "FILE")]
    pub callback_secrets_file: Option<PathBuf>,
    /// Unit of the sender's timestamps: auto, s or ms
    #[arg(
        long,
        env = "ZIM2KAFKA_TIMESTAMP_UNIT",
        value_name = "UNIT",
        default_value = "auto"
    )]
    pub timestamp_unit: TimestampUnit,
    /// Callbacks older or newer than this become dead letters; off accepts any age
    #[arg(
        long,
        env = "ZIM2KAFKA_TIMESTAMP_TOLERANCE",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = duration_or_off
    )]
    pub timestamp_tolerance: OrOff<Duration>,
    /// Largest body; a larger one is answered 413; at most 900000 bytes
    #[arg(
        long,
        env = "ZIM2KAFKA_BODY_LIMIT",
        value_name = "SIZE",
        default_value = "512KiB",
        value_parser = size
    )]
    pub body_limit: usize,
}

impl fmt::Debug for CallbackArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path may hold a secret.
        f.debug_struct("CallbackArgs").finish_non_exhaustive()
    }
}

/// Which clients may connect to the callback port, and for how long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionArgs {
    /// Most connections on the callback port; beyond it, idle ones are closed first
    #[arg(long, env = "ZIM2KAFKA_MAX_CONNECTIONS", value_name = "N", default_value = "4096",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Most connections from one address, trusted proxies excepted; off for no limit
    #[arg(
        long,
        env = "ZIM2KAFKA_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value = "off",
        value_parser = number_or_off
    )]
    pub max_connections_per_address: OrOff<usize>,
    /// How long a kept-alive connection may be idle; set it longer than the load balancer's timeout
    #[arg(
        long,
        env = "ZIM2KAFKA_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "75s",
        value_parser = duration
    )]
    pub idle_timeout: Duration,
    /// PEM file with the certificate and its chain: HTTPS on the callback port
    #[arg(long, env = "ZIM2KAFKA_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's key
    #[arg(long, env = "ZIM2KAFKA_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Networks that callbacks may come from; others are answered 403 [default: all]
    #[arg(long, env = "ZIM2KAFKA_ALLOWED_NETWORKS", value_name = "CIDR,…")]
    pub allowed_networks: Option<Networks>,
    /// Proxies whose X-Forwarded-For is trusted [default: none]
    #[arg(long, env = "ZIM2KAFKA_TRUSTED_PROXIES", value_name = "CIDR,…")]
    pub trusted_proxies: Option<Networks>,
}

/// The brokers and topics.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap servers, separated by commas
    #[arg(long, env = "ZIM2KAFKA_KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub kafka_brokers: Option<String>,
    /// File of librdkafka properties, instead of ZIM2KAFKA_KAFKA_PROPERTIES
    #[arg(long, env = "ZIM2KAFKA_KAFKA_PROPERTIES_FILE", value_name = "FILE")]
    pub kafka_properties_file: Option<PathBuf>,
    /// Topic of events
    #[arg(
        long,
        env = "ZIM2KAFKA_TOPIC",
        value_name = "TOPIC",
        default_value = "zim.group-joined"
    )]
    pub topic: String,
    /// Topic of authentic callbacks that cannot be published as events
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
    /// Partitions of a created topic
    #[arg(long, env = "ZIM2KAFKA_TOPIC_PARTITIONS", value_name = "N", default_value = "12",
          value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,
    /// Replication factor of a created topic [default: the broker's]
    #[arg(long, env = "ZIM2KAFKA_TOPIC_REPLICATION", value_name = "N",
          value_parser = clap::value_parser!(i32).range(1..=100))]
    pub topic_replication: Option<i32>,
}

/// Where events are stored while Kafka is late.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Spool")]
pub struct SpoolArgs {
    /// Folder of the spool, on a persistent disk; without it, an event that Kafka does not take in
    /// time is answered 503
    #[arg(long, env = "ZIM2KAFKA_SPOOL_DIR", value_name = "FOLDER")]
    pub spool_dir: Option<PathBuf>,
    /// Most bytes that the spool may use; beyond it new events are answered 503
    #[arg(
        long,
        env = "ZIM2KAFKA_SPOOL_MAX_BYTES",
        value_name = "SIZE",
        default_value = "1GiB",
        value_parser = size
    )]
    pub spool_max_bytes: usize,
    /// How long Kafka may take before an event is also written to disk
    #[arg(
        long,
        env = "ZIM2KAFKA_SPOOL_AFTER",
        value_name = "DURATION",
        default_value = "250ms",
        value_parser = duration
    )]
    pub spool_after: Duration,
}

/// The deadlines.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Deadlines")]
pub struct DeadlineArgs {
    /// Every callback is answered within this time, counted from the last byte of its body
    #[arg(
        long,
        env = "ZIM2KAFKA_ANSWER_DEADLINE",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration
    )]
    pub answer_deadline: Duration,
    /// At shutdown: how long to go on accepting callbacks while not ready
    #[arg(
        long,
        env = "ZIM2KAFKA_DRAIN_DELAY",
        value_name = "DURATION",
        default_value = "3s",
        value_parser = duration
    )]
    pub drain_delay: Duration,
    /// Total time allowed for shutdown
    #[arg(
        long,
        env = "ZIM2KAFKA_STOP_DEADLINE",
        value_name = "DURATION",
        default_value = "8s",
        value_parser = duration
    )]
    pub stop_deadline: Duration,
}

/// What is logged to stderr.
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
    /// Format of the log: text or json
    #[arg(
        long,
        env = "ZIM2KAFKA_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// An option that is written as a value or `off`. The alias hides it from clap, which would take an
/// `Option` for a flag that can be left out.
pub(super) type OrOff<T> = Option<T>;

/// Parses a duration such as `250ms` or `5m`.
///
/// # Errors
///
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a duration as 250ms, 2s or 5m".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

pub(super) fn duration_or_off(text: &str) -> Result<OrOff<Duration>, String> {
    match text {
        "off" => Ok(None),
        text => duration(text).map(Some),
    }
}

fn number_or_off(text: &str) -> Result<OrOff<usize>, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(Some(number)),
        _ if text == "off" => Ok(None),
        _ => Err("write a number from 1 on, or off".to_owned()),
    }
}

/// Parses a size such as `512KiB`, in bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let size: bytesize::ByteSize = text
        .parse()
        .map_err(|_| "write a size as 512KiB or 500000".to_owned())?;
    usize::try_from(size.as_u64()).map_err(|_| "the size is too large for this machine".to_owned())
}
