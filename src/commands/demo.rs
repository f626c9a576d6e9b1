//! `demo`: the complete service on one machine, with nothing else installed.

use std::iter;
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Uri;

use super::send::events::{Sequence, one_of_each_family};
use super::send::sample::{Post, Signer, curl, now, quoted};
use super::serve::{EMBEDDED, address, connections, embed, listen};
use super::shown::shown;
use super::subscriber::{Range, Records, pretty, subscribe};
use super::{Failure, Stop, output, read_settings};
use crate::callback::{Secrets, TimestampUnit};
use crate::client::{HttpClient, reachable};
use crate::config::{self, CALLBACK_SECRETS, Faults, KafkaArgs, ServeArgs, Setting};
use crate::event::{BEFORE_SEND_MESSAGE, GROUP_JOIN};
use crate::kafka::StartFrom;
use crate::reload::Reload;
use crate::server::{self, ServerSettings};

/// The flags of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End after this many events [default: run until ctrl-c]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// The application of the sample callbacks.
const APPID: &str = "1234567890";

/// The groups and rooms of the sample callbacks: few, so that each has several events.
const GROUPS: u64 = 5;

/// All events are shown, unless ZIM2KAFKA_TOPICS is set.
const TOPICS: &str = "all";

/// The time between two callbacks, so that people can follow.
const CALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// The demo fails if an event does not arrive within this time.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(
    args: Args,
    mut faults: Faults,
    in_force: Vec<Setting>,
    stop: &Stop,
) -> Result<(), Failure> {
    let Args { count, mut serve } = args;
    serve.kafka.topics.get_or_insert_with(|| TOPICS.to_owned());
    if serve.callback.timestamp_unit != TimestampUnit::Auto {
        tracing::warn!(
            "ZIM2KAFKA_TIMESTAMP_UNIT is ignored: the demo signs each event in the unit of its family"
        );
        serve.callback.timestamp_unit = TimestampUnit::Auto;
    }
    let arguments = serve.clone();
    let read = move || {
        let kafka = faults.take(arguments.kafka.settings_with(EMBEDDED, None));
        let ports = arguments.ports(&mut faults);
        faults.take(arguments.connections.check_plain());
        let registry = faults.take(arguments.registry.settings());
        faults.finish(kafka.zip(ports).zip(registry))
    };
    let Some(((mut settings, ports), registry)) = read_settings(stop, read).await? else {
        return Ok(());
    };
    let _embedded = embed(&mut settings, &serve)?;
    let secret = hex::encode(rand::random::<[u8; 16]>());
    let pair = format!("{APPID}={secret}");
    let secrets = || Secrets::parse_list(&pair).expect("a pair with a secret in hex is valid");
    let shown = shown(in_force, &settings.properties);
    let settings = ServerSettings {
        callbacks: ports.callbacks,
        connections: connections(&serve.connections)?,
        certificate: None,
        reload: Reload::default(),
        intake: serve.callback.intake(secrets(), ports.omit),
        kafka: settings,
        registry,
        spool: None,
        inspect_topics: false,
        shown,
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
    let signer = Signer::new(&secrets(), None, GROUPS)?;
    let admin = reachable(address(&listeners.admin)?);
    let topics = settings.kafka.routes.event_topics().to_vec();
    let brokers = &settings.kafka.brokers;
    let commands = commands(&serve.kafka, brokers, &topics, &url, &pair, &signer)?;
    let introduction = format!(
        "zim2kafka demo: an in-memory Kafka at {brokers}, callbacks at {url},
status page at http://{admin}/, metrics at http://{admin}/metrics. Ends with ctrl-c.

{commands}"
    );
    tokio::select! {
        printed = output::print(introduction) => printed?,
        () = stop.first() => return Ok(()),
    }

    let range = Range {
        start: StartFrom::Beginning,
        until: None,
    };
    let mut records = subscribe(&settings.kafka, &topics, range);
    let (done, shutdown) = tokio::sync::oneshot::channel::<()>();
    let server = server::run(settings, listeners, || {}, async {
        // A message or a dropped sender: both end the demo.
        shutdown.await.ok();
    });
    let show = async {
        let outcome = tokio::select! {
            outcome = show(&signer, &uri, count, &mut records) => outcome,
            () = stop.first() => Ok(()),
        };
        drop(done);
        outcome
    };
    let (served, shown) = tokio::join!(server, show);
    served?;
    shown
}

/// Sends one event of each family, then all events in realistic proportions. Prints every record of
/// the topics, including those of callbacks that other clients send.
async fn show(
    signer: &Signer,
    url: &Uri,
    count: Option<u64>,
    records: &mut Records,
) -> Result<(), Failure> {
    let client = HttpClient::new();
    let mut clock = tokio::time::interval(CALLBACK_INTERVAL);
    let (first, mix) = (Vec::from_iter(one_of_each_family()), Sequence::mix());
    let first = first.iter().map(Some).chain(iter::repeat(None));
    let mut left = count.unwrap_or(u64::MAX);
    for (number, first) in (0..).zip(first) {
        if left == 0 {
            break;
        }
        loop {
            tokio::select! {
                _ = clock.tick() => break,
                Some(read) = records.recv() => {
                    if let Some(record) = read.record()? {
                        output::print(pretty(&record)).await?;
                    }
                }
            }
        }
        let event = first.unwrap_or_else(|| mix.at(number));
        let Post { body, content_type } = Post::json(signer.callback(event, number, now()));
        let (status, answer) = client
            .post(url, content_type, body.into(), ARRIVAL_TIMEOUT)
            .await
            .map_err(|reason| Failure::Failed(format!("the service did not answer: {reason}")))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (number, name) = (number + 1, event.name);
        let answered = format!("callback {number}, {name}, answered {status} {answer}");
        output::print(answered).await?;
        if !status.is_success() {
            return Err(Failure::Failed(format!(
                "the callback was refused: {answer}"
            )));
        }
        if let Some(id) = published_id(&answer) {
            wait_for(&id, records).await?;
        }
        // A question is not an event.
        left -= u64::from(event.name != BEFORE_SEND_MESSAGE);
    }
    Ok(())
}

/// Prints records until that with this id is printed.
async fn wait_for(id: &str, records: &mut Records) -> Result<(), Failure> {
    loop {
        let read = tokio::time::timeout(ARRIVAL_TIMEOUT, records.recv()).await;
        let Ok(Some(read)) = read else {
            return Err(Failure::Failed(format!(
                "record {id} did not arrive in its topic within {ARRIVAL_TIMEOUT:?}"
            )));
        };
        let Some(record) = read.record()? else {
            continue;
        };
        output::print(pretty(&record)).await?;
        let is_ours =
            |(name, value): &(String, Vec<u8>)| name == "ce_id" && *value == *id.as_bytes();
        if record.headers.iter().any(is_ours) {
            return Ok(());
        }
    }
}

/// The id of the event that this answers, if it is published to a topic of events.
fn published_id(answer: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(answer).ok()?;
    let is_published = answer.get("status")? == "published";
    is_published.then(|| answer.get("event_id")?.as_str().map(str::to_owned))?
}

/// The commands that can be tried.
fn commands(
    kafka: &KafkaArgs,
    brokers: &str,
    topics: &[String],
    url: &str,
    pair: &str,
    signer: &Signer,
) -> Result<String, Failure> {
    let join = Sequence::named(GROUP_JOIN)?;
    let curl = curl(
        url,
        None,
        &Post::json(signer.callback(join.at(0), 0, now())),
    );
    let not_installed = if is_installed("kcat") {
        ""
    } else {
        " (not installed here)"
    };
    let routes = kafka.topics.as_deref().unwrap_or(TOPICS);
    let routes = shell_word(routes);
    let program = shell_word(&config::program());
    // As a flag, it would be the one topic to read.
    let topic = match kafka.topic.is_given {
        true => format!("ZIM2KAFKA_TOPIC={} ", kafka.topic.name),
        false => String::new(),
    };
    let topics = topics.join(" ");
    Ok(format!(
        r"Post a callback of your own (signed now, valid for ZIM2KAFKA_TIMESTAMP_TOLERANCE):

  {curl}

Post more, of all events, with the secret of this run:

  {CALLBACK_SECRETS}={pair} {program} send --url {url} --event mix --count 10

Subscribe with kcat{not_installed}:

  kcat -q -b {brokers} -X auto.offset.reset=earliest -f '%t partition %p offset %o key %k\n%h\n%s\n\n' -G demo {topics}

or with zim2kafka itself:

  {topic}{program} tail --kafka-brokers {brokers} --topics {routes} --from-beginning --pretty
"
    ))
}

/// Quoted only if a shell would read it differently.
fn shell_word(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-,=:+@%".contains(char);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => quoted(text),
    }
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
