//! The flags with their variables and defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::addresses::{admin_address, callback_address};
use super::callbacks::{before_send, before_send_reason};
use super::registry::RegistryArgs;
use super::values::{
    OrOff, boolean, duration_in, log_filter, log_format, networks, number_in, or_off, path,
    size_in, text, timestamp_unit, value,
};
use crate::callback::TimestampUnit;
use crate::event::MAX_RECORD_BYTES;
use crate::http::{BeforeSend, Networks};

/// The longest deadline.
const DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// The longest drain delay, so that a stop deadline can be longer.
const DRAIN_DELAY_MAX: Duration = Duration::from_secs(3540);

/// The shortest deadline.
const DEADLINE_MIN: Duration = Duration::from_millis(1);

/// The lowest limit of bodies: less than the shortest real callbacks.
const BODY_LIMIT_MIN: usize = 1024;

/// The lowest limit of the spool: enough for SQLite's own pages and a few records of the largest
/// size.
const SPOOL_MAX_BYTES_MIN: usize = 4 * 1024 * 1024;

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
    pub registry: RegistryArgs,
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
        default_value = "0.0.0.0:8080",
        value_parser = value(callback_address)
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
        default_value = "127.0.0.1:9464",
        value_parser = value(admin_address)
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
        default_value = "/callbacks/zim",
        value_parser = value(text)
    )]
    pub callback_path: String,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would replace the help of the flattened part"
    )]
    pub secrets: SecretsArgs,
    /// Unit of the sender's timestamps: auto, s or ms
    #[arg(
        long,
        env = "ZIM2KAFKA_TIMESTAMP_UNIT",
        value_name = "UNIT",
        default_value = "auto",
        value_parser = value(timestamp_unit)
    )]
    pub timestamp_unit: TimestampUnit,
    /// Callbacks older or newer than this become dead letters; off accepts any age
    #[arg(
        long,
        env = "ZIM2KAFKA_TIMESTAMP_TOLERANCE",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = value(or_off(duration_in(DEADLINE_MIN..=Duration::MAX, "10m")))
    )]
    pub timestamp_tolerance: OrOff<Duration>,
    /// Fields to leave out of records: content (what people and apps wrote), user_name, extra, or
    /// single fields such as msg_body
    #[arg(long, env = "ZIM2KAFKA_OMIT", value_name = "NAME,…", value_parser = value(text))]
    pub omit: Option<String>,
    /// Largest body; a larger one is answered 413; from 1KiB to 900000 bytes
    #[arg(
        long,
        env = "ZIM2KAFKA_BODY_LIMIT",
        value_name = "SIZE",
        default_value = "512KiB",
        value_parser = value(size_in(BODY_LIMIT_MIN..=MAX_RECORD_BYTES, "512KiB"))
    )]
    pub body_limit: usize,
    /// Answer to before_send_msg: neutral (result 0), send (1: overrides ZEGOCLOUD's own content
    /// moderation) or refuse (3: no chat message is sent)
    #[arg(
        long,
        env = "ZIM2KAFKA_BEFORE_SEND",
        value_name = "ANSWER",
        default_value = "neutral",
        value_parser = value(before_send)
    )]
    pub before_send: BeforeSend,
    /// Text that the sender's client shows for a refused message; at most 256 characters
    /// [default: none]
    #[arg(
        long,
        env = "ZIM2KAFKA_BEFORE_SEND_REASON",
        value_name = "TEXT",
        value_parser = value(before_send_reason)
    )]
    pub before_send_reason: Option<String>,
}

impl fmt::Debug for CallbackArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path may hold a secret.
        f.debug_struct("CallbackArgs").finish_non_exhaustive()
    }
}

/// The file of secrets.
#[derive(Debug, Clone, Args)]
pub struct SecretsArgs {
    /// File of `appid=secret` lines, instead of ZIM2KAFKA_CALLBACK_SECRETS
    #[arg(long, env = "ZIM2KAFKA_CALLBACK_SECRETS_FILE", value_name = "FILE", value_parser = path())]
    pub callback_secrets_file: Option<PathBuf>,
}

/// Which clients may connect to the callback port, and for how long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionArgs {
    /// Most connections on the callback port; beyond it, idle ones are closed first
    #[arg(long, env = "ZIM2KAFKA_MAX_CONNECTIONS", value_name = "N", default_value = "4096",
          value_parser = value(number_in(1..=1_000_000_u32, 4096)))]
    pub max_connections: u32,
    /// Most connections from one address, trusted proxies excepted; off for no limit
    #[arg(
        long,
        env = "ZIM2KAFKA_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value = "off",
        value_parser = value(or_off(number_in(1..=1_000_000_usize, 100)))
    )]
    pub max_connections_per_address: OrOff<usize>,
    /// How long a kept-alive connection may be idle; set it longer than the load balancer's timeout
    #[arg(
        long,
        env = "ZIM2KAFKA_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "75s",
        value_parser = value(duration_in(DEADLINE_MIN..=DEADLINE_MAX, "75s"))
    )]
    pub idle_timeout: Duration,
    /// PEM file with the certificate and its chain: HTTPS on the callback port
    #[arg(long, env = "ZIM2KAFKA_TLS_CERT", value_name = "FILE", value_parser = path())]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's key
    #[arg(long, env = "ZIM2KAFKA_TLS_KEY", value_name = "FILE", value_parser = path())]
    pub tls_key: Option<PathBuf>,
    /// Networks that callbacks may come from; others are answered 403 [default: all]
    #[arg(long, env = "ZIM2KAFKA_ALLOWED_NETWORKS", value_name = "CIDR,…", value_parser = value(networks))]
    pub allowed_networks: Option<Networks>,
    /// Proxies whose X-Forwarded-For is trusted [default: none]
    #[arg(long, env = "ZIM2KAFKA_TRUSTED_PROXIES", value_name = "CIDR,…", value_parser = value(networks))]
    pub trusted_proxies: Option<Networks>,
}

/// The brokers and topics.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap servers, separated by commas
    #[arg(long, env = "ZIM2KAFKA_KAFKA_BROKERS", value_name = "HOST:PORT,…", value_parser = value(text))]
    pub kafka_brokers: Option<String>,
    /// File of librdkafka properties, besides those of ZIM2KAFKA_KAFKA_PROPERTIES; a property in
    /// both is an error
    #[arg(long, env = "ZIM2KAFKA_KAFKA_PROPERTIES_FILE", value_name = "FILE", value_parser = path())]
    pub kafka_properties_file: Option<PathBuf>,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would replace the help of the flattened part"
    )]
    pub topic: TopicArg,
    /// Topics of events, as a list of name=topic. A name is a family (group, room, message, call,
    /// user) or an event; write dead-letter or discard instead of a topic for events that are not
    /// published. all stands for group=zim.group,room=zim.room and so on, a topic for each family,
    /// and exceptions may follow it
    #[arg(long, env = "ZIM2KAFKA_TOPICS", value_name = "NAME=TOPIC,…", value_parser = value(text))]
    pub topics: Option<String>,
    /// Topic of authentic callbacks that cannot be published as events
    #[arg(
        long,
        env = "ZIM2KAFKA_DEAD_LETTER_TOPIC",
        value_name = "TOPIC",
        default_value = "zim.dead-letter",
        value_parser = value(text)
    )]
    pub dead_letter_topic: String,
}

/// The topic of `group_join`.
#[derive(Debug, Clone)]
pub struct TopicArg {
    /// The topic.
    pub name: String,
    /// Whether it is set. ZIM2KAFKA_TOPICS takes precedence over the default only.
    pub is_given: bool,
    /// Whether it is set by its flag.
    pub is_flag: bool,
}

#[derive(Debug, Args)]
struct TopicText {
    /// Topic of group_join
    #[arg(
        long,
        env = "ZIM2KAFKA_TOPIC",
        value_name = "TOPIC",
        default_value = "zim.group-joined",
        value_parser = value(text)
    )]
    topic: String,
}

impl Args for TopicArg {
    fn augment_args(command: Command) -> Command {
        TopicText::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        TopicText::augment_args_for_update(command)
    }
}

impl FromArgMatches for TopicArg {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let TopicText { topic } = TopicText::from_arg_matches(matches)?;
        let source = matches.value_source("topic");
        Ok(Self {
            name: topic,
            is_given: source.is_some_and(|source| source != ValueSource::DefaultValue),
            is_flag: source == Some(ValueSource::CommandLine),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
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
        action = clap::ArgAction::Set,
        value_parser = value(boolean)
    )]
    pub create_topics: bool,
    /// Partitions of a created topic
    #[arg(long, env = "ZIM2KAFKA_TOPIC_PARTITIONS", value_name = "N", default_value = "12",
          value_parser = value(number_in(1..=10_000_i32, 12)))]
    pub topic_partitions: i32,
    /// Replication factor of a created topic [default: the broker's]
    #[arg(long, env = "ZIM2KAFKA_TOPIC_REPLICATION", value_name = "N",
          value_parser = value(number_in(1..=100_i32, 3)))]
    pub topic_replication: Option<i32>,
}

/// Where events are stored while Kafka is late.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Spool")]
pub struct SpoolArgs {
    /// Folder of the spool, on a persistent disk; without it, an event that Kafka does not take in
    /// time is answered 503
    #[arg(long, env = "ZIM2KAFKA_SPOOL_DIR", value_name = "FOLDER", value_parser = path())]
    pub spool_dir: Option<PathBuf>,
    /// Most bytes that the spool may use; beyond it new events are answered 503
    #[arg(
        long,
        env = "ZIM2KAFKA_SPOOL_MAX_BYTES",
        value_name = "SIZE",
        default_value = "1GiB",
        value_parser = value(size_in(SPOOL_MAX_BYTES_MIN..=usize::MAX, "1GiB"))
    )]
    pub spool_max_bytes: usize,
    /// How long Kafka may take before an event is also written to disk
    #[arg(
        long,
        env = "ZIM2KAFKA_SPOOL_AFTER",
        value_name = "DURATION",
        default_value = "250ms",
        value_parser = value(duration_in(Duration::ZERO..=DEADLINE_MAX, "250ms"))
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
        value_parser = value(duration_in(DEADLINE_MIN..=DEADLINE_MAX, "2s"))
    )]
    pub answer_deadline: Duration,
    /// At shutdown: how long to go on accepting callbacks while not ready
    #[arg(
        long,
        env = "ZIM2KAFKA_DRAIN_DELAY",
        value_name = "DURATION",
        default_value = "3s",
        value_parser = value(duration_in(Duration::ZERO..=DRAIN_DELAY_MAX, "3s"))
    )]
    pub drain_delay: Duration,
    /// Total time allowed for shutdown
    #[arg(
        long,
        env = "ZIM2KAFKA_STOP_DEADLINE",
        value_name = "DURATION",
        default_value = "8s",
        value_parser = value(duration_in(DEADLINE_MIN..=DEADLINE_MAX, "8s"))
    )]
    pub stop_deadline: Duration,
}

/// What is logged to stderr.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// A level (error, warn, info, debug, trace or off), and levels of single targets, such as
    /// `info,zim2kafka::delivery=debug`. `info,zim2kafka::access=debug` logs each callback
    #[arg(
        long,
        env = "ZIM2KAFKA_LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = value(log_filter),
        global = true
    )]
    pub log: String,
    /// Format of the log: text or json
    #[arg(
        long,
        env = "ZIM2KAFKA_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        value_parser = value(log_format),
        global = true
    )]
    pub log_format: LogFormat,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}
