//! One file a command, and what they share: the command line, how they fail, how they stop.

mod check;
mod client;
mod demo;
mod healthcheck;
mod send;
mod serve;
mod tail;

use std::io::{self, IsTerminal};

use clap::{CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::config::{self, ConfigError, LogArgs, LogFormat};
use crate::delivery::kafka;
use crate::server::ServerError;

/// Receives the signed callbacks of ZEGOCLOUD In-app Chat and publishes them, keyed by group, to Kafka
#[derive(Debug, Parser)]
#[command(
    name = "zim2kafka",
    version = version(),
    after_help = "Secrets and Kafka properties are set by variables only:\n  \
        ZIM2KAFKA_CALLBACK_SECRETS  appid=secret,appid=secret with the CallbackSecret from ZEGOCLOUD's\n                              console; the same appid twice = rotation; *=secret for other appids\n  \
        ZIM2KAFKA_KAFKA_PROPERTIES  librdkafka properties, key=value, separated by new lines or ;\n\n\
        Every setting of `serve` is explained by `zim2kafka serve --help`. Exit codes: 0 fine, 1 failed,\n\
        2 wrong usage or configuration."
)]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Args),
    /// Show the service at work: an in-process Kafka, signed sample callbacks, a subscriber
    Demo(demo::Args),
    /// Play the sender: post signed callbacks, with ZEGOCLOUD's retry schedule
    Send(send::Args),
    /// Subscribe to the topic and print its records, one JSON object a line
    Tail(tail::Args),
    /// Look at the configuration, at Kafka and at the topics, and say what weakens a promise
    Check(check::Args),
    /// Ask a running service whether it is ready
    Healthcheck(healthcheck::Args),
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be taken.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The usage cannot be taken.
    #[error("{0}")]
    Usage(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It failed, and has said so itself.
    #[error("failed")]
    Said,
}

impl Failure {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Failed(_) | Self::Said => 1,
        }
    }

    /// Whether nothing more is to be printed.
    pub fn is_said(&self) -> bool {
        matches!(self, Self::Said)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<kafka::Error> for Failure {
    fn from(error: kafka::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the command.
///
/// # Errors
///
/// [`Failure`], which knows the exit code.
pub async fn run(cli: Cli, stop: &Stop) -> Result<(), Failure> {
    for warning in config::unknown_variables(&Cli::command()) {
        tracing::warn!("{warning}");
    }
    match cli.command {
        Command::Serve(args) => serve::run(args, stop).await,
        Command::Demo(args) => demo::run(args, stop).await,
        Command::Send(args) => send::run(args, stop).await,
        Command::Tail(args) => tail::run(args, stop).await,
        Command::Check(args) => check::run(args).await,
        Command::Healthcheck(args) => healthcheck::run(args).await,
    }
}

/// Starts the log, to stderr: stdout belongs to results.
///
/// # Errors
///
/// Where the filter is none.
pub fn start_log(cli: &Cli) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&cli.log.log).map_err(|error| {
        Failure::Usage(format!(
            "ZIM2KAFKA_LOG: {error}; write a level such as info, or target=level"
        ))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match cli.log.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

/// The signals, counted: SIGTERM and SIGINT ask to stop, SIGHUP to read files again.
pub struct Stop {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, or where the system has no signals.
    pub fn listen() -> Self {
        let (stopped, stops) = watch::channel(0);
        let (hung_up, hangups) = watch::channel(0);
        let mut terminate = signal(SignalKind::terminate()).expect("unix has signals");
        let mut interrupt = signal(SignalKind::interrupt()).expect("unix has signals");
        let mut hangup = signal(SignalKind::hangup()).expect("unix has signals");
        tokio::spawn(async move {
            loop {
                let count = tokio::select! {
                    _ = terminate.recv() => &stopped,
                    _ = interrupt.recv() => &stopped,
                    // Its default is to end the process, and who sends it means to reload.
                    _ = hangup.recv() => &hung_up,
                };
                count.send_modify(|count| *count += 1);
            }
        });
        Self { stops, hangups }
    }

    /// Changes with every SIGHUP.
    pub fn hangups(&self) -> watch::Receiver<u32> {
        self.hangups.clone()
    }

    /// Completes with the first signal: stop in order.
    pub async fn first(&self) {
        self.reached(1).await;
    }

    /// Completes with the second: stop at once.
    pub async fn second(&self) {
        self.reached(2).await;
    }

    async fn reached(&self, wanted: u32) {
        let mut signals = self.stops.clone();
        // The counting task lives as long as the runtime.
        if signals.wait_for(|count| *count >= wanted).await.is_err() {
            std::future::pending().await
        }
    }
}

fn version() -> String {
    format!(
        "{} (revision {}, librdkafka {})",
        env!("CARGO_PKG_VERSION"),
        env!("ZIM2KAFKA_REVISION"),
        kafka::librdkafka_version()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_with_a_variable_is_a_flag_of_the_same_name() {
        for (flag, variable) in config::variables(&Cli::command()) {
            let name = flag
                .trim_start_matches("--")
                .replace('-', "_")
                .to_uppercase();
            assert_eq!(variable, format!("ZIM2KAFKA_{name}"));
        }
    }
}
