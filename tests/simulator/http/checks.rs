//! What must hold after each turn, and at the end.

use super::client::{Caller, Seen};
use super::plan::{Act, Answer, Body, Ending, Meets, Then};
use super::render::BAD_HEADS;
use super::world::{Summary, World};
use l4lb::base::blocks::{BLOCK, CHAIN};
use l4lb::link::scripted::{End, PAGE, Record};

/// Blocks a session may hold: what was read of each side, what waits for each, and a head for a second try.
const MOST_BLOCKS: usize = 4 * CHAIN + 2;

/// Memory, limits, and calls that find nothing.
pub(crate) fn after_turn(world: &World) -> Result<(), String> {
    let pipes = world.scenario.whims.pipes;
    let most = MOST_BLOCKS + 2 * (pipes.slots * PAGE).div_ceil(BLOCK);
    if world.core.pipes() > pipes.most {
        return Err(format!("{} pipes, and there may be {}", world.core.pipes(), pipes.most));
    }
    if world.core.blocks() > world.core.sessions() * most {
        return Err(format!("{} blocks for {} sessions", world.core.blocks(), world.core.sessions()));
    }
    let current = world.current();
    for (backend, spec) in current.pools[0].backends.iter().zip(&world.scenario.pool.backends) {
        let (used, idle) = (backend.state.active.used(), backend.state.idle.used());
        if spec.max_connections > 0 && used > spec.max_connections {
            return Err(format!("{} requests at {}, which takes {}", used, backend.id, spec.max_connections));
        }
        if idle as usize > world.scenario.pool.keepalive {
            return Err(format!("{idle} idle connections to {} are kept", backend.id));
        }
    }
    let mut sockets = world.net.sockets();
    for number in 0..sockets.len() {
        let record = sockets.get(number).record();
        // The latch is there to leave out calls that would find nothing.
        if record.empty > record.events || record.full > record.events + 1 {
            return Err(format!("socket {number}: calls for nothing: {record:?}"));
        }
    }
    Ok(())
}

/// After the last session: what may be left (idle connections, before their time), and what not.
pub(crate) fn left_behind(world: &World, may_idle: bool) -> Result<(), String> {
    let current = world.current();
    let backends = &current.pools[0].backends;
    let leases: u32 = backends.iter().map(|b| b.state.active.used()).sum();
    let idle: u32 = backends.iter().map(|b| b.state.idle.used()).sum();
    let permits: u32 = current.listeners.iter().map(|listener| listener.connections.used()).sum();
    let open = {
        let mut sockets = world.net.sockets();
        (0..sockets.len()).filter(|at| sockets.get(*at).record().closed_at.is_none()).count()
    };
    let links = world.core.links();
    if links != idle as usize || links != open {
        return Err(format!("{links} links, {open} sockets and {idle} places for idle connections"));
    }
    let left = [
        ("sessions", world.core.sessions()),
        ("links", if may_idle { 0 } else { links }),
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

/// Everything is over.
pub(crate) fn at_the_end(world: &World, mut summary: Summary) -> Result<Summary, String> {
    let totals = &summary.totals;
    let mut sockets = world.net.sockets();
    let panicked = (0..sockets.len()).filter(|at| sockets.get(*at).has_panicked()).count() as u64;
    if totals.panics != panicked {
        return Err(format!("{} panics were counted and {panicked} were scripted", totals.panics));
    }
    let unwatched = world.callers.iter().filter(|caller| sockets.get(caller.socket).link().is_none()).count();
    if totals.accepted != world.callers.len() as u64 {
        return Err(format!("{} clients and {} counted", world.callers.len(), totals.accepted));
    }
    let taken: u64 = world.callers.iter().map(|caller| sockets.get(caller.socket).record().taken).sum();
    if totals.bytes_in > taken {
        return Err(format!("{taken} bytes in, counted as {}", totals.bytes_in));
    }
    drop(sockets);
    crate::checks::booked(&world.current(), totals.panics)?;
    for (id, request) in world.ledger.requests.iter().enumerate() {
        tries(world, id, request)?;
    }
    let is_quiet = totals.shed == 0 && !world.was_cut && unwatched == 0;
    let mut unexplained = Vec::new();
    for caller in &world.callers {
        for seen in &caller.seen {
            match seen {
                Seen::Whole(_) => summary.whole += 1,
                Seen::Part(_) | Seen::Torn | Seen::Own(_, false) => summary.parts += 1,
                Seen::Own(status, true) => {
                    summary.own += 1;
                    summary.last_own = *status;
                }
            }
        }
        summary.tunnels += u64::from(caller.tunnelled().is_some());
        if is_quiet && let Err(why) = served(world, caller) {
            unexplained
                .push(format!("client's socket {}: {why}; it saw {:?}, {:?}", caller.socket, caller.seen, caller.saw));
        }
    }
    // Whoever met a panic is owed nothing, but that is one session each.
    match unexplained.len() as u64 > panicked {
        true => Err(unexplained.join("\n  ")),
        false => Ok(summary),
    }
}

/// A request may be tried again only where no byte of a response has come.
fn tries(world: &World, id: usize, request: &super::ledger::Request) -> Result<(), String> {
    for (number, attempt) in request.attempts.iter().enumerate() {
        let taken = world.net.sockets().get(attempt.socket).record().taken;
        let is_last = number + 1 == request.attempts.len();
        if !is_last && taken > attempt.taken_before {
            return Err(format!("request {id} was tried again after {} bytes", taken - attempt.taken_before));
        }
    }
    let most = world.scenario.pool.retries + 2;
    match request.attempts.len() > most {
        true => Err(format!("request {id} was tried {} times", request.attempts.len())),
        false => Ok(()),
    }
}

/// Each request of a client that waits for it has an answer that is right, or an error with a cause, or a visible cut
/// with one.
fn served(world: &World, caller: &Caller) -> Result<(), String> {
    let record = record(world, caller);
    let (listener, pool) = (world.scenario.listener, &world.scenario.pool);
    let is_over = caller.broke || record.died_at.is_some() || caller.is_slow();
    let client = world.ledger.requests.get(caller.asks.start).map_or(0, |request| request.client);
    let acts = &world.scenario.clients[client].acts;
    let all_answers = || world.ledger.requests.iter().flat_map(|request| &request.ask.answers);
    // A connection that was broken under another request says something about this one, too.
    let conns_end = all_answers().any(|answer| !matches!(answer.then, Then::Keep) || answer.cut.is_some());
    let goes_silent = all_answers().any(|answer| {
        matches!(answer.then, Then::End(_, Ending::Silence)) || matches!(answer.cut, Some((_, Ending::Silence)))
    });
    let meets: Vec<&Meets> = pool.backends.iter().flat_map(|backend| &backend.meets).collect();
    let meets_badly = meets.iter().any(|meets| !matches!(meets, Meets::Serves(_)));
    let meets_late = meets.iter().any(|meets| match meets {
        Meets::Serves(wait) => *wait >= pool.connect_timeout,
        Meets::Refuses(wait, _) => wait.is_none_or(|wait| wait >= pool.connect_timeout),
        Meets::Slams(_, Ending::Silence) => true,
        // Descriptors are waited for.
        Meets::Fails(libc::EMFILE) => true,
        _ => false,
    });
    let limited = pool.backends.iter().any(|backend| backend.max_connections > 0);
    let waits = |limit: u64| limit > 0 && caller.paused + caller.held >= limit;
    // Whoever ends its side while it waits for its turn has lost patience; what it has sent behind that is not read.
    let gave_up = world.scenario.queues() && acts.iter().any(|act| matches!(act, Act::Finish));
    for (place, id) in caller.asks.clone().enumerate() {
        let request = &world.ledger.requests[id];
        let ask = &request.ask;
        let answers: Vec<&Answer> = (0..request.attempts.len()).map(|attempt| ask.answer(attempt)).collect();
        let is_wrong = answers.iter().any(|answer| !answer.is_kind());
        let is_late = answers.iter().any(|answer| answer.delay >= pool.response_timeout.min(listener.body))
            || listener.request > 0 && answers.iter().any(|answer| answer.delay >= listener.request);
        let backend_fails = is_wrong || conns_end || meets_badly || world.scenario.whims.unwatched > 0;
        let backend_waits = is_late || meets_late || goes_silent;
        let client_waits = waits(listener.body) || waits(listener.header) || listener.request > 0;
        let is_bad_body = matches!(ask.body, Body::Bad { .. });
        let is_torn = !request.is_sent();
        let seen = caller.seen.get(place);
        let is_right = match seen {
            Some(Seen::Whole(attempt)) => {
                !ask.is_bad() || is_bad_body && ask.answer(*attempt).when != super::plan::When::Whole
            }
            Some(Seen::Part(_) | Seen::Torn) => {
                is_over || is_wrong || conns_end || is_bad_body || backend_waits || is_torn || listener.request > 0
            }
            Some(Seen::Own(_, false)) => is_over || is_torn,
            Some(Seen::Own(status, true)) => match (status, ask.bad_head) {
                (_, Some(bad)) if request.is_sent() => *status == BAD_HEADS[bad].2,
                (400, None) if is_bad_body => true,
                (400 | 414 | 417 | 421 | 431 | 501 | 505, Some(bad)) => *status == BAD_HEADS[bad].2,
                (408, _) => client_waits,
                (413, None) => listener.max_body > 0 && ask.body.length() > listener.max_body,
                (502, None) => backend_fails,
                (503, None) => limited,
                (504, None) => backend_waits || client_waits || listener.request > 0,
                _ => false,
            },
            None => {
                let never_began = request.sent == 0;
                is_over || never_began || gave_up || is_torn || caller.was_told_last || caller.tunnelled().is_some()
                    // An idle connection may be closed just as a request comes.
                    || waits(listener.idle)
            }
        };
        if !is_right {
            return Err(format!(
                "request {id} ({} {:?}) of {} tries saw {seen:?}",
                ask.method,
                ask.body,
                request.attempts.len()
            ));
        }
        if !matches!(seen, Some(Seen::Whole(_) | Seen::Own(_, true))) {
            break;
        }
    }
    if is_over {
        return Ok(());
    }
    // Its end: clean behind answers that were whole, and never otherwise.
    let is_cut = matches!(caller.seen.last(), Some(Seen::Part(_) | Seen::Torn));
    if caller.saw == Some(End::Reset) && !is_cut && caller.tunnelled().is_none() {
        let late = acts.iter().any(|act| matches!(act, Act::Pause(_) | Act::Hold(_)));
        if !late && !gave_up {
            return Err("a reset without a cause".into());
        }
    }
    if let Some((said, heard)) = caller.tunnelled()
        && !waits(listener.tunnel)
        && !meets_badly
    {
        let id = caller.asks.start + caller.seen.len() - 1;
        let request = &world.ledger.requests[id];
        let length = request.ask.answer(request.attempts.len() - 1).length;
        if request.ask.answer(request.attempts.len() - 1).is_kind() && (heard != length || request.tunnelled != said) {
            return Err(format!(
                "{heard} of {length} bytes heard, {} of {said} said, in another protocol",
                request.tunnelled
            ));
        }
    }
    Ok(())
}

fn record(world: &World, caller: &Caller) -> Record {
    *world.net.sockets().get(caller.socket).record()
}
