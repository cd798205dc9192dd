//! From one process to the next: a listening socket is frozen with its flows, these are told, and the other goes on with
//! the same sockets. What comes meanwhile waits in them.

use crate::base::ids::FlowId;
use crate::base::time::Tick;
use crate::link::datagram::Net;
use crate::session::udp::account::Ending;
use crate::session::udp::flow::{Connected, Flow, Key, Known, Next, Scattered, Upstream};
use crate::session::udp::{Context, Flows};
use crate::shared::backend::Lease;
use crate::shared::handing::{Carried, FlowRecord, Onward};
use crate::shared::snapshot::{Backend, Pool};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Sockets told of in one message, at the most: what a frame can carry, less one flow's second.
const MOST: usize = 252;

impl<N: Net> Flows<N> {
    /// From now on neither the listening socket `at` nor its flows are read. Tells of those flows from number `from` on, as
    /// many as go together; none means that these were all.
    pub fn freeze(&mut self, at: usize, from: usize, cx: Context<'_>) -> Vec<Carried<N::Passed>> {
        let Some(Some(front)) = self.fronts.get_mut(at) else { return Vec::new() };
        let frozen = match front.frozen.take() {
            Some(frozen) => frozen,
            None => self.flows.iter().filter(|(_, flow)| flow.key.front as usize == at).map(|(id, _)| id).collect(),
        };
        let (mut told, mut sockets) = (Vec::new(), 0);
        for id in frozen.iter().skip(from) {
            // Whoever has ended meanwhile, by time, is told as one without a socket: it is counted, and nobody takes it.
            let carried = match self.flows.get(*id) {
                Some(flow) => self.carry(flow, self.table.get(&flow.key) == Some(id), cx),
                None => None,
            };
            let carried = carried.unwrap_or_else(|| Carried { flow: nobody(), sockets: Vec::new() });
            sockets += carried.sockets.len();
            told.push(carried);
            if sockets >= MOST || told.len() >= MOST {
                break;
            }
        }
        if let Some(front) = self.front(at) {
            front.frozen = Some(frozen);
        }
        told
    }

    fn carry(&self, flow: &Flow<N::Socket>, listed: bool, cx: Context<'_>) -> Option<Carried<N::Passed>> {
        let pool = cx.snapshot.pool(flow.pool)?;
        let backend = |slot| pool.backend_of(slot);
        let (sockets, onward): (Vec<_>, _) = match &flow.upstream {
            Upstream::One(one) => {
                let onward = Onward::One {
                    backend: backend(one.lease.backend().slot)?.address.to_string(),
                    peer: *one.addresses.get(one.at)?,
                    requests: one.requests,
                    replies: one.replies,
                };
                (vec![&one.socket], onward)
            }
            Upstream::Each(each) => {
                let known = each.known.iter().filter_map(|((ip, port), known)| {
                    Some((SocketAddr::new(*ip, *port), backend(known.state.slot)?.address.to_string()))
                });
                let onward = Onward::Each { v4: each.v4.is_some(), v6: each.v6.is_some(), known: known.collect() };
                (each.v4.iter().chain(&each.v6).collect(), onward)
            }
        };
        let sockets: io::Result<Vec<_>> = sockets.into_iter().map(|socket| self.net.pass(socket)).collect();
        let Key { client, local, .. } = flow.key;
        let (pool, idle_left) = (pool.name.to_string(), flow.due.0.saturating_sub(cx.now.0));
        let record = FlowRecord { client, local, pool, idle_left, sent: flow.sent, listed, onward };
        Some(Carried { flow: record, sockets: sockets.ok()? })
    }

    /// Goes on as if nothing had been frozen.
    pub fn thaw(&mut self) {
        for at in 0..self.fronts.len() {
            let Some(frozen) = self.front(at).and_then(|front| front.frozen.take()) else { continue };
            self.latch_front(at);
            // What came meanwhile was told to nobody.
            frozen.into_iter().for_each(|id| self.latch(id));
        }
    }

    /// Leaves what is frozen to the other process: its flows end here, and their sockets go on there. The listening sockets
    /// stay frozen, for `unwatch` to see to.
    pub fn leave(&mut self, cx: Context<'_>, mut unwatch: impl FnMut(&mut N::Socket)) {
        for at in 0..self.fronts.len() {
            let Some(Some(front)) = self.fronts.get_mut(at) else { continue };
            let Some(frozen) = front.frozen.as_mut().map(std::mem::take) else { continue };
            unwatch(&mut front.socket);
            for id in frozen {
                match self.flows.get_mut(id).map(|flow| &mut flow.upstream) {
                    Some(Upstream::One(one)) => self.net.unwatch(&mut one.socket),
                    Some(Upstream::Each(each)) => {
                        each.v4.iter_mut().chain(&mut each.v6).for_each(|socket| self.net.unwatch(socket));
                    }
                    None => continue,
                }
                self.end(id, Ending::Cut, cx);
            }
        }
    }

    /// Takes on flows of another process for the listening socket `at`; returns how many. One whose pool or backend is none
    /// of ours any more ends: its client's next datagram begins another.
    pub fn adopt(&mut self, at: usize, flows: Vec<Carried<N::Passed>>, cx: Context<'_>) -> usize {
        flows.into_iter().filter_map(|carried| self.adopt_one(at, carried, cx)).count()
    }

    fn adopt_one(&mut self, at: usize, carried: Carried<N::Passed>, cx: Context<'_>) -> Option<FlowId> {
        let Carried { flow: record, sockets } = carried;
        let front = self.fronts.get(at)?.as_ref()?;
        let (id_of_listener, here) = (front.listener, front.flows.take_anyway());
        let listener = cx.snapshot.listener(id_of_listener)?;
        let pool = cx.snapshot.pool(listener.pool?)?;
        if sockets.is_empty() || sockets.len() != record.sockets() || *pool.name != *record.pool {
            return None;
        }
        let mut sockets = sockets.into_iter();
        let now = self.net.nanos();
        let answered = matches!(record.onward, Onward::One { replies: 1.., .. });
        let upstream = match record.onward {
            Onward::One { backend, peer, requests, replies } => {
                let backend = find(pool, &backend)?;
                let at = backend.addresses.iter().position(|address| *address == peer);
                Upstream::One(Connected {
                    socket: self.net.receive(sockets.next()?, true),
                    lease: Lease::carried(&backend.state),
                    addresses: if at.is_some() { backend.addresses.clone() } else { Arc::new([peer]) },
                    at: at.unwrap_or(0),
                    // Of no snapshot: the next datagram sees whether the backend is still there.
                    generation: 0,
                    requests,
                    replies,
                    asked: (now, cx.now),
                    refused: false,
                    refusals: 0,
                    next: Next::Send,
                    trains: true,
                })
            }
            Onward::Each { v4, v6, known } => {
                let mut each = Scattered::new();
                each.v4 = v4.then(|| sockets.next()).flatten().map(|socket| self.net.receive(socket, false));
                each.v6 = v6.then(|| sockets.next()).flatten().map(|socket| self.net.receive(socket, false));
                for (address, backend) in known {
                    if let Some(backend) = find(pool, &backend) {
                        each.known.insert((address.ip(), address.port()), Known::new(backend.state.clone()));
                    }
                }
                Upstream::Each(Box::new(each))
            }
        };
        let idle = self.idle_of(listener.idle_timeout);
        let client = listener.per_client.as_ref().and_then(|clients| clients.take(record.client.ip()));
        let key = Key { front: at as u32, client: record.client, local: record.local };
        let id = self.flows.insert(Flow {
            key,
            listener: id_of_listener,
            pool: listener.pool?,
            began: now,
            answered,
            upstream,
            idle,
            due: Tick(cx.now.0.saturating_add(record.idle_left.min(idle)).saturating_add(1)),
            wheel_at: Tick::NEVER,
            queued: false,
            sent: record.sent,
            trains: true,
            // It is there already, whatever the limits are now.
            _permits: (cx.process.take_anyway(), listener.connections.take_anyway(), here, client),
        });
        // It ends here, so it has begun here.
        if let Some(Upstream::One(one)) = self.flows.get_mut(id).map(|flow| &mut flow.upstream) {
            cx.tallies(id_of_listener, listener.pool?).for_each(|tally| tally.sessions.add(1));
            cx.try_begins(one.lease.backend());
        }
        let watched = match self.flows.get_mut(id).map(|flow| &mut flow.upstream) {
            Some(Upstream::One(one)) => self.net.watch(&mut one.socket, id),
            Some(Upstream::Each(each)) => {
                each.v4.iter_mut().chain(&mut each.v6).try_for_each(|socket| self.net.watch(socket, id))
            }
            None => Ok(()),
        };
        if let Err(error) = watched {
            log::warn!("listener {}: a session could not be taken over: {error}", listener.name);
            self.end(id, Ending::Cut, cx);
            return None;
        }
        if record.listed {
            self.table.insert(key, id);
        }
        cx.count.udp_sessions.add(1);
        self.look_again(id, cx.now);
        Some(id)
    }
}

/// Whom nobody takes on.
fn nobody() -> FlowRecord {
    FlowRecord {
        client: SocketAddr::from(([0, 0, 0, 0], 0)),
        local: None,
        pool: String::new(),
        idle_left: 0,
        sent: 0,
        listed: false,
        onward: Onward::Each { v4: false, v6: false, known: Vec::new() },
    }
}

fn find<'a>(pool: &'a Pool, address: &str) -> Option<&'a Backend> {
    pool.backends.iter().find(|backend| *backend.address == *address)
}
