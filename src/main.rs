//! Runs a command and ends with its exit code: 0 success, 1 failure, 2 invalid usage or
//! configuration.

/// Replaces `malloc` for the C libraries too. A callback makes about fifty small allocations, half
/// of them freed on another thread. With the system's allocator that is 5 of 34 µs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::panic;
use std::process::{self, ExitCode};
use std::thread;

use zim2kafka::commands::{self, Cli, Failure, Stop};

/// The name of tokio's threads. A panic there fails one request, or ends the service if it is in a
/// task that `server::run` watches.
const WORKER_THREAD_NAME: &str = "worker";

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(failure) = commands::start_log(&cli) {
        return report(&failure);
    }
    abort_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name(WORKER_THREAD_NAME)
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .expect("a runtime needs only threads");
    let result = runtime.block_on(async {
        let stop = Stop::listen();
        tokio::select! {
            result = commands::run(cli, &stop) => result,
            () = stop.second() => Err(Failure::Failed("stopped by a second signal".to_owned())),
        }
    });
    // Calls that still block, such as a DNS lookup of a broker, do not delay the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// Half as many as there are cores: librdkafka and delivery have threads of their own, and with more
/// workers than work, each answer wakes a second one for nothing.
fn worker_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

fn report(failure: &Failure) -> ExitCode {
    for message in failure.messages() {
        eprintln!("error: {message}");
    }
    ExitCode::from(failure.exit_code())
}

/// A panic in a publisher, which also takes Kafka's reports, would leave a process that looks
/// healthy but persists nothing, so abort. That loses no event that was answered with 2xx.
fn abort_on_panic() {
    let default_hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        default_hook(panic);
        if thread::current().name() != Some(WORKER_THREAD_NAME) {
            process::abort();
        }
    }));
}
