//! A network that stalls, delays, breaks and loses delivery reports, between Kafka's clients and
//! one broker.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// "Produce", as Kafka's protocol numbers its requests.
const PRODUCE: [u8; 2] = [0, 0];

/// How many requests, or responses, of a connection may be on their way through a delay. Clients
/// have fewer in flight.
const ON_THE_WAY: usize = 1000;

/// Listens on a port of its own until it is dropped, and carries every connection to one broker, on
/// a thread of its own. Each method holds for the connections that there are and for new ones. It
/// reads what it carries as Kafka's requests and responses, so it cannot stand before TLS.
pub(crate) struct Proxy {
    address: SocketAddr,
    network: Network,
    runtime: Option<Runtime>,
}

/// Shared with every connection, which look at it before each thing they do.
type Network = Arc<watch::Sender<State>>;

#[derive(Clone, Copy, Default)]
struct State {
    mode: Mode,
    /// How often all connections were cut.
    cuts: usize,
    /// How many produce requests are still to lose their response.
    to_lose: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Pass,
    Stall,
    Delay(Duration),
    Refuse,
}

impl Proxy {
    /// Starts to pass connections on to the broker at this address, which need not be there: its
    /// clients then see their connections reset.
    pub(crate) fn start(broker: SocketAddr) -> io::Result<Self> {
        // Held for as long as it lives, so any port will do.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let network = Network::default();
        runtime.spawn(listen(listener, broker, Arc::clone(&network)));
        Ok(Self {
            address,
            network,
            runtime: Some(runtime),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every fault but a cut, which is over at once.
    pub(crate) fn pass(&self) {
        self.network.send_modify(|state| {
            state.mode = Mode::Pass;
            state.to_lose = 0;
        });
    }

    /// Reads nothing more in either direction; connections stay open, and new ones are taken. What
    /// is stalled goes on when the mode changes.
    pub(crate) fn stall(&self) {
        self.be(Mode::Stall);
    }

    /// Lets each request and each response arrive that much later, in order, as a long line does:
    /// what follows need not wait for what went before to arrive.
    pub(crate) fn delay(&self, delay: Duration) {
        self.be(Mode::Delay(delay));
    }

    /// Resets all connections, and new ones at once.
    pub(crate) fn refuse(&self) {
        self.be(Mode::Refuse);
    }

    /// Resets all connections; new ones are carried.
    pub(crate) fn cut(&self) {
        self.network.send_modify(|state| state.cuts += 1);
    }

    /// Loses the delivery reports of the next produce requests: the broker has answered each, so it
    /// has the records or has refused them, and then, instead of the answer, the client sees its
    /// connection reset. Other requests are carried as ever.
    pub(crate) fn reset_after_request(&self, requests: usize) {
        self.network.send_modify(|state| state.to_lose = requests);
    }

    /// How many of [`Proxy::reset_after_request`] are still to come.
    pub(crate) fn resets_left(&self) -> usize {
        self.network.borrow().to_lose
    }

    fn be(&self, mode: Mode) {
        self.network.send_modify(|state| state.mode = mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A test may be async, and must not wait for a runtime inside its own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(listener: TcpListener, broker: SocketAddr, network: Network) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
    loop {
        let (client, _) = listener.accept().await.expect("descriptors are left");
        // Looked up here: a cut that comes before the connection's task has begun concerns it too.
        let cuts = network.borrow().cuts;
        tokio::spawn(connection(client, broker, Arc::clone(&network), cuts));
    }
}

/// Carries one connection until either side ends it, or a fault does.
async fn connection(mut client: TcpStream, broker: SocketAddr, network: Network, cuts: usize) {
    let is_cut = |state: &State| state.mode == Mode::Refuse || state.cuts != cuts;
    let fault = tokio::select! {
        biased;
        () = until(&network, is_cut) => Err(Fault),
        fault = carry(&mut client, broker, &network) => fault,
    };
    if fault.is_err() {
        // Its end is then a reset: nobody could take it for an orderly close.
        client.set_zero_linger().ok();
    }
}

/// Why a client must see its connection reset.
struct Fault;

async fn carry(client: &mut TcpStream, broker: SocketAddr, network: &Network) -> Result<(), Fault> {
    let mut broker = TcpStream::connect(broker).await.map_err(|_| Fault)?;
    for stream in [&*client, &broker] {
        stream.set_nodelay(true).map_err(|_| Fault)?;
    }
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let to_lose = Mutex::new(Vec::new());
    let to_lose = || to_lose.lock().unwrap_or_else(PoisonError::into_inner);
    // A request is size, API, version, correlation id, …; its response is size, correlation id, ….
    // https://kafka.apache.org/protocol#protocol_messages
    let request = |request: &[u8]| {
        if request[4..6] == PRODUCE && is_to_lose(network) {
            to_lose().push(request[8..12].to_owned());
        }
        Ok(())
    };
    let response = |response: &[u8]| match to_lose().contains(&response[4..8].to_owned()) {
        true => Err(Fault),
        false => Ok(()),
    };
    tokio::select! {
        fault = direction(from_client, to_broker, network, request) => fault,
        fault = direction(from_broker, to_client, network, response) => fault,
    }
}

/// Whether this produce request is one of the next few.
fn is_to_lose(network: &Network) -> bool {
    network.send_if_modified(|state| {
        let is_one = state.to_lose > 0;
        state.to_lose -= usize::from(is_one);
        is_one
    })
}

/// Carries what goes in one direction until its source ends, looking at each message first.
async fn direction(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    network: &Network,
    look: impl Fn(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (line, end_of_line) = mpsc::channel(ON_THE_WAY);
    let (read, ()) = tokio::join!(
        read(from, line, network, look),
        write(end_of_line, to, network)
    );
    read
}

/// Puts each message on the line, with the time at which it is to arrive.
async fn read(
    mut from: ReadHalf<'_>,
    line: mpsc::Sender<(Instant, Bytes)>,
    network: &Network,
    look: impl Fn(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(message) = next_message(&mut buffer) {
            look(&message)?;
            let delay = match network.borrow().mode {
                Mode::Delay(delay) => delay,
                _ => Duration::ZERO,
            };
            if line.send((Instant::now() + delay, message)).await.is_err() {
                return Ok(());
            }
        }
        until(network, |state| state.mode != Mode::Stall).await;
        tokio::select! {
            biased;
            () = until(network, |state| state.mode == Mode::Stall) => {}
            read = from.read_buf(&mut buffer) => match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(()),
            },
        }
    }
}

async fn write(
    mut line: mpsc::Receiver<(Instant, Bytes)>,
    mut to: WriteHalf<'_>,
    network: &Network,
) {
    while let Some((arrival, message)) = line.recv().await {
        sleep_until(arrival).await;
        until(network, |state| state.mode != Mode::Stall).await;
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Takes the first message out of what was read, once all of it is there.
fn next_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let size = usize::try_from(buffer.first_chunk().map(|size| u32::from_be_bytes(*size))?);
    let whole = 4 + size.expect("usize is wider");
    assert!(whole < 256 << 20, "this is not Kafka's protocol");
    (buffer.remaining() >= whole).then(|| buffer.split_to(whole).freeze())
}

/// Waits until the network is so.
async fn until(network: &Network, is_so: impl Fn(&State) -> bool) {
    let state = network.subscribe().wait_for(is_so).await.map(drop);
    state.expect("the network outlives its connections");
}

/// Leads each new connection to wherever it is told: what a name in DNS is to a cluster that moves.
pub(crate) struct Forwarder {
    address: String,
    target: Arc<std::sync::Mutex<String>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Tests drop it inside a runtime of their own, where one may not wait for another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Forwarder {
    /// To the first of these `host:port`s.
    pub(crate) fn start(brokers: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound").to_string();
        let target = Arc::new(std::sync::Mutex::new(first(brokers)));
        let to = Arc::clone(&target);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
            while let Ok((mut client, _)) = listener.accept().await {
                let broker = to.lock().expect("no panic").clone();
                tokio::spawn(async move {
                    // Either side may go at any time; then both are gone.
                    if let Ok(mut broker) = tokio::net::TcpStream::connect(broker).await {
                        tokio::io::copy_bidirectional(&mut client, &mut broker)
                            .await
                            .ok();
                    }
                });
            }
        });
        Self {
            address,
            target,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn lead_to(&self, brokers: &str) {
        *self.target.lock().expect("no panic") = first(brokers);
    }
}

fn first(brokers: &str) -> String {
    brokers.split(',').next().expect("one at least").to_owned()
}
