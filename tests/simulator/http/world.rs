//! One worker among clients and backends that speak HTTP: the core, driven as its thread drives it, in simulated time.

use super::backend::Conn;
use super::checks;
use super::client::Caller;
use super::ledger::Ledger;
use super::plan::{Meets, Scenario};
use crate::script::Shape;
use crate::world::spliced;
use l4lb::base::ids::{LinkId, ListenerId, WorkerId};
use l4lb::base::time::Tick;
use l4lb::config;
use l4lb::control::Plan;
use l4lb::guard::Cap;
use l4lb::link::Ready;
use l4lb::link::scripted::{Dialled, Dice, ScriptedNet, Socket, State};
use l4lb::shared::hub::{Hub, Member};
use l4lb::shared::mail::Arrival;
use l4lb::shared::snapshot::Snapshot;
use l4lb::stats::{Stats, Totals};
use l4lb::worker::core::{Core, Task};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// More than any run needs, in turns.
const MOST_TURNS: u64 = 2_000_000;
/// How much longer than all its timeouts together a session may last, in milliseconds.
const SLACK: u64 = 6_000;

/// What one run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) totals: Totals,
    pub(crate) turns: u64,
    pub(crate) events: u64,
    pub(crate) time: u64,
    pub(crate) dials: u64,
    pub(crate) requests: u64,
    /// Responses that came whole.
    pub(crate) whole: u64,
    /// Responses that were visibly cut.
    pub(crate) parts: u64,
    /// Errors of l4lb's own.
    pub(crate) own: u64,
    /// Requests over a connection that had served before, and those seen twice.
    pub(crate) reused: u64,
    pub(crate) repeated: u64,
    /// Connections that changed their protocol.
    pub(crate) tunnels: u64,
    /// The last error of its own, and the most blocks a session had.
    pub(crate) last_own: u16,
    pub(crate) blocks: u64,
    /// Bytes that went by a pipe.
    pub(crate) spliced: u64,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) net: ScriptedNet,
    pub(crate) core: Core<ScriptedNet>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) ledger: Ledger,
    pub(crate) now: Tick,
    pub(crate) process: Arc<Cap>,
    pub(crate) was_cut: bool,
    pub(crate) most_blocks: usize,
    plan: Plan,
    hub: Arc<Hub>,
    dice: Dice,
    planned: Rc<RefCell<VecDeque<(Meets, Shape)>>>,
    /// Connects that end later: when, which socket, how.
    connects: Vec<(Tick, usize, Option<i32>)>,
    /// Clients that have not come yet.
    outside: Vec<usize>,
    tokens: Vec<LinkId>,
    still: u32,
    moved: u64,
    turns: u64,
    events: u64,
    dials: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> World {
        let now = Tick(1_000);
        let config = config::parse(&scenario.config(), "scenario").expect("a scenario is well-formed");
        let mut plan = Plan::new(config, 1);
        let hub = Hub::new(plan.build(), 1);
        let stats = Arc::new(Stats::new(1));
        let planned = Rc::new(RefCell::new(VecDeque::new()));
        let net = {
            let (planned, scenario, mut dice) = (planned.clone(), scenario.clone(), Dice::new(scenario.seed ^ 0xd1a1));
            ScriptedNet::new(scenario.seed ^ 0x4e7, scenario.whims, now, move |address| {
                answer(&scenario, address, &mut dice, &planned)
            })
        };
        let core = Core::new(net.clone(), Member::new(hub.clone(), WorkerId(0)), stats.clone(), now, scenario.memory);
        World {
            outside: (0..scenario.clients.len()).collect(),
            dice: Dice::new(scenario.seed ^ 0x3012d),
            process: Cap::new(0),
            ledger: Ledger::new(&scenario),
            callers: Vec::new(),
            conns: Vec::new(),
            scenario,
            net,
            core,
            stats,
            now,
            was_cut: false,
            most_blocks: 0,
            plan,
            hub,
            planned,
            connects: Vec::new(),
            tokens: Vec::new(),
            still: 0,
            moved: 0,
            turns: 0,
            events: 0,
            dials: 0,
        }
    }

    /// Runs to the end, and checks all the way.
    pub(crate) fn run(mut self) -> Result<Summary, String> {
        loop {
            let busy = self.play(70)?;
            if self.is_wanted() {
                // Now and then more happens before the worker looks.
                if !busy || self.dice.percent(70) {
                    self.turn()?;
                }
                continue;
            }
            if busy {
                let wait = self.dice.below(2) as u64;
                self.advance(Tick(self.now.0 + wait));
                continue;
            }
            if self.play(100)? || self.is_wanted() {
                continue;
            }
            // Idle connections are left for the end.
            if self.outside.is_empty() && self.core.sessions() == 0 {
                break;
            }
            let Some(next) = self.next() else {
                return Err(format!("{} sessions live, and nothing will ever happen", self.core.sessions()));
            };
            self.advance(next);
            self.check_age()?;
        }
        self.drain()?;
        checks::left_behind(&self, true)?;
        self.expire_idle()?;
        checks::left_behind(&self, false)?;
        let summary = Summary {
            totals: self.stats.totals(),
            turns: self.turns,
            events: self.events,
            time: self.now.0 - 1_000,
            dials: self.dials,
            requests: self.ledger.requests.len() as u64,
            reused: self.ledger.reused,
            repeated: self.ledger.repeated,
            blocks: self.most_blocks as u64,
            spliced: spliced(&self.net),
            ..Summary::default()
        };
        checks::at_the_end(&self, summary)
    }

    fn advance(&mut self, to: Tick) {
        self.now = self.now.max(to);
        self.net.sockets().now = self.now;
    }

    /// True when the worker would not sleep.
    fn is_wanted(&self) -> bool {
        let cut = self.scenario.cut_at.is_some_and(|at| !self.was_cut && self.now.0 >= 1_000 + at);
        cut || self.outside.iter().any(|at| self.has_arrived(*at))
            || self.core.ready() > 0
            || self.core.next_due().is_some_and(|due| due <= self.now)
            || self.net.sockets().have_news()
    }

    fn has_arrived(&self, client: usize) -> bool {
        self.now.0 >= 1_000 + self.scenario.clients[client].at
    }

    fn next(&self) -> Option<Tick> {
        let arrivals = self.outside.iter().map(|at| Tick(1_000 + self.scenario.clients[*at].at));
        let connects = self.connects.iter().map(|(at, ..)| *at);
        let cut = self.scenario.cut_at.filter(|_| !self.was_cut).map(|at| Tick(1_000 + at));
        let all = arrivals.chain(connects).chain(self.wakes()).chain(cut).chain(self.core.next_due());
        all.filter(|at| *at > self.now).min()
    }

    fn wakes(&self) -> impl Iterator<Item = Tick> {
        let callers = self.callers.iter().filter_map(|caller| caller.wakes_at(self.now));
        callers.chain(self.conns.iter().filter_map(|conn| conn.wakes_at(self.now)))
    }

    /// What clients, backends and the network between do: each of them in so many of a hundred cases.
    fn play(&mut self, chance: usize) -> Result<bool, String> {
        let mut busy = false;
        let mut sockets = self.net.sockets();
        let now = self.now;
        self.connects.retain(|&(at, socket, error)| {
            let due = at <= now;
            if due {
                sockets.get(socket).connect(error, now);
                busy = true;
            }
            !due
        });
        for caller in &mut self.callers {
            let socket = sockets.get(caller.socket);
            if self.dice.percent(chance) {
                busy |= socket.flow(self.dice.from_to(1, caller.grain()), now);
            }
            if self.dice.percent(chance) {
                busy |= caller.act(socket, now, &mut self.dice, &mut self.ledger)?;
            }
        }
        for conn in &mut self.conns {
            let socket = sockets.get(conn.socket);
            if self.dice.percent(chance) {
                busy |= socket.flow(self.dice.from_to(1, conn.grain()), now);
            }
            if self.dice.percent(chance) {
                busy |= conn.act(socket, now, &mut self.dice, &mut self.ledger)?;
            }
        }
        Ok(busy)
    }

    /// One turn of the worker.
    fn turn(&mut self) -> Result<(), String> {
        self.turns += 1;
        if self.turns > MOST_TURNS {
            return Err(format!("{MOST_TURNS} turns and no end"));
        }
        let now = self.now;
        let events = self.net.sockets().events(self.scenario.batch);
        let mut news = !events.is_empty();
        self.events += events.len() as u64;
        self.core.member.beat(now);
        self.core.member.refresh();
        for (link, ready) in events {
            self.tokens.push(link);
            self.core.latch(link, ready);
        }
        self.stray();
        news |= self.admit()?;
        if self.scenario.cut_at.is_some_and(|at| !self.was_cut && now.0 >= 1_000 + at) {
            self.core.cut_all();
            self.was_cut = true;
            news = true;
        }
        for _ in 0..self.core.ready() {
            match self.core.next_task() {
                Some(Task::Session(id)) => self.core.step(id, now),
                _ => break,
            }
            self.meet_backends()?;
        }
        self.core.expire(now);
        self.core.shed();
        self.meet_backends()?;
        self.core.take_released();
        self.core.member.rest();
        if self.scenario.publish > 0 && self.turns.is_multiple_of(self.scenario.publish as u64) {
            self.hub.publish(self.plan.build());
        }
        self.most_blocks = self.most_blocks.max(self.core.blocks() / self.core.sessions().max(1));
        checks::after_turn(self)?;
        for conn in &mut self.conns {
            conn.check_overread(self.net.sockets().get(conn.socket).record())?;
        }
        let moved = self.moved();
        self.still = if news || moved != self.moved { 0 } else { self.still + 1 };
        self.moved = moved;
        let timers_pass = self.core.ready() == 0 && self.core.next_due().is_none_or(|due| due > self.now);
        if self.still > 8 && !timers_pass {
            return Err(format!("{} turns in a row at {now:?} with no event and no byte: it spins", self.still));
        }
        Ok(())
    }

    fn moved(&self) -> u64 {
        let mut sockets = self.net.sockets();
        (0..sockets.len()).map(|at| *sockets.get(at).record()).map(|record| record.taken + record.sent).sum()
    }

    /// Wake-ups for nothing: doubled, stale, or for links that are gone.
    fn stray(&mut self) {
        if self.scenario.stray == 0 || self.tokens.is_empty() || !self.dice.percent(self.scenario.stray) {
            return;
        }
        let link = self.dice.pick(&self.tokens);
        let ready = {
            let mut sockets = self.net.sockets();
            let of = (0..sockets.len()).rev().find(|at| sockets.get(*at).link() == Some(link));
            match of.map(|at| sockets.get(at)) {
                // What a live link is told is always true.
                Some(socket) if socket.record().closed_at.is_none() => socket.tell(),
                _ => Ready::IN.with(Ready::OUT).with(Ready::ERR).with(Ready::RDHUP),
            }
        };
        self.core.latch(link, ready);
    }

    fn admit(&mut self) -> Result<bool, String> {
        let mut any = false;
        for client in self.outside.clone() {
            if !self.has_arrived(client) || self.core.is_full() || self.dice.percent(20) {
                continue;
            }
            let cap = self.hub.current().listeners[0].connections.clone();
            let (Some(process), Some(own)) = (self.process.take(), cap.take()) else {
                return Err("there is no limit, and it is reached".into());
            };
            self.outside.retain(|at| *at != client);
            let spec = &self.scenario.clients[client];
            let (stream, number) = self.net.accepted(spec.shape.socket(State::Open));
            let first = self.ledger.first[client];
            self.callers.push(Caller::new(number, spec, first..first + spec.asks.len(), self.now));
            self.plan_panic(number);
            let address = SocketAddr::from(([192, 0, 2, client as u8 + 1], 4_000));
            let arrival = Arrival { stream, client: address, listener: ListenerId(0), permits: (process, own) };
            self.core.admit(arrival);
            any = true;
        }
        Ok(any)
    }

    fn plan_panic(&mut self, number: usize) {
        if let Some((_, call)) = self.scenario.panics.iter().find(|panics| panics.0 == number) {
            self.net.sockets().get(number).panic_at(*call);
        }
    }

    /// Makes the far ends of the connects that were asked for since.
    fn meet_backends(&mut self) -> Result<(), String> {
        let dialled: Vec<Dialled> = std::mem::take(&mut self.net.sockets().dialled);
        for Dialled { socket, .. } in dialled {
            self.dials += 1;
            let Some((meets, shape)) = self.planned.borrow_mut().pop_front() else {
                return Err("a connect that nobody planned".into());
            };
            let Some(number) = socket else { continue };
            let ends = match meets {
                Meets::Refuses(wait, error) => wait.map(|wait| (wait, Some(error))),
                Meets::Serves(wait) if wait > 0 => Some((wait, None)),
                _ => None,
            };
            self.connects.extend(ends.map(|(wait, error)| (Tick(self.now.0 + wait), number, error)));
            self.conns.push(Conn::new(number, shape, meets, self.now));
            self.plan_panic(number);
        }
        Ok(())
    }

    /// Every session ends: some time after the last act of anybody, or the last byte.
    fn check_age(&self) -> Result<(), String> {
        if self.core.sessions() == 0 {
            return Ok(());
        }
        let acted = self.callers.iter().map(|caller| caller.acted_at);
        let acted = acted.chain(self.conns.iter().map(|conn| conn.acted_at)).chain(self.wakes()).max();
        let moved = {
            let mut sockets = self.net.sockets();
            (0..sockets.len()).map(|at| sockets.get(at).record().moved_at).max()
        };
        let outside = self.outside.iter().map(|at| Tick(1_000 + self.scenario.clients[*at].at)).max();
        let last = acted.max(moved).max(outside).map_or(0, |at| at.0);
        let (listener, pool) = (self.scenario.listener, &self.scenario.pool);
        let tries = (pool.connect_timeout + pool.response_timeout) * (pool.retries as u64 + 2);
        let most = last + listener.idle + listener.header + listener.body + listener.tunnel + tries + SLACK;
        match self.now.0 > most {
            true => {
                Err(format!("{} sessions still live at {:?}, long after the last act", self.core.sessions(), self.now))
            }
            false => Ok(()),
        }
    }

    /// After the last session: lets everybody read what was sent before.
    fn drain(&mut self) -> Result<(), String> {
        self.callers.iter_mut().for_each(Caller::retire);
        self.connects.clear();
        for _ in 0..100_000 {
            if !self.play(100)? {
                return Ok(());
            }
        }
        Err("what was sent does not come to an end".into())
    }

    /// Idle connections are closed in time, and not before.
    fn expire_idle(&mut self) -> Result<(), String> {
        // A tick more, since nobody knows where in its tick a thing happens.
        let until = Tick(self.now.0 + self.scenario.pool.keepalive_timeout + 1);
        while let Some(next) = self.core.next_due().filter(|due| *due <= until) {
            self.advance(next);
            self.turn()?;
        }
        self.advance(until);
        self.turn()
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.hub.current()
    }
}

fn answer(
    scenario: &Scenario,
    address: SocketAddr,
    dice: &mut Dice,
    planned: &RefCell<VecDeque<(Meets, Shape)>>,
) -> Result<Socket, i32> {
    let SocketAddr::V4(v4) = address else { return Err(libc::EAFNOSUPPORT) };
    let meets = dice.pick(&scenario.pool.backends[usize::from(v4.ip().octets()[2])].meets);
    let shape = dice.pick(&scenario.pool.shapes);
    let socket = match meets {
        Meets::Fails(error) => Err(error),
        Meets::Serves(0) | Meets::Slams(..) => Ok(shape.socket(State::Open)),
        Meets::Serves(_) | Meets::Refuses(..) => Ok(shape.socket(State::Connecting)),
    };
    planned.borrow_mut().push_back((meets, shape));
    socket
}
