//! Small conversations with something going wrong at every byte, in both directions.

use crate::run;
use crate::scenario::{Answers, Backend, Client, Listener, Panics, Pool, Scenario};
use crate::script::{Act, EARLY, Shape};
use crate::world::Summary;
use l4lb::link::scripted::{Pipes, Whims};
use std::net::SocketAddr;

/// Bytes each side has to say.
const SAY: u64 = 12;
/// Room enough for everything.
const WIDE: Shape = Shape { window: 1_000, room: 1_000, grain: 1_000 };

/// One client and one backend that do as told, and a kernel without whims.
fn talk(client: (Shape, Vec<Act>), backend: (Shape, Vec<Act>), seed: u64) -> Scenario {
    Scenario {
        seed,
        listeners: vec![Listener { pool: 0, idle: 60_000, max_connections: 0 }],
        pools: vec![Pool { weighted: false, connect_timeout: 2_000, retries: 1, backends: vec![accepts(0, backend)] }],
        clients: vec![Client { at: 0, listener: 0, shape: client.0, script: client.1, panics: None }],
        whims: Whims::default(),
        memory: 256 << 20,
        max_connections: 0,
        batch: 1024,
        stray: 0,
        cut_at: None,
        publish: 0,
    }
}

fn accepts(number: u8, (shape, script): (Shape, Vec<Act>)) -> Backend {
    answers(number, Answers::Accepts(0, shape, script))
}

fn answers(number: u8, answer: Answers) -> Backend {
    let addresses = vec![SocketAddr::from(([10, 0, number, 1], 80))];
    Backend { addresses, weight: 1, max_connections: 0, backup: false, answers: vec![answer] }
}

/// Two ways round: `one` is the client or the backend.
fn both_ways(one: (Shape, Vec<Act>), other: (Shape, Vec<Act>), seed: u64) -> [Scenario; 2] {
    [talk(one.clone(), other.clone(), seed), talk(other, one, seed)]
}

/// Everything is tried copied and spliced.
fn expect(why: &str, scenario: Scenario, holds: impl Fn(&Summary) -> bool) {
    let text = format!("{why}: {:?} {:?}", scenario.clients, scenario.pools);
    for pipes in [Pipes::default(), EARLY] {
        let whims = Whims { pipes, ..scenario.whims };
        match run(Scenario { whims, ..scenario.clone() }) {
            Ok(summary) => assert!(holds(&summary), "{text} {pipes:?}\n{summary:?}"),
            Err(error) => panic!("{text} {pipes:?}\n{error}"),
        }
    }
}

fn is_whole(summary: &Summary) -> bool {
    summary.whole == 1 && summary.totals.ended == 1
}

/// Narrow places of every kind: the receive queue, the send buffer, and what is moved at once.
fn shapes() -> Vec<Shape> {
    let narrow = [1, 2, 5, 1_000];
    let rooms = (1..=SAY as usize).chain([1_000]);
    rooms
        .flat_map(|room| narrow.map(|window| Shape { window, room, grain: if room % 2 == 0 { 1 } else { 1_000 } }))
        .collect()
}

#[test]
fn a_pause_at_every_byte_loses_nothing() {
    for at in 0..=SAY {
        let one = vec![Act::Send(at), Act::Pause(3), Act::Send(SAY - at), Act::Finish];
        for shape in shapes() {
            for scenario in both_ways((shape, one.clone()), (shape, vec![Act::Echo, Act::Finish]), at) {
                expect("paused and echoed", scenario, is_whole);
            }
        }
    }
}

#[test]
fn a_sink_that_is_full_at_every_byte_loses_nothing() {
    for room in 1..=SAY as usize {
        for window in [1, 4, 1_000] {
            let slow = Shape { window, room, grain: 1_000 };
            let other = vec![Act::Hold(50), Act::Send(SAY), Act::Finish];
            for scenario in both_ways((WIDE, vec![Act::Send(SAY), Act::Finish]), (slow, other), room as u64) {
                expect("a sink that is full", scenario, is_whole);
            }
        }
    }
}

#[test]
fn a_half_close_at_every_byte_leaves_the_other_direction_open() {
    for at in 0..=SAY {
        for said in 0..=SAY {
            let one = vec![Act::Send(at.max(1)), Act::Finish];
            let other = vec![Act::Send(said), Act::AwaitEnd, Act::Pause(2), Act::Send(SAY - said), Act::Finish];
            let shape = Shape { window: 3, room: 4, grain: 2 };
            for scenario in both_ways((shape, one), (shape, other), at) {
                // Who says nothing at all is no whole conversation, but must still end well.
                expect("a half-close", scenario, |summary| summary.totals.ended == 1);
            }
        }
    }
}

#[test]
fn a_cut_at_every_byte_comes_after_the_bytes_before_it() {
    let passed_on = std::cell::Cell::new(0);
    for at in 0..=SAY {
        for said in [0, 1, SAY] {
            for cut in
                [vec![Act::Reset], vec![Act::Pause(4), Act::Reset], vec![Act::Close], vec![Act::Pause(4), Act::Close]]
            {
                let mut one = vec![Act::Send(at)];
                one.extend(cut);
                let others = [
                    vec![Act::Send(said), Act::AwaitEnd],
                    vec![Act::Hold(600), Act::Send(said), Act::Finish],
                    vec![Act::Send(said), Act::Finish, Act::Hold(300)],
                ];
                for other in others {
                    for room in [1, 3, 1_000] {
                        let shape = Shape { window: 5, room, grain: 4 };
                        for scenario in both_ways((WIDE, one.clone()), (shape, other.clone()), at + said) {
                            expect("a cut", scenario, |summary| {
                                passed_on.set(passed_on.get() + summary.passed_on);
                                true
                            });
                        }
                    }
                }
            }
        }
    }
    assert!(passed_on.get() > 200, "only {} resets came after bytes", passed_on.get());
}

#[test]
fn an_urgent_byte_at_every_place_stops_nothing() {
    for at in 0..=SAY {
        for shape in [WIDE, Shape { window: 3, room: 2, grain: 2 }, Shape { window: 1_000, room: 5, grain: 1 }] {
            let one = vec![Act::Send(at), Act::Urgent, Act::Send(SAY - at), Act::Finish];
            for scenario in both_ways((shape, one), (shape, vec![Act::Echo, Act::Finish]), at) {
                expect("urgent data", scenario, is_whole);
            }
        }
    }
}

#[test]
fn a_panic_at_every_call_takes_nobody_else_down() {
    let panics = std::cell::Cell::new(0);
    for call in 1..=20 {
        for of_client in [true, false] {
            let shape = Shape { window: 4, room: 3, grain: 3 };
            let mut scenario =
                talk((shape, vec![Act::Send(SAY), Act::Finish]), (shape, vec![Act::Echo, Act::Finish]), call);
            let first = scenario.clients[0].clone();
            scenario.clients = vec![first.clone(), first.clone(), first];
            scenario.clients[1].panics = Some(Panics { of_client, call });
            expect("a panic", scenario, |summary| {
                panics.set(panics.get() + summary.totals.panics);
                summary.whole == 3 - summary.totals.panics && summary.totals.panics <= 1
            });
        }
    }
    assert!(panics.get() > 10, "only {} calls panicked", panics.get());
}

#[test]
fn a_client_is_served_as_long_as_retries_allow() {
    let good = (WIDE, vec![Act::Echo, Act::Finish]);
    let bad = [
        ("refused at once", Answers::Refuses(Some(0), libc::ECONNREFUSED)),
        ("refused later", Answers::Refuses(Some(10), libc::ECONNREFUSED)),
        ("unreachable", Answers::Fails(libc::ENETUNREACH)),
        ("no answer", Answers::Refuses(None, 0)),
        ("our own shortage", Answers::Fails(libc::EADDRNOTAVAIL)),
        ("accepted and reset at once", Answers::Accepts(0, WIDE, vec![Act::Reset])),
    ];
    for (why, answer) in bad {
        let mut scenario = talk((WIDE, vec![Act::Send(SAY), Act::Finish]), good.clone(), 1);
        scenario.pools[0].backends.push(answers(1, answer.clone()));
        let client = scenario.clients[0].clone();
        scenario.clients = (0..6).map(|n| Client { at: n * 700, ..client.clone() }).collect();
        if !matches!(answer, Answers::Accepts(..)) {
            expect(why, scenario.clone(), |summary| summary.whole == 6 && summary.totals.unserved == 0);
        }
        // Alone it is never set aside: each client tries it.
        scenario.pools[0].backends.remove(0);
        scenario.pools[0].backends[0].addresses = vec![SocketAddr::from(([10, 0, 0, 1], 80))];
        scenario.pools[0].backends[0].answers = vec![answer];
        expect(why, scenario, |summary| summary.whole == 0);
    }
}

#[test]
fn the_idle_timeout_is_honest() {
    let wide = Shape { window: 200_000, room: 200_000, grain: 200_000 };
    // The backend is told, a little at a time, for much longer than the timeout; its client sends nothing more.
    let narrow = Shape { window: 1_000, room: 64, grain: 1_000 };
    let sips = (0..12).flat_map(|n| [Act::AwaitBytes(n * 60 + 1), Act::Hold(400), Act::Pause(400)]);
    let mut slow = talk((wide, vec![Act::Send(20_000), Act::Finish]), (narrow, sips.chain([Act::Finish]).collect()), 3);
    slow.listeners[0].idle = 1_000;
    expect("a slow reader is not silent", slow, |summary| summary.totals.idle == 0 && summary.totals.ended == 1);
    let mut stuck = talk((wide, vec![Act::Send(900), Act::Finish]), (narrow, vec![Act::ReadOnly(10)]), 3);
    stuck.listeners[0].idle = 1_000;
    // That the reader saw no clean end is checked in every run.
    expect("a reader that stops is cut", stuck, |summary| summary.totals.idle == 1 && summary.time > 2_000);
}
