//! The account of datagrams: what sessions add to the tallies of their listener, their pool and their backends.
//!
//! A session begins with the datagram that opens it and ends once; so does each try of a backend for it. Where each datagram
//! is a session (`udp_requests = 1`) nobody hears of an end: one is over when it is answered or refused, when the next one
//! goes the same way, or with the flow. Silence is nobody's failure, unless so many replies were asked for.

use crate::base::ids::{FlowId, ListenerId, PoolId};
use crate::base::time::Tick;
use crate::guard::Outcome;
use crate::link::datagram::{Net, Part};
use crate::session::books::Verdict;
use crate::session::udp::flow::{Connected, Flow, Known, Scattered, Trial, Upstream};
use crate::session::udp::{Context, Dropped, Flows};
use crate::session::{PENALTY, report, tell};
use crate::shared::backend::{BackendState, Lease};
use crate::shared::snapshot::Pool;
use crate::stats::Tally;
use std::net::SocketAddr;
use std::sync::Arc;

/// A datagram that stands alone and is not answered for so long, in milliseconds, counts as one with a slow answer; one
/// that tries a backend for its breaker and is not refused in this time, as good.
const SILENCE: u64 = 1_000;
/// What is expected of a backend that was sent to and has never answered, in nanoseconds.
const UNHEARD: f64 = 1e6;

/// How a flow came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It has had its replies, or was silent for long enough.
    Over,
    /// We ended it: for a shortage, or since the time of a drain was over.
    Cut,
}

impl Dropped {
    /// What a session comes to whose first datagram was dropped.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Dropped::NoBackend | Dropped::OverLimit | Dropped::Limited | Dropped::Draining | Dropped::Empty => {
                Verdict::Refused
            }
            Dropped::Refused => Verdict::Failed,
            Dropped::Truncated | Dropped::TooBig | Dropped::WouldBlock | Dropped::Failed => Verdict::Aborted,
        }
    }
}

impl<'a> Context<'a> {
    /// The tallies of a listener and a pool, as far as they are still there.
    pub(super) fn tallies(self, listener: ListenerId, pool: PoolId) -> impl Iterator<Item = &'a Tally> + Clone {
        let listener = self.snapshot.listener(listener).map(|listener| listener.tallies.of(self.worker));
        let pool = self.snapshot.pool(pool).map(|pool| pool.tallies.of(self.worker));
        listener.into_iter().chain(pool)
    }

    /// The tally of a backend.
    pub(super) fn of_backend(self, state: &BackendState) -> &Tally {
        state.tallies.of(self.worker)
    }

    /// A backend was picked.
    pub(super) fn try_begins(self, state: &BackendState) {
        self.of_backend(state).sessions.add(1);
    }

    /// It served, or it did not.
    pub(super) fn try_ends(self, state: &BackendState, verdict: Verdict) {
        verdict.add(self.of_backend(state), 1);
    }
}

/// Sessions that were dropped with their first datagrams.
pub(super) fn dropped<'a>(tallies: impl Iterator<Item = &'a Tally>, datagrams: usize, why: Dropped) {
    for tally in tallies {
        tally.sessions.add(datagrams as u64);
        why.verdict().add(tally, datagrams as u64);
    }
}

/// A session goes to another backend since `failed` has failed it.
pub(super) fn retried<'a>(tallies: impl Iterator<Item = &'a Tally>, failed: &BackendState, cx: Context<'_>) {
    tallies.for_each(|tally| tally.retries.add(1));
    cx.of_backend(failed).retries.add(1);
}

impl<S> Connected<S> {
    /// How it went with this backend; `silence` where it has neither answered nor refused.
    pub(super) fn verdict(&self, silence: Verdict) -> Verdict {
        match (self.refused, self.replies) {
            (true, _) => Verdict::Failed,
            (false, 0) => silence,
            _ => Verdict::Succeeded,
        }
    }

    /// Tells the breaker how it went, also where that has heard of this session before.
    pub(super) fn report(&mut self, outcome: Outcome, pool: &Pool, now: Tick) {
        match self.lease.is_untold() {
            true => report(&mut self.lease, outcome, pool, now),
            false => tell(self.lease.backend(), outcome, pool, now),
        }
    }

    /// It has sent replies. Returns how long the first of them took, in nanoseconds; `nanos` reads the clock.
    pub(super) fn answered(&mut self, datagrams: u64, pool: &Pool, now: Tick, nanos: impl Fn() -> u64) -> Option<u64> {
        let first = self.replies == 0;
        self.replies += datagrams;
        self.lease.backend().answered();
        // Nearly always there is nothing to tell any more.
        if self.refused || self.lease.is_untold() {
            self.report(Outcome::Success, pool, now);
        }
        self.refused = false;
        self.refusals = 0;
        if !first {
            return None;
        }
        let took = nanos().saturating_sub(self.asked.0);
        self.lease.backend().estimate.sample(took as f64, now.0);
        Some(took)
    }
}

impl Known {
    pub(super) fn new(state: Arc<BackendState>) -> Known {
        Known { state, open: false, asked: None, trial: None }
    }

    /// A session there has come to this, if one is open.
    pub(super) fn ends<'a>(&mut self, verdict: Verdict, tallies: impl Iterator<Item = &'a Tally>, cx: Context<'_>) {
        if std::mem::take(&mut self.open) {
            tallies.for_each(|tally| verdict.add(tally, 1));
            cx.try_ends(&self.state, verdict);
        }
    }

    /// Takes note of a datagram that goes there.
    fn asks(&mut self, now: Tick, nanos: impl Fn() -> u64) {
        let estimate = &self.state.estimate;
        match self.asked {
            Some((_, since)) if now.0 - since.0 < SILENCE => return,
            // Who never answers must not look better with time, for nothing else tells of it here.
            Some(_) => estimate.failure(PENALTY, now.0),
            None if estimate.is_unknown() => estimate.sample(UNHEARD, now.0),
            None => {}
        }
        self.asked = Some((nanos(), now));
    }

    /// Tells the breaker of its backend.
    pub(super) fn report(&mut self, outcome: Outcome, trials: &mut usize, pool: &Pool, now: Tick) {
        match self.trial.take() {
            Some(Trial { mut lease, .. }) => {
                *trials -= 1;
                report(&mut lease, outcome, pool, now);
            }
            None => tell(&self.state, outcome, pool, now),
        }
    }
}

impl<S> Flow<S> {
    /// Tells breakers of backends that have been silent for long enough: no event does. Where replies are asked for, that
    /// is a failure. Else a trial was good: who never answers could never close its breaker.
    pub(super) fn note_silence(&mut self, pool: &Pool, now: Tick) {
        match &mut self.upstream {
            Upstream::One(connected) => {
                let silent = connected.replies == 0 && connected.requests > 0 && !connected.refused;
                if !silent || !connected.lease.is_untold() {
                    return;
                }
                let since = now.0.saturating_sub(connected.asked.1.0);
                if pool.udp.responses > 0 && since >= self.idle {
                    connected.report(Outcome::Failure, pool, now);
                } else if pool.udp.responses == 0 && since >= SILENCE && connected.lease.is_trial() {
                    connected.report(Outcome::Success, pool, now);
                }
            }
            Upstream::Each(each) => {
                let Scattered { known, trials, .. } = &mut **each;
                if *trials == 0 {
                    return;
                }
                for known in known.values_mut() {
                    if known.trial.as_ref().is_some_and(|trial| trial.until <= now) {
                        known.report(Outcome::Success, trials, pool, now);
                    }
                }
            }
        }
    }
}

impl<N: Net> Flows<N> {
    /// The tallies that a flow counts in.
    pub(super) fn tallies_of<'a>(
        &self,
        flow: &Flow<N::Socket>,
        cx: Context<'a>,
    ) -> impl Iterator<Item = &'a Tally> + Clone + use<'a, N> {
        cx.tallies(flow.listener, flow.pool)
    }

    /// A datagram of a flow that sends to all backends has gone to one of them.
    pub(super) fn sent_alone(
        &mut self,
        id: FlowId,
        part: Part,
        to: SocketAddr,
        state: &Arc<BackendState>,
        lease: Lease,
        cx: Context<'_>,
    ) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        let tallies = cx.tallies(flow.listener, flow.pool);
        let Upstream::Each(each) = &mut flow.upstream else { return };
        let known = each.known.entry((to.ip(), to.port())).or_insert_with(|| Known::new(state.clone()));
        // The last one that went there was not refused.
        known.ends(Verdict::Succeeded, tallies, cx);
        known.open = true;
        known.asks(cx.now, || self.net.nanos());
        if lease.is_trial() && known.trial.is_none() {
            known.trial = Some(Trial { lease, until: Tick(cx.now.0 + SILENCE) });
            each.trials += 1;
        }
        let tally = cx.of_backend(state);
        tally.datagrams_in.add(1);
        tally.bytes_in.add(part.len as u64);
    }

    /// Accounts for a flow that has ended.
    pub(super) fn close(&self, flow: &mut Flow<N::Socket>, how: Ending, cx: Context<'_>) {
        let tallies = self.tallies_of(flow, cx);
        let pool = cx.snapshot.pool(flow.pool);
        match &mut flow.upstream {
            Upstream::One(connected) => {
                let waited = pool.is_some_and(|pool| pool.udp.responses > 0);
                let silence = match how {
                    Ending::Over if connected.requests > 0 && !waited => Verdict::Succeeded,
                    Ending::Over if connected.requests > 0 && !self.draining => Verdict::Failed,
                    _ => Verdict::Aborted,
                };
                let verdict = match how {
                    Ending::Over => connected.verdict(silence),
                    Ending::Cut => Verdict::Aborted,
                };
                if let Some(pool) = pool
                    && !connected.refused
                    && connected.replies == 0
                {
                    match verdict {
                        Verdict::Failed => connected.report(Outcome::Failure, pool, cx.now),
                        // Who never answers could never close its breaker.
                        Verdict::Succeeded if connected.lease.is_trial() => {
                            connected.report(Outcome::Success, pool, cx.now);
                        }
                        _ => {}
                    }
                }
                cx.try_ends(connected.lease.backend(), verdict);
                let whole = match how {
                    // One that was answered before it went to its last backend was served.
                    Ending::Over if flow.answered && !connected.refused => Verdict::Succeeded,
                    _ => verdict,
                };
                tallies.for_each(|tally| whole.add(tally, 1));
            }
            Upstream::Each(each) => {
                let verdict = if how == Ending::Over { Verdict::Succeeded } else { Verdict::Aborted };
                for known in each.known.values_mut() {
                    known.ends(verdict, tallies.clone(), cx);
                    if let Some(pool) = pool.filter(|_| known.trial.is_some() && how == Ending::Over) {
                        known.report(Outcome::Success, &mut each.trials, pool, cx.now);
                    }
                }
            }
        }
    }
}
