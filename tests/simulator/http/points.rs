//! A small conversation with something going wrong at every byte of each of the four directions, over a fresh
//! connection to the backend and over one that has served before.

use super::plan::{
    Act, Answer, Ask, Backend, Body, Client, Ending, Ends, Listener, Meets, Pool, Scenario, Then, When, Wrong,
};
use super::render::{self, BAD_CHUNKS, BAD_HEADS, BAD_RESPONSES};
use super::run;
use super::world::Summary;
use crate::script::{EARLY, Shape};
use l4lb::link::scripted::{Pipes, Whims};

/// Room enough for everything.
const WIDE: Shape = Shape { window: 100_000, room: 100_000, grain: 100_000 };
const ALL: u64 = u64::MAX;

fn ask(method: &'static str, body: Body, answers: Vec<Answer>) -> Ask {
    Ask {
        method,
        http10: false,
        close: false,
        body,
        expect: false,
        padding: 0,
        te: false,
        upgrade: None,
        bad_head: None,
        answers,
    }
}

fn get(answers: Vec<Answer>) -> Ask {
    ask("GET", Body::None, answers)
}

const UPLOAD: Body = Body::Chunked { length: 10, grain: 4, trailers: true };

fn post(answers: Vec<Answer>) -> Ask {
    ask("POST", UPLOAD, answers)
}

fn chunked(length: u64) -> Answer {
    Answer { ends: Ends::Chunked, trailers: true, interim: vec![103], ..Answer::plain(length) }
}

/// One client that asks for all of this one by one, or all at once, and a backend that serves.
fn talk(asks: Vec<Ask>, keepalive: usize) -> Scenario {
    let acts = (0..asks.len()).flat_map(|place| [Act::Send(place, ALL), Act::Await(place + 1)]).chain([Act::Finish]);
    Scenario {
        seed: 1,
        listener: Listener { idle: 9_000, header: 9_000, body: 9_000, request: 0, tunnel: 9_000, max_body: 0 },
        pool: Pool {
            connect_timeout: 2_000,
            response_timeout: 2_000,
            retries: 1,
            keepalive,
            keepalive_timeout: 4_000,
            shapes: vec![WIDE],
            backends: vec![Backend { max_connections: 0, meets: vec![Meets::Serves(0)] }; 2],
        },
        clients: vec![Client { at: 0, shape: WIDE, acts: acts.collect(), asks }],
        whims: Whims::default(),
        memory: 256 << 20,
        batch: 1024,
        stray: 0,
        cut_at: None,
        publish: 0,
        panics: Vec::new(),
    }
}

/// A warm-up for each backend, and then the conversation; or the conversation alone.
fn with_and_without_used(asks: Vec<Ask>) -> [(Scenario, usize); 2] {
    let warm = vec![get(vec![Answer::plain(3)]), get(vec![Answer::plain(3)])];
    [(talk(asks.clone(), 0), 0), (talk(warm.into_iter().chain(asks).collect(), 8), 2)]
}

/// Everything is tried copied and spliced.
fn expect(why: &str, scenario: Scenario, holds: impl Fn(&Summary) -> bool) {
    let text = format!("{why}: {:?}", scenario.clients);
    for pipes in [Pipes::default(), EARLY] {
        let whims = Whims { pipes, ..scenario.whims };
        match run(Scenario { whims, ..scenario.clone() }) {
            Ok(summary) => assert!(holds(&summary), "{text} {pipes:?}\n{summary:?}"),
            Err(error) => panic!("{text} {pipes:?}\n{error}"),
        }
    }
}

fn both() -> Vec<Ask> {
    vec![post(vec![chunked(9)]), get(vec![Answer::plain(5)])]
}

/// Splits what the client sends of request `place` at `at`, and does this in between.
fn between(scenario: &mut Scenario, place: usize, at: u64, acts: &[Act]) {
    let all = &mut scenario.clients[0].acts;
    let spot = all.iter().position(|act| *act == Act::Send(place, ALL)).expect("it is sent");
    all.splice(spot..spot, [Act::Send(place, at)].into_iter().chain(acts.iter().cloned()));
}

#[test]
fn a_request_that_comes_in_two_pieces_at_every_byte() {
    for (scenario, first) in with_and_without_used(both()) {
        for place in first..first + 2 {
            let length = render::request(&scenario.clients[0].asks[place], place).0.len() as u64;
            for at in 0..=length {
                let mut scenario = scenario.clone();
                between(&mut scenario, place, at, &[Act::Pause(3)]);
                expect("a pause", scenario, |s| s.whole == first as u64 + 2 && s.dials == 2);
            }
        }
    }
}

#[test]
fn a_client_that_leaves_at_every_byte() {
    let ways = [vec![Act::Finish], vec![Act::Close], vec![Act::Reset], vec![Act::Pause(3), Act::Close]];
    for (scenario, first) in with_and_without_used(both()) {
        for place in first..first + 2 {
            let length = render::request(&scenario.clients[0].asks[place], place).0.len() as u64;
            for at in 0..=length {
                for way in &ways {
                    let mut scenario = scenario.clone();
                    between(&mut scenario, place, at, way);
                    let acts = &mut scenario.clients[0].acts;
                    let end = acts.iter().position(|act| way.last() == Some(act)).expect("it leaves");
                    acts.truncate(end + 1);
                    let is_half = *way == [Act::Finish];
                    // A request that has come whole is answered, though its client has ended its side.
                    let answered = u64::from(at == length);
                    expect("a client leaves", scenario, |s| {
                        let more = s.whole - place as u64;
                        (more == answered || !is_half && more < answered) && s.own == 0 && s.parts == 0
                    });
                }
            }
        }
    }
}

#[test]
fn a_client_that_hears_up_to_every_byte() {
    let ways = [vec![Act::Close], vec![Act::Reset], vec![Act::Hold(40), Act::Pause(40)]];
    for (scenario, first) in with_and_without_used(both()) {
        for at in 1..700 {
            for way in &ways {
                let mut scenario = scenario.clone();
                let goes_on = way.len() == 2;
                let sends = (0..first + 2).map(|place| Act::Send(place, ALL));
                let acts = sends.chain([Act::Hear(at)]).chain(way.iter().cloned()).chain([Act::Finish]);
                scenario.clients[0].acts = acts.collect();
                // All at once: pipelined.
                expect("a client hears", scenario, |s| !goes_on || s.whole == first as u64 + 2);
            }
        }
    }
}

#[test]
fn a_link_that_is_full_or_empty_at_every_byte() {
    for (scenario, first) in with_and_without_used(both()) {
        for size in 1..420 {
            let narrow_in = Shape { window: size, ..WIDE };
            let narrow_out = Shape { room: size, ..WIDE };
            for shape in [narrow_in, narrow_out, Shape { window: size, room: size, grain: size }] {
                let mut of_client = scenario.clone();
                of_client.clients[0].shape = shape;
                let mut of_backend = scenario.clone();
                of_backend.pool.shapes = vec![shape];
                for scenario in [of_client, of_backend] {
                    expect("narrow", scenario, |s| s.whole == first as u64 + 2 && s.dials == 2);
                }
            }
        }
    }
}

#[test]
fn a_backend_that_stops_answering_at_every_byte() {
    let answers = [
        ("with a length", Answer::plain(9)),
        ("in chunks", chunked(9)),
        ("to the close", Answer { ends: Ends::Close, then: Then::End(0, Ending::Close), ..Answer::plain(9) }),
    ];
    for (why, answer) in answers {
        for is_post in [false, true] {
            for ending in [Ending::Close, Ending::Finish, Ending::Reset, Ending::Silence] {
                let make = |answers| if is_post { post(answers) } else { get(answers) };
                let rendered = render::response(&answer, &make(vec![answer.clone()]), 2, 0);
                let (head, all) = (rendered.head as u64, rendered.bytes.len() as u64);
                for at in 0..all {
                    let cut = Answer { cut: Some((at, ending)), ..answer.clone() };
                    let asks = vec![make(vec![cut, Answer::plain(4)])];
                    for (scenario, first) in with_and_without_used(asks) {
                        let ends = matches!(ending, Ending::Close | Ending::Finish);
                        let tries_again = at == 0 && !is_post && ending != Ending::Silence;
                        let seems_whole = answer.ends == Ends::Close && ends && at >= head;
                        // Silence after the head lasts until the tunnel_timeout, before it until the response_timeout.
                        expect(why, scenario, |s| {
                            let done = s.whole - first as u64;
                            match tries_again || seems_whole {
                                true => done == 1 && s.own == 0 && s.parts == 0,
                                false if at < head => {
                                    let status = if ending == Ending::Silence { 504 } else { 502 };
                                    done == 0 && s.last_own == status && s.parts == 0
                                }
                                false => done == 0 && s.own + s.parts == 1,
                            }
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn a_backend_that_stops_listening_at_every_byte() {
    for is_post in [false, true] {
        for ending in [Ending::Close, Ending::Finish, Ending::Reset] {
            for at in 0..400 {
                let make = |answers| if is_post { post(answers) } else { get(answers) };
                for (mut scenario, first) in with_and_without_used(vec![make(vec![Answer::plain(4)])]) {
                    scenario.pool.backends[0].meets = vec![Meets::Slams(at, ending), Meets::Serves(0)];
                    scenario.seed = at;
                    expect("a backend stops listening", scenario, |s| {
                        // What can be repeated is, as long as there is somebody who serves.
                        s.whole + s.own + s.parts <= first as u64 + 1 && s.tunnels == 0
                    });
                }
            }
        }
    }
}

#[test]
fn what_is_idle_is_not_used_once_it_has_ended_or_spoken() {
    let endings = [
        Then::End(5, Ending::Close),
        Then::End(5, Ending::Finish),
        Then::End(5, Ending::Reset),
        Then::Extra(5, true),
        Then::Extra(5, false),
    ];
    for then in endings {
        for is_post in [false, true] {
            let make = |answers| if is_post { post(answers) } else { get(answers) };
            let warm = Answer { then, ..Answer::plain(3) };
            let mut scenario = talk(vec![get(vec![warm]), make(vec![Answer::plain(4)])], 8);
            scenario.pool.backends.truncate(1);
            between(&mut scenario, 1, 0, &[Act::Pause(50)]);
            expect("an idle connection", scenario, |s| s.whole == 2 && s.dials == 2 && s.reused == 0);
        }
    }
    // At once, in one piece with the response: never pooled.
    let warm = Answer { then: Then::Extra(0, true), ..Answer::plain(3) };
    let mut scenario = talk(vec![get(vec![warm]), get(vec![Answer::plain(4)])], 8);
    scenario.pool.backends.truncate(1);
    between(&mut scenario, 1, 0, &[Act::Pause(50)]);
    expect("extra bytes at once", scenario, |s| s.whole == 2 && s.dials == 2 && s.reused == 0);
}

#[test]
fn what_is_malformed_is_refused_wherever_it_is_split() {
    for (bad, (why, text, status)) in BAD_HEADS.iter().enumerate() {
        for is_first in [true, false] {
            let wrong = Ask { bad_head: Some(bad), ..get(vec![Answer::plain(1)]) };
            let before = if is_first { vec![] } else { vec![get(vec![Answer::plain(2)])] };
            let place = before.len();
            let behind = get(vec![Answer::plain(3)]);
            let all: Vec<Ask> = before.into_iter().chain([wrong, behind]).collect();
            for at in (0..text.len() as u64).step_by(3) {
                let mut scenario = talk(all.clone(), 8);
                scenario.clients[0].acts.retain(|act| !matches!(act, Act::Await(_)));
                between(&mut scenario, place, at, &[Act::Pause(2)]);
                expect(why, scenario, |s| s.whole == place as u64 && s.own == 1 && s.last_own == *status);
            }
        }
    }
    for (bad, _) in BAD_CHUNKS.iter().enumerate() {
        let wrong = ask("PUT", Body::Bad { length: 9, bad }, vec![Answer::plain(1)]);
        let length = render::request(&wrong, 0).0.len() as u64;
        for at in 0..=length {
            let mut scenario = talk(vec![wrong.clone(), get(vec![Answer::plain(1)])], 8);
            scenario.clients[0].acts.retain(|act| !matches!(act, Act::Await(_)));
            between(&mut scenario, 0, at, &[Act::Pause(2)]);
            expect(BAD_CHUNKS[bad], scenario, |s| s.whole == 0 && s.own == 1 && s.last_own == 400);
        }
    }
}

#[test]
fn what_is_no_response_is_a_bad_gateway() {
    for (bad, text) in BAD_RESPONSES.iter().enumerate() {
        let wrong = Answer { wrong: Wrong::Head(bad), ..Answer::plain(1) };
        for window in 1..text.len() + 1 {
            let mut scenario = talk(vec![get(vec![wrong.clone()])], 8);
            scenario.pool.shapes = vec![Shape { window, ..WIDE }];
            expect(text, scenario, |s| s.whole == 0 && s.last_own == 502 && s.own == 1 && s.dials == 1);
        }
    }
}

#[test]
fn an_answer_before_the_upload_has_ended_reaches_the_client() {
    let long = Body::Length(300);
    for at in [0, 1, 150, 299, 300] {
        for close in [false, true] {
            let early = Answer { when: When::Body(at), close, ..Answer::plain(7) };
            for grain in [1, 10, 1_000] {
                let mut scenario = talk(vec![ask("POST", long, vec![early.clone()]), get(vec![Answer::plain(3)])], 8);
                scenario.clients[0].shape = Shape { grain, ..WIDE };
                between(&mut scenario, 0, 200 + at, &[Act::Pause(20)]);
                expect("an early answer", scenario, |s| s.whole >= 1 && s.own == 0 && s.parts == 0);
            }
        }
    }
}

#[test]
fn a_client_that_is_kept_after_an_error_is_kept_however_slowly_it_takes_that() {
    for room in 1..300 {
        let mut scenario = talk(vec![get(vec![Answer::plain(3)]), get(vec![Answer::plain(3)])], 8);
        scenario.pool.backends.iter_mut().for_each(|b| b.meets = vec![Meets::Refuses(Some(0), libc::ECONNREFUSED)]);
        scenario.clients[0].shape = Shape { room, ..WIDE };
        expect("refused", scenario, |s| s.own == 2 && s.last_own == 502);
    }
}

#[test]
fn bad_chunks_behind_an_answer_that_has_begun_cut_it() {
    // A response of its own in the midst of the other would be taken for content.
    let early = Answer { when: When::Body(5), ..Answer::plain(90_000) };
    for (bad, _) in BAD_CHUNKS.iter().enumerate() {
        let mut scenario = talk(vec![ask("PUT", Body::Bad { length: 9, bad }, vec![early.clone()])], 8);
        scenario.pool.shapes = vec![Shape { window: 2_000, room: 10_000, grain: 500 }];
        let before = render::request(&scenario.clients[0].asks[0], 0).0.len() - BAD_CHUNKS[bad].len();
        between(&mut scenario, 0, before as u64, &[Act::Pause(9)]);
        expect("bad chunks, late", scenario, |s| s.own == 0 && s.whole + s.parts == 1);
    }
}

#[test]
fn a_panic_at_every_call_takes_no_other_client_down() {
    let mut panics = 0;
    for call in 1..40 {
        for socket in 0..6 {
            let mut scenario = talk(both(), 8);
            let first = scenario.clients[0].clone();
            scenario.clients = vec![first.clone(), Client { at: 1, ..first.clone() }, Client { at: 2, ..first }];
            let narrow = Shape { window: 40, room: 30, grain: 30 };
            scenario.clients.iter_mut().for_each(|client| client.shape = narrow);
            scenario.pool.shapes = vec![narrow];
            scenario.panics = vec![(socket, call)];
            match run(scenario) {
                Ok(summary) => {
                    panics += summary.totals.panics;
                    assert!(summary.whole + 2 * summary.totals.panics >= 6, "call {call} of {socket}: {summary:?}");
                }
                Err(error) => panic!("call {call} of socket {socket}: {error}"),
            }
        }
    }
    assert!(panics > 50, "only {panics} calls panicked");
}
