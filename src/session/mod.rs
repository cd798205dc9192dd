//! One client from its first byte to the account.
//!
//! Knows: links, pools, relaying. Must not touch: threads, the poll, how it is woken.
//! Read [`Phase`] and [`step`] first.

mod books;
mod connect;
pub mod http;
mod key;
mod limits;
mod proxied;
mod queued;
mod tunnel;
pub mod udp;
mod waiting;

use crate::base::blocks::{Chain, Pool as Blocks};
use crate::base::ids::{LinkId, ListenerId, SessionId, WorkerId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::guard::{self, BreakerState, ClientPermit};
use crate::link::{Link, Net, Stream};
use crate::shared::admin::Answer;
use crate::shared::backend::{BackendState, Lease};
use crate::shared::mail::{ControlMail, canonical};
use crate::shared::snapshot::{Pool, Protocol, Snapshot};
use crate::stats::Cell;
use crate::upstream::Idle;
use crate::wire::proxy;
use crossbeam_channel::Sender;
use http::Spare;
use std::net::SocketAddr;
use std::time::Duration;

pub use books::Books;
pub use connect::Connect;
pub use http::Http;
pub use proxied::Proxied;
pub use queued::Queued;
pub use tunnel::Tunnel;
pub use waiting::{LOOK, Waiting};

/// Where a session waits. No lease without a backend, no tunnel without two links.
pub enum Phase {
    /// It has just been accepted, and nothing was done yet.
    Arrived,
    /// Every backend is full: it waits in line.
    Queued(Queued),
    /// A backend is leased, and its socket is not yet writable.
    Connect(Connect),
    /// The PROXY header is read.
    Proxied(Proxied),
    /// Bytes move both ways.
    Tunnel(Tunnel),
    /// Requests come, one after the other.
    Http(Http),
}

impl Phase {
    /// True while it waits in line with the ticket of that number.
    pub fn waits_with(&self, number: u64) -> bool {
        match self {
            Phase::Queued(at) => at.has_ticket(number),
            Phase::Http(at) => at.waits_with(number),
            _ => false,
        }
    }

    /// True while it holds blocks: bytes for a slow reader, or from a slow writer.
    pub fn holds_blocks(&self) -> bool {
        match self {
            Phase::Proxied(_) | Phase::Queued(_) => true,
            Phase::Arrived | Phase::Connect(_) => false,
            Phase::Tunnel(at) => at.holds_blocks(),
            Phase::Http(at) => at.holds_blocks(),
        }
    }

    /// Takes what control has answered; false when nothing was asked.
    pub fn answer(&mut self, answer: Answer) -> bool {
        match self {
            Phase::Http(at) => at.take_answer(answer),
            _ => false,
        }
    }

    /// Accounts for what it was about, when its session is ended from outside.
    pub fn abandon(&self, who: &Who, books: Books<'_>) {
        match self {
            Phase::Arrived | Phase::Proxied(_) => {}
            Phase::Queued(at) => at.abandon(who, books),
            Phase::Connect(at) => at.abandon(who, books),
            Phase::Tunnel(at) => at.abandon(who, books),
            Phase::Http(at) => at.abandon(who, books),
        }
    }
}

/// What stays the same while a session lives.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// This session.
    pub id: SessionId,
    /// Its client's link.
    pub client: LinkId,
    /// Where the client comes from; behind accept_proxy, what its PROXY header told.
    pub address: SocketAddr,
    /// Where it meant to go, if a PROXY header told that.
    pub destination: Option<SocketAddr>,
    /// Where it arrived.
    pub listener: ListenerId,
    /// How long it may be silent.
    pub idle_timeout: Duration,
}

/// What a step works with, lent by the worker.
pub struct Context<'a, N: Net> {
    /// The time of this turn.
    pub now: Tick,
    /// The worker is to end with its last session, or the listener has left the configuration: nobody is asked to stay.
    pub draining: bool,
    /// Where links come from.
    pub net: &'a mut N,
    /// All links of the worker.
    pub links: &'a mut Slab<LinkId, Link<N::Stream>>,
    /// Idle connections to backends.
    pub idle: &'a mut Idle,
    /// Exchanges nobody uses just now.
    pub spare: &'a mut Spare,
    /// Its blocks.
    pub blocks: &'a mut Blocks,
    /// What is written before it is sent: heads, chunks.
    pub out: &'a mut Vec<u8>,
    /// A path in its normal form.
    pub path: &'a mut String,
    /// Its scratch, [`crate::relay::SCRATCH`] bytes.
    pub scratch: &'a mut [u8],
    /// The session's place among those of its client, once that is known.
    pub permit: &'a mut Option<ClientPermit>,
    /// Who of the worker waits in line.
    pub waiting: &'a mut Waiting,
    /// Chance, for those who pick by it.
    pub random: &'a mut fastrand::Rng,
    /// What is in force.
    pub snapshot: &'a Snapshot,
    /// What it counts in.
    pub count: &'a Cell,
    /// Who it is.
    pub worker: WorkerId,
    /// Where questions for control go, if anybody answers them.
    pub control: Option<&'a Sender<ControlMail>>,
}

impl<N: Net> Context<'_, N> {
    /// Closes a link in good order: what was sent still goes out.
    fn close(&mut self, link: LinkId) {
        self.links.remove(link);
    }
}

/// What a phase came to.
enum Turn {
    /// On to this phase, at once.
    Go(Phase),
    /// It stays where it is, or the session is over.
    Stop(Outcome),
}

/// What a step came to.
pub enum Outcome {
    /// Until one of its links is ready, or this tick.
    Wait(Phase, Tick),
    /// There is more to do, and others wait for their turn.
    Again(Phase, Tick),
    /// It is over. The links to backends are closed; the client's is for the worker to close.
    Done(Close),
}

/// What a failure counts for among the times a backend takes to answer, in nanoseconds.
const PENALTY: f64 = 100e6;

/// Tells the breaker of a leased backend how it went, and the log what that changed. A failure is a slow answer, too.
fn report(lease: &mut Lease, outcome: guard::Outcome, pool: &Pool, now: Tick) {
    if outcome == guard::Outcome::Failure {
        lease.backend().estimate.failure(PENALTY, now.0);
    }
    let moved = lease.report(outcome, now);
    note_breaker(moved, lease.backend(), pool);
}

/// The same of a backend that there is no lease on any more, or whose breaker has had the word of that lease: so it learns
/// of those who were served for long and then fail.
fn tell(backend: &BackendState, outcome: guard::Outcome, pool: &Pool, now: Tick) {
    if outcome == guard::Outcome::Failure {
        backend.estimate.failure(PENALTY, now.0);
    }
    let moved = pool.breaker.and_then(|rules| backend.breaker.tell(outcome, rules, now));
    note_breaker(moved, backend, pool);
}

/// Tells the log that a breaker has moved.
fn note_breaker(moved: Option<BreakerState>, backend: &BackendState, pool: &Pool) {
    let Some(state) = moved else { return };
    let name = pool.name_of(backend.slot);
    match state {
        BreakerState::Open => log::warn!("pool {}: the circuit breaker of backend {name} has opened", pool.name),
        BreakerState::HalfOpen => {}
        BreakerState::Closed => log::info!("pool {}: the circuit breaker of backend {name} has closed", pool.name),
    }
}

/// Appends the PROXY header that tells a backend who `who` is.
fn write_proxy<S: Stream>(version: proxy::Version, who: &Who, client: &Link<S>, out: &mut Vec<u8>) {
    let here = who.destination.or_else(|| client.local_address()).map(canonical);
    match here {
        Some(here) => proxy::encode(version, who.address, here, out),
        // A client that is gone already: the backend is told that there is nobody to tell of.
        None => proxy::encode(version, who.address, who.address, out),
    }
}

/// How the client's link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// What was sent still goes out, and then the end.
    Clean,
    /// By a reset: the client must not take what it got for the whole.
    Cut,
}

/// What an arrival does first.
fn begin<N: Net>(who: &mut Who, cx: &mut Context<'_, N>) -> Turn {
    match cx.snapshot.listener(who.listener) {
        Some(listener) if listener.accept_proxy => Turn::Go(Phase::Proxied(Proxied::new(cx.now))),
        Some(_) => enter(Chain::default(), who, cx),
        None => Turn::Stop(Outcome::Done(Close::Clean)),
    }
}

/// The client is known: on to what its listener speaks. `inbox` is what it has sent so far.
fn enter<N: Net>(inbox: Chain, who: &mut Who, cx: &mut Context<'_, N>) -> Turn {
    let Some(listener) = cx.snapshot.listener(who.listener) else { return Turn::Stop(Outcome::Done(Close::Clean)) };
    if let Some(clients) = &listener.per_client {
        *cx.permit = clients.take(who.address.ip());
        if cx.permit.is_none() {
            cx.count.crowded.add(1);
            return crowded(listener.protocol, inbox, who, cx);
        }
    }
    match (listener.protocol, listener.pool) {
        (Protocol::Http, _) => Turn::Go(Phase::Http(Http::new(inbox, cx.now))),
        (Protocol::Tcp, _) if !limits::of_connection(listener.rate_limit.as_ref(), who, cx) => {
            cx.count.limited.add(1);
            turn_away(inbox, who, cx)
        }
        (Protocol::Tcp, Some(pool)) => Connect::begin(pool, inbox, who, cx),
        // What comes by UDP is no connection; it never gets here.
        (Protocol::Tcp, None) | (Protocol::Udp, _) => Turn::Stop(Outcome::Done(Close::Clean)),
    }
}

/// Its client has as many connections as it may have.
fn crowded<N: Net>(protocol: Protocol, inbox: Chain, who: &mut Who, cx: &mut Context<'_, N>) -> Turn {
    match protocol {
        Protocol::Http => Http::new(inbox, cx.now).turn_away(who, cx),
        Protocol::Tcp | Protocol::Udp => turn_away(inbox, who, cx),
    }
}

/// Closes a connection that is not let in.
fn turn_away<N: Net>(mut inbox: Chain, who: &Who, cx: &mut Context<'_, N>) -> Turn {
    inbox.clear(cx.blocks);
    cx.books().refused(who);
    Turn::Stop(Outcome::Done(Close::Clean))
}

/// Runs `phase` until it must wait or is over. An extra call is harmless, so a stale wake-up is too.
pub fn step<N: Net>(mut phase: Phase, who: &mut Who, cx: &mut Context<'_, N>) -> Outcome {
    loop {
        let turn = match phase {
            Phase::Arrived => begin(who, cx),
            Phase::Proxied(at) => at.turn(who, cx),
            Phase::Queued(at) => at.turn(who, cx),
            Phase::Connect(at) => at.turn(who, cx),
            Phase::Tunnel(at) => Turn::Stop(at.turn(who, cx)),
            Phase::Http(at) => at.turn(who, cx),
        };
        match turn {
            Turn::Go(next) => phase = next,
            Turn::Stop(outcome) => return outcome,
        }
    }
}
