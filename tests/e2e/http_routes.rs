//! Which pool a request goes to, and what a pool's backends carry.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    let in_flight = Arc::new(AtomicBool::new(false));
    let arrived = in_flight.clone();
    let backend = scripted(move |mut wire| {
        while let Some(request) = wire.next_request() {
            if request.head.target() == "/slow" {
                arrived.store(true, Ordering::SeqCst);
                told.lock().expect("never poisoned").recv_timeout(PATIENCE).expect("the test goes on");
            }
            wire.send(ok("served"));
        }
    });
    // one worker: two may see the end of a request and the beginning of the next in either order
    let setup = Setup { protocol: "http", ..Setup::new() }.global("workers = 1\n");
    let lb = setup.backend_with(backend.addr, "max_connections = 1").start();
    let mut slow = Wire::to(lb.addr());
    let mut other = Wire::to(lb.addr());
    // idle connections of clients count for nothing
    assert_eq!((slow.ask(get("/")).status(), other.ask(get("/")).status()), (200, 200));
    slow.send(get("/slow"));
    wait_until("the slow one is in flight", || in_flight.load(Ordering::SeqCst));
    assert_eq!(ask(lb.addr(), get("/")).status(), 503);
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
    let served = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let (served, over) = (served.clone(), over.clone());
            thread::spawn(move || {
                let mut client = Wire::to(addr);
                while !over.load(Ordering::SeqCst) {
                    let answer = client.ask(get(&format!("/{i}")));
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let count = || served.load(Ordering::SeqCst);
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
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no failed request");
    }
}

#[test]
fn each_condition_takes_what_it_says() {
    let routes = r#"
[[listener.route]]
host = "api.example.com"
pool = "exact host"
[[listener.route]]
host = "*.example.com"
path_prefix = "/wild"
pool = "wildcard and prefix"
[[listener.route]]
path = "/status"
pool = "exact path"
[[listener.route]]
path_prefix = "/v1"
method = ["GET", "HEAD"]
pool = "prefix and method"
[[listener.route]]
path_prefix = "/v1"
pool = "prefix"
[[listener.route]]
header = { name = "x-canary", value = "1" }
pool = "header value"
[[listener.route]]
header = { name = "x-beta" }
pool = "header"
"#;
    let pools = [
        "exact host",
        "wildcard and prefix",
        "exact path",
        "prefix and method",
        "prefix",
        "header value",
        "header",
        "rest",
    ];
    let (lb, _backends) = routed(routes, Some("rest"), &pools);
    let rows = [
        ("GET / HTTP/1.1\r\nHost: api.example.com", "exact host"),
        ("GET / HTTP/1.1\r\nHost: API.Example.COM", "exact host"),
        ("GET / HTTP/1.1\r\nHost: api.example.com:8080", "exact host"),
        ("GET / HTTP/1.1\r\nHost: api.example.com.:80", "exact host"),
        ("GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com", "exact host"),
        ("GET /wild HTTP/1.1\r\nHost: api.example.com", "exact host"),
        ("GET /wild/x HTTP/1.1\r\nHost: www.example.com", "wildcard and prefix"),
        ("GET /wild HTTP/1.1\r\nHost: a.b.example.com", "wildcard and prefix"),
        ("GET /wild HTTP/1.1\r\nHost: example.com", "rest"),
        ("GET /wild HTTP/1.1\r\nHost: notexample.com", "rest"),
        ("GET /status HTTP/1.1\r\nHost: a", "exact path"),
        ("GET /status?q=1 HTTP/1.1\r\nHost: a", "exact path"),
        ("GET /status/ HTTP/1.1\r\nHost: a", "rest"),
        ("GET /x/../status HTTP/1.1\r\nHost: a", "exact path"),
        ("GET /%73tatus HTTP/1.1\r\nHost: a", "exact path"),
        ("GET /v1 HTTP/1.1\r\nHost: a", "prefix and method"),
        ("HEAD /v1/x HTTP/1.1\r\nHost: a", "prefix and method"),
        ("GET //v1/x HTTP/1.1\r\nHost: a", "prefix and method"),
        ("DELETE /v1/x HTTP/1.1\r\nHost: a", "prefix"),
        ("get /v1/x HTTP/1.1\r\nHost: a", "prefix"),
        ("GET /v1x HTTP/1.1\r\nHost: a", "rest"),
        ("GET /V1/x HTTP/1.1\r\nHost: a", "rest"),
        ("GET /?/v1/x HTTP/1.1\r\nHost: a", "rest"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-CANARY: 1", "header value"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Canary: 2", "rest"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Canary: 2\r\nX-Beta: ", "header"),
        ("GET / HTTP/1.0", "rest"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "rest"),
    ];
    // in one connection: each request is routed by itself
    let mut client = Wire::to(lb.addr());
    for (request, pool) in rows {
        if request.contains("HTTP/1.0") {
            assert_eq!(ask(lb.addr(), format!("{request}\r\n\r\n")).text(), pool, "{request}");
        } else if request.starts_with("HEAD") {
            client.ask(format!("{request}\r\n\r\n"));
        } else {
            assert_eq!(client.ask(format!("{request}\r\n\r\n")).text(), pool, "{request}");
        }
    }
}
