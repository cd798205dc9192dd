//! Backends that refuse, ways that are closed, and where datagrams go then.

use super::*;
use crate::balance::{Picker, Rota};

#[test]
fn one_request_a_session_leaves_out_who_refused() {
    let mut house = House::plain(2, rules(0, 1, false));
    house.ask(1, &[b"a", b"b"]);
    house.net.ends().fail_to(2, backend(1), libc::ECONNREFUSED);
    house.settle();
    assert!(house.snapshot.pools[0].backends[0].state.is_aside(house.now), "told to a read");
    house.ask(1, &[b"c"]);
    assert_eq!(house.sent(2)[2], one(backend(2), "c"));
    let end = house.net.ends().get(2).sent.len();
    house.net.ends().get(2).failures.push_back((client(9), libc::ECONNREFUSED));
    house.net.ends().get(2).pending = Some(libc::ECONNREFUSED);
    house.ask(1, &[b"d"]);
    assert_eq!(house.sent(2)[end..], [one(backend(2), "d")], "told to a send, which is made again");
    assert!(!house.snapshot.pools[0].backends[1].state.is_aside(house.now), "of somebody else");
    assert_eq!(house.totals().udp_refused, 0);
    house.check_counts();
}

#[test]
fn a_refused_datagram_is_sent_again_once() {
    let rows = [
        ("another backend takes it", 2, false, vec![(3, "b")], 0),
        ("no other: the same again", 1, false, vec![(2, "b")], 0),
        ("told to stay: the same again", 2, true, vec![(2, "b")], 0),
    ];
    for (why, backends, keep, expected, dropped) in rows {
        let mut house = House::plain(backends, rules(0, 0, keep));
        house.ask(1, &[b"a"]);
        house.net.ends().get(2).pending = Some(libc::ECONNREFUSED);
        house.ask(1, &[b"b"]);
        for (socket, text) in expected {
            assert_eq!(house.sent(socket).last().unwrap().1, [text], "{why}");
        }
        assert!(house.snapshot.pools[0].backends[0].state.is_aside(house.now), "{why}: evidence");
        assert_eq!((house.totals().udp_refused, house.totals().failed), (dropped, 1), "{why}");
        assert_eq!(house.totals().udp_forwarded, 2, "{why}");
        house.check_counts();
        house.wait(IDLE + 2);
        house.check_all_back();
    }
}

#[test]
fn a_refusal_told_to_a_read_moves_the_next_datagram() {
    let mut house = House::plain(2, Udp::default());
    house.ask(1, &[b"a"]);
    house.net.ends().arrive(2, Incoming { from: backend(1), to: None, bytes: b"r".to_vec(), segment: 0 });
    house.net.ends().fail(2, libc::ECONNREFUSED);
    house.settle();
    assert_eq!(house.totals().udp_out, 1, "what came before is delivered");
    assert!(!house.snapshot.pools[0].backends[0].state.is_aside(house.now), "and clears the mark");
    house.net.ends().fail(2, libc::ECONNREFUSED);
    house.settle();
    house.wait(5_000);
    house.ask(1, &[b"b"]);
    assert_eq!(house.sent(3), [one(backend(2), "b")]);
    assert!(house.net.ends().get(2).closed, "and the old socket is closed");
}

#[test]
fn sessions_leave_a_backend_that_is_set_aside_only_for_a_better_one() {
    for (why, also_down, keep, moves) in
        [("another is up", false, false, true), ("none is", true, false, false), ("told to stay", false, true, false)]
    {
        let mut house = House::plain(2, rules(0, 0, keep));
        house.ask(1, &[b"a"]);
        let backends = &house.snapshot.pools[0].backends;
        backends[0].state.failed(house.now);
        if also_down {
            backends[1].state.failed(house.now);
        }
        house.ask(1, &[b"b"]);
        assert_eq!(house.opened() == 2, moves, "{why}");
        assert_eq!(house.totals().udp_moved, u64::from(moves), "{why}");
    }
}

#[test]
fn a_name_with_several_addresses_is_tried_in_order_before_its_backend_is_set_aside() {
    let mut house = House::new(0, Whims::default(), &[&[backend(1), backend(2)], &[backend(3)]], Udp::default());
    house.ask(1, &[b"a"]);
    house.net.ends().fail(2, libc::ECONNREFUSED);
    house.settle();
    assert!(!house.snapshot.pools[0].backends[0].state.is_aside(house.now));
    house.ask(1, &[b"b"]);
    assert_eq!(house.sent(3), [one(backend(2), "b")], "the next address of the same backend");
    house.ask(2, &[b"x"]);
    house.ask(3, &[b"c"]);
    assert_eq!(house.sent(5), [one(backend(2), "c")], "which a new session begins with");
    house.net.ends().fail(3, libc::ECONNREFUSED);
    house.ask(1, &[b"d"]);
    assert!(house.snapshot.pools[0].backends[0].state.is_aside(house.now), "both have refused");
    assert_eq!(house.sent(6), [one(backend(3), "d")]);
    // An address to which there is no way is passed over at once.
    let mut house = House::new(0, Whims::default(), &[&[backend(1), backend(2)]], Udp::default());
    house.net.ends().unreachable.push((backend(1), libc::ENETUNREACH));
    house.ask(1, &[b"a"]);
    assert_eq!(house.sent(2), [one(backend(2), "a")]);
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted() {
    type Counter = fn(&Totals) -> u64;
    let rows: [(&str, Option<i32>, usize, Counter); 5] = [
        ("too long", None, 0, |t| t.udp_too_big),
        ("no memory", Some(libc::ENOBUFS), 65_507, |t| t.udp_failed),
        ("forbidden here", Some(libc::EPERM), 65_507, |t| t.udp_failed),
        ("no room", Some(libc::EAGAIN), 65_507, |t| t.udp_would_block),
        ("old news of a way that takes less: it went out", Some(libc::EMSGSIZE), 65_507, |t| t.udp_forwarded - 1),
    ];
    for (why, pending, longest, counter) in rows {
        let mut house = House::plain(2, Udp::default());
        house.ask(1, &[b"a"]);
        house.net.ends().get(2).pending = pending;
        house.net.ends().get(2).longest = longest;
        house.ask(1, &[b"b"]);
        assert_eq!(counter(&house.totals()), 1, "{why}");
        assert!(!house.snapshot.pools[0].backends[0].state.is_aside(house.now), "{why}: no evidence");
        house.check_counts();
    }
    let mut house = House::plain(1, Udp::default());
    house.net.ends().unreachable.push((backend(1), libc::EMFILE));
    house.ask(1, &[b"a"]);
    assert_eq!((house.totals().udp_failed, house.totals().failed), (1, 0), "out of descriptors");
    house.check_all_back();
}

#[test]
fn errors_of_the_listening_socket_leave_it_open() {
    let mut house = House::plain(1, Udp::default());
    house.ask(1, &[b"a"]);
    for errno in [libc::ECONNREFUSED, libc::ENOMEM, libc::EPERM] {
        house.net.ends().fail(0, errno);
        house.settle();
        house.reply(2, backend(1), b"r", 0);
        house.net.ends().get(0).pending = Some(errno);
        house.net.ends().arrive(2, Incoming { from: backend(1), to: None, bytes: b"lost".to_vec(), segment: 0 });
        house.settle();
    }
    assert_eq!((house.totals().udp_out, house.totals().udp_reply_failed), (3, 3));
    house.ask(1, &[b"b"]);
    assert_eq!(house.sent(2).len(), 2);
    house.check_counts();
}

#[test]
fn a_session_whose_backend_is_gone_keeps_trying() {
    let mut house = House::plain(2, Udp::default());
    house.ask(1, &[b"a"]);
    house.snapshot.generation = 2;
    house.snapshot.pools[0].backends.remove(0);
    house.snapshot.pools[0].primaries = Arc::default();
    house.ask(1, &[b"b"]);
    assert_eq!(house.totals().udp_no_backend, 1, "nothing more goes to one that is gone");
    assert_eq!(house.flows.len(), 1);
    house.snapshot.pools[0].primaries = Arc::new(Picker::Rota(Rota::in_turn(vec![0])));
    house.ask(1, &[b"c"]);
    assert_eq!(house.sent(3), [one(backend(2), "c")]);
    house.check_counts();
}
