//! `demo`: the complete service on one machine, with nothing else installed.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Uri};
use tokio::sync::mpsc;

use super::client::{HttpClient, reachable};
use super::send::sample::{Signer, curl, now};
use super::serve::{EMBEDDED, address, connections, embed, listen};
use super::{Failure, Stop, blocking, output, read_settings, tail};
use crate::callback::Secrets;
use crate::config::{CALLBACK_SECRETS, Faults, ServeArgs};
use crate::kafka::{Consumed, KafkaSettings, StartFrom, Subscription};
use crate::reload::Reload;
use crate::server::{self, ServerSettings};

/// The flags of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// End after this many events [default: run until ctrl-c]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// The application of the sample callbacks.
const APPID: &str = "1234567890";

/// The time between two callbacks, so that people can follow.
const CALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// The demo fails if an event does not arrive within this time.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(args: Args, mut faults: Faults, stop: &Stop) -> Result<(), Failure> {
    let Args { serve, count } = args;
    let arguments = serve.clone();
    let read = move || {
        let kafka = faults.take(arguments.kafka.settings_with(EMBEDDED, None));
        let ports = arguments.ports(&mut faults);
        faults.take(arguments.connections.check_plain());
        faults.finish(kafka.zip(ports))
    };
    let Some((mut settings, ports)) = read_settings(stop, read).await? else {
        return Ok(());
    };
    let _embedded = embed(&mut settings, &serve)?;
    let secret = hex::encode(rand::random::<[u8; 16]>());
    let pair = format!("{APPID}={secret}");
    let secrets = || Secrets::parse_list(&pair).expect("a pair with a secret in hex is valid");
    let settings = ServerSettings {
        callbacks: ports.callbacks,
        connections: connections(&serve.connections)?,
        certificate: None,
        reload: Reload::default(),
        intake: serve.callback.intake(secrets(), ports.omit),
        kafka: settings,
        spool: None,
        inspect_topics: false,
        drain_delay: Duration::ZERO,
        stop_deadline: serve.deadlines.stop_deadline,
    };
    let listeners = listen(&serve.listen)?;
    let url = format!(
        "http://{}{}",
        reachable(address(&listeners.callbacks)?),
        settings.callbacks.path
    );
    let uri: Uri = url
        .parse()
        .map_err(|_| Failure::Failed("the callback path is not a valid URL".to_owned()))?;
    let signer = Signer::new(&secrets(), None)?;
    let admin = reachable(address(&listeners.admin)?);
    let topic = serve.kafka.main_topic(&settings.kafka.routes).to_owned();
    let brokers = &settings.kafka.brokers;
    let introduction = introduction(admin, (brokers, &topic), &url, &pair, &signer);
    tokio::select! {
        printed = output::print(introduction) => printed?,
        () = stop.first() => return Ok(()),
    }

    let mut records = subscribe(settings.kafka.clone(), topic.clone()).await?;
    let (done, shutdown) = tokio::sync::oneshot::channel::<()>();
    let server = server::run(settings, listeners, || {}, async {
        // A message or a dropped sender: both end the demo.
        shutdown.await.ok();
    });
    let show = async {
        let outcome = tokio::select! {
            outcome = show(&signer, &uri, &topic, count, &mut records) => outcome,
            () = stop.first() => Ok(()),
        };
        drop(done);
        outcome
    };
    let (served, shown) = tokio::join!(server, show);
    served?;
    shown
}

/// Sends one callback after another and prints every record of the topic, including those of
/// callbacks that other clients send.
async fn show(
    signer: &Signer,
    url: &Uri,
    topic: &str,
    count: Option<u64>,
    records: &mut mpsc::Receiver<Consumed>,
) -> Result<(), Failure> {
    let client = HttpClient::new();
    let mut clock = tokio::time::interval(CALLBACK_INTERVAL);
    for number in 0..count.unwrap_or(u64::MAX) {
        loop {
            tokio::select! {
                _ = clock.tick() => break,
                Some(record) = records.recv() => output::print(tail::pretty(topic, &record)).await?,
            }
        }
        let body = Bytes::from(signer.group_joined(number, 5, now()));
        let (status, answer) = client
            .request(Method::POST, url, body, ARRIVAL_TIMEOUT)
            .await
            .map_err(|reason| Failure::Failed(format!("the service did not answer: {reason}")))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let answered = format!("callback {} answered {status} {answer}", number + 1);
        output::print(answered).await?;
        if !status.is_success() {
            return Err(Failure::Failed(format!(
                "the callback was refused: {answer}"
            )));
        }
        let id = event_id(&answer);
        loop {
            let record = tokio::time::timeout(ARRIVAL_TIMEOUT, records.recv()).await;
            let Ok(Some(record)) = record else {
                return Err(Failure::Failed(format!(
                    "record {id} did not arrive in topic {topic} within {ARRIVAL_TIMEOUT:?}"
                )));
            };
            output::print(tail::pretty(topic, &record)).await?;
            let is_ours =
                |(name, value): &(String, Vec<u8>)| name == "ce_id" && *value == *id.as_bytes();
            if record.headers.iter().any(is_ours) {
                break;
            }
        }
    }
    Ok(())
}

fn event_id(answer: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let id = answer.get("event_id").and_then(serde_json::Value::as_str);
    id.unwrap_or_default().to_owned()
}

/// Reads the topic on its own thread, until the receiver is dropped.
async fn subscribe(
    settings: KafkaSettings,
    topic: String,
) -> Result<mpsc::Receiver<Consumed>, Failure> {
    let (send, records) = mpsc::channel(100);
    let start =
        move || Subscription::start(&settings, &topic, StartFrom::Beginning, ARRIVAL_TIMEOUT);
    let mut subscription = blocking(start).await??;
    tokio::task::spawn_blocking(move || {
        while !send.is_closed() {
            match subscription.next(Duration::from_millis(100)) {
                Ok(Some(record)) => {
                    if send.blocking_send(record).is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!("cannot read the topic: {error}"),
            }
        }
    });
    Ok(records)
}

fn introduction(
    admin: SocketAddr,
    (brokers, topic): (&str, &str),
    url: &str,
    pair: &str,
    signer: &Signer,
) -> String {
    let curl = curl(url, &signer.group_joined(0, 5, now()));
    let not_installed = if is_installed("kcat") {
        ""
    } else {
        " (not installed here)"
    };
    format!(
        r"zim2kafka demo: an in-memory Kafka at {brokers}, callbacks at {url},
status page at http://{admin}/, metrics at http://{admin}/metrics. Ends with ctrl-c.

Post a callback of your own (signed now, valid for ZIM2KAFKA_TIMESTAMP_TOLERANCE):

  {curl}

Post more, with the secret of this run:

  {CALLBACK_SECRETS}={pair} zim2kafka send --url {url} --count 10

Subscribe with kcat{not_installed}:

  kcat -C -b {brokers} -t {topic} -f 'key %k partition %p offset %o\n%h\n%s\n\n'

or with zim2kafka itself:

  zim2kafka tail --kafka-brokers {brokers} --from-beginning --pretty
"
    )
}

#[expect(clippy::disallowed_methods, reason = "the rule is for tests only")]
fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("-V")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}
