//! Reloads, writes of the admin API and upgrades, all in one run and under all kinds of load: nobody who is served notices.
//!
//! Counted is twice. Each client holds every answer against its question, and fails the test by the first that is wrong,
//! late or missing, and by the first connection that is refused, reset or ended; so what it was served is what it asked for.
//! And each process says at its end what it cut, refused, and could not bring to a backend: that must be nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::http::{Backend, Message, ask, get, ok};
use crate::support::line::{Line, addr_of};
use crate::support::load::{Load, bursts, for_a_second, keep_alive, session};
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{Client, Server, connect, exchange, note, wait_until};
use crate::writes::send;

/// Backends of one protocol: three that the file may name, and one that the API adds.
struct Four<B> {
    in_file: [B; 3],
    other: B,
}

/// Everything that is balanced over.
struct World {
    http: Four<Backend>,
    tcp: Four<Server>,
    udp: Four<UdpBackend>,
}

impl World {
    fn new() -> World {
        let web = || {
            Backend::new(|request| {
                if request.head.target() == "/slow" {
                    thread::sleep(Duration::from_millis(150));
                }
                ok(request.head.target())
            })
        };
        World {
            http: Four { in_file: [web(), web(), web()], other: web() },
            tcp: Four { in_file: [Server::echo(), Server::echo(), Server::echo()], other: Server::echo() },
            udp: Four { in_file: ['a', 'b', 'c'].map(UdpBackend::named), other: UdpBackend::named('d') },
        }
    }

    /// The file of the `n`th configuration: each differs from the one before in several ways.
    fn file(&self, n: usize, workers: usize) -> String {
        let addrs = [
            self.http.in_file.each_ref().map(Backend::addr),
            self.tcp.in_file.each_ref().map(|server| server.addr),
            self.udp.in_file.each_ref().map(|server| server.addr),
        ];
        let mut toml = format!("[global]\nworkers = {workers}\nshutdown_timeout = \"10m\"\n");
        for (protocol, addrs) in ["http", "tcp", "udp"].into_iter().zip(addrs) {
            let admin = if protocol == "http" { "admin = true\n" } else { "" };
            let algorithm = ["round_robin", "weighted_round_robin", "least_connections"][n / 3 % 3];
            toml += &format!(
                "[[listener]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\n\
                 pool = \"{protocol}\"\nidle_timeout = \"{}s\"\n{admin}\
                 [[pool]]\nname = \"{protocol}\"\nalgorithm = \"{algorithm}\"\nconnect_timeout = \"{}s\"\n\
                 health_check = {{ kind = \"none\" }}\n",
                60 + n % 5,
                5 + n % 3
            );
            // One of the three is left out, mostly, and each has another weight than before.
            for (at, addr) in addrs.iter().enumerate().filter(|(at, _)| n % 4 != *at) {
                toml += &format!("[[pool.backend]]\naddress = \"{addr}\"\nweight = {}\n", 1 + (n + at) % 7);
            }
        }
        if n % 2 == 1 {
            toml += "[[listener]]\nname = \"beside\"\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\npool = \"tcp\"\n";
        }
        toml
    }
}

/// Asks the API until it does not say that it is busy just now; how often it said so.
fn patiently(mut once: impl FnMut() -> Message) -> (Message, usize) {
    let mut busy = 0;
    loop {
        let answer = once();
        if answer.status() != 503 {
            return (answer, busy);
        }
        assert_eq!(answer.head.get("retry-after"), Some("1"), "{}", answer.text());
        busy += 1;
        assert!(busy < 3_000, "{}", answer.text());
        thread::sleep(Duration::from_millis(10)); // sooner than it says: the test has less patience than an operator
    }
}

/// Adds a backend to each pool in turn and removes it again, `rounds` times, while anything else happens. How often it was
/// told to come back.
fn add_and_remove(
    api: SocketAddr,
    others: [SocketAddr; 3],
    rounds: usize,
    done: &AtomicUsize,
    keep_up: &AtomicUsize,
) -> usize {
    let mut busy = 0;
    for round in 0..rounds {
        wait_until("the others keep up", || keep_up.load(Ordering::SeqCst) > round);
        let at = round % 3;
        let (pool, addr) = (["http", "tcp", "udp"][at], others[at]);
        let id = format!("other-{round}");
        let body = json!({ "id": id, "pool": pool, "host": addr.ip().to_string(), "port": addr.port() }).to_string();
        let (added, again) = patiently(|| send(api, "POST /lb/backends/add", &body));
        assert_eq!(added.status(), 201, "round {round}: {}", added.text());
        busy += again;
        thread::sleep(Duration::from_millis(10)); // some of the load comes there
        let (removed, again) = patiently(|| send(api, &format!("DELETE /lb/backends/{id}/remove"), ""));
        assert_eq!(removed.status(), 200, "round {round}: {}", removed.text());
        busy += again;
        done.fetch_add(1, Ordering::SeqCst);
    }
    busy
}

/// What a process says at its end, and must not have done to anybody.
fn harm(told: &str) -> Vec<String> {
    let words: Vec<&str> = told.split([' ', '(', ',', ')', ';']).filter(|word| !word.is_empty()).collect();
    let bad = |pair: &[&str]| {
        let is = matches!(pair[1], "cut" | "unserved" | "shed" | "dropped" | "failed") && pair[0] != "0";
        is.then(|| format!("{} {}", pair[0], pair[1]))
    };
    words.windows(2).filter_map(bad).collect()
}

/// `pause`: how long the load goes on between one reload and the next.
fn all_at_once(reloads: usize, writes: usize, upgrades: usize, pause: Duration) {
    let world = World::new();
    let mut line = Line::start(&world.file(0, 2));
    let [web, stream, datagrams] = ["http", "tcp", "udp"].map(|name| addr_of(&line, name));
    let mut load = Load::new();
    for _ in 0..3 {
        load.add("HTTP requests on kept connections", keep_alive(web));
        load.add("HTTP requests on connections of their own", move || {
            assert_eq!(ask(web, get("/one")).text(), "/one");
        });
    }
    load.add("HTTP requests of 150 ms", move || assert_eq!(ask(web, get("/slow")).text(), "/slow"));
    load.add("TCP connections", move || assert_eq!(exchange(stream, b"hello"), b"hello"));
    load.add("TCP connections of a second", for_a_second(stream));
    let all_the_while = connect(stream);
    load.add("round trips on one TCP connection", move || {
        all_the_while.echo(b"still here");
        thread::sleep(Duration::from_millis(1));
    });
    const SESSIONS: usize = 7;
    for _ in 1..SESSIONS {
        load.add("datagrams asked and answered in sessions that last", session(datagrams));
    }
    load.add("bursts of 8 datagrams", bursts(datagrams));
    load.add("UDP sessions of 3 datagrams", move || {
        let socket = dial(datagrams);
        let who = socket.ask(b"number 1")[0];
        for question in [b"number 2", b"number 3"] {
            let answer = socket.ask(question);
            assert_eq!((answer[0], &answer[1..]), (who, &question[..]));
        }
        thread::sleep(Duration::from_millis(40)); // each lives for a minute: there should not be tens of thousands
    });
    let (done, keep_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let writer = {
        let (done, keep_up) = (done.clone(), keep_up.clone());
        let others = [world.http.other.addr(), world.tcp.other.addr, world.udp.other.addr];
        thread::spawn(move || add_and_remove(web, others, writes, &done, &keep_up))
    };
    let (mut slowest_reload, mut slowest_upgrade, mut busy) = (Duration::ZERO, Duration::ZERO, 0);
    let (mut upgraded, mut workers, began) = (0, 2, Instant::now());
    for n in 1..=reloads {
        thread::sleep(pause);
        // Writes are spread over the run, and may be anywhere in what follows.
        keep_up.store(writes * n / reloads + 1, Ordering::SeqCst);
        line.write_file(&world.file(n, workers));
        let since = Instant::now();
        let told = if n % 2 == 0 {
            line.reload()
        } else {
            let (answer, again) = patiently(|| send(web, "POST /lb/reload", ""));
            assert_eq!(answer.status(), 200, "{}", answer.text());
            busy += again;
            // The log may come later, and must not be taken for that of the next one.
            wait_until("the log tells of it, too", || line.reloads() == n);
            answer.text().to_owned()
        };
        slowest_reload = slowest_reload.max(since.elapsed());
        assert!(told.contains("beside") && told.contains("tcp"), "it changes something: {told}");
        if n * upgrades / reloads > upgraded {
            upgraded += 1;
            workers = [2, 2, 1, 3][upgraded % 4];
            line.write_file(&world.file(n, workers));
            let since = Instant::now();
            line.upgrade();
            slowest_upgrade = slowest_upgrade.max(since.elapsed());
        }
    }
    let took = began.elapsed();
    keep_up.store(usize::MAX, Ordering::SeqCst);
    wait_until("all is written", || done.load(Ordering::SeqCst) == writes || writer.is_finished());
    busy += writer.join().expect("every write was done");
    thread::sleep(Duration::from_millis(200));
    let counts = load.end();
    // As many sessions as clients: none was begun anew. Those that last speak by numbers, of four bytes.
    let udp = world.udp.in_file.iter().chain([&world.udp.other]);
    let lasting: usize = udp.map(|backend| backend.peers_with(|bytes| bytes.len() == 4).len()).sum();
    assert_eq!(lasting, SESSIONS, "sessions that last, as the backends have seen them");
    let others = (world.http.other.accepted(), world.tcp.other.accepted(), world.udp.other.received());
    assert!(writes < 10 || others.0 > 0 && others.1 > 0, "those that the API added had their part: {others:?}");
    let told = line.end_and_tell();
    let harmed: Vec<_> = told.iter().filter(|told| !harm(told).is_empty()).collect();
    assert!(harmed.is_empty(), "{harmed:#?}");
    let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    note(&format!(
        "{reloads} reloads (the slowest {slowest_reload:.1?}), {writes} adds and {writes} removes, {upgraded} upgrades (the \
         slowest {slowest_upgrade:.1?}) in {took:.1?}: nothing failed of {}; the API said {busy} times to come back; {} \
         processes have cut, refused and lost nothing",
        counts.join(", "),
        told.len(),
    ));
}

#[test]
fn reloads_writes_and_upgrades_at_once_cost_nobody_anything() {
    all_at_once(12, 12, 3, Duration::ZERO);
}

#[test]
#[ignore = "a long run; ask for it by name"]
fn a_hundred_reloads_a_hundred_adds_and_removes_and_twenty_upgrades_cost_nobody_anything() {
    all_at_once(100, 100, 20, Duration::from_millis(200));
}

#[test]
fn what_a_process_says_of_harm_is_found() {
    let said = "served 3 connections and 9 requests (3 ended, 0 cut, 1 idle, 0 unserved, 2 shed), 1 bytes in, 2 bytes out, \
                0 failed connections to backends, 0 retries; udp: 1 sessions, 2 datagrams in (4 dropped), 1 replies (0 dropped)";
    assert_eq!(harm(said), ["2 shed", "4 dropped"]);
}
