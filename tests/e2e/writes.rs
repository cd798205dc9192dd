//! Changes by the admin API: each holds for all traffic once it is answered, and none costs a request.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::{json as told, lb, problem};
use crate::support::http::{Backend, Message, Wire, ask, get, ok};
use crate::support::l4lb::{binary, command};
use crate::support::proc::cpu_time;
use crate::support::{L4lb, Setup, note, wait_until};

/// A request of the API with this body; empty: with none.
pub fn write(line: &str, fields: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n{body}")
}

pub fn send(addr: SocketAddr, line: &str, body: &str) -> Message {
    ask(addr, write(line, "", body))
}

/// What an answer of this status says.
pub fn done(why: &str, answer: &Message, status: u16) -> Value {
    assert_eq!(answer.status(), status, "{why}: {}", answer.text());
    assert_eq!(answer.head.get("content-type"), Some("application/json"), "{why}");
    assert!(answer.head.get("etag").is_some_and(|tag| tag.starts_with('"')), "{why}: {:?}", answer.head);
    told(answer)
}

pub fn add(addr: SocketAddr, id: &str, backend: SocketAddr) -> Message {
    let body = json!({ "id": id, "host": backend.ip().to_string(), "port": backend.port() }).to_string();
    send(addr, "POST /lb/backends/add", &body)
}

pub fn states(addr: SocketAddr) -> Vec<(String, String)> {
    let list = told(&ask(addr, lb("/lb/backends")));
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    list.as_array().expect("a list").iter().map(|one| (word(&one["id"]), word(&one["state"]))).collect()
}

/// Who answers so many requests, each over a connection of its own, sorted.
pub fn served_by(addr: SocketAddr, requests: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..requests).map(|_| ask(addr, get("/")).text().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// l4lb over one backend that tells its name.
fn over(one: &Backend) -> L4lb {
    Setup::http(one.addr()).listener("admin = true").start()
}

#[test]
fn the_commands_of_the_readme_do_what_they_say() {
    let (first, second) = (Backend::named("first"), Backend::named("second"));
    let toml = Setup::http(first.addr()).listener("admin = true").toml();
    let toml = toml.replace("[[pool.backend]]\n", "[[pool.backend]]\nid = \"backend1\"\n");
    let lb_ = L4lb::start(command(&[]), &toml);
    let run = |line: &str| {
        let line = line.replace("localhost:8080", &format!("localhost:{}", lb_.addr().port()));
        let line = line.replace("8004", &second.addr().port().to_string());
        let out = Command::new("sh").args(["-c", &line]).env("no_proxy", "*").output().expect("a shell");
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).expect("text");
        serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    };
    assert_eq!(run("curl http://localhost:8080/lb/stats")["requests"], 0);
    let added = run(
        r#"curl -X POST http://localhost:8080/lb/backends/add -H "Content-Type: application/json" -d '{"host": "localhost", "port": 8004, "weight": 1}'"#,
    );
    let name = format!("localhost:{}", second.addr().port());
    assert_eq!((&added["id"], &added["address"], &added["state"]), (&json!(name), &json!(name), &json!("up")));
    assert_eq!(served_by(lb_.addr(), 10), ["first", "second"], "a name is resolved when the answer comes");
    let disabled = run("curl -X POST http://localhost:8080/lb/backends/backend1/disable");
    assert_eq!((&disabled["id"], &disabled["state"]), (&json!("backend1"), &json!("disabled")));
    assert_eq!(served_by(lb_.addr(), 10), ["second"]);
}

#[test]
fn traffic_follows_each_change_at_once() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let lb_ = over(&one);
    let addr = lb_.addr();
    let first = one.addr().to_string();
    let two_line = done("added", &add(addr, "two", two.addr()), 201);
    assert_eq!(two_line["address"], two.addr().to_string());
    assert_eq!((&two_line["pool"], &two_line["weight"], &two_line["state"]), (&json!("out"), &json!(1), &json!("up")));
    for round in 0..20 {
        let why = |what: &str| format!("{what}, round {round}");
        assert_eq!(served_by(addr, 4), ["one", "two"], "{}", why("both"));
        done("disabled", &send(addr, "POST /lb/backends/two/disable", ""), 200);
        assert_eq!(served_by(addr, 4), ["one"], "{}", why("two is disabled"));
        done("enabled", &send(addr, "POST /lb/backends/two/enable", ""), 200);
        assert_eq!(served_by(addr, 4), ["one", "two"], "{}", why("two is enabled"));
        done("drained", &send(addr, "POST /lb/backends/two/drain", ""), 200);
        assert_eq!(states(addr)[1], ("two".into(), "draining".into()));
        assert_eq!(served_by(addr, 4), ["one"], "{}", why("two drains"));
        done("enabled", &send(addr, "POST /lb/backends/two/enable", "{}"), 200);
        let weight = format!("PATCH /lb/backends/{first}");
        assert_eq!(done("weight", &send(addr, &weight, r#"{"weight":0}"#), 200)["weight"], 0);
        assert_eq!(served_by(addr, 4), ["two"], "{}", why("weight 0"));
        done("weight", &send(addr, &weight, r#"{"weight":1}"#), 200);
    }
    let gone = done("removed", &send(addr, "DELETE /lb/backends/two/remove", ""), 200);
    assert_eq!((&gone["id"], &gone["pool"]), (&json!("two"), &json!("out")));
    assert_eq!(served_by(addr, 4), ["one"]);
    done("one of the file", &send(addr, &format!("DELETE /lb/backends/{first}/remove?wait=10s"), ""), 200);
    assert_eq!(ask(addr, get("/")).status(), 503);
    wait_until("both are gone", || states(addr).is_empty());
}

#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let one = Backend::named("one");
    let lb_ = over(&one);
    let addr = lb_.addr();
    let own = format!(r#"{{"host":"localhost","port":{}}}"#, addr.port());
    let same = format!(r#"{{"host":"127.0.0.1","port":{}}}"#, one.addr().port());
    let rows = [
        ("no JSON", "POST /lb/backends/add", "x", 400, "the body is no JSON object"),
        ("no host", "POST /lb/backends/add", r#"{"port":1}"#, 400, "host: "),
        ("ourselves", "POST /lb/backends/add", &own, 400, "where l4lb itself listens"),
        ("the same address", "POST /lb/backends/add", &same, 409, "already"),
        ("no such backend", "POST /lb/backends/x/disable", "", 404, "no backend \"x\""),
        ("no such backend to remove", "DELETE /lb/backends/x/remove", "", 404, "no backend \"x\""),
        ("no such pool", "POST /lb/services/x/register", r#"{"id":"a","host":"a","port":1}"#, 404, "no pool \"x\""),
        ("a parameter that is none", "POST /lb/backends/x/disable?force=1", "", 400, "\"force\": is no parameter"),
    ];
    for (why, line, body, status, part) in rows {
        let answer = send(addr, line, body);
        problem(why, &answer, status);
        assert!(answer.text().replace("\\\"", "\"").contains(part), "{why}: {}", answer.text());
    }
    let wrong = send(addr, "GET /lb/backends/add", "");
    problem("a read", &wrong, 405);
    assert_eq!(wrong.head.get("allow"), Some("POST"));
    let foreign = write("POST /lb/backends/x/disable", "Origin: http://evil.example\r\n", "");
    problem("another page", &ask(addr, foreign), 403);
    problem("too long", &send(addr, "POST /lb/backends/add", &"x".repeat(70_000)), 413);
    assert_eq!(states(addr), [(one.addr().to_string(), "up".to_owned())]);
    assert_eq!(told(&ask(addr, lb("/lb/config")))["api"]["changes"], json!([]));
}

#[test]
fn what_is_in_force_is_told_and_a_write_may_be_based_on_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cr3t-0123456789\n").expect("written");
    let one = Backend::named("one");
    let toml = Setup::http(one.addr()).listener("admin = true").toml()
        + &format!("[admin]\ntoken_file = {:?}\n", token.display().to_string());
    let lb_ = L4lb::start(command(&[]), &toml);
    let addr = lb_.addr();
    const TOKEN: &str = "Authorization: Bearer s3cr3t-0123456789\r\n";
    let ask = |line: &str, fields: &str, body: &str| {
        crate::support::http::ask(addr, write(line, &format!("{TOKEN}{fields}"), body))
    };
    let read = ask("GET /lb/config", "", "");
    assert!(!read.text().contains("s3cr3t"), "{}", read.text());
    let config = done("read", &read, 200);
    assert_eq!(config["config"]["listener"][0]["name"], "in");
    assert_eq!(config["config"]["pool"][0]["backend"][0]["address"], one.addr().to_string());
    let tag = read.head.get("etag").expect("a tag").to_owned();
    assert_eq!(tag, format!("\"{}\"", config["generation"]));
    assert_eq!(ask("GET /lb/backends", "", "").head.get("etag"), Some(&*tag));
    let known = ask("GET /lb/config", &format!("If-None-Match: \"0\", {tag}\r\n"), "");
    assert_eq!((known.status(), known.body.len()), (304, 0));
    assert_eq!(known.head.get("etag"), Some(&*tag));
    let only = format!("If-Match: {tag}\r\n");
    let disable = format!("POST /lb/backends/{}/disable", one.addr());
    let dry = done("dry", &ask(&format!("{disable}?dry_run=true"), &only, ""), 200);
    assert_eq!((&dry["before"]["disabled"], &dry["after"]["disabled"]), (&json!(false), &json!(true)));
    done("the first", &ask(&disable, &only, ""), 200);
    let late = ask(&disable.replace("disable", "enable"), &only, "");
    problem("the second", &late, 412);
    let after = ask("GET /lb/config", &format!("If-None-Match: {tag}\r\n"), "");
    let config = done("it has changed", &after, 200);
    let change = json!([{ "pool": "out", "id": one.addr().to_string(), "disabled": true }]);
    assert_eq!(config["api"]["changes"], change);
    assert_eq!(late.head.get("etag"), after.head.get("etag"));
    done("any", &ask(&disable.replace("disable", "enable"), "If-Match: *\r\n", ""), 200);
    problem("malformed", &ask(&disable, "If-Match: 1\r\n", ""), 400);
}

#[test]
fn two_writes_at_once_both_apply() {
    let one = Backend::named("one");
    let lb_ = over(&one);
    let addr = lb_.addr();
    let writers: Vec<_> = (0..16_u16)
        .map(|n| {
            std::thread::spawn(move || {
                let body = json!({ "id": format!("b{n}"), "host": "127.0.0.1", "port": 1 + n }).to_string();
                send(addr, "POST /lb/backends/add", &body).status()
            })
        })
        .collect();
    assert!(writers.into_iter().all(|writer| writer.join().expect("it is answered") == 201));
    assert_eq!(states(addr).len(), 17);
    let same: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || send(addr, "POST /lb/backends/add", r#"{"host":"127.0.0.2","port":1}"#).status())
        })
        .collect();
    let mut statuses: Vec<u16> = same.into_iter().map(|writer| writer.join().expect("it is answered")).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1], statuses[15]), (201, 409, 409), "one of them is the first");
}

#[test]
fn a_hundred_adds_and_removes_cost_no_request() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let lb_ = over(&one);
    let addr = lb_.addr();
    let stop = Arc::new(AtomicBool::new(false));
    let counted = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, counted) = (stop.clone(), counted.clone());
            std::thread::spawn(move || {
                let mut wire = Wire::to(addr);
                while !stop.load(Ordering::Relaxed) {
                    let answer = wire.ask(get("/"));
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut api = Wire::to(addr);
    let body = json!({ "id": "two", "host": "127.0.0.1", "port": two.addr().port() }).to_string();
    for round in 0..100 {
        let before = counted.load(Ordering::Relaxed);
        let added = api.ask(write("POST /lb/backends/add", "", &body));
        assert_eq!(added.status(), 201, "round {round}: {}", added.text());
        wait_until("traffic goes on", || counted.load(Ordering::Relaxed) > before + 4);
        let removed = api.ask(write("DELETE /lb/backends/two/remove?wait=10s", "", ""));
        assert_eq!((removed.status(), &told(&removed)["state"]), (200, &json!("removed")), "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no request failed"));
    let stats = told(&ask(addr, lb("/lb/stats")));
    assert_eq!((&stats["failed"], &stats["refused"]), (&json!(0), &json!(0)), "{stats}");
    assert!(two.take_seen().len() > 100, "it had its part");
}

#[test]
fn who_registers_is_served_until_it_stops() {
    let (one, service, moved) = (Backend::named("one"), Backend::named("service"), Backend::named("moved"));
    let lb_ = over(&one);
    let addr = lb_.addr();
    let body = |at: SocketAddr, ttl: &str| {
        json!({ "id": "s", "host": at.ip().to_string(), "port": at.port(), "ttl": ttl }).to_string()
    };
    const REGISTER: &str = "POST /lb/services/out/register";
    let first = done("new", &send(addr, REGISTER, &body(service.addr(), "2s")), 201);
    assert_eq!((&first["id"], &first["state"]), (&json!("s"), &json!("up")));
    assert_eq!(served_by(addr, 6), ["one", "service"]);
    let tag = ask(addr, lb("/lb/config")).head.get("etag").map(str::to_owned);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        done("renewed", &send(addr, REGISTER, &body(service.addr(), "2s")), 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(addr, lb("/lb/config")).head.get("etag").map(str::to_owned), tag, "renewing changes nothing");
    assert_eq!(served_by(addr, 6), ["one", "service"], "it stays, for as long as it says so");
    done("moved", &send(addr, REGISTER, &body(moved.addr(), "2s")), 200);
    assert_eq!(served_by(addr, 6), ["moved", "one"]);
    wait_until("it is gone", || states(addr).len() == 1);
    assert_eq!(served_by(addr, 6), ["one"]);
    done("back", &send(addr, REGISTER, &body(service.addr(), "60s")), 201);
    done("and off", &send(addr, "DELETE /lb/services/out/s", ""), 200);
    wait_until("it is gone at once", || states(addr).len() == 1);
    let taken = json!({ "id": one.addr().to_string(), "host": "127.0.0.1", "port": 9 }).to_string();
    problem("an id of the file", &send(addr, REGISTER, &taken), 409);
    let file = format!("DELETE /lb/services/out/{}", one.addr());
    problem("which cannot be deregistered", &send(addr, &file, ""), 409);
}

#[test]
fn many_services_renew_every_second_and_one_falls_silent() {
    const SERVICES: usize = 200;
    const ROUNDS: u32 = 3;
    let one = Backend::named("one");
    let lb_ = over(&one);
    let addr = lb_.addr();
    let register = |n: usize| {
        let (host, ttl) = (format!("127.1.0.{}", n + 1), if n == 0 { "500ms" } else { "60s" });
        let body = json!({ "id": format!("s{n}"), "host": host, "port": 9, "ttl": ttl }).to_string();
        write("POST /lb/services/out/register", "", &body)
    };
    let mut wire = Wire::to(addr);
    (0..SERVICES).rev().for_each(|n| assert_eq!(wire.ask(register(n)).status(), 201, "service {n}"));
    wait_until("the silent one is gone", || states(addr).iter().all(|(id, _)| id != "s0"));
    let (before, generation) = (cpu_time(lb_.pid()), told(&ask(addr, lb("/lb/config")))["generation"].clone());
    for round in 0..ROUNDS {
        (1..SERVICES).for_each(|n| assert_eq!(wire.ask(register(n)).status(), 200, "service {n}, round {round}"));
    }
    let each = (cpu_time(lb_.pid()) - before) / (ROUNDS * (SERVICES as u32 - 1));
    note(&format!("a renewal of one of {SERVICES} services costs {each:?} of processor time"));
    assert_eq!(told(&ask(addr, lb("/lb/config")))["generation"], generation, "none of that is a change");
    assert_eq!(states(addr).len(), SERVICES, "and the others are still there");
}

#[test]
fn who_registers_is_checked_where_it_says() {
    let one = Backend::named("one");
    let healthy = Arc::new(AtomicBool::new(true));
    let says = healthy.clone();
    let service = Backend::new(move |request| match (request.head.target(), says.load(Ordering::Relaxed)) {
        ("/up", true) => ok("fine"),
        ("/up", false) => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("service"),
    });
    let toml = Setup::http(one.addr()).listener("admin = true").toml();
    let check = "health_check = { kind = \"tcp\", interval = \"20ms\", rise = 1, fall = 1 }";
    let lb_ = L4lb::start(command(&[]), &toml.replace("health_check = { kind = \"none\" }", check));
    let addr = lb_.addr();
    let url = format!("http://{}/up", service.addr());
    let body =
        json!({ "id": "s", "host": "127.0.0.1", "port": service.addr().port(), "ttl": "60s", "health_check_url": url });
    assert_eq!(send(addr, "POST /lb/services/out/register", &body.to_string()).status(), 201);
    let state = |expected: &str| states(addr).iter().any(|(id, state)| id == "s" && state == expected);
    wait_until("its check is good", || state("up"));
    healthy.store(false, Ordering::Relaxed);
    wait_until("its check is bad", || state("down"));
    assert_eq!(served_by(addr, 6), ["one"]);
    healthy.store(true, Ordering::Relaxed);
    wait_until("its check is good again", || state("up"));
}

#[test]
fn a_backend_that_is_removed_is_waited_for() {
    let one = Backend::named("one");
    let go = Arc::new(AtomicBool::new(false));
    let may = go.clone();
    let slow = Backend::new(move |request| {
        wait_until("it may answer", || request.head.target() != "/slow" || may.load(Ordering::Relaxed));
        ok("slow")
    });
    let lb_ = over(&one);
    let addr = lb_.addr();
    done("added", &add(addr, "slow", slow.addr()), 201);
    let disable = format!("POST /lb/backends/{}/disable", one.addr());
    done("disabled", &send(addr, &disable, ""), 200);
    let mut client = Wire::to(addr);
    client.send(get("/slow"));
    let busy = || told(&ask(addr, lb("/lb/backends")))[1]["active_connections"] == 1;
    wait_until("it is busy", busy);
    let left = json!({ "id": "slow", "pool": "out", "state": "draining", "active_connections": 1 });
    assert_eq!(done("at once", &send(addr, "DELETE /lb/backends/slow/remove", ""), 200), left);
    assert_eq!(done("again, in vain", &send(addr, "DELETE /lb/backends/slow/remove?wait=50ms", ""), 202), left);
    assert_eq!(states(addr)[1], ("slow".into(), "draining".into()));
    assert_eq!(ask(addr, get("/")).status(), 503, "it takes nothing new");
    go.store(true, Ordering::Relaxed);
    let gone = done("again", &send(addr, "DELETE /lb/backends/slow/remove?wait=20s", ""), 200);
    assert_eq!((&gone["state"], &gone["active_connections"]), (&json!("removed"), &json!(0)));
    assert_eq!(client.response().text(), "slow", "what was under way goes on");
    assert_eq!(states(addr).len(), 1);
    problem("it is gone", &send(addr, "DELETE /lb/backends/slow/remove", ""), 404);
}

#[test]
fn what_was_changed_stays_over_a_reload() {
    let (one, two, more) = (Backend::named("one"), Backend::named("two"), Backend::named("more"));
    let toml = Setup::http(one.addr()).backend(two.addr()).listener("admin = true").toml();
    let lb_ = L4lb::start(command(&[]), &toml);
    let addr = lb_.addr();
    let id = |backend: &Backend| backend.addr().to_string();
    done("added", &add(addr, "more", more.addr()), 201);
    done("removed", &send(addr, &format!("DELETE /lb/backends/{}/remove", id(&two)), ""), 200);
    done("weight", &send(addr, &format!("PATCH /lb/backends/{}", id(&one)), r#"{"weight":9}"#), 200);
    assert_eq!(served_by(addr, 6), ["more", "one"]);
    lb_.reload(&toml.replace("[[pool]]", "[[pool]]\nname = \"other\"\n[[pool]]"));
    assert_eq!(served_by(addr, 6), ["more", "one"], "by SIGHUP");
    let dry = done("dry", &send(addr, "POST /lb/reload?discard=api&dry_run=true", ""), 200);
    assert_eq!(dry["backends"]["added"], json!([{ "pool": "out", "id": id(&two) }]), "{dry}");
    assert_eq!(dry["backends"]["removed"], json!([{ "pool": "out", "id": "more" }]), "{dry}");
    assert_eq!(served_by(addr, 6), ["more", "one"], "which changes nothing");
    lb_.write_file(&toml.replace(&id(&two), "127.0.0.1:1").replace("pool = \"out\"", "pool = \"none\""));
    let wrong = send(addr, "POST /lb/reload", "");
    problem("a wrong file", &wrong, 400);
    assert!(wrong.text().contains("none"), "{}", wrong.text());
    lb_.write_file(&toml.replace(&id(&two), "127.0.0.1:1"));
    let changed = done("two has left the file", &send(addr, "POST /lb/reload", ""), 200);
    let told_ = changed["dropped"][0].as_str().unwrap_or_default();
    assert!(told_.contains(&id(&two)) && changed["dropped"].as_array().map(Vec::len) == Some(1), "{changed}");
    lb_.write_file(&toml);
    done("two is back", &send(addr, "POST /lb/reload", ""), 200);
    assert_eq!(served_by(addr, 9), ["more", "one", "two"]);
    done("let go", &send(addr, "POST /lb/reload?discard=api", ""), 200);
    assert_eq!(served_by(addr, 6), ["one", "two"]);
    let config = told(&ask(addr, lb("/lb/config")));
    assert_eq!(config["api"]["changes"], json!([]));
    assert_eq!(config["config"]["pool"][0]["backend"][0]["weight"], 1);
}

#[test]
fn flags_alone_are_enough_to_begin_with() {
    let one = Backend::named("one");
    let mut program = Command::new(binary());
    program.args(["--port", "0", "--host", "127.0.0.1"]).stdin(std::process::Stdio::null());
    program.stdout(std::process::Stdio::null());
    let lb_ = L4lb::start_with_flags(program).expect("it starts");
    let addr = lb_.addr();
    assert_eq!(ask(addr, get("/")).status(), 503);
    done("added", &add(addr, "one", one.addr()), 201);
    assert_eq!(ask(addr, get("/")).text(), "one");
    problem("there is no file", &send(addr, "POST /lb/reload", ""), 400);
    assert_eq!(ask(addr, get("/")).text(), "one");
}
