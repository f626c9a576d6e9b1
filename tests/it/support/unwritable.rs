//! Files that a program cannot write to, for its stdout and stderr, and a service with such a log.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use rustix::pipe::fcntl_setpipe_size;

use super::process::{Process, Service, zim2kafka};

/// The bytes of the smallest pipe.
pub(crate) const PAGE: usize = 4096;

/// A pipe of one page, and a reader that does not read by itself.
pub(crate) fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().expect("there are files to open");
    fcntl_setpipe_size(&writer, PAGE).expect("a page is allowed");
    (reader, writer)
}

/// A pipe that takes nothing more until its reader reads a page of empty lines.
pub(crate) fn stalled() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = small_pipe();
    writer.write_all(&[b'\n'; PAGE]).expect("it holds a page");
    (reader, writer)
}

/// A pipe whose other end is closed.
pub(crate) fn without_reader() -> Stdio {
    let (_, writer) = pipe().expect("there are files to open");
    writer.into()
}

/// A file on a disk without space.
pub(crate) fn full() -> File {
    let file = OpenOptions::new().write(true).open("/dev/full");
    file.expect("Linux has it")
}

/// A file that is open for reading only.
pub(crate) fn read_only() -> File {
    File::open("/dev/null").expect("unix has it")
}

/// An address of this machine that nobody else has. It has 16 million of them.
pub(crate) fn own_address() -> SocketAddr {
    let [first, second, third] = rand::random();
    let port = rand::random_range(10_000..15_000);
    SocketAddr::from(([127, first, second, third.clamp(1, 254)], port))
}

impl Service {
    /// A service whose log is not read here, so its addresses are given.
    #[track_caller]
    pub(crate) fn unread(
        stderr: impl Into<Stdio>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let [callbacks, admin] = [own_address(), own_address()];
        let ports = [callbacks, admin].map(|address| address.to_string());
        let ports = ["serve", "--listen", &ports[0], "--admin-listen", &ports[1]];
        let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
        let command = zim2kafka(
            &[&ports, arguments].concat(),
            &[&secrets[..], variables].concat(),
        );
        let process = Process::start_on(command, Stdio::piped(), stderr);
        Self::on(process, callbacks, admin)
    }

    /// A service on these addresses, once both are listening.
    #[track_caller]
    pub(crate) fn on(mut process: Process, callbacks: SocketAddr, admin: SocketAddr) -> Self {
        for address in [admin, callbacks] {
            process.wait_until("it listens", |_| TcpStream::connect(address).is_ok());
        }
        Self {
            process,
            callbacks,
            admin,
            brokers: String::new(),
            path: "/callbacks/zim".to_owned(),
        }
    }
}
