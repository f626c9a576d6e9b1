//! Builds the rooms, runs them, and stops them in order.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};

use crate::delivery::kafka::{self, Inspection, KafkaSettings, Topics};
use crate::delivery::{Delivery, Finding, Level, Spool};
use crate::health::Health;
use crate::http::{
    self, CallbackSettings, Certificate, ConnectionLimits, Edge, MAX_ADMIN_CONNECTIONS, Networks,
    Port, PortHandle, Tls,
};
use crate::intake::{Intake, IntakeSettings};
use crate::metrics::{ConnectionMetrics, Metrics};
use crate::reload::{self, Reload, Users};

/// What the service is to be like.
pub struct ServerSettings {
    /// The callback port.
    pub callbacks: CallbackSettings,
    /// Its connections.
    pub connections: ConnectionLimits,
    /// With a certificate, it speaks HTTPS and nothing else.
    pub certificate: Option<Certificate>,
    /// What may change while it runs.
    pub reload: Reload,
    /// Whose callbacks are accepted.
    pub intake: IntakeSettings,
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// Where events are made safe while Kafka is late; none where nothing is.
    pub spool: Option<Spool>,
    /// Whether the topics are looked at: an embedded Kafka makes its own.
    pub inspect_topics: bool,
    /// At a stop: still accepting, but not ready.
    pub drain_delay: Duration,
    /// At a stop: all in all.
    pub stop_deadline: Duration,
}

/// The two ports, bound.
pub struct Listeners {
    /// For callbacks.
    pub callbacks: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

/// What ends the service before it is asked to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The settings for Kafka cannot be used.
    #[error("the Kafka client could not be made: {0}")]
    Kafka(#[from] kafka::Error),
    /// The spool was found damaged. The next start saves what can be read.
    #[error(
        "{0}. Start the service again: it moves the damaged files aside and saves what can be read. Check the disk"
    )]
    Spool(String),
    /// A listener failed, or a task that the service cannot do without.
    #[error("a part of the service failed: {0}")]
    Part(#[from] io::Error),
}

/// Kafka is asked about the topics again after so long, until both exist.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Ending the producers takes up to so long, out of the stop deadline.
const ENDING: Duration = Duration::from_millis(700);

/// Runs the service until `shutdown` completes, then stops it in order: unready, still accepting for
/// the drain delay; no new connections; requests finished; what waits given to Kafka.
///
/// # Errors
///
/// [`ServerError`], where it cannot start or a port fails.
pub async fn run(
    settings: ServerSettings,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let metrics = Arc::new(Metrics::new());
    let delivery = Arc::new(Delivery::start(&settings.kafka, settings.spool, &metrics)?);
    let patience = settings.callbacks.answer_deadline;
    let health = Arc::new(Health::new(
        Arc::clone(&delivery),
        Arc::clone(&metrics),
        patience,
    ));
    let mut topics = tokio::spawn(watch_topics(
        Topics::new(&settings.kafka)?,
        settings.inspect_topics,
        Arc::clone(&health),
    ));
    let intake = Intake::new(settings.intake, Arc::clone(&delivery), Arc::clone(&metrics));
    let intake = Arc::new(intake);
    let tls = settings.certificate.map(|certificate| {
        reload::serves(&certificate, &metrics);
        Tls::new(&certificate)
    });
    let mut reload = tokio::spawn(settings.reload.run(Users {
        intake: Arc::clone(&intake),
        tls: tls.clone(),
        metrics: Arc::clone(&metrics),
    }));
    let (callback_port, admin_port) = (PortHandle::new(), PortHandle::new());
    let port = Port {
        listener: listeners.callbacks,
        trusted_proxies: settings.callbacks.senders.trusted_proxies.clone(),
        limits: settings.connections.clone(),
        tls,
    };
    let edge = Arc::new(Edge::new(settings.callbacks, intake, Arc::clone(&metrics)));
    let mut callbacks = tokio::spawn(http::serve(
        port,
        http::callbacks(edge),
        callback_port.clone(),
        metrics.connections().clone(),
    ));
    let port = Port {
        listener: listeners.admin,
        trusted_proxies: Networks::default(),
        limits: ConnectionLimits {
            connections: MAX_ADMIN_CONNECTIONS,
            per_address: None,
            idle: settings.connections.idle,
        },
        tls: None,
    };
    let admin = http::admin(Arc::clone(&metrics), Arc::clone(&health));
    let mut admin = tokio::spawn(http::serve(
        port,
        admin,
        admin_port.clone(),
        ConnectionMetrics::unseen(),
    ));

    tokio::select! {
        () = shutdown => {}
        failed = &mut callbacks => return Err(port_failed(failed)),
        failed = &mut admin => return Err(port_failed(failed)),
        failed = panicked(&mut topics) => return Err(failed),
        failed = panicked(&mut reload) => return Err(failed),
        damage = delivery.damaged() => return Err(ServerError::Spool(damage.to_string())),
    }

    let ending = ENDING.min(settings.stop_deadline / 4);
    let deadline = Instant::now() + settings.stop_deadline - ending;
    tracing::info!(
        "stopping: unready now, still accepting for {:?}",
        settings.drain_delay
    );
    health.stopping();
    tokio::time::sleep(settings.drain_delay).await;
    // Who sends slowly must not take the time that is meant for what has been answered.
    let answered = left(deadline).min(patience + Duration::from_secs(1));
    callback_port.finish(answered);
    let requests = tokio::time::timeout(answered + ENDING, callbacks).await;
    delivery.finish();
    while !delivery.is_at_rest() && !left(deadline).is_zero() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if requests.is_err() || !delivery.is_at_rest() {
        tracing::warn!(
            "the stop deadline is over: callbacks that were not answered with 2xx are left to the sender's retries, and what Kafka has not acknowledged is published again from the spool"
        );
    }
    admin_port.stop();
    topics.abort();
    reload.abort();
    let stopped = tokio::task::spawn_blocking(move || delivery.stop());
    // librdkafka joins its threads, and one of them may be waiting for a name server.
    match tokio::time::timeout(left(deadline + ending), stopped).await {
        Ok(stopped) => stopped.map_err(io::Error::other)?,
        Err(_) => tracing::warn!("the Kafka client did not end in time and is left behind"),
    }
    tracing::info!("stopped");
    Ok(())
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn port_failed(ended: Result<io::Result<()>, JoinError>) -> ServerError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => io::Error::other("it stopped listening").into(),
        Err(panic) => io::Error::other(panic).into(),
    }
}

/// Completes where a task panics, and never where it ends in order: half a service is worse than none.
async fn panicked(task: &mut JoinHandle<()>) -> ServerError {
    match task.await {
        Err(panic) => io::Error::other(panic).into(),
        Ok(()) => std::future::pending().await,
    }
}

/// Looks at the topics until both exist, and says what it finds each time it changes.
async fn watch_topics(topics: Topics, inspect: bool, health: Arc<Health>) {
    if !inspect {
        health.topic_exists();
        return;
    }
    let mut said = Vec::new();
    loop {
        match topics.inspect().await {
            Ok(Inspection {
                findings,
                topic_exists,
            }) => {
                if topic_exists {
                    health.topic_exists();
                }
                if findings != said {
                    findings.iter().for_each(Finding::log);
                }
                if findings.iter().all(|finding| finding.level < Level::Error) {
                    return;
                }
                said = findings;
            }
            Err(error) => tracing::debug!(%error, "Kafka does not tell of the topics yet"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
