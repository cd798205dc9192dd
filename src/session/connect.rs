//! From a pool to a connected backend: pick, try, and try another.

use crate::balance::Key;
use crate::base::blocks::Chain;
use crate::base::ids::{BackendSlot, PoolId};
use crate::base::time::Tick;
use crate::guard;
use crate::link::{Link, Net};
use crate::relay::Relay;
use crate::session::{Close, Context, Outcome, Phase, Queued, Tunnel, Turn, Who, key, report, write_proxy};
use crate::shared::backend::Lease;
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
}

impl Connect {
    /// Picks the first backend.
    pub(super) fn begin<N: Net>(pool: PoolId, inbox: Chain, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        if let Some(pool) = cx.snapshot.pool(pool) {
            pool.budget.request(cx.now);
        }
        // Those who wait came before.
        if cx.snapshot.pool(pool).is_some_and(|pool| pool.queue.is_waited_in()) {
            return Queued::begin(pool, inbox, Vec::new(), who, cx);
        }
        match Connect::pick(pool, !inbox.is_empty(), Vec::new(), who, cx) {
            Ok(connect) => connect.with(inbox).turn(who, cx),
            Err(NoBackend::AllFull) => Queued::begin(pool, inbox, Vec::new(), who, cx),
            Err(reason) => unserved(pool, who, cx, &format_args!("{reason:?}")),
        }
    }

    /// The same with what the client has sent already.
    pub(super) fn with(self, inbox: Chain) -> Connect {
        Connect { inbox, ..self }
    }

    /// Picks a backend that is not in `tried`. `waits`: something of the client's is at hand for it.
    pub(super) fn pick<N: Net>(
        pool: PoolId,
        waits: bool,
        tried: Vec<BackendSlot>,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Result<Connect, NoBackend> {
        let plan = cx.snapshot.pool(pool).ok_or(NoBackend::NoneThere)?;
        let key = if plan.hashes() { key::of_client(who.address.ip()) } else { Key::default() };
        let picked = plan.pick(cx.now, For { key, tried: &tried, random: cx.random })?;
        let backend = &plan.backends[picked.place];
        // The client's first bytes have often come before its backend is dialled, since that waits for a turn.
        let waits = waits || cx.links.get(who.client).is_some_and(Link::readable);
        let speaks_first = waits || plan.send_proxy.is_some();
        let attempt = Attempt::new(backend.addresses.clone(), cx.now, plan.connect_timeout, speaks_first);
        Ok(Connect { pool, lease: picked.lease, name: backend.id.clone(), attempt, inbox: Chain::default(), tried })
    }

    /// Goes on: connected, to the next backend, or nobody left.
    pub(super) fn turn<N: Net>(mut self, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        loop {
            // A client that has only ended its side still waits for an answer; one that broke does not.
            if cx.links.get_mut(who.client).is_none_or(|client| client.notice_break()) {
                self.attempt.abandon(cx.links);
                cx.count.cut.add(1);
                return Turn::Stop(Outcome::Done(Close::Clean));
            }
            let progress = self.attempt.turn(cx.net, cx.links, who.id, cx.now);
            let local = progress.is_local();
            match progress {
                Progress::Wait(due) => return Turn::Stop(Outcome::Wait(Phase::Connect(self), due)),
                Progress::Connected(link) => {
                    let inbox = self.introduce(who, cx);
                    let relay = Relay::seeded(inbox, Chain::default());
                    return Turn::Go(Phase::Tunnel(Tunnel::new(self.pool, link, self.lease, relay, who, cx.now)));
                }
                Progress::Failed(error) => {
                    cx.count.failed.add(1);
                    self.note_failure(&error, local, cx.now, cx);
                    let retries = cx.snapshot.pool(self.pool).map_or(0, |pool| pool.retries as usize);
                    let inbox = self.inbox;
                    let mut tried = self.tried;
                    tried.push(self.lease.backend().slot);
                    drop(self.lease);
                    let within = |pool: &Pool| pool.budget.retry(cx.now, pool.retry_budget);
                    if tried.len() > retries || !cx.snapshot.pool(self.pool).is_some_and(within) {
                        return unserved(self.pool, who, cx, &error);
                    }
                    self = match Connect::pick(self.pool, !inbox.is_empty(), tried.clone(), who, cx) {
                        Ok(next) => next.with(inbox),
                        Err(NoBackend::AllFull) => {
                            cx.count.retried.add(1);
                            return Queued::begin(self.pool, inbox, tried, who, cx);
                        }
                        Err(_) => return unserved(self.pool, who, cx, &error),
                    };
                    cx.count.retried.add(1);
                }
            }
        }
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
pub(super) fn unserved<N: Net>(pool: PoolId, who: &Who, cx: &mut Context<'_, N>, why: &dyn std::fmt::Display) -> Turn {
    cx.count.unserved.add(1);
    let pool = cx.snapshot.pool(pool).map_or("?", |pool| &pool.name);
    log::debug!("client {}: pool {pool} has no backend for it: {why}", who.address);
    Turn::Stop(Outcome::Done(Close::Clean))
}
