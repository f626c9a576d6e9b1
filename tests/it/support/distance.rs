//! A distant network: carries connections to one broker and delays every byte in each direction by
//! half of a round trip.
//!
//! It does not read what it carries, so it also works in front of TLS. A connection is opened
//! without a delay; only its bytes are delayed. [`super::proxy`] is for faults.
//!
//! One thread carries all connections. It waits with `ppoll`, because tokio's timers have a
//! resolution of 1 ms: a delay of 1 ms would often become 2 ms.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that arrive within this time are delivered now. The kernel wakes the thread up to 50 µs
/// after the time that it asked for, and reading and writing take time too.
const EARLY: Duration = Duration::from_micros(60);

/// Bytes on the way in one direction of a connection, after which no more are read from its source.
/// Clients and brokers have far fewer in flight; this bounds the memory if one of them stops
/// reading.
const MAX_ON_THE_WAY: usize = 64 << 20;

/// Listens on a port of its own until it is dropped.
pub(crate) struct Distance {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The thread ends when this is closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// In ns.
    delay: AtomicU64,
    connections: AtomicUsize,
    opened: AtomicUsize,
}

impl Distance {
    /// Starts without a delay. Nothing needs to listen at the target yet; until something does,
    /// connections are closed at once.
    pub(crate) fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::new(Shared::default());
        let carrier = Carrier {
            listener,
            target,
            stopped,
            shared: Arc::clone(&shared),
            connections: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("distance".to_owned())
            .spawn(move || carrier.run())?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the round trip for all bytes that are read from now on. Bytes of a connection keep
    /// their order.
    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        let delay = u64::try_from(round_trip.as_nanos() / 2).expect("less than 500 years");
        self.shared.delay.store(delay, Ordering::Relaxed);
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The number of connections since the start.
    pub(crate) fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Everything that the thread owns.
struct Carrier {
    listener: TcpListener,
    target: SocketAddr,
    stopped: UnixStream,
    shared: Arc<Shared>,
    connections: Vec<Connection>,
}

struct Connection {
    /// The client and the broker.
    ends: [TcpStream; 2],
    /// From the client and from the broker.
    lines: [Line; 2],
}

/// One direction of a connection.
#[derive(Default)]
struct Line {
    /// What is on the way, with the time when it arrives. An empty piece is the end of the stream.
    pieces: VecDeque<(Instant, Bytes)>,
    on_the_way: usize,
    /// Whether the source has no more bytes.
    is_read: bool,
    /// Whether the receiver's socket takes no bytes at the moment.
    is_blocked: bool,
    /// Whether the end of the stream was delivered.
    is_delivered: bool,
}

/// What can go on without waiting.
struct Ready {
    is_stopped: bool,
    has_client: bool,
    /// For each connection, in order.
    ends: Vec<[PollFlags; 2]>,
}

/// Why a connection is dropped: an end was reset, or both have ended.
struct Broken;

impl Carrier {
    fn run(mut self) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ready {
                is_stopped,
                has_client,
                ends,
            } = self.wait();
            if is_stopped {
                return;
            }
            let delay = Duration::from_nanos(self.shared.delay.load(Ordering::Relaxed));
            let mut ends = ends.into_iter();
            self.connections.retain_mut(|connection| {
                let ready = ends.next().expect("there is one for each connection");
                connection.carry(ready, delay, &mut buffer).is_ok()
            });
            if has_client {
                self.accept();
            }
            let connections = self.connections.len();
            self.shared
                .connections
                .store(connections, Ordering::Relaxed);
        }
    }

    /// Waits until there is something to read, to write or to deliver.
    fn wait(&self) -> Ready {
        let mut fds = vec![
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        // Which end of which connection each of the others is. An end without an interest is left
        // out: after a hang-up, `ppoll` would return at once until the last bytes have arrived.
        let mut others = Vec::new();
        let mut next = None::<Instant>;
        for (number, Connection { ends, lines }) in self.connections.iter().enumerate() {
            let mut interests = [PollFlags::empty(); 2];
            for (at, line) in lines.iter().enumerate() {
                let is_wanted = !line.is_read && line.on_the_way < MAX_ON_THE_WAY;
                interests[at].set(PollFlags::IN, is_wanted);
                interests[1 - at].set(PollFlags::OUT, line.is_blocked);
                if let Some((arrival, _)) = line.pieces.front().filter(|_| !line.is_blocked) {
                    next = Some(next.map_or(*arrival, |next| next.min(*arrival)));
                }
            }
            for (at, interest) in interests.into_iter().enumerate() {
                if !interest.is_empty() {
                    fds.push(PollFd::from_borrowed_fd(ends[at].as_fd(), interest));
                    others.push((number, at));
                }
            }
        }
        let timeout = next.map(|next| {
            let until = next.saturating_duration_since(Instant::now());
            // `ppoll` may return late by up to half a percent of its timeout. The rest of a long
            // wait is a second, short one.
            let until = until.saturating_sub(EARLY + until / 100);
            Timespec::try_from(until).expect("a round trip is short")
        });
        let mut ready = Ready {
            is_stopped: false,
            has_client: false,
            ends: vec![[PollFlags::empty(); 2]; self.connections.len()],
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return ready,
            Err(error) => panic!("ppoll: {error}"),
        }
        ready.is_stopped = !fds[0].revents().is_empty();
        ready.has_client = !fds[1].revents().is_empty();
        for (fd, (number, at)) in fds[2..].iter().zip(others) {
            ready.ends[number][at] = fd.revents();
        }
        ready
    }

    fn accept(&mut self) {
        let connected = || -> io::Result<Connection> {
            let (client, _) = self.listener.accept()?;
            let broker = TcpStream::connect(self.target)?;
            for end in [&client, &broker] {
                end.set_nodelay(true)?;
                end.set_nonblocking(true)?;
            }
            Ok(Connection {
                ends: [client, broker],
                lines: Default::default(),
            })
        };
        // If the broker is down, its client sees the connection closed.
        if let Ok(connection) = connected() {
            self.connections.push(connection);
            self.shared.opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Connection {
    /// Reads what has come, and delivers what has arrived. An error also if both directions have
    /// ended.
    fn carry(
        &mut self,
        ready: [PollFlags; 2],
        delay: Duration,
        buffer: &mut [u8],
    ) -> Result<(), Broken> {
        // An end that was closed or reset can be read and written; that returns what happened.
        let is_ready =
            |at: usize, what| ready[at].intersects(what | PollFlags::HUP | PollFlags::ERR);
        for at in [0, 1] {
            let line = &mut self.lines[at];
            if !line.is_read && is_ready(at, PollFlags::IN) {
                line.read(&self.ends[at], delay, buffer)?;
            }
            if !line.is_blocked || is_ready(1 - at, PollFlags::OUT) {
                line.deliver(&self.ends[1 - at])?;
            }
        }
        match self.lines.iter().all(|line| line.is_delivered) {
            true => Err(Broken),
            false => Ok(()),
        }
    }
}

impl Line {
    fn read(
        &mut self,
        mut from: &TcpStream,
        delay: Duration,
        buffer: &mut [u8],
    ) -> Result<(), Broken> {
        let read = match from.read(buffer) {
            Ok(read) => read,
            Err(error) if is_temporary(&error) => return Ok(()),
            Err(_) => return Err(Broken),
        };
        self.is_read = read == 0;
        self.on_the_way += read;
        let piece = Bytes::copy_from_slice(&buffer[..read]);
        self.pieces.push_back((Instant::now() + delay, piece));
        Ok(())
    }

    fn deliver(&mut self, mut to: &TcpStream) -> Result<(), Broken> {
        self.is_blocked = false;
        let now = Instant::now() + EARLY;
        while let Some((arrival, piece)) = self.pieces.front_mut()
            && *arrival <= now
        {
            if piece.is_empty() {
                to.shutdown(Shutdown::Write).map_err(|_| Broken)?;
                self.is_delivered = true;
            } else {
                match to.write(piece) {
                    Ok(written) => {
                        self.on_the_way -= written;
                        piece.advance(written);
                    }
                    Err(error) if is_temporary(&error) => {
                        self.is_blocked = true;
                        return Ok(());
                    }
                    Err(_) => return Err(Broken),
                }
                if piece.has_remaining() {
                    continue;
                }
            }
            self.pieces.pop_front();
        }
        Ok(())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
