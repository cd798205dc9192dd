//! Bytes both ways, as they are, until both sides are done.

use crate::base::ids::{LinkId, PoolId};
use crate::base::time::Tick;
use crate::guard;
use crate::link::{Net, Side};
use crate::probe::Health;
use crate::relay::{Relay, Turn as Moved};
use crate::session::books::Verdict;
use crate::session::{Books, Close, Context, Outcome, Phase, Who, report};
use crate::shared::backend::Lease;

/// How long a reset waits for a peer that acknowledges nothing more of what was sent before it, in milliseconds.
const LAME_PATIENCE: u64 = 1_000;
/// How often that is looked at, in milliseconds: no event tells of it.
const LAME_STEP: u64 = 5;

/// Bytes move both ways.
pub struct Tunnel {
    relay: Relay,
    pool: PoolId,
    backend: LinkId,
    lease: Lease,
    idle_due: Tick,
    /// The backend has been judged: it answered, or left without a byte.
    judged: bool,
    /// It left without a byte.
    silent: bool,
    lame: Option<Lame>,
}

/// One side was reset, and the other still has to acknowledge what came before.
struct Lame {
    unsent: usize,
    until: Tick,
}

impl Tunnel {
    /// A tunnel to the backend that was leased.
    pub(super) fn new(pool: PoolId, backend: LinkId, lease: Lease, relay: Relay, who: &Who, now: Tick) -> Tunnel {
        let idle_due = now.after(who.idle_timeout);
        Tunnel { relay, pool, backend, lease, idle_due, judged: false, silent: false, lame: None }
    }

    /// A tunnel that an exchange turned into: its backend has answered already.
    pub(super) fn upgraded(pool: PoolId, backend: LinkId, lease: Lease, relay: Relay, who: &Who, now: Tick) -> Tunnel {
        Tunnel { judged: true, ..Tunnel::new(pool, backend, lease, relay, who, now) }
    }

    /// True while it holds bytes for a slow reader.
    pub(super) fn holds_blocks(&self) -> bool {
        self.relay.holds_blocks()
    }

    /// Moves what can be moved.
    pub(super) fn turn<N: Net>(mut self, who: &Who, cx: &mut Context<'_, N>) -> Outcome {
        let closes = || cx.snapshot.pool(self.pool).is_some_and(|pool| pool.close_on_down);
        if self.lease.backend().health() == Health::Down && closes() {
            cx.count.cut.add(1);
            return self.done(Close::Cut, Verdict::Failed, who, cx);
        }
        if self.lease.backend().is_cut() {
            cx.count.cut.add(1);
            return self.done(Close::Cut, Verdict::Aborted, who, cx);
        }
        let Some((client, backend)) = cx.links.pair_mut(who.client, self.backend) else {
            return self.done(Close::Cut, Verdict::Aborted, who, cx);
        };
        let before = (self.relay.up(), self.relay.down(), self.relay.held());
        let moved = self.relay.turn(client, backend, cx.scratch, cx.blocks);
        let (up, down) = (self.relay.up() - before.0, self.relay.down() - before.1);
        if up | down != 0 {
            cx.count.bytes_in.add(up);
            cx.count.bytes_out.add(down);
            cx.books().moved(who, Some(self.pool), Some(&self.lease), up, down);
        }
        // A slow reader that still takes what was read long ago is not silent.
        if up | down != 0 || self.relay.held() != before.2 {
            self.idle_due = cx.now.after(who.idle_timeout);
        }
        if !self.judged {
            self.judge(cx);
        }
        match moved {
            Moved::Again => {
                let due = self.idle_due;
                return Outcome::Again(Phase::Tunnel(self), due);
            }
            Moved::Done => {
                cx.count.ended.add(1);
                return self.done(Close::Clean, Verdict::Succeeded, who, cx);
            }
            Moved::Broken => {
                cx.count.cut.add(1);
                return self.done(Close::Cut, Verdict::Aborted, who, cx);
            }
            Moved::Lame(side) => {
                if let Some(due) = self.still_lame(side, who, cx) {
                    return Outcome::Wait(Phase::Tunnel(self), due);
                }
                cx.count.cut.add(1);
                // The side that is left to be reset is not the one that broke.
                let verdict = if side == Side::Client { Verdict::Failed } else { Verdict::Aborted };
                return self.done(Close::Cut, verdict, who, cx);
            }
            Moved::Wait => {}
        }
        if cx.now >= self.idle_due {
            cx.count.idle.add(1);
            log::debug!("client {}: silent for {:?}, closed", who.address, who.idle_timeout);
            // Bytes that were read and never written must not seem to be all there were.
            let unsent =
                [who.client, self.backend].iter().any(|id| cx.links.get(*id).is_some_and(|link| link.unsent() > 0));
            let close = if unsent || self.relay.holds_blocks() { Close::Cut } else { Close::Clean };
            // Silence is nobody's failure.
            return self.done(close, Verdict::Succeeded, who, cx);
        }
        let due = self.idle_due;
        Outcome::Wait(Phase::Tunnel(self), due)
    }

    /// What the first bytes, or their absence, say about the backend.
    fn judge<N: Net>(&mut self, cx: &Context<'_, N>) {
        let outcome = match (self.relay.down() > 0, self.relay.backend_left_silently()) {
            (true, _) => Some(guard::Outcome::Success),
            (false, true) => Some(guard::Outcome::Failure),
            (false, false) => None,
        };
        if let (Some(outcome), Some(pool)) = (outcome, cx.snapshot.pool(self.pool)) {
            report(&mut self.lease, outcome, pool, cx.now);
        }
        let state = self.lease.backend();
        if self.relay.down() > 0 {
            self.judged = true;
            if state.answered() {
                log::info!("pool {}: backend {} answers again", self.pool_name(cx), self.name(cx));
            }
        } else if self.relay.backend_left_silently() {
            self.judged = true;
            self.silent = true;
            cx.count.failed.add(1);
            if let Some(wait) = state.failed(cx.now) {
                let (pool, name) = (self.pool_name(cx), self.name(cx));
                log::warn!(
                    "pool {pool}: backend {name} closed without a response; others are preferred for {} s",
                    wait / 1000
                );
            }
        }
    }

    /// When to look again whether the other side has acknowledged everything; `None` when it has, or is given up.
    fn still_lame<N: Net>(&mut self, side: Side, who: &Who, cx: &mut Context<'_, N>) -> Option<Tick> {
        let link = cx.links.get_mut(match side {
            Side::Client => who.client,
            Side::Backend => self.backend,
        })?;
        let unsent = link.unsent();
        if unsent == 0 {
            return None;
        }
        let until = match &self.lame {
            // A reader that is slow is not one that has stopped.
            Some(lame) if unsent == lame.unsent => lame.until,
            _ => Tick(cx.now.0 + LAME_PATIENCE),
        };
        self.lame = Some(Lame { unsent, until });
        (cx.now < until).then_some(Tick(cx.now.0 + LAME_STEP))
    }

    /// Accounts for it as cut.
    pub(super) fn abandon(&self, who: &Who, books: Books<'_>) {
        self.account(Verdict::Aborted, who, books);
    }

    fn account(&self, verdict: Verdict, who: &Who, books: Books<'_>) {
        // A backend that took the connection and left without a byte has failed, however well that looked.
        let verdict = if self.silent { Verdict::Failed } else { verdict };
        books.try_ends(&self.lease, verdict);
        books.end(who, Some(self.pool), verdict);
    }

    fn done<N: Net>(mut self, close: Close, verdict: Verdict, who: &Who, cx: &mut Context<'_, N>) -> Outcome {
        if verdict == Verdict::Failed
            && !self.silent
            && let Some(pool) = cx.snapshot.pool(self.pool)
        {
            report(&mut self.lease, guard::Outcome::Failure, pool, cx.now);
        }
        self.account(verdict, who, cx.books());
        self.relay.clear(cx.blocks);
        if close == Close::Cut
            && let Some(backend) = cx.links.get_mut(self.backend)
        {
            backend.set_cut();
        }
        cx.close(self.backend);
        Outcome::Done(close)
    }

    fn pool_name<'a, N: Net>(&self, cx: &'a Context<'_, N>) -> &'a str {
        cx.snapshot.pool(self.pool).map_or("?", |pool| &pool.name)
    }

    fn name<'a, N: Net>(&self, cx: &'a Context<'_, N>) -> &'a str {
        cx.snapshot.pool(self.pool).map_or("?", |pool| pool.name_of(self.lease.backend().slot))
    }
}
