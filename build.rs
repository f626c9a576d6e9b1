//! Embeds the revision and the schemas of events in the program, and reports missing build tools.

#![expect(
    clippy::disallowed_methods,
    reason = "nothing else runs beside a build script"
)]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

/// The tools that build librdkafka and OpenSSL from their C sources.
const TOOLS: [&str; 5] = ["cc", "c++", "make", "perl", "bash"];

fn main() {
    println!("cargo::rerun-if-env-changed=ZIM2KAFKA_REVISION");
    // A missing file would count as changed in every build.
    for file in ["build.rs", ".git/HEAD", ".git/refs/heads"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| is_missing(tool)).collect();
    if !missing.is_empty() {
        // Reported here because this script runs first. Without it, the build fails minutes later
        // with an error that does not name the tool.
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
    embed_schemas();
}

/// Writes a list of pairs, the `$id` and the text of each schema with a version, for `include!`.
fn embed_schemas() {
    println!("cargo::rerun-if-changed=schemas");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let entries = fs::read_dir(&folder).expect("there is a folder schemas");
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let pair = |file: &PathBuf| {
        let name = file.file_name()?.to_str()?;
        let (name, version) = name.strip_suffix(".schema.json")?.rsplit_once('.')?;
        let id = format!("urn:zim2kafka:schema:{name}:{version}");
        Some(format!("({id:?}, include_str!({file:?})),\n"))
    };
    let list = format!("&[\n{}]", files.iter().filter_map(pair).collect::<String>());
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("schemas.rs"), list).expect("cargo's folder can be written to");
}

/// Compilers that are set by `CC` and `CXX` are not checked.
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

/// `None` in a source archive or on a machine without git.
fn from_git() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| revision.trim().to_owned())
}
