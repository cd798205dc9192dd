//! What happens in one run: made from a seed, or by hand.

use crate::script::{Act, Shape, pipes};
use l4lb::link::scripted::{Dice, Whims};
use std::net::SocketAddr;

/// Everything that is fixed before a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) clients: Vec<Client>,
    pub(crate) whims: Whims,
    /// Bytes the worker may hold.
    pub(crate) memory: usize,
    /// Client connections of the process; 0 is no limit.
    pub(crate) max_connections: u32,
    /// Events taken at once, at most.
    pub(crate) batch: usize,
    /// Of a hundred turns, how many see a wake-up for nothing, or one for a link that is gone.
    pub(crate) stray: usize,
    /// When every session is cut, in milliseconds.
    pub(crate) cut_at: Option<u64>,
    /// How often the snapshot changes, in turns; 0 is never.
    pub(crate) publish: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) pool: usize,
    pub(crate) idle: u64,
    pub(crate) max_connections: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) weighted: bool,
    pub(crate) connect_timeout: u64,
    pub(crate) retries: usize,
    pub(crate) backends: Vec<Backend>,
}

#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// More than one, or none: those of a name.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) weight: u16,
    pub(crate) max_connections: u32,
    pub(crate) backup: bool,
    /// One of these, by chance, for each connect.
    pub(crate) answers: Vec<Answers>,
}

/// How a backend meets a connect.
#[derive(Clone, Debug)]
pub(crate) enum Answers {
    /// The connect fails at once, with this errno.
    Fails(i32),
    /// The connect ends after so many milliseconds, with this errno; `None` is never.
    Refuses(Option<u64>, i32),
    /// It accepts after so many milliseconds (0 is at once) and does this.
    Accepts(u64, Shape, Vec<Act>),
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: u64,
    pub(crate) listener: usize,
    pub(crate) shape: Shape,
    pub(crate) script: Vec<Act>,
    /// Our call of its socket, or of its backend's, that panics.
    pub(crate) panics: Option<Panics>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Panics {
    pub(crate) of_client: bool,
    pub(crate) call: u64,
}

impl Scenario {
    /// The configuration, as a user would write it.
    pub(crate) fn config(&self) -> String {
        let mut text = String::from("version = 1\n");
        for (at, listener) in self.listeners.iter().enumerate() {
            let Listener { pool, idle, max_connections } = listener;
            text += &format!(
                "[[listener]]\nname = \"l{at}\"\nbind = \"127.0.0.1:{}\"\nprotocol = \"tcp\"\npool = \"p{pool}\"\n\
                 idle_timeout = \"{idle}ms\"\nmax_connections = {max_connections}\n",
                1000 + at
            );
        }
        for (at, pool) in self.pools.iter().enumerate() {
            let algorithm = if pool.weighted { "weighted_round_robin" } else { "round_robin" };
            text += &format!(
                "[[pool]]\nname = \"p{at}\"\nalgorithm = \"{algorithm}\"\nconnect_timeout = \"{}ms\"\nretries = {}\n\
                 health_check = {{ kind = \"none\" }}\n",
                pool.connect_timeout, pool.retries
            );
            for (number, backend) in pool.backends.iter().enumerate() {
                let address = match &backend.addresses[..] {
                    [one] => one.to_string(),
                    _ => format!("{}:80", Scenario::host(at, number)),
                };
                text += &format!(
                    "[[pool.backend]]\nid = \"b{number}\"\naddress = \"{address}\"\nweight = {}\nmax_connections = {}\n\
                     backup = {}\n",
                    backend.weight, backend.max_connections, backend.backup
                );
            }
        }
        text
    }

    /// The name of a backend with several addresses, or none.
    pub(crate) fn host(pool: usize, backend: usize) -> String {
        format!("b{backend}.p{pool}.test")
    }

    /// A run of everything, by chance.
    pub(crate) fn random(seed: u64) -> Scenario {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5ca1_ab1e);
        let dice = &mut dice;
        let pools: Vec<Pool> = (0..dice.from_to(1, 2)).map(|number| pool(number, dice)).collect();
        let listeners: Vec<Listener> = (0..dice.from_to(1, 2))
            .map(|_| Listener {
                pool: dice.below(pools.len()),
                idle: dice.pick(&[1_500, 3_000, 30_000, 600_000]),
                max_connections: dice.pick(&[0, 0, 0, 1, 2]),
            })
            .collect();
        let panics = dice.percent(8);
        let span = dice.pick(&[0, 5, 100, 3_000]);
        let clients = (0..dice.from_to(1, 6))
            .map(|_| {
                let shape = shape(dice);
                Client {
                    at: dice.below(span + 1) as u64,
                    listener: dice.below(listeners.len()),
                    shape,
                    script: client_script(&shape, dice),
                    panics: (panics && dice.percent(40))
                        .then(|| Panics { of_client: dice.percent(50), call: dice.from_to(1, 12) as u64 }),
                }
            })
            .collect();
        Scenario {
            seed,
            listeners,
            pools,
            clients,
            whims: Whims {
                short_writes: dice.pick(&[0, 0, 5, 30, 80]),
                meanwhile: dice.pick(&[0, 10, 50]),
                interrupted: dice.pick(&[0, 0, 0, 10]),
                unwatched: dice.pick(&[0, 0, 0, 0, 0, 0, 0, 5]),
                pipes: pipes(seed),
            },
            memory: dice.pick(&[256 << 20, 256 << 20, 256 << 20, 256 << 20, 256 << 20, 64 << 10]),
            max_connections: dice.pick(&[0, 0, 0, 0, 1, 3]),
            batch: dice.pick(&[1, 2, 5, 1024, 1024]),
            stray: dice.pick(&[0, 0, 0, 5, 30]),
            cut_at: dice.percent(4).then(|| dice.below(200) as u64),
            publish: dice.pick(&[0, 0, 3, 20]),
        }
    }
}

fn pool(number: usize, dice: &mut Dice) -> Pool {
    // Some pools have only backends that behave, so that whole transfers are common.
    let kind = dice.pick(&[true, true, false]);
    let backends = (0..dice.from_to(1, 4))
        .map(|at| Backend {
            addresses: (0..dice.pick(&[1, 1, 1, 2, 3, 0]))
                .map(|last| SocketAddr::from(([10, number as u8, at as u8, last as u8 + 1], 80)))
                .collect(),
            weight: dice.pick(&[1, 1, 2, 5]),
            max_connections: dice.pick(&[0, 0, 0, 0, 1, 2]),
            backup: dice.percent(15),
            answers: (0..dice.from_to(1, 3)).map(|_| answers(kind, dice)).collect(),
        })
        .collect();
    Pool {
        weighted: dice.percent(40),
        connect_timeout: dice.pick(&[20, 500, 2_000]),
        retries: dice.pick(&[0, 1, 1, 2, 5]),
        backends,
    }
}

fn answers(kind: bool, dice: &mut Dice) -> Answers {
    let shape = shape(dice);
    let delay = dice.pick(&[0, 0, 1, 3, 15, 25]);
    if !kind {
        match dice.below(10) {
            0 => {
                return Answers::Fails(dice.pick(&[
                    libc::EACCES,
                    libc::EADDRNOTAVAIL,
                    libc::EAGAIN,
                    libc::ENETUNREACH,
                ]));
            }
            1 => return Answers::Refuses(Some(delay), libc::ECONNREFUSED),
            2 => return Answers::Refuses(Some(delay), libc::EHOSTUNREACH),
            3 => return Answers::Refuses(None, 0),
            4 => return Answers::Accepts(delay, shape, vec![Act::Close]),
            5 => return Answers::Accepts(delay, shape, vec![Act::Reset]),
            _ => {}
        }
    }
    Answers::Accepts(delay, shape, backend_script(kind, &shape, dice))
}

fn shape(dice: &mut Dice) -> Shape {
    let room = |dice: &mut Dice| match dice.below(6) {
        0 => 1,
        1 => dice.from_to(2, 16),
        2 => dice.from_to(17, 400),
        3 => dice.from_to(1_000, 20_000),
        4 => 70_000,
        _ => 600_000,
    };
    let (window, room) = (room(dice), room(dice));
    let grain = dice.pick(&[1, 3, 50, 1_500, 20_000, 400_000]);
    Shape { window, room, grain }
}

fn size(shape: &Shape, dice: &mut Dice) -> u64 {
    // As many steps as one has patience for.
    let step = shape.grain.min(shape.window).min(shape.room).max(1);
    match dice.below(8) {
        0 => 1,
        1..5 => dice.from_to(1, step * 8) as u64,
        5 | 6 => dice.from_to(1, (step * 60).min(300_000)) as u64,
        _ => dice.from_to(1, (step * 60).min(900_000)) as u64,
    }
}

fn pause(dice: &mut Dice) -> u64 {
    match dice.below(12) {
        0..6 => dice.below(4) as u64,
        6..10 => dice.below(100) as u64,
        10 => dice.below(2_500) as u64,
        _ => dice.pick(&[1_400, 1_600, 2_999, 10_000]),
    }
}

fn body(most: usize, shape: &Shape, dice: &mut Dice) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut urgent = dice.percent(12);
    for _ in 0..dice.below(most + 1) {
        match dice.below(10) {
            0..6 => acts.push(Act::Send(size(shape, dice))),
            6 | 7 => acts.push(Act::Pause(pause(dice))),
            8 => acts.push(Act::Hold(pause(dice))),
            _ if urgent => {
                urgent = false;
                acts.push(Act::Urgent);
            }
            _ => acts.push(Act::AwaitBytes(size(shape, dice).min(40))),
        }
    }
    acts
}

fn client_script(shape: &Shape, dice: &mut Dice) -> Vec<Act> {
    let mut acts = body(5, shape, dice);
    if dice.percent(5) {
        acts.insert(0, Act::ReadOnly(size(shape, dice)));
    }
    match dice.below(20) {
        0..10 => acts.push(Act::Finish),
        10 | 11 => acts.push(Act::Reset),
        12 | 13 => acts.push(Act::Close),
        14 => acts.extend([Act::Finish, Act::Pause(pause(dice)), Act::Reset]),
        15 => acts.extend([Act::Finish, Act::Pause(pause(dice)), Act::Close]),
        16 => acts.extend([Act::AwaitEnd, Act::Send(size(shape, dice)), Act::Finish]),
        _ => {}
    }
    acts
}

fn backend_script(kind: bool, shape: &Shape, dice: &mut Dice) -> Vec<Act> {
    let mut acts = Vec::new();
    match dice.below(if kind { 7 } else { 13 }) {
        0 | 1 => acts.extend([Act::Echo, Act::Finish]),
        2 => acts.extend([Act::AwaitEnd, Act::Send(size(shape, dice)), Act::Finish]),
        3 => {
            acts = body(5, shape, dice);
            acts.push(Act::Finish);
        }
        4 => acts.extend([Act::AwaitBytes(dice.from_to(1, 9) as u64), Act::Send(size(shape, dice)), Act::Finish]),
        5 => acts.extend([Act::Finish, Act::Pause(pause(dice)), Act::AwaitEnd]),
        6 => {
            acts = body(3, shape, dice);
            acts.extend([Act::Echo, Act::Finish]);
        }
        7 => acts.extend([Act::Send(size(shape, dice)), Act::Close]),
        8 => acts.extend([Act::Send(size(shape, dice)), Act::Pause(pause(dice)), Act::Reset]),
        9 => acts.extend([Act::Send(size(shape, dice)), Act::Reset]),
        10 => {
            acts = body(4, shape, dice);
            acts.push(dice.pick(&[Act::Close, Act::Reset, Act::Finish]));
        }
        11 => acts.extend([Act::ReadOnly(dice.below(200) as u64), Act::Pause(pause(dice))]),
        _ => {}
    }
    acts
}
