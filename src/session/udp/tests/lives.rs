//! When sessions begin and end, and what they leave behind.

use super::*;

#[test]
fn over_a_limit_the_new_one_is_shed_and_the_others_go_on() {
    type Row = (&'static str, u32, u32, Option<u32>, &'static [u16], usize);
    let rows: [Row; 4] = [
        ("no limit", 0, 0, None, &[1, 2, 3], 3),
        ("the process", 2, 0, None, &[1, 2, 3, 1], 2),
        ("the listener", 0, 2, None, &[1, 2, 3, 2], 2),
        ("one client", 0, 0, Some(1), &[1, 2, 3, 1], 3),
    ];
    for (why, process, own, each, from, expected) in rows {
        let mut house = House::plain(1, Udp::default());
        house.process = Cap::new(process);
        house.snapshot.listeners[0] = listener(own, each);
        for n in from {
            house.ask(*n, &[b"x"]);
        }
        assert_eq!(house.flows.len(), expected, "{why}");
        let totals = house.totals();
        assert_eq!(totals.udp_over_limit as usize, 3 - expected, "{why}");
        house.check_counts();
        house.wait(IDLE + 2);
        house.check_all_back();
    }
    let mut house = House::plain(1, Udp::default());
    house.snapshot.listeners[0] = listener(0, Some(1));
    house.net.ends().arrive(1, Incoming { from: client(1), to: None, bytes: vec![1], segment: 0 });
    house.ask(1, &[b"x"]);
    assert_eq!((house.flows.len(), house.totals().udp_over_limit), (1, 1), "one client at two sockets");
}

#[test]
fn responses_end_a_session_and_without_them_it_lives_by_time_alone() {
    // Datagrams of the client, then replies, then whether the session has ended.
    let rows = [
        ("every one answered", 1, 1, 1, true),
        ("one of two is missing", 1, 2, 1, false),
        ("both answered", 1, 2, 2, true),
        ("two each", 2, 2, 3, false),
        ("two each, all there", 2, 2, 4, true),
        ("none expected: delivered all the same, and it lives on", 0, 1, 3, false),
    ];
    for (why, responses, requests, replies, ended) in rows {
        let mut house = House::plain(1, rules(responses, 0, false));
        for _ in 0..requests {
            house.ask(1, &[b"q"]);
        }
        for _ in 0..replies {
            house.reply(2, backend(1), b"r", 0);
        }
        assert_eq!(house.flows.is_empty(), ended, "{why}");
        assert_eq!(house.totals().udp_out, replies, "{why}");
        house.ask(1, &[b"q"]);
        assert_eq!(house.opened(), if ended { 2 } else { 1 }, "{why}");
    }
    let mut house = House::plain(1, rules(1, 0, false));
    house.train(1, b"aabbc", 2);
    house.reply(2, backend(1), b"xy", 1);
    assert_eq!(house.flows.len(), 1, "datagrams are counted, not trains");
    house.reply(2, backend(1), b"z", 0);
    assert_eq!(house.flows.len(), 0);
}

#[test]
fn after_so_many_requests_the_next_one_begins_anew_and_late_replies_pass() {
    let mut house = House::plain(2, rules(0, 2, false));
    house.ask(1, &[b"a", b"b", b"c"]);
    assert_eq!(house.sent(2)[0].1, ["a", "b"], "within the limit");
    assert_eq!(house.sent(3), [one(backend(2), "c")], "a new pick");
    house.train(1, b"ddeeff", 2);
    assert_eq!(house.sent(3)[1], one(backend(2), "dd"), "a train is split where the limit is");
    assert_eq!(house.sent(4)[0].1, ["ee", "ff"]);
    house.reply(2, backend(1), b"late", 0);
    assert_eq!(house.sent(0), [one(client(1), "late")]);
    assert_eq!((house.flows.len(), house.totals().udp_sessions), (3, 3));
    house.wait(IDLE + 2);
    house.check_counts();
    house.check_all_back();
}

#[test]
fn datagrams_of_a_train_that_was_refused_count_once() {
    let mut house = House::plain(2, rules(1, 5, false));
    house.ask(1, &[b"q"]);
    house.net.ends().get(2).no_trains = Some(libc::EIO);
    house.ask(1, &[b"aa", b"bb", b"cc"]);
    house.reply(2, backend(1), b"rrr", 1);
    assert_eq!(house.flows.len(), 1, "one of four is not answered yet");
    house.ask(1, &[b"d"]);
    assert_eq!(house.opened(), 1, "the fifth");
    house.ask(1, &[b"e"]);
    assert_eq!(house.opened(), 2, "the sixth");
    house.check_counts();
}

#[test]
fn one_request_a_session_goes_by_one_socket_to_each_backend_in_turn() {
    let mut house = House::plain(3, rules(0, 1, false));
    house.ask(1, &[b"aa", b"bb", b"cc", b"dd"]);
    house.train(1, b"eeff", 2);
    let to: Vec<SocketAddr> = house.sent(2).iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [1, 2, 3, 1, 2, 3].map(backend));
    assert_eq!((house.opened(), house.flows.len(), house.totals().udp_sessions), (1, 1, 6));
    house.reply(2, backend(2), b"r", 0);
    house.reply(2, client(9), b"stranger", 0);
    assert_eq!(house.sent(0), [one(client(1), "r")]);
    assert_eq!(house.totals().udp_stranger, 1);
    let leases = house.snapshot.pools[0].backends.iter().map(|backend| backend.state.active.used()).sum::<u32>();
    assert_eq!(leases, 0, "a session of one datagram is over with it");
    house.wait(IDLE + 2);
    house.check_counts();
    house.check_all_back();
}

#[test]
fn any_datagram_keeps_a_session_alive() {
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a"]);
    for _ in 0..3 {
        house.wait(IDLE - 1);
        house.ask(1, &[b"b"]);
        house.wait(IDLE - 1);
        house.reply(2, backend(1), b"r", 0);
    }
    assert_eq!(house.flows.len(), 1);
    for _ in 0..IDLE {
        house.wait(1);
    }
    assert_eq!(house.flows.len(), 1, "not early");
    house.wait(1);
    house.check_all_back();
}

#[test]
fn draining_begins_nothing_and_ends_what_falls_silent() {
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a"]);
    house.ask(2, &[b"a"]);
    house.flows.drain(house.now);
    house.ask(3, &[b"a"]);
    assert_eq!(house.totals().udp_draining, 1);
    for _ in 0..5 {
        house.wait(900);
        house.ask(1, &[b"b"]);
    }
    assert_eq!(house.flows.len(), 1, "one goes on, the other was silent");
    house.wait(1_002);
    house.check_all_back();
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a"]);
    house.flows.drain(house.now);
    house.wait(1_000);
    assert_eq!(house.flows.len(), 1, "not early");
    house.wait(1);
    assert_eq!(house.flows.len(), 0, "and not late, though its entry in the wheel lay further ahead");
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a"]);
    assert_eq!(house.with(|flows, cx| flows.cut_all(cx)), 1);
    house.check_all_back();
}

#[test]
fn a_panic_takes_one_session_down() {
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a"]);
    house.ask(2, &[b"a"]);
    house.net.ends().get(2).panic = true;
    house.reply(2, backend(1), b"r", 0);
    assert_eq!((house.flows.len(), house.totals().panics), (1, 1));
    house.reply(3, backend(1), b"r", 0);
    assert_eq!(house.totals().udp_out, 1);
    house.wait(IDLE + 2);
    house.check_all_back();
}

#[test]
fn a_hundred_thousand_sessions_leave_nothing_behind() {
    let mut house = House::plain(3, Udp::default());
    for round in 0..100u32 {
        for n in 0..1_000u32 {
            let from = SocketAddr::new(IpAddr::from(0x0a00_0000u32.wrapping_add(round * 1_000 + n).to_be_bytes()), 7);
            house.net.ends().arrive(0, Incoming { from, to: None, bytes: b"x".to_vec(), segment: 0 });
        }
        house.settle();
        house.wait(1);
    }
    assert_eq!(house.flows.len(), 100_000);
    house.wait(IDLE + 200);
    house.check_all_back();
    assert!(house.flows.table.capacity() <= SMALL * 2, "{}", house.flows.table.capacity());
    assert!(house.flows.wheel.is_empty());
    house.check_counts();
}
