//! How it leaves while clients are there: a delay in which it only says so, then a drain; nobody loses anything by it.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::http::{Backend, Wire, ask, get, ok, scripted};
use crate::support::l4lb::command;
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{
    Client, Ending, L4lb, PATIENCE, Server, Setup, connect, exchange, raise_descriptor_limit, wait_until,
};

/// A listener of each protocol before a backend of its own: `web` (which serves the admin API, too), `raw` and `dns`.
fn all_three(global: &str, web: SocketAddr, raw: SocketAddr, dns: SocketAddr) -> L4lb {
    let mut toml = format!("[global]\n{global}\n");
    for (name, protocol, more, backend) in
        [("web", "http", "admin = true", web), ("raw", "tcp", "", raw), ("dns", "udp", "", dns)]
    {
        toml += &format!(
            "[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\npool = \"{name}\"\n{more}\n\
             [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{backend}\" }}]\n"
        );
    }
    L4lb::start(command(&[]), &toml)
}

/// What `/lb/health` says on this connection: its status and its text.
fn health(wire: &mut Wire) -> (u16, Value) {
    let answer = wire.ask("GET /lb/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.head.get("content-type"), Some("application/json"));
    (answer.status(), serde_json::from_slice(&answer.body).expect("JSON"))
}

/// Fails unless it says that it leaves.
fn says_that_it_leaves(wire: &mut Wire, why: &str) {
    let (status, told) = health(wire);
    assert_eq!((status, &told["status"], &told["reason"]), (503, &"unhealthy".into(), &"draining".into()), "{why}");
}

fn refuses(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, PATIENCE).is_err()
}

#[test]
fn for_shutdown_delay_everything_is_served_and_health_says_that_it_leaves() {
    let (web, raw, dns) = (Backend::echoing_targets(), Server::echo(), UdpBackend::echo());
    let delay = Duration::from_secs(2);
    let mut lb =
        all_three("workers = 2\nshutdown_delay = \"2s\"\nshutdown_timeout = \"20s\"", web.addr(), raw.addr, dns.addr);
    let [web_addr, raw_addr, dns_addr] = ["web", "raw", "dns"].map(|name| lb.addr_of(name));
    let (mut kept, mut watcher) = (Wire::to(web_addr), Wire::to(web_addr));
    assert_eq!(kept.ask(get("/before")).text(), "/before");
    assert_eq!(health(&mut watcher).0, 200);
    let asked = Instant::now();
    lb.signal(Signal::SIGTERM);
    wait_until("it says that it leaves", || health(&mut watcher).0 == 503);
    says_that_it_leaves(&mut watcher, "on the connection of before");
    says_that_it_leaves(&mut Wire::to(web_addr), "on a new one");
    while asked.elapsed() < delay / 2 {
        let answer = kept.ask(get("/between"));
        assert_eq!((answer.text(), answer.head.closes()), ("/between", false), "a kept connection is kept");
        assert_eq!(ask(web_addr, get("/new")).text(), "/new", "a new connection");
        assert_eq!(exchange(raw_addr, b"tcp"), b"tcp");
        dial(dns_addr).echo(b"udp");
        std::thread::sleep(Duration::from_millis(20));
    }
    kept.expect_end("an idle connection ends when the delay is over");
    assert!(asked.elapsed() >= delay - Duration::from_millis(5), "after {:?}", asked.elapsed());
    wait_until("it listens no more", || refuses(web_addr) && refuses(raw_addr));
    assert_eq!(lb.wait_for_exit().code(), Some(0));
    assert!(asked.elapsed() < delay * 4, "nobody is left, and it took {:?}", asked.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once_during_the_delay_too() {
    let server = Server::echo();
    let mut lb =
        Setup::to(server.addr).global("workers = 2\nshutdown_delay = \"1h\"\nshutdown_timeout = \"1h\"").start();
    let stream = connect(lb.addr());
    stream.echo(b"before");
    let asked = Instant::now();
    lb.signal(Signal::SIGTERM);
    lb.wait_for_log("that it waits", |line| line.contains("draining in 3600s"));
    stream.echo(b"between");
    assert_eq!(exchange(lb.addr(), b"new"), b"new");
    lb.signal(Signal::SIGINT);
    assert_eq!(lb.wait_for_exit().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "after {:?}", asked.elapsed());
    assert_eq!(stream.read_all(), (Vec::new(), Ending::Reset), "what is cut does not look whole");
}

#[test]
fn the_time_of_a_drain_begins_when_the_delay_is_over() {
    let server = Server::echo();
    let mut lb =
        Setup::to(server.addr).global("workers = 2\nshutdown_delay = \"500ms\"\nshutdown_timeout = \"500ms\"").start();
    let stream = connect(lb.addr());
    stream.echo(b"before");
    let asked = Instant::now();
    lb.signal(Signal::SIGTERM);
    assert_eq!(lb.wait_for_exit().code(), Some(0));
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(995), "cut already after {took:?}");
    assert!(took < PATIENCE / 3, "cut only after {took:?}");
    assert!(stream.read_all().0.is_empty());
}

#[test]
fn a_reload_changes_the_delay_and_works_during_it() {
    let server = Server::echo();
    let toml = |global: &str| Setup::to(server.addr).global(&format!("workers = 1\n{global}")).toml();
    let lb = L4lb::start(command(&[]), &toml("shutdown_delay = \"0s\""));
    let told = lb.reload(&toml("shutdown_delay = \"1h\""));
    assert!(told.join("\n").contains("global.shutdown_delay"), "{told:?}");
    lb.signal(Signal::SIGTERM);
    lb.wait_for_log("that it waits", |line| line.contains("draining in 3600s"));
    let told = lb.reload(&toml("shutdown_delay = \"1h\"\nmax_connections = 100"));
    assert!(told.join("\n").contains("global.max_connections"), "{told:?}");
    assert_eq!(exchange(lb.addr(), b"new"), b"new");
    // the end of this test is the first signal more, which ends it at once
}

#[test]
fn what_waits_to_be_accepted_is_served_by_a_drain() {
    let (web, raw, dns) = (Backend::echoing_targets(), Server::echo(), UdpBackend::echo());
    raise_descriptor_limit();
    let mut lb = all_three("workers = 1\nshutdown_timeout = \"20s\"", web.addr(), raw.addr, dns.addr);
    let [web_addr, raw_addr, dns_addr] = ["web", "raw", "dns"].map(|name| lb.addr_of(name));
    // stopped, it accepts nobody: the kernel does, and keeps them in its queues; so many that one turn does not take all
    lb.signal(Signal::SIGSTOP);
    let mut http: Vec<_> = (0..400).map(|_| Wire::to(web_addr)).collect();
    let tcp: Vec<_> = (0..400).map(|_| connect(raw_addr)).collect();
    let udp: Vec<_> = (0..20).map(|_| dial(dns_addr)).collect();
    udp.iter().for_each(|client| client.say(b"waits"));
    http[..200].iter_mut().for_each(|client| client.send(get("/waits")));
    lb.signal(Signal::SIGTERM);
    lb.signal(Signal::SIGCONT);
    udp.iter().for_each(|client| assert_eq!(client.take(), b"waits"));
    http[200..].iter_mut().for_each(|client| client.send(get("/waits")));
    for client in &mut http {
        let answer = client.response();
        assert_eq!((answer.text(), answer.head.closes()), ("/waits", true));
        client.expect_end("after its answer");
    }
    for client in &tcp {
        client.echo(b"waits");
        client.finish();
        assert_eq!(client.read_all(), (Vec::new(), Ending::Clean));
    }
    assert_eq!(lb.wait_for_exit().code(), Some(0));
}

#[test]
fn who_is_in_flight_finishes_and_is_told_to_close() {
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let web = scripted(move |mut wire| {
        wire.request();
        let _ = told.lock().expect("never poisoned").recv();
        wire.send(ok("late"));
        wire.rest();
    });
    let (raw, dns) = (Server::echo(), UdpBackend::silent());
    let mut lb = all_three("workers = 2\nshutdown_timeout = \"20s\"", web.addr, raw.addr, dns.addr);
    let [web_addr, raw_addr, dns_addr] = ["web", "raw", "dns"].map(|name| lb.addr_of(name));
    let (mut waits, mut idle, mut watcher, stream) =
        (Wire::to(web_addr), Wire::to(web_addr), Wire::to(web_addr), connect(raw_addr));
    waits.send(get("/"));
    assert_eq!(health(&mut idle).0, 200);
    // half a question: this connection is not idle, so it lives until that is answered
    watcher.send("GET /lb/health HTTP/1.1\r\nHost: local");
    stream.echo(b"before");
    let client = dial(dns_addr);
    client.say(b"?");
    let question = dns.wait_for(1);
    wait_until("the backend is asked", || web.open() == 1);
    lb.signal(Signal::SIGTERM);
    wait_until("it listens no more", || refuses(web_addr) && refuses(raw_addr));
    dns.send(b"!", question.from);
    assert_eq!(client.take(), b"!", "a reply on its way");
    idle.expect_end("a connection with nothing to do");
    stream.echo(b"after");
    watcher.send("host\r\n\r\n");
    let answer = watcher.response();
    assert_eq!((answer.status(), answer.head.closes()), (503, true), "{}", answer.text());
    assert!(answer.text().contains("\"reason\":\"draining\""), "{}", answer.text());
    tell.send(()).expect("the backend waits");
    let answer = waits.response();
    assert_eq!((answer.text(), answer.head.closes()), ("late", true), "{:?}", answer.head);
    waits.expect_end("after its answer");
    assert!(lb.is_running(), "a connection is open still");
    stream.finish();
    assert_eq!(stream.read_all(), (Vec::new(), Ending::Clean));
    assert_eq!(lb.wait_for_exit().code(), Some(0));
}
