//! Runs a command and ends with its exit code: 0 success, 1 failure, 2 invalid usage or
//! configuration.

/// Replaces `malloc` for the C libraries too. A callback makes about fifty small allocations, half
/// of them freed on another thread. With the system's allocator that is 5 of 34 µs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::io;
use std::panic;
use std::process::{self, ExitCode};
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};
use zim2kafka::commands::{self, Failure, Stop};
use zim2kafka::log;

/// The name of tokio's threads. A panic there fails one request, or ends the service if it is in a
/// task that `server::run` watches.
const WORKER_THREAD_NAME: &str = "worker";

fn main() -> ExitCode {
    turn_off_core_dumps();
    log::start();
    abort_on_panic();
    let result = run();
    if let Err(failure) = &result {
        for message in failure.messages() {
            log::print_failure(&message);
        }
    }
    log::flush();
    result.map_or_else(
        |failure| ExitCode::from(failure.exit_code()),
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name(WORKER_THREAD_NAME)
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .map_err(cannot_start)?;
    let entered = runtime.enter();
    commands::handle_file_size_limit().map_err(cannot_start)?;
    let Some(cli) = commands::parse(std::env::args_os())? else {
        return Ok(());
    };
    commands::start_log(&cli)?;
    drop(entered);
    let result = runtime.block_on(async {
        let stop = Stop::listen();
        tokio::select! {
            result = commands::run(cli, &stop) => result,
            () = stop.second() => Err(Failure::Failed("stopped by a second signal".to_owned())),
        }
    });
    // Calls that still block, such as a DNS lookup of a broker, do not delay the exit.
    runtime.shutdown_background();
    result
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::System(
        "cannot start; raise the limits of threads (ulimit -u) and open files (ulimit -n)",
        error,
    )
}

/// The memory holds secrets, signatures and bodies, which a core dump would write to a disk. The
/// limit is for systems other than Linux, which ignores it if a program takes the dumps, as
/// systemd-coredump does.
fn turn_off_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Lowering a limit cannot fail. If it did, no other call would help.
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Half as many as there are cores: librdkafka and delivery have threads of their own, and with more
/// workers than work, each answer wakes a second one for nothing.
fn worker_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// A panic in a publisher, which also takes Kafka's reports, would leave a process that looks
/// healthy but persists nothing, so abort. That loses no event that was answered with 2xx.
fn abort_on_panic() {
    panic::set_hook(Box::new(|panic| {
        log::print_panic(panic);
        if thread::current().name() != Some(WORKER_THREAD_NAME) {
            log::flush();
            process::abort();
        }
    }));
}
