//! The account: what one walk from route to account adds to the tallies of its listener, its pool and its backends.
//!
//! Knows: whose tallies. Must not touch: links, bytes, the clock. Whatever [`Books::begin`] counts must come to
//! [`Books::end`] once, and whatever [`Books::try_begins`] counts to [`Books::try_ends`]; so must sessions that end from
//! outside ([`crate::session::Phase::abandon`]).

use crate::base::ids::{PoolId, WorkerId};
use crate::link::Net;
use crate::session::{Context, Who};
use crate::shared::backend::{BackendState, Lease};
use crate::shared::snapshot::{Protocol, Snapshot};
use crate::stats::Tally;

/// How something that was begun has ended, and by whose doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Served.
    Succeeded,
    /// The backend's fault.
    Failed,
    /// We refused it.
    Refused,
    /// The client left, or we ran short of something.
    #[default]
    Aborted,
}

impl Verdict {
    /// Of a connection to a backend that failed: `local` when that was our own shortage.
    pub(super) fn of_failure(local: bool) -> Verdict {
        if local { Verdict::Aborted } else { Verdict::Failed }
    }

    /// Of a response with this status: what a backend does not implement is no failure of it.
    pub(super) fn of_status(status: u16) -> Verdict {
        match status {
            501 | 505 => Verdict::Succeeded,
            500.. => Verdict::Failed,
            _ => Verdict::Succeeded,
        }
    }

    fn count(self, tally: &Tally) {
        self.add(tally, 1);
    }

    /// Counts so many that ended in this way.
    pub(super) fn add(self, tally: &Tally, n: u64) {
        match self {
            Verdict::Succeeded => tally.succeeded.add(n),
            Verdict::Failed => tally.failed.add(n),
            Verdict::Refused => tally.refused.add(n),
            Verdict::Aborted => tally.aborted.add(n),
        }
    }
}

/// What a worker counts in.
#[derive(Clone, Copy)]
pub struct Books<'a> {
    /// What is in force.
    pub snapshot: &'a Snapshot,
    /// Who counts.
    pub worker: WorkerId,
}

impl<'a> Books<'a> {
    fn listener(self, who: &Who) -> Option<&'a Tally> {
        self.snapshot.listener(who.listener).map(|listener| listener.tallies.of(self.worker))
    }

    fn pool(self, pool: Option<PoolId>) -> Option<&'a Tally> {
        self.snapshot.pool(pool?).map(|pool| pool.tallies.of(self.worker))
    }

    fn both(self, who: &Who, pool: Option<PoolId>) -> impl Iterator<Item = &'a Tally> {
        self.listener(who).into_iter().chain(self.pool(pool))
    }

    /// Counts what `who` has begun, under the name that its protocol has for it.
    fn count(self, who: &Who, tally: &Tally) {
        match self.snapshot.listener(who.listener).map(|listener| listener.protocol) {
            Some(Protocol::Http) => tally.requests.add(1),
            Some(Protocol::Tcp) => tally.connections.add(1),
            Some(Protocol::Udp) => tally.sessions.add(1),
            None => {}
        }
    }

    /// A request or a connection has come, and is to go to `pool` if that is known.
    pub(super) fn begin(self, who: &Who, pool: Option<PoolId>) {
        self.both(who, pool).for_each(|tally| self.count(who, tally));
    }

    /// What was begun has ended.
    pub(super) fn end(self, who: &Who, pool: Option<PoolId>, verdict: Verdict) {
        self.both(who, pool).for_each(|tally| verdict.count(tally));
    }

    /// Something came that was refused at the door: no pool has to do with it.
    pub(super) fn refused(self, who: &Who) {
        self.begin(who, None);
        self.end(who, None, Verdict::Refused);
    }

    /// A backend was picked.
    pub(super) fn try_begins(self, who: &Who, lease: &Lease) {
        self.count(who, lease.backend().tallies.of(self.worker));
    }

    /// It served, or it did not.
    pub(super) fn try_ends(self, lease: &Lease, verdict: Verdict) {
        let verdict = if verdict == Verdict::Refused { Verdict::Aborted } else { verdict };
        verdict.count(lease.backend().tallies.of(self.worker));
    }

    /// It is to be tried again since this backend failed.
    pub(super) fn retried(self, who: &Who, pool: Option<PoolId>, failed: Option<&BackendState>) {
        let backend = failed.map(|backend| backend.tallies.of(self.worker));
        self.both(who, pool).chain(backend).for_each(|tally| tally.retries.add(1));
    }

    /// So many bytes came from the client, and from the backend for it.
    #[inline]
    pub(super) fn moved(self, who: &Who, pool: Option<PoolId>, lease: Option<&Lease>, up: u64, down: u64) {
        if up | down == 0 {
            return;
        }
        let backend = lease.map(|lease| lease.backend().tallies.of(self.worker));
        for tally in self.both(who, pool).chain(backend) {
            tally.bytes_in.add(up);
            tally.bytes_out.add(down);
        }
    }

    /// Bytes of our own to a client.
    pub(super) fn answered(self, who: &Who, bytes: usize) {
        if let Some(tally) = self.listener(who) {
            tally.bytes_out.add(bytes as u64);
        }
    }

    /// Nanoseconds until there was an answer: since all began, and since this backend was picked.
    pub(super) fn latency(self, who: &Who, pool: Option<PoolId>, lease: Option<&Lease>, whole: u64, last: u64) {
        self.both(who, pool).for_each(|tally| tally.latency(whole));
        if let Some(lease) = lease {
            lease.backend().tallies.of(self.worker).latency(last);
        }
    }
}

impl<'a, N: Net> Context<'a, N> {
    /// What is counted in.
    pub(super) fn books(&self) -> Books<'a> {
        Books { snapshot: self.snapshot, worker: self.worker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_a_response_is() {
        let rows = [
            (200, Verdict::Succeeded),
            (101, Verdict::Succeeded),
            (404, Verdict::Succeeded),
            (499, Verdict::Succeeded),
            (500, Verdict::Failed),
            (501, Verdict::Succeeded),
            (502, Verdict::Failed),
            (503, Verdict::Failed),
            (505, Verdict::Succeeded),
            (599, Verdict::Failed),
        ];
        for (status, expected) in rows {
            assert_eq!(Verdict::of_status(status), expected, "{status}");
        }
    }
}
