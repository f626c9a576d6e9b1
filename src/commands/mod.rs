//! The commands, one file or folder each, and what they share: command line, failures and signals.

mod check;
mod completions;
mod demo;
mod filter;
mod healthcheck;
mod help;
mod manual;
mod names;
mod output;
mod progress;
mod redrive;
mod send;
mod serve;
mod shown;
mod spool;
mod stop;
mod subscriber;
mod tail;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::builder::StyledStr;
use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{self, ConfigError, ConfigErrors, Faults, LogArgs, LogFormat, Setting};
use crate::delivery::StartError;
use crate::kafka;
use crate::log::{self, Chain, Format, LogWriter};
use crate::server::ServerError;
use help::{ENVIRONMENT, EXIT_CODES, HELP_WIDTH, with_short_help};
pub use stop::Stop;

/// Receives the signed callbacks of ZEGOCLOUD In-app Chat and publishes each as a
/// record on Kafka
#[derive(Debug, Parser)]
#[command(
    name = "zim2kafka",
    version = version(),
    after_help = format!("{ENVIRONMENT}\n\n{EXIT_CODES}"),
    max_term_width = HELP_WIDTH,
    mut_subcommands(with_short_help),
)]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
    /// The settings that clap could not parse; each has its default.
    #[arg(skip)]
    faults: Faults,
    /// The settings in force.
    #[arg(skip)]
    settings: Vec<Setting>,
}

impl Cli {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let (cli, faults, settings) = config::parse(arguments)?;
        Ok(Self {
            faults,
            settings,
            ..cli
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    #[command(long_about = serve::LONG_ABOUT)]
    Serve(serve::Args),
    /// Show the service at work with an in-memory Kafka, signed sample callbacks and a subscriber
    Demo(demo::Args),
    /// Act as the sender: post signed callbacks with ZEGOCLOUD's retry schedule
    #[command(after_help = send::EXAMPLES)]
    Send(send::Args),
    /// Subscribe to the topics and print their records, one JSON object per line
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Args),
    /// Judge dead letters again and publish what has become valid
    Redrive(redrive::Args),
    /// Check the configuration, Kafka, the topics and the spool for what weakens a promise
    Check(check::Args),
    /// Show what is in the spool, without changing it
    Spool(spool::Args),
    /// Ask a running service whether it is ready
    Healthcheck(healthcheck::Args),
    /// Print a script that completes the command line in bash, zsh or fish
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Args),
    /// Print the manual page
    #[command(after_help = manual::EXAMPLES)]
    Man,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// The command line, or the configuration, is invalid, and that has been reported.
    #[error("invalid arguments")]
    Arguments,
    /// The service could not start or ended without a signal.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Kafka cannot be used.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A port, or both, cannot be bound.
    #[error("{}", lines(.0))]
    Listen(Vec<ListenError>),
    /// A topic cannot be read.
    #[error(
        "cannot read the topic {topic}: {source}; check ZIM2KAFKA_KAFKA_BROKERS and the right Read"
    )]
    Topic {
        /// The topic.
        topic: String,
        /// Why.
        source: kafka::Error,
    },
    /// A system call failed.
    #[error("{0}")]
    System(&'static str, #[source] io::Error),
    /// The result cannot be printed.
    #[error(
        "cannot write to stdout: {0}; check its disk and the limit of file sizes (ulimit -f), or send it elsewhere"
    )]
    Output(io::Error),
    /// The other end has closed stdout, as `head` does. It has all that it needs, so this is not an
    /// error.
    #[error("stdout was closed by its other end")]
    StdoutClosed,
    /// Anything else, in words.
    #[error("{0}")]
    Failed(String),
    /// It has reported its failure itself.
    #[error("failed")]
    Reported,
}

/// Why a port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", self.advice())]
pub struct ListenError {
    address: SocketAddr,
    /// The variable that sets it.
    variable: &'static str,
    source: io::Error,
}

impl ListenError {
    fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    fn advice(&self) -> String {
        let Self {
            address, variable, ..
        } = self;
        let port = address.port();
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "the user of this process may not use port {port}; set {variable} to a port from 1024 on, such as {}, or grant CAP_NET_BIND_SERVICE",
                SocketAddr::new(address.ip(), 8080)
            ),
            _ => format!("free the port or set {variable} to another"),
        }
    }
}

fn lines(errors: &[ListenError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.into())
    }
}

impl Failure {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Usage(_)
            | Self::Arguments
            | Self::Server(ServerError::Delivery(StartError::NoTopic(_))) => 2,
            Self::StdoutClosed => 0,
            _ => 1,
        }
    }

    /// The error messages with their causes, one for each fault; none if it has been reported.
    pub fn messages(&self) -> Vec<String> {
        match self {
            Self::Arguments | Self::Reported | Self::StdoutClosed => Vec::new(),
            Self::Config(errors) => errors.iter().map(ToString::to_string).collect(),
            Self::Listen(errors) => errors.iter().map(ToString::to_string).collect(),
            other => vec![Chain(other).to_string()],
        }
    }
}

/// Parses the arguments and the variables. `None` if they asked for help, which is printed. The
/// faults of settings are reported by [`run`], with those that it finds.
///
/// # Errors
///
/// [`Failure::Arguments`] if they are not a command line, or why help cannot be printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Cli>, Failure> {
    let error = match Cli::parse(arguments) {
        Ok(cli) => return Ok(Some(cli)),
        Err(error) => error,
    };
    let text = error.render();
    if error.use_stderr() {
        log::print(&styled(&text, &io::stderr()));
        return Err(Failure::Arguments);
    }
    output::write(&styled(&text, &io::stdout()))?;
    Ok(None)
}

/// The text with its colours if the file takes some.
fn styled(text: &StyledStr, file: &impl RawStream) -> String {
    match AutoStream::choice(file) {
        ColorChoice::Never => text.to_string(),
        _ => text.ansi().to_string(),
    }
}

/// From now on, a write beyond the limit of file sizes is an error like a full disk. The signal
/// would end the process.
///
/// # Errors
///
/// If the system does not allow a handler.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn handle_file_size_limit() -> io::Result<()> {
    // The handler stays when this is dropped.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Runs `work` on a blocking thread and waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Failure::System("a part of the command failed", io::Error::other(panic)))
}

/// Reads settings on a blocking thread, because a pipe without a writer or a disk that does not
/// answer holds it up. `None` if a signal asks to stop before they are read.
async fn read_settings<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    stop: &Stop,
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<Option<T>, Failure> {
    tokio::select! {
        settings = blocking(read) => settings?.map(Some).map_err(Into::into),
        () = stop.first() => Ok(None),
    }
}

/// Runs a command that a signal ends at once. That is a failure: the command has no result.
async fn unless_stopped<T>(
    stop: &Stop,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        // After a signal the runtime ends, and polling one of its timers would panic.
        biased;
        () = stop.first() => Err(Failure::Failed("stopped by a signal".to_owned())),
        result = command => result,
    }
}

/// Runs the command.
///
/// # Errors
///
/// [`Failure`], which has the exit code.
pub async fn run(cli: Cli, stop: &Stop) -> Result<(), Failure> {
    // `check` has findings instead.
    if !matches!(cli.command, Command::Check(_)) {
        for warning in config::unknown_variables(&Cli::command()) {
            tracing::warn!("{warning}");
        }
    }
    let (faults, settings) = (cli.faults, cli.settings);
    match cli.command {
        Command::Serve(args) => serve::run(args, faults, settings, stop).await,
        Command::Demo(args) => demo::run(args, faults, settings, stop).await,
        Command::Send(args) => send::run(args, faults, stop).await,
        Command::Tail(args) => tail::run(args, faults, &settings, stop).await,
        Command::Redrive(args) => redrive::run(args, faults, stop).await,
        Command::Check(args) => {
            // On a blocking thread, because it reads settings too.
            let (runtime, signals) = (Handle::current(), stop.clone());
            let check = move || {
                runtime.block_on(unless_stopped(&signals, check::run(args, faults, settings)))
            };
            unless_stopped(stop, blocking(check)).await?
        }
        Command::Spool(args) => {
            unless_stopped(stop, blocking(move || spool::run(args, faults))).await?
        }
        Command::Healthcheck(args) => healthcheck::run(args, faults).await,
        Command::Completions(args) => completions::run(args, faults).await,
        Command::Man => manual::run(faults).await,
    }
}

/// Starts the log on stderr, because stdout is for results.
///
/// # Errors
///
/// If the filter is invalid.
pub fn start_log(cli: &Cli) -> Result<(), Failure> {
    log::set_format(match cli.log.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    });
    let filter: Targets = cli.log.log.parse().map_err(|error| {
        Failure::Usage(format!(
            "ZIM2KAFKA_LOG: {error}; write a level such as info, or target=level"
        ))
    })?;
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(|| LogWriter)
        // `tracing` would write them to stderr directly and wait for it.
        .log_internal_errors(false)
        .with_ansi(log::is_terminal());
    match cli.log.log_format {
        LogFormat::Text => log.finish().with(filter).init(),
        LogFormat::Json => {
            let log = log.json().flatten_event(true);
            log.finish().with(filter).init();
        }
    }
    Ok(())
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
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_port_that_cannot_be_bound_gets_advice_by_its_reason() {
        let message = |address: &str, kind: io::ErrorKind| {
            let error = ListenError {
                address: address.parse().expect("an address"),
                variable: "ZIM2KAFKA_LISTEN",
                source: kind.into(),
            };
            let failure = Failure::Listen(vec![error]);
            (failure.exit_code(), failure.messages().join("\n"))
        };
        let (code, text) = message("0.0.0.0:80", io::ErrorKind::PermissionDenied);
        assert_eq!(code, 1);
        assert_eq!(
            text,
            "cannot listen on 0.0.0.0:80: permission denied; the user of this process may not use port 80; set ZIM2KAFKA_LISTEN to a port from 1024 on, such as 0.0.0.0:8080, or grant CAP_NET_BIND_SERVICE"
        );
        let (code, text) = message("0.0.0.0:80", io::ErrorKind::AddrInUse);
        assert_eq!(code, 1);
        assert!(
            text.ends_with("; free the port or set ZIM2KAFKA_LISTEN to another"),
            "{text}"
        );
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
