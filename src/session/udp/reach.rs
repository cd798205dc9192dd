//! From a pool to a backend: pick one, open a socket to it, and go to another when it is down.

use crate::balance;
use crate::base::ids::{BackendSlot, FlowId, PoolId};
use crate::base::time::Tick;
use crate::guard::Outcome;
use crate::link::datagram::{Net, Socket};
use crate::link::is_local;
use crate::probe::Health;
use crate::session::books::Verdict;
use crate::session::udp::account::{Ending, dropped, retried};
use crate::session::udp::flow::{Connected, Flow, Key, Next, Permits, Scattered, Upstream};
use crate::session::udp::{Context, Dropped, Flows, QUIET};
use crate::session::{key, limits, report};
use crate::shared::backend::BackendState;
use crate::shared::choose::{For, NoBackend};
use crate::shared::snapshot::{Listener, Pool};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// True for an error that says that the backend is not to be reached: it refused (ICMP port unreachable, protocol
/// unreachable, prohibited), or there is no way to it.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EPROTO
        )
    )
}

/// A backend failed: sets it aside, and says so once for each time that it is.
pub(super) fn note_failure(pool: &Pool, state: &BackendState, error: &io::Error, cx: Context<'_>) {
    cx.count.failed.add(1);
    if let Some(wait) = state.failed(cx.now) {
        log::warn!(
            "pool {}: backend {} failed: {error}; others are preferred for {} s",
            pool.name,
            pool.name_of(state.slot),
            f64::from(wait) / 1000.0
        );
    }
}

impl<N: Net> Flows<N> {
    /// What a flow must have before it begins: a place under each limit.
    fn admit(&self, key: Key, listener: &Listener, cx: Context<'_>) -> Result<Permits, Dropped> {
        let draining = self.draining;
        let here = self.fronts.get(key.front as usize).and_then(Option::as_ref);
        let here = here.filter(|front| !front.shut && !draining);
        let Some(here) = here.and_then(|front| front.flows.take()) else { return Err(Dropped::Draining) };
        let shed = |why| {
            if listener.warnings.may(cx.now, QUIET) {
                log::warn!(
                    "listener {}: begins no more sessions for now: {why}; their datagrams are dropped",
                    listener.name
                );
            }
            Dropped::OverLimit
        };
        let whole = "the process is at global.max_connections, or at what its descriptors allow";
        let whole = cx.process.take().ok_or_else(|| shed(whole))?;
        let own = listener.connections.take().ok_or_else(|| shed("it is at its max_connections"))?;
        let client = match &listener.per_client {
            // One client that has too many is nothing to be told of: whoever sends could fill the log.
            Some(clients) => Some(clients.take(key.client.ip()).ok_or(Dropped::OverLimit)?),
            None => None,
        };
        Ok((whole, own, here, client))
    }

    /// Begins a flow for a client, of which so many datagrams wait: takes its permits, and reaches a backend.
    pub(super) fn open(
        &mut self,
        key: Key,
        datagrams: usize,
        listener: &Listener,
        pool: &Pool,
        cx: Context<'_>,
    ) -> Result<FlowId, Dropped> {
        let Some(at) = self.front(key.front as usize).map(|front| front.listener) else {
            return Err(Dropped::Draining);
        };
        // No pool has to do with what is refused at the door.
        let door = listener.tallies.of(cx.worker);
        let permits = self.admit(key, listener, cx).inspect_err(|why| dropped([door].into_iter(), datagrams, *why))?;
        let both = [door, pool.tallies.of(cx.worker)];
        let began = self.net.nanos();
        let upstream = match pool.udp.requests {
            // Each datagram is a session: they are limited one by one.
            1 => Upstream::Each(Box::new(Scattered::new())),
            _ => {
                let client = key.client.ip();
                limits::of_datagrams(&self.net, listener.rate_limit.as_ref(), client, datagrams, cx)
                    .inspect_err(|why| dropped([door].into_iter(), datagrams, *why))?;
                let reached = limits::of_datagrams(&self.net, pool.rate_limit.as_ref(), client, datagrams, cx)
                    .and_then(|()| self.reach(pool, client, None, false, listener, cx));
                let connected = reached.inspect_err(|why| dropped(both.into_iter(), datagrams, *why))?;
                cx.count.udp_sessions.add(1);
                both.iter().for_each(|tally| tally.sessions.add(1));
                Upstream::One(connected)
            }
        };
        let flow = Flow {
            key,
            listener: at,
            pool: listener.pool.unwrap_or(PoolId(0)),
            began,
            answered: false,
            upstream,
            idle: self.idle_of(listener.idle_timeout),
            due: Tick::NEVER,
            wheel_at: Tick::NEVER,
            queued: false,
            sent: 0,
            trains: true,
            _permits: permits,
        };
        let id = self.flows.insert(flow);
        let Some(flow) = self.flows.get_mut(id) else { return Err(Dropped::Failed) };
        flow.touch(cx.now);
        if let Upstream::One(connected) = &mut flow.upstream
            && let Err(error) = self.net.watch(&mut connected.socket, id)
        {
            self.end(id, Ending::Cut, cx);
            shortage(listener, &error, cx);
            return Err(Dropped::Failed);
        }
        self.table.insert(key, id);
        self.look_again(id, cx.now);
        Ok(id)
    }

    /// A socket to the backend whose turn it is, but not to `except`, nor to one set aside if it is to be `better` than
    /// that; to another when that one cannot be reached.
    fn reach(
        &mut self,
        pool: &Pool,
        client: IpAddr,
        except: Option<BackendSlot>,
        better: bool,
        listener: &Listener,
        cx: Context<'_>,
    ) -> Result<Connected<N::Socket>, Dropped> {
        // Allocates only when there is something to remember.
        let mut tried: Vec<BackendSlot> = except.into_iter().collect();
        let both = [listener.tallies.of(cx.worker), pool.tallies.of(cx.worker)];
        let mut failed: Option<Arc<BackendState>> = None;
        loop {
            let key = if pool.hashes() { key::of_client(client) } else { balance::Key::default() };
            let whom = For { key, tried: &tried, random: &mut self.random };
            let picked = pool.pick(cx.now, whom).map_err(|why| match why {
                NoBackend::AllFull => Dropped::OverLimit,
                NoBackend::AllTried | NoBackend::NoneThere if failed.is_some() => Dropped::Refused,
                NoBackend::AllTried | NoBackend::NoneThere => Dropped::NoBackend,
            })?;
            let backend = &pool.backends[picked.place];
            if better && backend.state.is_aside(cx.now) {
                return Err(Dropped::NoBackend);
            }
            let mut lease = picked.lease;
            cx.try_begins(&backend.state);
            if let Some(failed) = failed.take() {
                retried(both.into_iter(), &failed, cx);
            }
            let slot = backend.state.slot;
            let from = self.preferred.get(&slot).copied().unwrap_or(0);
            match self.dial(&backend.addresses, from) {
                Ok((socket, at)) => {
                    return Ok(Connected {
                        socket,
                        lease,
                        addresses: backend.addresses.clone(),
                        at,
                        generation: cx.snapshot.generation,
                        asked: (self.net.nanos(), cx.now),
                        refused: false,
                        requests: 0,
                        replies: 0,
                        refusals: 0,
                        next: Next::Send,
                        trains: true,
                    });
                }
                Err(error) if is_refusal(&error) => {
                    note_failure(pool, &backend.state, &error, cx);
                    report(&mut lease, Outcome::Failure, pool, cx.now);
                    cx.try_ends(&backend.state, Verdict::Failed);
                    failed = Some(backend.state.clone());
                    tried.push(slot);
                }
                Err(error) => {
                    shortage(listener, &error, cx);
                    cx.try_ends(&backend.state, Verdict::Aborted);
                    return Err(Dropped::Failed);
                }
            }
        }
    }

    /// A socket to the first of `addresses`, from `from` on, to which there is a way; and which that is.
    fn dial(&mut self, addresses: &[SocketAddr], from: usize) -> io::Result<(N::Socket, usize)> {
        let mut last = io::Error::from_raw_os_error(libc::EHOSTUNREACH);
        for step in 0..addresses.len() {
            let at = (from + step) % addresses.len();
            match self.net.open(addresses[at], true) {
                Ok(socket) => return Ok((socket, at)),
                Err(error) if is_local(&error) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Datagrams of a flow that sends to all backends were refused by some: takes note of which.
    pub(super) fn refused_by_some(&mut self, id: FlowId, pool: &Pool, cx: Context<'_>) {
        let Some(Flow { upstream: Upstream::Each(each), listener: at, pool: own, .. }) = self.flows.get_mut(id) else {
            return;
        };
        let tallies = cx.tallies(*at, *own);
        let Scattered { v4, v6, known, trials } = &mut **each;
        for socket in v4.iter_mut().chain(v6) {
            while let Some((to, errno)) = socket.take_failure() {
                let error = io::Error::from_raw_os_error(errno);
                let Some(known) = known.get_mut(&(to.ip(), to.port())).filter(|_| is_refusal(&error)) else {
                    continue;
                };
                known.ends(Verdict::Failed, tallies.clone(), cx);
                known.report(Outcome::Failure, trials, pool, cx.now);
                known.asked = None;
                let state = &known.state;
                let backend = pool.backend_of(state.slot);
                if let Some(backend) = backend.filter(|backend| backend.addresses.len() > 1) {
                    let at = backend.addresses.iter().position(|address| *address == to).unwrap_or(0);
                    self.preferred.insert(state.slot, (at + 1) % backend.addresses.len());
                }
                note_failure(pool, state, &error, cx);
            }
        }
    }

    /// The backend of a flow has refused a datagram: where the next one goes is settled when there is one.
    pub(super) fn refused(&mut self, id: FlowId, error: &io::Error, pool: &Pool, cx: Context<'_>) {
        let Some(connected) = self.flows.get_mut(id).and_then(Flow::connected) else { return };
        let addresses = connected.addresses.len();
        connected.refusals += 1;
        if addresses > 1 {
            let next = (connected.at + 1) % addresses;
            self.preferred.insert(connected.lease.backend().slot, next);
        }
        if connected.refusals < addresses {
            connected.next = Next::Address;
            return;
        }
        connected.refusals = 0;
        connected.next = Next::Backend;
        connected.refused = true;
        note_failure(pool, connected.lease.backend(), error, cx);
        connected.report(Outcome::Failure, pool, cx.now);
    }

    /// Before a datagram leaves: goes to another address or backend where that is due.
    pub(super) fn settle(
        &mut self,
        id: FlowId,
        listener: &Listener,
        pool: &Pool,
        cx: Context<'_>,
    ) -> Result<(), Dropped> {
        let Some(flow) = self.flows.get_mut(id) else { return Ok(()) };
        let client = flow.key.client.ip();
        let Some(connected) = flow.connected() else { return Ok(()) };
        let state = connected.lease.backend();
        let slot = state.slot;
        let keep = pool.udp.keep_on_down;
        if connected.generation != cx.snapshot.generation {
            let address = connected.addresses.get(connected.at);
            let ours = pool.backend_of(slot);
            if ours.is_none_or(|ours| address.is_none_or(|address| !ours.addresses.contains(address))) {
                // The backend is gone, or is elsewhere: nothing more goes there, whoever else takes it.
                let reached = self.reach(pool, client, None, false, listener, cx)?;
                return self.replace(id, reached, listener, cx);
            }
            connected.generation = cx.snapshot.generation;
        }
        match connected.next {
            Next::Send if keep || !(state.is_aside(cx.now) || state.health() == Health::Down) => Ok(()),
            // Set aside, maybe for what happened to others: only one that is known to be better is worth the change.
            Next::Send => match self.reach(pool, client, Some(slot), true, listener, cx) {
                Ok(reached) => self.replace(id, reached, listener, cx),
                Err(_) => Ok(()),
            },
            Next::Backend if !keep => match self.reach(pool, client, Some(slot), false, listener, cx) {
                Ok(reached) => self.replace(id, reached, listener, cx),
                // Nobody else, or no means to go there: it stays.
                Err(_) => self.next_address(id, listener, cx),
            },
            Next::Backend | Next::Address => self.next_address(id, listener, cx),
        }
    }

    /// Goes to the backend's next address, if it has several.
    fn next_address(&mut self, id: FlowId, listener: &Listener, cx: Context<'_>) -> Result<(), Dropped> {
        let Some(connected) = self.flows.get_mut(id).and_then(Flow::connected) else { return Ok(()) };
        connected.next = Next::Send;
        if connected.addresses.len() < 2 {
            return Ok(());
        }
        let (addresses, from) = (connected.addresses.clone(), connected.at + 1);
        let dialled = self.dial(&addresses, from);
        let Some(connected) = self.flows.get_mut(id).and_then(Flow::connected) else { return Ok(()) };
        match dialled {
            Ok((socket, at)) => {
                (connected.socket, connected.at) = (socket, at);
                self.watch_again(id, listener, cx)
            }
            // It stays where it is.
            Err(_) => Ok(()),
        }
    }

    /// Takes another backend for a flow. What the last one had not answered is not waited for.
    fn replace(
        &mut self,
        id: FlowId,
        reached: Connected<N::Socket>,
        listener: &Listener,
        cx: Context<'_>,
    ) -> Result<(), Dropped> {
        if let Some(flow) = self.flows.get_mut(id)
            && let Upstream::One(connected) = &mut flow.upstream
        {
            let left = std::mem::replace(connected, reached);
            cx.try_ends(left.lease.backend(), left.verdict(Verdict::Aborted));
            if left.refused {
                let tallies = cx.tallies(flow.listener, flow.pool);
                retried(tallies, left.lease.backend(), cx);
            }
            cx.count.udp_moved.add(1);
        }
        self.watch_again(id, listener, cx)
    }

    fn watch_again(&mut self, id: FlowId, listener: &Listener, cx: Context<'_>) -> Result<(), Dropped> {
        let Some(connected) = self.flows.get_mut(id).and_then(Flow::connected) else { return Ok(()) };
        match self.net.watch(&mut connected.socket, id) {
            Ok(()) => Ok(()),
            Err(error) => {
                // One that is not watched never hears a reply.
                shortage(listener, &error, cx);
                self.end(id, Ending::Cut, cx);
                Err(Dropped::Failed)
            }
        }
    }
}

/// Says that something of ours has run out.
pub(super) fn shortage(listener: &Listener, error: &io::Error, cx: Context<'_>) {
    if listener.warnings.may(cx.now, QUIET) {
        log::warn!("listener {}: a datagram was dropped: {error} (a shortage on this side)", listener.name);
    }
}
