//! The checker against real sockets.

use super::*;
use crate::base::ids::BackendSlot;
use crate::probe::{Check, Health, Rules};
use crate::shared::backend::BackendState;
use crate::shared::checks::CheckPlan;
use crate::shared::mail::control_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

const RULES: Rules = Rules { rise: 2, fall: 2, interval: Duration::from_millis(40), initially_up: true };

fn target(slot: u32, addresses: Vec<SocketAddr>, check: Check, timeout: u64) -> Target {
    Target {
        slot: BackendSlot(slot),
        pool: "p".into(),
        id: format!("b{slot}").into(),
        addresses: addresses.into(),
        plan: Arc::new(CheckPlan { begins: Vec::new(), check, rules: RULES, timeout: Duration::from_millis(timeout) }),
        state: BackendState::new(BackendSlot(slot), 0, 0, 1),
    }
}

fn connects() -> Check {
    Check::Tcp { send: Vec::new(), expect: Vec::new() }
}

/// Waits until its health is so.
fn until(state: &BackendState, health: Health, why: &str) {
    let patience = Instant::now() + Duration::from_secs(20);
    while state.health() != health {
        assert!(Instant::now() < patience, "{why}: it is {:?}, and should be {health:?}", state.health());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A server that answers every connection with `answer` once something was said; it ends with the test.
fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut asked = [0; 1024];
            if stream.read(&mut asked).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(answer);
            }
        }
    });
    address
}

#[test]
fn every_kind_of_check_tells_good_from_bad() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refusing_udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo_address = echo.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = [0; 100];
        while let Ok((count, from)) = echo.recv_from(&mut datagram) {
            let _ = echo.send_to(&datagram[..count], from);
        }
    });
    let http = |code| Check::Http { path: "/health".into(), host: "a".into(), expect: (code, code) };
    let redis = || Check::Tcp { send: b"PING\r\n".to_vec(), expect: b"+PONG".to_vec() };
    let udp = |expect: &[u8]| Check::Udp { send: b"hello".to_vec(), expect: expect.to_vec() };
    let (ok, pong) = (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), answering(b"+PONG\r\n"));
    let rows = [
        ("it accepts", vec![open.local_addr().unwrap()], connects(), Health::Up),
        ("it refuses", vec![refusing], connects(), Health::Down),
        ("its second address accepts", vec![refusing, open.local_addr().unwrap()], connects(), Health::Up),
        ("its name does not resolve", vec![], connects(), Health::Down),
        ("it answers as expected", vec![pong], redis(), Health::Up),
        ("it answers otherwise", vec![ok], redis(), Health::Down),
        ("it accepts and says nothing", vec![silent.local_addr().unwrap()], redis(), Health::Down),
        ("HTTP, as expected", vec![ok], http(200), Health::Up),
        ("HTTP, another status", vec![ok], http(204), Health::Down),
        ("no HTTP", vec![pong], http(200), Health::Down),
        ("a datagram is answered", vec![echo_address], udp(b"ell"), Health::Up),
        ("otherwise than expected", vec![echo_address], udp(b"bye"), Health::Down),
        ("not at all", vec![mute.local_addr().unwrap()], udp(b"ell"), Health::Down),
        ("not at all, and nothing is expected", vec![mute.local_addr().unwrap()], udp(b""), Health::Up),
        ("nobody is there, and nothing is expected", vec![refusing_udp], udp(b""), Health::Down),
    ];
    let targets: Vec<(Target, Health, &str)> = rows
        .into_iter()
        .enumerate()
        .map(|(slot, (why, addresses, check, health))| (target(slot as u32, addresses, check, 300), health, why))
        .collect();
    let (mail, _box) = control_box();
    let checker = Checker::start(Clock::start(), mail).unwrap();
    checker.check(targets.iter().map(|(target, _, _)| target.clone()).collect());
    for (target, health, why) in &targets {
        until(&target.state, *health, why);
    }
}

#[test]
fn one_that_dies_is_found_and_one_that_comes_back_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mail, mailbox) = control_box();
    let checker = Checker::start(Clock::start(), mail).unwrap();
    let target = target(0, vec![address], connects(), 1_000);
    let state = target.state.clone();
    checker.check(vec![target.clone()]);
    until(&state, Health::Up, "it accepts");
    drop(listener);
    until(&state, Health::Down, "it is gone");
    // The same order again: what is known stays known.
    checker.check(vec![target]);
    let _listener = TcpListener::bind(address).unwrap();
    until(&state, Health::Up, "it is back");
    let changes = mailbox.try_iter().filter(|mail| matches!(mail, ControlMail::Health)).count();
    assert!(changes >= 3, "control was told {changes} times");
    checker.check(Vec::new());
    until(&state, Health::Starting, "nobody looks after it any more");
}

#[test]
fn thousands_are_checked_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || for _ in listener.incoming() {});
    let (mail, _box) = control_box();
    let checker = Checker::start(Clock::start(), mail).unwrap();
    let rules = Rules { interval: Duration::from_secs(2), ..RULES };
    let plan = Arc::new(CheckPlan { begins: Vec::new(), check: connects(), rules, timeout: Duration::from_secs(1) });
    let targets: Vec<Target> = (0..2_000)
        .map(|slot| Target { plan: plan.clone(), ..target(slot, vec![address], connects(), 1_000) })
        .collect();
    checker.check(targets.clone());
    for target in &targets {
        until(&target.state, Health::Up, "one of thousands");
    }
}
