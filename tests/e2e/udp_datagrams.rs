//! A datagram arrives as it was sent or not at all: size, boundaries, order in its flow, and its own client.

use nix::sys::socket::{setsockopt, sockopt};

use crate::support::udp::{Datagrams, LARGEST, UdpBackend, dial};
use crate::support::{Pattern, Setup, raise_descriptor_limit, wait_until};

#[test]
fn datagrams_of_every_size_come_back_as_they_are() {
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).start();
    let (one, other) = (dial(lb.addr()), dial(lb.addr()));
    let sizes = [1, 64, 1200, 1472, 1500, 8192, 16_384, 65_000, LARGEST - 1, LARGEST];
    for (seed, size) in sizes.into_iter().chain(sizes.into_iter().rev()).enumerate() {
        // two flows by turns, so that a buffer with somebody else's rest shows
        for (flow, client) in [&one, &other].into_iter().enumerate() {
            client.echo(&Pattern { seed: (2 * seed + flow) as u64 }.bytes(0, size));
        }
    }
    let lengths: Vec<_> = backend.seen().iter().map(|seen| seen.bytes.len()).collect();
    let sent: Vec<_> = sizes.into_iter().chain(sizes.into_iter().rev()).flat_map(|size| [size, size]).collect();
    assert_eq!(lengths, sent, "what the backend saw");
}

/// Bursts that all fit into a socket's queue, so that nothing may be lost.
fn bursts() -> Vec<(&'static str, Vec<usize>)> {
    vec![
        ("equal sizes", vec![1200; 30]),
        ("tiny and equal", vec![1; 60]),
        ("equal, the last one shorter: what one segmented send may look like", [vec![1200; 15], vec![500]].concat()),
        ("two such runs, which may not become one", [vec![1200; 7], vec![500], vec![1200; 7], vec![500]].concat()),
        ("a longer one behind shorter ones", [vec![500; 10], vec![501], vec![500; 10]].concat()),
        ("long and short by turns", [1200, 100].repeat(12)),
        ("growing", (1..40).map(|i| i * 30).collect()),
        ("shrinking", (1..40).rev().map(|i| i * 30).collect()),
        ("large and equal", vec![8000; 5]),
        ("more than one send can hold", vec![20_000; 4]),
        ("an empty one between others", vec![700, 0, 700, 0, 0, 700]),
        ("no two alike", (0..25).map(|i| 1 + i * 37 % 1400).collect()),
    ]
}

/// Datagram `i` of a burst: no two of one flow or of two flows are alike.
fn datagram(flow: u64, i: usize, len: usize) -> Vec<u8> {
    Pattern { seed: flow }.bytes(i as u64 * 100_000, len)
}

#[test]
fn a_burst_keeps_boundaries_and_order() {
    for workers in [1, 2] {
        let backend = UdpBackend::echo();
        let lb = Setup::udp(backend.addr).global(&format!("workers = {workers}")).start();
        for (flow, (why, sizes)) in bursts().into_iter().enumerate() {
            // a flow of its own, so that the burst opens it; then the same once more
            let client = dial(lb.addr());
            for round in 0..2 {
                let before = backend.received();
                let sent: Vec<_> =
                    sizes.iter().enumerate().map(|(i, len)| datagram(flow as u64, i + round * 1000, *len)).collect();
                sent.iter().for_each(|bytes| client.say(bytes));
                for (i, expected) in sent.iter().enumerate() {
                    let got = client.take();
                    assert!(
                        got == *expected,
                        "{why}, {workers} worker(s), round {round}: reply {i} has {} bytes of {}, or others",
                        got.len(),
                        expected.len()
                    );
                }
                let seen: Vec<_> = backend.seen().split_off(before).into_iter().map(|seen| seen.bytes).collect();
                assert!(seen == sent, "{why}, {workers} worker(s), round {round}: the backend saw something else");
            }
        }
    }
}

#[test]
fn a_train_that_is_sent_as_one_arrives_as_the_datagrams_it_is_made_of() {
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).start();
    let client = dial(lb.addr());
    let train = Pattern { seed: 5 }.bytes(0, 20 * 1200 + 300);
    setsockopt(&client, sockopt::UdpGsoSegment, &1200).expect("the kernel segments");
    for round in 0..10 {
        let before = backend.received();
        client.say(&train);
        for (i, expected) in train.chunks(1200).enumerate() {
            assert!(client.take() == expected, "round {round}: reply {i} is not what was sent");
        }
        let seen = backend.seen().split_off(before);
        assert!(
            seen.iter().map(|seen| &seen.bytes[..]).eq(train.chunks(1200)),
            "round {round}: the backend saw {} datagrams, or others",
            seen.len()
        );
    }
}

#[test]
fn a_thousand_clients_each_get_their_own_replies() {
    const CLIENTS: usize = 1000;
    const EACH: usize = 4;
    raise_descriptor_limit();
    let backends = [UdpBackend::echo(), UdpBackend::echo(), UdpBackend::echo()];
    let [a, b, c] = &backends;
    let lb = Setup::udp(a.addr).backend(b.addr).backend(c.addr).start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| dial(lb.addr())).collect();
    for round in 0..2 {
        // so many at once as wait in a queue of the default size
        for (crowd, group) in clients.chunks(16).enumerate() {
            let content = |who: usize, i: usize| {
                let flow = crowd * 16 + who;
                datagram(flow as u64, round * EACH + i, 1 + (flow * 131 + i * 517) % 1400)
            };
            for i in 0..EACH {
                for (who, client) in group.iter().enumerate() {
                    client.say(&content(who, i));
                }
            }
            for (who, client) in group.iter().enumerate() {
                for i in 0..EACH {
                    let (got, expected) = (client.take(), content(who, i));
                    assert!(
                        got == expected,
                        "round {round}: client {} got something else as reply {i}",
                        crowd * 16 + who
                    );
                }
            }
        }
    }
    for client in &clients {
        client.set_nonblocking(true).expect("a socket");
        let more = client.recv(&mut [0; 16]).expect_err("there was one reply for each");
        assert_eq!(more.kind(), std::io::ErrorKind::WouldBlock);
    }
    let sessions: usize = backends.iter().map(|backend| backend.peers().len()).sum();
    assert_eq!(sessions, CLIENTS, "a session each, with an address of its own");
    assert_eq!(backends.iter().map(UdpBackend::received).sum::<usize>(), 2 * EACH * CLIENTS);
}

#[test]
fn an_empty_datagram_passes_on_a_session_both_ways() {
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).start();
    let client = dial(lb.addr());
    client.echo(b"first");
    let peer = backend.seen()[0].from;
    for _ in 0..3 {
        client.echo(b"");
    }
    backend.send(b"", peer);
    assert_eq!(client.take(), b"", "one that answers nothing");
    client.echo(b"last");
    let seen: Vec<_> = backend.seen().into_iter().map(|seen| seen.bytes).collect();
    assert_eq!(seen, [&b"first"[..], b"", b"", b"", b"last"]);
    assert_eq!(backend.peers().len(), 1);
}

#[test]
fn an_empty_datagram_opens_no_session() {
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).start();
    let at_start = crate::support::proc::settled_descriptors(lb.pid());
    let clients: Vec<_> = (0..20).map(|_| dial(lb.addr())).collect();
    for client in &clients {
        (0..3).for_each(|_| client.say(b""));
    }
    // what was sent before is dealt with before
    for client in &clients {
        client.echo(b"x");
    }
    let seen: Vec<_> = backend.seen().into_iter().map(|seen| seen.bytes).collect();
    assert_eq!(seen, vec![b"x"; 20], "the backend saw an empty one");
    wait_until("each has a descriptor", || crate::support::proc::descriptors(lb.pid()) >= at_start + clients.len());
}
