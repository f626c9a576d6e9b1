//! A network that stalls, delays and breaks, between Kafka's clients and one broker; and a broker
//! that refuses, delays or loses what it is given.

mod faults;
mod forwarder;
mod produce;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use faults::{Exchange, Injections, lock};
pub(crate) use faults::{Fault, Faults, Injection};
pub(crate) use forwarder::Forwarder;

/// Listens on a port of its own until it is dropped, and carries every connection to one broker, on
/// a thread of its own. Each method holds for the connections that there are and for new ones. It
/// reads what it carries as Kafka's requests and responses, so it cannot stand before TLS.
pub(crate) struct Proxy {
    address: SocketAddr,
    network: Network,
    runtime: Option<Runtime>,
}

/// Shared with every connection, which look at it before each thing they do.
type Network = Arc<Shared>;

#[derive(Default)]
struct Shared {
    state: watch::Sender<State>,
    injections: Injections,
    accepted: AtomicUsize,
    /// How many requests of each kind clients have sent, by Kafka's number of the kind.
    requests: Mutex<BTreeMap<i16, usize>>,
}

#[derive(Clone, Copy, Default)]
struct State {
    mode: Mode,
    /// How often all connections were cut.
    cuts: usize,
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

    /// The number of connections that clients have opened since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.network.accepted.load(Ordering::SeqCst)
    }

    /// The number of requests of a kind that clients have sent since the start, by Kafka's number of
    /// the kind.
    pub(crate) fn requests(&self, kind: i16) -> usize {
        lock(&self.network.requests)
            .get(&kind)
            .copied()
            .unwrap_or(0)
    }

    /// Ends every fault but a cut, which is over at once.
    pub(crate) fn pass(&self) {
        self.network.injections.end();
        self.be(Mode::Pass);
    }

    /// Ends a stall, a delay or a refusal. What [`Proxy::inject`] began goes on.
    pub(crate) fn carry(&self) {
        self.be(Mode::Pass);
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
        self.network.state.send_modify(|state| state.cuts += 1);
    }

    /// Lets produce requests meet a fault, beside what holds for all requests. Of several that
    /// concern a request, it meets the one that was injected first.
    pub(crate) fn inject(&self, faults: Faults) -> Arc<Injection> {
        self.network.injections.add(faults)
    }

    fn be(&self, mode: Mode) {
        self.network.state.send_modify(|state| state.mode = mode);
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

impl Shared {
    /// How long a message is on its way.
    fn delay(&self) -> Duration {
        match self.state.borrow().mode {
            Mode::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

async fn listen(listener: TcpListener, broker: SocketAddr, network: Network) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
    loop {
        let (client, _) = listener.accept().await.expect("descriptors are left");
        network.accepted.fetch_add(1, Ordering::SeqCst);
        // Looked up here: a cut that comes before the connection's task has begun concerns it too.
        let cuts = network.state.borrow().cuts;
        tokio::spawn(connection(client, broker, Arc::clone(&network), cuts));
    }
}

/// Carries one connection until either side ends it, or a fault does.
async fn connection(mut client: TcpStream, broker: SocketAddr, network: Network, cuts: usize) {
    let is_cut = |state: &State| state.mode == Mode::Refuse || state.cuts != cuts;
    let carried = tokio::select! {
        biased;
        () = until(&network, is_cut) => Err(Broken),
        carried = carry(&mut client, broker, &network) => carried,
    };
    if carried.is_err() {
        // Its end is then a reset: nobody could take it for an orderly close.
        client.set_zero_linger().ok();
    }
}

/// A connection that its client must see reset.
struct Broken;

/// Messages on their way in one direction, each with the time at which it is to arrive.
type Line = mpsc::UnboundedSender<(Instant, Bytes)>;

async fn carry(
    client: &mut TcpStream,
    broker: SocketAddr,
    network: &Network,
) -> Result<(), Broken> {
    let mut broker = TcpStream::connect(broker).await.map_err(|_| Broken)?;
    for stream in [&*client, &broker] {
        stream.set_nodelay(true).map_err(|_| Broken)?;
    }
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let exchange = &Mutex::new(Exchange::default());
    let (requests, end_of_requests) = mpsc::unbounded_channel();
    let (responses, end_of_responses) = mpsc::unbounded_channel();
    // Not to be kept open by requests: it ends when the broker ends the connection.
    let refusals = responses.downgrade();
    let on_request = move |message: Bytes| {
        let (now, delay) = (Instant::now(), network.delay());
        if let Some([high, low]) = message.get(4..6) {
            let kind = i16::from_be_bytes([*high, *low]);
            *lock(&network.requests).entry(kind).or_default() += 1;
        }
        let mut exchange = lock(exchange);
        if exchange.request(&network.injections, &message) {
            requests.send((now + delay, message)).map_err(|_| Broken)?;
        }
        if let Some(responses) = refusals.upgrade() {
            refuse(&mut exchange, &responses, now + 2 * delay);
        }
        Ok(())
    };
    let on_response = move |message: Bytes| {
        let arrival = Instant::now() + network.delay();
        let mut exchange = lock(exchange);
        let (late, message) = exchange.response(message)?;
        responses
            .send((arrival + late, message))
            .map_err(|_| Broken)?;
        refuse(&mut exchange, &responses, arrival);
        Ok(())
    };
    tokio::select! {
        carried = direction(read(from_client, network, on_request), write(end_of_requests, to_broker, network)) => carried,
        carried = direction(read(from_broker, network, on_response), write(end_of_responses, to_client, network)) => carried,
    }
}

/// Puts the refusals on the line whose turn it is.
fn refuse(exchange: &mut Exchange, responses: &Line, arrival: Instant) {
    while let Some((late, refusal)) = exchange.next_refusal(arrival) {
        // Without a client, nobody minds.
        responses.send((arrival + late, refusal)).ok();
    }
}

/// Carries what goes in one direction until its source ends.
async fn direction(
    read: impl Future<Output = Result<(), Broken>>,
    write: impl Future<Output = ()>,
) -> Result<(), Broken> {
    tokio::join!(read, write).0
}

/// Passes on each message that is read. At the end, `on_message` is dropped, and with it its end of
/// a line.
async fn read(
    mut from: ReadHalf<'_>,
    network: &Network,
    on_message: impl Fn(Bytes) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(message) = next_message(&mut buffer) {
            on_message(message)?;
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
    mut line: mpsc::UnboundedReceiver<(Instant, Bytes)>,
    mut to: WriteHalf<'_>,
    network: &Network,
) {
    while let Some((arrival, message)) = line.recv().await {
        // A sleep takes a millisecond at least, even until now.
        if arrival > Instant::now() {
            sleep_until(arrival).await;
        }
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
    let state = network.state.subscribe().wait_for(is_so).await.map(drop);
    state.expect("the network outlives its connections");
}
