//! The limits by rate that a request passes: that of its listener when its head has come, that of its pool when it is known.
//! Under a leaky bucket it may have to wait at each.

use crate::base::time::Tick;
use crate::guard::{RateKey, Slot};
use crate::link::Net;
use crate::session::{Context, Who};
use crate::shared::limit::Limit;
use crate::shared::snapshot::{Listener, Pool};
use crate::wire::forwarded::client_address;
use crate::wire::http1::Request;
use std::time::Duration;

/// What is answered with 429.
pub(super) const WHY: &str = "this is more than is allowed just now";

/// Where a request stands.
#[derive(Default)]
pub(super) struct Gate {
    /// Whose share of the pool's limit it takes; `None` once it has, or where there is no limit.
    ahead: Option<RateKey>,
    /// It waits for this moment. Dropped, it gives the moment back.
    slot: Option<Slot>,
}

/// What passing came to.
pub(super) enum Pass {
    /// It may go on.
    On,
    /// Not before this.
    Wait(Tick),
    /// It is too much; seconds until it would not be.
    TooMany(u64),
}

fn key_of(limit: &Limit, request: &Request<'_>, listener: &Listener, who: &Who) -> RateKey {
    let field = |name: &str| request.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, v)| v);
    let forwarded = || request.fields.all("x-forwarded-for").collect::<Vec<_>>();
    limit.key(field, || client_address(who.address, forwarded(), &listener.http.trusted))
}

impl Gate {
    /// Asks the limit of the listener.
    ///
    /// # Errors
    /// It is too much; seconds until it would not be.
    pub(super) fn enter<N: Net>(
        request: &Request<'_>,
        listener: &Listener,
        who: &Who,
        cx: &Context<'_, N>,
    ) -> Result<Gate, u64> {
        let Some(limit) = &listener.rate_limit else { return Ok(Gate::default()) };
        let key = key_of(limit, request, listener, who);
        match limit.queue(key, cx.worker, || cx.net.nanos()) {
            Ok(slot) => Ok(Gate { ahead: None, slot }),
            Err(many) => Err(many.seconds()),
        }
    }

    /// It goes to `pool`, whose limit it will be asked for when it has passed that of the listener.
    pub(super) fn toward(&mut self, pool: Option<&Pool>, request: &Request<'_>, listener: &Listener, who: &Who) {
        let limit = pool.and_then(|pool| pool.rate_limit.as_ref());
        self.ahead = limit.map(|limit| key_of(limit, request, listener, who));
    }

    /// True while it waits.
    pub(super) fn waits(&self) -> bool {
        self.slot.is_some()
    }

    /// Passes what is ahead, as far as that goes now.
    pub(super) fn pass<N: Net>(&mut self, pool: &Pool, cx: &Context<'_, N>) -> Pass {
        loop {
            if let Some(slot) = self.slot.take() {
                let wait = slot.wait(cx.net.nanos());
                if wait > 0 {
                    self.slot = Some(slot);
                    return Pass::Wait(cx.now.after(Duration::from_nanos(wait)));
                }
                slot.leave();
            }
            // A limit that was there when its head came, and is no more, limits nobody.
            let Some((key, limit)) = self.ahead.take().zip(pool.rate_limit.as_ref()) else { return Pass::On };
            match limit.queue(key, cx.worker, || cx.net.nanos()) {
                Ok(None) => return Pass::On,
                Ok(slot) => self.slot = slot,
                Err(many) => return Pass::TooMany(many.seconds()),
            }
        }
    }
}
