//! How connections and the process come to their end in time.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, Ending, L4lb, PATIENCE, Server, Setup, connect, proc, wait_until};

#[test]
fn a_connection_without_a_byte_for_idle_timeout_is_closed() {
    let server = Server::echo();
    let lb = Setup::to(server.addr).listener("idle_timeout = \"400ms\"").start();
    let at_start = proc::settled_descriptors(lb.pid());
    for (why, first) in [("it never said anything", &b""[..]), ("it has been busy before", b"hello")] {
        let stream = connect(lb.addr());
        let since = Instant::now();
        stream.echo(first);
        let (rest, _) = stream.read_all();
        assert!(rest.is_empty(), "{why}");
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(395), "{why}: closed already after {took:?}");
        assert!(took < PATIENCE / 3, "{why}: closed only after {took:?}");
    }
    proc::wait_for_descriptors(lb.pid(), at_start);
    wait_until("the backend has none open", || server.open() == 0);
}

#[test]
fn a_byte_either_way_keeps_a_connection_from_being_idle() {
    const IDLE: &str = "idle_timeout = \"1s\"";
    const STEPS: usize = 25; // of 100 ms: well beyond the timeout
    let step = || std::thread::sleep(Duration::from_millis(100));

    let server = Server::new(|stream: TcpStream| stream.read_all());
    let lb = Setup::to(server.addr).listener(IDLE).start();
    let mut stream = connect(lb.addr());
    for _ in 0..STEPS {
        stream.write_all(b"c").expect("it is kept open");
        step();
    }
    stream.finish();
    assert_eq!(server.outcome(), (vec![b'c'; STEPS], Ending::Clean), "the client speaks, the backend is silent");

    let server = Server::new(move |mut stream: TcpStream| {
        for _ in 0..STEPS {
            stream.write_all(b"b").expect("it is kept open");
            step();
        }
    });
    let lb = Setup::to(server.addr).listener(IDLE).start();
    let stream = connect(lb.addr());
    assert_eq!(stream.read_all(), (vec![b'b'; STEPS], Ending::Clean), "the backend speaks, the client is silent");
    server.outcome();
}

#[test]
fn half_a_connection_that_is_idle_is_closed_too() {
    let (silent, kept) = Server::silent();
    let lb = Setup::to(silent.addr).listener("idle_timeout = \"400ms\"").start();
    let at_start = proc::settled_descriptors(lb.pid());
    let stream = connect(lb.addr());
    stream.finish();
    wait_until("the backend has it", || kept.len() == 1);
    assert!(stream.read_all().0.is_empty());
    proc::wait_for_descriptors(lb.pid(), at_start);
}

/// Waits until nobody is let in any more.
fn wait_until_closed(lb: &L4lb) {
    wait_until("connections are refused", || TcpStream::connect_timeout(&lb.addr(), PATIENCE).is_err());
}

#[test]
fn a_signal_closes_the_door_lets_connections_finish_and_exits_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::echo();
        let mut lb = Setup::to(server.addr).global("workers = 2\nshutdown_timeout = \"1h\"").start();
        let streams: Vec<_> = (0..10).map(|_| connect(lb.addr())).collect();
        streams.iter().for_each(|stream| stream.echo(b"before"));
        lb.signal(signal);
        wait_until_closed(&lb);
        let message = crate::support::Pattern { seed: 51 }.bytes(0, 40_000);
        for stream in &streams {
            stream.echo(&message);
        }
        assert!(lb.is_running(), "{signal}: it has ended before its connections");
        for stream in &streams {
            stream.finish();
            assert_eq!(stream.read_all(), (Vec::new(), Ending::Clean), "{signal}");
        }
        assert_eq!(lb.wait_for_exit().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_signal_with_no_connection_open_ends_at_once() {
    let mut lb = Setup::to("127.0.0.1:9").global("shutdown_timeout = \"1h\"").start();
    let asked = Instant::now();
    lb.signal(Signal::SIGTERM);
    assert_eq!(lb.wait_for_exit().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "after {:?}", asked.elapsed());
}

#[test]
fn a_drain_lasts_no_longer_than_shutdown_timeout() {
    let server = Server::echo();
    let mut lb = Setup::to(server.addr).global("workers = 2\nshutdown_timeout = \"600ms\"").start();
    let streams: Vec<_> = (0..3).map(|_| connect(lb.addr())).collect();
    streams.iter().for_each(|stream| stream.echo(b"before"));
    let asked = Instant::now();
    lb.signal(Signal::SIGTERM);
    assert_eq!(lb.wait_for_exit().code(), Some(0));
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(595), "cut already after {took:?}");
    assert!(took < PATIENCE / 3, "cut only after {took:?}");
    for stream in &streams {
        assert!(stream.read_all().0.is_empty(), "it is over for the client too");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in
        [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGINT), (Signal::SIGTERM, Signal::SIGINT)]
    {
        let server = Server::echo();
        let mut lb = Setup::to(server.addr).global("workers = 2\nshutdown_timeout = \"1h\"").start();
        let stream = connect(lb.addr());
        stream.echo(b"before");
        lb.signal(first);
        wait_until_closed(&lb);
        stream.echo(b"between");
        let asked = Instant::now();
        lb.signal(second);
        assert_eq!(lb.wait_for_exit().code(), Some(0), "{first}, {second}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{first}, {second}: after {:?}", asked.elapsed());
        assert!(stream.read_all().0.is_empty());
    }
}

#[test]
fn a_transfer_in_full_flight_is_completed_by_a_drain() {
    const LEN: usize = 64 * 1024 * 1024;
    let pattern = crate::support::Pattern { seed: 52 };
    let server = Server::new(move |mut stream: TcpStream| {
        let mut at = 0;
        while at < LEN {
            stream.write_all(&pattern.bytes(at as u64, 65_536)).expect("the client reads");
            at += 65_536;
        }
    });
    let mut lb = Setup::to(server.addr).global("workers = 2\nshutdown_timeout = \"1h\"").start();
    let stream = connect(lb.addr());
    let mut got = stream.read_n(1).len();
    lb.signal(Signal::SIGTERM);
    wait_until_closed(&lb);
    let ending = stream.drain(|piece| {
        pattern.check(got as u64, piece);
        got += piece.len();
    });
    assert_eq!((got, ending), (LEN, Ending::Clean));
    stream.finish();
    assert_eq!(lb.wait_for_exit().code(), Some(0));
}
