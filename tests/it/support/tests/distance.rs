//! What `support::distance` promises, in front of a server that answers with what it has read.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::SOON;
use crate::support::distance::Distance;

/// Sends every connection its own bytes back, until the test process ends.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("descriptors are left");
            stream.set_nodelay(true).expect("a socket");
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(SOON)).expect("a duration");
    stream
}

/// The shortest of many round trips: on a busy machine, any of them may take longer.
fn ping(mut stream: &TcpStream) -> Duration {
    let once = |_| {
        let began = Instant::now();
        stream.write_all(b"x").expect("it is open");
        stream.read_exact(&mut [0]).expect("it is answered");
        began.elapsed()
    };
    (0..50).map(once).min().expect("there are some")
}

#[test]
fn a_round_trip_takes_as_long_as_was_set() {
    let target = echo();
    let distance = Distance::start(target).expect("a free port");
    let stream = connect(distance.address());
    ping(&stream);
    for millis in [1, 2, 10] {
        let wanted = Duration::from_millis(millis);
        distance.set_round_trip(wanted);
        let measured = ping(&stream);
        // On an idle machine the difference is 0.1 ms. Timers with a resolution of 1 ms would add
        // more than 1 ms.
        let difference = measured.abs_diff(wanted);
        assert!(
            difference < Duration::from_micros(500),
            "{measured:?} in place of {wanted:?}"
        );
    }
}

#[test]
fn bytes_follow_each_other_without_waiting_and_in_order() {
    const PIECES: u32 = 100;
    const ROUND_TRIP: Duration = Duration::from_millis(400);
    let distance = Distance::start(echo()).expect("a free port");
    distance.set_round_trip(ROUND_TRIP);
    let mut stream = connect(distance.address());
    let began = Instant::now();
    let sender = stream.try_clone().expect("descriptors are left");
    let sent = thread::spawn(move || {
        for piece in 0..PIECES {
            (&sender)
                .write_all(&piece.to_be_bytes())
                .expect("it is open");
            thread::sleep(Duration::from_millis(1));
        }
    });
    for piece in 0..PIECES {
        let mut received = [0; 4];
        stream.read_exact(&mut received).expect("it is answered");
        assert_eq!(u32::from_be_bytes(received), piece);
    }
    sent.join().expect("no panic");
    let elapsed = began.elapsed();
    assert!(elapsed >= ROUND_TRIP, "{elapsed:?}");
    // One after the other they would take a hundred round trips.
    assert!(elapsed < 10 * ROUND_TRIP, "{elapsed:?}");
}

#[test]
fn a_shorter_round_trip_does_not_change_the_order() {
    let distance = Distance::start(echo()).expect("a free port");
    distance.set_round_trip(Duration::from_millis(300));
    let mut stream = connect(distance.address());
    stream.write_all(b"far").expect("it is open");
    // Until the bytes have been read.
    thread::sleep(Duration::from_millis(50));
    distance.set_round_trip(Duration::ZERO);
    stream.write_all(b"near").expect("it is open");
    let mut received = [0; 7];
    stream.read_exact(&mut received).expect("it is answered");
    assert_eq!(&received, b"farnear");
}

#[test]
fn a_receiver_that_is_slow_gets_every_byte_and_then_the_end() {
    const BYTES: usize = 8 << 20;
    let distance = Distance::start(echo()).expect("a free port");
    distance.set_round_trip(Duration::from_millis(10));
    let stream = connect(distance.address());
    let sender = stream.try_clone().expect("descriptors are left");
    let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let copy = sent.clone();
    let sends = thread::spawn(move || {
        (&sender).write_all(&copy).expect("it is open");
        sender.shutdown(Shutdown::Write).expect("it is open");
    });
    // Until the sockets on the way are full.
    thread::sleep(Duration::from_millis(300));
    let mut received = Vec::new();
    (&stream).read_to_end(&mut received).expect("it ends");
    sends.join().expect("no panic");
    assert!(received == sent, "bytes were lost or changed");
    drop(stream);
    gone(&distance);
}

#[test]
fn a_connection_ends_with_either_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = listener.local_addr().expect("it is bound");
    let distance = Distance::start(target).expect("a free port");
    distance.set_round_trip(Duration::from_millis(10));

    let client = connect(distance.address());
    let (mut server, _) = listener.accept().expect("it is carried");
    drop(client);
    server.set_read_timeout(Some(SOON)).expect("a duration");
    assert_eq!(server.read(&mut [0]).expect("it is closed"), 0);
    drop(server);
    gone(&distance);

    let mut client = connect(distance.address());
    let (server, _) = listener.accept().expect("it is carried");
    drop(server);
    assert_eq!(client.read(&mut [0]).expect("it is closed"), 0);
    drop(client);
    gone(&distance);

    drop(listener);
    // Closed or reset, because nothing listens at the target.
    let mut client = connect(distance.address());
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    gone(&distance);
    assert_eq!(distance.opened(), 2);
}

#[track_caller]
fn gone(distance: &Distance) {
    let deadline = Instant::now() + SOON;
    while distance.connections() > 0 {
        assert!(Instant::now() < deadline, "a connection is left over");
        thread::sleep(Duration::from_millis(5));
    }
}
