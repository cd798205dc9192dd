//! Sessions of datagrams: who sent to which listening socket, and the socket towards a backend that answers for it.
//!
//! Knows: listening sockets, flows, pools. Must not touch: threads, the poll, the clock (`now` is told).
//! Read [`Flows`] first, then `up` (from clients), `reach` (to a backend, and to another one), `down` (to clients) and
//! `account` (what it all comes to).
//!
//! A flow is one client address at one listening socket; behind a wildcard, at one local address, since it is answered
//! from there. It has a socket of its own that is connected to its backend: so the kernel tells its replies from those of
//! others, keeps strangers out, and tells of ICMP errors. Nothing is ever held back: a datagram goes on at once, or is
//! dropped and counted.

mod account;
mod down;
mod flow;
mod hand;
mod reach;
mod up;

#[cfg(test)]
mod hand_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use crate::base::ids::{BackendSlot, FlowId, ListenerId, SocketId, WorkerId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::base::wheel::Wheel;
use crate::guard::Cap;
use crate::link::datagram::{Batch, MOST_SEGMENTS, Net, Part, Slots};
use crate::shared::snapshot::Snapshot;
use crate::stats::{Cell, Counter};
use account::Ending;
use flow::{Flow, Key, Upstream};
use rustc_hash::FxHashMap;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Datagrams received by one call, and replies gathered for one.
const SLOTS: usize = 64;
/// How long a flow that drains may be silent, in milliseconds.
const DRAIN_IDLE: u64 = 1_000;
/// The entry of a flow in the wheel lies at most so far ahead, in milliseconds: what a flow that ended early leaves
/// behind there is gone soon, and a flow that stays is looked at seldom enough.
const LOOK: u64 = 4_000;
/// How soon the same may be warned of again, in milliseconds.
const QUIET: u64 = 60_000;
/// A table, or queue, with room for fewer than this is not worth making smaller.
const SMALL: usize = 1_024;

/// What a turn works with, lent by the worker.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time of this turn.
    pub now: Tick,
    /// What is in force.
    pub snapshot: &'a Snapshot,
    /// The process's max_connections.
    pub process: &'a Arc<Cap>,
    /// What is counted in.
    pub count: &'a Cell,
    /// Who it is.
    pub worker: WorkerId,
}

/// A listening socket.
pub struct Front<S> {
    /// Which address it is at.
    id: SocketId,
    /// Which one it is of those at its address.
    slot: u32,
    /// The poll tells of it.
    pub watched: bool,
    /// Flows at that address, in all workers.
    flows: Arc<Cap>,
    /// Nobody begins a flow here any more.
    shut: bool,
    /// Its listener in the snapshot.
    pub listener: ListenerId,
    /// The socket, non-blocking.
    pub socket: S,
    queued: bool,
    /// When to try again after errors; [`Tick::NEVER`] while it is well.
    retry: Tick,
    /// Its flows, while neither it nor they are read: another process is taking them over.
    frozen: Option<Vec<FlowId>>,
    /// Replies that were gathered in this turn, and for each message whose it is.
    down: Batch,
    owners: Vec<down::Owner>,
}

impl<S> Front<S> {
    /// The only socket of `listener`.
    pub fn new(listener: ListenerId, socket: S) -> Front<S> {
        Front::of((SocketId(0), 0), listener, socket, Cap::new(0))
    }

    /// A socket of `listener`: of those at the address `id` the one of that slot. `flows` counts all flows of the address.
    pub fn of((id, slot): (SocketId, u32), listener: ListenerId, socket: S, flows: Arc<Cap>) -> Front<S> {
        let most = SLOTS * down::PARTS;
        Front {
            id,
            slot,
            watched: false,
            flows,
            shut: false,
            listener,
            socket,
            queued: false,
            retry: Tick::NEVER,
            frozen: None,
            down: Batch::new(most),
            owners: Vec::with_capacity(most),
        }
    }
}

/// Who is ready to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Front(usize),
    Flow(FlowId),
}

/// Why a client's datagram goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    NoBackend,
    OverLimit,
    Limited,
    Draining,
    Empty,
    Truncated,
    TooBig,
    WouldBlock,
    Refused,
    Failed,
}

impl Dropped {
    fn counter(self, count: &Cell) -> &Counter {
        match self {
            Dropped::NoBackend => &count.udp_no_backend,
            Dropped::OverLimit => &count.udp_over_limit,
            Dropped::Limited => &count.udp_limited,
            Dropped::Draining => &count.udp_draining,
            Dropped::Empty => &count.udp_empty,
            Dropped::Truncated => &count.udp_truncated,
            Dropped::TooBig => &count.udp_too_big,
            Dropped::WouldBlock => &count.udp_would_block,
            Dropped::Refused => &count.udp_refused,
            Dropped::Failed => &count.udp_failed,
        }
    }
}

/// Everything of UDP that one worker owns.
pub struct Flows<N: Net> {
    net: N,
    /// By place; a place may be free.
    fronts: Vec<Option<Front<N::Socket>>>,
    flows: Slab<FlowId, Flow<N::Socket>>,
    /// The flow that a client's next datagram belongs to. Whoever sends chooses the keys, so the hash cannot be foreseen.
    table: HashMap<Key, FlowId>,
    queue: VecDeque<Task>,
    wheel: Wheel<FlowId>,
    fired: Vec<(Tick, FlowId)>,
    /// Where datagrams of clients lie while they are forwarded.
    inbox: Slots,
    /// The run in hand: its parts, or its datagrams one by one.
    run: Vec<Part>,
    /// Datagrams in hand that are neither forwarded nor dropped yet.
    in_hand: u64,
    /// What leaves towards a backend.
    up: Batch,
    /// Where replies lie until they are sent, and how many slots are taken.
    replies: Slots,
    taken: usize,
    /// Of backends with several addresses, the one that did not refuse.
    preferred: FxHashMap<BackendSlot, usize>,
    random: fastrand::Rng,
    draining: bool,
}

impl<N: Net> Flows<N> {
    /// A worker's share of UDP: its listening sockets, by place, and no flow yet.
    pub fn new(net: N, fronts: Vec<Front<N::Socket>>, now: Tick) -> Self {
        // Without a listening socket nothing is ever received.
        let slots = if fronts.is_empty() { 0 } else { SLOTS };
        Flows {
            net,
            fronts: fronts.into_iter().map(Some).collect(),
            flows: Slab::new(),
            table: HashMap::new(),
            queue: VecDeque::new(),
            wheel: Wheel::new(now),
            fired: Vec::new(),
            inbox: Slots::new(slots),
            run: Vec::new(),
            in_hand: 0,
            up: Batch::new(slots.min(MOST_SEGMENTS)),
            replies: Slots::new(slots),
            taken: 0,
            preferred: FxHashMap::default(),
            random: fastrand::Rng::new(),
            draining: false,
        }
    }

    /// How many flows live.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// True when no flow lives.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// How many are ready to be read.
    pub fn ready(&self) -> usize {
        self.queue.len()
    }

    /// Something has come in on a listening socket.
    pub fn latch_front(&mut self, at: usize) {
        if let Some(front) = self.front(at)
            && !front.queued
        {
            front.queued = true;
            self.queue.push_back(Task::Front(at));
        }
    }

    /// Something may have come in on any listening socket.
    pub fn latch_all(&mut self) {
        for at in 0..self.fronts.len() {
            self.latch_front(at);
        }
    }

    /// Something has come in on the socket of a flow, or an error waits there.
    #[inline]
    pub fn latch(&mut self, id: FlowId) {
        // A flow that has ended since is nobody's business any more.
        if let Some(flow) = self.flows.get_mut(id)
            && !flow.queued
        {
            flow.queued = true;
            self.queue.push_back(Task::Flow(id));
        }
    }

    /// Reads who is ready, each within its budget; who has more waits for the next turn.
    pub fn turn(&mut self, cx: Context<'_>) {
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(Task::Front(at)) => self.read_front(at, cx),
                Some(Task::Flow(id)) => {
                    if catch_unwind(AssertUnwindSafe(|| self.read_flow(id, cx))).is_err() {
                        self.bury(Some(id), cx);
                    }
                }
                None => break,
            }
        }
        self.flush(cx);
        if self.queue.is_empty() && self.queue.capacity() > SMALL {
            self.queue = VecDeque::new();
        }
    }

    /// When the next timer may be due.
    pub fn next_due(&self) -> Option<Tick> {
        let retries = self.fronts.iter().flatten().map(|front| front.retry).filter(|retry| *retry != Tick::NEVER);
        self.wheel.next().into_iter().chain(retries).min()
    }

    /// Runs the timers that are due: flows that were silent for too long end.
    pub fn expire(&mut self, cx: Context<'_>) {
        let now = cx.now;
        for at in 0..self.fronts.len() {
            if let Some(front) = self.front(at)
                && front.retry <= now
            {
                front.retry = Tick::NEVER;
                self.latch_front(at);
            }
        }
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(now, &mut fired);
        for (at, id) in fired.drain(..) {
            let Some(flow) = self.flows.get_mut(id) else { continue };
            // An entry that was overtaken by an earlier one counts no more.
            if at != flow.wheel_at {
                continue;
            }
            if flow.due > now {
                if let Some(pool) = cx.snapshot.pool(flow.pool) {
                    flow.note_silence(pool, now);
                }
                self.look_again(id, now);
            } else {
                self.end(id, Ending::Over, cx);
            }
        }
        if fired.capacity() <= SMALL {
            self.fired = fired;
        }
    }

    /// From now on nobody begins a flow, and those that live end as soon as they are silent for a moment.
    pub fn drain(&mut self, now: Tick) {
        self.draining = true;
        let ids: Vec<FlowId> = self.flows.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(flow) = self.flows.get_mut(id) else { continue };
            flow.idle = flow.idle.min(DRAIN_IDLE);
            flow.due = flow.due.min(flow.next_due(now));
            if flow.due < flow.wheel_at {
                self.look_again(id, now);
            }
        }
    }

    /// Ends every flow at once; returns how many there were.
    pub fn cut_all(&mut self, cx: Context<'_>) -> usize {
        let ids: Vec<FlowId> = self.flows.iter().map(|(id, _)| id).collect();
        for id in &ids {
            self.end(*id, Ending::Cut, cx);
        }
        ids.len()
    }

    /// Ends the flows of backends that have drained for long enough: the next datagram of each client begins another. Returns
    /// how many there were.
    pub fn end_cut(&mut self, cx: Context<'_>) -> usize {
        let is_cut = |flow: &Flow<N::Socket>| match &flow.upstream {
            Upstream::One(connected) => connected.lease.backend().is_cut(),
            Upstream::Each(_) => false,
        };
        let ids: Vec<FlowId> = self.flows.iter().filter(|(_, flow)| is_cut(flow)).map(|(id, _)| id).collect();
        for id in &ids {
            self.end(*id, Ending::Cut, cx);
        }
        ids.len()
    }

    /// The listening sockets, so that they can outlive the flows.
    pub fn into_fronts(self) -> Vec<Front<N::Socket>> {
        self.fronts.into_iter().flatten().collect()
    }

    /// The listening socket at that place.
    pub fn front(&mut self, at: usize) -> Option<&mut Front<N::Socket>> {
        self.fronts.get_mut(at)?.as_mut()
    }

    /// Where listening sockets are.
    pub fn places(&self) -> std::ops::Range<usize> {
        0..self.fronts.len()
    }

    /// Where the listening sockets of an address are: one, but where those of another process were taken over.
    pub fn places_of(&self, id: SocketId) -> Vec<usize> {
        let is_of = |front: &Option<Front<N::Socket>>| front.as_ref().is_some_and(|front| front.id == id);
        self.fronts.iter().enumerate().filter(|(_, front)| is_of(front)).map(|(at, _)| at).collect()
    }

    /// Where a listening socket is.
    pub fn place_of(&self, id: SocketId, slot: u32) -> Option<usize> {
        let is_it = |front: &Front<N::Socket>| (front.id, front.slot) == (id, slot);
        self.fronts.iter().position(|front| front.as_ref().is_some_and(is_it))
    }

    /// A place for another listening socket.
    pub fn place_for_front(&mut self) -> usize {
        self.fronts.iter().position(Option::is_none).unwrap_or_else(|| {
            self.fronts.push(None);
            self.fronts.len() - 1
        })
    }

    /// One more listening socket, at a place that [`Flows::place_for_front`] gave.
    pub fn add_front(&mut self, at: usize, front: Front<N::Socket>) {
        if self.inbox.count() == 0 {
            (self.inbox, self.replies) = (Slots::new(SLOTS), Slots::new(SLOTS));
            self.up = Batch::new(SLOTS.min(MOST_SEGMENTS));
        }
        self.fronts[at] = Some(front);
    }

    /// From now on a listening socket is that of `listener`, and flows begin there.
    pub fn rename_front(&mut self, id: SocketId, listener: ListenerId) {
        for front in self.fronts.iter_mut().flatten().filter(|front| front.id == id) {
            (front.listener, front.shut) = (listener, false);
        }
    }

    /// From now on nobody begins a flow at a listening socket; those that live go on.
    pub fn shut_front(&mut self, id: SocketId) {
        for front in self.fronts.iter_mut().flatten().filter(|front| front.id == id) {
            front.shut = true;
        }
    }

    /// Closes a listening socket, and ends the flows that may be there still.
    pub fn drop_front(&mut self, id: SocketId, cx: Context<'_>) {
        for at in self.places_of(id) {
            let there = self.flows.iter().filter(|(_, flow)| flow.key.front as usize == at);
            let there: Vec<FlowId> = there.map(|(id, _)| id).collect();
            for id in there {
                self.end(id, Ending::Cut, cx);
            }
            self.fronts[at] = None;
        }
    }

    /// Puts the entry of a flow into the wheel that counts from now on.
    fn look_again(&mut self, id: FlowId, now: Tick) {
        if let Some(flow) = self.flows.get_mut(id) {
            flow.wheel_at = Tick(flow.due.0.min(now.0 + LOOK));
            self.wheel.insert(flow.wheel_at, id);
        }
    }

    /// Ends a flow, and accounts for it: its socket closes, and its permits and its lease go back.
    fn end(&mut self, id: FlowId, how: Ending, cx: Context<'_>) {
        let Some(mut flow) = self.flows.remove(id) else { return };
        self.unlist(&flow.key, id);
        self.close(&mut flow, how, cx);
    }

    /// The next datagram of that client begins another flow.
    fn unlist(&mut self, key: &Key, id: FlowId) {
        if self.table.get(key) != Some(&id) {
            return;
        }
        self.table.remove(key);
        if self.table.capacity() > SMALL && self.table.len() < self.table.capacity() / 8 {
            // Twice what is used, so that the next time comes only after half of it has left.
            self.table.shrink_to(self.table.len() * 2);
        }
    }

    /// A step of ours has panicked: takes down the flow it was for, and goes on.
    fn bury(&mut self, id: Option<FlowId>, cx: Context<'_>) {
        cx.count.panics.add(1);
        log::error!("a udp session ended in a panic; this is a bug, please report it with the lines above");
        if let Some(id) = id {
            self.end(id, Ending::Cut, cx);
        }
    }

    /// As milliseconds: how long a flow of a listener with this idle_timeout may be silent.
    fn idle_of(&self, timeout: Duration) -> u64 {
        // Rounded up, as `Tick::after` does.
        let idle = u64::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        if self.draining { idle.min(DRAIN_IDLE) } else { idle }
    }
}
