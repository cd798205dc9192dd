//! From backends to clients: replies are gathered over a turn, and leave together.

use crate::base::ids::{FlowId, ListenerId, PoolId};
use crate::guard::Outcome;
use crate::link::datagram::{Batch, Departure, MOST_BYTES, MOST_SEGMENTS, Net, Part, Slots, Socket, forbids_trains};
use crate::session::books::Verdict;
use crate::session::udp::account::Ending;
use crate::session::udp::flow::{Flow, Key, Next, Scattered, Upstream};
use crate::session::udp::reach::is_refusal;
use crate::session::udp::{Context, Flows, Front};
use crate::shared::snapshot::Pool;
use std::io::{self, ErrorKind};

/// Parts that a slot may come to: a train longer than the kernel takes is sent as several.
pub(super) const PARTS: usize = 4;
/// Slots offered to a flow's first read, and to those after it. Fewer filled than offered ends the reading, so that the
/// usual single reply costs one call.
const FIRST: usize = 4;
const MORE: usize = 16;
/// Slots read for one flow in a turn: others wait, too.
const BUDGET: usize = 64;
/// Errors of one socket looked at in one turn.
const ERRORS: usize = 8;

/// Whose a reply is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    flow: FlowId,
    /// Nothing can be added: it ended with a shorter datagram, or came as a train.
    closed: bool,
    bytes: usize,
}

impl<N: Net> Flows<N> {
    /// Reads the sockets of a flow until they are empty, or the budget is used up.
    pub(super) fn read_flow(&mut self, id: FlowId, cx: Context<'_>) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.queued = false;
        let front = flow.key.front as usize;
        let is_frozen = |front: &Front<N::Socket>| front.frozen.is_some();
        if self.fronts.get(front).and_then(Option::as_ref).is_none_or(is_frozen) {
            return;
        }
        let sockets = match flow.upstream {
            Upstream::One(_) => 1,
            Upstream::Each(_) => 2,
        };
        let Some(pool) = cx.snapshot.pool(flow.pool) else { return };
        let mut again = false;
        for socket in 0..sockets {
            again |= self.read_socket(id, socket, pool, cx);
        }
        if again {
            self.latch(id);
        }
    }

    /// Reads one socket; true when there may be more.
    fn read_socket(&mut self, id: FlowId, number: usize, pool: &Pool, cx: Context<'_>) -> bool {
        let (mut read, mut errors, mut most) = (0, 0, FIRST);
        while read < BUDGET {
            let Some(flow) = self.flows.get_mut(id) else { return false };
            let front = flow.key.front as usize;
            let room = self.front(front).map_or(0, |front| front.down.room());
            if self.replies.count() - self.taken < most || room < most * PARTS {
                self.flush(cx);
            }
            let Some(flow) = self.flows.get_mut(id) else { return false };
            let socket = match &mut flow.upstream {
                Upstream::One(connected) => &mut connected.socket,
                Upstream::Each(each) => match if number == 0 { &mut each.v4 } else { &mut each.v6 } {
                    Some(socket) => socket,
                    None => return false,
                },
            };
            match socket.recv(&mut self.replies, self.taken, most) {
                Ok(filled) => {
                    let first = self.taken;
                    self.taken += filled;
                    for slot in first..first + filled {
                        self.take_reply(id, slot, pool, cx);
                    }
                    if self.is_answered(id, pool) {
                        self.end(id, Ending::Over, cx);
                        return false;
                    }
                    if filled < most {
                        return false;
                    }
                    read += filled;
                    most = MORE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Replies may wait behind it.
                    if is_refusal(&error) {
                        self.refused(id, &error, pool, cx);
                        self.refused_by_some(id, pool, cx);
                    }
                    errors += 1;
                    if errors == ERRORS {
                        return true;
                    }
                }
            }
        }
        true
    }

    /// True when a flow is over since every datagram has had its replies.
    fn is_answered(&mut self, id: FlowId, pool: &Pool) -> bool {
        let responses = u64::from(pool.udp.responses);
        let connected = self.flows.get_mut(id).and_then(Flow::connected);
        responses > 0 && connected.is_some_and(|c| c.replies > 0 && c.replies >= c.requests.saturating_mul(responses))
    }

    /// Takes what lies in a slot for the client of its flow.
    fn take_reply(&mut self, id: FlowId, slot: usize, pool: &Pool, cx: Context<'_>) {
        let told = *self.replies.told(slot);
        let datagrams = told.datagrams() as u64;
        cx.count.udp_replies.add(datagrams);
        let Some(flow) = self.flows.get_mut(id) else { return cx.count.udp_reply_failed.add(datagrams) };
        let listener = flow.listener;
        match &mut flow.upstream {
            Upstream::One(connected) => {
                connected.next = Next::Send;
                let took = connected.answered(datagrams, pool, cx.now, || self.net.nanos());
                let tally = cx.of_backend(connected.lease.backend());
                tally.datagrams_out.add(datagrams);
                tally.bytes_out.add(told.len as u64);
                if let Some(took) = took {
                    tally.latency(took);
                    if !std::mem::replace(&mut flow.answered, true) {
                        let whole = (connected.asked.0 + took).saturating_sub(flow.began);
                        cx.tallies(listener, flow.pool).for_each(|tally| tally.latency(whole));
                    }
                }
            }
            Upstream::Each(each) => {
                let from = told.from.map(|from| (from.ip(), from.port()));
                let Scattered { known, trials, .. } = &mut **each;
                let Some(known) = from.and_then(|from| known.get_mut(&from)) else {
                    return cx.count.udp_stranger.add(datagrams);
                };
                let tallies = cx.tallies(listener, flow.pool);
                known.state.answered();
                known.report(Outcome::Success, trials, pool, cx.now);
                known.ends(Verdict::Succeeded, tallies.clone(), cx);
                let tally = cx.of_backend(&known.state);
                tally.datagrams_out.add(datagrams);
                tally.bytes_out.add(told.len as u64);
                if let Some((asked, _)) = known.asked.take() {
                    let took = self.net.nanos().saturating_sub(asked);
                    known.state.estimate.sample(took as f64, cx.now.0);
                    tallies.chain([tally]).for_each(|tally| tally.latency(took));
                }
            }
        }
        flow.touch(cx.now);
        if told.truncated {
            return cx.count.udp_reply_truncated.add(datagrams);
        }
        let (key, trains) = (flow.key, flow.trains);
        let lost = self.gather(id, key, slot, trains);
        cx.count.udp_reply_failed.add(lost as u64);
    }

    /// Adds a reply to those that leave together: to the last one, when both are of one flow and one size. Returns how many
    /// datagrams found no room.
    fn gather(&mut self, flow: FlowId, key: Key, slot: usize, trains: bool) -> usize {
        let (told, start) = (*self.replies.told(slot), self.replies.start(slot));
        let Some(Some(Front { down, owners, .. })) = self.fronts.get_mut(key.front as usize) else {
            return told.datagrams();
        };
        if told.segment == 0 {
            let part = Part { start, len: told.len };
            if let (Some(owner), Some(message)) = (owners.last_mut(), down.messages().last())
                && trains
                && owner.flow == flow
                && !owner.closed
                && message.parts < MOST_SEGMENTS
                && owner.bytes + told.len <= MOST_BYTES
            {
                let size = down.parts_of(message)[0].len;
                if (1..=size).contains(&told.len) {
                    owner.bytes += told.len;
                    owner.closed = told.len < size;
                    down.lengthen(part, size);
                    return 0;
                }
            }
            down.push(&[part], 0, Some(key.client), key.local);
            owners.push(Owner { flow, closed: told.len == 0, bytes: told.len });
            return 0;
        }
        let most = told.segment * (MOST_BYTES / told.segment).min(MOST_SEGMENTS);
        for at in (0..told.len).step_by(most) {
            let len = most.min(told.len - at);
            let segment = if len > told.segment { told.segment } else { 0 };
            if down.room() == 0 {
                // Only a train of more, smaller datagrams than the kernel makes one of.
                return (told.len - at).div_ceil(told.segment);
            }
            down.push(&[Part { start: start + at, len }], segment, Some(key.client), key.local);
            owners.push(Owner { flow, closed: true, bytes: len });
        }
        0
    }

    /// Sends what was gathered, in one call a listening socket where nothing fails.
    pub(super) fn flush(&mut self, cx: Context<'_>) {
        if self.taken == 0 {
            return;
        }
        for front in 0..self.fronts.len() {
            self.flush_front(front, cx);
        }
        self.taken = 0;
    }

    fn flush_front(&mut self, front: usize, cx: Context<'_>) {
        let Some(Some(Front { listener, socket, down, owners, .. })) = self.fronts.get_mut(front) else { return };
        let (mut at, all) = (0, down.messages().len());
        if all == 0 {
            return;
        }
        let mut sent_all = Sent::default();
        while at < all {
            match socket.send_batch(&self.replies, down, at..all) {
                Ok(sent) => {
                    let end = (at + sent.max(1)).min(all);
                    for (message, owner) in down.messages()[at..end].iter().zip(&owners[at..end]) {
                        sent_all.add(datagrams_of(down, message), owner.bytes);
                    }
                    at = end;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let message = down.messages()[at];
                    if message.segment == 0 || !forbids_trains(&error) {
                        drop_down(datagrams_of(down, &message), &error, cx);
                    } else {
                        if let Some(flow) = self.flows.get_mut(owners[at].flow) {
                            flow.trains = false;
                        }
                        let train = (down.parts_of(&message), message);
                        send_one_by_one(socket, &self.replies, train, &mut self.up, &mut sent_all, cx);
                    }
                    at += 1;
                }
            }
        }
        sent_all.count(*listener, cx);
        down.clear();
        owners.clear();
    }
}

fn datagrams_of(batch: &Batch, message: &Departure) -> usize {
    match (message.segment, batch.parts_of(message)) {
        (0, _) => 1,
        (segment, [one]) => one.len.div_ceil(segment),
        (_, parts) => parts.len(),
    }
}

/// What has gone to clients by one flush.
#[derive(Default)]
struct Sent {
    datagrams: u64,
    bytes: u64,
}

impl Sent {
    fn add(&mut self, datagrams: usize, bytes: usize) {
        self.datagrams += datagrams as u64;
        self.bytes += bytes as u64;
    }

    fn count(self, listener: ListenerId, cx: Context<'_>) {
        cx.count.udp_out.add(self.datagrams);
        cx.count.bytes_out.add(self.bytes);
        let pool = cx.snapshot.listener(listener).and_then(|listener| listener.pool);
        for tally in cx.tallies(listener, pool.unwrap_or(PoolId(0))) {
            tally.datagrams_out.add(self.datagrams);
            tally.bytes_out.add(self.bytes);
        }
    }
}

/// Sends the datagrams of a train that was refused.
fn send_one_by_one<S: Socket>(
    socket: &mut S,
    bytes: &Slots,
    (parts, message): (&[Part], Departure),
    up: &mut Batch,
    sent: &mut Sent,
    cx: Context<'_>,
) {
    for whole in parts {
        for at in (0..whole.len).step_by(message.segment) {
            let part = Part { start: whole.start + at, len: message.segment.min(whole.len - at) };
            up.clear();
            up.push(&[part], 0, message.to, message.source);
            loop {
                match socket.send_batch(bytes, up, 0..1) {
                    Ok(_) => sent.add(1, part.len),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => drop_down(1, &error, cx),
                }
                break;
            }
        }
    }
}

fn drop_down(datagrams: usize, error: &io::Error, cx: Context<'_>) {
    let counter = match error.raw_os_error() {
        _ if error.kind() == ErrorKind::WouldBlock => &cx.count.udp_reply_would_block,
        Some(libc::EMSGSIZE) => &cx.count.udp_reply_too_big,
        _ => &cx.count.udp_reply_failed,
    };
    counter.add(datagrams as u64);
}
