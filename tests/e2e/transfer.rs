//! Every byte arrives, once, in order, and half a connection may end before the other half.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::pattern::Checksum;
use crate::support::{Client, Ending, Pattern, Server, Setup, connect, proc, raise_descriptor_limit, wait_until};

const MIB: u64 = 1024 * 1024;

/// Writes `len` bytes of `pattern` and then finishes.
fn send(mut stream: &TcpStream, pattern: Pattern, len: u64) {
    let mut buf = vec![0; 128 * 1024];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(buf.len() as u64) as usize;
        pattern.fill(at, &mut buf[..n]);
        stream.write_all(&buf[..n]).unwrap_or_else(|e| panic!("writing at {at}: {e}"));
        at += n as u64;
    }
    stream.finish();
}

/// Reads `pattern` until the end, which must be clean; its checksum.
fn receive(stream: &TcpStream, pattern: Pattern) -> Checksum {
    let mut sum = Checksum::new();
    let ending = stream.drain(|piece| {
        pattern.check(sum.bytes, piece);
        sum.add(piece);
    });
    assert_eq!(ending, Ending::Clean, "after {} bytes", sum.bytes);
    sum
}

#[test]
fn a_hundred_mebibytes_both_ways_at_once_arrive_with_equal_checksums() {
    const LEN: u64 = 100 * MIB;
    let (up, down) = (Pattern { seed: 1 }, Pattern { seed: 2 });
    let both = move |stream: &TcpStream, out, back| {
        thread::scope(|scope| {
            scope.spawn(move || send(stream, out, LEN));
            receive(stream, back)
        })
    };
    let server = Server::new(move |stream| both(&stream, down, up));
    let lb = Setup::to(server.addr).start();
    let at_client = both(&connect(lb.addr()), up, down);
    let at_backend = server.outcome();
    let expected = |pattern: Pattern| {
        let mut sum = Checksum::new();
        (0..LEN / MIB).for_each(|i| sum.add(&pattern.bytes(i * MIB, MIB as usize)));
        sum
    };
    assert_eq!(at_backend, expected(up), "what the client sent");
    assert_eq!(at_client, expected(down), "what the backend sent");
}

#[test]
fn messages_of_every_size_come_back_as_they_were() {
    let server = Server::echo();
    let lb = Setup::to(server.addr).start();
    let mut sizes: Vec<usize> = (1..=20).collect();
    for power in 5..=20 {
        // around the sizes at which buffers end
        sizes.extend([(1 << power) - 1, 1 << power, (1 << power) + 1]);
    }
    let one = connect(lb.addr());
    let mut at = 0;
    for &size in &sizes {
        let message = Pattern { seed: 3 }.bytes(at, size);
        at += size as u64;
        // a megabyte echoed needs a reader beside the writer
        thread::scope(|scope| {
            let mut writer = one.try_clone().expect("a descriptor is free");
            let sent = &message;
            scope.spawn(move || writer.write_all(sent).expect("the echo reads"));
            assert!(one.read_n(size) == message, "{size} bytes on a connection that has seen {at}");
        });
    }
    for size in sizes.into_iter().filter(|size| *size <= 65_537) {
        let message = Pattern { seed: 4 }.bytes(0, size);
        let back = crate::support::exchange(lb.addr(), &message);
        assert!(back == message, "{size} bytes on a connection of their own");
    }
}

#[test]
fn two_thousand_clients_at_once_are_served_and_every_descriptor_comes_back() {
    const CLIENTS: usize = 2_000;
    raise_descriptor_limit();
    let server = Server::echo();
    let lb = Setup::to(server.addr).start();
    let at_start = proc::settled_descriptors(lb.pid());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(lb.addr())).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("client {i:5}").as_bytes()).expect("a short message");
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read_n(12), format!("client {i:5}").as_bytes(), "client {i}");
    }
    let open = proc::descriptors(lb.pid());
    assert!(open >= at_start + 2 * CLIENTS, "all are open at once, yet l4lb has {open} descriptors and had {at_start}");
    for (i, client) in clients.iter_mut().enumerate() {
        client.echo(format!("again {i}").as_bytes());
    }
    drop(clients);
    proc::wait_for_descriptors(lb.pid(), at_start);
    wait_until("the backend has none open", || server.open() == 0);
}

#[test]
fn a_client_that_has_finished_sending_still_gets_the_whole_answer() {
    let (question, answer) = (Pattern { seed: 5 }, Pattern { seed: 6 });
    let server = Server::new(move |stream| {
        let asked = receive(&stream, question).bytes;
        send(&stream, answer, 3 * MIB);
        asked
    });
    let lb = Setup::to(server.addr).start();
    for len in [0, 1, 100_000, 2 * MIB] {
        let stream = connect(lb.addr());
        send(&stream, question, len);
        assert_eq!(receive(&stream, answer).bytes, 3 * MIB, "the answer to {len} bytes");
        assert_eq!(server.outcome(), len, "the question of {len} bytes");
    }
}

#[test]
fn a_backend_that_has_finished_sending_still_gets_the_whole_request() {
    let (question, answer) = (Pattern { seed: 7 }, Pattern { seed: 8 });
    let server = Server::new(move |stream| {
        send(&stream, answer, 1000);
        receive(&stream, question).bytes
    });
    let lb = Setup::to(server.addr).start();
    for len in [0, 1, 100_000, 3 * MIB] {
        let stream = connect(lb.addr());
        assert_eq!(receive(&stream, answer).bytes, 1000, "the backend speaks first and finishes");
        send(&stream, question, len);
        assert_eq!(server.outcome(), len, "the client goes on after the backend has finished");
    }
}

#[test]
fn small_messages_are_not_held_back_to_be_gathered() {
    // Nagle's algorithm against a delayed acknowledgement costs 40 ms a message (RFC 1122, 4.2.3.4).
    let server = Server::new(|mut stream: TcpStream| {
        loop {
            // two writes a message, so that the second one would wait for the first one's acknowledgement
            let mut answer = [0; 2];
            if std::io::Read::read_exact(&mut stream, &mut answer).is_err() {
                return;
            }
            let _ = stream.write_all(&answer[..1]).and_then(|()| stream.write_all(&answer[1..]));
        }
    });
    let lb = Setup::to(server.addr).start();
    let mut stream = connect(lb.addr());
    let mut took: Vec<_> = (0..60)
        .map(|_| {
            let sent = Instant::now();
            stream.write_all(b"a").expect("a byte");
            // long enough for l4lb to have taken the first byte before the second comes
            thread::sleep(Duration::from_millis(1));
            stream.write_all(b"b").expect("a byte");
            assert_eq!(stream.read_n(2), b"ab");
            sent.elapsed()
        })
        .collect();
    took.sort();
    // a busy machine may delay some; the algorithm delays all
    assert!(took[15] < Duration::from_millis(20), "a quarter of 60 took at least {:?}", took[15]);
}
