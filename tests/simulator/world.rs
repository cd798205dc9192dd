//! One worker among its clients and backends: the core, driven as its thread drives it, in simulated time.

use crate::checks;
use crate::pattern::Pattern;
use crate::scenario::{Answers, Scenario};
use crate::script::Peer;
use l4lb::base::ids::{LinkId, ListenerId, SessionId, WorkerId};
use l4lb::base::time::Tick;
use l4lb::config;
use l4lb::control::Plan;
use l4lb::guard::Cap;
use l4lb::link::Ready;
use l4lb::link::scripted::{Dialled, Dice, ScriptedNet, Socket, State};
use l4lb::shared::hub::{Hub, Member};
use l4lb::shared::mail::Arrival;
use l4lb::stats::{Stats, Totals};
use l4lb::worker::core::{Core, Task};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// More than any run needs, in turns.
const MOST_TURNS: u64 = 400_000;
/// How much longer than its timeouts a session may last, in milliseconds.
const SLACK: u64 = 3_000;

/// A client and what was done for it.
pub(crate) struct Session {
    pub(crate) client: Peer,
    /// Connects made for it, and who answered.
    pub(crate) dials: Vec<Dial>,
    pub(crate) idle: u64,
    pub(crate) pool: usize,
}

pub(crate) struct Dial {
    pub(crate) backend: usize,
    pub(crate) peer: Option<Peer>,
}

/// What one run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) totals: Totals,
    pub(crate) turns: u64,
    pub(crate) events: u64,
    pub(crate) time: u64,
    /// Sessions in which both sides saw everything and a clean end.
    pub(crate) whole: u64,
    /// Resets that were passed on with everything before them.
    pub(crate) passed_on: u64,
    /// Bytes that went by a pipe.
    pub(crate) spliced: u64,
}

/// How the answer to a connect was chosen; the peer is made when the world gets to it.
struct Planned {
    connects: Option<(Tick, Option<i32>)>,
    answers: Answers,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) net: ScriptedNet,
    pub(crate) core: Core<ScriptedNet>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) now: Tick,
    pub(crate) process: Arc<Cap>,
    pub(crate) was_cut: bool,
    plan: Plan,
    hub: Arc<Hub>,
    dice: Dice,
    planned: Rc<RefCell<VecDeque<Planned>>>,
    /// Connects that end later: when, which socket, how.
    connects: Vec<(Tick, usize, Option<i32>)>,
    /// Clients that have not been accepted, by their place in the scenario.
    outside: Vec<usize>,
    /// Links that were told of, for wake-ups that come late.
    tokens: Vec<LinkId>,
    /// The client's socket of each session.
    callers: HashMap<SessionId, usize>,
    still: u32,
    moved: u64,
    turns: u64,
    events: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> World {
        let now = Tick(1_000);
        let mut plan = Plan::new(config::parse(&scenario.config(), "scenario").expect("a scenario is well-formed"), 1);
        for (at, pool) in scenario.pools.iter().enumerate() {
            for (number, backend) in pool.backends.iter().enumerate() {
                plan.resolved(Scenario::host(at, number), 80, backend.addresses.clone());
            }
        }
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
            process: Cap::new(scenario.max_connections),
            scenario,
            net,
            core,
            stats,
            sessions: Vec::new(),
            now,
            was_cut: false,
            plan,
            hub,
            planned,
            connects: Vec::new(),
            tokens: Vec::new(),
            callers: HashMap::new(),
            still: 0,
            moved: 0,
            turns: 0,
            events: 0,
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
            checks::at_rest(&self)?;
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
        let summary = Summary {
            totals: self.stats.totals(),
            turns: self.turns,
            events: self.events,
            time: self.now.0,
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
        let arrivals = self.outside.iter().any(|at| self.has_arrived(*at));
        cut || arrivals
            || self.core.ready() > 0
            || self.core.next_due().is_some_and(|due| due <= self.now)
            || self.net.sockets().have_news()
    }

    fn has_arrived(&self, client: usize) -> bool {
        let spec = &self.scenario.clients[client];
        let cap = &self.hub.current().listeners[spec.listener].connections;
        let free = |cap: &Arc<Cap>, limit: u32| limit == 0 || cap.used() < limit;
        self.now.0 >= 1_000 + spec.at
            && free(&self.process, self.scenario.max_connections)
            && free(cap, self.scenario.listeners[spec.listener].max_connections)
    }

    fn next(&self) -> Option<Tick> {
        let arrivals = self.outside.iter().map(|at| Tick(1_000 + self.scenario.clients[*at].at));
        let connects = self.connects.iter().map(|(at, ..)| *at);
        let wakes = self.peers().filter_map(|peer| peer.wakes_at(self.now));
        let cut = self.scenario.cut_at.filter(|_| !self.was_cut).map(|at| Tick(1_000 + at));
        let all = arrivals.chain(connects).chain(wakes).chain(cut).chain(self.core.next_due());
        all.filter(|at| *at > self.now).min()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.sessions.iter().flat_map(|session| {
            std::iter::once(&session.client).chain(session.dials.iter().filter_map(|dial| dial.peer.as_ref()))
        })
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
        for session in &mut self.sessions {
            let backends = session.dials.iter_mut().filter_map(|dial| dial.peer.as_mut());
            for peer in std::iter::once(&mut session.client).chain(backends) {
                let socket = sockets.get(peer.socket);
                if self.dice.percent(chance) {
                    let most = self.dice.from_to(1, peer.shape.grain);
                    busy |= socket.flow(most, now);
                }
                if self.dice.percent(chance) {
                    busy |= peer.act(socket, now, &mut self.dice)?;
                }
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
                Some(Task::Session(id)) => {
                    if let Some(number) = self.callers.get(&id) {
                        self.net.sockets().last_used = *number;
                    }
                    self.core.step(id, now);
                }
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
        checks::after_turn(self)?;
        let moved = self.moved();
        self.still = if news || moved != self.moved { 0 } else { self.still + 1 };
        self.moved = moved;
        if self.still > 8 && !self.timers_pass() {
            return Err(format!("{} turns in a row at {now:?} with no event and no byte: it spins", self.still));
        }
        Ok(())
    }

    /// Turns that only a timer caused may follow each other, if time passes.
    fn timers_pass(&self) -> bool {
        self.core.ready() == 0 && self.core.next_due().is_none_or(|due| due > self.now)
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
            let of = (0..sockets.len()).find(|at| sockets.get(*at).link() == Some(link));
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
            let spec = self.scenario.clients[client].clone();
            let listener = &self.scenario.listeners[spec.listener];
            let cap = self.hub.current().listeners[spec.listener].connections.clone();
            let (Some(process), Some(own)) = (self.process.take(), cap.take()) else {
                return Err("max_connections told that there is room, and has none".into());
            };
            self.outside.retain(|at| *at != client);
            let mut socket = spec.shape.socket(State::Open);
            if let Some(panics) = spec.panics.filter(|panics| panics.of_client) {
                socket.panic_at(panics.call);
            }
            let (stream, number) = self.net.accepted(socket);
            let sends = Pattern(1 + 2 * client as u64);
            self.sessions.push(Session {
                client: Peer::new(number, spec.shape, sends, spec.script, self.now),
                dials: Vec::new(),
                idle: listener.idle,
                pool: listener.pool,
            });
            let address = SocketAddr::from(([192, 0, 2, client as u8 + 1], 4_000));
            let id = ListenerId(spec.listener as u16);
            let arrival = Arrival { stream, client: address, listener: id, permits: (process, own) };
            if let Some(session) = self.core.admit(arrival) {
                self.callers.insert(session, number);
            }
            any = true;
        }
        Ok(any)
    }

    /// Makes the far ends of the connects that were asked for since.
    fn meet_backends(&mut self) -> Result<(), String> {
        let dialled: Vec<Dialled> = std::mem::take(&mut self.net.sockets().dialled);
        for Dialled { address, socket, after } in dialled {
            let Some(planned) = self.planned.borrow_mut().pop_front() else {
                return Err("a connect that nobody planned".into());
            };
            let mine = |session: &Session| {
                session.client.socket == after
                    || session.dials.iter().any(|dial| dial.peer.as_ref().is_some_and(|peer| peer.socket == after))
            };
            let Some(at) = self.sessions.iter().position(mine) else {
                return Err(format!("a connect for nobody, after socket {after}"));
            };
            checks::at_a_dial(self, at)?;
            let session = &mut self.sessions[at];
            let [_, _, backend, _] = match address {
                SocketAddr::V4(address) => address.ip().octets(),
                SocketAddr::V6(_) => return Err("scenarios have no IPv6".into()),
            };
            let peer = socket.map(|number| {
                // Streams of backends are told apart by their sockets.
                let sends = Pattern(2 * (number as u64 + 1) + 100);
                let (shape, script) = match planned.answers {
                    Answers::Accepts(_, shape, script) => (shape, script),
                    _ => (crate::script::Shape { window: 1, room: 1, grain: 1 }, Vec::new()),
                };
                let mut peer = Peer::new(number, shape, sends, script, self.now);
                peer.expects = Some(session.client.sends);
                session.client.expects = Some(sends);
                if let Some((wait, error)) = planned.connects {
                    self.connects.push((Tick(self.now.0 + wait.0), number, error));
                }
                peer
            });
            session.dials.push(Dial { backend: usize::from(backend), peer });
            if let (Some(number), Some(place)) = (socket, self.panics_of_backend(at)) {
                self.net.sockets().get(number).panic_at(place);
            }
        }
        Ok(())
    }

    fn panics_of_backend(&self, session: usize) -> Option<u64> {
        let client = (self.sessions[session].client.sends.0 - 1) / 2;
        let panics = self.scenario.clients[client as usize].panics?;
        (!panics.of_client).then_some(panics.call)
    }

    /// Every session ends: some time after the last act of anybody, or the last byte.
    fn check_age(&self) -> Result<(), String> {
        if self.core.sessions() == 0 {
            return Ok(());
        }
        let acted = self.peers().map(|peer| peer.acted_at.max(peer.wakes_at(self.now).unwrap_or_default())).max();
        let moved = {
            let mut sockets = self.net.sockets();
            (0..sockets.len()).map(|at| sockets.get(at).record().moved_at).max()
        };
        let outside = self.outside.iter().map(|at| Tick(1_000 + self.scenario.clients[*at].at)).max();
        let last = acted.max(moved).max(outside).map_or(0, |at| at.0);
        let idle = self.scenario.listeners.iter().map(|listener| listener.idle).max().unwrap_or(0);
        let connect = self.scenario.pools.iter().map(|pool| pool.connect_timeout * (pool.retries as u64 + 1)).max();
        let most = last + idle + connect.unwrap_or(0) + SLACK;
        match self.now.0 > most {
            true => {
                Err(format!("{} sessions still live at {:?}, long after the last act", self.core.sessions(), self.now))
            }
            false => Ok(()),
        }
    }

    /// After the last session: lets everybody read what was sent before.
    fn drain(&mut self) -> Result<(), String> {
        for session in &mut self.sessions {
            let backends = session.dials.iter_mut().filter_map(|dial| dial.peer.as_mut());
            for peer in std::iter::once(&mut session.client).chain(backends) {
                peer.retire();
            }
        }
        self.connects.clear();
        for _ in 0..100_000 {
            if !self.play(100)? {
                return Ok(());
            }
        }
        Err("what was sent does not come to an end".into())
    }

    pub(crate) fn current(&self) -> Arc<l4lb::shared::snapshot::Snapshot> {
        self.hub.current()
    }
}

/// Bytes that all sockets gave to pipes.
pub(crate) fn spliced(net: &ScriptedNet) -> u64 {
    let mut sockets = net.sockets();
    (0..sockets.len()).map(|at| sockets.get(at).record().spliced).sum()
}

fn answer(
    scenario: &Scenario,
    address: SocketAddr,
    dice: &mut Dice,
    planned: &RefCell<VecDeque<Planned>>,
) -> Result<Socket, i32> {
    let SocketAddr::V4(v4) = address else { return Err(libc::EAFNOSUPPORT) };
    let [_, pool, backend, _] = v4.ip().octets();
    let spec = &scenario.pools[usize::from(pool)].backends[usize::from(backend)];
    let answers = dice.pick(&spec.answers);
    let (socket, connects) = match &answers {
        Answers::Fails(error) => (Err(*error), None),
        Answers::Refuses(wait, error) => {
            (Ok(Socket::new(State::Connecting, 1, 1)), wait.map(|wait| (Tick(wait), Some(*error))))
        }
        Answers::Accepts(0, shape, _) => (Ok(shape.socket(State::Open)), None),
        Answers::Accepts(wait, shape, _) => (Ok(shape.socket(State::Connecting)), Some((Tick(*wait), None))),
    };
    planned.borrow_mut().push_back(Planned { connects, answers });
    socket
}
