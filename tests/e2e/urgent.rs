//! Urgent data (MSG_OOB) is nothing l4lb has a use for, and nothing that may disturb it.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::support::{Client, Ending, Server, Setup, connect, proc};

/// Stands for urgent; no message holds it, so that both a proxy that passes it on and one that drops it are right.
const MARK: u8 = b'!';

fn send_urgent(stream: &TcpStream) {
    assert_eq!(SockRef::from(stream).send_out_of_band(&[MARK]).expect("the peer reads"), 1);
}

/// Reads `n` bytes besides [`MARK`].
fn read_unmarked(stream: &TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < n {
        bytes.extend(stream.read_n(1).into_iter().filter(|byte| *byte != MARK));
    }
    bytes
}

#[test]
fn urgent_data_from_the_client_does_not_stall_the_stream() {
    let server = Server::new(|stream: TcpStream| {
        for _ in 0..100 {
            let message = read_unmarked(&stream, 6);
            (&stream).write_all(&message).expect("the client reads");
        }
    });
    let lb = Setup::to(server.addr).start();
    let mut stream = connect(lb.addr());
    for i in 0..100 {
        let message = format!("{i:06}");
        let (before, after) = message.as_bytes().split_at(i % 7);
        stream.write_all(before).expect("the backend reads");
        send_urgent(&stream);
        stream.write_all(after).expect("the backend reads");
        assert_eq!(stream.read_n(6), message.as_bytes(), "message {i}, urgent after {} bytes", before.len());
    }
    server.outcome();
}

#[test]
fn urgent_data_from_the_backend_does_not_stall_the_stream() {
    let server = Server::new(|stream: TcpStream| {
        for i in 0..100 {
            let message = stream.read_n(6);
            let (before, after) = message.split_at(i % 7);
            (&stream).write_all(before).expect("the client reads");
            send_urgent(&stream);
            (&stream).write_all(after).expect("the client reads");
        }
    });
    let lb = Setup::to(server.addr).start();
    let mut stream = connect(lb.addr());
    for i in 0..100 {
        let message = format!("{i:06}");
        stream.write_all(message.as_bytes()).expect("the backend reads");
        assert_eq!(read_unmarked(&stream, 6), message.as_bytes(), "message {i}");
    }
    server.outcome();
}

#[test]
fn urgent_data_in_a_bulk_transfer_loses_nothing_around_it() {
    const PIECES: usize = 200;
    let piece = [b'x'; 40_000];
    let server = Server::new(move |stream: TcpStream| {
        let mut plain = 0;
        let ending = stream.drain(|bytes| plain += bytes.iter().filter(|byte| **byte == b'x').count());
        assert_eq!(ending, Ending::Clean);
        plain
    });
    let lb = Setup::to(server.addr).start();
    let mut stream = connect(lb.addr());
    for _ in 0..PIECES {
        stream.write_all(&piece).expect("the backend reads");
        send_urgent(&stream);
    }
    stream.finish();
    assert_eq!(server.outcome(), PIECES * piece.len());
    assert_eq!(stream.read_all().1, Ending::Clean);
}

#[test]
fn urgent_data_that_nothing_follows_does_not_keep_l4lb_busy() {
    let server = Server::new(|stream: TcpStream| {
        send_urgent(&stream);
        crate::support::server::echo(stream);
    });
    let lb = Setup::to(server.addr).start();
    let mut stream = connect(lb.addr());
    send_urgent(&stream);
    let cpu = proc::cpu_time_over(lb.pid(), Duration::from_secs(1));
    assert!(cpu < Duration::from_millis(200), "{cpu:?} of CPU time in a second of silence");
    stream.write_all(b"and on").expect("the backend reads");
    assert_eq!(read_unmarked(&stream, 6), b"and on");
}
