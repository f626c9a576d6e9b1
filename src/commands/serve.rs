//! `serve`: the service.

use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Failure, Stop, blocking};
use crate::config::{self, ConnectionArgs, ListenArgs, ServeArgs};
use crate::finding::Finding;
use crate::http::{ConnectionLimits, MAX_ADMIN_CONNECTIONS};
use crate::kafka::EmbeddedKafka;
use crate::reload::Reload;
use crate::server::{self, Listeners, ServerSettings};
use crate::spool::{self, Spool, SpoolSettings};

/// The flags of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// Start an in-memory Kafka in this process instead of connecting to brokers; for trials only
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
    // Before the ports are bound: an older process may still have both, and only the spool is
    // waited for.
    if let Some(spool) = serve.spool.settings(&serve.deadlines)? {
        tokio::select! {
            spool = open_spool(spool) => settings.spool = Some(spool?),
            () = stop.first() => return Ok(()),
        }
    }
    let listeners = listen(&serve.listen)?;
    log_start(&serve, &settings, embedded.as_ref(), &listeners)?;
    server::run(settings, listeners, stop.first()).await?;
    Ok(())
}

async fn open_spool(settings: SpoolSettings) -> Result<Spool, Failure> {
    spool::inspect(&settings).iter().for_each(Finding::log);
    let open = move || {
        Spool::open(&settings, &|_| {}).map_err(|source| Failure::Spool {
            folder: settings.folder,
            source,
        })
    };
    blocking(open).await?
}

/// Starts a Kafka in this process, with both topics.
pub(super) fn embed(serve: &ServeArgs) -> Result<EmbeddedKafka, Failure> {
    // The embedded Kafka would accept topic names that a real one does not.
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
    let callbacks = serve
        .callback
        .callback_settings(&serve.deadlines, &serve.connections)?;
    let (secrets, secrets_file) = config::secrets(serve.callback.callback_secrets_file.as_deref())?;
    let (certificate, certificate_files) = serve.connections.certificate()?.unzip();
    Ok(ServerSettings {
        callbacks,
        connections: connections(&serve.connections)?,
        certificate,
        reload: Reload {
            secrets: secrets_file,
            certificate: certificate_files,
            requests: Some(stop.hangups()),
        },
        intake: serve.callback.intake(secrets),
        kafka,
        spool: None,
        inspect_topics: embedded.is_none(),
        drain_delay: serve.deadlines.drain_delay,
        stop_deadline: serve.deadlines.stop_deadline,
    })
}

/// Open files apart from the callback port's connections: those of the admin port, Kafka and the
/// spool.
const OTHER_OPEN_FILES: u64 = MAX_ADMIN_CONNECTIONS as u64 + 256;

/// The limits of connections, for which the limit of open files is raised. If that is not possible,
/// fewer connections are allowed: one that cannot be accepted is worse than one that waits for its
/// slot.
pub(super) fn connections(arguments: &ConnectionArgs) -> Result<ConnectionLimits, Failure> {
    let mut limits = arguments.limits()?;
    let wanted = limits.connections as u64 + OTHER_OPEN_FILES;
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
        let fewer = files.saturating_sub(OTHER_OPEN_FILES).max(1);
        limits.connections = usize::try_from(fewer).unwrap_or(usize::MAX);
        tracing::warn!(
            "ZIM2KAFKA_MAX_CONNECTIONS: only {fewer} connections are allowed, because this process may open only {files} files; raise the hard limit (ulimit -Hn) to {wanted}"
        );
    }
    Ok(limits)
}

/// Binds both ports, so that a port that is taken is an error at once.
pub(super) fn listen(listen: &ListenArgs) -> Result<Listeners, Failure> {
    Ok(Listeners {
        callbacks: bind("ZIM2KAFKA_LISTEN", listen.listen)?,
        admin: bind("ZIM2KAFKA_ADMIN_LISTEN", listen.admin.admin_listen)?,
    })
}

fn bind(variable: &'static str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|source| Failure::Listen {
        address,
        variable,
        source,
    })
}

/// The address of a port. If port 0 was asked for, the system has chosen one.
pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::System("cannot determine the address of a port", error))
}

fn log_start(
    serve: &ServeArgs,
    settings: &ServerSettings,
    embedded: Option<&EmbeddedKafka>,
    listeners: &Listeners,
) -> Result<(), Failure> {
    // The path is not logged, because it may contain a secret segment.
    // As fields, because programs that start the service with port 0 read the addresses.
    tracing::info!(
        callbacks = %address(&listeners.callbacks)?,
        admin = %address(&listeners.admin)?,
        topic = serve.kafka.topic,
        "zim2kafka {} is listening", env!("CARGO_PKG_VERSION")
    );
    if let Some(kafka) = embedded {
        tracing::warn!(
            "the embedded Kafka at {} is for trials only: reachable from this machine, in memory, keeps the last 5 MiB of a partition",
            kafka.brokers()
        );
    }
    match &settings.spool {
        Some(spool) => log_backlog(spool),
        None => tracing::warn!(
            "ZIM2KAFKA_SPOOL_DIR is not set, so there is no spool: an event that Kafka does not take within {:?} is answered 503. The sender retries for 62 s, so a longer outage of Kafka loses events",
            serve.deadlines.answer_deadline
        ),
    }
    Ok(())
}

fn log_backlog(spool: &Spool) {
    let (records, _) = spool.records();
    if records > 0 {
        tracing::info!(
            "the spool holds {records} records of an earlier run; publishing them first"
        );
    }
}
