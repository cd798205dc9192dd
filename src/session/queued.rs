//! Every backend is full: the client waits in line.

use crate::base::blocks::Chain;
use crate::base::ids::PoolId;
use crate::link::{Link, Net};
use crate::session::books::Verdict;
use crate::session::connect::{Before, Connect, unserved};
use crate::session::waiting::Place;
use crate::session::{Books, Close, Context, Outcome, Phase, Turn, Who};
use crate::shared::choose::NoBackend;

/// See the module.
pub struct Queued {
    pool: PoolId,
    place: Place,
    /// What the client has sent already, behind its PROXY header.
    inbox: Chain,
    before: Before,
}

impl Queued {
    /// Goes to the end of the line, if there is one and it has room.
    pub(super) fn begin<N: Net>(id: PoolId, inbox: Chain, before: Before, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        let place = cx.snapshot.pool(id).and_then(|pool| cx.waiting.join(id, pool, who.id, cx.now));
        let Some(place) = place else {
            return unserved(id, who, cx, before.verdict, &"every backend is full, and so is the queue");
        };
        // A place that came free in this moment wakes nobody.
        Queued { pool: id, place, inbox, before }.turn(who, cx)
    }

    /// Accounts for it as given up.
    pub(super) fn abandon(&self, who: &Who, books: Books<'_>) {
        books.end(who, Some(self.pool), Verdict::Aborted);
    }

    /// True for the one with that ticket.
    pub(super) fn has_ticket(&self, number: u64) -> bool {
        self.place.number() == number
    }

    /// Goes on when it is its turn and there is a place, or when it has waited for long enough.
    pub(super) fn turn<N: Net>(self, who: &Who, cx: &mut Context<'_, N>) -> Turn {
        // One that has only ended its side behind a request still waits for an answer; one that never said a word has left.
        let nothing_said = self.inbox.is_empty();
        let left = |client: &mut Link<N::Stream>| client.notice_break() || nothing_said && client.peer_left();
        if cx.links.get_mut(who.client).is_none_or(left) {
            cx.waiting.leave(self.pool, self.place.number());
            cx.count.cut.add(1);
            self.abandon(who, cx.books());
            return Turn::Stop(Outcome::Done(Close::Clean));
        }
        let mut why: &dyn std::fmt::Display = &"it has waited for too long";
        let picked = match cx.waiting.is_turn_of(self.pool, &self.place) {
            true => Connect::pick(self.pool, !self.inbox.is_empty(), &self.before, who, cx),
            false => Err(NoBackend::AllFull),
        };
        match picked {
            Ok(connect) => {
                cx.waiting.leave(self.pool, self.place.number());
                return connect.with(self.inbox).turn(who, cx);
            }
            Err(NoBackend::AllFull) if cx.now < self.place.until => {
                let until = self.place.until;
                return Turn::Stop(Outcome::Wait(Phase::Queued(self), until));
            }
            Err(NoBackend::AllFull) => {}
            Err(_) => why = &"nobody is left to wait for",
        }
        cx.waiting.leave(self.pool, self.place.number());
        unserved(self.pool, who, cx, self.before.verdict, why)
    }
}
