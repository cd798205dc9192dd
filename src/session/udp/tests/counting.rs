//! What sessions come to in the tallies of their listener, their pool and their backends, and what breakers learn of it.

use super::*;
use crate::guard::{BreakerRules, BreakerState, Outcome};

const MS: u64 = 1_000_000;

impl House {
    fn listener(&self) -> Sum {
        self.snapshot.listeners[0].tallies.sum()
    }

    fn pool(&self) -> Sum {
        self.snapshot.pools[0].tallies.sum()
    }

    fn at(&self, place: usize) -> Sum {
        self.snapshot.pools[0].backends[place].state.tallies.sum()
    }

    fn state(&self, place: usize) -> &BackendState {
        &self.snapshot.pools[0].backends[place].state
    }

    fn breaks(mut self, failures: u32, timeout: u64) -> House {
        let timeout = Duration::from_millis(timeout);
        self.snapshot.pools[0].breaker = Some(BreakerRules { failures, successes: 1, timeout });
        self
    }

    fn breaker(&self, place: usize) -> BreakerState {
        self.state(place).breaker.state(self.now)
    }

    /// Some time goes by for the clock alone.
    fn pass(&mut self, nanos: u64) {
        self.net.ends().nanos += nanos;
    }
}

/// Sessions, succeeded, failed, refused, aborted, retries.
fn outcome(sum: &Sum) -> [u64; 6] {
    [sum.sessions, sum.succeeded, sum.failed, sum.refused, sum.aborted, sum.retries]
}

#[test]
fn datagrams_bytes_and_sessions_are_counted_at_all_three() {
    for udp in [Udp::default(), rules(1, 0, false), rules(0, 1, false)] {
        let mut house = House::plain(1, udp);
        house.ask(1, &[b"aaa", b"bbb", b"c"]);
        house.ask(2, &[b"dd"]);
        house.reply(2, backend(1), b"AAAAA", 0);
        house.reply(2, backend(1), b"BBCCD", 2);
        house.reply(3, backend(1), b"E", 0);
        for sum in [house.listener(), house.pool(), house.at(0)] {
            let moved = [sum.datagrams_in, sum.bytes_in, sum.datagrams_out, sum.bytes_out];
            assert_eq!(moved, [4, 9, 5, 11], "{udp:?}: {sum:?}");
            assert_eq!(sum.sessions, if udp.requests == 1 { 4 } else { 2 }, "{udp:?}: {sum:?}");
        }
        house.wait(IDLE + 2);
        for sum in [house.listener(), house.pool(), house.at(0)] {
            assert_eq!((sum.active(), sum.succeeded), (0, sum.sessions), "{udp:?}: {sum:?}");
        }
        house.check_all_back();
    }
}

#[test]
fn a_session_ends_by_what_its_backend_did() {
    // How many replies are asked for, how many come, whether it refuses at last; then succeeded, failed, aborted.
    let rows = [
        ("answered", 0, 1, false, [1, 0, 0]),
        ("silence is no failure where nobody asks for replies", 0, 0, false, [1, 0, 0]),
        ("it is one where replies are asked for", 1, 0, false, [0, 1, 0]),
        ("some are as good as all", 2, 1, false, [1, 0, 0]),
        ("refused", 0, 0, true, [0, 1, 0]),
        ("refused at last", 0, 1, true, [0, 1, 0]),
    ];
    for (why, responses, replies, refuses, expected) in rows {
        let mut house = House::plain(1, rules(responses, 0, false));
        house.ask(1, &[b"q"]);
        for sum in [house.listener(), house.pool(), house.at(0)] {
            assert_eq!((sum.sessions, sum.active()), (1, 1), "{why}: {sum:?}");
        }
        (0..replies).for_each(|_| house.reply(2, backend(1), b"r", 0));
        if refuses {
            house.net.ends().fail(2, libc::ECONNREFUSED);
            house.settle();
        }
        house.wait(IDLE + 2);
        for sum in [house.listener(), house.pool(), house.at(0)] {
            assert_eq!([sum.succeeded, sum.failed, sum.aborted], expected, "{why}: {sum:?}");
        }
        house.check_all_back();
    }
    for (responses, expected) in [(0, [1, 0, 0]), (1, [0, 0, 1])] {
        let mut house = House::plain(1, rules(responses, 0, false));
        house.ask(1, &[b"q"]);
        house.flows.drain(house.now);
        house.wait(IDLE);
        let sum = house.pool();
        assert_eq!([sum.succeeded, sum.failed, sum.aborted], expected, "a drain leaves no time to answer: {responses}");
    }
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"q"]);
    house.with(|flows, cx| flows.cut_all(cx));
    assert_eq!(outcome(&house.at(0)), [1, 0, 0, 0, 1, 0], "cut by us");
    house.check_all_back();
}

#[test]
fn what_cannot_begin_is_refused_and_whose_fault_it_is() {
    // What the listener and the pool count for three datagrams of one client that come to nothing.
    type Row = (&'static str, fn(&mut House), [u64; 6], [u64; 6]);
    let rows: [Row; 6] = [
        ("a limit", |house| house.process = Cap::new(1), [3, 0, 0, 3, 0, 0], [0; 6]),
        ("a drain", |house| house.flows.drain(house.now), [3, 0, 0, 3, 0, 0], [0; 6]),
        (
            "nobody there",
            |house| house.snapshot.pools[0].primaries = Arc::default(),
            [3, 0, 0, 3, 0, 0],
            [3, 0, 0, 3, 0, 0],
        ),
        (
            "no way to any backend",
            |house| (1..=2).for_each(|n| house.net.ends().unreachable.push((backend(n), libc::ENETUNREACH))),
            [3, 0, 3, 0, 0, 1],
            [3, 0, 3, 0, 0, 1],
        ),
        (
            "a shortage",
            |house| (1..=2).for_each(|n| house.net.ends().unreachable.push((backend(n), libc::EMFILE))),
            [3, 0, 0, 0, 3, 0],
            [3, 0, 0, 0, 3, 0],
        ),
        ("nothing is wrong", |_| {}, [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
    ];
    for (why, breaks, listener, pool) in rows {
        let mut house = House::plain(2, Udp::default());
        // One who lives already, and takes the only place.
        house.ask(9, &[b"x"]);
        let before = (house.listener(), house.pool());
        assert_eq!((before.0.sessions, before.1.sessions), (1, 1));
        breaks(&mut house);
        let held = (why == "a limit").then(|| house.process.take().unwrap());
        house.ask(1, &[b"aa", b"bb", b"c"]);
        let since = |now: Sum, was: Sum| {
            let (now, was) = (outcome(&now), outcome(&was));
            std::array::from_fn::<u64, 6, _>(|at| now[at] - was[at])
        };
        assert_eq!(since(house.listener(), before.0), listener, "{why}");
        assert_eq!(since(house.pool(), before.1), pool, "{why}");
        drop(held);
    }
}

#[test]
fn a_session_that_moves_is_a_failed_try_here_and_a_new_one_there() {
    let mut house = House::plain(2, Udp::default());
    house.ask(1, &[b"a"]);
    house.net.ends().get(2).pending = Some(libc::ECONNREFUSED);
    house.ask(1, &[b"b"]);
    house.reply(3, backend(2), b"r", 0);
    assert_eq!(outcome(&house.at(0)), [1, 0, 1, 0, 0, 1], "who failed");
    house.wait(IDLE + 2);
    assert_eq!(outcome(&house.at(1)), [1, 1, 0, 0, 0, 0], "who served");
    for sum in [house.listener(), house.pool()] {
        assert_eq!(outcome(&sum), [1, 1, 0, 0, 0, 1], "one session, and served: {sum:?}");
    }
    house.check_all_back();
}

#[test]
fn where_each_datagram_is_a_session_each_comes_to_its_own_end() {
    let mut house = House::plain(2, rules(0, 1, false));
    house.ask(1, &[b"a", b"b"]);
    assert_eq!(house.pool().active(), 2);
    house.reply(2, backend(1), b"r", 0);
    assert_eq!((house.pool().active(), house.at(0).succeeded), (1, 1), "answered");
    house.net.ends().fail_to(2, backend(2), libc::ECONNREFUSED);
    house.settle();
    assert_eq!((house.pool().active(), house.at(1).failed), (0, 1), "refused");
    house.ask(1, &[b"c", b"d"]);
    assert_eq!(house.pool().active(), 1, "one goes where the last one went");
    assert_eq!(outcome(&house.at(0)), [3, 2, 0, 0, 0, 0], "the other has taken nothing since it refused");
    house.wait(IDLE + 2);
    assert_eq!(outcome(&house.listener()), [4, 3, 1, 0, 0, 0]);
    house.check_all_back();
}

#[test]
fn latency_is_the_time_to_the_first_reply() {
    for requests in [0, 1] {
        let mut house = House::plain(1, rules(0, requests, false));
        house.ask(1, &[b"a"]);
        house.pass(3 * MS);
        house.reply(2, backend(1), b"r", 0);
        house.pass(50 * MS);
        house.reply(2, backend(1), b"s", 0);
        for sum in [house.listener(), house.pool(), house.at(0)] {
            assert_eq!((sum.latency_nanos, sum.latencies), (3 * MS, 1), "{requests}: {sum:?}");
        }
        let expected = house.state(0).estimate.expected(0, house.now.0);
        assert!((expected / 3e6 - 1.0).abs() < 0.01, "{requests}: {expected} ns");
    }
    // One that is sent on: the backend's time is its own, the session's is the whole.
    let mut house = House::plain(2, Udp::default());
    house.ask(1, &[b"a"]);
    house.pass(10 * MS);
    house.net.ends().get(2).pending = Some(libc::ECONNREFUSED);
    house.ask(1, &[b"b"]);
    house.pass(2 * MS);
    house.reply(3, backend(2), b"r", 0);
    assert_eq!((house.at(1).latency_nanos, house.pool().latency_nanos), (2 * MS, 12 * MS));
    assert_eq!((house.at(0).latencies, house.pool().latencies), (0, 1));
}

#[test]
fn who_fails_or_never_answers_never_looks_fast() {
    let slow = |house: &House| house.state(0).estimate.expected(0, house.now.0) > 50e6;
    type Row = (&'static str, Udp, fn(&mut House));
    let rows: [Row; 5] = [
        ("refuses", rules(0, 0, false), |house| house.net.ends().fail(2, libc::ECONNREFUSED)),
        ("refuses one", rules(0, 1, false), |house| house.net.ends().fail_to(2, backend(1), libc::ECONNREFUSED)),
        ("owes a reply", rules(1, 0, false), |house| house.wait(IDLE + 2)),
        ("never answers, one by one", rules(0, 1, false), |house| {
            house.wait(1_000);
            house.ask(1, &[b"b"]);
        }),
        ("cannot be reached", rules(0, 0, false), |house| {
            house.net.ends().unreachable.push((backend(1), libc::ENETUNREACH));
            house.ask(2, &[b"b"]);
        }),
    ];
    for (why, udp, fails) in rows {
        let mut house = House::plain(1, udp);
        house.ask(1, &[b"a"]);
        assert!(!slow(&house), "{why}");
        fails(&mut house);
        house.settle();
        assert!(slow(&house), "{why}");
    }
}

#[test]
fn the_fastest_gets_nearly_all_and_one_that_is_fast_again_its_share() {
    for requests in [0, 1] {
        let mut house = House::plain(3, rules(0, requests, false));
        let backends = std::mem::take(&mut house.snapshot.pools[0].backends);
        let udp = house.snapshot.pools[0].udp;
        house.snapshot.pools[0] = Pool { udp, ..Pool::over(Algorithm::FastestResponse, backends) };
        let mut clients = 0;
        // How many of so many questions, each of a client of its own, go to the first backend, which takes so long.
        let mut round = |house: &mut House, questions: usize, took: u64| {
            let before = house.at(0).sessions;
            for _ in 0..questions {
                clients += 1;
                let from = SocketAddr::new(IpAddr::from([10, 9, 0, 0]), clients);
                house.net.ends().arrive(0, Incoming { from, to: None, bytes: b"q".to_vec(), segment: 0 });
                house.settle();
                let socket = house.net.ends().len() - 1;
                let to = house.net.ends().get(socket).sent[0].to;
                house.pass(if to == backend(1) { took } else { MS });
                house.reply(socket, to, b"r", 0);
                house.wait(10);
            }
            house.at(0).sessions - before
        };
        assert!(round(&mut house, 20, 50 * MS) >= 1, "it was tried");
        let few = round(&mut house, 500, 50 * MS);
        assert!(few < 25, "{few} of 500, with udp_requests = {requests}");
        // What it was once is forgotten with time.
        house.wait(60_000);
        let fair = round(&mut house, 2_000, MS / 2);
        assert!(fair > 500, "{fair} of 2000, with udp_requests = {requests}");
    }
}

#[test]
fn refusals_open_a_breaker_and_a_good_trial_closes_it() {
    for requests in [0, 1] {
        let mut house = House::plain(1, rules(0, requests, true)).breaks(3, 100);
        let refuse = |house: &mut House| {
            house.ask(1, &[b"x"]);
            match requests {
                0 => house.net.ends().fail(2, libc::ECONNREFUSED),
                _ => house.net.ends().fail_to(2, backend(1), libc::ECONNREFUSED),
            }
            house.settle();
        };
        refuse(&mut house);
        refuse(&mut house);
        assert_eq!(house.breaker(0), BreakerState::Closed, "two of three, with udp_requests = {requests}");
        house.ask(1, &[b"x"]);
        house.reply(2, backend(1), b"r", 0);
        refuse(&mut house);
        refuse(&mut house);
        assert_eq!(house.breaker(0), BreakerState::Closed, "an answer in between forgets those before");
        refuse(&mut house);
        assert_eq!(house.breaker(0), BreakerState::Open, "three in a row, with udp_requests = {requests}");
        house.ask(2, &[b"y"]);
        assert_eq!(house.totals().udp_no_backend, 1, "nobody begins there");
        house.wait(200);
        house.ask(3, &[b"z"]);
        house.ask(4, &[b"z"]);
        assert_eq!((house.breaker(0), house.totals().udp_no_backend), (BreakerState::HalfOpen, 2), "one tries");
        let last = house.net.ends().len() - 1;
        house.reply(last, backend(1), b"r", 0);
        assert_eq!(house.breaker(0), BreakerState::Closed, "with udp_requests = {requests}");
        house.ask(4, &[b"z"]);
        house.wait(IDLE * 2);
        house.wait(IDLE * 2);
        house.check_all_back();
    }
}

#[test]
fn a_trial_ends_though_nobody_answers() {
    // Replies asked for, datagrams to a session; how long the client goes on without an answer, and what comes of it.
    let rows = [
        ("nobody asks for replies: not refused is good", 0, 0, 5_000, BreakerState::Closed),
        ("the same one by one", 0, 1, 5_000, BreakerState::Closed),
        ("too early to say", 0, 0, 500, BreakerState::HalfOpen),
        ("too early to say, one by one", 0, 1, 500, BreakerState::HalfOpen),
        ("replies are asked for: it is late, not lost yet", 1, 0, 5_000, BreakerState::HalfOpen),
        ("it has failed", 1, 0, IDLE + 5_000, BreakerState::Open),
    ];
    for (why, responses, requests, patience, expected) in rows {
        let mut house = House::plain(1, rules(responses, requests, true)).breaks(1, 60_000);
        house.state(0).breaker.tell(Outcome::Failure, house.snapshot.pools[0].breaker.unwrap(), house.now);
        assert_eq!(house.breaker(0), BreakerState::Open);
        house.wait(60_001);
        for _ in 0..patience / 100 {
            house.ask(1, &[b"x"]);
            house.wait(100);
        }
        assert_eq!(house.breaker(0), expected, "{why}");
    }
    // A client that leaves after its only datagram blocks nobody for long.
    let mut house = House::plain(1, rules(0, 1, false)).breaks(1, 60_000);
    house.state(0).breaker.tell(Outcome::Failure, house.snapshot.pools[0].breaker.unwrap(), house.now);
    house.wait(60_001);
    house.ask(1, &[b"x"]);
    house.wait(LOOK + 1);
    assert_eq!(house.breaker(0), BreakerState::Closed, "an event is not waited for");
    house.wait(IDLE);
    house.check_all_back();
}

#[test]
fn silence_opens_a_breaker_where_replies_are_asked_for() {
    let mut house = House::plain(1, rules(1, 0, false)).breaks(3, 60_000);
    (1..=3).for_each(|n| house.ask(n, &[b"x"]));
    house.wait(IDLE - 1_000);
    assert_eq!(house.breaker(0), BreakerState::Closed);
    house.wait(2_000);
    assert_eq!(house.breaker(0), BreakerState::Open);
    assert!(!house.state(0).is_aside(house.now), "a lost datagram is no reason to move others");
    house.check_all_back();
}
