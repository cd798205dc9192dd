//! When a session ends: by idle time, by replies, by datagrams; and what still passes then.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::programs::run_with_input;
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{PATIENCE, Setup, proc, wait_until};

const NAMES: [char; 3] = ['a', 'b', 'c'];

fn over(backends: &[UdpBackend]) -> Setup {
    backends.iter().fold(Setup { protocol: "udp", ..Setup::new() }, |setup, backend| setup.backend(backend.addr))
}

#[test]
fn a_session_without_a_datagram_for_idle_timeout_ends() {
    let backends = NAMES.map(UdpBackend::named);
    let lb = over(&backends).listener("idle_timeout = \"400ms\"").start();
    let at_start = proc::settled_descriptors(lb.pid());
    let client = dial(lb.addr());
    for name in ['a', 'b', 'c', 'a'] {
        let since = Instant::now();
        assert_eq!(client.who(), name, "a session of its own for each time it comes back");
        proc::wait_for_descriptors(lb.pid(), at_start);
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(395), "it ended already after {took:?}");
        assert!(took < PATIENCE / 3, "it ended only after {took:?}");
    }
}

#[test]
fn a_datagram_either_way_keeps_a_session() {
    const IDLE: &str = "idle_timeout = \"1s\"";
    const STEPS: usize = 25; // of 100 ms: well beyond the timeout
    let step = || std::thread::sleep(Duration::from_millis(100));
    for (why, client_speaks) in [("the client", true), ("the backend", false)] {
        let backends = [UdpBackend::silent(), UdpBackend::silent()];
        let lb = over(&backends).listener(IDLE).start();
        let client = dial(lb.addr());
        client.say(b"first");
        let peer = backends[0].wait_for(1).from;
        for _ in 0..STEPS {
            step();
            if client_speaks {
                client.say(b"more");
            } else {
                backends[0].send(b"more", peer);
                assert_eq!(client.take(), b"more");
            }
        }
        client.say(b"last");
        let expected = if client_speaks { STEPS + 2 } else { 2 };
        assert_eq!(backends[0].wait_for(expected).bytes, b"last", "only {why} speaks");
        assert_eq!(backends[0].peers().len(), 1, "only {why} speaks: the session is the same all the time");
        assert_eq!(backends[1].received(), 0, "only {why} speaks");
    }
}

#[test]
fn with_udp_responses_1_a_session_ends_with_its_reply() {
    let backends = NAMES.map(UdpBackend::named);
    let lb = over(&backends).listener("idle_timeout = \"1h\"").pool("udp_responses = 1").start();
    let at_start = proc::settled_descriptors(lb.pid());
    let client = dial(lb.addr());
    let names: String = (0..9).map(|_| client.who()).collect();
    assert_eq!(names, "abcabcabc", "the next datagram is another session");
    proc::wait_for_descriptors(lb.pid(), at_start);
}

#[test]
fn replies_are_counted_against_all_datagrams_so_far() {
    for responses in [1, 2] {
        let backends = [UdpBackend::silent(), UdpBackend::silent()];
        let pool = format!("udp_responses = {responses}");
        let lb = over(&backends).listener("idle_timeout = \"1h\"").pool(&pool).start();
        let at_start = proc::settled_descriptors(lb.pid());
        let [a, b] = &backends;
        let client = dial(lb.addr());
        (0..3).for_each(|i| client.say(&[i]));
        let peer = a.wait_for(3).from;
        let reply = |n: usize| {
            for i in 0..n {
                a.send(&[i as u8], peer);
                assert_eq!(client.take(), [i as u8], "udp_responses = {responses}");
            }
        };
        reply(3 * responses - 1);
        client.say(b"one more");
        assert_eq!(a.wait_for(4).bytes, b"one more", "udp_responses = {responses}: one reply was missing still");
        reply(responses);
        assert!(proc::descriptors(lb.pid()) > at_start, "udp_responses = {responses}: one reply is missing still");
        reply(1);
        proc::wait_for_descriptors(lb.pid(), at_start);
        client.say(b"anew");
        assert_eq!(b.wait_for(1).bytes, b"anew", "udp_responses = {responses}: all replies are there");
        assert_eq!(a.received(), 4, "udp_responses = {responses}");
    }
}

#[test]
fn with_udp_responses_0_late_and_many_replies_pass() {
    let backend = UdpBackend::silent();
    let lb = Setup::udp(backend.addr).pool("udp_responses = 0").start();
    let client = dial(lb.addr());
    client.say(b"one question");
    let peer = backend.wait_for(1).from;
    assert!(client.is_silent_for(Duration::from_millis(300)), "nobody has answered yet");
    for i in 0..50_u8 {
        backend.send(&[i], peer);
        assert_eq!(client.take(), [i]);
    }
    client.say(b"another");
    assert_eq!(backend.wait_for(2).from, peer, "and it is the same session all the time");
}

#[test]
fn udp_requests_spreads_the_datagrams_of_one_client() {
    let rows = [
        ("each datagram", "udp_requests = 1", "abcabcabcabc"),
        ("three at a time", "udp_requests = 3", "aaabbbcccaaa"),
        ("each datagram, over with its reply", "udp_requests = 1\nudp_responses = 1", "abcabcabcabc"),
        ("its reply ends a session before its three are full", "udp_requests = 3\nudp_responses = 1", "abcabcabcabc"),
        ("no limit", "udp_requests = 0", "aaaaaaaaaaaa"),
    ];
    for (why, pool, expected) in rows {
        for workers in [1, 2] {
            let backends = NAMES.map(UdpBackend::named);
            let lb = over(&backends).global(&format!("workers = {workers}")).pool(pool).start();
            let client = dial(lb.addr());
            let names: String = (0..expected.len()).map(|_| client.who()).collect();
            assert_eq!(names, expected, "{why}, {workers} worker(s)");
        }
    }
}

#[test]
fn with_udp_requests_replies_of_an_earlier_session_still_pass() {
    for requests in [1, 3] {
        let backends = NAMES.map(|_| UdpBackend::silent());
        let lb = over(&backends).pool(&format!("udp_requests = {requests}")).start();
        let client = dial(lb.addr());
        let mut peers = Vec::new();
        for (name, backend) in NAMES.into_iter().zip(&backends) {
            (0..requests).for_each(|_| client.say(name.to_string().as_bytes()));
            peers.push(backend.wait_for(requests).from);
        }
        for round in 0..3 {
            for i in [1, 0, 2] {
                let reply = format!("{} late, {round}", NAMES[i]);
                backends[i].send(reply.as_bytes(), peers[i]);
                assert_eq!(client.take(), reply.as_bytes(), "udp_requests = {requests}");
            }
        }
    }
}

#[test]
fn with_udp_requests_no_reply_comes_to_another_client() {
    for requests in [1, 3] {
        let backend = UdpBackend::silent();
        let lb = Setup::udp(backend.addr).pool(&format!("udp_requests = {requests}")).start();
        let clients: Vec<_> = (0..8_u8).map(|i| (i, dial(lb.addr()))).collect();
        for (i, client) in &clients {
            client.say(&[*i]);
        }
        backend.wait_for(clients.len());
        // all wait for an answer at once, and the last one asked is answered first
        for seen in backend.seen().iter().rev() {
            backend.send(&[b"for ", &seen.bytes[..]].concat(), seen.from);
        }
        let mut unanswered = 0;
        for (i, client) in &clients {
            match client.take_within(Duration::from_secs(1)) {
                Some(answer) => {
                    assert_eq!(answer, [b'f', b'o', b'r', b' ', *i], "udp_requests = {requests}, client {i}")
                }
                None => unanswered += 1,
            }
        }
        assert_eq!(unanswered, 0, "udp_requests = {requests}: clients without their answer");
    }
}

/// The lines that three receivers got, and how many each.
fn received(backends: &[UdpBackend; 3]) -> ([usize; 3], Vec<String>) {
    let texts = |backend: &UdpBackend| {
        backend.seen().into_iter().map(|seen| String::from_utf8(seen.bytes).expect("text")).collect::<Vec<_>>()
    };
    let mut all = backends.iter().flat_map(texts).collect::<Vec<_>>();
    all.sort();
    (backends.each_ref().map(UdpBackend::received), all)
}

#[test]
fn syslog_lines_are_spread_one_by_one_over_three_receivers() {
    const LINES: usize = 300;
    let backends = NAMES.map(|_| UdpBackend::silent());
    let lb = over(&backends).pool("udp_requests = 1").start();
    let at_start = proc::settled_descriptors(lb.pid());
    let client = dial(lb.addr());
    for i in 0..LINES {
        client.say(format!("<14>line {i:04}").as_bytes());
        // not faster than they are dealt with
        wait_until("it has come", || backends.iter().map(UdpBackend::received).sum::<usize>() == i + 1);
    }
    let (shares, lines) = received(&backends);
    assert_eq!(shares, [LINES / 3; 3]);
    assert_eq!(lines, (0..LINES).map(|i| format!("<14>line {i:04}")).collect::<Vec<_>>());
    let more = proc::descriptors(lb.pid()).saturating_sub(at_start);
    assert!(more < 20, "{LINES} datagrams of one client cost {more} descriptors");
}

#[test]
fn what_logger_sends_is_spread_over_three_receivers() {
    const LINES: usize = 60;
    let backends = NAMES.map(|_| UdpBackend::silent());
    let lb = over(&backends).pool("udp_requests = 1").start();
    let text: String = (0..LINES).map(|i| format!("line {i:04}\n")).collect();
    let mut logger = Command::new("logger");
    logger.args(["--udp", "--server", "127.0.0.1", "--port", &lb.addr().port().to_string()]).stdout(Stdio::null());
    // one process, one socket: without udp_requests all would go to one receiver
    run_with_input(&mut logger, text.as_bytes());
    wait_until("all have come", || backends.iter().map(UdpBackend::received).sum::<usize>() >= LINES);
    let (shares, lines) = received(&backends);
    assert_eq!(shares, [LINES / 3; 3]);
    let told: Vec<_> = lines.iter().filter_map(|line| line.rfind("line ").map(|at| &line[at..])).collect();
    let mut told: Vec<_> = told.into_iter().map(str::trim_end).collect();
    told.sort_unstable();
    assert_eq!(told, text.lines().collect::<Vec<_>>());
}
