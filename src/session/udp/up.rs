//! From clients to backends.

use crate::balance;
use crate::base::ids::FlowId;
use crate::base::time::Tick;
use crate::guard::Outcome;
use crate::link::datagram::{MOST_BYTES, MOST_SEGMENTS, Net, Part, Socket, forbids_trains};
use crate::link::is_local;
use crate::session::books::Verdict;
use crate::session::udp::account::{Ending, dropped, retried};
use crate::session::udp::flow::{Flow, Key, Upstream};
use crate::session::udp::reach::{is_refusal, note_failure, shortage};
use crate::session::udp::{Context, Dropped, Flows, QUIET};
use crate::session::{key, limits, report};
use crate::shared::backend::BackendState;
use crate::shared::choose::{For, NoBackend};
use crate::shared::snapshot::{Listener, Pool};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// Datagrams, or trains, read from a listening socket in one turn: others wait, too.
const BUDGET: usize = 256;
/// Errors in a row after which a listening socket is left alone for a moment.
const ERRORS: usize = 8;
/// For how long, in milliseconds.
const RETRY: u64 = 25;

/// Datagrams of one client that came one behind the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    key: Key,
    /// How long each is, but for the last, which may be shorter; 0 for a single one.
    segment: usize,
    /// How many there are.
    datagrams: usize,
    /// Each is a part of its own; if not, all of them are one part.
    apart: bool,
}

impl<N: Net> Flows<N> {
    /// Reads a listening socket until it is empty, or the budget is used up.
    pub(super) fn read_front(&mut self, at: usize, cx: Context<'_>) {
        let Some(front) = self.front(at) else { return };
        front.queued = false;
        if front.frozen.is_some() {
            return;
        }
        let (mut read, mut errors) = (0, 0);
        while read < BUDGET {
            let most = self.inbox.count();
            let Some(Some(front)) = self.fronts.get_mut(at) else { return };
            match front.socket.recv(&mut self.inbox, 0, most) {
                Ok(filled) => {
                    self.take_in(at, filled, cx);
                    if filled < most {
                        return;
                    }
                    read += filled;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Whatever it is, other clients still come in by this socket.
                    errors += 1;
                    if errors == ERRORS {
                        front.retry = Tick(cx.now.0 + RETRY);
                        let listener = cx.snapshot.listener(front.listener);
                        if let Some(listener) = listener.filter(|listener| listener.warnings.may(cx.now, QUIET)) {
                            log::warn!("listener {}: cannot receive for now: {error}", listener.name);
                        }
                        return;
                    }
                }
            }
        }
        self.latch_front(at);
    }

    /// Forwards what lies in the inbox, run by run.
    fn take_in(&mut self, at: usize, filled: usize, cx: Context<'_>) {
        let mut slot = 0;
        let (mut all, mut all_bytes) = (0, 0);
        let plan = self.front(at).map(|front| front.listener).and_then(|listener| cx.snapshot.listener(listener));
        let plan = plan.and_then(|listener| Some((listener, cx.snapshot.pool(listener.pool?)?)));
        while slot < filled {
            let first = *self.inbox.told(slot);
            let mut end = slot + 1;
            let mut bytes = first.len;
            if first.segment == 0 && first.len > 0 && !first.truncated {
                while end < filled && end - slot < MOST_SEGMENTS && self.inbox.told(end - 1).len == first.len {
                    let next = self.inbox.told(end);
                    let joins = next.from == first.from
                        && next.to == first.to
                        && (1..=first.len).contains(&next.len)
                        && next.segment == 0
                        && !next.truncated
                        && bytes + next.len <= MOST_BYTES;
                    if !joins {
                        break;
                    }
                    bytes += next.len;
                    end += 1;
                }
            }
            let datagrams = if end - slot > 1 { end - slot } else { first.datagrams() };
            all += datagrams as u64;
            all_bytes += bytes as u64;
            cx.count.udp_in.add(datagrams as u64);
            self.in_hand = datagrams as u64;
            if let Some(client) = first.from
                && !first.truncated
            {
                let key = Key { front: at as u32, client, local: first.to };
                let segment = if datagrams > 1 && first.segment == 0 { first.len } else { first.segment };
                let apart = end - slot > 1 || datagrams == 1;
                self.run.clear();
                for slot in slot..end {
                    self.run.push(Part { start: self.inbox.start(slot), len: self.inbox.told(slot).len });
                }
                self.forward_guarded(Run { key, segment, datagrams, apart }, plan, cx);
            } else {
                self.drop_in(datagrams, if first.truncated { Dropped::Truncated } else { Dropped::Failed }, cx);
            }
            slot = end;
        }
        cx.count.bytes_in.add(all_bytes);
        if let Some((listener, pool)) = plan {
            for tally in [listener.tallies.of(cx.worker), pool.tallies.of(cx.worker)] {
                tally.datagrams_in.add(all);
                tally.bytes_in.add(all_bytes);
            }
        }
    }

    fn drop_in(&mut self, datagrams: usize, why: Dropped, cx: Context<'_>) {
        self.in_hand -= datagrams as u64;
        why.counter(cx.count).add(datagrams as u64);
    }

    fn forwarded(&mut self, datagrams: usize, cx: Context<'_>) {
        self.in_hand -= datagrams as u64;
        cx.count.udp_forwarded.add(datagrams as u64);
    }

    /// Forwards the run in hand. A panic takes down its flow alone.
    fn forward_guarded(&mut self, run: Run, plan: Option<(&Listener, &Pool)>, cx: Context<'_>) {
        if catch_unwind(AssertUnwindSafe(|| self.forward(run, plan, cx))).is_err() {
            let id = self.table.get(&run.key).copied();
            self.bury(id, cx);
            let lost = self.in_hand as usize;
            self.drop_in(lost, Dropped::Failed, cx);
        }
    }

    fn forward(&mut self, mut run: Run, plan: Option<(&Listener, &Pool)>, cx: Context<'_>) {
        let Some((listener, pool)) = plan else { return self.drop_in(run.datagrams, Dropped::NoBackend, cx) };
        let limit = u64::from(pool.udp.requests);
        // Whoever counts datagrams, or a train longer than the kernel takes, needs them one by one.
        if !run.apart && (limit > 0 || run.datagrams > MOST_SEGMENTS) {
            self.take_apart(&mut run);
        }
        let parts = std::mem::take(&mut self.run);
        let mut at = 0;
        while at < run.datagrams {
            let rest = run.datagrams - at;
            // An empty datagram always comes alone.
            let empty = parts[0].len == 0;
            let known = self.table.get(&run.key).copied();
            let id = match known {
                None if empty => {
                    self.drop_in(rest, Dropped::Empty, cx);
                    break;
                }
                None => match self.open(run.key, rest, listener, pool, cx) {
                    Ok(id) => id,
                    Err(why) => {
                        // The next one may fare better only where it counts: there they are picked for one by one.
                        self.drop_in(rest, why, cx);
                        break;
                    }
                },
                Some(id) => id,
            };
            let Some(flow) = self.flows.get_mut(id) else {
                // Not to be: the table leads to what lives.
                self.table.remove(&run.key);
                continue;
            };
            if let Upstream::Each(_) = flow.upstream {
                self.scatter(id, &parts[at..], listener, pool, cx);
                break;
            }
            let left = if limit > 1 { limit.saturating_sub(flow.sent) } else { u64::MAX };
            if left == 0 {
                if empty {
                    self.drop_in(rest, Dropped::Empty, cx);
                    break;
                }
                // It stays, out of the table, for the replies that may still come.
                self.unlist(&run.key, id);
                continue;
            }
            let take = rest.min(usize::try_from(left).unwrap_or(usize::MAX)).min(MOST_SEGMENTS);
            let parts = if run.apart { &parts[at..at + take] } else { &parts[..] };
            self.send(id, parts, Run { datagrams: take, ..run }, listener, pool, cx);
            at += take;
        }
        self.run = parts;
    }

    /// Makes each datagram of a train a part of its own.
    fn take_apart(&mut self, run: &mut Run) {
        let Some(Part { start, len }) = self.run.pop() else { return };
        let starts = (0..len).step_by(run.segment.max(1));
        self.run.extend(starts.map(|at| Part { start: start + at, len: run.segment.min(len - at) }));
        run.apart = true;
    }

    /// Sends a run of one client to the backend of its flow.
    fn send(&mut self, id: FlowId, parts: &[Part], run: Run, listener: &Listener, pool: &Pool, cx: Context<'_>) {
        let Some(flow) = self.flows.get_mut(id) else { return self.drop_in(run.datagrams, Dropped::Failed, cx) };
        flow.touch(cx.now);
        flow.sent += run.datagrams as u64;
        let trains = flow.connected().is_some_and(|connected| connected.trains);
        if run.datagrams == 1 || trains {
            return self.send_as_one(id, parts, run, listener, pool, cx);
        }
        if run.apart {
            for part in parts {
                self.send_as_one(
                    id,
                    slice::from_ref(part),
                    Run { datagrams: 1, segment: 0, ..run },
                    listener,
                    pool,
                    cx,
                );
            }
            return;
        }
        let Some(whole) = parts.first() else { return };
        for at in (0..whole.len).step_by(run.segment.max(1)) {
            let part = Part { start: whole.start + at, len: run.segment.min(whole.len - at) };
            self.send_as_one(id, &[part], Run { datagrams: 1, segment: 0, apart: true, ..run }, listener, pool, cx);
        }
    }

    /// Sends a datagram, or a train. What was refused has not gone out, and is sent once more.
    fn send_as_one(&mut self, id: FlowId, parts: &[Part], run: Run, listener: &Listener, pool: &Pool, cx: Context<'_>) {
        if let Err(why) = self.settle(id, listener, pool, cx) {
            return self.drop_in(run.datagrams, why, cx);
        }
        let single = run.datagrams == 1;
        let (mut again, mut long) = (false, false);
        let why = loop {
            let Some(connected) = self.flows.get_mut(id).and_then(Flow::connected) else { break Dropped::Failed };
            let sent = if single {
                connected.socket.send(self.inbox.part(parts[0]))
            } else {
                self.up.clear();
                self.up.push(parts, run.segment, None, None);
                connected.socket.send_batch(&self.inbox, &mut self.up, 0..1).map(|_| ())
            };
            let error = match sent {
                Ok(()) => {
                    connected.requests += run.datagrams as u64;
                    let tally = cx.of_backend(connected.lease.backend());
                    tally.datagrams_in.add(run.datagrams as u64);
                    tally.bytes_in.add(parts.iter().map(|part| part.len as u64).sum());
                    return self.forwarded(run.datagrams, cx);
                }
                Err(error) => error,
            };
            match error {
                error if error.kind() == ErrorKind::Interrupted => {}
                error if error.kind() == ErrorKind::WouldBlock => break Dropped::WouldBlock,
                error if !single && forbids_trains(&error) => {
                    connected.trains = false;
                    if let Some(flow) = self.flows.get_mut(id) {
                        // They are counted again as they go.
                        flow.sent -= run.datagrams as u64;
                    }
                    return self.send(id, parts, run, listener, pool, cx);
                }
                // May be the news of an earlier one (ICMP fragmentation needed), which is told once.
                error if error.raw_os_error() == Some(libc::EMSGSIZE) && !long => long = true,
                error if error.raw_os_error() == Some(libc::EMSGSIZE) => break Dropped::TooBig,
                error if is_refusal(&error) => {
                    self.refused(id, &error, pool, cx);
                    if again {
                        break Dropped::Refused;
                    }
                    again = true;
                    if let Err(why) = self.settle(id, listener, pool, cx) {
                        break why;
                    }
                }
                error => {
                    shortage(listener, &error, cx);
                    break Dropped::Failed;
                }
            }
        };
        self.drop_in(run.datagrams, why, cx);
    }

    /// Sends each datagram to the backend whose turn it is.
    fn scatter(&mut self, id: FlowId, parts: &[Part], listener: &Listener, pool: &Pool, cx: Context<'_>) {
        let door = listener.tallies.of(cx.worker);
        let both = [door, pool.tallies.of(cx.worker)];
        let client = self.flows.get_mut(id).map(|flow| flow.key.client.ip());
        for part in parts {
            if let Some(client) = client
                && let Err(why) = limits::of_datagrams(&self.net, listener.rate_limit.as_ref(), client, 1, cx)
            {
                // No pool has to do with what is refused at the door.
                dropped([door].into_iter(), 1, why);
                self.drop_in(1, why, cx);
                continue;
            }
            both.iter().for_each(|tally| tally.sessions.add(1));
            match self.send_to_any(id, *part, listener, pool, cx) {
                Ok(()) => {
                    cx.count.udp_sessions.add(1);
                    self.forwarded(1, cx);
                }
                Err(why) => {
                    both.iter().for_each(|tally| why.verdict().add(tally, 1));
                    self.drop_in(1, why, cx);
                }
            }
        }
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.touch(cx.now);
        // One that nothing could be sent for is none.
        if let Upstream::Each(each) = &flow.upstream
            && each.known.is_empty()
        {
            self.end(id, Ending::Over, cx);
        }
    }

    fn send_to_any(
        &mut self,
        id: FlowId,
        part: Part,
        listener: &Listener,
        pool: &Pool,
        cx: Context<'_>,
    ) -> Result<(), Dropped> {
        let mut tried = Vec::new();
        let mut failed: Option<&BackendState> = None;
        let client = self.flows.get_mut(id).map(|flow| flow.key.client.ip());
        if let Some(client) = client {
            limits::of_datagrams(&self.net, pool.rate_limit.as_ref(), client, 1, cx)?;
        }
        let key = client.filter(|_| pool.hashes()).map_or(balance::Key::default(), key::of_client);
        loop {
            let whom = For { key, tried: &tried, random: &mut self.random };
            let picked = pool.pick(cx.now, whom).map_err(|why| match why {
                NoBackend::AllFull => Dropped::OverLimit,
                NoBackend::AllTried => Dropped::Refused,
                NoBackend::NoneThere => Dropped::NoBackend,
            })?;
            let backend = &pool.backends[picked.place];
            let mut lease = picked.lease;
            cx.try_begins(&backend.state);
            if let Some(failed) = failed.take() {
                retried([listener.tallies.of(cx.worker), pool.tallies.of(cx.worker)].into_iter(), failed, cx);
            }
            // Whatever ends it here is no failure of the backend.
            let give_up = |why| {
                cx.try_ends(&backend.state, Verdict::Aborted);
                Err(why)
            };
            let mut last = io::Error::from_raw_os_error(libc::EHOSTUNREACH);
            let from = self.preferred.get(&backend.state.slot).copied().unwrap_or(0);
            let mut again = true;
            let mut step = 0;
            while step < backend.addresses.len() {
                let address = backend.addresses[(from + step) % backend.addresses.len()];
                step += 1;
                match self.send_to(id, part, address) {
                    Ok(()) => {
                        self.sent_alone(id, part, address, &backend.state, lease, cx);
                        return Ok(());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return give_up(Dropped::WouldBlock),
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                        // That is noted beside the refusals, and takes room there.
                        self.refused_by_some(id, pool, cx);
                        return give_up(Dropped::TooBig);
                    }
                    // Most likely the news of an earlier one, to whichever backend: this one has not gone out.
                    Err(error) if is_refusal(&error) && std::mem::take(&mut again) => {
                        self.refused_by_some(id, pool, cx);
                        step -= 1;
                        last = error;
                    }
                    Err(error) if is_refusal(&error) && !is_local(&error) => last = error,
                    Err(error) => {
                        shortage(listener, &error, cx);
                        return give_up(Dropped::Failed);
                    }
                }
            }
            note_failure(pool, &backend.state, &last, cx);
            report(&mut lease, Outcome::Failure, pool, cx.now);
            cx.try_ends(&backend.state, Verdict::Failed);
            failed = Some(&backend.state);
            tried.push(backend.state.slot);
        }
    }

    fn send_to(&mut self, id: FlowId, part: Part, to: SocketAddr) -> io::Result<()> {
        let flow = self.flows.get_mut(id);
        let Some(Flow { upstream: Upstream::Each(each), .. }) = flow else { return Err(ErrorKind::NotFound.into()) };
        let place = each.socket(to);
        let socket = match place {
            Some(socket) => socket,
            None => {
                let mut socket = self.net.open(to, false)?;
                self.net.watch(&mut socket, id)?;
                place.insert(socket)
            }
        };
        self.up.clear();
        self.up.push(&[part], 0, Some(to), None);
        loop {
            match socket.send_batch(&self.inbox, &mut self.up, 0..1) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map(|_| ()),
            }
        }
    }
}
