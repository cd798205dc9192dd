//! Before anything else, where the listener asks for it: the PROXY protocol header, which tells who the client is.

use crate::base::blocks::Chain;
use crate::base::time::Tick;
use crate::link::{Net, Read};
use crate::relay::SCRATCH;
use crate::session::{Close, Context, Outcome, Phase, Turn, Who, enter};
use crate::shared::mail::canonical;
use crate::wire::proxy;

/// Bytes read at once: what is left of them must fit behind another PROXY header, to the backend.
const MOST: usize = SCRATCH - 4096;

/// The header is read. It must come whole within header_timeout.
pub struct Proxied {
    inbox: Chain,
    since: Tick,
}

impl Proxied {
    pub(super) fn new(now: Tick) -> Proxied {
        Proxied { inbox: Chain::default(), since: now }
    }

    pub(super) fn turn<N: Net>(mut self, who: &mut Who, cx: &mut Context<'_, N>) -> Turn {
        let Some(listener) = cx.snapshot.listener(who.listener) else { return self.close(cx) };
        let due = self.since.after(listener.http.header_timeout);
        loop {
            let Some(client) = cx.links.get_mut(who.client) else { return self.close(cx) };
            let have = self.inbox.peek(&mut cx.scratch[..MOST]);
            let read = if client.readable() { client.recv(&mut cx.scratch[have..MOST]) } else { Read::Empty };
            let n = match read {
                Read::Bytes(n) => n,
                Read::Empty if cx.now < due => return Turn::Stop(Outcome::Wait(Phase::Proxied(self), due)),
                Read::Empty | Read::End | Read::Broken => return self.close(cx),
            };
            if self.inbox.push(&cx.scratch[have..have + n], cx.blocks).is_err() {
                return self.close(cx);
            }
            match proxy::decode(&cx.scratch[..have + n]) {
                Ok(Some((header, length))) => {
                    who.address = canonical(header.client(who.address));
                    who.destination = header.destination;
                    self.inbox.consume(length, cx.blocks);
                    return enter(self.inbox, who, cx);
                }
                Ok(None) => {}
                Err(error) => {
                    log::debug!("client {}: closed: {error}", who.address);
                    cx.count.unserved.add(1);
                    cx.books().refused(who);
                    return self.close(cx);
                }
            }
        }
    }

    fn close<N: Net>(mut self, cx: &mut Context<'_, N>) -> Turn {
        self.inbox.clear(cx.blocks);
        Turn::Stop(Outcome::Done(Close::Clean))
    }
}
