//! Builds the parts of the service, runs them, and stops them in order.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;

use crate::delivery::{Delivery, StartError};
use crate::event::Routes;
use crate::finding::{Finding, Level};
use crate::health::Health;
use crate::http::{
    self, CallbackService, CallbackSettings, Certificate, ConnectionLimits, MAX_ADMIN_CONNECTIONS,
    Networks, Port, PortHandle, ShownSetting, Status, Tls,
};
use crate::intake::{Intake, IntakeSettings};
use crate::kafka::{self, Inspection, KafkaSettings, SchemaIds, TopicUse, Topics};
use crate::log::count;
use crate::metrics::{ConnectionMetrics, Metrics};
use crate::reload::{self, Reload, ReloadTargets};
use crate::schema_registry::SchemaRegistry;
use crate::spool::{self, OpenStage, Spool, SpoolSettings};

/// The settings of the service.
pub struct ServerSettings {
    /// The callback port.
    pub callbacks: CallbackSettings,
    /// The limits of its connections.
    pub connections: ConnectionLimits,
    /// The certificate; with one, the callback port serves HTTPS only.
    pub certificate: Option<Certificate>,
    /// What is read again while the service runs.
    pub reload: Reload,
    /// Which callbacks are accepted.
    pub intake: IntakeSettings,
    /// The brokers and topics.
    pub kafka: KafkaSettings,
    /// The schema registry with the ids that values begin with; `None` publishes plain JSON.
    pub registry: Option<SchemaRegistry>,
    /// Where events are stored while Kafka is late, if anywhere.
    pub spool: Option<SpoolSettings>,
    /// Whether to inspect the topics. An embedded Kafka creates its own.
    pub inspect_topics: bool,
    /// The settings in force, for the status page. None of them is a secret.
    pub shown: Vec<ShownSetting>,
    /// At shutdown: how long to go on accepting callbacks while not ready.
    pub drain_delay: Duration,
    /// Total time allowed for shutdown.
    pub stop_deadline: Duration,
}

/// The two ports, bound. A port that does not listen yet does so once it is served.
pub struct Listeners {
    /// The callback port.
    pub callbacks: TcpListener,
    /// The admin port.
    pub admin: TcpListener,
}

/// Why the service could not start or ended without a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The spool cannot be used.
    #[error("ZIM2KAFKA_SPOOL_DIR: cannot use the spool in {}", folder.display())]
    OpenSpool {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        source: spool::Error,
    },
    /// A producer or a thread could not be created.
    #[error("cannot start delivery")]
    Delivery(#[from] StartError),
    /// The client that inspects the topics could not be created.
    #[error("cannot create the Kafka admin client")]
    Admin(#[source] kafka::Error),
    /// The spool was found damaged. The next start recovers what can be read.
    #[error(
        "the service found damage in the spool and stopped. Start it again: it moves the damaged files aside and recovers what can be read. Check the disk"
    )]
    Spool(#[source] Arc<spool::Error>),
    /// A listener or a task that the service needs has failed.
    #[error("the {0} failed")]
    Part(&'static str, #[source] io::Error),
}

/// The pause before the topics are inspected again, until no finding is an error.
const INSPECT_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How often it is checked whether records wait for Kafka.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(1);

/// The part of the stop deadline that is left for ending the producers.
const PRODUCER_STOP_TIME: Duration = Duration::from_millis(700);

/// Runs the service until `shutdown` completes, then stops it in order: it is not ready but accepts
/// callbacks for the drain delay, accepts no new connections, finishes requests, and hands waiting
/// records to Kafka.
///
/// The admin port answers at once. The callback port follows when the spool has been read;
/// `on_listening` is called then.
///
/// # Errors
///
/// [`ServerError`], if it cannot start, a port fails or the spool is damaged.
pub async fn run(
    mut settings: ServerSettings,
    listeners: Listeners,
    on_listening: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let mut shutdown = pin!(shutdown);
    let metrics = Arc::new(Metrics::new());
    let topic_use = TopicUse {
        timestamp_tolerance: settings.intake.timestamp_tolerance,
        spool: settings.spool.clone(),
    };
    for appid in settings.intake.secrets.appids() {
        metrics.apps().of(Some(appid));
    }
    let answer_deadline = settings.callbacks.answer_deadline;
    let health = Arc::new(Health::new(Arc::clone(&metrics), answer_deadline));
    let admin_port = PortHandle::new();
    let listening = http::listen(&listeners.admin);
    listening.map_err(|error| ServerError::Part("admin port", error))?;
    let status = Arc::new(Status::new(
        Arc::clone(&metrics),
        Arc::clone(&health),
        settings.kafka.routes.clone(),
        settings.shown,
    ));
    let serving = http::serve(
        Port {
            listener: listeners.admin,
            trusted_proxies: Networks::default(),
            limits: ConnectionLimits {
                connections: MAX_ADMIN_CONNECTIONS,
                reserved: 0,
                per_address: None,
                idle: settings.connections.idle,
            },
            tls: None,
            refusals: None,
        },
        http::admin(Arc::clone(&status)),
        admin_port.clone(),
        ConnectionMetrics::unregistered(),
    );
    let mut admin = tokio::spawn(async move {
        tokio::select! {
            ended = serving => ended,
            never = status.watch() => never,
        }
    });
    let spool_folder = settings.spool.as_ref().map(|spool| spool.folder.clone());
    let spool = match settings.spool {
        None => None,
        // A stop does not wait for it: the process ends in the middle, which is as safe as a crash.
        // Reading changes nothing, and what else an opening does are transactions and the steps of
        // a recovery, which the next start repeats or completes.
        Some(spool) => tokio::select! {
            spool = open_spool(spool, Arc::clone(&health), Arc::clone(&metrics)) => Some(spool?),
            () = &mut shutdown => {
                tracing::info!(
                    "stopped before the spool was read: its records stay in {}, and the next start begins again",
                    spool_folder.unwrap_or_default().display()
                );
                return Ok(());
            }
            failed = &mut admin => return Err(port_failed("admin port", failed)),
        },
    };
    let ids = settings.registry.as_ref().map(|_| Arc::default());
    settings.kafka.schema_ids.clone_from(&ids);
    let delivery = Arc::new(Delivery::start(&settings.kafka, spool, &metrics)?);
    health.set_delivery(Arc::clone(&delivery));
    let mut topics = tokio::spawn(watch_topics(
        Topics::new(&settings.kafka).map_err(ServerError::Admin)?,
        settings.inspect_topics,
        topic_use,
        Arc::clone(&delivery),
        Arc::clone(&health),
    ));
    let mut schemas = tokio::spawn(learn_schemas(
        settings.registry,
        ids,
        delivery.routes().clone(),
    ));
    let mut outages = tokio::spawn(log_outages(Arc::clone(&delivery)));
    let intake = Intake::new(settings.intake, Arc::clone(&delivery), Arc::clone(&metrics));
    let intake = Arc::new(intake);
    let tls = settings.certificate.map(|certificate| {
        reload::use_certificate(&certificate, &metrics);
        Tls::new(&certificate)
    });
    let mut reload = tokio::spawn(settings.reload.run(ReloadTargets {
        intake: Arc::clone(&intake),
        tls: tls.clone(),
        metrics: Arc::clone(&metrics),
    }));
    let callback_port = PortHandle::new();
    let service = CallbackService::new(settings.callbacks.clone(), intake, Arc::clone(&metrics));
    let service = Arc::new(service);
    let port = Port {
        listener: listeners.callbacks,
        trusted_proxies: settings.callbacks.senders.trusted_proxies.clone(),
        limits: settings.connections.clone(),
        tls,
        refusals: Some(service.refusals()),
    };
    let listening = http::listen(&port.listener);
    listening.map_err(|error| ServerError::Part("callback port", error))?;
    let serving = http::serve(
        port,
        http::callbacks(Arc::clone(&service)),
        callback_port.clone(),
        metrics.connections().clone(),
    );
    let mut callbacks = tokio::spawn(async move {
        tokio::select! {
            ended = serving => {
                service.log_last_refusals();
                ended
            }
            never = service.log_refusals() => never,
        }
    });
    on_listening();

    tokio::select! {
        () = &mut shutdown => {}
        failed = &mut callbacks => return Err(port_failed("callback port", failed)),
        failed = &mut admin => return Err(port_failed("admin port", failed)),
        panic = panicked(&mut topics) => return Err(ServerError::Part("topic inspection", panic)),
        panic = panicked(&mut schemas) => return Err(ServerError::Part("schema registry", panic)),
        panic = panicked(&mut outages) => return Err(ServerError::Part("log of outages", panic)),
        panic = panicked(&mut reload) => return Err(ServerError::Part("reload", panic)),
        damage = delivery.damaged() => return Err(ServerError::Spool(damage)),
    }

    let producer_stop_time = PRODUCER_STOP_TIME.min(settings.stop_deadline / 4);
    let deadline = Instant::now() + settings.stop_deadline - producer_stop_time;
    // Records that stay in the spool are logged at the end.
    outages.abort();
    match settings.drain_delay {
        Duration::ZERO => tracing::info!("stopping"),
        delay => tracing::info!("stopping: not ready, accepting callbacks for another {delay:?}"),
    }
    health.set_stopping();
    tokio::time::sleep(settings.drain_delay).await;
    // Slow clients must not use up the time for records that have been answered.
    let request_time = left(deadline).min(answer_deadline + Duration::from_secs(1));
    callback_port.finish(request_time);
    let requests = tokio::time::timeout(request_time + PRODUCER_STOP_TIME, callbacks).await;
    delivery.finish();
    while !delivery.is_at_rest() && !left(deadline).is_zero() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if requests.is_err() || !delivery.is_at_rest() {
        let (reason, advice) = match delivery.obstacle_at_stop() {
            None => (String::new(), "; raise the deadline if this repeats"),
            Some(reason) if spool_folder.is_some() => (format!(": {reason}"), ""),
            Some(reason) => (
                format!(": {reason}"),
                "; set ZIM2KAFKA_SPOOL_DIR, so that they wait on disk instead",
            ),
        };
        tracing::warn!(
            "shutdown was not complete within ZIM2KAFKA_STOP_DEADLINE{reason}. Callbacks without a 2xx answer depend on the sender's retries{advice}"
        );
    }
    admin_port.stop();
    topics.abort();
    schemas.abort();
    reload.abort();
    let stopping = Arc::clone(&delivery);
    let stopped = tokio::task::spawn_blocking(move || stopping.stop());
    // librdkafka joins its threads, and one of them may be waiting for a DNS server.
    match tokio::time::timeout(left(deadline + producer_stop_time), stopped).await {
        Ok(stopped) => {
            stopped.map_err(|panic| ServerError::Part("shutdown", io::Error::other(panic)))?
        }
        Err(_) => tracing::warn!("the Kafka client did not end in time; exiting without it"),
    }
    if let Some(folder) = spool_folder {
        let (records, rejected) = delivery.records_in_spool();
        let folder = folder.display();
        if records > 0 {
            let stay = if records == 1 { "stays" } else { "stay" };
            tracing::warn!(
                "{} {stay} in the spool in {folder}; the next start with this folder publishes what Kafka has not taken",
                count(records as u64, "record")
            );
        }
        if rejected > 0 {
            tracing::warn!(
                "{} that Kafka has rejected in the spool in {folder}: no start publishes them",
                count(rejected as u64, "record")
            );
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Asks the schema registry, if there is one, for the ids without which no event is published.
async fn learn_schemas(
    registry: Option<SchemaRegistry>,
    ids: Option<Arc<SchemaIds>>,
    routes: Routes,
) {
    if let Some((registry, ids)) = registry.zip(ids) {
        registry.learn(&routes, &ids).await;
    }
}

/// Logs outages of Kafka. A task of its own, because other parts wait for a disk or for Kafka.
async fn log_outages(delivery: Arc<Delivery>) {
    let mut interval = tokio::time::interval(OUTAGE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        delivery.log_outage(Instant::now());
    }
}

/// Opens the spool on another thread, because that takes minutes for millions of records.
async fn open_spool(
    settings: SpoolSettings,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> Result<Spool, ServerError> {
    metrics.spool().set_max_bytes(settings.max_bytes);
    let open = move || {
        spool::inspect_folder(&settings)
            .iter()
            .for_each(Finding::log);
        let report = |stage| {
            match stage {
                OpenStage::Loading(bytes) => metrics.spool().set_bytes_loaded(bytes),
                OpenStage::Reading(records) => metrics.spool().set_records_read(records),
                OpenStage::Waiting
                | OpenStage::Migrating
                | OpenStage::Checking
                | OpenStage::Recovering => {}
            }
            health.set_opening(stage);
        };
        let spool = Spool::open(&settings, &report);
        let spool = spool.map_err(|source| ServerError::OpenSpool {
            folder: settings.folder,
            source,
        })?;
        let (records, _) = spool.records();
        metrics
            .spool()
            .set_records_read(usize::try_from(records).unwrap_or(0));
        if records > 0 {
            tracing::info!(
                "the spool holds {} of an earlier run; publishing them first",
                count(records.unsigned_abs(), "record")
            );
        }
        Ok(spool)
    };
    let opened = tokio::task::spawn_blocking(open).await;
    opened.map_err(|panic| ServerError::Part("opening of the spool", io::Error::other(panic)))?
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn port_failed(port: &'static str, ended: Result<io::Result<()>, JoinError>) -> ServerError {
    let error = match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => io::Error::other("it stopped listening"),
        Err(panic) => io::Error::other(panic),
    };
    ServerError::Part(port, error)
}

/// Completes if a task panics, and never if it returns: the service needs each of them.
async fn panicked(task: &mut JoinHandle<()>) -> io::Error {
    match task.await {
        Err(panic) => io::Error::other(panic),
        Ok(()) => std::future::pending().await,
    }
}

/// Inspects the topics until no finding is an error, and logs each finding when it is new.
async fn watch_topics(
    topics: Topics,
    inspect: bool,
    usage: TopicUse,
    delivery: Arc<Delivery>,
    health: Arc<Health>,
) {
    if !inspect {
        health.mark_topic_found();
        return;
    }
    let mut logged = Vec::new();
    loop {
        match topics.inspect(&usage).await {
            Ok(Inspection {
                findings,
                topic_found,
                producer_expiration,
            }) => {
                delivery.set_producer_expiration(producer_expiration);
                if topic_found {
                    health.mark_topic_found();
                }
                let new = findings.iter().filter(|finding| !logged.contains(*finding));
                new.for_each(Finding::log);
                if findings.iter().all(|finding| finding.level < Level::Error) {
                    return;
                }
                logged = findings;
            }
            Err(error) => tracing::debug!("cannot inspect the topics yet: {error}"),
        }
        tokio::time::sleep(INSPECT_RETRY_PAUSE).await;
    }
}
