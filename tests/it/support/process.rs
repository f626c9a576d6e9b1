//! The built program as a child process, in an environment that holds only what a test puts in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::app::PATIENCE;
use super::start::Start;

/// A run of the program. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A pipe, read by a thread so that the child never blocks on it.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

/// The program with these arguments and variables.
pub(crate) fn zim2kafka(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zim2kafka"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied());
    command
}

/// A shell line, with the program on its path.
pub(crate) fn shell(line: &str) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_zim2kafka"));
    let folder = program.parent().expect("a file is in a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .env_clear()
        .env("PATH", format!("{folder}:{path}"));
    command
}

impl Process {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_on(command, Stdio::piped(), Stdio::piped())
    }

    /// The same, with other files than pipes that are read.
    pub(crate) fn start_on(
        mut command: Command,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut child = command.start().expect("the program starts");
        Self {
            stdout: child.stdout.take().map_or_else(Output::none, Output::of),
            stderr: child.stderr.take().map_or_else(Output::none, Output::of),
            child,
        }
    }

    /// What it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until it has logged this, and returns the log.
    #[track_caller]
    pub(crate) fn logs(&mut self, text: &str) -> String {
        self.logs_within(PATIENCE, text)
    }

    #[track_caller]
    pub(crate) fn logs_within(&mut self, patience: Duration, text: &str) -> String {
        self.poll(patience, text, |process| process.stderr().contains(text));
        self.stderr()
    }

    /// Waits until it has printed this, and returns all that it printed.
    #[track_caller]
    pub(crate) fn prints(&mut self, text: &str) -> String {
        self.wait_until(text, |process| process.stdout().contains(text));
        self.stdout()
    }

    /// Polls until it is so. A process that ends before is not waited for any longer.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.poll(PATIENCE, what, is_so);
    }

    #[track_caller]
    fn poll(&mut self, patience: Duration, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait().expect("it is our child").is_some();
            if is_so(self) {
                return;
            }
            // No empty line: `.ci/run` repeats a failure up to the first one.
            let said = || format!("{what:?}\n{}stderr:\n{}", self.stdout(), self.stderr());
            assert!(!ended, "it ended instead of saying {}", said());
            let is_late = Instant::now() >= deadline;
            assert!(!is_late, "waited in vain for {}", said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh")
            .args(["-c", &line])
            .finish()
            .expect("there is a shell");
        assert!(sent.status.success(), "{line}");
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    /// The same, for one that takes long.
    #[track_caller]
    pub(crate) fn end_within(mut self, patience: Duration) -> Ended {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            let (stdout, stderr) = (self.stdout(), self.stderr());
            assert!(
                Instant::now() < deadline,
                "it does not end\n{stdout}\n{stderr}"
            );
            thread::sleep(Duration::from_millis(10));
        };
        Ended {
            code: status.code(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail only because it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    Process::start(zim2kafka(arguments, variables)).end()
}

impl Output {
    /// Of a file that is not read here.
    fn none() -> Self {
        Self {
            text: Arc::default(),
            reader: None,
        }
    }

    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(&piece[..length]);
            }
        });
        let reader = Some(reader);
        Self { text, reader }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All of it, once the other end is closed.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        self.text()
    }
}

/// A `serve` on free ports.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) callbacks: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The embedded Kafka's, where it has one.
    pub(crate) brokers: String,
    /// Of the callbacks.
    pub(crate) path: String,
}

impl Service {
    /// On an embedded Kafka, signing with [`super::app::SECRET`] unless the variables say
    /// otherwise.
    pub(crate) fn embedded(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = [&["--embedded-kafka"], arguments].concat();
        let mut service = Self::start(&arguments, variables);
        let log = service.process.logs("for trials only");
        service.brokers = field(&log, "for trials only", "embedded Kafka at");
        service
    }

    /// On whatever the arguments and variables say.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_on("127.0.0.1:0", arguments, variables)
    }

    /// The same, with callbacks at this address: where an earlier one had them, too.
    pub(crate) fn start_on(
        callbacks: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::begin_on(callbacks, arguments, variables).listening()
    }

    /// The same, without waiting for the callback port.
    pub(crate) fn begin_on(
        callbacks: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Starting {
        Self::begin_by(callbacks, arguments, variables, |command| command)
    }

    /// The same, by another command that runs this one.
    pub(crate) fn begin_by(
        callbacks: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        by: impl FnOnce(Command) -> Command,
    ) -> Starting {
        const PATH: &str = "ZIM2KAFKA_CALLBACK_PATH";
        let ports = [
            "serve",
            "--listen",
            callbacks,
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
        let variables = [&secrets[..], variables].concat();
        let path = variables.iter().find(|(name, _)| *name == PATH);
        let path = path.map_or("/callbacks/zim", |(_, path)| path).to_owned();
        let arguments = [&ports, arguments].concat();
        Starting {
            process: Process::start(by(zim2kafka(&arguments, &variables))),
            path,
        }
    }

    /// Posts a body, and returns the answer as it came: status line, header and body.
    pub(crate) fn post(&self, body: impl AsRef<[u8]>) -> String {
        request(self.callbacks, "POST", &self.path, body.as_ref())
    }

    /// Asks the admin port.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> String {
        let listens = TcpStream::connect(self.admin);
        listens.unwrap_or_else(|error| panic!("{error}\n{}", self.process.stderr()));
        request(self.admin, "GET", path, b"")
    }

    /// What `tail --from-beginning` prints of the embedded Kafka.
    #[track_caller]
    pub(crate) fn tail(&self, arguments: &[&str]) -> Vec<Value> {
        let always = ["tail", "--from-beginning", "--kafka-brokers", &self.brokers];
        let ended = run(&[&always, arguments].concat(), &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        // It logs what it reads, and that it waits.
        assert!(
            ended.stderr.lines().all(|line| line.contains(" INFO ")),
            "{ended:?}"
        );
        let lines = ended.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
            .collect()
    }

    /// The value of one series, as `/metrics` shows it: name and labels as there.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value
            .unwrap_or_else(|| panic!("there is no series {series}\n{}", self.process.stderr()));
        value.parse().expect("a number")
    }

    /// Where callbacks go.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.callbacks, self.path)
    }

    /// Waits until it is ready.
    #[track_caller]
    pub(crate) fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.admin("/readyz").starts_with("HTTP/1.1 200") {
            assert!(
                Instant::now() < deadline,
                "it is never ready\n{}",
                self.process.stderr()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A service with a spool that may not have opened it yet.
pub(crate) struct Starting {
    pub(crate) process: Process,
    path: String,
}

impl Starting {
    /// The admin port, which answers while the spool is opened.
    #[track_caller]
    pub(crate) fn admin(&mut self) -> SocketAddr {
        const OPENING: &str = "opening the spool";
        let log = self.process.logs(OPENING);
        let admin = field(&log, OPENING, "admin");
        admin.parse().expect("an address")
    }

    /// Waits until callbacks are accepted.
    #[track_caller]
    pub(crate) fn listening(mut self) -> Service {
        const LISTENING: &str = "is listening";
        let log = self.process.logs(LISTENING);
        let address = |name| field(&log, LISTENING, name).parse().expect("an address");
        Service {
            callbacks: address("callbacks"),
            admin: address("admin"),
            brokers: String::new(),
            process: self.process,
            path: self.path,
        }
    }
}

/// The value of a field in the log line that holds this text, in either format.
#[track_caller]
fn field(log: &str, text: &str, name: &str) -> String {
    let line = log
        .lines()
        .find(|line| line.contains(text))
        .expect("it is logged");
    let (_, rest) = line
        .rsplit_once(name)
        .unwrap_or_else(|| panic!("no {name} in {line}"));
    let value = rest.trim_start_matches(['"', '=', ':', ' ']);
    let end = value.find(['"', ' ', '}']).unwrap_or(value.len());
    value[..end].to_owned()
}

/// One request on a connection of its own, written as bytes: no client stands between.
pub(crate) fn request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    say(to, [head.as_bytes(), body].concat())
}

/// Any bytes on a connection of their own, and what comes back until the service ends it.
pub(crate) fn say(to: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
    // A body that is refused unread may be cut off; the answer says why.
    stream.write_all(bytes.as_ref()).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An address that is free now, and that no outgoing connection takes while its service is down:
/// below the ports that systems choose for those.
pub(crate) fn free_address() -> String {
    loop {
        let address = format!("127.0.0.1:{}", rand::random_range(10_000..15_000));
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// A port that is taken for as long as the listener lives.
pub(crate) fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}
