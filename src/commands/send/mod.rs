//! `send`: acts as the sender.

pub(super) mod events;
mod load;
mod progress;
pub(super) mod sample;
mod scenario;
mod summary;
mod variation;

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::names::Named;
use super::{Failure, Stop, blocking, output, unless_stopped};
use crate::client::HttpClient;
use crate::config::{self, AuthoritiesSettings, ConfigError, Faults, SecretsArgs};
use crate::event::GROUP_JOIN;
use events::Sequence;
use load::{Load, RETRY_PAUSES};
use sample::Signer;
use scenario::{Callbacks, Scenario};

const AUTHORITIES: AuthoritiesSettings = AuthoritiesSettings {
    url: "--url",
    file: "--ca",
};

/// The lowest rate: a callback in 17 minutes. With less the command looks as if it hung.
const MIN_RATE: f64 = 0.001;

/// The end of `send --help`.
pub(in crate::commands) const EXAMPLES: &str = "\
Examples, with the secrets of the service in ZIM2KAFKA_CALLBACK_SECRETS:
  zim2kafka send --event mix --rate 50 --duration 1m
  zim2kafka send --url https://callbacks.example.com/callbacks/zim
  zim2kafka send --scenario resend --json

Exit code 1 means that a callback was not answered with 2xx in all its attempts,
so that ZEGOCLOUD would have dropped it.";

/// The flags of `send`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// URL to post to, http:// or https://
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080/callbacks/zim"
    )]
    url: String,
    /// PEM file with the authority of the server's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", value_parser = config::path())]
    ca: Option<PathBuf>,
    /// Application whose secret signs [default: that of the first pair]
    #[arg(long, value_name = "APPID")]
    appid: Option<String>,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[arg(long, value_name = "NAME", default_value = GROUP_JOIN, help = events::help(),
          value_parser = Named::any(events::names()), hide_possible_values = true)]
    event: String,
    #[arg(long, value_name = "NAME", help = scenario::help(),
          value_parser = Named::of(Scenario::named, Scenario::names()), hide_possible_values = true)]
    scenario: Option<Scenario>,
    /// Number that determines the contents of the callbacks, to send the same ones again, but for
    /// their times and signatures [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Callbacks per second [default: as fast as they are answered]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Stop after this many callbacks [default: 1, or no limit with --duration]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    duration: Option<Duration>,
    /// Number of groups and of rooms; there are ten times as many users
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    groups: u64,
    /// Most requests at the same time
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// Print the summary as one JSON object, described by schemas/send-summary.schema.json
    #[arg(long)]
    json: bool,
    /// Only print a freshly signed body and a curl command that posts it
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(args: Args, mut faults: Faults, stop: &Stop) -> Result<(), Failure> {
    let uri = faults.take(parse(&args.url));
    let events = faults.take(Sequence::named(&args.event));
    let is_usable = |rate: f64| (MIN_RATE..f64::INFINITY).contains(&rate);
    if !args.rate.is_none_or(is_usable) {
        faults.add(ConfigError::of_flag(
            "--rate",
            format!("is not a number from {MIN_RATE} on; write 10"),
        ));
    }
    if args.json && args.print {
        faults.add(ConfigError::of_flag(
            "--json",
            "is for the summary, which --print does not have; leave out one of them",
        ));
    }
    let (secrets, ca) = (args.secrets.clone(), args.ca.clone());
    let read = move || {
        let secrets = faults.take(config::secrets(&secrets));
        let authorities = |uri: &Uri| AUTHORITIES.read(std::slice::from_ref(uri), ca.as_deref());
        let authorities = uri.as_ref().map(authorities);
        let authorities = authorities.and_then(|authorities| faults.take(authorities));
        faults.finish(secrets.zip(uri).zip(events).zip(authorities))
    };
    let settings = unless_stopped(stop, async { Ok(blocking(read).await??) }).await?;
    let ((((secrets, _), url), events), authorities) = settings;
    let signer = Signer::new(&secrets, args.appid.as_deref(), args.groups)?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let callbacks = Callbacks::new(signer, events, args.scenario, seed);
    if args.print {
        return print(&args, callbacks).await;
    }
    let load = Load {
        client: HttpClient::trusting(authorities),
        url,
        callbacks,
        rate: args.rate,
        count: args.count.or_else(|| args.duration.is_none().then_some(1)),
        duration: args.duration,
        concurrency: args.concurrency,
        pauses: match args.scenario {
            // Every attempt would be answered the same.
            Some(Scenario::WrongSecret) => Vec::new(),
            _ => RETRY_PAUSES.to_vec(),
        },
    };
    let summary = load.run(stop).await;
    match args.json {
        true => output::print(summary.json()).await?,
        false => output::print(&summary).await?,
    }
    if summary.given_up > 0 {
        return Err(Failure::Reported);
    }
    Ok(())
}

/// Prints one callback: each body, with the command that posts it.
async fn print(args: &Args, mut callbacks: Callbacks) -> Result<(), Failure> {
    let ca = args.ca.as_deref().map(|ca| ca.to_string_lossy());
    let number = callbacks.any_number();
    let posts = callbacks.posts(number, sample::now());
    let posts = posts.iter().map(|post| {
        let curl = sample::curl(&args.url, ca.as_deref(), post);
        format!("{}\n\n{curl}", post.body)
    });
    output::print(posts.collect::<Vec<_>>().join("\n\n")).await
}

fn parse(url: &str) -> Result<Uri, ConfigError> {
    const WRITE: &str = "write http://host:port/path";
    let invalid = |problem: String| ConfigError::of_flag("--url", problem);
    let uri: Uri = (url.parse()).map_err(|error| invalid(format!("{error}; {WRITE}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        (Some(scheme), Some(_)) => Err(invalid(format!(
            "{scheme}:// is neither HTTP nor HTTPS; {WRITE}"
        ))),
        _ => Err(invalid(format!("is not a URL with a host; {WRITE}"))),
    }
}

#[cfg(test)]
mod tests;
