//! Files of secrets and certificates that cannot be read, that never end, or that hold something
//! else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::SerialNumber;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustls::version::TLS13;
use serde_json::json;
use tempfile::TempDir;

use super::reload::{NOT_AFTER, SUCCESSFUL, status, until};
use crate::support::app::callback;
use crate::support::process::{Process, Service, run, zim2kafka};
use crate::support::tls::{Authority, write};
use crate::support::wire::Wire;

const FILE: &str = "ZIM2KAFKA_CALLBACK_SECRETS_FILE";

/// A folder with a file of secrets, and a certificate.
struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let authority = Authority::new();
        authority.write(2090);
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, authority }
    }

    fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    /// A service with these secrets, over plain HTTP or with the certificate.
    fn serve(&self, tls: bool) -> Service {
        let secrets = self.secrets();
        let mut variables = vec![
            ("ZIM2KAFKA_CALLBACK_SECRETS", String::new()),
            (FILE, secrets.to_str().expect("text").to_owned()),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off".to_owned()),
        ];
        if tls {
            variables.extend(self.authority.variables());
        }
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let service = Service::embedded(&["--drain-delay=0s"], &variables);
        service.ready();
        service
    }

    /// Replaces the certificate, and waits until the service has it.
    async fn certificate_is_replaced(&self, service: &Service) {
        let before = service.metric(NOT_AFTER);
        self.authority.write(2095);
        until("the certificate is replaced", async || {
            service.metric(NOT_AFTER) > before
        })
        .await;
    }

    /// A callback over TLS.
    async fn post(&self, service: &Service) -> u16 {
        let stream = self.authority.connect(service.callbacks, &[&TLS13]).await;
        let mut wire = Wire::over(stream.expect("a handshake"));
        wire.post(callback(json!({}))).await.status.as_u16()
    }
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

async fn becomes(service: &Service, wanted: f64) {
    until(&format!("{SUCCESSFUL} is {wanted}"), async || {
        (service.metric(SUCCESSFUL) - wanted).abs() < 0.5
    })
    .await;
}

/// Holds a file, so that opening it waits until the holder ends, or for as long as
/// `/proc/sys/fs/lease-break-time` allows, which is 45 s.
fn hold(path: &Path) -> Process {
    // F_SETLEASE, F_WRLCK. It fails while another process has the file open.
    const HOLD: &str = "open my $file, '+<', $ARGV[0] or die; $SIG{IO} = 'IGNORE'; \
        until (fcntl($file, 1024, 1)) { $!{EAGAIN} or die $!; select(undef, undef, undef, 0.01) } \
        $| = 1; print 'held'; sleep 600";
    let mut command = Command::new("perl");
    command.args(["-MErrno", "-e", HOLD]).arg(path);
    let mut holder = Process::start(command);
    holder.prints("held");
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_from_a_pipe_are_read_once_and_hold_up_neither_certificate_nor_sighup() {
    let files = Files::new();
    let path = files.secrets();
    pipe(&path);
    let writer = std::thread::spawn(move || {
        // Opening waits for a reader.
        let mut pipe = OpenOptions::new().write(true).open(path)?;
        pipe.write_all(b"1=secret\n")
    });
    let mut service = files.serve(true);
    writer.join().expect("no panic").expect("it was read");
    service.process.logs("is a pipe, so it was read once");
    assert_eq!(files.post(&service).await, 200);
    files.certificate_is_replaced(&service).await;
    assert_eq!(service.metric(SUCCESSFUL), 1.0);

    service.process.signal("HUP");
    let log = service.process.logs("which cannot be read again");
    assert!(log.contains(FILE), "{log}");
    becomes(&service, 0.0).await;
    // The certificate is reloaded by the same signal.
    until("the certificate is read again", async || {
        let log = service.process.stderr();
        log.matches("reloaded ZIM2KAFKA_TLS_CERT").count() == 2
    })
    .await;
    assert_eq!(service.metric(SUCCESSFUL), 0.0);
    assert_eq!(files.post(&service).await, 200);
    service.process.signal("TERM");
    assert_eq!(service.process.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_a_pipe_is_reported_until_it_is_a_file_again() {
    let files = Files::new();
    write(&files.secrets(), "1=one\n");
    let mut service = files.serve(false);
    fs::remove_file(files.secrets()).expect("it was written");
    pipe(&files.secrets());
    let log = service
        .process
        .logs("secrets: is a pipe; a regular file is needed");
    assert!(log.contains(FILE), "{log}");
    becomes(&service, 0.0).await;
    assert_eq!(status(&service, "1", "one").await, 200);
    write(&files.secrets(), "1=two\n");
    until("the new secret counts", async || {
        status(&service, "1", "two").await == 200
    })
    .await;
    becomes(&service, 1.0).await;
    assert_eq!(status(&service, "1", "one").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_hangs_holds_up_nothing_else() {
    let files = Files::new();
    write(&files.secrets(), "1=secret\n");
    let mut service = files.serve(true);
    let threads = || {
        let folder = format!("/proc/{}/task", service.process.id());
        fs::read_dir(folder).expect("it runs").count()
    };
    let holder = hold(&files.secrets());
    until("it is reported", async || {
        let log = service.process.stderr();
        log.contains("_SECRETS_FILE: reading ") && log.contains("/secrets has not ended for 5 s")
    })
    .await;
    becomes(&service, 0.0).await;
    let before = threads();
    files.certificate_is_replaced(&service).await;
    for count in 2..=4 {
        service.process.signal("HUP");
        until("the signal is heard", async || {
            let log = service.process.stderr();
            log.matches("/secrets has not ended").count() == count
        })
        .await;
    }
    assert!(threads() <= before + 1, "they do not pile up");
    assert_eq!(service.metric(SUCCESSFUL), 0.0);
    assert_eq!(files.post(&service).await, 200);

    // It is read as SIGHUP asked, and after that as before.
    drop(holder);
    service.process.logs("/secrets works again");
    service
        .process
        .logs("reloaded ZIM2KAFKA_CALLBACK_SECRETS_FILE");
    becomes(&service, 1.0).await;

    // Of two files, the one that hangs is named.
    let key = files.authority.key();
    let _holder = hold(&key);
    becomes(&service, 0.0).await;
    let line = format!("ZIM2KAFKA_TLS_KEY: reading {} has not ended", key.display());
    service.process.logs(&line);
    let began = Instant::now();
    service.process.signal("TERM");
    assert_eq!(service.process.end().code, Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_file_that_cannot_be_read_ends_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = folder.path().join("silent");
    pipe(&silent);
    for (path, problem) in [
        (silent.as_path(), "was not read within 10s"),
        (Path::new("/dev/zero"), "is larger than 1 MiB"),
        (folder.path(), "is a folder"),
    ] {
        let path = path.to_str().expect("text");
        let ended = run(&["serve", "--embedded-kafka"], &[(FILE, path)]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let wanted = format!("error: {FILE}: {path}: {problem}");
        assert!(ended.stderr.contains(&wanted), "{wanted}: {ended:?}");
    }
    let properties = format!("security.protocol=ssl;ssl.ca.location={}", silent.display());
    let ended = run(
        &["serve", "--kafka-brokers=127.0.0.1:1"],
        &[
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
            ("ZIM2KAFKA_KAFKA_PROPERTIES", &properties),
        ],
    );
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let wanted = "ZIM2KAFKA_KAFKA_PROPERTIES: entry 2: the value of ssl.ca.location is not valid; ";
    assert!(ended.stderr.contains(wanted), "{ended:?}");
    assert!(ended.stderr.contains("pipe"), "{ended:?}");
}

#[test]
fn a_signal_stops_a_command_that_waits_for_a_file_of_its_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = folder.path().join("silent");
    pipe(&silent);
    let silent = silent.to_str().expect("text");
    let secrets = (FILE, silent);
    let properties = ("ZIM2KAFKA_KAFKA_PROPERTIES_FILE", silent);
    let is_reading = |process: &Process| {
        let threads = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
        let names = threads.map(|thread| fs::read_to_string(thread?.path().join("comm")));
        names
            .flatten()
            .any(|name| name.trim_end() == "settings file")
    };
    for (command, variable, code, log) in [
        ("serve", secrets, 0, ""),
        ("demo", properties, 0, ""),
        ("tail", properties, 0, ""),
        ("send", secrets, 1, "error: stopped by a signal\n"),
        ("check", secrets, 1, "error: stopped by a signal\n"),
    ] {
        let mut process = Process::start(zim2kafka(&[command], &[variable]));
        process.wait_until("that it reads the file", is_reading);
        let began = Instant::now();
        process.signal("TERM");
        let ended = process.end();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{command}: {took:?}");
        assert_eq!(ended.code, Some(code), "{command}: {ended:?}");
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", log));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_cannot_be_meant_do_not_replace_those_that_work() {
    let files = Files::new();
    write(&files.secrets(), "1=one\n");
    let mut service = files.serve(false);
    let utf_16: Vec<u8> = "\u{feff}1=geheim"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let many = "2=geheim\n".repeat(200_000);
    for (content, reason) in [
        ("".as_bytes(), "holds no secret"),
        (
            b"1=one\n\n2=\"geheim\"\n",
            "line 3 has a secret with a quotation mark",
        ),
        (b"1=ge heim\n", "line 1 has a secret with a blank"),
        (b"1=one\r2=geheim\r", "line 1 holds several pairs"),
        (
            b"1=one\\n2=geheim",
            "line 1 has a secret with \\n written out",
        ),
        (b"1=one,2=geheim", "line 1 holds several pairs"),
        (b"1=${GEHEIM}\n", "line 1 has a placeholder"),
        (
            b"<html>\ngeheim</html>\n",
            "line 1 is not of the form appid=secret; line 2 is not",
        ),
        (b"1=one\n\0\0\0\0", "line 2 has a NUL byte"),
        (b"1=one\n2=\xff\n", "line 2 is not valid UTF-8"),
        (&utf_16, "is UTF-16; save it as UTF-8"),
        (many.as_bytes(), "is larger than 1 MiB"),
    ] {
        fs::write(files.secrets(), content).expect("it can be written");
        service.process.signal("HUP");
        service.process.logs(reason);
        becomes(&service, 0.0).await;
        assert_eq!(status(&service, "1", "one").await, 200, "{reason}");
        write(&files.secrets(), "1=one\n");
        service.process.signal("HUP");
        becomes(&service, 1.0).await;
    }
    let log = service.process.stderr();
    assert!(!log.to_lowercase().contains("geheim"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_in_front_of_any_file_means_nothing() {
    let files = Files::new();
    let marked = |path: &Path| {
        let text = fs::read_to_string(path).expect("it was written");
        write(path, &format!("\u{feff}{text}"));
    };
    write(&files.secrets(), "1=secret\r\n");
    let properties = files.folder.path().join("properties");
    write(&properties, "client.id=a\r\n");
    let Files { authority, .. } = &files;
    for path in [
        &files.secrets(),
        &authority.cert(),
        &authority.key(),
        &properties,
    ] {
        marked(path);
    }
    let service = files.serve(true);
    assert_eq!(files.post(&service).await, 200);
    let ended = run(
        &["check", "--kafka-brokers=127.0.0.1:1"],
        &[
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
            (
                "ZIM2KAFKA_KAFKA_PROPERTIES_FILE",
                properties.to_str().expect("text"),
            ),
        ],
    );
    // Kafka does not answer there, but the configuration was valid.
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_a_serial_number_of_24_bytes_is_served_with_a_warning() {
    let files = Files::new();
    let Files { authority, .. } = &files;
    let (cert, key) = authority.issue_with(2090, |params| {
        params.serial_number = Some(SerialNumber::from(vec![0x11; 24]));
    });
    write(&authority.cert(), &cert);
    write(&authority.key(), &key);
    write(&files.secrets(), "1=secret\n");
    let mut service = files.serve(true);
    assert_eq!(files.post(&service).await, 200);
    let log = service.process.logs("when it expires is unknown");
    let line = log.lines().find(|line| line.contains("is unknown"));
    assert!(line.is_some_and(|line| line.contains("WARN")), "{log}");
    assert!(service.metric(NOT_AFTER).is_nan());
    authority.write(2091);
    until("the next one is known", async || {
        service.metric(NOT_AFTER) > 0.0
    })
    .await;
    write(&authority.cert(), &cert);
    write(&authority.key(), &key);
    until("it is reloaded too", async || {
        service.metric(NOT_AFTER).is_nan()
    })
    .await;
    assert_eq!(service.metric(SUCCESSFUL), 1.0);
    assert_eq!(files.post(&service).await, 200);
}
