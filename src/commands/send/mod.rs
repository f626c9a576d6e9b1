//! `send`: acts as the sender.

pub(super) mod events;
mod load;
pub(super) mod sample;
mod variation;

use std::time::Duration;

use hyper::Uri;

use super::{Failure, Stop, output, read_settings};
use crate::config::{self, ConfigError, Faults, SecretsArgs};
use crate::event::GROUP_JOIN;
use events::Sequence;
use load::{Load, RETRY_PAUSES};
use sample::Signer;

/// The lowest rate: a callback in 17 minutes. With less the command looks as if it hung.
const MIN_RATE: f64 = 0.001;

/// The flags of `send`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// URL to post to (http only)
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080/callbacks/zim"
    )]
    url: String,
    /// Application whose secret signs [default: that of the first pair]
    #[arg(long, value_name = "APPID")]
    appid: Option<String>,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[arg(long, value_name = "NAME", default_value = GROUP_JOIN, help = events::help())]
    event: String,
    /// Callbacks per second [default: as fast as they are answered]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Stop after this many callbacks [default: 1, or no limit with --duration]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    duration: Option<Duration>,
    /// Number of groups and of rooms; there are ten times as many users
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    groups: u64,
    /// Most requests at the same time
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
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
    let read = move || {
        let secrets = faults.take(config::secrets(&args.secrets));
        faults.finish(secrets.zip(uri).zip(events))
    };
    let Some((((secrets, _), uri), events)) = read_settings(stop, read).await? else {
        return Ok(());
    };
    let signer = Signer::new(&secrets, args.appid.as_deref(), args.groups)?;
    if args.print {
        let body = signer.callback(events.at(rand::random()), 0, sample::now());
        let curl = sample::curl(&args.url, &body);
        return output::print(format!("{body}\n\n{curl}")).await;
    }
    let load = Load {
        url: uri,
        signer,
        events,
        rate: args.rate,
        count: args.count.or_else(|| args.duration.is_none().then_some(1)),
        duration: args.duration,
        concurrency: args.concurrency,
        pauses: RETRY_PAUSES,
    };
    let summary = load.run(stop).await;
    output::print(&summary).await?;
    if summary.given_up() > 0 {
        return Err(Failure::Reported);
    }
    Ok(())
}

fn parse(url: &str) -> Result<Uri, ConfigError> {
    const WRITE: &str = "write http://host:port/path";
    let invalid = |problem: String| ConfigError::of_flag("--url", problem);
    let uri: Uri = (url.parse()).map_err(|error| invalid(format!("{error}; {WRITE}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(_)) => Ok(uri),
        (Some("https"), _) => Err(invalid(
            "`send` supports plain HTTP only; send to a service without ZIM2KAFKA_TLS_CERT, behind the TLS proxy"
                .to_owned(),
        )),
        _ => Err(invalid(format!("is not a URL with a host; {WRITE}"))),
    }
}

#[cfg(test)]
mod tests;
