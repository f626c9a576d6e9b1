//! Starting programs, and what must not happen at that moment.
//!
//! Between its fork and its exec a child has every open file of ours, listening sockets too: a port
//! that is closed just then stays taken. A broker of librdkafka's mock cluster that goes down
//! closes its port and binds it again at once, and ends the whole process where it cannot. Between
//! the two, the system may also give the port to somebody else's outgoing connection. `clippy.toml`
//! sees to it that no test goes past this file.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;

static FORKING: RwLock<()> = RwLock::new(());

pub(crate) trait Start {
    /// `Command::spawn`: returns once the child is its own program and has none of our files.
    fn start(&mut self) -> io::Result<Child>;

    /// `Command::output`: runs it to its end.
    fn finish(&mut self) -> io::Result<Output>;
}

impl Start for Command {
    #[expect(clippy::disallowed_methods, reason = "this is where it is allowed")]
    fn start(&mut self) -> io::Result<Child> {
        let _forking = FORKING.read().unwrap_or_else(PoisonError::into_inner);
        // `spawn` returns a moment before the child has closed our files. The child closes its end
        // of this pipe with them, and then the read ends.
        let (mut ours, childs) = io::pipe()?;
        let child = self.spawn();
        drop(childs);
        ours.read_to_end(&mut Vec::new())?;
        child
    }

    fn finish(&mut self) -> io::Result<Output> {
        let silent = self.stdout(Stdio::piped()).stderr(Stdio::piped());
        silent.start()?.wait_with_output()
    }
}

/// A broker of the mock cluster closes its connections and takes no new ones, until `broker_up`.
#[expect(clippy::disallowed_methods, reason = "this is where it is allowed")]
pub(crate) fn broker_down<C: ClientContext>(cluster: &MockCluster<'_, C>, broker: i32) {
    let addresses = cluster.bootstrap_servers();
    let at = usize::try_from(broker - 1).expect("brokers are numbered from 1");
    let address = addresses.split(',').nth(at).expect("there is one");
    let _nothing_forks = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    let _port_is_in_use = accepted(address);
    cluster.broker_down(broker).expect("there is one");
}

/// A connection that this broker has accepted. While it is there, the system gives the port to
/// nobody else. None if the broker is down already.
fn accepted(address: &str) -> Option<TcpStream> {
    // ApiVersions, version 0, with a correlation id and without a client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let mut connection = TcpStream::connect(address).ok()?;
    connection.write_all(&REQUEST).expect("it is open");
    connection.read_exact(&mut [0]).expect("it is answered");
    Some(connection)
}
