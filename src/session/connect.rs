//! From a pool to a connected backend: pick, try, and try another.

use crate::balance::Key;
use crate::base::blocks::Chain;
use crate::base::ids::{BackendSlot, PoolId};
use crate::base::time::Tick;
use crate::guard;
use crate::link::{Link, Net};
use crate::relay::Relay;
use crate::session::books::Verdict;
use crate::session::{
    Books, Close, Context, Outcome, Phase, Queued, Tunnel, Turn, Who, key, limits, report, write_proxy,
};
use crate::shared::backend::{BackendState, Lease};
use crate::shared::choose::{For, NoBackend};
use crate::shared::snapshot::Pool;
use crate::upstream::{Attempt, Progress};
use std::io;
use std::sync::Arc;

/// A backend is leased, and its socket is not yet writable.
pub struct Connect {
    pool: PoolId,
    lease: Lease,
    /// The id of the backend, for the log.
    name: Arc<str>,
    attempt: Attempt,
    /// What the client has sent already, behind its PROXY header.
    inbox: Chain,
    /// Backends that failed for this client. Allocates only once one has.
    tried: Vec<BackendSlot>,
    /// When the first backend was picked, and this one, in nanoseconds.
    began: (u64, u64),
}

/// What went before a pick.
pub(super) struct Before {
    /// Backends that failed for this client.
    tried: Vec<BackendSlot>,
    /// When the first backend was picked, in nanoseconds; `None`: this is the first.
    began: Option<u64>,
    /// Who failed last.
    failed: Option<Arc<BackendState>>,
    /// What it comes to if nobody else is found.
    pub(super) verdict: Verdict,
}

impl Default for Before {
    fn default() -> Self {
        Before { tried: Vec::new(), began: None, failed: None, verdict: Verdict::Refused }
    }
}

impl Connect {
    /// Picks the first backend.
    pub(super) fn begin<N: Net>(pool: PoolId, inbox: Chain, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        cx.books().begin(who, Some(pool));
        let limit = cx.snapshot.pool(pool).and_then(|pool| pool.rate_limit.as_ref());
        if !limits::of_connection(limit, who, cx) {
            cx.count.limited.add(1);
            cx.books().end(who, Some(pool), Verdict::Refused);
            return Turn::Stop(Outcome::Done(Close::Clean));
        }
        if let Some(pool) = cx.snapshot.pool(pool) {
            pool.budget.request(cx.now);
        }
        // Those who wait came before.
        if cx.snapshot.pool(pool).is_some_and(|pool| pool.queue.is_waited_in()) {
            return Queued::begin(pool, inbox, Before::default(), who, cx);
        }
        match Connect::pick(pool, !inbox.is_empty(), &Before::default(), who, cx) {
            Ok(connect) => connect.with(inbox).turn(who, cx),
            Err(NoBackend::AllFull) => Queued::begin(pool, inbox, Before::default(), who, cx),
            Err(reason) => unserved(pool, who, cx, Verdict::Refused, &format_args!("{reason:?}")),
        }
    }

    /// The same with what the client has sent already.
    pub(super) fn with(self, inbox: Chain) -> Connect {
        Connect { inbox, ..self }
    }

    /// Picks a backend that was not tried `before`. `waits`: something of the client's is at hand for it.
    pub(super) fn pick<N: Net>(
        pool: PoolId,
        waits: bool,
        before: &Before,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Result<Connect, NoBackend> {
        let plan = cx.snapshot.pool(pool).ok_or(NoBackend::NoneThere)?;
        let key = if plan.hashes() { key::of_client(who.address.ip()) } else { Key::default() };
        let picked = plan.pick(cx.now, For { key, tried: &before.tried, random: cx.random })?;
        let backend = &plan.backends[picked.place];
        // The client's first bytes have often come before its backend is dialled, since that waits for a turn.
        let waits = waits || cx.links.get(who.client).is_some_and(Link::readable);
        let speaks_first = waits || plan.send_proxy.is_some();
        let attempt = Attempt::new(backend.addresses.clone(), cx.now, plan.connect_timeout, speaks_first);
        let now = cx.net.nanos();
        let began = (before.began.unwrap_or(now), now);
        cx.books().try_begins(who, &picked.lease);
        if before.failed.is_some() {
            cx.count.retried.add(1);
            cx.books().retried(who, Some(pool), before.failed.as_deref());
        }
        let (name, inbox, tried) = (backend.id.clone(), Chain::default(), before.tried.clone());
        Ok(Connect { pool, lease: picked.lease, name, attempt, inbox, tried, began })
    }

    /// Goes on: connected, to the next backend, or nobody left.
    pub(super) fn turn<N: Net>(mut self, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        loop {
            // A client that has only ended its side still waits for an answer; one that broke does not.
            if cx.links.get_mut(who.client).is_none_or(|client| client.notice_break()) {
                self.attempt.abandon(cx.links);
                cx.count.cut.add(1);
                self.abandon(who, cx.books());
                return Turn::Stop(Outcome::Done(Close::Clean));
            }
            let progress = self.attempt.turn(cx.net, cx.links, who.id, cx.now);
            let local = progress.is_local();
            match progress {
                Progress::Wait(due) => return Turn::Stop(Outcome::Wait(Phase::Connect(self), due)),
                Progress::Connected(link) => {
                    let now = cx.net.nanos();
                    let (whole, last) = (now.saturating_sub(self.began.0), now.saturating_sub(self.began.1));
                    cx.books().latency(who, Some(self.pool), Some(&self.lease), whole, last);
                    self.lease.backend().estimate.sample(last as f64, cx.now.0);
                    let inbox = self.introduce(who, cx);
                    let relay = Relay::seeded(inbox, Chain::default());
                    return Turn::Go(Phase::Tunnel(Tunnel::new(self.pool, link, self.lease, relay, who, cx.now)));
                }
                Progress::Failed(error) => {
                    cx.count.failed.add(1);
                    self.note_failure(&error, local, cx.now, cx);
                    let verdict = Verdict::of_failure(local);
                    cx.books().try_ends(&self.lease, verdict);
                    let retries = cx.snapshot.pool(self.pool).map_or(0, |pool| pool.retries as usize);
                    let inbox = self.inbox;
                    let mut tried = self.tried;
                    tried.push(self.lease.backend().slot);
                    // Its place is given back before another is looked for.
                    let failed = self.lease.state();
                    drop(self.lease);
                    let within = |pool: &Pool| pool.budget.retry(cx.now, pool.retry_budget);
                    if tried.len() > retries || !cx.snapshot.pool(self.pool).is_some_and(within) {
                        return unserved(self.pool, who, cx, verdict, &error);
                    }
                    let before = Before { tried, began: Some(self.began.0), failed: Some(failed), verdict };
                    self = match Connect::pick(self.pool, !inbox.is_empty(), &before, who, cx) {
                        Ok(next) => next.with(inbox),
                        Err(NoBackend::AllFull) => return Queued::begin(self.pool, inbox, before, who, cx),
                        Err(_) => return unserved(self.pool, who, cx, verdict, &error),
                    };
                }
            }
        }
    }

    /// Accounts for it as given up.
    pub(super) fn abandon(&self, who: &Who, books: Books<'_>) {
        books.try_ends(&self.lease, Verdict::Aborted);
        books.end(who, Some(self.pool), Verdict::Aborted);
    }

    /// What the backend gets first: a PROXY header, if its pool sends one, and what the client has sent already.
    fn introduce<N: Net>(&mut self, who: &Who, cx: &mut Context<'_, N>) -> Chain {
        let inbox = std::mem::take(&mut self.inbox);
        let version = cx.snapshot.pool(self.pool).and_then(|pool| pool.send_proxy);
        let (Some(version), Some(client)) = (version, cx.links.get(who.client)) else { return inbox };
        cx.out.clear();
        write_proxy(version, who, client, cx.out);
        let have = inbox.peek(cx.scratch);
        let mut first = Chain::default();
        let held = first.push(cx.out, cx.blocks).and_then(|()| first.push(&cx.scratch[..have], cx.blocks));
        if held.is_err()
            && let Some(client) = cx.links.get_mut(who.client)
        {
            // Out of memory: bytes are lost, so the stream must not seem whole.
            client.give_up();
        }
        let mut inbox = inbox;
        inbox.clear(cx.blocks);
        first
    }

    fn note_failure<N: Net>(&mut self, error: &io::Error, local: bool, now: Tick, cx: &Context<'_, N>) {
        let outcome = if local { guard::Outcome::Nothing } else { guard::Outcome::Failure };
        if let Some(pool) = cx.snapshot.pool(self.pool) {
            report(&mut self.lease, outcome, pool, now);
        }
        let pool = cx.snapshot.pool(self.pool).map_or("?", |pool| &pool.name);
        if local {
            // Nothing was learnt about the backend.
            log::warn!("pool {pool}: cannot connect to {}: {error} (a shortage on this side)", self.name);
        } else if let Some(wait) = self.lease.backend().failed(now) {
            log::warn!(
                "pool {pool}: backend {} failed: {error}; others are preferred for {} s",
                self.name,
                wait / 1000
            );
        }
    }
}

/// The end of a client that nobody can serve.
pub(super) fn unserved<N: Net>(
    pool: PoolId,
    who: &Who,
    cx: &mut Context<'_, N>,
    verdict: Verdict,
    why: &dyn std::fmt::Display,
) -> Turn {
    cx.count.unserved.add(1);
    cx.books().end(who, Some(pool), verdict);
    let pool = cx.snapshot.pool(pool).map_or("?", |pool| &pool.name);
    log::debug!("client {}: pool {pool} has no backend for it: {why}", who.address);
    Turn::Stop(Outcome::Done(Close::Clean))
}
