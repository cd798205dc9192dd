//! Bulk goes through pipes of the kernel, and nobody can tell but by the processor's time: every byte arrives, ends are
//! where they were, and the descriptors come back.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::support::http::{Wire, ok, scripted};
use crate::support::pattern::Checksum;
use crate::support::{Client, Ending, L4lb, Pattern, Server, Setup, connect, note, proc, wait_until, wait_until_still};

const MIB: usize = 1 << 20;
const LEN: usize = 64 * MIB;

fn checksum(seed: u64) -> Checksum {
    let mut sum = Checksum::new();
    (0..LEN / MIB).for_each(|at| sum.add(&Pattern { seed }.bytes((at * MIB) as u64, MIB)));
    sum
}

fn send(mut stream: &TcpStream, seed: u64) {
    for at in 0..LEN / MIB {
        stream.write_all(&Pattern { seed }.bytes((at * MIB) as u64, MIB)).expect("the other side reads");
    }
}

/// Runs `transfer`, and says how many pipes l4lb had at the most beyond those it had before. All descriptors must come back.
fn watched(lb: &L4lb, transfer: impl FnOnce()) -> usize {
    let (before, at_start) = (proc::pipes(lb.pid()), proc::settled_descriptors(lb.pid()));
    let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                most.fetch_max(proc::pipes(lb.pid()), Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        transfer();
        over.store(true, Relaxed);
    });
    proc::wait_for_descriptors(lb.pid(), at_start);
    most.into_inner() - before
}

#[test]
fn tcp_both_ways_at_once() {
    let both = |stream: &TcpStream, out, back| {
        thread::scope(|scope| {
            scope.spawn(move || {
                send(stream, out);
                stream.finish();
            });
            let mut sum = Checksum::new();
            let ending = stream.drain(|piece| {
                Pattern { seed: back }.check(sum.bytes, piece);
                sum.add(piece);
            });
            assert_eq!(ending, Ending::Clean, "after {} bytes", sum.bytes);
            sum
        })
    };
    let server = Server::new(move |stream| both(&stream, 2, 1));
    let lb = Setup::to(server.addr).start();
    let pipes = watched(&lb, || {
        assert_eq!(both(&connect(lb.addr()), 1, 2), checksum(2), "what the backend sent");
        assert_eq!(server.outcome(), checksum(1), "what the client sent");
    });
    note(&format!("64 MiB both ways at once by {pipes} descriptors of pipes"));
    assert!(pipes >= 2, "no pipe was ever seen: all of it was copied");
}

#[test]
fn http_bodies_of_known_length() {
    let backend = scripted(|mut wire| {
        while let Some(head) = wire.next_head() {
            if head.method() == "PUT" {
                assert_eq!(head.length(), Some(LEN));
                receive(&mut wire, 1);
                wire.send(ok("received"));
            } else {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"));
                send(&wire.stream, 2);
            }
        }
    });
    // No connection to the backend is kept, so that all descriptors come back.
    let lb = Setup::http(backend.addr).pool("keepalive = 0").start();
    type Row = (&'static str, fn(&mut Wire));
    let ways: [Row; 2] = [
        ("down", |wire| {
            wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(wire.head().length(), Some(LEN));
            receive(wire, 2);
        }),
        ("up", |wire| {
            wire.send(format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n"));
            send(&wire.stream, 1);
            assert_eq!(wire.response().text(), "received");
        }),
    ];
    for (why, way) in ways {
        let pipes = watched(&lb, || {
            let mut wire = Wire::to(lb.addr());
            way(&mut wire);
            // The connection goes on behind it.
            wire.send("PUT /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 67108864\r\n\r\n");
            send(&wire.stream, 1);
            assert_eq!(wire.response().text(), "received", "{why}: the next request");
        });
        assert!(pipes >= 2, "{why}: no pipe was ever seen: all of it was copied");
    }
}

fn receive(wire: &mut Wire, seed: u64) {
    for at in 0..LEN / MIB {
        let found = wire.bytes(MIB);
        assert!(found == Pattern { seed }.bytes((at * MIB) as u64, MIB), "mebibyte {at} came changed");
    }
}

#[test]
fn a_backend_connection_serves_on_after_a_body_that_went_by_a_pipe() {
    const BODY: usize = 8 * MIB;
    let backend = scripted(|mut wire| {
        while wire.next_head().is_some() {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"));
            wire.send(vec![b'x'; BODY]);
        }
    });
    let lb = Setup::http(backend.addr).global("workers = 1").start();
    let mut wire = Wire::to(lb.addr());
    for _ in 0..4 {
        wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(wire.head().length(), Some(BODY));
        assert!(wire.bytes(BODY).iter().all(|byte| *byte == b'x'));
    }
    assert_eq!(backend.accepted(), 1, "a splice does not tell that nothing came behind the end, but somebody must");
}

#[test]
fn a_body_that_breaks_off_in_a_pipe_is_cut() {
    let backend = scripted(|mut wire| {
        wire.next_head();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"));
        for at in 0..8 {
            let _ = wire.stream.write_all(&Pattern { seed: 2 }.bytes((at * MIB) as u64, MIB));
        }
    });
    let lb = Setup::http(backend.addr).start();
    let mut wire = Wire::to(lb.addr());
    wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.head().length(), Some(LEN));
    for at in 0..8 {
        assert!(wire.bytes(MIB) == Pattern { seed: 2 }.bytes((at * MIB) as u64, MIB), "mebibyte {at}");
    }
    assert_eq!(wire.stream.drain(|_| {}), Ending::Reset, "a part must not look whole");
}

#[test]
fn a_reader_that_stops_holds_one_pipe_and_a_reset_gives_it_back() {
    let server = Server::new(|mut stream: TcpStream| while stream.write_all(&[2; MIB]).is_ok() {});
    let lb = Setup::to(server.addr).start();
    let (before, at_start) = (proc::pipes(lb.pid()), proc::settled_descriptors(lb.pid()));
    let client = connect(lb.addr());
    (&client).write_all(b"go").expect("it is read");
    wait_until("the transfer has come to a stop in a pipe", || proc::pipes(lb.pid()) == before + 2);
    let still = wait_until_still("nothing moves", Duration::from_millis(300), || proc::cpu_time(lb.pid()));
    assert!(!still.is_zero() && proc::pipes(lb.pid()) == before + 2, "what waits for the reader waits in one pipe");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(client);
    proc::wait_for_descriptors(lb.pid(), at_start);
}

#[test]
fn without_descriptors_to_spare_it_is_copied() {
    let server = Server::new(|stream| send(&stream, 2));
    let lb = Setup::to(server.addr).global("workers = 2").wrapped(["prlimit", "--nofile=60:60"]).start();
    let pipes = watched(&lb, || {
        let mut sum = Checksum::new();
        assert_eq!(connect(lb.addr()).drain(|piece| sum.add(piece)), Ending::Clean);
        assert_eq!(sum, checksum(2));
    });
    assert_eq!(pipes, 0);
}
