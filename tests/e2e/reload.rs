//! A file that is read again while clients are served: what it changes holds, and nobody notices anything else.

use crate::support::http::{self, Wire, get};
use crate::support::{Client, Ending, L4lb, Server, Setup, connect, exchange, wait_until};
use nix::sys::signal::Signal;
use std::net::SocketAddr;

/// What each of `n` requests on connections of their own is answered.
fn answers(addr: SocketAddr, n: usize) -> Vec<String> {
    (0..n).map(|_| http::ask(addr, get("/")).text().to_owned()).collect()
}

#[test]
fn backends_come_and_go_and_what_is_open_goes_on() {
    let (one, two) = (Server::echo(), Server::named("two"));
    let with_one = Setup::to(one.addr);
    let l4lb = with_one.clone().start();
    let open = connect(l4lb.addr());
    open.echo(b"hello");
    let told = l4lb.reload(&Setup::to(two.addr).toml());
    let line = format!("reloaded: backends added: out/{}; backends removed: out/{}", two.addr, one.addr);
    assert_eq!(told, [line]);
    open.echo(b"still"); // what is open at the old one goes on
    assert_eq!(exchange(l4lb.addr(), b""), b"two", "new ones go to the new one");
    assert_eq!(one.accepted(), 1);
    assert_eq!(l4lb.reload(&with_one.toml()).len(), 1);
    connect(l4lb.addr()).echo(b"back");
    open.echo(b"and still");
}

#[test]
fn a_broken_file_changes_nothing_and_every_error_is_told() {
    let one = http::Backend::named("one");
    let setup = Setup::http(one.addr());
    let l4lb = setup.clone().start();
    let mut wire = Wire::to(l4lb.addr());
    assert_eq!(wire.ask(get("/")).text(), "one");
    let broken = setup.clone().pool("retries = -1").backend_with("127.0.0.1:1", "wieght = 1").toml();
    let told = l4lb.reload(&broken);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("reload: ") && told[0].contains("lb.toml:"), "{told:?}");
    assert!(told[0].contains("pool.out.retries") && told[1].contains("wieght"), "{told:?}");
    assert_eq!(told[2], "reload: nothing is changed");
    assert_eq!(wire.ask(get("/")).text(), "one", "on the same connection");
    assert_eq!(answers(l4lb.addr(), 2), ["one", "one"]);
    assert_eq!(l4lb.reload(&setup.toml()), ["reloaded: nothing has changed"]);
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let one = http::Backend::named("one");
    let mut command = crate::support::l4lb::command(&[]);
    command.args(["--host", "127.0.0.1", "--port", "0", "--backend", &one.addr().to_string()]);
    let l4lb = L4lb::start_with_flags(command).expect("it starts");
    let told = l4lb.reload_as_it_is();
    assert_eq!(told[0], "reload: there is no file to read again: everything was said by flags");
    assert_eq!(told[1..], ["reload: nothing is changed"]);
    assert_eq!(answers(l4lb.addr(), 1), ["one"]);
}

#[test]
fn what_still_drains_after_drain_timeout_is_cut() {
    let (one, two) = (Server::echo(), Server::echo());
    let l4lb = Setup::to(one.addr).pool("drain_timeout = \"200ms\"").start();
    let open = connect(l4lb.addr());
    open.echo(b"hello");
    l4lb.reload(&Setup::to(two.addr).pool("drain_timeout = \"200ms\"").toml());
    assert_eq!(open.read_all(), (Vec::new(), Ending::Reset));
    connect(l4lb.addr()).echo(b"new");
}

#[test]
fn idle_connections_to_a_backend_that_left_are_closed() {
    let (one, two) = (http::Backend::named("one"), http::Backend::named("two"));
    let keep = "keepalive_timeout = \"1h\"";
    let l4lb = Setup::http(one.addr()).pool(keep).start();
    let mut wire = Wire::to(l4lb.addr());
    assert_eq!(wire.ask(get("/")).text(), "one");
    assert_eq!(one.open(), 1, "kept for the next");
    l4lb.reload(&Setup::http(two.addr()).pool(keep).toml());
    wait_until("the idle connection is closed", || one.open() == 0);
    assert_eq!(wire.ask(get("/")).text(), "two", "the client's connection stays");
}

#[test]
fn a_signal_while_it_drains_is_no_reload() {
    let one = Server::echo();
    let mut l4lb = Setup::to(one.addr).start();
    let open = connect(l4lb.addr());
    open.echo(b"hello");
    l4lb.signal(Signal::SIGTERM);
    l4lb.wait_for_log("that it drains", |line| line.contains("draining"));
    l4lb.signal(Signal::SIGHUP);
    open.echo(b"still");
    drop(open);
    assert!(l4lb.wait_for_exit().success());
}
