//! Where Apache Kafka and a Java to run it come from: its jars by Maven, else its image by a Docker
//! engine.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::start::Start;

/// The oldest Java that Kafka 4's broker runs on.
const OLDEST_JAVA: u32 = 17;

/// The folder of the pom, the broker's settings and the Java programs.
pub(crate) const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka");

/// How to call Java with Kafka's jars.
pub(crate) struct Distribution {
    pub(crate) java: PathBuf,
    pub(crate) keytool: PathBuf,
    pub(crate) class_path: String,
    /// The image that the three above are paths of; without one they are of this machine.
    pub(crate) image: Option<Image>,
}

pub(crate) struct Image {
    pub(crate) tag: String,
    /// A rootless engine maps this user to the container's root, so files made there are ours.
    pub(crate) rootless: bool,
}

/// The distribution, provided once for the process.
///
/// # Errors
///
/// That there is none, why, and how to provide one. This too is remembered: each further test fails
/// at once, instead of asking Maven again.
pub(crate) fn distribution() -> Result<&'static Distribution, String> {
    static DISTRIBUTION: OnceLock<Result<Distribution, String>> = OnceLock::new();
    DISTRIBUTION
        .get_or_init(|| {
            by_maven()
                .or_else(|no_jars| by_docker().map_err(|no_image| how_to(&no_jars, &no_image)))
        })
        .as_ref()
        .map_err(Clone::clone)
}

fn how_to(no_jars: &str, no_image: &str) -> String {
    format!(
        "this test needs an Apache Kafka, and none can be had. One of these provides it:\n  \
         - install a JDK {OLDEST_JAVA} or newer and Maven; Kafka's jars are then downloaded once \
         under target/ (now: {no_jars})\n  \
         - start a Docker engine (now: {no_image})\n  \
         - set ZIM2KAFKA_TEST_BROKERS to the bootstrap servers of a plain cluster that tests may \
         fill; the tests that stop brokers, or log in, still need one of the above\n\
         ZIM2KAFKA_TEST_KAFKA=off leaves out every test that needs Kafka."
    )
}

fn by_maven() -> Result<Distribution, String> {
    let java = of_java_home("java");
    check_java(&java)?;
    Ok(Distribution {
        class_path: format!("{}/*", jars()?.display()),
        keytool: of_java_home("keytool"),
        java,
        image: None,
    })
}

/// The Java that `JAVA_HOME` names goes before the first of `PATH`, as it does for Maven.
fn of_java_home(program: &str) -> PathBuf {
    env::var_os("JAVA_HOME").map_or_else(
        || PathBuf::from(program),
        |home| PathBuf::from(home).join("bin").join(program),
    )
}

fn check_java(java: &Path) -> Result<(), String> {
    // `openjdk 17.0.15 2025-04-15`, or `java 25 2025-09-16 LTS`. Java 8 does not know the option,
    // which is an answer too.
    let said = said_by(Command::new(java).arg("--version"))?;
    let version = said.split_whitespace().nth(1).unwrap_or_default();
    let major = version
        .split(['.', '-', '+'])
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= OLDEST_JAVA) {
        Ok(())
    } else {
        Err(format!("`{} --version` says: {said}", java.display()))
    }
}

/// The folder of Kafka's jars, filled by Maven where it is not there yet for this very pom.
fn jars() -> Result<PathBuf, String> {
    let pom = Path::new(FILES).join("pom.xml");
    let content =
        fs::read_to_string(&pom).map_err(|error| format!("{}: {error}", pom.display()))?;
    let folder = target().join(format!("kafka-{}", kafka_version(&content)));
    let (libs, stamp) = (folder.join("libs"), folder.join("pom.xml"));
    let filled = || libs.is_dir() && fs::read_to_string(&stamp).is_ok_and(|of| of == content);

    // Two test processes may come here at once; the second waits and finds the work done. The
    // system takes the lock from a holder that dies, and the stamp, written last, tells that the
    // work was not.
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let lock = File::create(folder.join("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.map_err(|error| format!("the lock in {}: {error}", folder.display()))?;
    if filled() {
        return Ok(libs);
    }
    let _ = fs::remove_file(&stamp);
    let _ = fs::remove_dir_all(&libs);
    let _ = writeln!(
        std::io::stderr(),
        "the tests ask Maven for the jars of Apache Kafka, once, to {}",
        libs.display()
    );
    said_by(
        Command::new("mvn")
            .args(["--batch-mode", "--quiet", "--file"])
            .arg(&pom)
            .arg("dependency:copy-dependencies")
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", libs.display())),
    )?;
    fs::write(&stamp, &content).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(libs)
}

/// Cargo's target folder, wherever `CARGO_TARGET_DIR` puts it: Cargo gives tests `tmp` inside it.
fn target() -> &'static Path {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp)
}

fn kafka_version(pom: &str) -> &str {
    let (_, from_it) = pom
        .split_once("<kafka.version>")
        .expect("the pom says kafka.version");
    let (version, _) = from_it.split_once("</kafka.version>").expect("and ends it");
    version
}

fn by_docker() -> Result<Distribution, String> {
    // Succeeds only where an engine answers.
    let engine =
        said_by(Command::new("docker").args(["info", "--format", "{{.SecurityOptions}}"]))?;
    let pom =
        fs::read_to_string(Path::new(FILES).join("pom.xml")).map_err(|error| error.to_string())?;
    let dockerfile =
        File::open(Path::new(FILES).join("Dockerfile")).map_err(|error| error.to_string())?;
    let version = kafka_version(&pom);
    let tag = format!("zim2kafka-test-kafka:{version}");
    said_by(
        Command::new("docker")
            .args(["build", "--quiet", "--tag", &tag])
            .args(["--build-arg", &format!("KAFKA_VERSION={version}"), "-"])
            .stdin(dockerfile),
    )?;
    Ok(Distribution {
        java: PathBuf::from("java"),
        keytool: PathBuf::from("keytool"),
        class_path: "/opt/kafka/libs/*".to_owned(),
        image: Some(Image {
            tag,
            rootless: engine.contains("rootless"),
        }),
    })
}

/// The standard output of a command that must succeed.
///
/// # Errors
///
/// The command's name, and why it could not be run or everything it said when it failed.
pub(crate) fn said_by(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .finish()
        .map_err(|error| format!("`{name}` cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complained = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{name}` failed: {} {}",
        said.trim(),
        complained.trim()
    ))
}
