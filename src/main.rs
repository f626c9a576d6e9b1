//! The commands and their exit codes: 0 fine, 1 failed, 2 wrong usage or configuration.

/// Ours and, since it stands in for `malloc` too, the C libraries': a callback is some fifty small
/// allocations, half of them freed on another thread, and that costs the system's own 5 µs of 34.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::panic;
use std::process::{self, ExitCode};
use std::thread;

use zim2kafka::commands::{self, Cli, Failure, Stop};
use zim2kafka::config;

/// The name of the threads that run requests. A panic there is one failed request.
const WORKER: &str = "worker";

fn main() -> ExitCode {
    let cli: Cli = match config::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(failure) = commands::start_log(&cli) {
        return say(&failure);
    }
    end_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name(WORKER)
        .enable_all()
        .build()
        .expect("a runtime needs only threads");
    let result = runtime.block_on(async {
        let stop = Stop::listen();
        tokio::select! {
            result = commands::run(cli, &stop) => result,
            () = stop.second() => Err(Failure::Failed("stopped at once by a second signal".to_owned())),
        }
    });
    // What still blocks, such as a lookup at a Kafka that is away, does not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => say(&failure),
    }
}

fn say(failure: &Failure) -> ExitCode {
    if !failure.is_said() {
        eprintln!("error: {failure}");
    }
    ExitCode::from(failure.exit_code())
}

/// A panic in a feeder, which also hears Kafka's reports, would leave a service that looks alive and
/// makes nothing safe. It is better dead: nothing promised is lost by that.
fn end_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        if thread::current().name() != Some(WORKER) {
            process::abort();
        }
    }));
}
