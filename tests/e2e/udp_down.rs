//! A backend that dies: the kernel answers "port unreachable", and its sessions go elsewhere, or wait for it.

use std::time::{Duration, Instant};

use crate::support::udp::{Counting, Datagrams, Mortal, dial};
use crate::support::{L4lb, Setup, note, proc, wait_until};

/// How long an answer may take before its question counts as lost. Answers come in well under a millisecond.
const ANSWER: Duration = Duration::from_millis(500);

fn over(backends: &[Mortal]) -> Setup {
    backends.iter().fold(Setup { protocol: "udp", ..Setup::new() }, |setup, backend| setup.backend(backend.addr))
}

/// Who answers `n` questions, one after the other; `-` for one that is lost.
fn answers(client: &mut Counting, n: usize) -> String {
    (0..n).map(|_| client.who_within(ANSWER).unwrap_or('-')).collect()
}

fn assert_no_spin(lb: &L4lb) {
    let cpu = proc::cpu_time_over(lb.pid(), Duration::from_secs(1));
    assert!(cpu < Duration::from_millis(100), "{cpu:?} of CPU time in a second in which nothing happens");
}

#[test]
fn a_client_whose_backend_dies_is_served_by_another_and_loses_what_was_in_flight() {
    let rows = [
        ("as it is without a word", "", 1),
        ("reselect", "udp_on_down = \"reselect\"", 1),
        ("a session for each reply", "udp_responses = 1", 1),
        ("a session for three datagrams", "udp_requests = 3", 1),
        // the dead one may get another try when the pause over the lost one was long
        ("a session for each datagram", "udp_requests = 1", 2),
    ];
    for (why, pool, may_be_lost) in rows {
        for workers in [1, 2] {
            let why = format!("{why}, {workers} worker(s)");
            let mut backends = ['a', 'b'].map(Mortal::new);
            let global = format!("workers = {workers}");
            let lb = over(&backends).global(&global).listener("idle_timeout = \"1h\"").pool(pool).start();
            let mut client = Counting::new(lb.addr());
            assert_eq!(client.who_within(ANSWER), Some('a'), "{why}");
            backends[0].kill();
            let told = answers(&mut client, 20);
            let lost = told.chars().filter(|name| *name == '-').count();
            assert!(lost <= may_be_lost, "{why}: {lost} datagrams of 20 were lost one after the other: {told}");
            assert!(told.ends_with("bbbbbbbbbb"), "{why}: {told}");
            // and it gets its share again
            backends[0].come_back();
            wait_until("the one that is back is used again", || {
                let mut another = Counting::new(lb.addr());
                another.who_within(ANSWER) == Some('a')
            });
        }
    }
}

#[test]
fn of_many_sessions_all_that_were_with_the_dead_one_move_and_the_others_stay() {
    let mut backends = ['a', 'b', 'c'].map(Mortal::new);
    let lb = over(&backends).listener("idle_timeout = \"1h\"").start();
    let mut clients: Vec<_> = (0..30).map(|_| Counting::new(lb.addr())).collect();
    let before: String = clients.iter_mut().map(|client| answers(client, 1)).collect();
    assert_eq!(before, "abc".repeat(10));
    backends[1].kill();
    let mut lost = 0;
    for (client, before) in clients.iter_mut().zip(before.chars()) {
        let told = answers(client, 4);
        let answered: Vec<_> = told.chars().filter(|name| *name != '-').collect();
        lost += 4 - answered.len();
        assert!(answered.len() >= 3, "a client of {before} lost more than the one in flight: {told}");
        assert!(answered.iter().all(|name| *name == answered[0]), "a client of {before} was moved about: {told}");
        match before {
            'b' => assert_ne!(answered[0], 'b', "nobody answers there"),
            stays => assert_eq!(told, stays.to_string().repeat(4), "a client of another backend was touched"),
        }
    }
    note(&format!("UDP, a backend killed under 10 idle sessions: {lost} datagrams lost"));
}

#[test]
fn with_keep_a_session_stays_with_its_dead_backend_and_works_again_once_it_is_back() {
    let mut backends = ['a', 'b'].map(Mortal::new);
    let lb = over(&backends).listener("idle_timeout = \"1h\"").pool("udp_on_down = \"keep\"").start();
    let mut client = Counting::new(lb.addr());
    assert_eq!(client.who_within(ANSWER), Some('a'));
    backends[0].kill();
    for _ in 0..10 {
        assert_eq!(client.who_within(ANSWER / 10), None, "it must not go to another one");
    }
    assert_eq!(backends[1].received(), 0);
    let mut other = Counting::new(lb.addr());
    assert_eq!(answers(&mut other, 5), "bbbbb", "a new session goes where somebody is");
    assert_no_spin(&lb);
    backends[0].come_back();
    let since = Instant::now();
    wait_until("it works again", || client.who_within(ANSWER) == Some('a'));
    assert!(since.elapsed() < Duration::from_secs(5), "only after {:?}", since.elapsed());
    assert_eq!(answers(&mut client, 5), "aaaaa");
    assert_eq!(answers(&mut other, 5), "bbbbb");
}

#[test]
fn with_nobody_left_datagrams_are_dropped_and_it_works_again_without_waiting_for_idle() {
    let rows = [
        ("reselect", ""),
        ("keep", "udp_on_down = \"keep\""),
        ("a session for each reply", "udp_responses = 1"),
        ("a session for each datagram", "udp_requests = 1"),
        ("a session for three datagrams", "udp_requests = 3"),
    ];
    for (why, pool) in rows {
        for names in [&['a'][..], &['a', 'b']] {
            let why = format!("{why}, {} backend(s)", names.len());
            let mut backends: Vec<_> = names.iter().copied().map(Mortal::new).collect();
            let mut lb = over(&backends).listener("idle_timeout = \"1h\"").pool(pool).start();
            let mut client = Counting::new(lb.addr());
            assert_eq!(client.who_within(ANSWER), Some('a'), "{why}");
            backends.iter_mut().for_each(Mortal::kill);
            for _ in 0..10 {
                assert_eq!(client.who_within(ANSWER / 10), None, "{why}: nobody is there");
            }
            if names.len() == 1 {
                assert_no_spin(&lb); // it takes a second
            }
            assert!(lb.is_running(), "{why}");
            let warned = lb.log().iter().filter(|line| !line.contains("listener ")).count();
            assert!(warned < 20, "{why}: a line for each datagram, or nearly: {warned}");
            backends[0].come_back();
            let since = Instant::now();
            wait_until("it works again", || client.who_within(ANSWER) == Some('a'));
            let took = since.elapsed();
            assert!(took < Duration::from_secs(5), "{why}: only after {took:?}");
            wait_until("a new client is served", || Counting::new(lb.addr()).who_within(ANSWER) == Some('a'));
        }
    }
}

#[test]
fn it_starts_with_its_backend_dead_and_serves_once_it_is_there() {
    let mut backends = [Mortal::new('a')];
    backends[0].kill();
    let lb = over(&backends).start();
    let mut client = Counting::new(lb.addr());
    for _ in 0..5 {
        assert_eq!(client.who_within(ANSWER / 10), None);
    }
    backends[0].come_back();
    wait_until("it is served", || client.who_within(ANSWER) == Some('a'));
}

#[test]
fn a_dead_backend_does_not_harm_a_listener_that_does_not_use_it() {
    let mut backends = ['a', 'b'].map(Mortal::new);
    let part = |name: &str, backend: &Mortal| {
        format!(
            "[[listener]]\nname = \"{name}\"\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n\
             [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{}\" }}]\n",
            backend.addr
        )
    };
    let toml = format!("[global]\nworkers = 1\n{}{}", part("dead", &backends[0]), part("alive", &backends[1]));
    let lb = L4lb::start(crate::support::l4lb::command(&[]), &toml);
    backends[0].kill();
    let (to_dead, to_alive) = (dial(lb.addr_of("dead")), dial(lb.addr_of("alive")));
    for _ in 0..100 {
        to_dead.say(b"?");
        assert_eq!(to_alive.who(), 'b');
    }
}
