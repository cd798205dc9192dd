//! Backends that take a request and never answer, or do not even accept: each client is held up for a time-out at most,
//! and once the breaker is open nobody is held up any more.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin;
use crate::support::http::{Wire, ask, get, ok, scripted};
use crate::support::l4lb::command;
use crate::support::ports::Blackhole;
use crate::support::{L4lb, PATIENCE, Server, Setup, connect, server, wait_until};

/// How long a backend may be silent.
const TIMEOUT: Duration = Duration::from_secs(1);
const BREAKER: &str = "circuit_breaker = { failure_threshold = 3, success_threshold = 2, timeout = \"2s\" }";

/// How it went for a client: served, or not, and how long that took.
type Told = (bool, Duration);

/// `n` clients at once.
fn crowd(n: usize, client: impl Fn() -> bool + Sync) -> Vec<Told> {
    let one = || {
        let began = Instant::now();
        (client(), began.elapsed())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..n).map(|_| scope.spawn(one)).collect();
        clients.into_iter().map(|client| client.join().expect("no client fails otherwise")).collect()
    })
}

/// Fails unless so many were held up, for the time-out and not much longer, and the others were sent away at once.
fn assert_held_up(why: &str, told: &[Told], held_up: usize) {
    let (slow, fast): (Vec<Told>, Vec<Told>) =
        told.iter().copied().partition(|(_, took)| *took >= TIMEOUT - Duration::from_millis(20));
    assert_eq!(slow.len(), held_up, "{why}: {told:?}");
    assert!(slow.iter().all(|(_, took)| *took < PATIENCE / 3), "{why}: {told:?}");
    assert!(fast.iter().chain(&slow).all(|(served, _)| !served), "{why}: who could have served them? {told:?}");
}

fn breaker_is(api: SocketAddr, state: &str) -> bool {
    admin::json(&ask(api, admin::lb("/lb/backends")))[0]["circuit_breaker"]["state"] == state
}

/// The whole walk of a breaker before a backend that is silent until `mend` is called.
fn walk(why: &str, api: SocketAddr, client: impl Fn() -> bool + Sync, mend: impl FnOnce()) {
    for number in 0..3 {
        assert_held_up(&format!("{why}: failure {number}"), &crowd(1, &client), 1);
    }
    assert!(breaker_is(api, "open"), "{why}: after three failures");
    assert_held_up(&format!("{why}: it is open"), &crowd(20, &client), 0);
    wait_until("it is time for a trial", || breaker_is(api, "half_open"));
    assert_held_up(&format!("{why}: one tries, and the others are not held up"), &crowd(20, &client), 1);
    assert!(breaker_is(api, "open"), "{why}: after a bad trial");
    assert_held_up(&format!("{why}: it is open again"), &crowd(20, &client), 0);
    mend();
    wait_until("it is time for a trial", || breaker_is(api, "half_open"));
    assert!(client(), "{why}: the first good trial");
    assert!(breaker_is(api, "half_open"), "{why}: one success is not enough");
    assert!(client(), "{why}: the second good trial");
    wait_until("it is closed", || breaker_is(api, "closed"));
    assert!(crowd(20, &client).iter().all(|(served, _)| *served), "{why}: all is well again");
}

#[test]
fn a_backend_that_never_answers_costs_a_time_out_until_its_breaker_opens() {
    let (mended, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (works, count) = (mended.clone(), asked.clone());
    let backend = scripted(move |mut wire| {
        while wire.next_request().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            if !works.load(Ordering::SeqCst) {
                wire.rest();
                return;
            }
            wire.send(ok("well"));
        }
    });
    let lb = Setup::http(backend.addr)
        .listener("admin = true")
        .pool(&format!("{BREAKER}\nresponse_timeout = \"{}s\"\nretries = 3", TIMEOUT.as_secs()))
        .start();
    let client = || {
        let began = Instant::now();
        let status = ask(lb.addr(), get("/")).status();
        // who waited in vain is told so, who was not let through is told that
        let expected = if began.elapsed() >= TIMEOUT - Duration::from_millis(20) { 504 } else { 503 };
        assert!(status == 200 || status == expected, "{status}");
        status == 200
    };
    walk("http", lb.addr(), client, || {
        assert_eq!(asked.load(Ordering::SeqCst), 4, "three failures and a trial");
        mended.store(true, Ordering::SeqCst);
    });
    assert_eq!(asked.load(Ordering::SeqCst), 4 + 2 + 20, "nobody else came to it");
}

#[test]
fn a_backend_that_never_accepts_costs_a_time_out_until_its_breaker_opens() {
    let blackhole = Blackhole::new();
    let toml =
        Setup::to(blackhole.addr).pool(&format!("{BREAKER}\nconnect_timeout = \"{}s\"", TIMEOUT.as_secs())).toml();
    let web =
        "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"out\"\nadmin = true\n";
    let lb = L4lb::start(command(&[]), &(toml + web));
    let client = || {
        let mut stream = connect(lb.addr_of("in"));
        let _ = stream.write_all(b"x");
        stream.read(&mut [0]).is_ok_and(|n| n == 1)
    };
    let mut backend = None;
    walk("tcp", lb.addr_of("web"), client, || {
        backend = Some(Server::on(blackhole.listen(), server::echo));
    });
}

#[test]
fn trials_come_one_at_a_time_however_many_wait_for_them() {
    let (mended, inside, most) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (works, now, top) = (mended.clone(), inside, most.clone());
    let backend = scripted(move |mut wire: Wire| {
        while wire.next_request().is_some() {
            top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let works = works.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20)); // so that a second trial would be seen
            now.fetch_sub(1, Ordering::SeqCst);
            if !works {
                return; // and closes without an answer
            }
            wire.send(ok("well"));
        }
    });
    let breaker = "circuit_breaker = { failure_threshold = 1, success_threshold = 1000000, timeout = \"50ms\" }";
    let lb = Setup::http(backend.addr).pool(&format!("{breaker}\nretries = 0")).start();
    assert_eq!(ask(lb.addr(), get("/")).status(), 502);
    most.store(0, Ordering::SeqCst);
    // while trials fail, and while they succeed and more of them are needed
    for works in [false, true] {
        mended.store(works, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_millis(500);
        let answers = thread::scope(|scope| {
            let client = || {
                let mut answers = Vec::new();
                while Instant::now() < until {
                    answers.push(ask(lb.addr(), get("/")).status());
                }
                answers
            };
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
            clients.into_iter().flat_map(|client| client.join().expect("no client fails")).collect::<Vec<u16>>()
        });
        let trials = answers.iter().filter(|status| **status != 503).count();
        assert!((2..answers.len()).contains(&trials), "{trials} trials of {}", answers.len());
        assert_eq!(answers.contains(&200), works, "{trials} trials of {}", answers.len());
        assert_eq!(most.load(Ordering::SeqCst), 1, "trials at once");
    }
}

#[test]
fn with_another_backend_there_only_those_before_the_breaker_opens_are_held_up() {
    let silent = scripted(|mut wire| wire.rest().0.len());
    let other = Server::on(std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"), |stream| {
        let mut wire = Wire::of(stream);
        while wire.next_request().is_some() {
            if !wire.try_send(ok("other")) {
                return;
            }
        }
    });
    let lb = Setup::http(silent.addr)
        .backend(other.addr)
        .pool(&format!("{}\nresponse_timeout = \"{}s\"", BREAKER.replace("2s", "1h"), TIMEOUT.as_secs()))
        .start();
    let told = (0..40).flat_map(|_| crowd(1, || ask(lb.addr(), get("/")).status() == 200));
    let held_up = told.filter(|(served, _)| !served).count();
    assert_eq!(held_up, 3, "of 40, one after the other");
    let told = crowd(20, || ask(lb.addr(), get("/")).status() == 200);
    assert!(told.iter().all(|(served, took)| *served && *took < TIMEOUT), "{told:?}");
    silent.outcome();
}
