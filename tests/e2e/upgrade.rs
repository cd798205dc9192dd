//! SIGUSR2: a new process takes the place of the old one, and nobody who is served notices.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::http::{Backend, Wire, ask, get};
use crate::support::line::{Line, addr_of, install, is_gone};
use crate::support::load::{Load, bursts, for_a_second, keep_alive, session};
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{
    Client, Ending, PATIENCE, Server, connect, exchange, note, proc, raise_descriptor_limit, wait_until,
};

/// Listeners for HTTP, TCP and UDP, each over its backends.
fn three(global: &str, http: &[SocketAddr], tcp: SocketAddr, udp: &[SocketAddr]) -> String {
    let list = |addrs: &[SocketAddr]| {
        addrs.iter().map(|addr| format!("{{ address = \"{addr}\" }}")).collect::<Vec<_>>().join(", ")
    };
    let pool = |name: &str, addrs: &[SocketAddr]| {
        format!(
            "[[listener]]\nname = \"{name}\"\nprotocol = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n\
             [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{}]\n",
            list(addrs)
        )
    };
    format!("[global]\n{global}\n{}{}{}", pool("http", http), pool("tcp", &[tcp]), pool("udp", udp))
}

/// So many upgrades in a row under load of all kinds. Whoever is not served fails.
fn upgrade_under_load(upgrades: usize, workers: &[usize]) {
    let http: Vec<_> = (0..2).map(|_| Backend::echoing_targets()).collect();
    let tcp = Server::echo();
    let udp = ['a', 'b', 'c'].map(UdpBackend::named);
    let http_addrs: Vec<_> = http.iter().map(Backend::addr).collect();
    let udp_addrs: Vec<_> = udp.iter().map(|backend| backend.addr).collect();
    let toml = |workers: usize| {
        let global = format!("workers = {workers}\nshutdown_timeout = \"60s\"");
        three(&global, &http_addrs, tcp.addr, &udp_addrs)
    };
    let mut line = Line::start(&toml(workers[0]));
    let [web, stream, datagrams] = ["http", "tcp", "udp"].map(|name| addr_of(&line, name));
    let mut load = Load::new();
    for _ in 0..4 {
        load.add("http requests on kept connections", keep_alive(web));
    }
    for _ in 0..2 {
        load.add("http requests on connections of their own", move || {
            assert_eq!(ask(web, get("/one")).text(), "/one");
        });
        load.add("tcp connections", move || assert_eq!(exchange(stream, b"hello"), b"hello"));
    }
    load.add("tcp connections of a second each", for_a_second(stream));
    for _ in 0..6 {
        load.add("datagrams asked and answered", session(datagrams));
    }
    load.add("bursts of 8 datagrams", bursts(datagrams));
    let mut longest = Duration::ZERO;
    for n in 1..=upgrades {
        thread::sleep(Duration::from_millis(100)); // the load goes on a while with each
        std::fs::write(line.file("lb.toml"), toml(workers[n % workers.len()])).expect("ours");
        let since = Instant::now();
        line.upgrade();
        longest = longest.max(since.elapsed());
    }
    thread::sleep(Duration::from_millis(200));
    let counts = load.end();
    // As many sessions as clients: none was begun anew by an upgrade.
    let sessions: usize = udp.iter().map(|backend| backend.peers().len()).sum();
    assert_eq!(sessions, 7, "sessions that backends have seen");
    let addrs = ["http", "tcp", "udp"].map(|name| addr_of(&line, name));
    assert_eq!(addrs, [web, stream, datagrams]);
    let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    note(&format!("{upgrades} upgrades, none of {} failed; the longest took {longest:?}", counts.join(", ")));
    line.end();
}

#[test]
fn nobody_who_is_served_notices_an_upgrade() {
    upgrade_under_load(3, &[2]);
}

#[test]
fn the_number_of_workers_may_change_with_an_upgrade() {
    upgrade_under_load(3, &[2, 1, 3]);
}

#[test]
#[ignore = "a long run: twenty upgrades; ask for it by name"]
fn twenty_upgrades_in_a_row_fail_nobody() {
    upgrade_under_load(20, &[2, 2, 1, 3]);
}

fn plain(global: &str, protocol: &str, backend: SocketAddr) -> String {
    format!(
        "[global]\nworkers = 2\n{global}\n[[listener]]\nname = \"in\"\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\n\
         [[pool]]\nname = \"out\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{backend}\" }}]\n"
    )
}

#[test]
fn a_new_process_that_cannot_start_leaves_the_old_one_as_it_was() {
    let tcp = Server::echo();
    let udp = UdpBackend::named('u');
    let http = Backend::echoing_targets();
    let toml = three("workers = 2", &[http.addr()], tcp.addr, &[udp.addr]);
    let mut line = Line::start(&toml);
    let first = line.serving();
    let [web, stream, datagrams] = ["http", "tcp", "udp"].map(|name| addr_of(&line, name));
    let kept = connect(stream);
    kept.echo(b"before");
    let mut wire = Wire::to(web);
    assert_eq!(wire.ask(get("/before")).text(), "/before");
    let client = dial(datagrams);
    assert_eq!(client.who(), 'u');
    let (program, file) = (line.file("l4lb"), line.file("lb.toml"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let clash = format!(
        "{toml}\n[[listener]]\nname = \"clash\"\nprotocol = \"tcp\"\nbind = \"{}\"\npool = \"tcp\"\n",
        taken.local_addr().expect("bound")
    );
    let binary = std::fs::read(&program).expect("a copy");
    let kills = b"#!/bin/sh\nkill -9 $$\n";
    type Row<'a> = (&'a str, &'a [u8], &'a str, &'a [&'a str]);
    let rows: [Row<'_>; 5] = [
        ("the file is broken", &binary, "[[listener]\n", &["lb.toml:1", "exit status: 1"]),
        ("an address is taken", &binary, &clash, &["clash", "in use", "exit status: 3"]),
        ("the binary is another program", b"#!/bin/sh\necho sorry >&2\nexit 9\n", &toml, &["sorry", "exit status: 9"]),
        ("it crashes", kills, &toml, &["SIGKILL"]),
        ("the binary is none", b"\x7fnothing that runs", &toml, &["cannot be started"]),
    ];
    for (why, program_text, toml, words) in rows {
        install(&program, program_text);
        std::fs::write(&file, toml).expect("ours");
        let told = line.fail_to_upgrade();
        for word in words {
            assert!(told.contains(word), "{why}: {word:?} is not in {told}");
        }
        assert_eq!(client.who(), 'u', "{why}");
        kept.echo(b"the connection from before");
        assert_eq!(wire.ask(get("/kept")).text(), "/kept", "{why}");
        assert_eq!(exchange(stream, b"new"), b"new", "{why}");
        assert!(!is_gone(first), "{why}");
    }
    std::fs::remove_file(&program).expect("ours");
    assert!(line.fail_to_upgrade().contains("cannot be started"), "it is missing");
    install(&program, &binary);
    std::fs::write(&file, &toml).expect("ours");
    line.upgrade();
    assert_eq!((client.who(), udp.peers().len()), ('u', 1), "and at last it works, with the session from before");
    kept.finish();
    line.end();
}

#[test]
fn a_long_connection_stays_with_the_old_process_until_it_ends() {
    let (server, udp, http) = (Server::echo(), UdpBackend::named('u'), Backend::echoing_targets());
    let global = "workers = 2\nshutdown_timeout = \"60s\"";
    let mut line = Line::start(&three(global, &[http.addr()], server.addr, &[udp.addr]));
    let [addr, datagrams] = ["tcp", "udp"].map(|name| addr_of(&line, name));
    let old = line.serving();
    let (long, client) = (connect(addr), dial(datagrams));
    long.echo(b"before");
    assert_eq!(client.who(), 'u');
    line.upgrade();
    let (before, since) = (proc::wake_ups(old), Instant::now());
    for _ in 0..500 {
        assert_eq!(exchange(addr, b"to the new one"), b"to the new one");
        assert_eq!(client.who(), 'u');
    }
    // The sockets are the same, and yet what comes wakes only one of the two. That one looks now and then whether it can end.
    let (woken, looks) = (proc::wake_ups(old) - before, since.elapsed().as_millis() as u64 / 10 * 2);
    assert!(woken < looks + 100, "it was woken {woken} times, and may have looked up {looks} times");
    long.echo(b"by the old one");
    assert!(!is_gone(old), "it has somebody to serve");
    long.finish();
    assert_eq!(long.read_all(), (Vec::new(), Ending::Clean));
    assert!(line.lb.wait_for_exit().success());
    assert_eq!(exchange(addr, b"still there"), b"still there");
}

#[test]
fn thousands_of_sessions_of_datagrams_go_over_each_with_its_backend() {
    const SESSIONS: usize = 3_000;
    raise_descriptor_limit();
    let backends = ['a', 'b', 'c'].map(UdpBackend::named);
    let toml = plain("", "udp", backends[0].addr).replace(
        "backend = [",
        &format!("backend = [{{ address = \"{}\" }}, {{ address = \"{}\" }}, ", backends[1].addr, backends[2].addr),
    );
    let mut line = Line::start(&toml);
    let clients: Vec<_> = (0..SESSIONS).map(|_| dial(line.lb.addr())).collect();
    let before: Vec<char> = clients.iter().map(Datagrams::who).collect();
    let peers = || backends.iter().map(|backend| backend.peers().len()).sum::<usize>();
    assert_eq!(peers(), SESSIONS);
    for _ in 0..2 {
        line.upgrade();
        line.lb.wait_for_log("how many there are", |line| line.contains(&format!("it has {SESSIONS} sessions")));
        let after: Vec<char> = clients.iter().map(Datagrams::who).collect();
        assert!(before == after, "some are elsewhere");
        assert_eq!(peers(), SESSIONS, "none was begun anew");
    }
}

#[test]
fn the_old_process_ends_after_shutdown_timeout_at_the_latest() {
    let server = Server::echo();
    let mut line = Line::start(&plain("shutdown_timeout = \"700ms\"", "tcp", server.addr));
    let addr = line.lb.addr();
    let long = connect(addr);
    long.echo(b"before");
    let since = Instant::now();
    line.upgrade();
    assert!(line.lb.wait_for_exit().success());
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(695) && took < PATIENCE / 2, "{took:?}");
    assert!(long.read_all().0.is_empty());
    assert_eq!(exchange(addr, b"still there"), b"still there");
}

#[test]
fn listeners_come_and_go_with_the_new_file() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let listener = |name: &str, bind: &str, backend: SocketAddr| {
        format!(
            "[[listener]]\nname = \"{name}\"\nprotocol = \"tcp\"\nbind = \"{bind}\"\npool = \"{name}\"\n\
             [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{backend}\" }}]\n"
        )
    };
    let any = "127.0.0.1:0";
    let mut line = Line::start(&(listener("stays", any, a.addr) + &listener("goes", any, a.addr)));
    let [stays, goes] = ["stays", "goes"].map(|name| addr_of(&line, name));
    // Another name at the same address, and another backend behind it: the address is what counts.
    let toml = listener("renamed", &stays.to_string(), b.addr) + &listener("comes", any, b.addr);
    std::fs::write(line.file("lb.toml"), toml).expect("ours");
    line.upgrade();
    wait_until("the old one listens no more", || TcpStream::connect(goes).is_err());
    assert_eq!(exchange(stays, b""), b"b");
    assert_eq!(exchange(addr_of(&line, "comes"), b""), b"b");
}

#[test]
fn whoever_waits_to_be_accepted_is_served_by_the_new_process() {
    let server = Server::echo();
    // One connection at a time: the others wait in the kernel's queue, with the old process and with the new one.
    // One worker, so that they wait in one queue and come out of it in order.
    let toml = plain("shutdown_timeout = \"60s\"\nmax_connections = 1", "tcp", server.addr);
    let mut line = Line::start(&toml.replace("workers = 2", "workers = 1"));
    let addr = line.lb.addr();
    let first = connect(addr);
    first.echo(b"first");
    let waiting: Vec<_> = (0..20).map(|_| connect(addr)).collect();
    line.upgrade();
    for stream in waiting {
        stream.echo(b"at last");
        stream.finish();
        assert_eq!(stream.read_all(), (Vec::new(), Ending::Clean));
    }
    first.echo(b"and the first is where it was");
}

#[test]
fn a_backend_that_is_down_is_down_for_the_new_process_from_the_start() {
    let (good, bad) = (Server::named("g"), Server::new(|stream: TcpStream| drop(stream)));
    let check = "{ kind = \"tcp\", interval = \"1h\", timeout = \"1s\", fall = 1, expect = \"g\" }";
    let toml = |check: &str| {
        format!(
            "[global]\nworkers = 1\n[[listener]]\nname = \"in\"\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\n\
             [[pool]]\nname = \"out\"\nhealth_check = {check}\nbackend = [{{ address = \"{}\" }}, {{ address = \"{}\" }}]\n",
            good.addr, bad.addr
        )
    };
    let mut line = Line::start(&toml(check));
    line.lb.wait_for_log("that one is down", |line| line.contains(&format!("backend {} is down", bad.addr)));
    // From here on no check would find it.
    let blind = check.replace("fall = 1", "fall = 100");
    std::fs::write(line.file("lb.toml"), toml(&blind)).expect("ours");
    line.upgrade();
    let before = bad.accepted();
    for _ in 0..20 {
        assert_eq!(exchange(line.lb.addr(), b""), b"g");
    }
    assert!(bad.accepted() <= before + 1, "at most a check has come there");
}

#[test]
fn an_open_breaker_stays_open() {
    let failing = Backend::new(|_| b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec());
    let toml = plain("", "http", failing.addr()).replace(
        "[[pool]]",
        "[[pool]]\ncircuit_breaker = { failure_threshold = 2, success_threshold = 1, timeout = \"1h\" }",
    );
    let mut line = Line::start(&toml);
    let addr = line.lb.addr();
    // An answer may be here before it is accounted for.
    wait_until("the breaker opens", || ask(addr, get("/")).status() == 503);
    failing.take_seen();
    line.upgrade();
    assert_eq!(ask(addr, get("/")).status(), 503);
    assert_eq!(failing.take_seen().len(), 0, "the backend is left in peace");
}

#[test]
fn a_second_signal_while_an_upgrade_is_under_way_is_refused() {
    let server = Server::named("s");
    let line = Line::start(&plain("", "tcp", server.addr));
    install(&line.file("l4lb"), b"#!/bin/sh\nexec sleep 60\n");
    line.signal(line.serving(), Signal::SIGUSR2);
    line.lb.wait_for_log("it begins", |line| line.contains("upgrade: starting"));
    line.signal(line.serving(), Signal::SIGUSR2);
    line.lb.wait_for_log("a second one is refused", |line| line.contains("under way already"));
    assert_eq!(exchange(line.lb.addr(), b""), b"s");
    // And who is told to end meanwhile ends, with what it had begun.
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", line.serving())).unwrap_or_default();
    line.end();
    for child in child.split_whitespace() {
        let child = child.parse().expect("a number");
        wait_until("the one that was to take over has ended", || is_gone(child));
    }
}

#[test]
fn the_service_manager_is_told_who_serves() {
    let server = Server::named("s");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("ours");
    manager.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let hear = || {
        let mut words = [0; 256];
        let len = manager.recv(&mut words).expect("it tells in time");
        String::from_utf8_lossy(&words[..len]).into_owned()
    };
    let mut line = Line::start_with(&plain("", "tcp", server.addr), |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(hear(), "READY=1");
    let next = line.upgrade();
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), format!("MAINPID={next}\nREADY=1"));
    assert!(line.lb.wait_for_exit().success());
    std::fs::write(line.file("lb.toml"), "[[").expect("ours");
    line.fail_to_upgrade();
    assert!(hear().starts_with("RELOADING=1"));
    assert_eq!(hear(), "READY=1", "all is as it was");
    line.end();
    assert_eq!(hear(), "STOPPING=1", "and not a word of the first, which ended long before");
}

#[test]
fn an_upgraded_process_keeps_no_descriptor_of_the_one_before() {
    let server = Server::echo();
    let mut line = Line::start(&plain("", "tcp", server.addr));
    let at_start = proc::settled_descriptors(line.serving());
    for _ in 0..2 {
        line.upgrade();
        wait_until("the one before has ended", || {
            let before = line.processes[line.processes.len() - 2];
            if before == line.lb.pid() { !line.lb.is_running() } else { is_gone(before) }
        });
        proc::wait_for_descriptors(line.serving(), at_start);
    }
}

/// A program in the place of the new l4lb that knows how to begin a hand-over, and then does `rest`.
fn impostor(rest: &str) -> String {
    format!(
        "#!/usr/bin/python3\n\
         import array, json, os, socket, struct, sys\n\
         line = socket.socket(fileno=int(os.environ['L4LB_UPGRADE_FD']))\n\
         def hear(n):\n    data = b''\n    while len(data) < n:\n        more = line.recvmsg(n - len(data), 65536)[0]\n        \
         if not more: sys.exit('hung up on')\n        data += more\n    return data\n\
         def frame():\n    kind, fds, length = struct.unpack('>HHI', hear(8))\n    return kind, hear(length)\n\
         def say(kind, payload):\n    line.sendall(struct.pack('>HHI', kind, 0, len(payload)) + payload)\n\
         {rest}\n"
    )
}

const GREETS: &str = "line.sendall(b'l4lb\\xff\\r\\n\\0' + struct.pack('>HH', 1, 1)); hear(12)";

#[test]
fn a_new_process_that_dies_on_the_way_costs_no_session() {
    if Command::new("/usr/bin/python3").arg("--version").output().is_err() {
        note("left out: python3 is not installed");
        return;
    }
    let tcp = Server::echo();
    let udp = ['a', 'b'].map(UdpBackend::named);
    let http = Backend::echoing_targets();
    let toml = three("workers = 2", &[http.addr()], tcp.addr, &[udp[0].addr, udp[1].addr]);
    let mut line = Line::start(&toml);
    let [stream, datagrams] = ["tcp", "udp"].map(|name| addr_of(&line, name));
    let binary = std::fs::read(line.file("l4lb")).expect("a copy");
    let mut load = Load::new();
    for _ in 0..8 {
        load.add("datagrams asked and answered", session(datagrams));
    }
    load.add("tcp connections", move || assert_eq!(exchange(stream, b"hello"), b"hello"));
    let ready = format!(
        "{GREETS}\nnumbers = []\nwhile True:\n    kind, payload = frame()\n    \
         if kind == 1: numbers += [s['number'] for s in json.loads(payload)]\n    if kind == 3: break\n\
         say(4, json.dumps({{'taken': numbers}}).encode())"
    );
    let rows = [
        (
            "it speaks a version of another time",
            "line.sendall(b'l4lb\\xff\\r\\n\\0' + struct.pack('>HH', 9, 9)); hear(1 << 20)".into(),
            "of version 9",
        ),
        (
            "it says what is none of this",
            "line.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); hear(1 << 20)".into(),
            "no hand-over",
        ),
        (
            "it ends with the sessions of one socket in hand",
            format!("{ready}\nframe()\nframe()\nsys.exit(3)"),
            "exit status: 3",
        ),
        (
            "it ends when it has all of them",
            format!(
                "{ready}\nwhile True:\n    kind, payload = frame()\n    if kind == 7: sys.exit(4)\n    \
                 flows = json.loads(payload)\n    if flows['last']: say(6, json.dumps(flows['socket']).encode())"
            ),
            "exit status: 4",
        ),
        (
            "it says that it reads a socket which was not its turn",
            format!("{ready}\nsay(6, b'77')\nhear(1 << 20)"),
            "in place of reading a socket",
        ),
    ];
    for (why, rest, words) in rows {
        install(&line.file("l4lb"), impostor(&rest).as_bytes());
        let told = line.fail_to_upgrade();
        assert!(told.contains(words), "{why}: {told}");
        load.goes_on();
    }
    install(&line.file("l4lb"), &binary);
    line.upgrade();
    let counts = load.end();
    assert!(counts.iter().all(|(_, count)| *count > 50), "{counts:?}");
    let sessions: usize = udp.iter().map(|backend| backend.peers().len()).sum();
    assert_eq!(sessions, 8, "sessions that backends have seen");
}
