//! What the API changes and `state_file` keeps: over a restart, and over a crash at any moment.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::account::nobody;
use crate::support::l4lb::{binary, command, run_command_to_end};
use crate::support::{L4lb, PATIENCE, Setup, client, note};

/// One backend in the file, called `fixed`, and whatever is kept in `state`.
fn toml(state: &Path) -> String {
    toml_with("", state)
}

/// The same with more in `[global]`.
fn toml_with(global: &str, state: &Path) -> String {
    let mut setup = Setup { protocol: "http", ..Setup::new() };
    setup.global += global;
    let setup = setup.backend_with("127.0.0.1:9", "id = \"fixed\"").listener("admin = true");
    format!("{}\n[admin]\nstate_file = \"{}\"\n", setup.toml(), state.display())
}

fn start(state: &Path) -> L4lb {
    L4lb::start(command(&[]), &toml(state))
}

/// A client that may find its server gone at any moment.
struct Caller(TcpStream);

impl Caller {
    fn to(addr: SocketAddr) -> Option<Caller> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
        client::bounded(&stream);
        Some(Caller(stream))
    }

    /// The status and the content of the answer; `None` when none came whole.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all((head + &body).as_bytes()).ok()?;
        let mut got = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let n = self.0.read(&mut buffer).ok().filter(|n| *n > 0)?;
            got.extend_from_slice(&buffer[..n]);
            let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&got[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse().ok());
            let content = &got[end + 4..];
            if content.len() == length.unwrap_or(0_usize) {
                let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
                return Some((status, serde_json::from_slice(content).expect("JSON")));
            }
        }
    }
}

/// Asks once, and gets an answer of this status.
fn ask(addr: SocketAddr, method: &str, path: &str, body: Value, status: u16) -> Value {
    let (found, told) = Caller::to(addr).and_then(|mut caller| caller.ask(method, path, &body)).expect("an answer");
    assert_eq!(found, status, "{method} {path}: {told}");
    told
}

/// What a backend is, as far as it is changed here: its weight, and whether it is disabled.
type Backends = BTreeMap<String, (u64, bool)>;

/// The backends that there are.
fn backends(addr: SocketAddr) -> Backends {
    let told = ask(addr, "GET", "/lb/backends", Value::Null, 200);
    let one = |told: &Value| {
        let id = told["id"].as_str().expect("an id").to_owned();
        (id, (told["weight"].as_u64().expect("a weight"), told["state"] == "disabled"))
    };
    told.as_array().expect("a list").iter().map(one).collect()
}

/// A change, by what it is asked for with.
#[derive(Clone, Debug)]
enum Change {
    Add(String, Value),
    Weight(String, u64),
    Disable(String),
    Enable(String),
    Remove(String),
}

impl Change {
    /// Asks for it; the status.
    fn ask(&self, caller: &mut Caller) -> Option<(u16, Value)> {
        match self {
            Change::Add(_, body) => caller.ask("POST", "/lb/backends/add", body),
            Change::Weight(id, weight) => {
                caller.ask("PATCH", &format!("/lb/backends/{id}"), &json!({ "weight": weight }))
            }
            Change::Disable(id) => caller.ask("POST", &format!("/lb/backends/{id}/disable"), &Value::Null),
            Change::Enable(id) => caller.ask("POST", &format!("/lb/backends/{id}/enable"), &Value::Null),
            Change::Remove(id) => caller.ask("DELETE", &format!("/lb/backends/{id}/remove"), &Value::Null),
        }
    }

    fn apply(&self, to: &mut Backends) {
        match self {
            Change::Add(id, body) => drop(to.insert(id.clone(), (body["weight"].as_u64().expect("ours"), false))),
            Change::Weight(id, weight) => to.get_mut(id).expect("it is there").0 = *weight,
            Change::Disable(id) => to.get_mut(id).expect("it is there").1 = true,
            Change::Enable(id) => to.get_mut(id).expect("it is there").1 = false,
            Change::Remove(id) => drop(to.remove(id)),
        }
    }
}

/// One who changes backends of its own, so that nobody else's changes are in the way of what it knows.
struct Writer {
    number: usize,
    random: u64,
    /// What was acknowledged.
    known: Backends,
    /// What was asked for and not answered: it may be in force, or not.
    open: Option<Change>,
}

impl Writer {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64 (Marsaglia, 2003)
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn next(&mut self) -> Change {
        let own = self.random(6);
        // that of the file is changed, too, by one
        let id = if self.number == 0 && own == 0 { "fixed".to_owned() } else { format!("w{}-{own}", self.number) };
        let Some((_, disabled)) = self.known.get(&id).copied() else {
            let host = format!("127.{}.{own}.1", 10 + self.number);
            let weight = self.random(257);
            return Change::Add(id.clone(), json!({ "id": id, "host": host, "port": 9, "weight": weight }));
        };
        match self.random(4) {
            0 if id != "fixed" => Change::Remove(id),
            1 if disabled => Change::Enable(id),
            1 => Change::Disable(id),
            _ => Change::Weight(id, self.random(257)),
        }
    }

    /// Changes on and on until the server is gone; how many changes were acknowledged.
    fn write(&mut self, addr: SocketAddr, over: &AtomicBool) -> usize {
        let mut done = 0;
        let Some(mut caller) = Caller::to(addr) else { return 0 };
        let until = Instant::now() + PATIENCE;
        while !over.load(Ordering::Relaxed) && Instant::now() < until {
            let change = self.next();
            self.open = Some(change.clone());
            let Some((status, told)) = change.ask(&mut caller) else { return done };
            assert!(matches!(status, 200 | 201), "{change:?}: {status}: {told}");
            change.apply(&mut self.known);
            self.open = None;
            done += 1;
        }
        done
    }

    /// Fails unless `found` is what was acknowledged, with what was not answered or without it. Takes it for what is known.
    fn check(&mut self, found: &Backends, round: usize) {
        let prefix = format!("w{}-", self.number);
        let own = |id: &String| id.starts_with(&prefix) || self.number == 0 && id == "fixed";
        let found: Backends = found.iter().filter(|(id, _)| own(id)).map(|(id, state)| (id.clone(), *state)).collect();
        let mut with = self.known.clone();
        if let Some(open) = &self.open {
            open.apply(&mut with);
        }
        assert!(
            found == self.known || found == with,
            "round {round}, writer {}: acknowledged\n{:?}\nnot answered\n{:?}\nthere is\n{found:?}",
            self.number,
            self.known,
            self.open
        );
        (self.known, self.open) = (found, None);
    }
}

/// Kills it at so many random moments while the API is written to by several at once.
fn crashes(rounds: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let mut seed = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64 | 1;
    eprintln!("the seed is {seed}");
    let mut writers: Vec<Writer> = (0..4)
        .map(|number| Writer { number, random: seed ^ (number as u64) << 40, known: BTreeMap::new(), open: None })
        .collect();
    writers[0].known.insert("fixed".into(), (1, false));
    let (mut acknowledged, mut open, mut lb) = (0, 0, start(&state));
    for round in 0..rounds {
        let (addr, over) = (lb.addr(), AtomicBool::new(false));
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = Duration::from_micros((seed >> 33) % 60_000);
        std::thread::scope(|scope| {
            let writing: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.write(addr, &over))).collect();
            std::thread::sleep(moment);
            lb.kill();
            over.store(true, Ordering::Relaxed);
            for writer in writing {
                acknowledged += writer.join().expect("no change was refused");
            }
        });
        open += writers.iter().filter(|writer| writer.open.is_some()).count();
        match fs::read(&state) {
            Ok(bytes) => {
                let whole: Value = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                    panic!("round {round}: {error} in\n{}", String::from_utf8_lossy(&bytes));
                });
                assert_eq!(whole["version"], 1, "round {round}: {whole}");
            }
            Err(error) => assert!(acknowledged == 0, "round {round}: {error}"),
        }
        lb = start(&state);
        let found = backends(lb.addr());
        writers.iter_mut().for_each(|writer| writer.check(&found, round));
        assert!(!dir.path().join("state.json.broken").exists(), "round {round}");
    }
    // on a machine with much else to do most rounds may end before the first answer
    assert!(acknowledged >= rounds / 4, "only {acknowledged} changes in {rounds} rounds: that shows nothing");
    note(&format!(
        "state_file: killed at {rounds} random moments, {acknowledged} acknowledged changes all there, {open} were not answered"
    ));
}

#[test]
fn a_crash_at_any_moment_loses_no_change_that_was_acknowledged() {
    crashes(20);
}

#[test]
#[ignore = "takes a minute; run it by name"]
fn two_hundred_crashes_lose_no_change_that_was_acknowledged() {
    crashes(200);
}

#[test]
fn changes_are_there_after_a_restart_and_only_where_they_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let mut lb = start(&state);
    assert!(!state.exists(), "nothing is changed, so nothing is kept");
    let added = json!({ "id": "new", "host": "127.0.0.2", "port": 9, "weight": 7 });
    ask(lb.addr(), "POST", "/lb/backends/add", added, 201);
    ask(lb.addr(), "PATCH", "/lb/backends/fixed", json!({ "weight": 3 }), 200);
    ask(lb.addr(), "POST", "/lb/backends/fixed/disable", Value::Null, 200);
    assert_eq!(fs::metadata(&state).expect("it is there").permissions().mode() & 0o777, 0o600);
    let before = backends(lb.addr());
    assert_eq!(before, [("fixed".to_owned(), (3, true)), ("new".to_owned(), (7, false))].into());
    lb.signal(Signal::SIGTERM);
    assert!(lb.wait_for_exit().success());
    let lb = start(&state);
    assert_eq!(backends(lb.addr()), before);
    let elsewhere = start(&dir.path().join("other.json"));
    assert_eq!(backends(elsewhere.addr()), [("fixed".to_owned(), (1, false))].into());
}

#[test]
fn a_change_that_cannot_be_kept_is_not_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let lb = start(&state);
    let weight =
        |weight: u64, status| ask(lb.addr(), "PATCH", "/lb/backends/fixed", json!({ "weight": weight }), status);
    weight(3, 200);
    // a directory in place of the temporary file: that stops root, too
    fs::create_dir(dir.path().join("state.json.tmp")).expect("it is free");
    let told = weight(4, 500);
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("nothing is changed")), "{told}");
    assert_eq!(backends(lb.addr())["fixed"], (3, false));
    fs::remove_dir(dir.path().join("state.json.tmp")).expect("it is ours");
    weight(5, 200);
    assert_eq!(backends(lb.addr())["fixed"], (5, false));
}

#[test]
fn what_cannot_be_let_go_where_it_is_kept_stops_the_reload() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let lb = start(&state);
    ask(lb.addr(), "PATCH", "/lb/backends/fixed", json!({ "weight": 3 }), 200);
    lb.write_file(
        &toml(&state).replace("\"fixed\"", "\"fixed\"\n[[pool.backend]]\naddress = \"127.0.0.3:9\"\nid = \"more\""),
    );
    fs::create_dir(dir.path().join("state.json.tmp")).expect("it is free");
    let told = ask(lb.addr(), "POST", "/lb/reload?discard=api", Value::Null, 500);
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("nothing is changed")), "{told}");
    assert_eq!(backends(lb.addr()), [("fixed".to_owned(), (3, false))].into());
    fs::remove_dir(dir.path().join("state.json.tmp")).expect("it is ours");
    ask(lb.addr(), "POST", "/lb/reload?discard=api", Value::Null, 200);
    let both = [("fixed".to_owned(), (1, false)), ("more".to_owned(), (1, false))];
    assert_eq!(backends(lb.addr()), both.into());
}

#[test]
fn what_was_dropped_at_a_start_does_not_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let mut lb = start(&state);
    ask(lb.addr(), "PATCH", "/lb/backends/fixed", json!({ "weight": 3 }), 200);
    lb.signal(Signal::SIGTERM);
    assert!(lb.wait_for_exit().success());
    let mut lb = L4lb::start(command(&[]), &toml(&state).replace("\"fixed\"", "\"other\""));
    // Control answers behind what it has to do at the start.
    ask(lb.addr(), "GET", "/lb/config", Value::Null, 200);
    lb.signal(Signal::SIGTERM);
    assert!(lb.wait_for_exit().success());
    assert_eq!(backends(start(&state).addr()), [("fixed".to_owned(), (1, false))].into());
}

#[test]
fn a_broken_file_is_moved_aside_told_of_and_started_without() {
    let rows = [
        ("cut", &b"{\"version\": 1, \"pools\": {\"out\""[..]),
        ("of another version", b"{\"version\": 1000000}"),
        ("with something unknown", b"{\"version\": 1, \"what\": true}"),
        ("no text", b"\xff\xff"),
        ("empty", b""),
    ];
    for (why, bytes) in rows {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, broken) = (dir.path().join("state.json"), dir.path().join("state.json.broken"));
        fs::write(&state, bytes).expect("it is ours");
        let lb = start(&state);
        lb.wait_for_log("that it is broken", |line| {
            line.contains("[ERROR]") && line.contains("admin.state_file") && line.contains("state.json.broken")
        });
        assert_eq!(fs::read(&broken).expect(why), bytes, "{why}");
        assert!(!state.exists(), "{why}");
        assert_eq!(backends(lb.addr()), [("fixed".to_owned(), (1, false))].into(), "{why}");
        let config = ask(lb.addr(), "GET", "/lb/config", Value::Null, 200).to_string();
        assert!(config.contains("state.json.broken"), "{why}: {config}");
        ask(lb.addr(), "POST", "/lb/backends/fixed/disable", Value::Null, 200);
        assert!(state.exists() && broken.exists(), "{why}: it goes on, and what was moved stays");
    }
}

#[test]
fn a_place_where_nothing_can_be_kept_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, state) = (dir.path().join("lb.toml"), dir.path().join("state.json"));
    let _first = start(&state);
    let rows = [
        ("no directory", dir.path().join("none/state.json"), "; create its directory, and let the user"),
        ("a directory", dir.path().to_owned(), "is not a regular file"),
        ("no file", "/dev/null".into(), "is not a regular file"),
        ("another process has it", state, "is in use by another process"),
    ];
    for (why, path, part) in rows {
        let text = toml(&path);
        fs::write(&file, &text).expect("it is ours");
        let line = text.lines().position(|line| line.starts_with("state_file")).expect("it is there") + 1;
        let (code, said) = run_command_to_end(Command::new(binary()).arg("-c").arg(&file).stdout(Stdio::null()));
        assert_eq!(code, Some(1), "{why}: it said\n{said}");
        let place = format!("lb.toml:{line}:14: admin.state_file: ");
        assert!(said.contains(&place) && said.contains(part), "{why}: it said\n{said}");
    }
}

#[test]
fn a_file_of_root_is_read_and_then_kept_by_the_user_that_is_changed_to() {
    let Some(user) = nobody() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let as_nobody = toml_with("user = \"nobody\"\n", &state);
    let mut lb = start(&state);
    ask(lb.addr(), "PATCH", "/lb/backends/fixed", json!({ "weight": 3 }), 200);
    lb.signal(Signal::SIGTERM);
    assert!(lb.wait_for_exit().success());
    let file = dir.path().join("lb.toml");
    fs::write(&file, &as_nobody).expect("it is ours");
    let (code, said) = run_command_to_end(Command::new(binary()).arg("-c").arg(&file).stdout(Stdio::null()));
    assert_eq!(code, Some(1), "nobody may not write there, which is found at the start; it said\n{said}");
    assert!(said.contains("Permission denied") && said.contains("let the user that l4lb runs as"), "{said}");
    chown(dir.path(), Some(user.uid.as_raw()), None).expect("we are root");
    let lb = L4lb::start(command(&[]), &as_nobody);
    assert_eq!(backends(lb.addr())["fixed"], (3, false), "it was read as root");
    ask(lb.addr(), "PATCH", "/lb/backends/fixed", json!({ "weight": 4 }), 200);
    assert_eq!(fs::metadata(&state).expect("it is there").uid(), user.uid.as_raw());
}
