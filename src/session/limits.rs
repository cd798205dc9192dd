//! Asking the limits by rate for those who do not wait: connections, and datagrams that would open a session.
//!
//! Requests are asked for in `http::gate`, since they know more of their client, and may wait.

use crate::link::{Net, datagram};
use crate::session::udp::{self, Dropped};
use crate::session::{Context, Who};
use crate::shared::limit::Limit;
use std::net::IpAddr;

/// True when `limit` lets a connection in, or there is none.
pub(super) fn of_connection<N: Net>(limit: Option<&Limit>, who: &Who, cx: &Context<'_, N>) -> bool {
    limit.is_none_or(|limit| {
        let key = limit.key(|_| None, || who.address.ip());
        limit.take(key, cx.worker, || cx.net.nanos()).is_ok()
    })
}

/// Asks `limit`, if there is one, for one session; those who are refused it are so many `datagrams`.
pub(super) fn of_datagrams<N: datagram::Net>(
    net: &N,
    limit: Option<&Limit>,
    client: IpAddr,
    datagrams: usize,
    cx: udp::Context<'_>,
) -> Result<(), Dropped> {
    let Some(limit) = limit else { return Ok(()) };
    let key = limit.key(|_| None, || client);
    limit.take(key, cx.worker, || net.nanos()).map_err(|_| {
        // They came at the same time: what is too much for the first of them is so for all.
        limit.gates.limited(cx.worker, datagrams.saturating_sub(1) as u64);
        Dropped::Limited
    })
}
