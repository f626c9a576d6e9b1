//! Starting programs, and what must not happen at that moment.
//!
//! Between its fork and its exec a child has every open file of ours, listening sockets too: a port
//! that is closed just then stays taken. A broker of librdkafka's mock cluster that goes down closes
//! its port and binds it again at once, and ends the whole process where it cannot. `clippy.toml` sees
//! to it that no test goes past this file.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;

static FORKING: RwLock<()> = RwLock::new(());

pub(crate) trait Start {
    /// `Command::spawn`: returns once the child is its own program.
    fn start(&mut self) -> io::Result<Child>;

    /// `Command::output`: runs it to its end.
    fn finish(&mut self) -> io::Result<Output>;
}

impl Start for Command {
    #[expect(clippy::disallowed_methods, reason = "this is where it is allowed")]
    fn start(&mut self) -> io::Result<Child> {
        let _forking = FORKING.read().unwrap_or_else(PoisonError::into_inner);
        self.spawn()
    }

    fn finish(&mut self) -> io::Result<Output> {
        let silent = self.stdout(Stdio::piped()).stderr(Stdio::piped());
        silent.start()?.wait_with_output()
    }
}

/// A broker of the mock cluster closes its connections and takes no new ones, until `broker_up`.
#[expect(clippy::disallowed_methods, reason = "this is where it is allowed")]
pub(crate) fn broker_down<C: ClientContext>(cluster: &MockCluster<'_, C>, broker: i32) {
    let _nothing_forks = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    cluster.broker_down(broker).expect("there is one");
}
