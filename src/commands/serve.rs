//! `serve`: the service.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::shown::shown;
use super::{Failure, ListenError, Stop, blocking, read_settings};
use crate::config::{self, ConnectionArgs, Faults, ListenArgs, ServeArgs, Setting};
use crate::delivery::{FEW_OPEN_FILES, max_kafka_files};
use crate::event::{EVENTS, Kind, Omit, Routes};
use crate::finding::Finding;
use crate::http::{ConnectionLimits, MAX_ADMIN_CONNECTIONS};
use crate::kafka::{EmbeddedKafka, KafkaSettings, judge_routes};
use crate::reload::Reload;
use crate::server::{self, Listeners, ServerError, ServerSettings};
use crate::spool::{self, SpoolSettings};

/// The beginning of `serve --help`.
pub(super) const LONG_ABOUT: &str = "\
Run the service

Three settings are all that it needs:

  ZIM2KAFKA_CALLBACK_SECRETS  appid=secret, the CallbackSecret of your app from
                              ZEGOCLOUD's console; a variable only
  --kafka-brokers             your Kafka, as host:port,host:port
  --spool-dir                 a folder on a persistent disk, for events that
                              Kafka does not take in time

In production:

  ZIM2KAFKA_CALLBACK_SECRETS=1234567890=YOUR-SECRET zim2kafka serve \\
      --kafka-brokers kafka-1:9092,kafka-2:9092 --topics all \\
      --spool-dir /var/lib/zim2kafka

To try it out, with an in-memory Kafka and the topics of all events:

  ZIM2KAFKA_CALLBACK_SECRETS=1=secret zim2kafka serve \\
      --embedded-kafka --topics all

Without --topics only group_join is published. `zim2kafka check` with the same
settings finds faults before callbacks come. -h shows the most used settings.";

/// The flags of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Start an in-memory Kafka in this process instead of connecting to brokers; for trials only
    #[arg(long)]
    embedded_kafka: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) async fn run(
    args: Args,
    faults: Faults,
    in_force: Vec<Setting>,
    stop: &Stop,
) -> Result<(), Failure> {
    let Args {
        embedded_kafka,
        serve,
    } = args;
    let (arguments, hangups) = (serve.clone(), stop.hangups());
    let read = move || settings(&arguments, embedded_kafka, faults, hangups);
    let Some(mut settings) = read_settings(stop, read).await? else {
        return Ok(());
    };
    settings.shown = shown(in_force, &settings.kafka.properties);
    let embedded = embedded_kafka.then(|| embed(&mut settings.kafka, &serve));
    let embedded = embedded.transpose()?;
    let listeners = match &settings.spool {
        None => listen(&serve.listen)?,
        Some(spool) => tokio::select! {
            listeners = take_over(&serve.listen, spool) => listeners?,
            () = stop.first() => return Ok(()),
        },
    };
    let [callbacks, admin] = [&listeners.callbacks, &listeners.admin].map(address);
    let (callbacks, admin) = (callbacks?, admin?);
    if let Some(spool) = &settings.spool {
        tracing::info!(
            %admin,
            "opening the spool in {}; until then only the admin port answers",
            spool.folder.display()
        );
    }
    let routes = settings.kafka.routes.clone();
    let message_topics = topics_with_message_text(&routes, &settings.intake.omit);
    let on_listening = || {
        log_start(&serve, &routes, embedded.as_ref(), callbacks, admin);
        if !message_topics.is_empty() {
            tracing::info!(
                "the text of chat messages is published to {}; ZIM2KAFKA_OMIT=content leaves it out",
                message_topics.join(", ")
            );
        }
    };
    server::run(settings, listeners, on_listening, stop.first()).await?;
    Ok(())
}

/// Binds both ports for a service with a spool. An older process of this service may still have
/// them, as in a restart that overlaps. It has the spool too, so that is waited for. If another
/// program has them, this fails after a second.
async fn take_over(listen: &ListenArgs, spool: &SpoolSettings) -> Result<Listeners, Failure> {
    match bind_both(listen) {
        Err(Failure::Listen(errors)) if errors.iter().all(ListenError::is_in_use) => {}
        bound => return bound,
    }
    let settings = spool.clone();
    let released = blocking(move || spool::wait_until_released(&settings)).await?;
    released.map_err(|source| ServerError::OpenSpool {
        folder: spool.folder.clone(),
        source,
    })?;
    // The system may release the spool of a killed process a moment before its ports.
    let deadline = Instant::now() + PORT_RELEASE_TIME;
    loop {
        match bind_both(listen) {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(PORT_RETRY_PAUSE).await,
            bound => return bound,
        }
    }
}

/// How long a process that has released the spool may still have its ports.
const PORT_RELEASE_TIME: Duration = Duration::from_secs(1);

/// How often the ports are tried in that time.
const PORT_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Binds the admin port to listen, and the callback port without listening: reading the spool may
/// take minutes, and a port that is taken must not be found only then.
///
/// Until the callback port listens, the system refuses its connections. A load balancer then uses
/// another instance at once, and the sender's next attempt has all its time. If the port listened,
/// the system would accept connections, and they would hang until the sender gives up.
fn bind_both(listen: &ListenArgs) -> Result<Listeners, Failure> {
    let reserve = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As the standard library does: a port of closed connections is free.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(TcpListener::from(socket.as_fd().try_clone_to_owned()?))
    };
    both(listen, reserve)
}

/// Stands for the brokers of an embedded Kafka that is not started yet.
pub(super) const EMBEDDED: &str = "embedded";

/// Starts a Kafka in this process, with all topics, and puts its brokers into the settings.
pub(super) fn embed(
    settings: &mut KafkaSettings,
    serve: &ServeArgs,
) -> Result<EmbeddedKafka, Failure> {
    let protocol = settings.properties.security_protocol();
    if protocol != "plaintext" {
        return Err(Failure::Usage(format!(
            "Kafka properties: the embedded Kafka has no security.protocol={protocol}; leave it out"
        )));
    }
    let topics: Vec<&str> = settings.routes.topics().collect();
    let kafka = EmbeddedKafka::start(&topics, serve.topics.topic_partitions)?;
    kafka.brokers().clone_into(&mut settings.brokers);
    Ok(kafka)
}

fn settings(
    serve: &ServeArgs,
    embedded: bool,
    mut faults: Faults,
    hangups: watch::Receiver<u32>,
) -> Result<ServerSettings, Failure> {
    let kafka = faults.take(if embedded {
        serve.kafka.settings_with(EMBEDDED, None)
    } else {
        serve.kafka.settings(Some(&serve.topics))
    });
    let secrets = faults.take(config::secrets(&serve.callback.secrets));
    faults.take(serve.spool.check_folder());
    let registry = faults.take(serve.registry.settings());
    let ports = serve.ports(&mut faults);
    let settings = kafka.zip(secrets).zip(ports).zip(registry);
    let (((kafka, secrets), ports), registry) = faults.finish(settings)?;
    for warning in serve.warnings() {
        tracing::warn!("{warning}");
    }
    let (secrets, secrets_file) = secrets;
    let (certificate, certificate_files) = ports.certificate.unzip();
    Ok(ServerSettings {
        callbacks: ports.callbacks,
        connections: connections(&serve.connections)?,
        certificate,
        reload: Reload {
            secrets: secrets_file,
            certificate: certificate_files,
            requests: Some(hangups),
        },
        intake: serve.callback.intake(secrets, ports.omit),
        kafka,
        registry,
        spool: ports.spool,
        inspect_topics: !embedded,
        shown: Vec::new(),
        drain_delay: serve.deadlines.drain_delay,
        stop_deadline: serve.deadlines.stop_deadline,
    })
}

/// Open files of the process itself: standard streams, the runtime, both listeners with a connection
/// that waits for its slot, the spool, and files that are read again.
const OWN_FILES: u64 = 24;

/// With fewer connections than this, or than ZIM2KAFKA_MAX_CONNECTIONS, the service does not start.
const MIN_CONNECTIONS: u64 = 16;

/// Open files apart from the callback port's connections, if the process may open this many.
fn other_files(limit: u64) -> u64 {
    OWN_FILES + MAX_ADMIN_CONNECTIONS as u64 + max_kafka_files(limit)
}

/// The connections of the reserve, beside this many.
fn reserve_for(connections: u64) -> u64 {
    ConnectionLimits::reserve_for(usize::try_from(connections).unwrap_or(usize::MAX)) as u64
}

/// How many of these connections, with their reserve, fit into this many open files. A connection
/// that cannot be accepted is worse than one that waits for its slot.
fn fit_to_open_files(connections: u64, files: u64) -> Result<u64, Failure> {
    let free = files.saturating_sub(other_files(files));
    let fitting = connections.min(free.saturating_sub(reserve_for(connections.min(free))));
    if fitting >= connections.min(MIN_CONNECTIONS) {
        return Ok(fitting);
    }
    let least = other_files(files) + MIN_CONNECTIONS + reserve_for(MIN_CONNECTIONS);
    Err(Failure::Usage(format!(
        "this process may open only {files} files and needs at least {least}; raise the limit, as with `ulimit -n 8192`, LimitNOFILE=8192 of systemd or --ulimit nofile=8192 of Docker"
    )))
}

/// Open files for this many connections, with all that the service does besides.
fn wanted_files(connections: u64) -> u64 {
    let wanted = connections + reserve_for(connections) + other_files(u64::MAX);
    wanted.max(FEW_OPEN_FILES)
}

/// Checks that this process may open enough files to start. Changes no limit.
pub(super) fn check_open_files(arguments: &ConnectionArgs) -> Result<(), Failure> {
    let connections = arguments.limits().connections as u64;
    let maximum = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    fit_to_open_files(connections, wanted_files(connections).min(maximum)).map(drop)
}

/// The limits of connections, for which the limit of open files is raised. If that is not possible,
/// fewer connections are allowed.
pub(super) fn connections(arguments: &ConnectionArgs) -> Result<ConnectionLimits, Failure> {
    let mut limits = arguments.limits();
    let connections = limits.connections as u64;
    let wanted = wanted_files(connections);
    let rlimit = getrlimit(Resource::Nofile);
    let current = rlimit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Ok(limits);
    }
    let reachable = wanted.min(rlimit.maximum.unwrap_or(u64::MAX));
    let raised = Rlimit {
        current: Some(reachable),
        maximum: rlimit.maximum,
    };
    let files = setrlimit(Resource::Nofile, raised).map_or(current, |()| reachable);
    let fitting = fit_to_open_files(connections, files)?;
    if fitting < connections {
        limits.connections = usize::try_from(fitting).unwrap_or(usize::MAX);
        limits.reserved = ConnectionLimits::reserve_for(limits.connections);
        tracing::warn!(
            "ZIM2KAFKA_MAX_CONNECTIONS: only {fitting} connections are allowed, because this process may open only {files} files; raise the hard limit (ulimit -Hn) to {wanted}"
        );
    }
    Ok(limits)
}

/// Binds both ports and listens, so that a port that is taken is an error at once.
pub(super) fn listen(listen: &ListenArgs) -> Result<Listeners, Failure> {
    both(listen, TcpListener::bind)
}

/// Binds the callback port by `bind`, and the admin port to listen. Reports the errors of both.
fn both(
    listen: &ListenArgs,
    bind: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> Result<Listeners, Failure> {
    let failed = |variable, address| {
        move |source| ListenError {
            address,
            variable,
            source,
        }
    };
    let (address, admin) = (listen.listen, listen.admin.admin_listen);
    let callbacks = bind(address).map_err(failed("ZIM2KAFKA_LISTEN", address));
    let admin = TcpListener::bind(admin).map_err(failed("ZIM2KAFKA_ADMIN_LISTEN", admin));
    match (callbacks, admin) {
        (Ok(callbacks), Ok(admin)) => Ok(Listeners { callbacks, admin }),
        (callbacks, admin) => {
            let errors = callbacks.err().into_iter().chain(admin.err());
            Err(Failure::Listen(errors.collect()))
        }
    }
}

/// The address of a port. If port 0 was asked for, the system has chosen one.
pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::System("cannot determine the address of a port", error))
}

/// Logs that callbacks are accepted from now on.
fn log_start(
    serve: &ServeArgs,
    routes: &Routes,
    embedded: Option<&EmbeddedKafka>,
    callbacks: SocketAddr,
    admin: SocketAddr,
) {
    // The path is not logged, because it may contain a secret segment.
    // As fields, because programs that start the service with port 0 read the addresses.
    tracing::info!(
        %callbacks,
        %admin,
        topic = routes.event_topics().join(","),
        "zim2kafka {} is listening", env!("CARGO_PKG_VERSION")
    );
    judge_routes(routes).iter().for_each(Finding::log);
    if let Some(kafka) = embedded {
        tracing::warn!(
            brokers = kafka.brokers(),
            "the embedded Kafka at {} is for trials only: reachable from this machine, in memory, keeps the last 5 MiB of a partition",
            kafka.brokers()
        );
    }
    if let Some(warning) = serve.callback.before_send.warning() {
        tracing::warn!("ZIM2KAFKA_BEFORE_SEND=send: {warning}");
    }
    if serve.spool.spool_dir.is_none() {
        tracing::warn!(
            "ZIM2KAFKA_SPOOL_DIR is not set, so there is no spool: an event that Kafka does not take within {:?} is answered 503. The sender retries for 62 s, so a longer outage of Kafka loses events",
            serve.deadlines.answer_deadline
        );
    }
}

/// The topics whose records have the text of messages.
fn topics_with_message_text(routes: &Routes, omit: &Omit) -> Vec<String> {
    let has_text = |kind: &&Kind| {
        let mut fields = kind.fields.iter();
        fields.any(|field| field.name == "msg_body" && !omit.leaves_out(field))
    };
    let topics = EVENTS.into_iter().filter(has_text);
    let topics: BTreeSet<_> = topics
        .filter_map(|kind| routes.topic_of(kind.name))
        .collect();
    topics.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_messages_is_published_where_one_has_a_topic_and_nothing_leaves_it_out() {
        let routes = |events: &[(&'static str, &'static str)]| Routes::new(events.to_vec(), "dead");
        let both = routes(&[("send_msg", "m"), ("bot_msg", "b"), ("room_exit", "r")]);
        let of = |routes: &Routes, omit: Omit| topics_with_message_text(routes, &omit).join(" ");
        let omit = Omit::default;
        assert_eq!(of(&both, omit()), "b m");
        let same = routes(&[("send_msg", "m"), ("bot_msg", "m")]);
        assert_eq!(of(&same, omit()), "m");
        assert_eq!(of(&routes(&[("room_exit", "m")]), omit()), "");
        let one = routes(&[("send_msg", "m")]).discarding(["bot_msg"]);
        assert_eq!(of(&one, omit()), "m");
        let content = Omit {
            content: true,
            ..omit()
        };
        assert_eq!(of(&both, content), "");
        let field = |name| Omit {
            fields: BTreeSet::from([name]),
            ..omit()
        };
        assert_eq!(of(&both, field("msg_body")), "");
        // The text is still there.
        assert_eq!(of(&both, field("payload")), "b m");
        let user_name = Omit {
            user_name: true,
            extra: true,
            ..omit()
        };
        assert_eq!(of(&both, user_name), "b m");
    }

    #[test]
    fn connections_take_the_files_that_kafka_and_the_service_itself_do_not_need() {
        let fit = |connections, files| fit_to_open_files(connections, files).ok();
        for (connections, files, fitting) in [
            (4096, 256, Some(72)),
            (64, 256, Some(64)),
            (4096, 200, Some(16)),
            (4096, 199, None),
            (4096, 0, None),
            (5, 189, Some(5)),
            (5, 188, None),
            // With more files, Kafka gets more of them.
            (4096, 1023, Some(802)),
            (4096, 1024, Some(698)),
            (4096, 4632, Some(4096)),
            (4096, 4631, Some(4095)),
        ] {
            assert_eq!(fit(connections, files), fitting, "{connections}, {files}");
        }
        let refused = fit_to_open_files(4096, 100).map_err(|failure| failure.exit_code());
        assert_eq!(refused, Err(2));
    }
}
