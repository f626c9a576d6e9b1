//! Tells the program which revision it was built from, and a machine what it lacks.

#![expect(
    clippy::disallowed_methods,
    reason = "nothing else runs beside a build script"
)]

use std::io::ErrorKind;
use std::path::Path;
use std::process::{self, Command, Stdio};

/// What librdkafka and OpenSSL, which are built from their C sources, are built with.
const TOOLS: [&str; 5] = ["cc", "c++", "make", "perl", "bash"];

fn main() {
    println!("cargo::rerun-if-env-changed=ZIM2KAFKA_REVISION");
    // A file that is missing would count as changed at every build.
    for file in ["build.rs", ".git/HEAD", ".git/refs/heads"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| is_missing(tool)).collect();
    if !missing.is_empty() {
        // Said here because this script runs first: what fails without them minutes later does not say it.
        println!(
            "cargo::error=building needs {}; install what is missing (Debian: apt-get install gcc g++ make perl bash) and run the same command again",
            missing.join(", ")
        );
        process::exit(1);
    }
    let revision = std::env::var("ZIM2KAFKA_REVISION")
        .ok()
        .filter(|revision| !revision.is_empty())
        .or_else(from_git)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=ZIM2KAFKA_REVISION={revision}");
}

/// Whoever names compilers of their own knows what they do.
fn is_missing(tool: &str) -> bool {
    let own = match tool {
        "cc" => std::env::var_os("CC"),
        "c++" => std::env::var_os("CXX"),
        _ => None,
    };
    if own.is_some() {
        return false;
    }
    let mut command = Command::new(tool);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .status()
        .is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// A source archive, or a machine without git, has no revision to tell.
fn from_git() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| revision.trim().to_owned())
}
