//! How a connection ends is passed on as it is: a cut never looks like an end, and destroys nothing that had arrived.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Client, Ending, Pattern, Server, Setup, connect, proc, programs, wait_until};

const PATTERN: Pattern = Pattern { seed: 31 };
const FOUR_MIB: u64 = 4 * 1024 * 1024;

/// Waits until the other end of `stream` has acknowledged everything.
fn wait_until_acknowledged(stream: &TcpStream) {
    let (local, peer) = (stream.local_addr().expect("open"), stream.peer_addr().expect("open"));
    wait_until("everything is acknowledged", || {
        proc::queues(local, peer).is_none_or(|queues| queues.unacknowledged == 0)
    });
}

/// Reads [`PATTERN`] until the connection ends; how much came and how it ended.
fn receive(stream: &TcpStream) -> (u64, Ending) {
    let mut at = 0;
    let ending = stream.drain(|piece| {
        PATTERN.check(at, piece);
        at += piece.len() as u64;
    });
    (at, ending)
}

#[test]
fn a_backend_that_sends_four_mebibytes_and_resets_gives_the_client_all_of_them_and_then_a_reset() {
    let server = Server::new(|mut stream: TcpStream| {
        stream.write_all(&PATTERN.bytes(0, FOUR_MIB as usize)).expect("the client reads along");
        wait_until_acknowledged(&stream);
        stream.reset();
    });
    let lb = Setup::to(server.addr).start();
    for round in 0..5 {
        let (got, ending) = receive(&connect(lb.addr()));
        assert_eq!((got, ending), (FOUR_MIB, Ending::Reset), "round {round}");
    }
}

#[test]
fn what_a_backend_had_delivered_before_its_reset_is_kept_for_a_client_that_reads_late() {
    let server = Server::new(|mut stream: TcpStream| {
        // as much as goes without a reader: into the client's socket, l4lb, and l4lb's socket
        stream.set_write_timeout(Some(Duration::from_millis(300))).expect("not zero");
        let mut written = 0;
        let bytes = PATTERN.bytes(0, 64 * FOUR_MIB as usize);
        loop {
            match stream.write(&bytes[written..(written + 65_536).min(bytes.len())]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) => panic!("writing at {written}: {e}"),
            }
        }
        let (local, peer) = (stream.local_addr().expect("open"), stream.peer_addr().expect("open"));
        let queues = proc::queues(local, peer).expect("the connection is open");
        stream.reset();
        written as u64 - queues.unacknowledged
    });
    let lb = Setup::to(server.addr).start();
    let stream = connect(lb.addr());
    let delivered = server.outcome();
    let (got, ending) = receive(&stream);
    assert!(delivered > 65_536, "{delivered} bytes are no test of this");
    assert!(got >= delivered, "{delivered} bytes had reached l4lb, {got} came");
    assert_eq!(ending, Ending::Reset, "after {got} bytes");
}

#[test]
fn a_client_that_resets_gives_the_backend_all_it_had_sent_and_then_a_reset() {
    let server = Server::new(|stream: TcpStream| receive(&stream));
    let lb = Setup::to(server.addr).start();
    for len in [0, 1, 1000, FOUR_MIB] {
        let mut stream = connect(lb.addr());
        stream.write_all(&PATTERN.bytes(0, len as usize)).expect("the backend reads");
        wait_until("the backend has the connection", || server.open() == 1);
        wait_until_acknowledged(&stream);
        stream.reset();
        assert_eq!(server.outcome(), (len, Ending::Reset), "after {len} bytes");
        wait_until("the backend is done", || server.open() == 0);
    }
}

#[test]
fn a_reset_in_an_idle_connection_reaches_the_other_side_both_ways() {
    let server = Server::new(|mut stream: TcpStream| {
        let order = stream.read_n(5);
        stream.write_all(&order).expect("the client reads");
        if order == b"reset" {
            wait_until_acknowledged(&stream);
            stream.reset();
            return None;
        }
        Some(receive(&stream).1)
    });
    let lb = Setup::to(server.addr).start();
    let stream = connect(lb.addr());
    stream.echo(b"reset");
    assert_eq!(stream.read_all(), (Vec::new(), Ending::Reset), "the backend resets");
    assert_eq!(server.outcome(), None);
    let stream = connect(lb.addr());
    stream.echo(b"stay.");
    stream.reset();
    assert_eq!(server.outcome(), Some(Ending::Reset), "the client resets");
}

#[test]
fn a_clean_end_of_both_sides_is_passed_on_as_a_clean_end() {
    // the other half of the promise: not everything is a reset
    let server = Server::new(|mut stream: TcpStream| {
        let (bytes, ending) = stream.read_all();
        stream.write_all(&bytes).expect("the client reads");
        ending
    });
    let lb = Setup::to(server.addr).start();
    for len in [0, 1, 70_000] {
        let message = PATTERN.bytes(0, len);
        assert!(crate::support::exchange(lb.addr(), &message) == message, "{len} bytes");
        assert_eq!(server.outcome(), Ending::Clean, "{len} bytes");
    }
}

#[test]
fn a_backend_killed_in_the_middle_of_a_transfer_is_a_cut_and_never_a_clean_end() {
    const VALUE: usize = 48 * 1024 * 1024;
    let redis = programs::redis();
    let lb = Setup::to(redis.addr).start();
    let mut stream = connect(lb.addr());
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${VALUE}\r\n");
    stream.write_all(set.as_bytes()).expect("redis reads");
    stream.write_all(&vec![b'v'; VALUE]).expect("redis reads");
    stream.write_all(b"\r\n").expect("redis reads");
    assert_eq!(stream.read_n(5), b"+OK\r\n");
    stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").expect("redis reads");
    stream.read_n(1024 * 1024);
    // input that nobody reads any more makes the kernel answer the death with a reset, as it does in real life
    redis.signal(Signal::SIGSTOP);
    stream.write_all(&b"*1\r\n$4\r\nPING\r\n".repeat(1000)).expect("the kernel holds it");
    wait_until("redis has unread input", || proc::unread_at(redis.addr) > 0);
    redis.signal(Signal::SIGKILL);
    let mut got = 1024 * 1024;
    let ending = stream.drain(|piece| got += piece.len());
    assert_eq!(ending, Ending::Reset, "after {got} of {VALUE} bytes");
    assert!(got < VALUE, "{got} bytes are the whole value, so that nothing was cut");
}
