//! Tells the program which revision it was built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ZIM2KAFKA_REVISION");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    let revision = std::env::var("ZIM2KAFKA_REVISION")
        .ok()
        .filter(|revision| !revision.is_empty())
        .or_else(from_git)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=ZIM2KAFKA_REVISION={revision}");
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
