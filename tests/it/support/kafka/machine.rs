//! Where the Java programs of one cluster run, and how nothing of them stays behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::distribution::{Distribution, FILES, Image, distribution, said_by};
use crate::support::start::Start;

/// A folder of its own, and this machine or a container to run Java in. A container sees the folder
/// and `tests/kafka` under the same paths, and its published ports are ports of this machine, so
/// that nobody else needs to know of it.
pub(crate) struct Machine {
    distribution: &'static Distribution,
    jvm: Jvm,
    folder: PathBuf,
    container: Option<String>,
    leash: Child,
}

/// What Java is told to be good at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Jvm {
    /// Quick to start rather than quick in the long run: a broker lives for minutes, beside the
    /// tests.
    QuickStart,
    /// What Kafka's own scripts start a broker with, for whoever measures. It is at its best after
    /// half a minute under load.
    #[allow(dead_code, reason = "the benchmarks' only, which share this file")]
    Server,
}

impl Jvm {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::QuickStart => &["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"],
            // kafka-server-start.sh and kafka-run-class.sh of Kafka 4.
            Self::Server => &[
                "-Xmx1G",
                "-Xms1G",
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ],
        }
    }
}

impl Machine {
    /// # Errors
    ///
    /// That there is no Kafka to run, or what Docker said when the container didn't start.
    pub(crate) fn start(jvm: Jvm, published_ports: &[u16]) -> Result<Machine, String> {
        let distribution = distribution()?;
        // Not a folder that deletes itself: the leash does that, however this process ends.
        let folder = tempfile::Builder::new()
            .prefix("zim2kafka-test-")
            .tempdir()
            .map_err(|error| format!("no temporary folder: {error}"))?
            .keep();
        let container = distribution.image.as_ref().map(|_| {
            let name = folder.file_name().expect("a temporary folder has a name");
            name.to_string_lossy().into_owned()
        });
        if let Some(name) = &container {
            fs::write(folder.join("container"), name).map_err(|error| error.to_string())?;
        }
        let machine = Machine {
            leash: leash(&folder)?,
            distribution,
            jvm,
            folder,
            container,
        };
        if let (Some(image), Some(name)) = (&distribution.image, &machine.container) {
            start_container(image, name, &machine.folder, published_ports)?;
        }
        Ok(machine)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where servers listen: in a container, connections to published ports come from outside.
    pub(crate) fn listen_address(&self) -> &'static str {
        if self.container.is_some() {
            "0.0.0.0"
        } else {
            "127.0.0.1"
        }
    }

    /// Java with Kafka's jars; the caller adds the class, or the source file, and its arguments.
    pub(crate) fn java(&self) -> Command {
        self.command(&self.distribution.java, &self.java_options(Jvm::QuickStart))
    }

    /// The same in the background: its outputs go to `console.log` and its process id to `pid`,
    /// both in `folder`. The shell becomes Java (`exec`), so the leash knows the id before there is
    /// anything to kill.
    pub(crate) fn java_in_background(&self, folder: &Path) -> Command {
        let shell =
            "folder=$1; shift; echo $$ >\"$folder/pid\"; exec \"$@\" >\"$folder/console.log\" 2>&1";
        let mut arguments: Vec<String> = ["-c", shell, "sh"].map(str::to_owned).to_vec();
        arguments.push(folder.display().to_string());
        arguments.push(self.distribution.java.display().to_string());
        arguments.extend(self.java_options(self.jvm));
        let mut command = self.command(Path::new("sh"), &arguments);
        // A process group of its own: a ctrl-c is for the tests, whose end then ends the broker.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub(crate) fn keytool(&self) -> Command {
        self.command(&self.distribution.keytool, &[])
    }

    /// Sends a signal, as `kill` names it, to the process that [`Machine::java_in_background`]
    /// started in `folder`.
    pub(crate) fn signal(&self, folder: &Path, name: &str) -> Result<(), String> {
        let shell = format!("kill -{name} \"$(cat '{}/pid')\"", folder.display());
        said_by(&mut self.command(Path::new("sh"), &["-c".to_owned(), shell])).map(drop)
    }

    fn java_options(&self, jvm: Jvm) -> Vec<String> {
        let jvm = jvm.options().iter().map(|&option| option.to_owned());
        let ours = [
            // Java 17 still reads source files in the locale's encoding, ASCII on a bare machine.
            "-Dfile.encoding=UTF-8".to_owned(),
            format!("-Dlog4j2.configurationFile={FILES}/log4j2.properties"),
            "-cp".to_owned(),
            self.distribution.class_path.clone(),
        ];
        jvm.chain(ours).collect()
    }

    fn command(&self, program: &Path, arguments: &[String]) -> Command {
        let mut command = match &self.container {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("docker");
                command.args(["exec", name]).arg(program);
                command
            }
        };
        command.args(arguments).current_dir(&self.folder);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Letting go is what the end of the process does too; waiting makes sure that it has
        // worked.
        drop(self.leash.stdin.take());
        let _ = self.leash.wait();
    }
}

/// Starts `leash.sh`. Rust opens pipes close-on-exec, so no other child holds this one's write end.
fn leash(folder: &Path) -> Result<Child, String> {
    Command::new("sh")
        .arg(Path::new(FILES).join("leash.sh"))
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .start()
        .map_err(|error| format!("`sh` cannot be run: {error}"))
}

/// A container that does nothing but be there to run things in (`docker exec`) until it is removed:
/// the brokers of one cluster share its loopback, and one that is killed leaves its neighbours
/// alone.
fn start_container(
    image: &Image,
    name: &str,
    folder: &Path,
    published_ports: &[u16],
) -> Result<(), String> {
    let owner = fs::metadata(folder).map_err(|error| error.to_string())?;
    let user = if image.rootless {
        "0:0".to_owned()
    } else {
        format!("{}:{}", owner.uid(), owner.gid())
    };
    let folder = folder.display();
    let mut run = Command::new("docker");
    run.args(["run", "--detach", "--rm", "--name", name, "--user", &user]);
    // Without this, SELinux keeps the container from the two folders; elsewhere it does nothing.
    run.args(["--security-opt", "label=disable"]);
    run.args(["--volume", &format!("{folder}:{folder}")]);
    run.args(["--volume", &format!("{FILES}:{FILES}:ro")]);
    run.args(["--workdir", &folder.to_string()]);
    for port in published_ports {
        run.args(["--publish", &format!("127.0.0.1:{port}:{port}")]);
    }
    run.args(["--entrypoint", "sleep", &image.tag, "infinity"]);
    said_by(&mut run).map(drop)
}
