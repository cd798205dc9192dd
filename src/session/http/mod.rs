//! A client that speaks HTTP/1: one request after the other, each an [`Exchange`] of its own.
//!
//! Knows: heads, bodies, whose turn it is to speak. Must not touch: threads, the poll.
//! Read `Http::turn` first: it reads a head, hands it to an exchange, and takes the connection back from it.

mod admin;
mod download;
mod exchange;
mod gate;
mod head;
mod upload;

pub use exchange::{Exchange, Spare};

use crate::base::blocks::Chain;
use crate::base::ids::{BackendSlot, LinkId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::guard::Permit;
use crate::link::{Link, Net, Read, Stream};
use crate::relay::{Flushed, Outbox, Relay, SCRATCH};
use crate::session::{Books, Close, Context, Outcome, Phase, Tunnel, Turn, Who};
use crate::wire::http1::{Failure, HeadScan, write_error};
use admin::Desk;
use exchange::Step;

/// Bytes read at once: what is sent on may be a little longer than what was read, and must fit an outbox.
const READ: usize = SCRATCH - 8 * 1024;
/// How long, in milliseconds, and for how many bytes, a client is listened to after the last answer, so that the answer
/// is not destroyed by a reset for what it still sends (RFC 9112, section 9.6).
const LINGER: u64 = 2_000;
const LINGER_BYTES: usize = 1 << 20;
/// How long a client that acknowledges nothing more is waited for before it is cut, in milliseconds; and how often that
/// is looked at.
const CUT_PATIENCE: u64 = 1_000;
const CUT_STEP: u64 = 5;
/// Requests served in one turn, so that a client that pipelines starves no other.
const BUDGET: usize = 16;

/// A client's connection.
pub struct Http {
    /// Read and not consumed.
    inbox: Chain,
    /// Written and not taken.
    outbox: Outbox,
    /// How far the head in the inbox has been searched.
    scan: HeadScan,
    state: State,
    /// When the connection came, or its last response ended.
    since: Tick,
    /// When the first byte of the present head came.
    head_since: Option<Tick>,
    /// A request has been served.
    served: bool,
    /// What the next answer of our own tells as Retry-After, in seconds.
    retry_after: Option<u64>,
    private: Private,
}

/// Idle connections to backends that were told of this client by a PROXY header: nobody else may use them.
#[derive(Default)]
struct Private(Vec<Kept>);

/// One of them, under a place of its backend's cap.
struct Kept {
    backend: BackendSlot,
    link: LinkId,
    /// When it has been idle for long enough.
    due: Tick,
    _place: Permit,
}

/// Kept of these at the most.
const PRIVATE: usize = 8;

enum State {
    /// Waiting for a request.
    Head,
    /// Serving one.
    Busy(Box<Exchange>),
    /// Serving one for the admin API.
    Admin(Box<Desk>),
    /// The last answer is on its way, and then the connection ends.
    Leaving(Leaving),
    /// A response broke: what was sent is waited for, and then the connection is cut.
    Cutting { until: Tick, unsent: usize },
}

struct Leaving {
    /// Whether the client may still send, so that it must be listened to.
    linger: bool,
    shut: bool,
    until: Tick,
    left: usize,
}

/// What became of a turn of a connection.
enum Go {
    On,
    Wait(Tick),
    Again(Tick),
    Done(Close),
}

impl Http {
    /// A connection that has sent nothing yet, or `inbox`.
    pub(super) fn new(inbox: Chain, now: Tick) -> Http {
        Http {
            inbox,
            outbox: Outbox::default(),
            scan: HeadScan::default(),
            state: State::Head,
            since: now,
            head_since: None,
            served: false,
            retry_after: None,
            private: Private::default(),
        }
    }

    /// Serves as far as it can now.
    pub(super) fn turn<N: Net>(mut self, who: &mut Who, cx: &mut Context<'_, N>) -> Turn {
        let mut served = 0;
        self.private.prune(cx.now, cx.links);
        loop {
            let go = match std::mem::replace(&mut self.state, State::Head) {
                State::Head if !self.outbox.is_empty() => self.deliver(who, cx),
                State::Head => {
                    served += 1;
                    if served > BUDGET {
                        // The rest of what it pipelined waits behind the others.
                        let due = self.head_due(who, cx);
                        return Turn::Stop(Outcome::Again(Phase::Http(self), due));
                    }
                    self.read_head(who, cx)
                }
                State::Busy(mut exchange) => {
                    match exchange.turn(&mut self.inbox, &mut self.outbox, &mut self.private, who, cx) {
                        Step::Wait(due) => {
                            self.state = State::Busy(exchange);
                            Go::Wait(due)
                        }
                        Step::Again(due) => {
                            self.state = State::Busy(exchange);
                            Go::Again(due)
                        }
                        Step::Done { keep, sends } => {
                            exchange.finish(who, cx);
                            self.served = true;
                            self.since = cx.now;
                            if !keep {
                                self.leave(who, cx, sends);
                            }
                            Go::On
                        }
                        Step::Fail(failure) => {
                            let (head, stay) = (exchange.asked_head(), exchange.may_stay() && !cx.draining);
                            self.retry_after = exchange.retry_after();
                            exchange.finish(who, cx);
                            self.answer(failure.status, failure.why, head, stay, who, cx);
                            Go::On
                        }
                        Step::Break => {
                            exchange.finish(who, cx);
                            cx.count.cut.add(1);
                            self.state = State::Cutting { until: Tick(cx.now.0 + CUT_PATIENCE), unsent: usize::MAX };
                            Go::On
                        }
                        Step::Gone => {
                            exchange.finish(who, cx);
                            cx.count.cut.add(1);
                            Go::Done(Close::Clean)
                        }
                        Step::Tunnel { link, lease, pool } => {
                            exchange.finish(who, cx);
                            self.private.clear(cx.links);
                            let relay = Relay::seeded(
                                std::mem::take(&mut self.inbox),
                                std::mem::take(&mut self.outbox).into_chain(),
                            );
                            who.idle_timeout =
                                cx.snapshot.listener(who.listener).map_or(who.idle_timeout, |l| l.http.tunnel_timeout);
                            return Turn::Go(Phase::Tunnel(Tunnel::upgraded(pool, link, lease, relay, who, cx.now)));
                        }
                    }
                }
                State::Admin(desk) => self.attend(desk, who, cx),
                State::Leaving(leaving) => self.linger(leaving, who, cx),
                State::Cutting { until, unsent } => self.cut(until, unsent, who, cx),
            };
            match go {
                Go::On => {}
                Go::Wait(due) => return Turn::Stop(Outcome::Wait(Phase::Http(self), due)),
                Go::Again(due) => return Turn::Stop(Outcome::Again(Phase::Http(self), due)),
                Go::Done(close) => {
                    self.inbox.clear(cx.blocks);
                    self.outbox.clear(cx.blocks);
                    self.private.clear(cx.links);
                    return Turn::Stop(Outcome::Done(close));
                }
            }
        }
    }

    /// Answers before anything was asked: its client has as many connections as it may have. Who knows when one of those
    /// ends; a second is as good as anything.
    pub(super) fn turn_away<N: Net>(mut self, who: &mut Who, cx: &mut Context<'_, N>) -> Turn {
        self.retry_after = Some(1);
        self.refuse(429, "this client has too many connections here", false, who, cx);
        self.turn(who, cx)
    }

    /// Answers with an error of our own; the connection ends after it.
    fn refuse<N: Net>(&mut self, status: u16, why: &str, head: bool, who: &Who, cx: &mut Context<'_, N>) {
        cx.books().refused(who);
        self.answer(status, why, head, false, who, cx);
    }

    /// Answers with an error of our own. `stay`: the request was whole, and the client may send another.
    fn answer<N: Net>(&mut self, status: u16, why: &str, head: bool, stay: bool, who: &Who, cx: &mut Context<'_, N>) {
        cx.out.clear();
        let retry_after = self.retry_after.take().or((status == 503).then_some(1));
        let failure = Failure { status, why, close: !stay, head, retry_after, ..Failure::default() };
        write_error(cx.out, &failure);
        cx.books().answered(who, cx.out.len());
        log::debug!("client {}: {status}: {why}", who.address);
        if let Some(client) = cx.links.get_mut(who.client) {
            self.outbox.put([cx.out, &[]], client, cx.blocks);
        }
        if stay {
            self.served = true;
            self.since = cx.now;
            self.state = State::Head;
        } else {
            self.leave(who, cx, true);
        }
    }

    /// An answer of our own that a slow client has not taken yet: its next request waits behind that.
    fn deliver<N: Net>(&mut self, who: &Who, cx: &mut Context<'_, N>) -> Go {
        let due = self.head_due(who, cx);
        let Some(client) = cx.links.get_mut(who.client) else { return Go::Done(Close::Clean) };
        match self.outbox.flush(client, cx.blocks) {
            Flushed::All => Go::On,
            Flushed::Full if cx.now < due => Go::Wait(due),
            Flushed::Full => Go::Done(Close::Cut),
            Flushed::Broken => Go::Done(Close::Clean),
        }
    }

    fn leave<N: Net>(&mut self, who: &Who, cx: &mut Context<'_, N>, linger: bool) {
        let more = !self.inbox.is_empty() || cx.links.get(who.client).is_some_and(Link::readable);
        let linger = linger || more;
        self.inbox.clear(cx.blocks);
        self.state =
            State::Leaving(Leaving { linger, shut: false, until: Tick(cx.now.0 + LINGER), left: LINGER_BYTES });
    }

    fn linger<N: Net>(&mut self, mut leaving: Leaving, who: &Who, cx: &mut Context<'_, N>) -> Go {
        let Some(client) = cx.links.get_mut(who.client) else { return Go::Done(Close::Clean) };
        match self.outbox.flush(client, cx.blocks) {
            Flushed::Broken => return Go::Done(Close::Clean),
            Flushed::Full if cx.now < leaving.until => {}
            Flushed::Full => return Go::Done(Close::Cut),
            Flushed::All if !leaving.linger => return Go::Done(Close::Clean),
            Flushed::All => {
                if !leaving.shut {
                    client.shutdown();
                    leaving.shut = true;
                }
            }
        }
        while client.readable() && leaving.left > 0 {
            match client.recv(cx.scratch) {
                Read::Bytes(n) => leaving.left = leaving.left.saturating_sub(n),
                Read::Empty => break,
                Read::End | Read::Broken if leaving.shut => return Go::Done(Close::Clean),
                Read::End | Read::Broken => break,
            }
        }
        if leaving.left == 0 || cx.now >= leaving.until {
            return Go::Done(Close::Clean);
        }
        let until = leaving.until;
        self.state = State::Leaving(leaving);
        Go::Wait(until)
    }

    fn cut<N: Net>(&mut self, mut until: Tick, last: usize, who: &Who, cx: &mut Context<'_, N>) -> Go {
        let Some(client) = cx.links.get_mut(who.client) else { return Go::Done(Close::Cut) };
        let flushed = self.outbox.flush(client, cx.blocks);
        let unsent = client.unsent() + self.outbox.len();
        if flushed == Flushed::Broken || unsent == 0 {
            return Go::Done(Close::Cut);
        }
        if unsent != last {
            until = Tick(cx.now.0 + CUT_PATIENCE);
        }
        if cx.now >= until {
            return Go::Done(Close::Cut);
        }
        self.state = State::Cutting { until, unsent };
        Go::Wait(Tick(cx.now.0 + CUT_STEP))
    }

    /// True while its request waits in line with the ticket of that number.
    pub(super) fn waits_with(&self, number: u64) -> bool {
        matches!(&self.state, State::Busy(exchange) if exchange.waits_with(number))
    }

    /// Accounts for a request that is cut short.
    pub(super) fn abandon(&self, who: &Who, books: Books<'_>) {
        if let State::Busy(exchange) = &self.state {
            exchange.account(who, books);
        }
    }

    /// True while it holds bytes for a slow reader.
    pub(super) fn holds_blocks(&self) -> bool {
        !self.inbox.is_empty() || !self.outbox.is_empty() || matches!(&self.state, State::Busy(e) if e.holds_blocks())
    }
}

impl Private {
    /// A connection to `backend` that is still open.
    fn take<S: Stream>(
        &mut self,
        backend: BackendSlot,
        now: Tick,
        links: &mut Slab<LinkId, Link<S>>,
    ) -> Option<LinkId> {
        self.prune(now, links);
        let at = self.0.iter().position(|kept| kept.backend == backend)?;
        Some(self.0.swap_remove(at).link)
    }

    fn put<S: Stream>(&mut self, kept: Kept, links: &mut Slab<LinkId, Link<S>>) {
        if self.0.len() < PRIVATE {
            self.0.push(kept);
        } else {
            links.remove(kept.link);
        }
    }

    /// Closes those that their backends have closed, or that have been idle for long enough.
    fn prune<S: Stream>(&mut self, now: Tick, links: &mut Slab<LinkId, Link<S>>) {
        self.0.retain(|kept| {
            let open = now < kept.due && links.get_mut(kept.link).is_some_and(Link::is_quiet);
            if !open {
                links.remove(kept.link);
            }
            open
        });
    }

    /// When the next one has been idle for long enough.
    fn due(&self) -> Tick {
        self.0.iter().map(|kept| kept.due).min().unwrap_or(Tick::NEVER)
    }

    fn clear<S: Stream>(&mut self, links: &mut Slab<LinkId, Link<S>>) {
        for kept in self.0.drain(..) {
            links.remove(kept.link);
        }
    }
}

/// True when a client that is left alone has broken.
fn is_broken<S: Stream>(client: &mut Link<S>) -> bool {
    client.notice_break()
}
