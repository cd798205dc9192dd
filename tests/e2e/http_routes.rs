//! Which pool a request goes to, and what a pool's backends carry.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::{Backend, Wire, ask, get, ok, scripted};
use crate::support::l4lb::command;
use crate::support::ports::Refusing;
use crate::support::{L4lb, PATIENCE, Setup, wait_until};

/// A listener with these routes, and pools of one backend each that tells the pool's name.
fn routed(routes: &str, fallback: Option<&'static str>, pools: &[&'static str]) -> (L4lb, Vec<Backend>) {
    let backends: Vec<_> = pools.iter().map(|name| Backend::named(name)).collect();
    let fallback = fallback.map(|pool| format!("pool = \"{pool}\"\n")).unwrap_or_default();
    let mut toml =
        format!("[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\n{fallback}{routes}\n");
    for (name, backend) in pools.iter().zip(&backends) {
        toml += &format!(
            "[[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\n[[pool.backend]]\naddress = \"{}\"\n",
            backend.addr()
        );
    }
    (L4lb::start(command(&[]), &toml), backends)
}

#[test]
fn the_first_match_wins() {
    let routes = "[[listener.route]]\npath_prefix = \"/\"\npool = \"first\"\n\
        [[listener.route]]\npath = \"/x\"\nhost = \"a\"\npool = \"second\"\n";
    let (lb, _backends) = routed(routes, None, &["first", "second"]);
    assert_eq!(ask(lb.addr(), "GET /x HTTP/1.1\r\nHost: a\r\n\r\n").text(), "first");
}

#[test]
fn what_no_route_takes_is_a_404_and_the_body_with_it() {
    let (lb, backends) = routed("[[listener.route]]\npath = \"/x\"\npool = \"x\"\n", None, &["x"]);
    for request in [get("/y"), "POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into()] {
        assert_eq!(ask(lb.addr(), request).status(), 404);
    }
    assert_eq!(backends[0].accepted(), 0);
    assert_eq!(ask(lb.addr(), get("/x")).text(), "x");
}

#[test]
fn a_pool_without_backends_is_a_503() {
    let lb = Setup { protocol: "http", ..Setup::new() }.start();
    let answer = ask(lb.addr(), get("/"));
    assert_eq!(answer.status(), 503);
    assert!(answer.head.get("retry-after").is_some());
}

#[test]
fn max_connections_of_a_backend_counts_requests_in_flight() {
    let (tell, told) = channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let backend = scripted(move |mut wire| {
        while let Some(request) = wire.next_request() {
            if request.head.target() == "/slow" {
                told.lock().expect("never poisoned").recv_timeout(PATIENCE).expect("the test goes on");
            }
            wire.send(ok("served"));
        }
    });
    let setup = Setup { protocol: "http", ..Setup::new() };
    let lb = setup.backend_with(backend.addr, "max_connections = 1").start();
    let mut slow = Wire::to(lb.addr());
    let mut other = Wire::to(lb.addr());
    // idle connections of clients count for nothing
    assert_eq!((slow.ask(get("/")).status(), other.ask(get("/")).status()), (200, 200));
    slow.send(get("/slow"));
    wait_until("the slow one is in flight", || ask(lb.addr(), get("/")).status() == 503);
    assert_eq!(Wire::to(lb.addr()).ask(get("/")).status(), 503);
    tell.send(()).expect("the backend waits");
    assert_eq!(slow.response().status(), 200);
    assert_eq!(other.ask(get("/")).status(), 200, "its place is free again");
}

#[test]
fn requests_of_one_connection_go_round_the_backends() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let lb = Setup::http(a.addr()).backend(b.addr()).global("workers = 1\n").start();
    let mut client = Wire::to(lb.addr());
    let told: String = (0..10).map(|_| client.ask(get("/")).text().to_owned()).collect();
    assert_eq!(told, "ababababab");
    assert_eq!((a.accepted(), b.accepted()), (1, 1));
}

#[test]
fn backends_that_all_refuse_are_a_502_each_time_and_serve_when_they_are_back() {
    let (one, two) = (Refusing::new(), Refusing::new());
    let lb = Setup::http(one.addr).backend(two.addr).start();
    for _ in 0..5 {
        assert!(matches!(ask(lb.addr(), get("/")).status(), 502 | 503));
    }
    let _back = crate::support::Server::on(one.listen(), |stream| {
        let mut wire = Wire::of(stream);
        while wire.next_request().is_some() {
            wire.send(ok("back"));
        }
    });
    wait_until("it serves", || ask(lb.addr(), get("/")).status() == 200);
}

/// The example backend as a process of its own, which can be killed.
struct Killable {
    child: std::process::Child,
    addr: String,
}

impl Killable {
    fn start(id: &str) -> Killable {
        use std::io::BufRead;
        let mut command = command(&[]);
        command.args(["backend", "--port", "0", "--id", id]).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("the program runs");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it tells its address");
        let addr = line.trim().rsplit(' ').next().expect("an address").to_owned();
        Killable { child, addr }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn killing_one_of_three_backends_fails_no_get() {
    const CLIENTS: usize = 8;
    let mut backends = ["one", "two", "three"].map(Killable::start);
    let setup = backends.iter().fold(Setup { protocol: "http", ..Setup::new() }, |setup, one| setup.backend(&one.addr));
    let lb = setup.start();
    let addr = lb.addr();
    let started = Instant::now();
    let served = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let (served, over) = (served.clone(), over.clone());
            thread::spawn(move || {
                let mut client = Wire::to(addr);
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    let answer = client.ask(get(&format!("/{i}")));
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            })
        })
        .collect();
    let count = || served.load(std::sync::atomic::Ordering::SeqCst);
    for step in 0..2 {
        let before = count();
        wait_until("requests are served", || count() > before + 500 || clients.iter().any(|c| c.is_finished()));
        if step == 0 {
            backends[1].kill();
        }
    }
    // and past the time for which it is set aside, when it is tried again
    while started.elapsed() < Duration::from_secs(2) && clients.iter().all(|c| !c.is_finished()) {
        thread::sleep(Duration::from_millis(10));
    }
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    for client in clients {
        client.join().expect("no failed request");
    }
}
