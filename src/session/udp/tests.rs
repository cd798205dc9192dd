//! A worker's datagrams over scripted sockets, step by step.

use super::*;
use crate::balance::{Algorithm, Picker, Rota};
use crate::base::ids::{PoolId, WorkerId};
use crate::base::net::Networks;
use crate::guard::{PerClient, Seldom};
use crate::link::datagram::scripted::{Incoming, News, ScriptedDatagrams, Sent, Whims};
use crate::route::Router;
use crate::shared::backend::BackendState;
use crate::shared::snapshot::{Backend, Http, Listener, Pool, Protocol, Serves, Udp};
use crate::stats::{Stats, Tallies, Totals};
use std::net::{IpAddr, SocketAddr};

/// How long a session may be silent here, in milliseconds.
pub(super) const IDLE: u64 = 10_000;

/// A worker, and what it works by.
pub(super) struct House {
    pub(super) net: ScriptedDatagrams,
    pub(super) flows: Flows<ScriptedDatagrams>,
    pub(super) snapshot: Snapshot,
    pub(super) stats: Stats,
    pub(super) process: Arc<Cap>,
    pub(super) now: Tick,
}

pub(super) fn client(n: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, n as u8]), 1000 + n)
}

pub(super) fn backend(n: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 1, 0, n as u8]), 53)
}

fn pool(addresses: &[&[SocketAddr]], udp: Udp) -> Pool {
    let backends = addresses.iter().enumerate().map(|(n, addresses)| Backend {
        id: format!("b{n}").into(),
        address: "".into(),
        weight: 1,
        disabled: false,
        checked: false,
        addresses: (*addresses).into(),
        state: BackendState::new(BackendSlot(n as u32), 0, 0, 1),
    });
    Pool { udp, ..Pool::over(Algorithm::RoundRobin, backends.collect()) }
}

pub(super) fn listener(connections: u32, per_client: Option<u32>) -> Listener {
    Listener {
        name: "l".into(),
        protocol: Protocol::Udp,
        serves: Serves::default(),
        pool: Some(PoolId(0)),
        http: Http {
            header_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            request_timeout: None,
            tunnel_timeout: Duration::ZERO,
            max_header_size: 0,
            max_body_size: 0,
            router: Router::build(Vec::new()),
            routes: Vec::new(),
            trusted: Networks::default(),
        },
        accept_proxy: false,
        idle_timeout: Duration::from_millis(IDLE),
        connections: Cap::new(connections),
        per_client: per_client.map(PerClient::new),
        rate_limit: None,
        warnings: Arc::new(Seldom::new()),
        tallies: Tallies::shared(1),
    }
}

impl House {
    /// Two listening sockets, the second of them as one that is bound to a wildcard, and backends at these addresses.
    pub(super) fn new(seed: u64, whims: Whims, addresses: &[&[SocketAddr]], udp: Udp) -> House {
        let net = ScriptedDatagrams::new(seed, whims);
        let fronts = vec![Front::new(ListenerId(0), net.listening()), Front::new(ListenerId(0), net.listening())];
        let snapshot = Snapshot {
            generation: 1,
            admin: Arc::default(),
            listeners: vec![listener(0, None)],
            pools: vec![pool(addresses, udp)],
            closes: false,
        };
        House {
            flows: Flows::new(net.clone(), fronts, Tick(1)),
            net,
            snapshot,
            stats: Stats::new(1),
            process: Cap::new(0),
            now: Tick(1),
        }
    }

    /// With one backend after the other at one address each.
    fn plain(backends: u16, udp: Udp) -> House {
        let addresses: Vec<[SocketAddr; 1]> = (1..=backends).map(|n| [backend(n)]).collect();
        let addresses: Vec<&[SocketAddr]> = addresses.iter().map(|one| &one[..]).collect();
        House::new(0, Whims::default(), &addresses, udp)
    }

    pub(super) fn turn(&mut self) {
        for news in self.net.ends().news() {
            match news {
                News::Listening(at) => self.flows.latch_front(at),
                News::Flow(id) => self.flows.latch(id),
            }
        }
        let count = self.stats.cell(0);
        self.flows.turn(Context {
            now: self.now,
            snapshot: &self.snapshot,
            process: &self.process,
            count,
            worker: WorkerId(0),
        });
    }

    /// Turns until nothing is ready.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            if self.flows.ready() == 0 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(super) fn wait(&mut self, milliseconds: u64) {
        self.now = Tick(self.now.0 + milliseconds);
        self.flows.expire(self.now);
    }

    pub(super) fn totals(&self) -> Totals {
        self.stats.totals()
    }

    fn ask(&mut self, n: u16, datagrams: &[&[u8]]) {
        for bytes in datagrams {
            let what = Incoming { from: client(n), to: None, bytes: bytes.to_vec(), segment: 0 };
            self.net.ends().arrive(0, what);
        }
        self.settle();
    }

    fn train(&mut self, n: u16, bytes: &[u8], segment: usize) {
        self.net.ends().arrive(0, Incoming { from: client(n), to: None, bytes: bytes.to_vec(), segment });
        self.settle();
    }

    /// A reply comes in on a socket: the first socket of a flow is number 2.
    fn reply(&mut self, socket: usize, from: SocketAddr, bytes: &[u8], segment: usize) {
        self.net.ends().arrive(socket, Incoming { from, to: None, bytes: bytes.to_vec(), segment });
        self.settle();
    }

    /// What each socket has sent, as texts.
    fn sent(&self, socket: usize) -> Vec<(SocketAddr, Vec<String>)> {
        let text = |sent: &Sent| {
            (sent.to, sent.datagrams.iter().map(|one| String::from_utf8_lossy(one).into_owned()).collect())
        };
        self.net.ends().get(socket).sent.iter().map(text).collect()
    }

    fn opened(&self) -> usize {
        self.net.ends().len() - 2
    }

    /// Each datagram is accounted for, and everything that was taken is given back.
    pub(super) fn check_counts(&self) {
        let t = self.totals();
        let dropped = t.udp_no_backend
            + t.udp_over_limit
            + t.udp_draining
            + t.udp_empty
            + t.udp_truncated
            + t.udp_too_big
            + t.udp_would_block
            + t.udp_refused
            + t.udp_failed;
        assert_eq!(t.udp_in, t.udp_forwarded + dropped, "{t:?}");
        let lost =
            t.udp_stranger + t.udp_reply_truncated + t.udp_reply_too_big + t.udp_reply_would_block + t.udp_reply_failed;
        assert_eq!(t.udp_replies, t.udp_out + lost, "{t:?}");
    }

    pub(super) fn check_all_back(&mut self) {
        assert_eq!(self.flows.len(), 0);
        assert!(self.flows.table.is_empty());
        assert_eq!(self.net.ends().open(), 2, "the listening sockets alone");
        assert_eq!(self.process.used(), 0);
        let listener = &self.snapshot.listeners[0];
        assert_eq!(listener.connections.used(), 0);
        assert_eq!(listener.per_client.as_ref().map_or(0, |clients| clients.clients()), 0);
        for backend in &self.snapshot.pools[0].backends {
            assert_eq!(backend.state.active.used(), 0, "{}", backend.id);
        }
    }
}

fn rules(responses: u32, requests: u32, keep_on_down: bool) -> Udp {
    Udp { responses, requests, keep_on_down }
}

fn one(to: SocketAddr, text: &str) -> (SocketAddr, Vec<String>) {
    (to, vec![text.to_owned()])
}

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
    assert_eq!(house.flows.cut_all(), 1);
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
