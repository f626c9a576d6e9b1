//! `serve`: the service.

use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Failure, Stop};
use crate::config::{self, ConnectionArgs, ListenArgs, ServeArgs};
use crate::delivery::kafka::EmbeddedKafka;
use crate::delivery::{Finding, Spool, SpoolSettings, inspect_spool};
use crate::http::{ConnectionLimits, MAX_ADMIN_CONNECTIONS};
use crate::reload::Reload;
use crate::server::{self, Listeners, ServerSettings};

/// The flags of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// Start a Kafka in this process, in memory, instead of connecting to brokers: for trying out
    #[arg(long)]
    embedded_kafka: bool,
}

pub(super) async fn run(args: Args, stop: &Stop) -> Result<(), Failure> {
    let Args {
        serve,
        embedded_kafka,
    } = args;
    let embedded = embedded_kafka.then(|| embed(&serve)).transpose()?;
    let mut settings = settings(&serve, embedded.as_ref(), stop)?;
    // Before the ports are bound: where an older process still has both, the spool is waited for.
    if let Some(spool) = serve.spool.settings(&serve.deadlines)? {
        tokio::select! {
            spool = open(spool) => settings.spool = Some(spool?),
            () = stop.first() => return Ok(()),
        }
    }
    let listeners = listen(&serve.listen)?;
    announce(&serve, &settings, embedded.as_ref(), &listeners)?;
    server::run(settings, listeners, stop.first()).await?;
    Ok(())
}

async fn open(settings: SpoolSettings) -> Result<Spool, Failure> {
    inspect_spool(&settings).iter().for_each(Finding::log);
    let open = move || Spool::open(&settings).map_err(|error| (settings.folder, error));
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| Failure::Failed(error.to_string()))?;
    opened.map_err(|(folder, error)| {
        Failure::Failed(format!(
            "ZIM2KAFKA_SPOOL_DIR: the spool in {} cannot be used: {error}",
            folder.display()
        ))
    })
}

/// Starts a Kafka in this process, with our two topics.
pub(super) fn embed(serve: &ServeArgs) -> Result<EmbeddedKafka, Failure> {
    // Names that no Kafka would take are refused before they meet one that would.
    let settings = serve.kafka.settings_with("embedded", None)?;
    let topics = [settings.topic.as_str(), settings.dead_letter_topic.as_str()];
    Ok(EmbeddedKafka::start(
        &topics,
        serve.topics.topic_partitions,
    )?)
}

fn settings(
    serve: &ServeArgs,
    embedded: Option<&EmbeddedKafka>,
    stop: &Stop,
) -> Result<ServerSettings, Failure> {
    let kafka = match embedded {
        Some(kafka) => serve.kafka.settings_with(kafka.brokers(), None)?,
        None => serve.kafka.settings(Some(&serve.topics))?,
    };
    let callbacks = serve.callback.edge(&serve.deadlines, &serve.connections)?;
    let (secrets, secrets_file) = config::secrets(serve.callback.callback_secrets_file.as_deref())?;
    let (certificate, certificate_files) = serve.connections.certificate()?.unzip();
    Ok(ServerSettings {
        callbacks,
        connections: connections(&serve.connections)?,
        certificate,
        reload: Reload {
            secrets: secrets_file,
            certificate: certificate_files,
            asked: Some(stop.hangups()),
        },
        intake: serve.callback.intake(secrets),
        kafka,
        spool: None,
        inspect_topics: embedded.is_none(),
        drain_delay: serve.deadlines.drain_delay.0,
        stop_deadline: serve.deadlines.stop_deadline.0,
    })
}

/// Files that are open besides the callback port's connections: the admin port's, Kafka's, the spool's.
const OTHER_FILES: u64 = MAX_ADMIN_CONNECTIONS as u64 + 256;

/// The limits of connections, for which the limit of open files is raised. Where it cannot be, there are
/// fewer: a connection that cannot be accepted is worse than one that waits for its place.
pub(super) fn connections(arguments: &ConnectionArgs) -> Result<ConnectionLimits, Failure> {
    let mut limits = arguments.limits()?;
    let wanted = limits.connections as u64 + OTHER_FILES;
    let rlimit = getrlimit(Resource::Nofile);
    let hard = rlimit.maximum.unwrap_or(u64::MAX);
    let current = rlimit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Ok(limits);
    }
    let raised = Rlimit {
        current: Some(wanted.min(hard)),
        maximum: rlimit.maximum,
    };
    let files = setrlimit(Resource::Nofile, raised).map_or(current, |()| wanted.min(hard));
    if files < wanted {
        let fewer = files.saturating_sub(OTHER_FILES).max(1);
        limits.connections = usize::try_from(fewer).unwrap_or(usize::MAX);
        tracing::warn!(
            "ZIM2KAFKA_MAX_CONNECTIONS: only {fewer} connections at once, since no more than {files} files may be open; raise the hard limit (ulimit -Hn) to {wanted}"
        );
    }
    Ok(limits)
}

/// Binds both ports, so that one that is taken is said at once.
pub(super) fn listen(listen: &ListenArgs) -> Result<Listeners, Failure> {
    Ok(Listeners {
        callbacks: bind("ZIM2KAFKA_LISTEN", listen.listen)?,
        admin: bind("ZIM2KAFKA_ADMIN_LISTEN", listen.admin.admin_listen)?,
    })
}

fn bind(variable: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {address}: {error}; free the port or set {variable} to another"
        ))
    })
}

/// Where a port really is: asked for port 0, the system chose one.
pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::Failed(error.to_string()))
}

fn announce(
    serve: &ServeArgs,
    settings: &ServerSettings,
    embedded: Option<&EmbeddedKafka>,
    listeners: &Listeners,
) -> Result<(), Failure> {
    // The path is not shown: it may hold a secret segment.
    tracing::info!(
        callbacks = %address(&listeners.callbacks)?,
        admin = %address(&listeners.admin)?,
        topic = serve.kafka.topic,
        "zim2kafka {} is listening", env!("CARGO_PKG_VERSION")
    );
    if let Some(kafka) = embedded {
        tracing::warn!(
            brokers = kafka.brokers(),
            "the embedded Kafka is for trying out: on this machine only, in memory only, the last 5 MiB a partition"
        );
    }
    match &settings.spool {
        Some(spool) => say_what_is_left(spool),
        None => tracing::warn!(
            "ZIM2KAFKA_SPOOL_DIR is not set, so there is no spool: an event that Kafka does not take within {:?} is answered 503. The sender tries for 62 s, so a longer outage of Kafka loses events",
            serve.deadlines.answer_deadline.0
        ),
    }
    Ok(())
}

fn say_what_is_left(spool: &Spool) {
    let (records, _) = spool.records();
    if records > 0 {
        tracing::info!(
            records,
            "the spool holds records of an earlier run; they go first"
        );
    }
}
