//! At a limit the new session is shed, those that exist go on, and places come back; and what many sessions leave behind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::udp::{Datagrams, UdpBackend, dial, dial_from};
use crate::support::{L4lb, Setup, note, proc, raise_descriptor_limit, wait_until};

/// How long nothing may come before we believe that nothing will.
const SILENCE: Duration = Duration::from_millis(300);

/// Which of these get an answer, asked all at once.
fn served(clients: &[UdpSocket]) -> Vec<bool> {
    clients.iter().for_each(|client| client.say(b"?"));
    let until = Instant::now() + SILENCE;
    let left = || until.saturating_duration_since(Instant::now());
    clients.iter().map(|client| client.take_within(left()).is_some()).collect()
}

fn count(served: &[bool]) -> usize {
    served.iter().filter(|served| **served).count()
}

fn from(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

#[test]
fn beyond_max_connections_a_new_session_is_shed_and_the_others_go_on() {
    for workers in [1, 2] {
        let backend = UdpBackend::echo();
        let lb = Setup::udp(backend.addr)
            .global(&format!("workers = {workers}"))
            .listener("max_connections = 4\nidle_timeout = \"2s\"")
            .start();
        let at_start = proc::settled_descriptors(lb.pid());
        let clients: Vec<_> = (0..12).map(|_| dial(lb.addr())).collect();
        let first = served(&clients);
        assert_eq!(count(&first), 4, "{workers} worker(s): {first:?}");
        for round in 0..3 {
            assert_eq!(served(&clients), first, "{workers} worker(s), round {round}: the same are inside");
        }
        assert_eq!(backend.peers().len(), 4, "{workers} worker(s): what is shed comes to no backend");
        let inside: Vec<_> =
            clients.iter().zip(&first).filter(|(_, inside)| **inside).map(|(client, _)| client).collect();
        let outside = clients.iter().zip(&first).find(|(_, inside)| !**inside).expect("eight are").0;
        // one leaves by saying nothing while the others speak
        wait_until("a place is free", || {
            inside[1..].iter().for_each(|client| client.echo(b"I am here"));
            outside.say(b"and now?");
            outside.take_within(Duration::from_millis(100)).is_some()
        });
        assert_eq!(served(&clients).iter().filter(|served| **served).count(), 4, "{workers} worker(s)");
        proc::wait_for_descriptors(lb.pid(), at_start);
        let (others, rest) = clients.split_at(4);
        assert_eq!(count(&served(others)), 4, "{workers} worker(s): all places come back after idle_timeout");
        assert_eq!(count(&served(rest)), 0, "{workers} worker(s)");
    }
}

#[test]
fn max_per_client_counts_by_address() {
    for workers in [1, 2] {
        let backend = UdpBackend::echo();
        let lb = Setup::udp(backend.addr)
            .global(&format!("workers = {workers}"))
            .listener("max_per_client = 3\nidle_timeout = \"2s\"")
            .start();
        let at_start = proc::settled_descriptors(lb.pid());
        let of = |last| (0..8).map(|_| dial_from(from(last), lb.addr())).collect::<Vec<_>>();
        let (one, other) = (of(1), of(2));
        let first = served(&one);
        assert_eq!(count(&first), 3, "{workers} worker(s)");
        assert_eq!(count(&served(&other)), 3, "{workers} worker(s): another address has its own places");
        assert_eq!(served(&one), first, "{workers} worker(s): the same are inside");
        proc::wait_for_descriptors(lb.pid(), at_start);
        assert_eq!(count(&served(&one)), 3, "{workers} worker(s): places come back after idle_timeout");
    }
}

#[test]
fn places_come_back_when_sessions_end_by_their_replies() {
    let backend = UdpBackend::echo();
    let limits = "max_connections = 2\nmax_per_client = 1\nidle_timeout = \"1h\"";
    let lb = Setup::udp(backend.addr).listener(limits).pool("udp_responses = 1").start();
    for i in 0..200 {
        dial(lb.addr()).echo(format!("client {i}").as_bytes());
    }
}

#[test]
fn without_a_limit_of_its_own_the_descriptor_limit_sheds_new_sessions() {
    raise_descriptor_limit();
    let backend = UdpBackend::echo();
    for workers in [1, 2] {
        let mut lb = Setup::udp(backend.addr)
            .global(&format!("workers = {workers}"))
            .listener("idle_timeout = \"2s\"")
            .wrapped(["prlimit", "--nofile=150:150"])
            .start();
        let at_start = proc::settled_descriptors(lb.pid());
        let clients: Vec<_> = (0..200).map(|_| dial(lb.addr())).collect();
        let mut first = Vec::new();
        for crowd in clients.chunks(50) {
            first.extend(served(crowd));
        }
        let inside = count(&first);
        assert!((20..150).contains(&inside), "{inside} of 200 are inside with 150 descriptors");
        for (client, _) in clients.iter().zip(&first).filter(|(_, inside)| **inside) {
            client.echo(b"I go on");
        }
        let cpu = proc::cpu_time_over(lb.pid(), Duration::from_secs(1));
        assert!(cpu < Duration::from_millis(100), "{cpu:?} of CPU time in a second in which nothing happens");
        proc::wait_for_descriptors(lb.pid(), at_start);
        clients.iter().rev().take(10).for_each(|client| client.echo(b"now it is my turn"));
        assert!(lb.is_running());
        let lines = lb.log().len();
        assert!(lines < 40, "a line for each session that was shed, or nearly: {lines}");
        note(&format!("{inside} UDP sessions at once fit into 150 descriptors with {workers} worker(s)"));
    }
}

/// Opens sessions `at_once` at a time, each from a client of its own, and waits until they have ended, so often.
fn open_and_expire(rounds: u8, at_once: usize) {
    raise_descriptor_limit();
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).listener("idle_timeout = \"2s\"").start();
    let at_start = proc::settled_descriptors(lb.pid());
    let memory_at_start = proc::memory_kib(lb.pid());
    let (mut most, mut after_first) = (0, 0);
    for round in 0..rounds {
        // another address each time, so that no session is the successor of one that was
        let clients: Vec<_> = (0..at_once).map(|_| dial_from(from(2 + round), lb.addr())).collect();
        for crowd in clients.chunks(32) {
            crowd.iter().for_each(|client| client.say(b"one of many"));
            crowd.iter().for_each(|client| assert_eq!(client.take(), b"one of many"));
        }
        most = most.max(proc::descriptors(lb.pid()) - at_start);
        drop(clients);
        proc::wait_for_descriptors(lb.pid(), at_start);
        if round == 0 {
            after_first = proc::memory_kib(lb.pid());
        }
    }
    let (sessions, memory) = (usize::from(rounds) * at_once, proc::memory_kib(lb.pid()));
    assert_eq!(backend.received(), sessions);
    note(&format!(
        "{sessions} UDP sessions opened and expired, up to {most} at once: memory {memory_at_start} KiB at the start, \
         {after_first} after {at_once}, {memory} at the end"
    ));
    assert!(memory < after_first + 2048, "{after_first} KiB after the first {at_once}, and {memory} after {sessions}");
    assert!(memory < memory_at_start + 12 * 1024, "{memory_at_start} KiB at the start, and {memory} after {sessions}");
}

#[test]
fn twenty_thousand_sessions_opened_and_expired_leave_nothing_behind() {
    open_and_expire(5, 4000);
}

#[test]
#[ignore = "takes a minute or more; run it by name"]
fn a_hundred_thousand_sessions_opened_and_expired_leave_nothing_behind() {
    open_and_expire(15, 7000);
}

#[test]
fn idle_sessions_cost_no_time() {
    raise_descriptor_limit();
    let backend = UdpBackend::echo();
    let lb: L4lb = Setup::udp(backend.addr).start();
    let to: SocketAddr = lb.addr();
    let clients: Vec<_> = (0..500).map(|_| dial(to)).collect();
    clients.iter().for_each(|client| client.echo(b"x"));
    let cpu = proc::cpu_time_over(lb.pid(), Duration::from_secs(1));
    assert!(cpu < Duration::from_millis(50), "{cpu:?} of CPU time in a second in which 500 sessions are idle");
}
