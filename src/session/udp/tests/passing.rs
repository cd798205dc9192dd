//! How datagrams pass: to whom, by how many calls, as runs and trains.

use super::*;

#[test]
fn a_client_has_one_backend_and_its_replies_are_its_own() {
    let mut house = House::plain(2, Udp::default());
    house.ask(1, &[b"a"]);
    house.ask(2, &[b"b"]);
    house.ask(1, &[b"c"]);
    assert_eq!(house.sent(2), [one(backend(1), "a"), one(backend(1), "c")]);
    assert_eq!(house.sent(3), [one(backend(2), "b")]);
    house.reply(3, backend(2), b"B", 0);
    house.reply(2, backend(1), b"A", 0);
    assert_eq!(house.sent(0), [one(client(2), "B"), one(client(1), "A")]);
    assert_eq!((house.totals().udp_sessions, house.flows.len()), (2, 2));
    house.wait(IDLE + 2);
    house.check_counts();
    house.check_all_back();
}

#[test]
fn behind_a_wildcard_each_local_address_is_answered_from() {
    let mut house = House::plain(1, Udp::default());
    let locals: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
    for local in locals {
        house.net.ends().arrive(1, Incoming { from: client(1), to: Some(local), bytes: vec![1], segment: 0 });
    }
    house.settle();
    assert_eq!(house.flows.len(), 2, "one client, two sessions");
    house.reply(3, backend(1), b"second", 0);
    house.reply(2, backend(1), b"first", 0);
    let sources: Vec<_> = house.net.ends().get(1).sent.iter().map(|sent| sent.source).collect();
    assert_eq!(sources, [Some(locals[1]), Some(locals[0])]);
}

#[test]
fn a_turn_gathers_replies_into_one_call_and_runs_into_trains() {
    let mut house = House::plain(1, Udp::default());
    for n in 1..=20 {
        house.ask(n, &[b"q"]);
    }
    for socket in 2..22 {
        for text in [&b"aa"[..], b"bb", b"c", b"dd"] {
            let what = Incoming { from: backend(1), to: None, bytes: text.to_vec(), segment: 0 };
            house.net.ends().arrive(socket, what);
        }
    }
    // 80 replies: more than the slots of one turn, so that they leave by two calls.
    house.settle();
    assert_eq!(house.net.ends().get(0).calls.1, 2);
    let sent = house.sent(0);
    assert_eq!(sent.len(), 40, "a short one ends a train");
    assert!(sent.iter().step_by(2).all(|(_, datagrams)| datagrams == &["aa", "bb", "c"]), "{sent:?}");
    assert_eq!(house.totals().udp_out, 80);
}

#[test]
fn runs_and_trains_go_on_as_they_are() {
    type Row = (&'static str, &'static [&'static [u8]], &'static [&'static [&'static str]]);
    let rows: &[Row] = &[
        ("one", &[b"a"], &[&["a"]]),
        ("of one size: a train", &[b"aa", b"bb", b"cc"], &[&["aa", "bb", "cc"]]),
        ("the last may be shorter", &[b"aa", b"b"], &[&["aa", "b"]]),
        ("and is the last", &[b"aa", b"b", b"c"], &[&["aa", "b"], &["c"]]),
        ("a longer one begins anew", &[b"a", b"bb", b"cc"], &[&["a"], &["bb", "cc"]]),
        ("an empty one goes alone", &[b"a", b"", b"b"], &[&["a"], &[""], &["b"]]),
    ];
    for (why, datagrams, expected) in rows {
        let mut house = House::plain(1, Udp::default());
        house.ask(1, datagrams);
        let sent: Vec<Vec<String>> = house.sent(2).into_iter().map(|(_, datagrams)| datagrams).collect();
        assert_eq!(sent, *expected, "{why}");
        house.check_counts();
    }
    let mut house = House::plain(1, Udp::default());
    house.train(1, b"aabbc", 2);
    assert_eq!(house.sent(2)[0].1, ["aa", "bb", "c"], "a train is passed on as one");
    house.reply(2, backend(1), b"xxyyz", 2);
    assert_eq!(house.sent(0)[0].1, ["xx", "yy", "z"], "and so is one that comes back");
    house.train(1, &[7; 200], 1);
    let lens: Vec<usize> = house.sent(2)[1..].iter().map(|(_, datagrams)| datagrams.len()).collect();
    assert_eq!(lens, [64, 64, 64, 8], "longer than the kernel takes");
    house.reply(2, backend(1), &[7; 200], 1);
    assert_eq!(house.totals().udp_out, 203);
    house.check_counts();
}

#[test]
fn where_trains_are_refused_datagrams_go_one_by_one_from_then_on() {
    for errno in [libc::EINVAL, libc::EIO, libc::EMSGSIZE] {
        let mut house = House::plain(1, Udp::default());
        house.ask(1, &[b"q"]);
        house.net.ends().get(2).no_trains = Some(errno);
        house.net.ends().get(0).no_trains = Some(errno);
        house.ask(1, &[b"aa", b"bb", b"c"]);
        house.train(1, b"ddeef", 2);
        let sent: Vec<String> = house.sent(2).into_iter().flat_map(|(_, datagrams)| datagrams).collect();
        assert_eq!(sent, ["q", "aa", "bb", "c", "dd", "ee", "f"]);
        assert_eq!(house.sent(2).len(), 7, "one by one");
        assert_eq!(house.net.ends().get(2).calls.1, 8, "a train was tried once");
        for text in [&b"AA"[..], b"BB"] {
            let what = Incoming { from: backend(1), to: None, bytes: text.to_vec(), segment: 0 };
            house.net.ends().arrive(2, what);
        }
        house.settle();
        house.reply(2, backend(1), b"CCDDE", 2);
        let back: Vec<String> = house.sent(0).into_iter().flat_map(|(_, datagrams)| datagrams).collect();
        assert_eq!(back, ["AA", "BB", "CC", "DD", "E"], "errno {errno}");
        house.check_counts();
    }
}

#[test]
fn empty_datagrams_go_on_where_there_is_a_session_and_begin_none() {
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b""]);
    assert_eq!((house.flows.len(), house.totals().udp_empty), (0, 1));
    house.ask(1, &[b"a", b""]);
    assert_eq!(house.sent(2).len(), 2);
    house.reply(2, backend(1), b"", 0);
    assert_eq!(house.sent(0), [one(client(1), "")]);
    house.check_counts();
}

#[test]
fn what_came_truncated_goes_no_further() {
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a", &[0; 70_000]]);
    house.reply(2, backend(1), &[0; 70_000], 0);
    let totals = house.totals();
    assert_eq!((totals.udp_truncated, totals.udp_reply_truncated, totals.udp_forwarded), (1, 1, 1));
    house.check_counts();
}

#[test]
fn work_on_a_turn_is_bounded_and_nobody_is_forgotten() {
    let mut house = House::plain(1, Udp::default());
    for _ in 0..1_000 {
        let what = Incoming { from: client(1), to: None, bytes: b"x".to_vec(), segment: 0 };
        house.net.ends().arrive(0, what);
    }
    house.turn();
    assert_eq!((house.totals().udp_forwarded, house.flows.ready()), (256, 1));
    house.settle();
    assert_eq!(house.totals().udp_forwarded, 1_000);
    for _ in 0..1_000 {
        let what = Incoming { from: backend(1), to: None, bytes: b"x".to_vec(), segment: 0 };
        house.net.ends().arrive(2, what);
    }
    house.turn();
    assert!(house.totals().udp_out < 200 && house.flows.ready() == 1);
    house.settle();
    assert_eq!(house.totals().udp_out, 1_000);
}
