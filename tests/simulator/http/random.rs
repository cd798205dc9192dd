//! A run of everything, by chance.

use super::plan::{
    Act, Answer, Ask, Backend, Body, Client, Ending, Ends, Listener, Meets, Pool, Scenario, Then, When, Wrong,
};
use super::render::{BAD_CHUNKS, BAD_HEADS, BAD_RESPONSES};
use crate::script::{Shape, pipes};
use l4lb::link::scripted::{Dice, Whims};

/// Who may do something wrong.
#[derive(Clone, Copy)]
struct Kind {
    clients: bool,
    backends: bool,
}

impl Scenario {
    pub(crate) fn random(seed: u64) -> Scenario {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x0477_90ab);
        let dice = &mut dice;
        let kind = dice.pick(&[
            Kind { clients: true, backends: true },
            Kind { clients: true, backends: true },
            Kind { clients: true, backends: false },
            Kind { clients: false, backends: true },
            Kind { clients: false, backends: false },
        ]);
        let is_hasty = !kind.clients && dice.percent(30);
        let listener = Listener {
            idle: if is_hasty { dice.pick(&[1_000, 3_000]) } else { 60_000 },
            header: if is_hasty { dice.pick(&[1_000, 10_000]) } else { 600_000 },
            body: if is_hasty { dice.pick(&[1_000, 30_000]) } else { 60_000 },
            request: if dice.percent(10) { dice.pick(&[700, 20_000]) * u64::from(!kind.clients) } else { 0 },
            tunnel: dice.pick(&[20_000, 3_600_000]),
            max_body: if !kind.clients && dice.percent(10) { 5_000 } else { 0 },
        };
        let response_timeout = if kind.backends { 30_000 } else { dice.pick(&[300, 2_000, 30_000]) };
        // Who has little time gets as much room as that takes.
        let shapes = (0..dice.from_to(1, 3)).map(|_| shape(response_timeout < 30_000, dice)).collect();
        let pool = Pool {
            connect_timeout: if kind.backends { 2_000 } else { dice.pick(&[20, 500, 2_000]) },
            response_timeout,
            retries: dice.pick(&[0, 1, 1, 1, 2, 5]),
            keepalive: dice.pick(&[0, 1, 2, 64, 64, 64, 64]),
            keepalive_timeout: dice.pick(&[50, 400, 4_000, 4_000]),
            shapes,
            backends: (0..dice.from_to(1, 3))
                .map(|_| Backend {
                    max_connections: if kind.backends { 0 } else { dice.pick(&[0, 0, 0, 0, 1, 2]) },
                    meets: (0..dice.from_to(1, 3)).map(|_| meets(kind, dice)).collect(),
                })
                .collect(),
        };
        let span = dice.pick(&[0, 5, 100, 3_000]);
        let clients: Vec<Client> =
            (0..dice.from_to(1, 4)).map(|_| client(dice.below(span + 1) as u64, kind, is_hasty, dice)).collect();
        let panics = match dice.percent(6) {
            true => vec![(dice.below(clients.len() * 2), dice.from_to(1, 30) as u64)],
            false => Vec::new(),
        };
        Scenario {
            seed,
            listener,
            pool,
            clients,
            whims: Whims {
                short_writes: dice.pick(&[0, 0, 5, 30, 80]),
                meanwhile: dice.pick(&[0, 10, 50]),
                interrupted: dice.pick(&[0, 0, 0, 10]),
                unwatched: if kind.backends { 0 } else { dice.pick(&[0, 0, 0, 5]) },
                pipes: pipes(seed),
            },
            memory: if dice.percent(7) { 64 << 10 } else { 256 << 20 },
            batch: dice.pick(&[1, 2, 5, 1024, 1024]),
            stray: dice.pick(&[0, 0, 0, 5, 30]),
            cut_at: dice.percent(4).then(|| dice.below(200) as u64),
            publish: dice.pick(&[0, 0, 3, 20]),
            panics,
        }
    }
}

fn meets(kind: Kind, dice: &mut Dice) -> Meets {
    let wait = dice.pick(&[0, 0, 1, 3, 15]);
    if kind.backends {
        return Meets::Serves(wait);
    }
    match dice.below(16) {
        0 => Meets::Fails(dice.pick(&[libc::EMFILE, libc::EADDRNOTAVAIL, libc::ENETUNREACH])),
        1 => Meets::Refuses(Some(wait), libc::ECONNREFUSED),
        2 if dice.percent(30) => Meets::Refuses(None, 0),
        3 => Meets::Slams(0, dice.pick(&[Ending::Close, Ending::Reset])),
        4 => Meets::Slams(dice.from_to(1, 300) as u64, dice.pick(&[Ending::Close, Ending::Reset, Ending::Silence])),
        _ => Meets::Serves(wait),
    }
}

fn shape(is_roomy: bool, dice: &mut Dice) -> Shape {
    let room = |dice: &mut Dice| match if is_roomy { 5 } else { dice.below(7) } {
        0 => dice.from_to(1, 16),
        1 => dice.from_to(17, 400),
        2 | 3 => dice.from_to(1_000, 20_000),
        4 | 5 => 70_000,
        _ => 600_000,
    };
    let (window, room) = (room(dice), room(dice));
    Shape { window, room, grain: if is_roomy { 20_000 } else { dice.pick(&[1, 7, 200, 1_500, 20_000, 400_000]) } }
}

fn pause(dice: &mut Dice) -> u64 {
    match dice.below(12) {
        0..6 => dice.below(4) as u64,
        6..11 => dice.below(100) as u64,
        _ => dice.below(600) as u64,
    }
}

fn length(dice: &mut Dice) -> u64 {
    (match dice.below(20) {
        0..3 => 0,
        3..6 => dice.below(20),
        6..14 => dice.below(2_000),
        14..18 => dice.below(20_000),
        18 => dice.from_to(60_000, 70_000),
        _ => dice.below(200 << 10),
    }) as u64
}

fn ask(kind: Kind, dice: &mut Dice) -> Ask {
    let method =
        dice.pick(&["GET", "GET", "GET", "HEAD", "POST", "POST", "POST", "PUT", "PUT", "DELETE", "OPTIONS", "PATCH"]);
    let http10 = dice.percent(8);
    let may_chunk = !http10;
    let no_body = http10 && matches!(method, "GET" | "HEAD" | "DELETE");
    let wants_body = matches!(method, "POST" | "PUT" | "PATCH") || dice.percent(6);
    let body = match dice.below(3) {
        _ if no_body || !wants_body => Body::None,
        0 if may_chunk => Body::Chunked {
            length: length(dice),
            grain: dice.pick(&[1, 13, 500, 8_000, 100_000]),
            trailers: dice.percent(40),
        },
        _ => Body::Length(length(dice)),
    };
    let body = match body {
        Body::Chunked { length, grain, trailers } => Body::Chunked { length: length.min(grain * 300), grain, trailers },
        body => body,
    };
    let mut ask = Ask {
        method,
        http10,
        close: dice.percent(6),
        body,
        expect: !http10 && body != Body::None && dice.percent(25),
        padding: dice.pick(&[0, 0, 0, 0, 1, 100, 3_000]),
        te: !http10 && dice.percent(15),
        upgrade: None,
        bad_head: None,
        answers: Vec::new(),
    };
    if method == "GET" && !http10 && !ask.close && body == Body::None && dice.percent(8) {
        ask.upgrade = Some((length(dice), dice.percent(40)));
    }
    if !kind.clients && dice.percent(8) {
        if dice.percent(60) {
            ask.bad_head = Some(dice.below(BAD_HEADS.len()));
        } else {
            ask.method = dice.pick(&["POST", "PUT"]);
            (ask.http10, ask.upgrade) = (false, None);
            ask.body = Body::Bad { length: length(dice).min(3_000), bad: dice.below(BAD_CHUNKS.len()) };
        }
    }
    ask.answers = (0..dice.pick(&[1, 1, 2, 3])).map(|_| answer(&ask, kind, dice)).collect();
    if let Some((_, at_once)) = &mut ask.upgrade {
        // What is said at once is a request, where nothing changes.
        *at_once &= kind.backends && ask.answers.iter().all(|answer| answer.status == 101);
    }
    ask
}

fn answer(ask: &Ask, kind: Kind, dice: &mut Dice) -> Answer {
    let mut answer = Answer::plain(length(dice));
    answer.delay = pause(dice).min(200);
    answer.http10 = dice.percent(8);
    answer.status = dice.pick(&[200, 200, 200, 200, 201, 404, 500, 204, 304]);
    answer.ends = match answer.status {
        304 => Ends::Never(dice.percent(50)),
        204 => Ends::Never(dice.percent(10)),
        _ if ask.upgrade.is_some() && dice.percent(70) => {
            answer.status = 101;
            answer.http10 = false;
            Ends::Never(false)
        }
        _ => match dice.below(5) {
            0 | 1 if !answer.http10 => Ends::Chunked,
            2 if dice.percent(40) => Ends::Close,
            _ => Ends::Length,
        },
    };
    if answer.ends == Ends::Never(true) && answer.status == 204 {
        answer.length = answer.length.max(1);
    }
    if !answer.http10 {
        let waits = if ask.expect { 60 } else { 8 };
        let count = (0..2).filter(|_| dice.percent(waits)).count();
        answer.interim = (0..count).map(|_| dice.pick(&[100, 100, 102, 103])).collect();
    }
    answer.trailers = answer.ends == Ends::Chunked && dice.percent(30);
    if answer.status != 101 {
        answer.close = dice.percent(8);
        if ask.body.length() > 0 && dice.percent(12) {
            answer.when = When::Body(dice.below(ask.body.length() as usize + 1) as u64);
        }
    }
    if answer.ends == Ends::Close || answer.close && dice.percent(70) {
        answer.then = Then::End(0, Ending::Close);
    }
    if !kind.backends && dice.percent(25) {
        let ending = dice.pick(&[Ending::Close, Ending::Finish, Ending::Reset, Ending::Reset, Ending::Silence]);
        match dice.below(10) {
            0 | 1 => answer.cut = Some((0, ending)),
            2 | 3 => answer.cut = Some((dice.below(250) as u64, ending)),
            4 => answer.cut = Some((dice.below(answer.length as usize + 250) as u64, ending)),
            // Where no body follows, a coding that nobody knows does no harm.
            5 if ask.method != "HEAD" => answer.wrong = Wrong::Head(dice.below(BAD_RESPONSES.len())),
            6 if answer.ends == Ends::Chunked => answer.wrong = Wrong::Chunk(dice.below(3_000) as u64),
            7 if answer.ends != Ends::Close => answer.then = Then::Extra(pause(dice), false),
            8 => answer.delay = dice.pick(&[400, 2_500]),
            _ => answer.then = Then::End(pause(dice), ending),
        }
    }
    answer
}

fn client(at: u64, kind: Kind, is_hasty: bool, dice: &mut Dice) -> Client {
    let asks: Vec<Ask> = (0..dice.pick(&[1, 2, 3, 4, 5, 8])).map(|_| ask(kind, dice)).collect();
    let mut acts = Vec::new();
    let pipelines = dice.percent(35);
    for (place, ask) in asks.iter().enumerate() {
        if dice.percent(25) {
            acts.push(Act::Pause(pause(dice)));
        }
        if dice.percent(8) {
            acts.push(Act::Hold(pause(dice)));
        }
        let long = !kind.clients && dice.percent(4);
        if ask.expect && dice.percent(80) {
            acts.extend([Act::SendHead(place), Act::AwaitContinue(place)]);
        }
        for _ in 0..dice.pick(&[0, 0, 0, 1, 2]) {
            acts.extend([Act::Send(place, dice.below(1_000) as u64), Act::Pause(pause(dice))]);
        }
        if long {
            acts.extend([Act::Send(place, dice.below(500) as u64), Act::Pause(dice.pick(&[1_100, 4_000, 11_000]))]);
        }
        if !kind.clients && dice.percent(3) {
            let how = dice.pick(&[Act::Finish, Act::Close, Act::Reset]);
            acts.extend([Act::Send(place, dice.below(600) as u64), how]);
            return Client { at, shape: shape(is_hasty, dice), asks, acts };
        }
        acts.push(Act::Send(place, u64::MAX));
        if !pipelines || ask.upgrade.is_some() || dice.percent(10) {
            acts.push(Act::Await(place + 1));
        }
        if ask.close || ask.http10 {
            // Whoever says so says nothing more.
            break;
        }
        if long {
            acts.push(Act::Pause(dice.pick(&[500, 1_200, 3_500])));
        }
    }
    match dice.below(12) {
        0..6 => acts.push(Act::Finish),
        6 if !kind.clients => acts.push(Act::Close),
        7 if !kind.clients => acts.push(Act::Reset),
        8 if !kind.clients => acts.extend([Act::Finish, Act::Pause(pause(dice)), Act::Reset]),
        _ => {}
    }
    Client { at, shape: shape(is_hasty, dice), asks, acts }
}
