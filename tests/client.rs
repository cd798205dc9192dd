//! The library, as a program that uses it sees it: over real sockets, in real time where time matters.
//!
//! `shares` holds it to the pickers of the program, over the same requests.

use l4lb::client::{
    Algorithm, Backend, BackendStatus, BreakerState, CircuitBreaker, Context, Error, Health, HealthCheck, Outcome,
    PickError, Pool, PoolBuilder, RateLimit, Registration, Registry,
};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "proxy")]
#[path = "client/shares.rs"]
mod shares;

/// Far more than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let due = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < due, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An address at which nobody is asked.
fn at(host: u8) -> SocketAddr {
    ([192, 0, 2, host], 80).into()
}

/// A pool of `ids`, each of weight 1.
fn pool_of(ids: &[&str]) -> PoolBuilder {
    Pool::builder("p").backends(ids.iter().zip(1..).map(|(id, host)| Backend::new(*id, at(host))))
}

/// Who is picked in so many calls, each a success.
fn picks(pool: &Pool, context: &Context, calls: usize) -> Vec<Result<String, PickError>> {
    let pick = |_| {
        pool.pick(context).map(|lease| {
            let id = lease.backend().id().to_owned();
            lease.success();
            id
        })
    };
    (0..calls).map(pick).collect()
}

fn status(pool: &Pool, id: &str) -> BackendStatus {
    pool.backends().into_iter().find(|backend| backend.id == id).expect("it is there")
}

#[test]
fn a_pick_says_why_there_is_none() {
    let any = Context::new();
    let without = |ids: &[&str]| ids.iter().fold(Context::new(), |context, id| context.exclude(*id));
    let full = pool_of(&["a"]).backend(Backend::new("f", at(9)).max_connections(1).weight(0));
    let rows: Vec<(&str, PoolBuilder, Context, Result<&str, PickError>)> = vec![
        ("nobody is there", pool_of(&[]), any.clone(), Err(PickError::NoneAvailable)),
        ("one", pool_of(&["a"]), any.clone(), Ok("a")),
        ("one, which is excluded", pool_of(&["a"]), without(&["a"]), Err(PickError::AllExcluded)),
        ("one of two is excluded", pool_of(&["a", "b"]), without(&["a"]), Ok("b")),
        ("one that is not there is excluded", pool_of(&["a"]), without(&["x"]), Ok("a")),
        ("weight 0 takes nothing new", full, without(&["a"]), Err(PickError::AllExcluded)),
        (
            "disabled",
            pool_of(&[]).backend(Backend::new("d", at(1)).disabled(true)),
            any.clone(),
            Err(PickError::NoneAvailable),
        ),
        (
            "a backup beside a primary",
            pool_of(&[]).backend(Backend::new("backup", at(1)).backup(true)).backend(Backend::new("a", at(2))),
            any.clone(),
            Ok("a"),
        ),
        (
            "a backup where the primary is excluded",
            pool_of(&["a"]).backend(Backend::new("backup", at(9)).backup(true)),
            without(&["a"]),
            Ok("backup"),
        ),
    ];
    for (why, builder, context, expected) in rows {
        let pool = builder.build().unwrap();
        for found in picks(&pool, &context, 3) {
            assert_eq!(found.as_deref().map_err(|e| *e), expected, "{why}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_to_write() {
    let rows = [
        ("two of one id", pool_of(&["a", "a"]), "two backends have the id \"a\""),
        ("no id", pool_of(&[""]), "an empty id"),
        ("too heavy", pool_of(&[]).backend(Backend::new("a", at(1)).weight(257)), "write 0 to 256"),
        ("a bound that nobody can hold", pool_of(&["a"]).hash_balance(1.0), "more than 1"),
        ("no number", pool_of(&["a"]).hash_balance(f32::NAN), "more than 1"),
        ("a share beyond all", pool_of(&["a"]).panic_threshold(1.5), "0 to 1"),
        (
            "a breaker that is always open",
            { pool_of(&["a"]).circuit_breaker(CircuitBreaker::new().failure_threshold(0)) },
            "1 to 1,000,000",
        ),
        (
            "a check that never ends",
            { pool_of(&["a"]).health_check(HealthCheck::tcp().timeout(Duration::ZERO)) },
            "1 ms to a day",
        ),
    ];
    for (why, builder, expected) in rows {
        let error = builder.build().expect_err(why).to_string();
        assert!(error.contains(expected), "{why}: {error}");
    }
}

#[test]
fn a_lease_counts_until_it_is_gone_and_a_dropped_one_says_nothing() {
    let builder = pool_of(&[]).backend(Backend::new("a", at(1)).max_connections(2));
    let pool = builder.circuit_breaker(CircuitBreaker::new().failure_threshold(1)).build().unwrap();
    let any = Context::new();
    let (first, second) = (pool.pick(&any).unwrap(), pool.pick(&any).unwrap());
    assert_eq!(pool.pick(&any).unwrap_err(), PickError::AllFull);
    assert_eq!(status(&pool, "a").in_flight, 2);
    drop(first);
    assert_eq!(status(&pool, "a").in_flight, 1);
    second.finish(Outcome::Aborted);
    let found = status(&pool, "a");
    assert_eq!((found.in_flight, found.breaker, found.latency), (0, Some(BreakerState::Closed), None));
    assert!(!found.set_aside);
}

#[test]
fn outcomes_move_breakers_set_aside_and_are_slow_or_fast() {
    let build = || {
        let breaker = CircuitBreaker::new().failure_threshold(2).success_threshold(1).timeout(PATIENCE);
        pool_of(&["a", "b"]).circuit_breaker(breaker).build().unwrap()
    };
    let only_a = Context::new().exclude("b");
    type Row = (&'static str, &'static [Outcome], BreakerState, bool, Result<&'static str, PickError>);
    let rows: [Row; 6] = [
        ("a success", &[Outcome::Success], BreakerState::Closed, false, Ok("a")),
        ("one failure", &[Outcome::Failure], BreakerState::Closed, false, Ok("a")),
        ("two open it", &[Outcome::Failure; 2], BreakerState::Open, false, Err(PickError::AllExcluded)),
        (
            "a success between",
            { &[Outcome::Failure, Outcome::Success, Outcome::Failure] },
            BreakerState::Closed,
            false,
            Ok("a"),
        ),
        (
            "not reached: set aside, and taken where there is no other",
            { &[Outcome::Unreachable] },
            BreakerState::Closed,
            true,
            Ok("a"),
        ),
        ("aborted ones are none", &[Outcome::Aborted; 9], BreakerState::Closed, false, Ok("a")),
    ];
    for (why, outcomes, breaker, set_aside, expected) in rows {
        let pool = build();
        for outcome in outcomes {
            pool.pick(&only_a).unwrap().finish(*outcome);
        }
        let found = status(&pool, "a");
        assert_eq!((found.breaker, found.set_aside), (Some(breaker), set_aside), "{why}");
        assert_eq!(found.latency.is_some(), outcomes != [Outcome::Aborted; 9], "{why}");
        assert_eq!(picks(&pool, &only_a, 1)[0].as_deref().map_err(|e| *e), expected, "{why}");
        let others = picks(&pool, &Context::new(), 4);
        // Where it was set aside it is so no more: it has answered.
        assert_eq!(others.contains(&Ok("a".into())), breaker != BreakerState::Open, "{why}: {others:?}");
    }
    let pool = build();
    pool.pick(&only_a).unwrap().unreachable();
    assert_eq!(picks(&pool, &Context::new(), 4), vec![Ok("b".to_owned()); 4], "others are preferred");
}

#[test]
fn latency_is_from_pick_to_answer_and_not_to_the_end() {
    let pool = pool_of(&["a"]).build().unwrap();
    let latency = || status(&pool, "a").latency.expect("it has answered");
    let mut lease = pool.pick(&Context::new()).unwrap();
    lease.answered_after(Duration::from_millis(3));
    lease.answered();
    thread::sleep(Duration::from_millis(20));
    assert!(lease.elapsed() >= Duration::from_millis(20));
    lease.success();
    assert!((2..=3).contains(&latency().as_millis()), "what was told first counts: {:?}", latency());
    let lease = pool.pick(&Context::new()).unwrap();
    thread::sleep(Duration::from_millis(20));
    lease.success();
    assert!(latency() >= Duration::from_millis(19), "{:?}", latency());
}

#[test]
fn keys_stay_and_clients_are_keys() {
    for algorithm in [Algorithm::IpHash, Algorithm::ConsistentHash, Algorithm::Maglev] {
        let pool = pool_of(&["a", "b", "c", "d"]).algorithm(algorithm).build().unwrap();
        let of = |context: &Context| picks(&pool, context, 1).remove(0).unwrap();
        let of_keys = |pool: &Pool| -> Vec<String> {
            (0..200).map(|key| picks(pool, &Context::new().key(format!("key{key}")), 1).remove(0).unwrap()).collect()
        };
        let before = of_keys(&pool);
        assert_eq!(before, of_keys(&pool), "{algorithm}");
        let [plain, mapped] = ["192.0.2.9", "::ffff:192.0.2.9"].map(|ip| Context::new().client_ip(ip.parse().unwrap()));
        assert_eq!(of(&plain), of(&mapped), "{algorithm}: one client, however it is seen");
        assert_eq!(of(&plain), of(&Context::new().key([192, 0, 2, 9])), "{algorithm}: the bytes of its address");
        // Without a key chance decides: that all of 64 fall on one has a chance of 2^-126.
        let spread = picks(&pool, &Context::new(), 64);
        assert!(spread.iter().any(|id| *id != spread[0]), "{algorithm}");
        if algorithm == Algorithm::ConsistentHash {
            pool.deregister("c");
            let moved = before.iter().zip(of_keys(&pool)).filter(|(was, is)| *was != is && *was != "c").count();
            assert_eq!(moved, 0, "only the keys of who left move");
        }
    }
}

#[test]
fn a_client_has_at_most_its_share() {
    let pool = pool_of(&["a", "b"]).max_per_client(2).build().unwrap();
    let of = |host: u8| Context::new().client_ip([192, 0, 2, host].into());
    let held = [pool.pick(&of(1)).unwrap(), pool.pick(&of(1)).unwrap()];
    assert_eq!(pool.pick(&of(1)).unwrap_err(), PickError::ClientFull);
    assert!(pool.pick(&of(2)).is_ok(), "others are free");
    assert!(pool.pick(&Context::new()).is_ok(), "whoever is nobody is not counted");
    drop(held);
    assert!(pool.pick(&of(1)).is_ok());
}

#[test]
fn picks_are_limited_by_rate_for_all_or_for_each_client() {
    let of = |host: u8| Context::new().client_ip([192, 0, 2, host].into());
    let hour = Duration::from_secs(3600);
    let rows = [
        ("tokens", RateLimit::token_bucket(3, 0.001)),
        ("a window", RateLimit::sliding_window(3, hour)),
        ("a bucket that leaks", RateLimit::leaky_bucket(3, 0.001)),
    ];
    for (why, limit) in rows {
        let pool = pool_of(&["a"]).rate_limit(limit).build().unwrap();
        let taken = (0..9).filter(|host| pool.pick(&of(*host)).is_ok()).count();
        assert!((3..=4).contains(&taken), "{why}: all share it: {taken}");
        let Err(PickError::Limited { retry_after }) = pool.pick(&of(1)) else { panic!("{why}: it is used up") };
        assert!(retry_after > Duration::from_secs(900) && retry_after <= hour, "{why}: {retry_after:?}");
        assert!(pool.pick(&of(1).exclude("x")).is_ok(), "{why}: a retry is no other call");
        let pool = pool_of(&["a"]).rate_limit(limit.per_client()).build().unwrap();
        for client in [Context::new(), of(1), of(2)] {
            let taken = (0..9).filter(|_| pool.pick(&client).is_ok()).count();
            assert!((3..=4).contains(&taken), "{why}: each has its own: {taken}");
        }
        assert!(
            matches!(pool.pick(&Context::new()), Err(PickError::Limited { .. })),
            "{why}: one for all who are nobody"
        );
    }
    let wrong = [
        RateLimit::token_bucket(0, 1.0),
        RateLimit::token_bucket(1, f64::NAN),
        RateLimit::leaky_bucket(1, 0.0),
        RateLimit::leaky_bucket(1_000_001, 1.0),
        RateLimit::sliding_window(1, Duration::ZERO),
        RateLimit::sliding_window(10_001, hour).per_client(),
    ];
    for limit in wrong {
        assert!(pool_of(&["a"]).rate_limit(limit).build().is_err(), "{limit:?}");
    }
}

#[test]
fn backends_come_change_and_go() {
    let pool = pool_of(&["a"]).algorithm(Algorithm::WeightedRoundRobin).build().unwrap();
    let b = Backend::new("b", at(7));
    assert_eq!(pool.register(b.clone()).unwrap(), Registration::Added);
    assert_eq!(pool.register(b.clone()).unwrap(), Registration::Renewed);
    let held = pool.pick(&Context::new().exclude("a")).unwrap();
    assert_eq!(pool.register(b.clone().weight(3)).unwrap(), Registration::Changed);
    assert_eq!(status(&pool, "b").in_flight, 1, "what is known of it holds on");
    let count =
        |pool: &Pool, id: &str| picks(pool, &Context::new(), 40).iter().filter(|p| **p == Ok(id.into())).count();
    assert_eq!(count(&pool, "b"), 30);
    assert_eq!(pool.register(Backend::new("b", at(8))).unwrap(), Registration::Moved);
    let moved = status(&pool, "b");
    assert_eq!((moved.address, moved.weight, moved.in_flight), (at(8), 1, 0), "it is another server");
    assert_eq!(held.address(), at(7), "a lease is on the one that was picked");
    held.success();
    assert_eq!(status(&pool, "b").latency, None);
    assert!(pool.deregister("b") && !pool.deregister("b"));
    assert_eq!(count(&pool, "b"), 0);
    assert!(matches!(pool.renew("b"), Err(Error::NoBackend(id)) if id == "b"));
    assert!(matches!(pool.register(Backend::new("c", at(1)).weight(300)), Err(Error::Weight { .. })));
}

#[test]
fn a_backend_that_is_not_renewed_leaves() {
    let pool = pool_of(&["a"]).build().unwrap();
    let ttl = Duration::from_secs(1);
    let backend = |id: &str, host| Backend::new(id, at(host)).ttl(ttl);
    let began = Instant::now();
    let again = backend("again", 7);
    for backend in [again.clone(), backend("kept", 8), backend("left", 9)] {
        pool.register(backend).unwrap();
    }
    wait_until("one leaves", || {
        pool.renew("kept").unwrap();
        assert_eq!(pool.register(again.clone()).unwrap(), Registration::Renewed);
        pool.backends().len() == 3
    });
    assert!(began.elapsed() >= ttl, "not before its time");
    let ids: Vec<String> = pool.backends().into_iter().map(|backend| backend.id).collect();
    assert_eq!(ids, ["a", "again", "kept"], "the one that nobody has renewed");
    wait_until("the others leave, too", || pool.backends().len() == 1);
    assert_eq!(picks(&pool, &Context::new(), 2), vec![Ok("a".to_owned()); 2]);
}

/// A server that answers checks by HTTP, with what it is told to.
struct Checked {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Checked {
    fn start() -> Checked {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (is_well, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let checked = Checked { address: listener.local_addr().unwrap(), is_well, asked };
        let (is_well, asked) = (checked.is_well.clone(), checked.asked.clone());
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut head = BufReader::new(client.try_clone().unwrap()).lines();
                let Some(Ok(line)) = head.next() else { continue };
                assert_eq!(line, "GET /health HTTP/1.1");
                while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                asked.fetch_add(1, SeqCst);
                let status = if is_well.load(SeqCst) { "200 OK" } else { "503 Service Unavailable" };
                let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            }
        });
        checked
    }
}

/// Often enough for a test.
fn often(check: HealthCheck) -> HealthCheck {
    check.interval(Duration::from_millis(20)).timeout(Duration::from_secs(5)).fall(2).rise(2)
}

#[test]
fn checks_take_out_who_is_down_and_bring_it_back() {
    let (one, two) = (Checked::start(), Checked::start());
    let backends = [Backend::new("one", one.address), Backend::new("two", two.address)];
    let pool = Pool::builder("p").backends(backends).health_check(often(HealthCheck::http("/health"))).build().unwrap();
    let health = |id| status(&pool, id).health;
    let any = Context::new();
    wait_until("both are up", || health("one") == Health::Up && health("two") == Health::Up);
    two.is_well.store(false, SeqCst);
    wait_until("two is down", || health("two") == Health::Down);
    assert_eq!(picks(&pool, &any, 6), vec![Ok("one".to_owned()); 6]);
    one.is_well.store(false, SeqCst);
    wait_until("all are down", || health("one") == Health::Down);
    assert_eq!(pool.pick(&any).unwrap_err(), PickError::NoneAvailable);
    two.is_well.store(true, SeqCst);
    wait_until("two is up again", || health("two") == Health::Up);
    assert_eq!(picks(&pool, &any, 6), vec![Ok("two".to_owned()); 6]);
    assert!(two.asked.load(SeqCst) >= 5, "each verdict takes two");
}

#[test]
fn health_is_not_heeded_below_the_panic_threshold() {
    let dead = || Backend::new("dead", ([127, 0, 0, 1], 1));
    let check = || often(HealthCheck::tcp()).fall(1);
    let heeds = Pool::builder("p").backend(dead()).health_check(check()).build().unwrap();
    let panics = Pool::builder("p").backend(dead()).health_check(check()).panic_threshold(0.5).build().unwrap();
    wait_until("both know", || [&heeds, &panics].iter().all(|pool| status(pool, "dead").health == Health::Down));
    assert_eq!(heeds.pick(&Context::new()).unwrap_err(), PickError::NoneAvailable);
    assert!(panics.pick(&Context::new()).is_ok());
}

#[test]
fn every_kind_of_check_tells_good_from_bad() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (greets, answers) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in tcp.incoming().flatten() {
            let _ = client.write_all(b"220 hello\r\n");
        }
    });
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((count, from)) = udp.recv_from(&mut datagram) {
            let _ = udp.send_to(&datagram[..count], from);
        }
    });
    let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
    let rows = [
        ("a connection", HealthCheck::tcp(), greets, Health::Up),
        ("one to a server that says nothing", HealthCheck::tcp(), silent.local_addr().unwrap(), Health::Up),
        ("a greeting", HealthCheck::tcp().expect("220 "), greets, Health::Up),
        ("another greeting", HealthCheck::tcp().expect("SSH"), greets, Health::Down),
        ("none at all", HealthCheck::tcp().expect("220 "), silent.local_addr().unwrap(), Health::Down),
        ("no HTTP", HealthCheck::http("/"), greets, Health::Down),
        ("nobody", HealthCheck::tcp(), nobody, Health::Down),
        ("a datagram that is answered", HealthCheck::udp("ping").expect("ping"), answers, Health::Up),
        ("otherwise", HealthCheck::udp("ping").expect("pong"), answers, Health::Down),
        ("not at all", HealthCheck::udp("ping").expect("ping"), mute.local_addr().unwrap(), Health::Down),
        ("which need not be", HealthCheck::udp("ping"), mute.local_addr().unwrap(), Health::Up),
        ("refused", HealthCheck::udp("ping"), nobody, Health::Down),
    ];
    for (why, check, address, expected) in rows {
        let check = often(check).timeout(Duration::from_millis(200)).fall(1);
        let pool = Pool::builder("p").backend(Backend::new("a", address)).health_check(check).build().unwrap();
        wait_until(why, || status(&pool, "a").health == expected);
    }
}

/// Threads of this process by name, where the system tells.
#[cfg(target_os = "linux")]
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim_end() == name).count()
}

#[test]
#[cfg(target_os = "linux")]
fn threads_are_few_and_end_with_their_pools() {
    // Other tests of this process have threads, too, so this one runs in a process of its own.
    if std::env::var_os("L4LB_ALONE").is_none() {
        let itself = std::env::current_exe().unwrap();
        let args = ["--exact", "threads_are_few_and_end_with_their_pools", "--nocapture"];
        let done = std::process::Command::new(itself).args(args).env("L4LB_ALONE", "1").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    let plain = pool_of(&["a"]).build().unwrap();
    assert!(plain.pick(&Context::new()).is_ok());
    assert_eq!(threads("l4lb-client"), 0, "nothing to do, no thread");
    // Connections that nobody answers: each check lasts.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let registry = Registry::new();
    let check = HealthCheck::http("/").interval(Duration::from_millis(10)).timeout(Duration::from_secs(1));
    for pool in ["p", "q", "r"] {
        let backends = (0..30).map(|n| Backend::new(format!("b{n}"), address));
        registry.add(Pool::builder(pool).backends(backends).health_check(check.clone())).unwrap();
    }
    wait_until("all threads are busy", || threads("l4lb-check") == 16);
    assert_eq!(threads("l4lb-client"), 1, "one for all pools of a registry");
    let held = registry.pick("q", &Context::new()).unwrap();
    drop(registry);
    assert_eq!(threads("l4lb-client"), 0, "a lease keeps no thread");
    wait_until("their checks are over", || threads("l4lb-check") == 0);
    held.success();
    let pool = pool_of(&["a"]).build().unwrap();
    pool.register(Backend::new("b", at(9)).ttl(PATIENCE)).unwrap();
    wait_until("somebody has an eye on the time", || threads("l4lb-client") == 1);
    drop(pool);
    assert_eq!(threads("l4lb-client"), 0);
}

#[test]
fn a_registry_knows_pools_by_name() {
    let registry = Registry::new();
    registry.add(Pool::builder("users")).unwrap();
    registry.add(Pool::builder("orders")).unwrap();
    assert!(matches!(registry.add(Pool::builder("users")), Err(Error::DuplicatePool(name)) if name == "users"));
    assert_eq!(registry.register("users", Backend::new("u1", at(1))).unwrap(), Registration::Added);
    assert!(matches!(registry.register("x", Backend::new("u1", at(1))), Err(Error::NoPool(name)) if name == "x"));
    let any = Context::new();
    assert_eq!(registry.pick("users", &any).unwrap().address(), at(1));
    assert_eq!(registry.pick("orders", &any).unwrap_err(), PickError::NoneAvailable);
    assert_eq!(registry.pick("x", &any).unwrap_err(), PickError::NoPool);
    let names: Vec<String> = registry.pools().iter().map(|pool| pool.name().to_owned()).collect();
    assert_eq!(names, ["orders", "users"]);
    registry.deregister("users", "u1").unwrap();
    assert!(matches!(registry.deregister("users", "u1"), Err(Error::NoBackend(_))));
    assert!(registry.remove("users").is_some() && registry.get("users").is_none());
}

#[test]
fn many_threads_pick_while_backends_come_and_go() {
    let pool = pool_of(&["a", "b"]).algorithm(Algorithm::LeastConnections).build().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    pool.pick(&Context::new()).expect("two are always there").success();
                }
            });
        }
        for round in 0..200 {
            pool.register(Backend::new("c", at(9)).weight(round % 5)).unwrap();
            if round % 3 == 0 {
                assert!(pool.deregister("c"));
            }
        }
        done.store(true, SeqCst);
    });
    assert!(pool.backends().iter().all(|backend| backend.in_flight == 0));
}
