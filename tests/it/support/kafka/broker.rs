//! One broker: its settings, its process, and what its log says when it does not come up.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::distribution::{FILES, said_by};
use super::machine::Machine;
use crate::support::distance::Distance;
use crate::support::proxy::Proxy;
use crate::support::start::Start;

/// Below the ports that systems choose for outgoing connections. One of those could be taken while
/// its broker is stopped; worse, a client that keeps dialling one on loopback may connect to
/// itself.
const PORTS: RangeInclusive<u16> = 15_000..=31_999;

/// A broker that is also a controller, in a folder of its own.
pub(crate) struct Broker {
    pub(crate) id: usize,
    pub(crate) ports: Ports,
    /// Before a listener of its own, which advertises the proxy's address.
    pub(crate) proxy: Proxy,
    /// If there are any, the listeners behind them advertise their addresses.
    pub(crate) distances: Option<Distances>,
    folder: PathBuf,
    process: Mutex<Option<Child>>,
}

pub(crate) struct Distances {
    /// In front of the proxied listener, in place of the proxy.
    pub(crate) plain: Distance,
    /// In front of the listener with TLS and passwords.
    pub(crate) secure: Distance,
}

#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) plain: u16,
    pub(crate) secure: u16,
    /// Where the proxy finds it. Clients go to the proxy.
    pub(crate) proxied: u16,
    pub(crate) controller: u16,
}

impl Broker {
    pub(crate) fn new(machine: &Machine, id: usize, ports: Ports, is_distant: bool) -> Broker {
        let distance = |port: u16| {
            let distance = Distance::start((Ipv4Addr::LOCALHOST, port).into());
            distance.expect("loopback has free ports")
        };
        Broker {
            id,
            ports,
            proxy: Proxy::start((Ipv4Addr::LOCALHOST, ports.proxied).into())
                .expect("loopback has free ports"),
            distances: is_distant.then(|| Distances {
                plain: distance(ports.proxied),
                secure: distance(ports.secure),
            }),
            folder: machine.folder().join(id.to_string()),
            process: Mutex::new(None),
        }
    }

    /// Writes its settings and makes its data folder, with the users who may log in.
    pub(crate) fn prepare(
        &self,
        machine: &Machine,
        settings: &str,
        cluster_id: &str,
        users: &[String],
    ) -> Result<(), String> {
        let file = self.settings_file();
        let written = self.settings(machine, settings).and_then(|settings| {
            fs::create_dir(&self.folder)?;
            fs::write(&file, settings)
        });
        written.map_err(|error| format!("{}: {error}", file.display()))?;
        let mut format = machine.java();
        format.args([
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            cluster_id,
        ]);
        format.arg("--config").arg(file);
        for user in users {
            format.args(["--add-scram", user]);
        }
        said_by(&mut format).map(drop)
    }

    pub(crate) fn launch(&self, machine: &Machine) -> Result<(), String> {
        let mut process = self.process();
        assert!(process.is_none(), "broker {} is running already", self.id);
        // A report quotes this start, not the one before.
        let log = self.folder.join("kafka.log");
        let _ = fs::remove_file(&log);
        let mut java = machine.java_in_background(&self.folder);
        java.arg(format!("-Dkafka.log={}", log.display()));
        java.arg("kafka.Kafka").arg(self.settings_file());
        *process = Some(
            java.start()
                .map_err(|error| format!("Java cannot be run: {error}"))?,
        );
        Ok(())
    }

    pub(crate) fn kill(&self, machine: &Machine) {
        if let Some(mut process) = self.process().take() {
            // Again and again, because one that has just been launched may have no id to kill by
            // yet.
            while matches!(process.try_wait(), Ok(None)) {
                let _ = self.signal(machine, "KILL");
                thread::sleep(Duration::from_millis(5));
            }
            // The number may become another process's; the leash must not find it here.
            let _ = fs::remove_file(self.folder.join("pid"));
        }
    }

    pub(crate) fn signal(&self, machine: &Machine, name: &str) -> Result<(), String> {
        machine.signal(&self.folder, name)
    }

    /// Whether it was started and not killed by us since.
    pub(crate) fn is_wanted(&self) -> bool {
        self.process().is_some()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.process()
            .as_mut()
            .is_none_or(|process| !matches!(process.try_wait(), Ok(None)))
    }

    /// What its log says from the first error on, for a broker that fails goes on to log its
    /// shutdown at length; without an error, the end.
    pub(crate) fn report(&self, what: &str) -> String {
        let excerpt = |file: &str| {
            let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let error = lines.iter().position(|line| line.contains(" ERROR "));
            let first = error.unwrap_or(lines.len().saturating_sub(40));
            lines
                .into_iter()
                .skip(first)
                .take(40)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let (console, log) = (excerpt("console.log"), excerpt("kafka.log"));
        format!(
            "Kafka broker {} {what}. Its log:\n{console}\n{log}",
            self.id
        )
    }

    /// Where clients find the listener with TLS and passwords.
    pub(crate) fn secure_port(&self) -> u16 {
        match &self.distances {
            Some(distances) => distances.secure.address().port(),
            None => self.ports.secure,
        }
    }

    /// Dropping a cluster must go on after a test panicked in here: nothing in there can be half
    /// done.
    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn settings(&self, machine: &Machine, of_the_cluster: &str) -> std::io::Result<String> {
        let of_all = fs::read_to_string(Path::new(FILES).join("server.properties"))?;
        let (id, data, listen) = (self.id, self.folder.join("data"), machine.listen_address());
        let Ports {
            plain,
            secure,
            proxied,
            controller,
        } = self.ports;
        let proxy = match &self.distances {
            Some(distances) => distances.plain.address(),
            None => self.proxy.address(),
        };
        let advertised = self.secure_port();
        Ok(format!(
            "{of_all}\n{of_the_cluster}
node.id={id}
log.dirs={data}
listeners=PLAIN://{listen}:{plain},SECURE://{listen}:{secure},PROXIED://{listen}:{proxied},\
CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{advertised},PROXIED://{proxy}
",
            data = data.display(),
        ))
    }
}

impl Ports {
    /// Ports that nobody listens on at this moment. They are drawn at random, because test
    /// processes that run at the same time would otherwise try the same ones in the same order.
    pub(crate) fn free(brokers: usize) -> Vec<Ports> {
        // Held until all are found, so that none is found twice.
        let mut held = Vec::new();
        let mut port = || {
            loop {
                let port = rand::random_range(PORTS);
                if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                    held.push(listener);
                    return port;
                }
            }
        };
        (0..brokers)
            .map(|_| Ports {
                plain: port(),
                secure: port(),
                proxied: port(),
                controller: port(),
            })
            .collect()
    }
}
