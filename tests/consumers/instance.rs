//! One running consumer.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::support::start::Start;

/// The time allowed for steps that take less than a minute on an idle machine. Most of that is
/// Kafka's wait for an instance that was killed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Language {
    Go,
    Java,
    Python,
    Rust,
    TypeScript,
}

impl Language {
    /// The example's command, as its first lines describe it.
    fn command(self) -> Command {
        let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));
        match self {
            Language::Go => Command::new(tools().join("go/consumer")),
            Language::Java => {
                let mut java = Command::new("java");
                let path = [&tools().join("java/*"), examples];
                java.arg("-cp")
                    .arg(env::join_paths(path).expect("no colon in them"));
                java.arg(examples.join("Consumer.java"));
                java
            }
            Language::Python => {
                let mut python = Command::new(tools().join("python/bin/python"));
                python.arg(examples.join("consumer.py"));
                python
            }
            Language::Rust => {
                let service = Path::new(env!("CARGO_BIN_EXE_zim2kafka"));
                Command::new(service.with_file_name("examples").join("consumer"))
            }
            Language::TypeScript => {
                let mut node = Command::new("node");
                node.arg(tools().join("typescript/consumer.ts"));
                node
            }
        }
    }
}

/// The folder that `.ci/consumers` fills.
fn tools() -> PathBuf {
    let folder = env::var_os("ZIM2KAFKA_TEST_CONSUMERS");
    folder
        .expect("run `.ci/consumers`: it provides what the consumers need, and runs these tests")
        .into()
}

/// Killed when dropped, as by `kill -9`. The store stays.
pub(crate) struct Instance {
    language: Language,
    store: PathBuf,
    process: Child,
}

impl Instance {
    /// Starts a consumer of this topic, with the store of that name in the folder.
    pub(crate) fn start(
        language: Language,
        brokers: &str,
        topic: &str,
        folder: &Path,
        name: &str,
    ) -> Instance {
        let store = folder.join(name).with_extension("db");
        let output = |kind| {
            let file = File::options()
                .append(true)
                .create(true)
                .open(store.with_extension(kind));
            file.expect("the folder takes files")
        };
        let mut command = language.command();
        // The tests of a language do not rebalance each other's groups.
        let group = format!("{language:?}-{topic}");
        command.args([brokers, topic]).arg(&store).arg(group);
        command.stdin(Stdio::null());
        command.stdout(output("out")).stderr(output("err"));
        let process = command.start();
        Instance {
            language,
            process: process.unwrap_or_else(|error| panic!("{command:?}: {error}")),
            store,
        }
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        self.process.wait().expect("it was started");
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.store.clone()
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::open(&self.store)
    }

    /// Waits until a run with this store has printed this line.
    #[track_caller]
    pub(crate) fn prints(&mut self, line: &str) {
        let output = self.store.with_extension("out");
        self.wait_until(line, |_| {
            let printed = fs::read_to_string(&output).expect("it is UTF-8");
            printed.lines().any(|printed| printed == line)
        });
    }

    /// Waits for its end, and checks that it has failed.
    #[track_caller]
    pub(crate) fn ends_by_itself(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("it was started") {
                assert!(!status.success(), "{:?}: {status}", self.language);
                return;
            }
            assert!(Instant::now() < deadline, "{:?} runs on", self.language);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the runs with this store have been assigned partitions this number of times.
    #[track_caller]
    pub(crate) fn is_assigned(&mut self, times: usize) {
        let errors = self.store.with_extension("err");
        self.wait_until("gets partitions", |_| {
            let errors = fs::read_to_string(&errors).expect("it is UTF-8");
            let assigned = errors.lines().filter(|line| line.starts_with("reads "));
            assigned.filter(|line| !line.starts_with("reads 0")).count() >= times
        });
    }

    /// Waits until this is true of its store.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, is_so: impl Fn(&Ledger) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.process.try_wait().expect("it was started");
            let ledger = self.ledger();
            if is_so(&ledger) {
                return;
            }
            let ended = ended.map(|status| format!("it ended with {status}"));
            let late = (Instant::now() > deadline).then(|| format!("not within {PATIENCE:?}"));
            if let Some(failed) = ended.or(late) {
                let errors = fs::read_to_string(self.store.with_extension("err"));
                let errors = errors.unwrap_or_default();
                let last = errors.len().saturating_sub(4_000);
                panic!(
                    "{:?}: {what}: {failed}; {:?}\n{}",
                    self.language,
                    ledger.positions(),
                    String::from_utf8_lossy(&errors.as_bytes()[last..]),
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has read these partitions up to these offsets.
    #[track_caller]
    pub(crate) fn reads_to(&mut self, ends: &BTreeMap<String, i64>) {
        self.wait_until("reads to the end", |ledger| {
            let positions = ledger.positions();
            ends.iter()
                .all(|(partition, end)| positions.get(partition) >= Some(end))
        });
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end();
    }
}
