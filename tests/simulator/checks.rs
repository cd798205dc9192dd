//! What must hold: after each turn, whenever everything is at rest, and at the end.

use crate::script::Peer;
use crate::world::{Session, Summary, World};
use l4lb::base::blocks::{BLOCK, CHAIN, CHAIN_BYTES};
use l4lb::link::Ready;
use l4lb::link::scripted::{End, PAGE, Record, State};
use l4lb::shared::snapshot::Snapshot;
use std::collections::BTreeSet;

/// How long a reset may wait for an acknowledgement, and then some, in milliseconds.
const PASSED_ON: u64 = 1_300;

/// Memory and limits.
pub(crate) fn after_turn(world: &World) -> Result<(), String> {
    let pipes = world.scenario.whims.pipes;
    let pipe = pipes.slots * PAGE;
    let most = world.core.sessions() * 2 * CHAIN.max(pipe.div_ceil(BLOCK));
    if world.core.blocks() > most {
        return Err(format!("{} blocks for {} sessions", world.core.blocks(), world.core.sessions()));
    }
    if world.core.pipes() > pipes.most {
        return Err(format!("{} pipes, and there may be {}", world.core.pipes(), pipes.most));
    }
    for (pool, spec) in world.current().pools.iter().zip(&world.scenario.pools) {
        for (backend, spec) in pool.backends.iter().zip(&spec.backends) {
            let used = backend.state.active.used();
            if spec.max_connections > 0 && used > spec.max_connections {
                return Err(format!("{} connections to {}, which takes {}", used, backend.id, spec.max_connections));
            }
        }
    }
    for session in &world.sessions {
        for (from, to) in directions(session) {
            let (from, to) = (record(world, from), record(world, to));
            // The latch is there to leave out calls that would find nothing.
            if from.empty > from.events || from.full > from.events + 1 {
                return Err(format!(
                    "{} events, {} reads of nothing, {} writes into nothing",
                    from.events, from.empty, from.full
                ));
            }
            if to.sent > from.taken || from.taken - to.sent > CHAIN_BYTES.max(pipe) as u64 {
                return Err(format!("{} bytes taken and {} sent on: more held than may be", from.taken, to.sent));
            }
        }
    }
    Ok(())
}

/// A connect for a session that has its backend already.
pub(crate) fn at_a_dial(world: &World, session: usize) -> Result<(), String> {
    let session = &world.sessions[session];
    let moved = record(world, &session.client).calls > 0;
    match moved && session.dials.iter().filter_map(|dial| dial.peer.as_ref()).any(|peer| record(world, peer).calls > 0)
    {
        true => Err("another backend for a client whose bytes moved already".into()),
        false => Ok(()),
    }
}

/// Nothing happens by itself now: then nothing that could be done may be left undone.
pub(crate) fn at_rest(world: &World) -> Result<(), String> {
    let mut held = 0;
    for session in &world.sessions {
        let is_over = record(world, &session.client).closed_at.is_some();
        for (from, to) in directions(session).into_iter().filter(|_| !is_over) {
            let (source, sink) = (record(world, from), record(world, to));
            let mut sockets = world.net.sockets();
            let states = (sockets.get(from.socket).state(), sockets.get(to.socket).state());
            if states.0 == State::Dead && states.1 == State::Connecting && from.socket == session.client.socket {
                return Err(format!("the client of socket {} has broken, and its connect goes on", from.socket));
            }
            if states.0 == State::Connecting || states.1 == State::Connecting {
                continue;
            }
            held += source.taken - sink.sent;
            let held = source.taken - sink.sent;
            let (unread, at_end) = (sockets.get(from.socket).unread(), sockets.get(from.socket).at_end());
            if sockets.get(to.socket).has_room() && (held > 0 || unread > 0 || at_end) {
                return Err(format!(
                    "stalled: {held} bytes held, {unread} unread, at the end: {at_end}, and there is room in socket {}",
                    to.socket
                ));
            }
            if states == (State::Open, State::Open)
                && source.end_taken
                && held == 0
                && !sockets.get(to.socket).is_shut()
            {
                return Err(format!("the end of socket {} is not passed on to socket {}", from.socket, to.socket));
            }
            let Some(died) = source.died_at else { continue };
            let last = died.max(sink.moved_at).max(to.acted_at).max(sink.died_at.unwrap_or_default());
            let out = sockets.get(to.socket).unacknowledged();
            if (sink.died_at.is_some() || held == 0 && unread == 0 && out == 0) && world.now.0 > last.0 + PASSED_ON {
                return Err(format!("the reset of socket {} is not passed on to socket {}", from.socket, to.socket));
            }
        }
    }
    match held == 0 && world.core.blocks() > 0 {
        true => Err(format!("nothing is held, and {} blocks are", world.core.blocks())),
        false => Ok(()),
    }
}

/// Everything is over.
pub(crate) fn at_the_end(world: &World, mut summary: Summary) -> Result<Summary, String> {
    left_behind(world)?;
    counted(world, &summary)?;
    booked(&world.current(), summary.totals.panics)?;
    let is_quiet = summary.totals.shed == 0 && !world.was_cut;
    for session in &world.sessions {
        served(world, session, is_quiet)?;
        let pairs = directions(session);
        for &(from, to) in &pairs {
            summary.passed_on += u64::from(direction(world, session, from, to, is_quiet)?);
        }
        if pairs.is_empty() && session.client.got > 0 {
            return Err("bytes from no backend".into());
        }
        let is_whole = |(from, to): &(&Peer, &Peer)| to.saw_fin && to.got == from.sent && from.sent > 0;
        summary.whole += u64::from(pairs.len() == 2 && pairs.iter().all(is_whole));
    }
    Ok(summary)
}

fn left_behind(world: &World) -> Result<(), String> {
    let leases: u32 = world.current().pools.iter().flat_map(|pool| &pool.backends).map(|b| b.state.active.used()).sum();
    let permits: u32 = world.current().listeners.iter().map(|listener| listener.connections.used()).sum();
    let open = {
        let mut sockets = world.net.sockets();
        (0..sockets.len()).filter(|at| sockets.get(*at).record().closed_at.is_none()).count()
    };
    let left = [
        ("sessions", world.core.sessions()),
        ("links", world.core.links()),
        ("sockets", open),
        ("blocks", world.core.blocks()),
        ("leases", leases as usize),
        ("permits of a listener", permits as usize),
        ("permits of the process", world.process.used() as usize),
    ];
    match left.iter().find(|(_, count)| *count > 0) {
        Some((what, count)) => Err(format!("{count} {what} are left behind")),
        None => Ok(()),
    }
}

/// What has begun at a listener, in a pool or at a backend has ended there once; what a panic took with it is lost.
pub(crate) fn booked(snapshot: &Snapshot, panics: u64) -> Result<(), String> {
    let listeners = snapshot.listeners.iter().map(|listener| (&listener.name, listener.tallies.sum()));
    let pools = snapshot.pools.iter().map(|pool| (&pool.name, pool.tallies.sum()));
    let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
    let backends = backends.map(|backend| (&backend.id, backend.state.tallies.sum()));
    for (name, sum) in listeners.chain(pools).chain(backends) {
        let begun = sum.requests + sum.connections;
        let ended = sum.succeeded + sum.failed + sum.refused + sum.aborted;
        if ended > begun || begun - ended > panics {
            return Err(format!("{name}: {begun} begun and {ended} ended, with {panics} panics: {sum:?}"));
        }
    }
    Ok(())
}

/// Each session is accounted for once, and each byte.
fn counted(world: &World, summary: &Summary) -> Result<(), String> {
    let mut sockets = world.net.sockets();
    let totals = &summary.totals;
    let panicked = (0..sockets.len()).filter(|at| sockets.get(*at).has_panicked()).count() as u64;
    if totals.panics != panicked {
        return Err(format!("{} panics were counted and {panicked} were scripted", totals.panics));
    }
    let unwatched = world.sessions.iter().filter(|s| sockets.get(s.client.socket).link().is_none()).count() as u64;
    let told = totals.ended + totals.cut + totals.idle + totals.unserved + totals.shed + totals.panics + unwatched;
    if totals.accepted != world.sessions.len() as u64 || totals.accepted != told {
        return Err(format!("{} sessions, and accounts for {told}: {totals:?}", world.sessions.len()));
    }
    if panicked == 0 {
        let up: u64 = world.sessions.iter().map(|s| sockets.get(s.client.socket).record().taken).sum();
        let backends = world.sessions.iter().flat_map(|s| &s.dials).filter_map(|dial| dial.peer.as_ref());
        let down: u64 = backends.map(|peer| sockets.get(peer.socket).record().taken).sum();
        if (up, down) != (totals.bytes_in, totals.bytes_out) {
            return Err(format!("{up} and {down} bytes, counted as {} and {}", totals.bytes_in, totals.bytes_out));
        }
    }
    Ok(())
}

/// Who is left without a backend has tried as many as it may; who was given one got no other.
fn served(world: &World, session: &Session, is_quiet: bool) -> Result<(), String> {
    let client = record(world, &session.client);
    let has_panicked = |peer: &Peer| world.net.sockets().get(peer.socket).has_panicked();
    let link = world.net.sockets().get(session.client.socket).link();
    if client.died_at.is_some() || !is_quiet || link.is_none() || has_panicked(&session.client) {
        return Ok(());
    }
    let peers: Vec<&Peer> = session.dials.iter().filter_map(|dial| dial.peer.as_ref()).collect();
    if peers.iter().any(|peer| has_panicked(peer)) {
        return Ok(());
    }
    for peer in &peers {
        let backend = record(world, peer);
        let is_good = backend.told.any(Ready::OUT) && !backend.failed;
        let last = peers.last().is_some_and(|last| last.socket == peer.socket);
        if is_good && !last {
            return Err(format!("socket {} was connected, and another backend was tried", peer.socket));
        }
        if is_good {
            return Ok(());
        }
    }
    let pool = &world.scenario.pools[session.pool];
    if pool.backends.iter().any(|backend| backend.max_connections > 0) {
        return Ok(());
    }
    let eligible = pool.backends.iter().filter(|backend| !backend.addresses.is_empty()).count();
    let tried: BTreeSet<usize> = session.dials.iter().map(|dial| dial.backend).collect();
    let due = eligible.min(pool.retries + 1);
    match tried.len() == due {
        true => Ok(()),
        false => Err(format!("unserved after {} backends; {due} may be tried", tried.len())),
    }
}

/// One direction of a session. True when it ended in a reset that was passed on whole.
fn direction(world: &World, session: &Session, from: &Peer, to: &Peer, is_quiet: bool) -> Result<bool, String> {
    let (source, sink) = (record(world, from), record(world, to));
    let name = format!("from socket {} to socket {} ({source:?}, {sink:?}, {from:?}, {to:?})", from.socket, to.socket);
    let closed = source.closed_at.max(sink.closed_at).unwrap_or(world.now);
    let is_idle = closed.0 >= source.moved_at.max(sink.moved_at).0 + session.idle;
    let is_unused = source.calls == 0 && sink.calls == 0;
    let mut sockets = world.net.sockets();
    if to.saw_fin {
        if to.got != source.taken {
            return Err(format!("{name}: a clean end after {} of {} bytes that were taken", to.got, source.taken));
        }
        if source.end_taken && to.got != from.sent {
            return Err(format!("{name}: a clean end after {} of {} bytes", to.got, from.sent));
        }
        if !source.end_taken && !is_idle && !is_unused {
            return Err(format!("{name}: a clean end where the source has not ended"));
        }
    }
    let has_panicked = sockets.get(from.socket).has_panicked() || sockets.get(to.socket).has_panicked();
    let backend = if from.socket == session.client.socket { sink } else { source };
    let has_begun = backend.told.any(Ready::OUT) && !backend.failed;
    let client = if from.socket == session.client.socket { source } else { sink };
    // A client that broke before its backend was there is owed nothing, and nor is the backend.
    let was_dropped = is_unused && client.died_at.is_some();
    if !is_quiet || has_panicked || !has_begun || was_dropped || is_idle || to.broke || sink.died_at.is_some() {
        return Ok(false);
    }
    if source.died_at.is_some() {
        if to.stalled {
            return Ok(false);
        }
        if to.got != source.arrived {
            return Err(format!(
                "{name}: reset after {} bytes of {} that had arrived before it",
                to.got, source.arrived
            ));
        }
        if !source.end_taken && to.saw != Some(End::Reset) {
            return Err(format!("{name}: a reset was not passed on"));
        }
        return Ok(to.got > 0);
    }
    if sockets.get(from.socket).fin() {
        if to.got != from.sent {
            return Err(format!("{name}: {} bytes of {} came", to.got, from.sent));
        }
        if !to.saw_fin || to.saw == Some(End::Reset) {
            return Err(format!("{name}: all came, but the end was not clean: {:?}", to.saw));
        }
    }
    Ok(false)
}

fn record(world: &World, peer: &Peer) -> Record {
    *world.net.sockets().get(peer.socket).record()
}

/// From the client to the backend that it had last, and back; none without a backend.
fn directions(session: &Session) -> Vec<(&Peer, &Peer)> {
    match session.dials.last().and_then(|dial| dial.peer.as_ref()) {
        Some(backend) => vec![(&session.client, backend), (backend, &session.client)],
        None => Vec::new(),
    }
}
