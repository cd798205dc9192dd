//! One request and its response: from a pool to a backend, both bodies, and the account.
//!
//! Read [`Exchange::turn`] first. `upload` moves the request's body, `download` the response.

use crate::balance::Key;
use crate::base::blocks::{Chain, Pool as Blocks};
use crate::base::ids::{BackendSlot, LinkId, PoolId};
use crate::base::time::Tick;
use crate::guard::{Cap, Outcome};
use crate::link::{Link, Net, Owner, Write};
use crate::relay::Outbox;
use crate::session::books::Verdict;
use crate::session::http::download::Download;
use crate::session::http::gate::{self, Gate, Pass};
use crate::session::http::upload::Upload;
use crate::session::http::{Kept, Private};
use crate::session::waiting::Place;
use crate::session::{Books, Context, Who, report, write_proxy};
use crate::shared::backend::{BackendState, Lease};
use crate::shared::choose::{For, NoBackend, Picked};
use crate::shared::snapshot::Pool;
use crate::upstream::{Attempt, Progress};
use crate::wire::http1::{Body, Version};
use std::io::IoSlice;
use std::sync::Arc;

/// Exchanges kept for the next to come, so that a request allocates nothing.
const KEEP: usize = 256;

/// Exchanges nobody uses just now.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "what is kept is the box: a request takes one and moves it about by its pointer")]
pub struct Spare(Vec<Box<Exchange>>);

impl Spare {
    /// One to begin.
    pub fn take(&mut self) -> Box<Exchange> {
        self.0.pop().unwrap_or_default()
    }
}

/// What the head of a request came to.
pub(super) struct Order {
    pub(super) pool: PoolId,
    /// What hashing goes by.
    pub(super) key: Key,
    pub(super) body: Body,
    pub(super) max_body: u64,
    pub(super) asked_head: bool,
    pub(super) upgrade: Option<Box<str>>,
    pub(super) idempotent: bool,
    pub(super) version: Version,
    pub(super) keep: bool,
    pub(super) te_trailers: bool,
}

/// What an exchange answers with when it has to do so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) status: u16,
    pub(super) why: &'static str,
}

/// What a turn of an exchange came to.
pub(super) enum Step {
    Wait(Tick),
    Again(Tick),
    /// The response is whole and written. `keep`: the client may send another request; `sends`: it may be sending one
    /// all the same, or the rest of this one.
    Done {
        keep: bool,
        sends: bool,
    },
    /// Nothing was sent to the client: it gets this.
    Fail(Failed),
    /// A response that has begun cannot be completed: the client must see that.
    Break,
    /// The client is gone.
    Gone,
    /// The backend has agreed to another protocol.
    Tunnel {
        link: LinkId,
        lease: Lease,
        pool: PoolId,
    },
}

/// Why a direction stops for good.
pub(super) enum Stop {
    /// The client broke.
    Client,
    /// The backend's connection is over, or it sent what is no response; nothing of a response was passed on.
    Backend {
        /// A byte of a response came, so the request was seen.
        answered: bool,
        why: &'static str,
    },
    /// A response that has begun broke.
    Broke,
    /// The client's request is to be refused.
    Refuse(Failed),
    /// The protocol changes.
    Switch,
}

/// The way to the backend.
#[derive(Default)]
enum Way {
    #[default]
    None,
    Connecting(Attempt),
    Open {
        link: LinkId,
        /// It has served another request before.
        reused: bool,
    },
}

/// See the module.
#[derive(Default)]
pub struct Exchange {
    pool: Option<PoolId>,
    key: Key,
    /// The limits by rate that it has to pass.
    gate: Gate,
    /// What it is refused with by one of them: seconds until it would not be.
    retry_after: Option<u64>,
    /// In the line before its pool.
    place: Option<Place>,
    lease: Option<Lease>,
    idle_cap: Option<Arc<Cap>>,
    way: Way,
    tried: Vec<BackendSlot>,
    /// The next way must be a fresh one: an idle one was closed under us.
    fresh: bool,
    last: Option<Failed>,
    pub(super) upload: Upload,
    pub(super) download: Download,
    idempotent: bool,
    keep: bool,
    began: Tick,
    /// When it began, and the present try, in nanoseconds.
    clock: (u64, u64),
    /// It counts as begun, and not yet as ended.
    open: bool,
    /// How it stands.
    verdict: Verdict,
    /// Who failed, while another is looked for.
    failed: Option<Arc<BackendState>>,
    /// Bytes that are accounted for: of the request's body, and of the response.
    told: (u64, u64),
}

impl Exchange {
    /// Counts a request to `pool` as begun; its head was `head` bytes long.
    pub(super) fn open<N: Net>(&mut self, pool: PoolId, head: usize, who: &Who, cx: &Context<'_, N>) {
        self.pool = Some(pool);
        self.open = true;
        self.clock.0 = cx.net.nanos();
        cx.books().begin(who, self.pool);
        cx.books().moved(who, self.pool, None, head as u64, 0);
    }

    /// Takes on an order whose head is `head`. False when there is no memory for it.
    pub(super) fn begin(&mut self, order: Order, gate: Gate, head: &[u8], now: Tick, blocks: &mut Blocks) -> bool {
        self.pool = Some(order.pool);
        self.gate = gate;
        self.key = order.key;
        self.idempotent = order.idempotent;
        self.keep = order.keep;
        self.began = now;
        self.download.begin(order.asked_head, order.upgrade, order.version, order.te_trailers);
        self.upload.begin(order.body, order.max_body, head, now, blocks)
    }

    /// The client's request was read whole, and it may send another.
    pub(super) fn may_stay(&self) -> bool {
        self.keep && self.upload.was_read()
    }

    /// Seconds until it would not be refused, if it was by a limit.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    pub(super) fn asked_head(&self) -> bool {
        self.download.asked_head()
    }

    pub(super) fn holds_blocks(&self) -> bool {
        self.upload.holds_blocks() || self.download.holds_blocks()
    }

    /// Accounts for it, if it was not yet.
    pub(super) fn account(&self, who: &Who, books: Books<'_>) {
        if let Some(lease) = &self.lease {
            books.try_ends(lease, self.verdict);
        }
        if self.open {
            books.end(who, self.pool, self.verdict);
        }
    }

    /// The bytes that were not accounted for yet.
    fn tell_bytes<N: Net>(&mut self, who: &Who, cx: &Context<'_, N>) {
        let (up, down) = (self.upload.read, self.download.read);
        cx.books().moved(who, self.pool, self.lease.as_ref(), up - self.told.0, down - self.told.1);
        self.told = (up, down);
    }

    /// Accounts for it, and gives everything back, and itself.
    pub(super) fn finish<N: Net>(mut self: Box<Self>, who: &Who, cx: &mut Context<'_, N>) {
        self.tell_bytes(who, cx);
        self.account(who, cx.books());
        self.drop_way(cx);
        self.leave_line(cx);
        self.upload.clear(cx.blocks);
        self.download.clear(cx.blocks);
        self.lease = None;
        self.tried.clear();
        let tried = std::mem::take(&mut self.tried);
        *self = Exchange { tried, ..Exchange::default() };
        if cx.spare.0.len() < KEEP {
            cx.spare.0.push(self);
        }
    }

    fn drop_way<N: Net>(&mut self, cx: &mut Context<'_, N>) {
        match std::mem::take(&mut self.way) {
            Way::None => {}
            Way::Connecting(mut attempt) => attempt.abandon(cx.links),
            Way::Open { link, .. } => drop(cx.links.remove(link)),
        }
    }

    /// Goes on as far as it can.
    pub(super) fn turn<N: Net>(
        &mut self,
        inbox: &mut Chain,
        outbox: &mut Outbox,
        private: &mut Private,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Step {
        let Some(pool) = self.pool.and_then(|pool| cx.snapshot.pool(pool)) else {
            return Step::Fail(Failed { status: 503, why: "there is no such pool any more" });
        };
        loop {
            if cx.links.get_mut(who.client).is_none_or(super::is_broken) {
                return Step::Gone;
            }
            // It has left, and has had its time: what it has not answered by now it does not.
            if self.lease.as_ref().is_some_and(|lease| lease.backend().is_cut()) {
                self.verdict = Verdict::Aborted;
                if self.download.has_begun() {
                    return Step::Break;
                }
                return Step::Fail(Failed { status: 503, why: "the backend was removed before it answered" });
            }
            match &mut self.way {
                // Whoever ends its side while it waits in line has lost patience.
                Way::None
                    if (self.place.is_some() || self.gate.waits())
                        && cx.links.get(who.client).is_none_or(|client| client.peer_ended()) =>
                {
                    return Step::Gone;
                }
                Way::None => match self.pass(pool, cx).and_then(|()| self.reach(pool, private, who, cx)) {
                    Ok(()) => {}
                    Err(Unreached::Waits(until)) => return self.wait(until, false, pool, who, cx),
                    Err(Unreached::Failed(failed)) => return Step::Fail(failed),
                },
                Way::Connecting(attempt) => match attempt.turn(cx.net, cx.links, who.id, cx.now) {
                    Progress::Wait(due) => return self.wait(due, false, pool, who, cx),
                    Progress::Connected(link) => {
                        self.way = Way::Open { link, reused: false };
                        self.introduce(link, pool, who, cx);
                        self.upload.moved_at = cx.now;
                    }
                    Progress::Failed(error) => {
                        cx.count.failed.add(1);
                        let timed_out = error.raw_os_error() == Some(libc::ETIMEDOUT);
                        let local = crate::link::is_local(&error);
                        self.way = Way::None;
                        if !local && let Some(lease) = &self.lease {
                            note(pool, lease.backend(), &error, cx.now);
                        }
                        self.judge(Verdict::of_failure(local), pool, cx.now);
                        let status = if timed_out { 504 } else { 502 };
                        let why = if timed_out {
                            "the backend could not be reached in time"
                        } else {
                            "the backend could not be reached"
                        };
                        if let Err(failed) = self.try_another(Failed { status, why }, pool, cx) {
                            return Step::Fail(failed);
                        }
                    }
                },
                Way::Open { link, reused } => {
                    let (link, reused) = (*link, *reused);
                    let talk = self.talk(link, inbox, outbox, who, cx);
                    self.note_head(who, cx);
                    self.tell_bytes(who, cx);
                    match talk {
                        Ok(Talk::Wait) => return self.wait(Tick::NEVER, !outbox.is_empty(), pool, who, cx),
                        Ok(Talk::Again) => {
                            let due = self.due(pool, who, cx);
                            return Step::Again(due);
                        }
                        Ok(Talk::Done) => return self.done(link, pool, private, cx),
                        Err(Stop::Client) => return Step::Gone,
                        Err(Stop::Broke) => {
                            cx.count.failed.add(1);
                            self.judge(Verdict::Failed, pool, cx.now);
                            return Step::Break;
                        }
                        // An answer of our own behind a part of the backend's would be taken for content.
                        Err(Stop::Refuse(_)) if self.download.has_begun() => return Step::Break,
                        Err(Stop::Refuse(failed)) => {
                            self.verdict = Verdict::Refused;
                            return Step::Fail(failed);
                        }
                        Err(Stop::Switch) => {
                            self.way = Way::None;
                            self.judge(Verdict::Succeeded, pool, cx.now);
                            let Some(lease) = self.lease.take() else { return Step::Break };
                            // The tunnel accounts for it when it ends.
                            self.open = false;
                            lease.backend().answered();
                            return Step::Tunnel { link, lease, pool: self.pool.unwrap_or(PoolId(0)) };
                        }
                        Err(Stop::Backend { answered, why }) => {
                            self.drop_way(cx);
                            if let Err(step) = self.lost(answered, reused, why, pool, who, cx) {
                                return step;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Passes the limits by rate.
    fn pass<N: Net>(&mut self, pool: &Pool, cx: &mut Context<'_, N>) -> Result<(), Unreached> {
        let waited = self.gate.waits();
        match self.gate.pass(pool, cx) {
            Pass::On if waited => {
                // What its backend needs is counted from here on.
                self.clock.1 = cx.net.nanos();
                Ok(())
            }
            Pass::On => Ok(()),
            Pass::Wait(until) => Err(Unreached::Waits(until)),
            Pass::TooMany(seconds) => {
                cx.count.limited.add(1);
                self.verdict = Verdict::Refused;
                self.retry_after = Some(seconds);
                Err(Unreached::Failed(Failed { status: 429, why: gate::WHY }))
            }
        }
    }

    /// Picks a backend and a way to it.
    fn reach<N: Net>(
        &mut self,
        pool: &Pool,
        private: &mut Private,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Result<(), Unreached> {
        if self.lease.is_none() {
            let waited = self.place.is_some();
            let picked = self.pick(pool, who, cx)?;
            let backend = &pool.backends[picked.place];
            self.idle_cap = pool.keepalive.then(|| backend.state.idle.clone());
            cx.books().try_begins(who, &picked.lease);
            self.lease = Some(picked.lease);
            self.verdict = Verdict::Aborted;
            self.clock.1 = self.clock.1.max(self.clock.0);
            if waited || !self.tried.is_empty() {
                self.clock.1 = cx.net.nanos();
            }
            if !self.tried.is_empty() {
                cx.count.retried.add(1);
                cx.books().retried(who, self.pool, self.failed.take().as_deref());
            }
            let slot = backend.state.slot;
            let idle = match (self.fresh, pool.send_proxy) {
                (true, _) => None,
                (false, None) => cx.idle.take(slot, cx.now, cx.links),
                (false, Some(_)) => private.take(slot, cx.now, cx.links),
            };
            if let Some(link) = idle {
                if let Some(slot) = cx.links.get_mut(link) {
                    slot.owner = Owner::Session(who.id);
                }
                self.way = Way::Open { link, reused: true };
                return Ok(());
            }
        }
        let backend = self.lease.as_ref().and_then(|lease| pool.backend_of(lease.backend().slot));
        let addresses = backend.map(|backend| backend.addresses.clone()).unwrap_or_else(|| Arc::new([]));
        self.way = Way::Connecting(Attempt::new(addresses, cx.now, pool.connect_timeout, true));
        Ok(())
    }

    /// A backend, as soon as it is this request's turn and one has a place.
    fn pick<N: Net>(&mut self, pool: &Pool, who: &Who, cx: &mut Context<'_, N>) -> Result<Picked, Unreached> {
        let id = self.pool.unwrap_or(PoolId(0));
        if self.place.is_none() {
            pool.budget.request(cx.now);
        }
        loop {
            // Those who wait came before.
            let is_turn = match &self.place {
                Some(place) => cx.waiting.is_turn_of(id, place),
                None => !pool.queue.is_waited_in(),
            };
            let whom = For { key: self.key, tried: &self.tried, random: cx.random };
            let picked = if is_turn { pool.pick(cx.now, whom) } else { Err(NoBackend::AllFull) };
            match (picked, &self.place) {
                (Ok(picked), _) => {
                    self.leave_line(cx);
                    return Ok(picked);
                }
                (Err(NoBackend::AllFull), None) => {
                    self.place = cx.waiting.join(id, pool, who.id, cx.now);
                    // A place that came free in this moment wakes nobody: one more look.
                    if self.place.is_some() {
                        continue;
                    }
                }
                (Err(NoBackend::AllFull), Some(place)) if cx.now < place.until => {
                    return Err(Unreached::Waits(place.until));
                }
                (Err(_), _) => self.leave_line(cx),
            }
            cx.count.unserved.add(1);
            if self.last.is_none() {
                self.verdict = Verdict::Refused;
            }
            let failed = self.last.unwrap_or(Failed { status: 503, why: "no backend is available" });
            return Err(Unreached::Failed(failed));
        }
    }

    fn leave_line<N: Net>(&mut self, cx: &mut Context<'_, N>) {
        if let (Some(place), Some(pool)) = (self.place.take(), self.pool) {
            cx.waiting.leave(pool, place.number());
        }
    }

    /// True while it waits in line with the ticket of that number.
    pub(super) fn waits_with(&self, number: u64) -> bool {
        self.place.as_ref().is_some_and(|place| place.number() == number)
    }

    /// The first thing a fresh connection carries where the pool says so: a PROXY header.
    fn introduce<N: Net>(&self, link: LinkId, pool: &Pool, who: &Who, cx: &mut Context<'_, N>) {
        let Some(version) = pool.send_proxy else { return };
        let Some((client, backend)) = cx.links.pair_mut(who.client, link) else { return };
        cx.out.clear();
        write_proxy(version, who, client, cx.out);
        // It fits the empty buffer of a new socket; where it does not, the connection is of no use.
        if backend.send(&[IoSlice::new(cx.out)]) != Write::Taken(cx.out.len()) {
            backend.give_up();
        }
    }

    /// The backend's connection ended before a response was passed on.
    fn lost<N: Net>(
        &mut self,
        answered: bool,
        reused: bool,
        why: &'static str,
        pool: &Pool,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Result<(), Step> {
        let may_repeat = !answered && (!self.upload.has_sent() || self.idempotent && self.upload.can_repeat());
        if reused && !answered && !self.fresh {
            // It closed an idle connection just as we used it: no evidence, and the same backend may be asked again.
            if may_repeat {
                self.fresh = true;
                self.upload.repeat(cx.blocks);
                self.download.repeat(cx.blocks);
                cx.count.retried.add(1);
                cx.books().retried(who, self.pool, self.lease.as_ref().map(Lease::backend));
                return Ok(());
            }
            // No evidence for the breaker; but the client is told that it failed.
            self.verdict = Verdict::Failed;
        } else {
            cx.count.failed.add(1);
            if let Some(lease) = &self.lease {
                note(pool, lease.backend(), &why, cx.now);
            }
            self.judge(Verdict::Failed, pool, cx.now);
        }
        let why = if answered { "the backend's answer cannot be used" } else { "the backend closed without an answer" };
        let failed = Failed { status: 502, why };
        if !may_repeat {
            return Err(Step::Fail(failed));
        }
        self.upload.repeat(cx.blocks);
        self.download.repeat(cx.blocks);
        self.try_another(failed, pool, cx).map_err(Step::Fail)
    }

    /// On to a backend not tried yet, if retries allow.
    fn try_another<N: Net>(&mut self, failed: Failed, pool: &Pool, cx: &mut Context<'_, N>) -> Result<(), Failed> {
        if let Some(lease) = self.lease.take() {
            self.tried.push(lease.backend().slot);
            cx.books().try_ends(&lease, self.verdict);
            self.failed = Some(lease.state());
        }
        self.last = Some(failed);
        if self.tried.len() > pool.retries as usize || !pool.budget.retry(cx.now, pool.retry_budget) {
            return Err(failed);
        }
        Ok(())
    }

    /// Both bodies, as far as they go now.
    fn talk<N: Net>(
        &mut self,
        link: LinkId,
        inbox: &mut Chain,
        outbox: &mut Outbox,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Result<Talk, Stop> {
        let Some((client, backend)) = cx.links.pair_mut(who.client, link) else { return Err(Stop::Client) };
        let mut budget = super::READ * 4;
        let net = &*cx.net;
        loop {
            let up = self.upload.pump(
                inbox,
                client,
                backend,
                cx.scratch,
                cx.out,
                cx.blocks,
                cx.count,
                cx.now,
                &mut budget,
            )?;
            let whole = self.upload.is_done();
            if whole && self.download.waiting_since.is_none() {
                self.download.waiting_since = Some(cx.now);
            }
            let keep = self.keep && whole && !cx.draining;
            let down = self.download.pump(
                outbox,
                client,
                backend,
                cx.scratch,
                cx.out,
                cx.blocks,
                cx.count,
                cx.now,
                keep,
                &mut budget,
                || net.nanos(),
            )?;
            if self.download.is_done() && outbox.is_empty() {
                return Ok(Talk::Done);
            }
            if budget == 0 {
                return Ok(Talk::Again);
            }
            if !up && !down {
                return Ok(Talk::Wait);
            }
        }
    }

    /// Takes note of how long the response took, once its head has come.
    fn note_head<N: Net>(&mut self, who: &Who, cx: &Context<'_, N>) {
        if self.download.status != 0
            && let Some(at) = self.download.head_at.take()
        {
            let (whole, last) = (at.saturating_sub(self.clock.0), at.saturating_sub(self.clock.1));
            cx.books().latency(who, self.pool, self.lease.as_ref(), whole, last);
            if let Some(lease) = &self.lease {
                lease.backend().estimate.sample(last as f64, cx.now.0);
            }
        }
    }

    fn done<N: Net>(&mut self, link: LinkId, pool: &Pool, private: &mut Private, cx: &mut Context<'_, N>) -> Step {
        cx.count.requests.add(1);
        self.judge(Verdict::of_status(self.download.status), pool, cx.now);
        let Some(lease) = self.lease.take() else { return Step::Break };
        cx.books().try_ends(&lease, self.verdict);
        if lease.backend().answered() {
            log::info!("pool {}: backend {} answers again", pool.name, pool.name_of(lease.backend().slot));
        }
        self.way = Way::None;
        let reusable = !cx.draining
            && !lease.backend().is_leaving()
            && self.upload.is_done()
            && self.download.backend_stays()
            && cx.links.get_mut(link).is_some_and(Link::is_quiet);
        let place = self.idle_cap.as_ref().filter(|_| reusable).and_then(Cap::take);
        match place {
            Some(place) if pool.send_proxy.is_some() => {
                let due = cx.now.after(pool.keepalive_timeout);
                private.put(Kept { backend: lease.backend().slot, link, due, _place: place }, cx.links);
            }
            Some(place) => {
                cx.idle.put(lease.backend().slot, link, place, pool.keepalive_timeout, cx.now, cx.links);
            }
            None => drop(cx.links.remove(link)),
        }
        // Whoever did not say that this is the last request may have sent the next one.
        Step::Done { keep: self.download.client_stays(), sends: self.keep || !self.upload.is_done() }
    }

    /// Decides how it went: for the account, and for the backend's breaker.
    fn judge(&mut self, verdict: Verdict, pool: &Pool, now: Tick) {
        self.verdict = verdict;
        let outcome = match verdict {
            Verdict::Succeeded => Outcome::Success,
            Verdict::Failed => Outcome::Failure,
            Verdict::Refused | Verdict::Aborted => return,
        };
        if let Some(lease) = &mut self.lease {
            report(lease, outcome, pool, now);
        }
    }

    /// The nearest of all deadlines.
    fn due<N: Net>(&self, pool: &Pool, who: &Who, cx: &Context<'_, N>) -> Tick {
        let Some(listener) = cx.snapshot.listener(who.listener) else { return cx.now };
        let http = &listener.http;
        let whole = http.request_timeout.map_or(Tick::NEVER, |timeout| self.began.after(timeout));
        let Way::Open { .. } = self.way else { return whole };
        let upload = if self.upload.is_done() { Tick::NEVER } else { self.upload.moved_at.after(http.body_timeout) };
        let download = match self.download.moved_at {
            Some(moved) => moved.after(http.tunnel_timeout),
            None => self.download.waiting_since.map_or(Tick::NEVER, |since| since.after(pool.response_timeout)),
        };
        whole.min(upload).min(download)
    }

    /// Waits, or finds that a deadline has passed.
    fn wait<N: Net>(
        &mut self,
        due: Tick,
        client_is_slow: bool,
        pool: &Pool,
        who: &Who,
        cx: &mut Context<'_, N>,
    ) -> Step {
        let due = due.min(self.due(pool, who, cx));
        if cx.now < due {
            return Step::Wait(due);
        }
        cx.count.idle.add(1);
        if self.download.has_begun() {
            // A client that does not read, or does not send the rest of its request, has only itself to blame.
            let by_client = client_is_slow || !self.upload.is_done() && self.upload.waits_for_client();
            self.judge(if by_client { Verdict::Aborted } else { Verdict::Failed }, pool, cx.now);
            return Step::Break;
        }
        let waiting = self.download.waiting_since.is_some() || matches!(self.way, Way::Connecting(_));
        if waiting || !self.upload.waits_for_client() {
            cx.count.failed.add(1);
            // Whoever has waited in line all the time was not failed by anyone.
            let lined = self.lease.is_none() && self.last.is_none();
            self.judge(if lined { Verdict::Refused } else { Verdict::Failed }, pool, cx.now);
            return Step::Fail(Failed { status: 504, why: "the backend did not answer in time" });
        }
        self.verdict = Verdict::Refused;
        Step::Fail(Failed { status: 408, why: "the request's body did not come in time" })
    }
}

/// Why there is no way to a backend.
enum Unreached {
    /// Its turn has not come, or all are full; until when it may wait.
    Waits(Tick),
    Failed(Failed),
}

enum Talk {
    Wait,
    Again,
    Done,
}

fn note(pool: &Pool, backend: &BackendState, why: &dyn std::fmt::Display, now: Tick) {
    if let Some(wait) = backend.failed(now) {
        let name = pool.name_of(backend.slot);
        log::warn!("pool {}: backend {name} failed: {why}; set aside for {} s", pool.name, wait / 1000);
    }
}
