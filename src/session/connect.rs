//! From a pool to a connected backend: pick, try, and try another.

use crate::base::ids::{BackendSlot, PoolId};
use crate::base::time::Tick;
use crate::link::Net;
use crate::session::{Close, Context, Outcome, Phase, Tunnel, Turn, Who};
use crate::shared::backend::Lease;
use crate::shared::snapshot::NoBackend;
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
    /// Backends that failed for this client. Allocates only once one has.
    tried: Vec<BackendSlot>,
}

impl Connect {
    /// Picks the first backend.
    pub(super) fn begin<N: Net>(pool: PoolId, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        match Connect::pick(pool, Vec::new(), cx) {
            Ok(connect) => connect.turn(who, cx),
            Err(reason) => unserved(pool, who, cx, &format_args!("{reason:?}")),
        }
    }

    fn pick<N: Net>(pool: PoolId, tried: Vec<BackendSlot>, cx: &Context<'_, N>) -> Result<Connect, NoBackend> {
        let plan = cx.snapshot.pool(pool).ok_or(NoBackend::NoneThere)?;
        let picked = plan.pick(cx.now, &tried)?;
        let backend = &plan.backends[picked.place];
        let attempt = Attempt::new(backend.addresses.clone(), cx.now, plan.connect_timeout);
        Ok(Connect { pool, lease: picked.lease, name: backend.id.clone(), attempt, tried })
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
                    return Turn::Go(Phase::Tunnel(Tunnel::new(self.pool, link, self.lease, who, cx.now)));
                }
                Progress::Failed(error) => {
                    cx.count.failed.add(1);
                    self.note_failure(&error, local, cx.now, cx);
                    let retries = cx.snapshot.pool(self.pool).map_or(0, |pool| pool.retries as usize);
                    let mut tried = self.tried;
                    tried.push(self.lease.backend().slot);
                    drop(self.lease);
                    if tried.len() > retries {
                        return unserved(self.pool, who, cx, &error);
                    }
                    self = match Connect::pick(self.pool, tried, cx) {
                        Ok(next) => next,
                        Err(_) => return unserved(self.pool, who, cx, &error),
                    };
                    cx.count.retried.add(1);
                }
            }
        }
    }

    fn note_failure<N: Net>(&self, error: &io::Error, local: bool, now: Tick, cx: &Context<'_, N>) {
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

fn unserved<N: Net>(pool: PoolId, who: &Who, cx: &mut Context<'_, N>, why: &dyn std::fmt::Display) -> Turn {
    cx.count.unserved.add(1);
    let pool = cx.snapshot.pool(pool).map_or("?", |pool| &pool.name);
    log::debug!("client {}: pool {pool} has no backend for it: {why}", who.address);
    Turn::Stop(Outcome::Done(Close::Clean))
}
