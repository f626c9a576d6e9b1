//! Apicurio Registry, a real one with Confluent's API, from Maven Central.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::kafka::{distribution, said_by};
use crate::support::process::free_address;
use crate::support::start::Start;

const VERSION: &str = "3.0.9";

/// A running registry, which keeps schemas in memory. It ends when this is dropped.
pub(super) struct Apicurio(Child);

impl Apicurio {
    /// A free address for a registry, and its URL there.
    pub(super) fn place() -> (String, String) {
        let address = free_address();
        let url = format!("http://{address}/apis/ccompat/v7");
        (address, url)
    }

    /// Starts it, without waiting until it answers.
    ///
    /// # Errors
    ///
    /// Why it cannot be had.
    pub(super) fn start_at(address: &str) -> Result<Self, String> {
        let java = &distribution()?.java;
        let folder = folder()?;
        let (host, port) = address.split_once(':').expect("host and port");
        let child = Command::new(java)
            .arg(format!("-Dquarkus.http.host={host}"))
            .arg(format!("-Dquarkus.http.port={port}"))
            .args([
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-jar",
            ])
            .arg(format!("apicurio-registry-app-{VERSION}-runner.jar"))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .start();
        child.map(Self).map_err(|error| error.to_string())
    }
}

impl Drop for Apicurio {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder of its jars, filled by Maven once.
fn folder() -> Result<PathBuf, String> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tmp
        .parent()
        .unwrap_or(tmp)
        .join(format!("apicurio-{VERSION}"));
    let done = folder.join("done");
    if done.exists() {
        return Ok(folder);
    }
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    let archive = format!("apicurio-registry-app-{VERSION}-all.tar.gz");
    said_by(
        Command::new("mvn")
            .args(["--batch-mode", "--quiet", "dependency:copy"])
            .arg(format!(
                "-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
            ))
            .arg(format!("-DoutputDirectory={}", folder.display())),
    )?;
    said_by(
        Command::new("tar")
            .args(["--extract", "--gzip", "--file", &archive])
            .current_dir(&folder),
    )?;
    fs::remove_file(folder.join(archive)).map_err(failed)?;
    File::create(done).map_err(failed)?;
    Ok(folder)
}
