//! Where reloads, writes of the admin API, upgrades and ends meet: what one has changed, the other keeps.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::account::nobody;
use crate::admin::{json as told, lb, problem};
use crate::support::http::{Backend, ask, get};
use crate::support::l4lb::command;
use crate::support::line::{Line, addr_of, install, is_gone};
use crate::support::ports::free_port;
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{Client, L4lb, Server, connect, exchange, wait_until};
use crate::writes::{add, done, send, served_by, states};

/// One HTTP listener that serves the admin API, over these backends.
fn web(global: &str, admin: &str, backends: &[SocketAddr]) -> String {
    let list: Vec<String> = backends.iter().map(|addr| format!("{{ address = \"{addr}\" }}")).collect();
    format!(
        "[global]\nworkers = 2\nshutdown_timeout = \"20s\"\n{global}\n[admin]\n{admin}\n\
         [[listener]]\nname = \"in\"\nprotocol = \"http\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\nadmin = true\n\
         [[pool]]\nname = \"out\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{}]\n",
        list.join(", ")
    )
}

/// A listener called `name`, bound to `bind`, over a pool of its own.
fn listener(name: &str, protocol: &str, bind: &str, backend: SocketAddr) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nbind = \"{bind}\"\npool = \"{name}\"\n\
         [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{backend}\" }}]\n"
    )
}

/// Puts a script in the place of the program: it does `first`, then it is l4lb as before.
fn slow_start(line: &Line, first: &str) {
    let program = line.file("l4lb");
    if !line.file("real").exists() {
        fs::rename(&program, line.file("real")).expect("ours");
    }
    let script = format!("#!/bin/sh\n{first}\nexec \"{}\" \"$@\"\n", line.file("real").display());
    install(&program, script.as_bytes());
}

/// Asks until the answer is not that an upgrade is under way.
fn patiently(addr: SocketAddr, line: &str, body: &str) -> crate::support::http::Message {
    let mut last = None;
    wait_until("the API takes writes again", || {
        let answer = send(addr, line, body);
        let busy = answer.status() == 503;
        assert!(!busy || answer.head.get("retry-after") == Some("1"), "{}", answer.text());
        last = Some(answer);
        !busy
    });
    last.expect("just asked")
}

fn ids(addr: SocketAddr) -> Vec<String> {
    states(addr).into_iter().map(|(id, _)| id).collect()
}

/// Who has the lock of the state file at `path`. Looked up, not tried: whoever tries has it for a moment.
fn holder(path: &Path) -> Option<u32> {
    let lock = fs::metadata(path.with_extension("json.lock")).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").expect("Linux has it");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(5).and_then(|at| at.rsplit(':').next()) == Some(&*lock.to_string());
        is_it.then(|| fields[4].parse().expect("a number"))
    })
}

#[test]
fn what_the_api_changed_is_in_force_after_an_upgrade() {
    let (one, two, three) = (Backend::named("one"), Backend::named("two"), Backend::named("three"));
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let admin = format!("state_file = \"{}\"", state.display());
    for (why, admin) in [("kept nowhere", ""), ("kept in a file", &*admin)] {
        let toml = web("", admin, &[one.addr(), two.addr()]);
        let mut line = Line::start(&toml);
        let addr = line.lb.addr();
        done(why, &add(addr, "three", three.addr()), 201);
        done(why, &send(addr, &format!("POST /lb/backends/{}/disable", two.addr()), ""), 200);
        done(why, &send(addr, "PATCH /lb/backends/three", r#"{"weight":7}"#), 200);
        let before = told(&ask(addr, lb("/lb/config")))["api"]["changes"].clone();
        assert_eq!(before.as_array().map(Vec::len), Some(2), "{why}: {before}");
        for _ in 0..2 {
            line.upgrade();
            assert_eq!(told(&ask(addr, lb("/lb/config")))["api"]["changes"], before, "{why}");
            assert_eq!(served_by(addr, 12), ["one", "three"], "{why}");
        }
        let since = told(&ask(addr, lb("/lb/config")))["generation"].as_u64();
        done(why, &patiently(addr, "DELETE /lb/backends/three/remove?wait=10s", ""), 200);
        assert!(told(&ask(addr, lb("/lb/config")))["generation"].as_u64() > since, "{why}");
        assert_eq!(served_by(addr, 4), ["one"], "{why}");
        if !admin.is_empty() {
            let kept = fs::read_to_string(&state).expect(why);
            assert!(!kept.contains("three") && kept.contains(&two.addr().to_string()), "{why}: {kept}");
            assert_eq!(holder(&state), Some(line.serving()), "{why}");
        }
    }
    wait_until("nobody has it when the last has ended", || holder(&state).is_none());
}

#[test]
fn after_an_upgrade_the_state_file_is_that_of_the_new_process_at_once() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let dir = tempfile::tempdir().expect("a directory");
    let other = dir.path().join("other.json");
    // Of another time: it must not come back at the next start.
    fs::write(&other, r#"{"version": 1, "pools": {"out": {"old": {"added": {"address": "127.0.0.1:9", "weight": 1, "max_connections": 0, "backup": false}}}}}"#)
        .expect("ours");
    let toml = |name: &str| {
        let admin = if name.is_empty() {
            String::new()
        } else {
            format!("state_file = \"{}\"", dir.path().join(name).display())
        };
        web("", &admin, &[one.addr()])
    };
    let rows = [
        ("it had none before", "", "new.json"),
        ("it had another", "first.json", "second.json"),
        ("the same", "same.json", "same.json"),
        ("one of another time", "", "other.json"),
    ];
    for (why, before, after) in rows {
        let mut line = Line::start(&toml(before));
        let addr = line.lb.addr();
        done(why, &add(addr, "two", two.addr()), 201);
        line.write_file(&toml(after));
        let next = line.upgrade();
        wait_until("it is kept where it is to be kept from now on", || {
            fs::read_to_string(dir.path().join(after))
                .is_ok_and(|kept| kept.contains("\"two\"") && !kept.contains("\"old\""))
        });
        wait_until("and is that of the new process", || holder(&dir.path().join(after)) == Some(next));
        kill(Pid::from_raw(next as i32), Signal::SIGKILL).expect("it serves");
        wait_until("it is gone", || is_gone(next) && holder(&dir.path().join(after)).is_none());
        let again = L4lb::start(command(&[]), &toml(after));
        assert_eq!(ids(again.addr()), [one.addr().to_string(), "two".to_owned()], "{why}");
    }
}

#[test]
fn nothing_that_was_not_changed_is_kept_by_an_upgrade() {
    let one = Backend::named("one");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.json");
    let mut line = Line::start(&web("", &format!("state_file = \"{}\"", state.display()), &[one.addr()]));
    line.upgrade();
    done("a write", &patiently(line.lb.addr(), &format!("POST /lb/backends/{}/enable", one.addr()), ""), 200);
    assert!(!state.exists());
}

/// Renews until it is told to stop, as often as an impatient service would.
fn renew(addr: SocketAddr, id: &str, backend: SocketAddr, ttl: &str, stop: &AtomicBool) {
    let body = json!({ "id": id, "host": backend.ip().to_string(), "port": backend.port(), "ttl": ttl }).to_string();
    while !stop.load(Ordering::SeqCst) {
        let answer = send(addr, "POST /lb/services/out/register", &body);
        assert!(matches!(answer.status(), 200 | 201 | 503), "{}", answer.text());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_renews_stays_registered_over_upgrades_and_failed_ones_and_who_stops_goes() {
    let (one, service) = (Backend::named("one"), Backend::named("service"));
    let mut line = Line::start(&web("", "", &[one.addr()]));
    let addr = line.lb.addr();
    let stop = Arc::new(AtomicBool::new(false));
    let renewing = {
        let (stop, at) = (stop.clone(), service.addr());
        thread::spawn(move || renew(addr, "s", at, "1s", &stop))
    };
    wait_until("it is there", || ids(addr).contains(&"s".to_owned()));
    let watch = Arc::new(AtomicBool::new(true));
    let watching = {
        let (watch, up) = (watch.clone(), ("s".to_owned(), "up".to_owned()));
        thread::spawn(move || {
            while watch.load(Ordering::SeqCst) {
                assert!(states(addr).contains(&up), "it was taken out though it renews");
                thread::sleep(Duration::from_millis(2));
            }
        })
    };
    let generation = || told(&ask(addr, lb("/lb/config")))["api"]["changes"].clone();
    let before = generation();
    // For longer than its ttl nobody listens to it.
    slow_start(&line, "sleep 1.5; exit 7");
    line.fail_to_upgrade();
    slow_start(&line, "sleep 1.5");
    line.upgrade();
    slow_start(&line, "");
    for _ in 0..3 {
        line.upgrade();
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(generation(), before);
    watch.store(false, Ordering::SeqCst);
    watching.join().expect("it was there all the while");
    stop.store(true, Ordering::SeqCst);
    renewing.join().expect("it was answered all the while");
    let since = Instant::now();
    wait_until("it is gone", || !ids(addr).contains(&"s".to_owned()));
    assert!(since.elapsed() > Duration::from_millis(500), "not before its time");
    assert_eq!(served_by(addr, 4), ["one"]);
}

#[test]
fn while_an_upgrade_is_under_way_nothing_is_changed_and_nothing_is_lost() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let toml = web("", "", &[one.addr()]);
    let rows = [("it fails", "exit 7", false), ("it succeeds", "", true)];
    for (why, end, succeeds) in rows {
        let mut line = Line::start(&toml);
        let addr = line.lb.addr();
        // It says that it has begun, and goes on when it may.
        let (begun, go, old) = (line.file("begun"), line.file("go"), line.serving());
        slow_start(
            &line,
            &format!("touch begun; n=0; while [ ! -e go ] && [ $n -lt 3000 ]; do sleep 0.01; n=$((n+1)); done; {end}"),
        );
        let upgrading = thread::spawn(move || {
            match succeeds {
                true => drop(line.upgrade()),
                false => drop(line.fail_to_upgrade()),
            }
            line
        });
        wait_until("it has begun", || begun.exists());
        let halted = || {
            let answer = send(addr, &format!("POST /lb/backends/{}/disable", one.addr()), "");
            (answer.status() == 503).then_some(answer)
        };
        wait_until("writes are refused", || halted().is_some());
        // One may have been taken just before; what it did is undone at the end.
        let rows = [
            ("a new one", "POST /lb/backends/add", json!({ "host": "127.0.0.1", "port": 9 })),
            ("a service", "POST /lb/services/out/register", json!({ "id": "s", "host": "127.0.0.1", "port": 9 })),
            ("a reload", "POST /lb/reload", Value::Null),
            ("a reload that discards", "POST /lb/reload?discard=api", Value::Null),
        ];
        for (what, line, body) in rows {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let since = Instant::now();
            let answer = send(addr, line, &body);
            problem(&format!("{why}: {what}"), &answer, 503);
            assert_eq!(answer.head.get("retry-after"), Some("1"), "{why}: {what}: {}", answer.text());
            assert!(since.elapsed() < Duration::from_secs(5), "{why}: {what}");
        }
        assert_eq!(ask(addr, lb("/lb/health")).status(), 200, "{why}: questions are answered");
        assert_eq!(ask(addr, lb("/lb/stats")).status(), 200, "{why}");
        // A signal for which nobody has an answer: it must count in the end.
        let first = begun.parent().expect("its directory").to_owned();
        fs::write(first.join("lb.toml"), toml.replace("in\"\n", "in\"\nidle_timeout = \"77s\"\n")).expect("ours");
        kill(Pid::from_raw(old as i32), Signal::SIGHUP).expect("it serves");
        fs::write(go, "").expect("ours");
        let line = upgrading.join().expect("it ends as it should");
        line.lb.wait_for_log("that the file was read again", |line| line.contains("reloaded: "));
        let config = told(&ask(addr, lb("/lb/config")));
        assert_eq!(config["config"]["listener"][0]["idle_timeout"], "1m 17s", "{why}: {config}");
        done(why, &patiently(addr, &format!("POST /lb/backends/{}/enable", one.addr()), ""), 200);
        done(
            why,
            &patiently(
                addr,
                "POST /lb/backends/add",
                &json!({ "id": "two", "host": "127.0.0.1", "port": two.addr().port() }).to_string(),
            ),
            201,
        );
        assert_eq!(served_by(addr, 4), ["one", "two"], "{why}");
        assert_eq!(patiently(addr, "POST /lb/reload", "").status(), 200, "{why}");
        line.end();
    }
}

#[test]
fn sessions_of_datagrams_with_a_backend_that_has_left_go_over_with_it() {
    let backends = ['a', 'b', 'c'].map(UdpBackend::named);
    let (http, at) = (Backend::named("web"), backends.each_ref().map(|backend| backend.addr));
    let udp = |addrs: &[SocketAddr]| {
        let list: Vec<String> = addrs.iter().map(|addr| format!("{{ address = \"{addr}\" }}")).collect();
        let one = listener("udp", "udp", "127.0.0.1:0", at[0]);
        web("", "", &[http.addr()]) + &one.replace(&format!("{{ address = \"{}\" }}", at[0]), &list.join(", "))
    };
    let mut line = Line::start(&udp(&at));
    let [api, addr] = ["in", "udp"].map(|name| addr_of(&line, name));
    let clients: Vec<_> = (0..9).map(|_| dial(addr)).collect();
    let before: Vec<char> = clients.iter().map(Datagrams::who).collect();
    let go_on = |why: &str| {
        let now: Vec<char> = clients.iter().map(Datagrams::who).collect();
        assert_eq!(now, before, "{why}");
        let peers: Vec<usize> = backends.iter().map(|backend| backend.peers().len()).collect();
        assert_eq!(peers, [3, 3, 3], "{why}: none was begun anew");
    };
    let state =
        |addr: SocketAddr| states(api).into_iter().find(|(id, _)| *id == addr.to_string()).map(|(_, state)| state);
    // One leaves by a reload, and one by the API.
    line.write_file(&udp(&at[..2]));
    line.reload();
    done("removed", &patiently(api, &format!("DELETE /lb/backends/{}/remove", at[1]), ""), 200);
    go_on("before");
    for n in 0..2 {
        line.upgrade();
        go_on(&format!("upgrade {n}"));
        assert_eq!(at.map(state), ["up", "draining", "draining"].map(|state| Some(state.to_owned())));
    }
    assert!((0..6).all(|_| dial(addr).ask(b"new?")[0] == b'a'), "they take nothing new");
    // One leaves by the file that the next process reads.
    line.write_file(&udp(&at[2..]));
    line.upgrade();
    let now: Vec<char> = clients.iter().map(Datagrams::who).collect();
    assert_eq!(now, before, "by the new file");
    assert_eq!(at.map(state), ["draining", "draining", "up"].map(|state| Some(state.to_owned())));
    assert_eq!(backends[1].peers().len() + backends[2].peers().len(), 6);
    line.reload();
    let now: Vec<char> = clients.iter().map(Datagrams::who).collect();
    assert_eq!(now, before, "and a reload behind it");
}

#[test]
fn listeners_that_a_reload_brought_go_over_and_those_that_it_took_stay_away() {
    let (tcp, udp, http) = (Server::named("t"), UdpBackend::named('u'), Backend::named("web"));
    let base = web("", "", &[http.addr()]);
    let any = "127.0.0.1:0";
    let goes = listener("goes", "tcp", any, tcp.addr) + &listener("goes-udp", "udp", any, udp.addr);
    let comes = listener("comes", "tcp", any, tcp.addr) + &listener("comes-udp", "udp", any, udp.addr);
    let mut line = Line::start(&format!("{base}{goes}"));
    let [gone, gone_udp] = ["goes", "goes-udp"].map(|name| addr_of(&line, name));
    let stays = dial(gone_udp);
    assert_eq!(stays.who(), 'u');
    line.write_file(&format!("{base}{comes}"));
    line.reload();
    let [come, come_udp] = ["comes", "comes-udp"].map(|name| addr_of(&line, name));
    let client = dial(come_udp);
    for n in 0..3 {
        assert_eq!(exchange(come, b""), b"t", "upgrade {n}");
        assert_eq!(client.who(), 'u', "upgrade {n}");
        wait_until("nobody listens there", || TcpStream::connect(gone).is_err());
        line.upgrade();
    }
    // Its session was with the first process, and is as long as that has it.
    assert_eq!(stays.who(), 'u');
    assert_eq!(udp.peers().len(), 2, "one session each, all along");
    let told: Vec<_> = line.lb.log().into_iter().filter(|line| line.contains("listener comes")).collect();
    assert!(
        told.iter().all(|line| line.contains(&come.to_string()) || line.contains(&come_udp.to_string())),
        "{told:?}"
    );
    // And a listener of the same name and place may come back, over and over.
    for n in 0..2 {
        line.write_file(&format!("{base}{goes}"));
        line.reload();
        line.upgrade();
        line.write_file(&format!("{base}{comes}"));
        line.upgrade();
        line.lb.wait_for_log("that it listens", |line| line.contains("listener comes on"));
        assert_eq!(ask(line.lb.addr(), get("/")).text(), "web", "round {n}");
    }
}

/// A free address, where nobody listens.
fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

#[test]
fn several_sockets_of_one_address_in_one_worker_move_with_it() {
    let (one, two) = (Server::named("one"), Server::named("two"));
    let (a, b) = (UdpBackend::named('a'), UdpBackend::named('b'));
    let (at, udp_at) = (free(), free());
    let file = |workers: usize, which: usize| {
        let (name, tcp, udp) = [("first", one.addr, a.addr), ("second", two.addr, b.addr)][which];
        format!("[global]\nworkers = {workers}\nshutdown_timeout = \"20s\"\n")
            + &listener(name, "tcp", &at.to_string(), tcp)
            + &listener(&format!("{name}-udp"), "udp", &udp_at.to_string(), udp)
    };
    let none = |workers: usize| {
        format!("[global]\nworkers = {workers}\nshutdown_timeout = \"20s\"\n")
            + &listener("other", "tcp", "127.0.0.1:0", one.addr)
    };
    let mut line = Line::start(&file(3, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let said = exchange(at, b"");
                    assert!(said == b"one" || said == b"two", "{said:?}");
                    assert!(matches!(dial(udp_at).who(), 'a' | 'b'));
                }
            })
        })
        .collect();
    for workers in [3, 1, 2, 1, 3] {
        line.write_file(&file(workers, 0));
        line.upgrade();
        for (which, tcp, udp) in [(1, "two", 'b'), (0, "one", 'a')] {
            line.write_file(&file(workers, which));
            line.reload();
            for _ in 0..20 {
                assert_eq!(exchange(at, b""), tcp.as_bytes(), "{workers} workers");
                assert_eq!(dial(udp_at).who(), udp, "{workers} workers");
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    load.into_iter().for_each(|client| client.join().expect("everybody was served"));
    // With several sockets in one worker, all of them close.
    line.write_file(&file(1, 0));
    line.upgrade();
    line.write_file(&none(1));
    line.reload();
    wait_until("nobody listens there", || TcpStream::connect(at).is_err());
    line.write_file(&file(1, 1));
    line.reload();
    (0..20).for_each(|_| assert_eq!(exchange(at, b""), b"two"));
}

#[test]
fn one_who_is_not_root_any_more_is_replaced_and_keeps_low_ports_and_state() {
    let Some(user) = nobody() else { return };
    let (http, more) = (Backend::named("web"), Backend::named("more"));
    let dir = tempfile::tempdir().expect("a directory");
    chown(dir.path(), Some(user.uid.as_raw()), None).expect("we are root");
    let low = |last: u16| {
        let mut ports =
            (20..1000).map(|n| (n * 7 + last) % 980 + 20).map(|port| SocketAddr::from(([127, 77, 7, 7], port)));
        ports.find(|addr| std::net::TcpListener::bind(addr).is_ok()).expect("a free one")
    };
    let at = low(std::process::id() as u16);
    let toml = |bind: SocketAddr| {
        let admin = format!("state_file = \"{}\"", dir.path().join("state.json").display());
        web("user = \"nobody\"", &admin, &[http.addr()]).replace("127.0.0.1:0", &bind.to_string())
    };
    let mut line = Line::start(&toml(at));
    fs::set_permissions(line.file("."), fs::Permissions::from_mode(0o755)).expect("ours");
    done("added", &add(at, "more", more.addr()), 201);
    for n in 0..2 {
        let next = line.upgrade();
        let status = fs::read_to_string(format!("/proc/{next}/status")).expect("it runs");
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("it has one").trim().to_owned();
        assert!(uid.starts_with(&user.uid.to_string()), "{uid}");
        assert_eq!(served_by(at, 4), ["more", "web"], "upgrade {n}");
        let weight = format!(r#"{{"weight":{}}}"#, n + 3);
        done("kept by nobody", &patiently(at, "PATCH /lb/backends/more", &weight), 200);
    }
    let other = low(at.port() + 1);
    line.write_file(&toml(other));
    line.reload();
    assert_eq!(served_by(other, 4), ["more", "web"], "a low port that only a reload needs");
    line.upgrade();
    assert_eq!(served_by(other, 4), ["more", "web"]);
}

#[test]
fn the_one_that_is_replaced_waits_for_no_shutdown_delay_and_the_next_is_healthy_at_once() {
    let (good, bad) = (Backend::named("web"), Server::new(|stream: TcpStream| drop(stream)));
    let check = "health_check = { kind = \"http\", interval = \"1h\", fall = 1, path = \"/\" }";
    let toml = |backends: &[SocketAddr]| {
        web("shutdown_delay = \"20s\"", "", backends).replace("health_check = { kind = \"none\" }", check)
    };
    let mut line = Line::start(&toml(&[good.addr(), bad.addr]));
    let addr = line.lb.addr();
    line.lb.wait_for_log("that one is down", |line| line.contains("is down"));
    assert_eq!(ask(addr, get("/")).text(), "web");
    for _ in 0..2 {
        let (old, since) = (line.serving(), Instant::now());
        line.upgrade();
        let health = ask(addr, lb("/lb/health"));
        assert_eq!((health.status(), &told(&health)["status"]), (200, &json!("healthy")));
        let stats = told(&ask(addr, lb("/lb/stats")));
        assert_eq!((&stats["requests"], &stats["failed"]), (&json!(0), &json!(0)), "it has served nobody yet: {stats}");
        assert_eq!(states(addr)[1].1, "down", "and knows who is down");
        assert_eq!(ask(addr, get("/")).text(), "web");
        wait_until("it is counted", || told(&ask(addr, lb("/lb/stats")))["requests"] == 1);
        wait_until("the old one has ended", || is_gone(old) || old == line.lb.pid() && !line.lb.is_running());
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    }
    // One that has nobody to send clients to says so at once, too.
    line.write_file(&toml(&[bad.addr]));
    line.upgrade();
    assert_eq!(ask(addr, lb("/lb/health")).status(), 503);
    let last = line.serving();
    line.signal(last, Signal::SIGTERM);
    line.lb.wait_for_log("that it says so", |line| line.contains("draining in 20s"));
    line.signal(last, Signal::SIGTERM); // at once
}

#[test]
fn upgrades_may_follow_each_other_at_once_and_a_second_signal_is_one_upgrade() {
    let tcp = Server::named("t");
    let mut line = Line::start(
        &(web("", "", &["127.0.0.1:9".parse().expect("an address")])
            + &listener("tcp", "tcp", "127.0.0.1:0", tcp.addr)),
    );
    let at = addr_of(&line, "tcp");
    let long = connect(at);
    assert_eq!(long.read_n(1), b"t");
    for _ in 0..8 {
        let old = line.serving();
        line.upgrade();
        // Whoever was replaced replaces nobody.
        if !is_gone(old) {
            let _ = kill(Pid::from_raw(old as i32), Signal::SIGUSR2);
        }
        assert_eq!(exchange(at, b""), b"t");
    }
    let serving = line.serving();
    (0..5).for_each(|_| line.signal(serving, Signal::SIGUSR2));
    let mut next = 0;
    wait_until("one takes over", || {
        let log = line.lb.log();
        next = log.iter().filter(|line| line.contains("serves in place of this one")).count();
        next == 9
    });
    let last = line.lb.log().iter().rev().find_map(|line| crate::support::line::successor(line)).expect("just seen");
    line.processes.push(last);
    assert_eq!(exchange(at, b""), b"t");
    let begun = line.lb.log().iter().filter(|line| line.contains("upgrade: starting")).count();
    assert_eq!(begun, 9, "none was begun in vain");
    long.finish();
    assert_eq!(long.read_all().1, crate::support::Ending::Clean);
}

#[test]
fn who_is_told_to_end_in_the_midst_of_an_upgrade_leaves_one_that_serves_or_none() {
    let tcp = Server::named("t");
    let (mut taken, mut given_up) = (0, 0);
    for round in 0..24_u64 {
        let mut line = Line::start(
            &("[global]\nworkers = 2\nshutdown_timeout = \"5s\"\n".to_owned()
                + &listener("tcp", "tcp", "127.0.0.1:0", tcp.addr)),
        );
        let (at, first) = (line.lb.addr(), line.serving());
        let kept = connect(at);
        assert_eq!(kept.read_n(1), b"t");
        line.signal(first, Signal::SIGUSR2);
        line.lb.wait_for_log("that it begins", |line| line.contains("upgrade: starting"));
        thread::sleep(Duration::from_micros(round * 500));
        line.signal(first, Signal::SIGTERM);
        line.lb.wait_for_log("that it ends", |line| line.contains("draining, at most"));
        let successor = line.lb.log().iter().find_map(|line| crate::support::line::successor(line));
        kept.finish();
        assert_eq!(kept.read_all(), (Vec::new(), crate::support::Ending::Clean), "round {round}");
        assert!(line.lb.wait_for_exit().success(), "round {round}");
        match successor {
            Some(next) => {
                taken += 1;
                line.processes.push(next);
                assert_eq!(exchange(at, b""), b"t", "round {round}");
                line.end();
            }
            None => {
                given_up += 1;
                wait_until("nobody listens there", || TcpStream::connect(at).is_err());
            }
        }
    }
    // Which of the two is a matter of moments; that there is nothing between them is what counts.
    eprintln!("{taken} had been replaced already, {given_up} gave it up");
}

#[test]
fn a_udp_listener_that_left_while_somebody_was_served_may_come_back_with_an_upgrade() {
    let (http, udp) = (Backend::named("web"), UdpBackend::named('u'));
    let base = web("", "", &[http.addr()]);
    for (why, bind) in [("a port of its own", free().to_string()), ("any port", "127.0.0.1:0".to_owned())] {
        let with = format!("{base}{}", listener("udp", "udp", &bind, udp.addr));
        let mut line = Line::start(&with);
        let at = addr_of(&line, "udp");
        let client = dial(at);
        assert_eq!(client.who(), 'u', "{why}");
        let peers = udp.peers();
        line.write_file(&base);
        line.reload();
        assert_eq!(client.who(), 'u', "{why}: who is served stays so");
        line.write_file(&with);
        line.upgrade();
        assert_eq!(client.who(), 'u', "{why}");
        assert_eq!(udp.peers(), peers, "{why}: by the same session");
        let other = dial(at);
        assert_eq!(other.who(), 'u', "{why}: others come in again");
        // And where the next one does not want it, it is as it was.
        line.write_file(&base);
        line.reload();
        line.upgrade();
        assert_eq!([client.who(), other.who()], ['u', 'u'], "{why}: by the one that is replaced");
    }
}
