//! Changes where there is much to change: ten thousand backends reloaded, a thousand services that renew every second.
//! Long runs for their figures; ask for them by name, on a release build.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::admin::{json as told, lb};
use crate::support::http::{Wire, ask, get, ok};
use crate::support::l4lb::command;
use crate::support::server::echo;
use crate::support::{Client, L4lb, Server, connect, note, proc, wait_until};
use crate::writes::{states, write};

/// A file with `count` backends from the `from`th address of 127.0.0.0/8 on.
fn many(protocol: &str, algorithm: &str, port: u16, from: u32, count: u32, more: &str) -> String {
    let mut toml = format!(
        "[global]\nworkers = 2\n[[listener]]\nname = \"in\"\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\n\
         [[pool]]\nname = \"out\"\nalgorithm = \"{algorithm}\"\nhealth_check = {{ kind = \"none\" }}\n"
    );
    for n in from..from + count {
        let at = Ipv4Addr::from(0x7f00_0001 + n);
        toml += &format!("[[pool.backend]]\nid = \"b{n}\"\naddress = \"{at}:{port}\"\n{more}\n");
    }
    toml
}

/// What clients saw meanwhile.
#[derive(Default)]
struct Pauses {
    /// The longest round trip on a connection that stays, and how many there were.
    kept: (Duration, usize),
    /// The longest that connecting and a round trip took.
    fresh: (Duration, usize),
}

/// Clients that ask on and on, a millisecond apart, while `body` runs.
fn under_load<T>(addr: SocketAddr, body: impl FnOnce() -> T) -> (Pauses, T) {
    let stop = AtomicBool::new(false);
    let run = |one: &mut dyn FnMut()| {
        let (mut longest, mut count) = (Duration::ZERO, 0);
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            one();
            longest = longest.max(began.elapsed());
            count += 1;
            thread::sleep(Duration::from_millis(1));
        }
        (longest, count)
    };
    thread::scope(|scope| {
        let kept = scope.spawn(|| {
            let stream = connect(addr);
            run(&mut || stream.echo(b"hello"))
        });
        let fresh = scope.spawn(|| run(&mut || connect(addr).echo(b"hello")));
        thread::sleep(Duration::from_millis(300));
        let came = body();
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        let [kept, fresh] = [kept, fresh].map(|client| client.join().expect("everybody was served"));
        (Pauses { kept, fresh }, came)
    })
}

#[test]
#[ignore = "a measurement; ask for it by name, on a release build"]
fn ten_thousand_backends_reloaded_in_figures() {
    const ALL: u32 = 10_000;
    let server = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = server.local_addr().expect("bound").port();
    let _echo = Server::on(server, echo);
    // As many as what follows, and so what it costs with no change at all to wait as these clients do.
    for algorithm in ["weighted_round_robin", "least_connections", "maglev", "consistent_hash"] {
        let file = |from, more: &str| many("tcp", algorithm, port, from, ALL, more);
        let l4lb = L4lb::start(command(&[]), &file(0, ""));
        let (quiet, ()) = under_load(l4lb.addr(), || thread::sleep(Duration::from_secs(2)));
        let before = proc::memory_kib(l4lb.pid());
        let steps = [
            ("every weight", file(0, "weight = 2")),
            ("half of the backends", file(ALL / 2, "weight = 2")),
            ("all of them", file(ALL * 2, "weight = 2")),
            ("nothing", file(ALL * 2, "weight = 2")),
        ];
        for (what, toml) in steps {
            l4lb.write_file(&toml);
            let workers = || proc::cpu_time_of(l4lb.pid(), "worker-0") + proc::cpu_time_of(l4lb.pid(), "worker-1");
            let (cpu, _) = (proc::cpu_time(l4lb.pid()), workers());
            let (seen, took) = under_load(l4lb.addr(), || {
                let began = Instant::now();
                assert_eq!(l4lb.reload_as_it_is().len(), 1, "{what}");
                began.elapsed()
            });
            let cpu = proc::cpu_time(l4lb.pid()) - cpu;
            note(&format!(
                "{algorithm}, {what}: {took:.0?} (CPU {cpu:.0?} with the load); longest pause {:.1?} of {} kept, {:.1?} of {} new \
                 (at rest {:.1?} and {:.1?})",
                seen.kept.0, seen.kept.1, seen.fresh.0, seen.fresh.1, quiet.kept.0, quiet.fresh.0
            ));
        }
        let after = proc::memory_kib(l4lb.pid());
        note(&format!(
            "{algorithm}: own memory before {} MiB, after {} MiB, the most resident at any time {} MiB",
            before / 1024,
            after / 1024,
            proc::peak_kib(l4lb.pid()) / 1024
        ));
    }
}

/// Processor time of each thread so far, by name.
fn by_thread(pid: u32) -> Vec<(String, Duration)> {
    let names = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let mut names: Vec<String> = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect();
    names.iter_mut().for_each(|name| name.truncate(name.trim_end().len()));
    names.sort();
    names.dedup();
    names.into_iter().map(|name| (name.clone(), proc::cpu_time_of(pid, &name))).collect()
}

#[test]
#[ignore = "a measurement; ask for it by name, on a release build"]
fn a_thousand_services_renew_every_second_in_figures() {
    const SERVICES: usize = 1_000;
    const SECONDS: u32 = 20;
    crate::support::raise_descriptor_limit();
    // One server has all of 127.0.0.0/8; what is asked of it slowly is still under way when its service falls silent.
    let server = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = server.local_addr().expect("bound").port();
    let _web = Server::on(server, |stream| {
        let mut wire = Wire::of(stream);
        while let Some(request) = wire.next_request() {
            if request.head.target() == "/slow" {
                thread::sleep(Duration::from_secs(4));
            }
            let at = wire.stream.local_addr().expect("connected").ip().to_string();
            if !wire.try_send(ok(at)) {
                return;
            }
        }
    });
    let toml = many("http", "round_robin", port, 5_000_000, 1, "")
        .replace("pool = \"out\"\n", "pool = \"out\"\nadmin = true\n");
    for (why, state) in [("kept nowhere", false), ("with a state_file", true)] {
        let dir = tempfile::tempdir().expect("a directory");
        let start = |name: &str| {
            let admin = format!("[admin]\nstate_file = \"{}\"\n", dir.path().join(name).display());
            L4lb::start(command(&[]), &(if state { admin + &toml } else { toml.clone() }))
        };
        let host = |n: usize| Ipv4Addr::from(0x7f00_0001 + 1_000 + n as u32).to_string();
        let register_for = |ttl: &str, n: usize| {
            let body = json!({ "id": format!("s{n}"), "host": host(n), "port": port, "ttl": ttl }).to_string();
            write("POST /lb/services/out/register", "", &body)
        };
        let register = |n: usize| register_for("3s", n);
        {
            let l4lb = start("alone.json");
            let (mut wire, began) = (Wire::to(l4lb.addr()), Instant::now());
            (0..SERVICES).for_each(|n| assert_eq!(wire.ask(register_for("1m", n)).status(), 201, "{n}"));
            note(&format!("{why}: {SERVICES} services registered one at a time in {:.2?}", began.elapsed()));
        }
        let l4lb = start("state.json");
        let (addr, pid) = (l4lb.addr(), l4lb.pid());
        // Sixteen at a time, as services that start together do.
        let (began, next) = (Instant::now(), AtomicUsize::new(0));
        let at_once = |times: usize, n: &AtomicUsize, status: u16| {
            thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| {
                        let mut wire = Wire::to(addr);
                        loop {
                            let n = n.fetch_add(1, Ordering::Relaxed);
                            if n >= times {
                                return;
                            }
                            let answer = wire.ask(register(n));
                            assert_eq!(answer.status(), status, "{n}: {}", answer.text());
                        }
                    });
                }
            });
        };
        at_once(SERVICES, &next, 201);
        let all = began.elapsed();
        let generation = || told(&ask(addr, lb("/lb/config")))["generation"].clone();
        let edition = generation();
        // From here on each renews every second, the calls spread over it; the 7th falls silent after half the time.
        let silent = Arc::new(AtomicBool::new(false));
        let (before, since) = (by_thread(pid), Instant::now());
        let (mut slow, mut asked, mut gone) = (None, None, None);
        thread::scope(|scope| {
            for part in 0..4 {
                let (silent, register) = (silent.clone(), &register);
                scope.spawn(move || {
                    let mut wire = Wire::to(addr);
                    for round in 0..SECONDS {
                        for n in (part..SERVICES).step_by(4) {
                            if n == 7 && silent.load(Ordering::SeqCst) {
                                continue;
                            }
                            let due =
                                Duration::from_secs(round.into()) + Duration::from_secs(1) * n as u32 / SERVICES as u32;
                            thread::sleep(due.saturating_sub(since.elapsed()));
                            let answer = wire.ask(register(n));
                            assert_eq!(answer.status(), 200, "{n}: {}", answer.text());
                        }
                    }
                });
            }
            // In the last seconds, so that they do not weigh in the figures.
            thread::sleep(Duration::from_secs((SECONDS - 8).into()));
            let (after, took) = (by_thread(pid), since.elapsed());
            let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
            let of =
                |name: &String| before.iter().find(|(known, _)| known == name).map_or(Duration::ZERO, |(_, cpu)| *cpu);
            let shares: Vec<(String, f64)> =
                after.iter().map(|(name, cpu)| (name.clone(), share(*cpu - of(name)))).collect();
            let sum: f64 = shares.iter().map(|(_, share)| share).sum();
            let told: Vec<String> = shares
                .iter()
                .filter(|(_, share)| *share >= 0.05)
                .map(|(name, share)| format!("{name} {share:.2} %"))
                .collect();
            note(&format!(
                "{why}: {SERVICES} services registered in {all:.2?}; renewing every second {sum:.2} % of a processor ({}), {} KiB own \
                 memory",
                told.join(", "),
                proc::memory_kib(pid)
            ));
            assert_eq!(generation(), edition, "renewing changes nothing");
            // A request is under way at the 7th when that falls silent: in a row as long as the pool is, it has its turn.
            silent.store(true, Ordering::SeqCst);
            let stopped = Instant::now();
            let clients: Vec<_> = (0..SERVICES + 1)
                .map(|_| {
                    let mut wire = Wire::to(addr);
                    wire.send(get("/slow"));
                    wire
                })
                .collect();
            asked = Some(stopped.elapsed());
            wait_until("it takes nothing new", || {
                states(addr).iter().all(|(id, state)| id != "s7" || state == "draining")
            });
            slow = Some(stopped.elapsed());
            let answers: Vec<String> = clients.into_iter().map(|mut wire| wire.response().text().to_owned()).collect();
            assert!(answers.contains(&host(7)), "its last request was answered");
            wait_until("it is gone", || states(addr).iter().all(|(id, _)| id != "s7"));
            gone = Some(stopped.elapsed());
        });
        assert_eq!(states(addr).len(), SERVICES, "all others are there, and the one of the file");
        note(&format!(
            "{why}: one that fell silent (ttl 3 s) took nothing new after {:.2?}, and was gone, its requests answered, after {:.2?} \
             ({} requests of 4 s were sent within {:.2?})",
            slow.expect("waited for"),
            gone.expect("waited for"),
            SERVICES + 1,
            asked.expect("waited for"),
        ));
        assert!(all < Duration::from_secs(2) || cfg!(debug_assertions), "{all:?}");
    }
}
