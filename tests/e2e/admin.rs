//! The admin API: who may ask it, what it answers, and that it is a good neighbour on a connection.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::support::http::{Backend, Message, Wire, ask, get, ok};
use crate::support::l4lb::{binary, command};
use crate::support::ports::Refusing;
use crate::support::{L4lb, Setup, wait_until};

/// `GET` of this path of the API.
pub fn lb(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// What an answer says.
pub fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.body).unwrap_or_else(|e| panic!("{e}: {:?}", message.text()))
}

fn served(addr: SocketAddr, path: &str) -> Value {
    let answer = ask(addr, lb(path));
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    assert_eq!(answer.head.get("content-type"), Some("application/json"), "{path}");
    json(&answer)
}

/// Fails unless this is an error as RFC 9457 has it, with something to do about it.
pub fn problem(why: &str, answer: &Message, status: u16) {
    assert_eq!(answer.status(), status, "{why}: {}", answer.text());
    assert_eq!(answer.head.get("content-type"), Some("application/problem+json"), "{why}");
    let told = json(answer);
    assert_eq!(told["status"], status, "{why}: {told}");
    assert!(told["detail"].as_str().is_some_and(|detail| detail.len() > 15), "{why}: {told}");
}

#[test]
fn every_row_is_answered_over_one_connection() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener("admin = true").start();
    let mut wire = Wire::to(lb_.addr());
    let health = wire.ask(lb("/lb/health"));
    assert_eq!(json(&health)["status"], "healthy");
    let backends = wire.ask(lb("/lb/backends"));
    let first = &json(&backends)[0];
    let address = backend.addr().to_string();
    for (field, expected) in
        [("id", &*address), ("pool", "out"), ("address", &address), ("state", "up"), ("health", "healthy")]
    {
        assert_eq!(first[field], expected, "{first}");
    }
    assert_eq!((&first["weight"], &first["active_connections"]), (&1.into(), &0.into()), "{first}");
    assert!(first.get("circuit_breaker").is_none(), "none is configured: {first}");
    assert!(backends.head.get("etag").is_some_and(|tag| tag.starts_with('"') && tag.ends_with('"')));
    let stats = json(&wire.ask(lb("/lb/stats")));
    for name in
        ["succeeded", "failed", "refused", "success_rate", "bytes", "active", "latency_ms", "retries", "requests"]
    {
        for (place, object) in [
            ("totals", &stats),
            ("listener", &stats["listeners"]["in"]),
            ("pool", &stats["pools"]["out"]),
            ("backend", &stats["pools"]["out"]["backends"][&address]),
        ] {
            assert!(object.get(name).is_some(), "{name} of the {place}: {stats}");
        }
    }
    assert_eq!(stats["requests"], 0, "what is asked here is not counted: {stats}");
    assert_eq!(wire.ask(get("/x")).text(), "/x", "other paths are the backend's");
    let head = wire.ask("HEAD /lb/stats HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert!(head.head.length().is_some_and(|length| length > 100), "the length it would have: {:?}", head.head);
    problem("no such path", &wire.ask(lb("/lb/nothing")), 404);
    problem("the top", &wire.ask(lb("/lb")), 404);
    let post = wire.ask("POST /lb/stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    problem("a write", &post, 405);
    assert_eq!(post.head.get("allow"), Some("GET, HEAD"));
    problem("no such pool", &wire.ask(lb("/lb/backends?pool=nope")), 404);
    problem("no escape", &wire.ask(lb("/lb/backends?pool=%x")), 400);
    assert_eq!(json(&wire.ask(lb("/lb/backends?pool=out"))).as_array().map(Vec::len), Some(1));
    assert_eq!(json(&wire.ask(lb("/x/../lb//backends"))).as_array().map(Vec::len), Some(1), "paths are normal ones");
    assert_eq!(wire.ask(get("/y")).text(), "/y", "and the connection goes on");
    assert_eq!(backend.take_seen().len(), 2, "nothing else got there");
}

#[test]
fn requests_may_come_all_at_once() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener("admin = true").start();
    let mut wire = Wire::to(lb_.addr());
    wire.send([lb("/lb/health"), get("/1"), lb("/lb/stats"), lb("/lb/none"), get("/2")].concat());
    assert_eq!(json(&wire.response())["status"], "healthy");
    assert_eq!(wire.response().text(), "/1");
    assert_eq!(json(&wire.response())["listeners"]["in"]["requests"], 1);
    assert_eq!(wire.response().status(), 404);
    assert_eq!(wire.response().text(), "/2");
}

#[test]
fn bodies_are_read_and_bounded() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener("admin = true\nbody_timeout = \"200ms\"").start();
    let post = |fields: &str| format!("POST /lb/stats HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    let full = "x".repeat(64 * 1024);
    let mut wire = Wire::to(lb_.addr());
    let whole = [
        ("as long as may be", post("Content-Length: 65536") + &full),
        (
            "in chunks",
            post("Transfer-Encoding: chunked") + "8000\r\n" + &full[..0x8000] + "\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("with a GET", lb("/lb/health").replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello")),
    ];
    for (why, request) in whole {
        assert!([200, 405].contains(&wire.ask(request).status()), "{why}");
        assert_eq!(wire.ask(get("/next")).text(), "/next", "{why}: the next request is found");
    }
    wire.send(post("Content-Length: 5\r\nExpect: 100-continue"));
    assert_eq!(wire.head().status(), 100, "the client waits for leave");
    wire.send("hello");
    assert_eq!(wire.response().status(), 405);
    let rows = [
        ("told to be too long", post("Content-Length: 65537"), 413),
        ("too long as it comes", post("Transfer-Encoding: chunked") + "10001\r\n" + &full, 413),
        ("malformed", post("Transfer-Encoding: chunked") + "x\r\n", 400),
        ("not whole in time", post("Content-Length: 5") + "hel", 408),
    ];
    for (why, request, status) in rows {
        let mut wire = Wire::to(lb_.addr());
        wire.try_send(request);
        let answer = wire.response();
        problem(why, &answer, status);
        assert!(answer.head.closes(), "{why}");
        assert_eq!(wire.rest().0, b"", "{why}: nothing comes behind it");
    }
}

#[test]
fn without_admin_the_paths_are_like_any_other() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).start();
    assert_eq!(ask(lb_.addr(), get("/lb/stats")).text(), "/lb/stats");
}

#[test]
fn an_address_of_its_own_serves_nothing_else() {
    let backend = Backend::echoing_targets();
    let toml = Setup::http(backend.addr()).toml() + "\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let lb_ = L4lb::start(command(&[]), &toml);
    wait_until("both addresses are told", || lb_.log().iter().any(|line| line.contains("listener [admin] on ")));
    let own = lb_.log().iter().find_map(|line| line.split_once("listener [admin] on ")?.1.parse::<SocketAddr>().ok());
    let own = own.expect("an address");
    assert_eq!(served(own, "/lb/health")["status"], "healthy");
    problem("a path of the backends", &ask(own, lb("/x")), 404);
    problem("a path that is none", &ask(own, lb("/../x")), 400);
    assert_eq!(ask(lb_.addr(), get("/lb/health")).text(), "/lb/health", "it is not served with the traffic");
    let stats = served(own, "/lb/stats");
    let listeners: Vec<_> = stats["listeners"].as_object().expect("by name").keys().collect();
    assert_eq!(listeners, ["in"], "it is not counted itself");
    assert_eq!(stats["requests"], 1, "{stats}");
}

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    std::fs::write(&file, "s3cr3t-0123456789\n").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let backend = Backend::echoing_targets();
    let admin = format!("\n[admin]\ntoken_file = {:?}\n", file.display().to_string());
    let toml = Setup::http(backend.addr()).listener("admin = true").toml() + &admin;
    let lb_ = L4lb::start(command(&[]), &toml);
    lb_.wait_for_log("that others can read the token", |line| line.contains("chmod 600"));
    let with = |token: &str| lb("/lb/health").replace("\r\n\r\n", &format!("\r\nAuthorization: {token}\r\n\r\n"));
    let mut wire = Wire::to(lb_.addr());
    for (why, token) in [("another", "Bearer s3cr3t"), ("another scheme", "Basic czNjcjN0"), ("nothing", "Bearer")] {
        let answer = wire.ask(with(token));
        problem(why, &answer, 401);
        assert!(answer.head.get("www-authenticate").is_some_and(|told| told.starts_with("Bearer ")), "{why}");
    }
    problem("none", &wire.ask(lb("/lb/health")), 401);
    assert_eq!(wire.ask(with("Bearer s3cr3t-0123456789")).status(), 200);
    let renamed = with("Bearer s3cr3t-0123456789").replace("localhost", "any.example");
    assert_eq!(wire.ask(renamed).status(), 200, "no page knows the token");
    assert_eq!(wire.ask(get("/x")).text(), "/x", "others need none");
    assert!(!lb_.log().join("\n").contains("s3cr3t"), "it is never logged");
}

#[test]
fn only_known_names_and_allowed_clients_get_in() {
    let backend = Backend::echoing_targets();
    let toml = Setup::http(backend.addr())
        .bind("[\"127.0.0.1:0\", \"[::1]:0\"]")
        .listener("admin = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .toml()
        + "\n[admin]\nhosts = [\"lb.example\"]\n";
    let lb_ = L4lb::start(command(&[]), &toml);
    let host = |host: &str| format!("GET /lb/health HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for addr in lb_.addrs() {
        let own = addr.to_string();
        let rows = [
            ("its address", &*own, 200),
            ("IPv6", "[::1]:8080", 200),
            ("IPv6 without a port", "[2001:db8::7]", 200),
            ("IPv4", "192.0.2.7", 200),
            ("localhost", "localhost:1", 200),
            ("a name that is listed", "LB.example", 200),
            ("another name", "evil.example:8080", 421),
        ];
        for (why, name, status) in rows {
            let answer = ask(addr, host(name));
            assert_eq!(answer.status(), status, "{why}: {}", answer.text());
        }
    }
    let v4 = lb_.addrs().into_iter().find(SocketAddr::is_ipv4).expect("one of the two");
    let from = |client: &str| host("localhost").replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {client}\r\n\r\n"));
    problem("a client behind a proxy", &ask(v4, from("192.0.2.1")), 403);
    problem("who says to be local is not", &ask(v4, from("127.0.0.9, 192.0.2.1")), 403);
    assert_eq!(ask(v4, from("127.0.0.9")).status(), 200);
    let foreign =
        host("localhost").replace("GET", "POST").replace("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n");
    problem("a write from another page", &ask(v4, foreign), 403);
    let closed = toml.replace("hosts = [\"lb.example\"]", "allow = [\"192.0.2.0/24\"]");
    let lb_ = L4lb::start(command(&[]), &closed);
    problem("nobody from here", &ask(lb_.addr(), lb("/lb/health")), 403);
    assert_eq!(ask(lb_.addr(), get("/x")).text(), "/x");
}

#[test]
fn health_names_the_pools_that_nobody_can_serve() {
    let backend = Backend::echoing_targets();
    let refusing = Refusing::new();
    let dead = refusing.addr;
    let toml = Setup::http(backend.addr())
        .listener("admin = true\n[[listener.route]]\npath_prefix = \"/dead\"\npool = \"dead\"")
        .toml()
        + &format!(
            "[[pool]]\nname = \"dead\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{dead}\" }}, {{ id = \"off\", address = \"127.0.0.1:1\", disabled = true }}]\n"
        );
    let lb_ = L4lb::start(command(&[]), &toml);
    assert_eq!(served(lb_.addr(), "/lb/health")["pools"]["dead"]["available"], 1, "nothing is known yet");
    // It is set aside for a moment at each failure: another one as soon as that is over.
    wait_until("the pool is unhealthy", || {
        assert_eq!(ask(lb_.addr(), get("/dead")).status(), 502);
        let answer = ask(lb_.addr(), lb("/lb/health"));
        answer.status() == 503 && {
            let told = json(&answer);
            assert_eq!(answer.head.get("content-type"), Some("application/json"));
            assert_eq!(told["status"], "unhealthy");
            assert_eq!(told["unhealthy_pools"], serde_json::json!(["dead"]), "{told}");
            assert_eq!(told["pools"]["out"]["status"], "healthy");
            let backends = served(lb_.addr(), "/lb/backends?pool=dead");
            let states: Vec<_> = backends.as_array().unwrap().iter().map(|b| b["state"].clone()).collect();
            states == ["down", "disabled"]
        }
    });
}

#[test]
fn flags_serve_the_api_and_need_no_backend() {
    let mut program = Command::new(binary());
    program.args(["--port", "0", "--host", "127.0.0.1"]).stdin(Stdio::null()).stdout(Stdio::null());
    let lb_ = L4lb::start_with_flags(program).expect("it starts");
    let health = ask(lb_.addr(), lb("/lb/health"));
    assert_eq!(health.status(), 503);
    assert_eq!(json(&health)["unhealthy_pools"], serde_json::json!(["main"]));
    assert_eq!(served(lb_.addr(), "/lb/backends"), serde_json::json!([]));
    assert_eq!(ask(lb_.addr(), get("/")).status(), 503);
    wait_until("the refusal is counted", || served(lb_.addr(), "/lb/stats")["pools"]["main"]["refused"] == 1);
}

/// A pool of so many backends that nobody needs: an answer that is long.
fn crowd(count: usize, listener: &str) -> L4lb {
    let mut setup = Setup::http("127.0.0.1:9").listener(&format!("admin = true\n{listener}"));
    for n in 1..count {
        setup = setup.backend(format!("127.1.{}.{}:9", n / 250, n % 250 + 1));
    }
    setup.start()
}

/// A connection that takes little at once.
fn narrow(addr: SocketAddr) -> Wire {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it can be set");
    socket.connect(&addr.into()).expect("it connects");
    let stream: TcpStream = socket.into();
    Wire::of(stream)
}

#[test]
fn a_slow_reader_gets_all_of_a_long_answer() {
    const COUNT: usize = 2_000;
    let lb_ = crowd(COUNT, "");
    let mut wire = narrow(lb_.addr());
    wire.send([lb("/lb/backends"), lb("/lb/health")].concat());
    let head = wire.head();
    let length = head.length().expect("a length");
    assert!(length > 200 * COUNT / 2, "{length} bytes");
    let mut body = Vec::new();
    while body.len() < length {
        body.extend(wire.bytes(1000.min(length - body.len())));
    }
    let list: Value = serde_json::from_slice(&body).expect("it is whole");
    assert_eq!(list.as_array().map(Vec::len), Some(COUNT));
    assert_eq!(json(&wire.response())["pools"]["out"]["backends"], COUNT, "and the next one behind it");
}

#[test]
fn a_reader_that_stops_is_cut() {
    let lb_ = crowd(2_000, "body_timeout = \"200ms\"");
    let mut wire = narrow(lb_.addr());
    SockRef::from(&wire.stream).set_recv_buffer_size(4096).expect("it can be set");
    wire.send(lb("/lb/stats").repeat(20));
    // Not a byte is read, so the kernel tells of the reset alone.
    wait_until("it is cut", || wire.stream.take_error().is_ok_and(|error| error.is_some()));
    assert_eq!(json(&ask(lb_.addr(), lb("/lb/health")))["status"], "healthy", "others are served");
}

#[test]
fn two_hundred_ask_at_once() {
    let lb_ = crowd(200, "");
    let addr = lb_.addr();
    let clients: Vec<_> = (0..200)
        .map(|n| {
            std::thread::spawn(move || {
                let mut wire = Wire::to(addr);
                for path in ["/lb/stats", "/lb/backends", "/lb/health"] {
                    let answer = wire.ask(lb(path));
                    assert_eq!(answer.status(), 200, "client {n}, {path}: {}", answer.text());
                    json(&answer);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("it is served"));
}

#[test]
fn a_client_that_leaves_before_its_answer_hurts_nobody() {
    let lb_ = crowd(500, "");
    for _ in 0..50 {
        let mut wire = Wire::to(lb_.addr());
        wire.send(lb("/lb/stats"));
        SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO)).expect("it can be set");
    }
    assert_eq!(json(&ask(lb_.addr(), lb("/lb/health")))["status"], "healthy");
}

#[test]
fn curl_is_content() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener("admin = true").start();
    let curl = |args: &[&str], path: &str| {
        let url = format!("http://{}{path}", lb_.addr());
        let out =
            Command::new("curl").args(["-sS", "--noproxy", "*"]).args(args).arg(url).output().expect("curl is there");
        assert!(out.status.success(), "{args:?} {path}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    };
    assert_eq!(serde_json::from_str::<Value>(&curl(&[], "/lb/health")).expect("JSON")["status"], "healthy");
    assert!(curl(&["-I"], "/lb/stats").starts_with("HTTP/1.1 200 OK\r\n"));
    let told = curl(&["-w", " %{http_code}", "-X", "DELETE"], "/lb/backends");
    assert!(told.ends_with(" 405"), "{told}");
    let big = "x".repeat(100_000);
    let told = curl(&["-w", " %{http_code}", "-d", &big], "/lb/backends");
    assert!(told.ends_with(" 413"), "{told}");
}

#[test]
fn an_answer_is_given_while_draining() {
    let backend = Backend::echoing_targets();
    let global = "workers = 2\nshutdown_timeout = \"60s\"\n";
    let lb_ = Setup::http(backend.addr()).global(global).listener("admin = true").start();
    let mut wire = Wire::to(lb_.addr());
    wire.send("POST /lb/stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(wire.head().status(), 100, "it is under way");
    lb_.signal(nix::sys::signal::Signal::SIGTERM);
    // The log tells when the workers are asked to drain, which each does when its turn comes: then it closes its door.
    wait_until("both workers drain", || TcpStream::connect(lb_.addr()).is_err());
    wire.send("hello");
    let answer = wire.response();
    assert_eq!(answer.status(), 405);
    assert!(answer.head.closes());
}

#[test]
fn a_breaker_is_told_of_where_one_is_configured() {
    let backend = Backend::new(|request| match request.head.target() {
        "/good" => ok("fine"),
        _ => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let setup = Setup::http(backend.addr()).listener("admin = true");
    let lb_ = setup.pool("circuit_breaker = { failure_threshold = 3, timeout = \"60s\" }").start();
    let addr = lb_.addr();
    let told = |path: &str, place: &str| json(&ask(addr, lb(path))).pointer(place).cloned().unwrap_or_default();
    let both = |why: &str, state: &str, rate: f64| {
        let in_stats = format!("/pools/out/backends/{}/circuit_breaker", backend.addr());
        for (path, place) in [("/lb/backends", "/0/circuit_breaker"), ("/lb/stats", &*in_stats)] {
            let mut last = told(path, place);
            wait_until(why, || {
                last = told(path, place);
                last["state"] == state && last["failure_rate"].as_f64().is_some_and(|told| (told - rate).abs() < 1e-9)
            });
        }
    };
    both("nothing has come yet", "closed", 0.0);
    assert_eq!(ask(addr, get("/good")).status(), 200);
    both("all is well", "closed", 0.0);
    (0..3).for_each(|_| assert_eq!(ask(addr, get("/bad")).status(), 500));
    both("three of four have failed", "open", 0.75);
    assert_eq!(ask(addr, get("/good")).status(), 503);
    let answer = ask(addr, lb("/lb/health"));
    assert_eq!(answer.status(), 503, "{}", answer.text());
    let health = json(&answer);
    assert_eq!(health["unhealthy_pools"], serde_json::json!(["out"]), "its only backend is behind an open breaker");
    assert_eq!((&health["status"], &health["pools"]["out"]["available"]), (&"unhealthy".into(), &0.into()), "{health}");
}

#[test]
fn a_pool_is_healthy_again_as_soon_as_its_breaker_lets_somebody_try() {
    let backend = Backend::new(|_| b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec());
    let setup = Setup::http(backend.addr()).listener("admin = true");
    let lb_ = setup.pool("circuit_breaker = { failure_threshold = 1, timeout = \"3s\" }").start();
    let addr = lb_.addr();
    let stands = || (ask(addr, lb("/lb/health")).status(), served(addr, "/lb/backends")[0]["circuit_breaker"].clone());
    assert_eq!(ask(addr, get("/")).status(), 500);
    wait_until("it is open", || {
        let (health, breaker) = stands();
        health == 503 && breaker["state"] == "open"
    });
    wait_until("its time is over", || {
        let (health, breaker) = stands();
        health == 200 && breaker["state"] == "half_open"
    });
    assert_eq!(ask(addr, get("/")).status(), 500, "the trial, which fails");
    wait_until("it is open again", || stands().0 == 503);
}

#[test]
fn in_a_panic_a_pool_is_healthy_whatever_its_checks_say() {
    let backend = Backend::new(|request| match request.head.target() {
        "/health" => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("fine"),
    });
    let check = "health_check = { kind = \"http\", interval = \"20ms\", timeout = \"2s\", fall = 1 }";
    for (threshold, status) in [("0.0", 503), ("0.5", 200)] {
        let setup = Setup::http(backend.addr()).listener("admin = true");
        let toml = setup.pool(&format!("panic_threshold = {threshold}")).toml();
        let lb_ = L4lb::start(command(&[]), &toml.replace("health_check = { kind = \"none\" }", check));
        let addr = lb_.addr();
        wait_until("its check has spoken", || served(addr, "/lb/backends")[0]["state"] == "down");
        wait_until("the pool is judged by its threshold", || ask(addr, lb("/lb/health")).status() == status);
        assert_eq!(ask(addr, get("/")).status(), status, "and served by it");
    }
}
