//! Two workers of two processes over the same scripted sockets.

use super::tests::{House, IDLE, backend, client};
use super::*;
use crate::link::datagram::scripted::{Incoming, ScriptedSocket};
use crate::shared::handing::Carried;
use crate::shared::snapshot::Udp;

/// Another process, of the same configuration, that has the same two listening sockets.
fn heir(old: &House, backends: u16, udp: Udp) -> House {
    let mut house = House::plain(backends, udp);
    let fronts = old.flows.fronts.iter().flatten();
    let fronts = fronts.map(|front| Front::new(ListenerId(0), old.net.pass(&front.socket).unwrap())).collect();
    house.now = Tick(1_000_000);
    house.net = old.net.clone();
    house.flows = Flows::new(old.net.clone(), fronts, house.now);
    house
}

fn freeze(old: &mut House) -> Vec<Carried<ScriptedSocket>> {
    let mut all = Vec::new();
    loop {
        let count = old.stats.cell(0);
        let cx = Context { now: old.now, snapshot: &old.snapshot, process: &old.process, count, worker: WorkerId(0) };
        let some = old.flows.freeze(0, all.len(), cx);
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn adopt(new: &mut House, flows: Vec<Carried<ScriptedSocket>>) -> usize {
    let count = new.stats.cell(0);
    let cx = Context { now: new.now, snapshot: &new.snapshot, process: &new.process, count, worker: WorkerId(0) };
    new.flows.adopt(0, flows, cx)
}

fn say(house: &House, n: u16, bytes: &[u8]) {
    let what = Incoming { from: client(n), to: None, bytes: bytes.to_vec(), segment: 0 };
    house.net.ends().arrive(0, what);
}

#[test]
fn sessions_go_on_at_their_backends_and_nothing_that_comes_meanwhile_is_lost() {
    let mut old = House::plain(3, Udp::default());
    for n in 1..=300 {
        old.ask(n, &[b"before"]);
    }
    let flows = freeze(&mut old);
    assert_eq!(flows.len(), 300);
    // One asks and one is answered while nobody reads.
    say(&old, 7, b"meanwhile");
    old.net.ends().arrive(2, Incoming { from: backend(1), to: None, bytes: b"reply".to_vec(), segment: 0 });
    old.settle();
    assert_eq!((old.sent(8).len(), old.sent(0).len()), (1, 0), "the old one reads no more");
    let mut new = heir(&old, 3, Udp::default());
    assert_eq!(adopt(&mut new, flows), 300);
    let cx = Context {
        now: old.now,
        snapshot: &old.snapshot,
        process: &old.process,
        count: old.stats.cell(0),
        worker: WorkerId(0),
    };
    old.flows.leave(cx, |_| {});
    assert_eq!((old.flows.len(), new.flows.len()), (0, 300));
    let taken = old.snapshot.pools[0].backends.iter().map(|backend| backend.state.active.used()).sum::<u32>();
    assert_eq!((old.process.used(), taken), (0, 0), "all is given back there");
    new.flows.latch_all();
    new.settle();
    assert_eq!(new.sent(8)[1].1, ["meanwhile"], "by the socket that its session always had");
    assert_eq!(new.sent(0), [(client(1), vec!["reply".to_owned()])]);
    for n in 1..=300 {
        new.ask(n, &[b"after"]);
        assert_eq!(new.sent(n as usize + 1).last().unwrap().1, ["after"], "client {n}");
    }
    let used: Vec<u32> = new.snapshot.pools[0].backends.iter().map(|backend| backend.state.active.used()).collect();
    assert_eq!(used, [100, 100, 100], "their places are taken here");
    new.wait(IDLE + 2);
    drop(old);
    new.check_all_back();
}

#[test]
fn what_is_left_of_idle_time_and_what_was_counted_go_along() {
    let udp = Udp { responses: 2, ..Udp::default() };
    let mut old = House::plain(1, udp);
    old.ask(1, &[b"q"]);
    old.ask(2, &[b"q"]);
    old.reply(3, backend(1), b"r", 0);
    old.wait(IDLE - 100);
    let flows = freeze(&mut old);
    let mut new = heir(&old, 1, udp);
    adopt(&mut new, flows);
    new.reply(3, backend(1), b"r", 0);
    assert_eq!(new.flows.len(), 1, "the second of two replies has ended it");
    new.wait(99);
    assert_eq!(new.flows.len(), 1, "not early");
    new.wait(10);
    assert_eq!(new.flows.len(), 0, "not with the whole time once more");
}

#[test]
fn a_thaw_goes_on_with_everything_that_has_come() {
    let mut old = House::plain(2, Udp::default());
    old.ask(1, &[b"before"]);
    let flows = freeze(&mut old);
    say(&old, 1, b"meanwhile");
    say(&old, 2, b"somebody new");
    old.net.ends().arrive(2, Incoming { from: backend(1), to: None, bytes: b"reply".to_vec(), segment: 0 });
    old.settle();
    drop(flows);
    old.flows.thaw();
    old.settle();
    assert_eq!(old.sent(2).iter().flat_map(|(_, texts)| texts).collect::<Vec<_>>(), ["before", "meanwhile"]);
    assert_eq!(old.sent(3)[0].1, ["somebody new"]);
    assert_eq!(old.sent(0), [(client(1), vec!["reply".to_owned()])]);
}

#[test]
fn a_session_whose_backend_or_pool_is_gone_ends() {
    type Row = (&'static str, fn(&mut House), usize);
    let rows: [Row; 3] = [
        ("all is as it was", |_| (), 2),
        ("one backend is gone", |new| drop(new.snapshot.pools[0].backends.remove(0)), 1),
        ("another pool", |new| new.snapshot.pools[0].name = "q".into(), 0),
    ];
    for (why, change, expected) in rows {
        let mut old = House::plain(2, Udp::default());
        old.ask(1, &[b"a"]);
        old.ask(2, &[b"a"]);
        let flows = freeze(&mut old);
        let mut new = heir(&old, 2, Udp::default());
        change(&mut new);
        assert_eq!(adopt(&mut new, flows), expected, "{why}");
    }
}

#[test]
fn sessions_that_share_their_datagrams_out_keep_knowing_whom_they_asked() {
    let udp = Udp { requests: 1, ..Udp::default() };
    let mut old = House::plain(2, udp);
    for (at, backend) in old.snapshot.pools[0].backends.iter_mut().enumerate() {
        backend.address = format!("b{at}.test:53").into();
    }
    old.ask(1, &[b"a", b"b"]);
    let flows = freeze(&mut old);
    let mut new = heir(&old, 2, udp);
    for (at, backend) in new.snapshot.pools[0].backends.iter_mut().enumerate() {
        backend.address = format!("b{at}.test:53").into();
    }
    assert_eq!(adopt(&mut new, flows), 1);
    new.reply(2, backend(2), b"late", 0);
    new.reply(2, backend(9), b"who is that", 0);
    assert_eq!(new.sent(0), [(client(1), vec!["late".to_owned()])]);
    assert_eq!(new.totals().udp_stranger, 1);
    assert_eq!(new.opened(), 1);
}

#[test]
fn one_beyond_its_count_stays_out_of_the_table() {
    let udp = Udp { requests: 2, ..Udp::default() };
    let mut old = House::plain(2, udp);
    for (at, backend) in old.snapshot.pools[0].backends.iter_mut().enumerate() {
        backend.address = format!("b{at}.test:53").into();
    }
    old.ask(1, &[b"1", b"2"]);
    old.ask(1, &[b"3"]);
    let flows = freeze(&mut old);
    let mut new = heir(&old, 2, udp);
    for (at, backend) in new.snapshot.pools[0].backends.iter_mut().enumerate() {
        backend.address = format!("b{at}.test:53").into();
    }
    assert_eq!(adopt(&mut new, flows), 2);
    new.ask(1, &[b"4"]);
    assert_eq!(new.sent(3).iter().flat_map(|(_, texts)| texts).collect::<Vec<_>>(), ["3", "4"], "by the later one");
    new.reply(2, backend(1), b"to the first", 0);
    assert_eq!(new.sent(0).len(), 1);
}
