//! A backend that cannot be reached costs a client nothing as long as another one can.

use std::time::{Duration, Instant};

use crate::support::ports::{Blackhole, Refusing};
use crate::support::{Client, L4lb, PATIENCE, Server, Setup, closed_without_data, connect, exchange, server};

/// "At once" on a machine that may be busy; every timeout in l4lb is longer.
const AT_ONCE: Duration = Duration::from_secs(1);

fn is_served(lb: &L4lb) -> bool {
    exchange(lb.addr(), b"x") == b"x"
}

#[test]
fn every_client_is_served_when_one_of_two_backends_refuses() {
    let (refusing, echo) = (Refusing::new(), Server::echo());
    for (why, first, second) in
        [("the first refuses", refusing.addr, echo.addr), ("the second refuses", echo.addr, refusing.addr)]
    {
        let lb = Setup::to(first).backend(second).start();
        for i in 0..50 {
            assert!(is_served(&lb), "{why}: client {i}");
        }
    }
}

#[test]
fn a_message_sent_before_the_backend_is_found_is_not_lost_by_a_retry() {
    let (refusing, echo) = (Refusing::new(), Server::echo());
    let lb = Setup::to(refusing.addr).backend(echo.addr).start();
    let message = crate::support::Pattern { seed: 41 }.bytes(0, 50_000);
    for _ in 0..10 {
        assert!(exchange(lb.addr(), &message) == message);
    }
}

#[test]
fn clients_are_closed_at_once_when_all_backends_refuse() {
    let refusing = [Refusing::new(), Refusing::new(), Refusing::new()];
    for n in 1..=3 {
        let setup = refusing[..n].iter().fold(Setup::new().pool("retries = 5"), |setup, one| setup.backend(one.addr));
        let lb = setup.start();
        for i in 0..5 {
            let asked = Instant::now();
            assert!(closed_without_data(lb.addr()), "client {i}, {n} backends");
            assert!(asked.elapsed() < AT_ONCE, "client {i}, {n} backends: closed after {:?}", asked.elapsed());
        }
    }
}

#[test]
fn retries_says_how_many_others_are_tried() {
    // three refuse and one does not; who is allowed three more tries reaches it at the first connection
    for (retries, served) in [(0, false), (2, false), (3, true), (9, true)] {
        let refusing = [Refusing::new(), Refusing::new(), Refusing::new()];
        let echo = Server::echo();
        let setup = refusing.iter().fold(Setup::new(), |setup, one| setup.backend(one.addr));
        let lb = setup.backend(echo.addr).pool(&format!("retries = {retries}")).start();
        let answer = {
            let stream = connect(lb.addr());
            let _ = std::io::Write::write_all(&mut &stream, b"x");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            stream.read_all().0
        };
        assert_eq!(answer == b"x", served, "retries = {retries}");
    }
}

#[test]
fn a_connect_that_takes_longer_than_connect_timeout_goes_to_another_backend() {
    let (blackhole, echo) = (Blackhole::new(), Server::echo());
    let lb = Setup::to(blackhole.addr).backend(echo.addr).pool("connect_timeout = \"300ms\"").start();
    let asked = Instant::now();
    assert!(is_served(&lb), "by the other one");
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(295), "served after {took:?}: the first one was not waited for");
    assert!(took < PATIENCE / 3, "served only after {took:?}");
}

#[test]
fn a_connect_that_times_out_with_no_other_backend_closes_the_client() {
    let blackhole = Blackhole::new();
    let lb = Setup::to(blackhole.addr).pool("connect_timeout = \"300ms\"").start();
    let asked = Instant::now();
    assert!(closed_without_data(lb.addr()));
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(295), "closed after {took:?}: connect_timeout was not heeded");
    assert!(took < PATIENCE / 3, "closed only after {took:?}");
}

#[test]
fn a_client_that_leaves_during_the_connect_leaves_nothing_behind() {
    let blackhole = Blackhole::new();
    let lb = Setup::to(blackhole.addr).pool("connect_timeout = \"1h\"").start();
    let at_start = crate::support::proc::settled_descriptors(lb.pid());
    let clients: Vec<_> = (0..20).map(|_| connect(lb.addr())).collect();
    let descriptors = || crate::support::proc::descriptors(lb.pid());
    crate::support::wait_until("all are connecting", || descriptors() >= at_start + 40);
    clients.into_iter().for_each(Client::reset);
    crate::support::proc::wait_for_descriptors(lb.pid(), at_start);
}

#[test]
fn a_backend_that_failed_is_set_aside_for_a_second() {
    let (dead, alive) = (Refusing::new(), Server::named("b"));
    let lb = Setup::to(dead.addr).backend(alive.addr).start();
    let before = Instant::now();
    assert_eq!(exchange(lb.addr(), b""), b"b", "the first one refuses, the second one serves");
    let failed = Instant::now();
    // From here on it would serve. That it is not asked shows that it is set aside.
    let revived = Server::on(dead.listen(), server::say("a"));
    while exchange(lb.addr(), b"") != b"a" {
        assert!(failed.elapsed() < PATIENCE, "it is never tried again");
    }
    let aside = before.elapsed();
    assert!(aside >= Duration::from_millis(950), "tried again {aside:?} after it failed");
    // ours is the first failure, so that nothing has doubled yet
    let late = failed.elapsed();
    assert!(late < Duration::from_secs(5), "tried again only {late:?} after it failed");
    assert!(revived.accepted() > 0);
}

#[test]
fn a_backend_that_came_back_gets_its_share_again() {
    let (dead, alive) = (Refusing::new(), Server::named("b"));
    let lb = Setup::to(dead.addr).backend(alive.addr).start();
    exchange(lb.addr(), b"");
    let _revived = Server::on(dead.listen(), server::say("a"));
    crate::support::wait_until("it serves again", || exchange(lb.addr(), b"") == b"a");
    let next: Vec<u8> = (0..10).flat_map(|_| exchange(lb.addr(), b"")).collect();
    assert_eq!(String::from_utf8_lossy(&next), "bababababa");
}

#[test]
fn the_last_backend_is_never_set_aside() {
    let dead = Refusing::new();
    let lb = Setup::to(dead.addr).start();
    for _ in 0..3 {
        assert!(closed_without_data(lb.addr()));
    }
    let _revived = Server::on(dead.listen(), server::say("a"));
    let asked = Instant::now();
    assert_eq!(exchange(lb.addr(), b""), b"a", "the very next connection tries it");
    assert!(asked.elapsed() < AT_ONCE, "after {:?}", asked.elapsed());
}
