//! A side that does not read stops the other side, not l4lb's memory; when it reads again nothing is missing.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Client, Ending, L4lb, PATIENCE, Pattern, Server, Setup, connect, proc, wait_until_still};

/// What l4lb may need for connections that do not move: far below what the kernel would take, far above a block.
const MEMORY_KIB: u64 = 4 * 1024;

/// Sends without end until told to stop, and then finishes.
#[derive(Clone, Default)]
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Flood {
    const PATTERN: Pattern = Pattern { seed: 21 };

    /// How much was sent in all, or that the connection was cut.
    fn run(&self, mut stream: &TcpStream) -> io::Result<u64> {
        // what a full pipe takes is for the other side to decide; the test's bound is on the whole
        stream.set_write_timeout(Some(4 * PATIENCE)).expect("not zero");
        let mut buf = vec![0; 64 * 1024];
        let mut at = 0;
        while !self.stop.load(Ordering::SeqCst) {
            Self::PATTERN.fill(at, &mut buf);
            let n = stream.write(&buf)?;
            at += n as u64;
            self.sent.store(at, Ordering::SeqCst);
        }
        stream.finish();
        Ok(at)
    }

    /// Waits until the sender is stuck; how far it came.
    fn wait_until_stuck(&self) -> u64 {
        wait_until_still("the sender is stuck", Duration::from_millis(700), || self.sent.load(Ordering::SeqCst))
    }
}

/// Reads the flood to its clean end; how much it was.
fn read_flood(stream: &TcpStream) -> u64 {
    let mut at = 0;
    let ending = stream.drain(|piece| {
        Flood::PATTERN.check(at, piece);
        at += piece.len() as u64;
    });
    assert_eq!(ending, Ending::Clean, "after {at} bytes");
    at
}

fn assert_memory_is_bounded(lb: &L4lb, before: u64, moved: u64) {
    let after = proc::memory_kib(lb.pid());
    assert!(after < before + MEMORY_KIB, "{before} KiB before, {after} KiB while {moved} bytes wait for a reader");
    let cpu = proc::cpu_time_over(lb.pid(), Duration::from_millis(500));
    assert!(cpu < Duration::from_millis(100), "{cpu:?} of CPU time in 500 ms while nothing can move");
}

#[test]
fn a_client_that_never_reads_stops_the_backend_and_not_the_memory() {
    let flood = Flood::default();
    let server = Server::new({
        let flood = flood.clone();
        move |stream| flood.run(&stream).expect("the client reads at last")
    });
    let lb = Setup::to(server.addr).start();
    let before = proc::memory_kib(lb.pid());
    let stream = connect(lb.addr());
    let stuck = flood.wait_until_stuck();
    assert!(stuck > 0, "the backend has sent nothing at all");
    assert_memory_is_bounded(&lb, before, stuck);
    flood.stop.store(true, Ordering::SeqCst);
    let got = read_flood(&stream);
    assert_eq!(got, server.outcome(), "nothing is lost when the client reads at last");
    stream.finish();
}

#[test]
fn a_backend_that_never_reads_stops_the_client_and_not_the_memory() {
    let read_now = Arc::new(AtomicBool::new(false));
    let server = Server::new({
        let read_now = read_now.clone();
        move |stream| {
            crate::support::wait_until("the backend may read", || read_now.load(Ordering::SeqCst));
            read_flood(&stream)
        }
    });
    let lb = Setup::to(server.addr).start();
    let before = proc::memory_kib(lb.pid());
    let flood = Flood::default();
    let stream = connect(lb.addr());
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| flood.run(&stream).expect("the backend reads at last"));
        let stuck = flood.wait_until_stuck();
        assert!(stuck > 0, "the client has sent nothing at all");
        assert_memory_is_bounded(&lb, before, stuck);
        flood.stop.store(true, Ordering::SeqCst);
        read_now.store(true, Ordering::SeqCst);
        sender.join().expect("the client could send")
    });
    assert_eq!(server.outcome(), sent, "nothing is lost when the backend reads at last");
}

#[test]
fn many_clients_that_never_read_cost_a_bounded_memory_and_harm_no_other() {
    const CLIENTS: u64 = 30; // each with some ten megabytes in the kernel's buffers, which are not ours to count
    let flood = Flood::default();
    let server = Server::new({
        let flood = flood.clone();
        move |mut stream: TcpStream| {
            let mut first = [0];
            io::Read::read_exact(&mut stream, &mut first).expect("the client says what it is");
            match first[0] {
                b'f' => drop(flood.run(&stream)), // cut at the end of the test
                _ => crate::support::server::echo(stream),
            }
        }
    });
    let lb = Setup::to(server.addr).start();
    let before = proc::memory_kib(lb.pid());
    let stuck: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stream = connect(lb.addr());
            // keep the kernel's share small: many of them
            socket2::SockRef::from(&stream).set_recv_buffer_size(4096).expect("TCP");
            (&stream).write_all(b"f").expect("a byte");
            stream
        })
        .collect();
    flood.wait_until_stuck();
    let after = proc::memory_kib(lb.pid());
    let bound = before + CLIENTS * 64 * 2 + MEMORY_KIB; // a direction holds at most 64 KiB
    assert!(after < bound, "{before} KiB before, {after} KiB with {CLIENTS} that do not read; at most {bound}");
    let mut other = connect(lb.addr());
    other.write_all(b"e").expect("a byte");
    for _ in 0..100 {
        other.echo(b"the others go on");
    }
    flood.stop.store(true, Ordering::SeqCst);
    stuck.into_iter().for_each(Client::reset);
}
