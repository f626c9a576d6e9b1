//! A process under measurement, by the figures of the kernel.

use std::fs;
use std::process::Child;
use std::time::Duration;

pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn cpu(&self) -> Duration {
        cpu(&self.0.id().to_string())
    }

    pub(crate) fn rss_mb(&self) -> f64 {
        rss_mb(&self.0.id().to_string())
    }

    pub(crate) fn threads(&self) -> usize {
        let threads = status(&self.0.id().to_string(), "Threads:");
        threads.parse().expect("a number")
    }
}

/// User and system time of all threads of a process, given by its id or as `self`.
pub(crate) fn cpu(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    // The name, in brackets, may contain spaces. User and system time are fields 14 and 15, in
    // ticks of 10 ms (proc(5)).
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 = (fields.split(' ').skip(11).take(2))
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// The resident memory of a process.
pub(crate) fn rss_mb(process: &str) -> f64 {
    let memory = status(process, "VmRSS:");
    let kilobytes = memory.trim_end_matches(" kB");
    kilobytes.parse::<f64>().expect("a number") / 1024.0
}

/// A line of the status of a process (proc(5)), without its name.
fn status(process: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel has it").trim().to_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
