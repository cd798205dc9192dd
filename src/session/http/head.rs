//! Reading a request's head, and everything that is decided by it.

use crate::balance::Key;
use crate::base::time::Tick;
use crate::link::{Net, Read};
use crate::route::{self, Facts};
use crate::session::http::admin::{Desk, called};
use crate::session::http::exchange::Order;
use crate::session::http::gate::{self, Gate};
use crate::session::http::{Go, Http, READ, State};
use crate::session::{Close, Context, Who, key};
use crate::shared::snapshot::{Listener, Snapshot};
use crate::wire::forwarded::client_address;
use crate::wire::http1::{
    self, Body, Forward, HeadScan, Limits, NAME, Request, Storage, Version, parse_request, via_count, write_request,
};

/// Our name in `Via` more often than this is a loop.
const LOOPS: usize = 5;

/// In a drain a connection without a request is closed when its last answer is so old, in milliseconds. The next request of
/// one that was busy just now may be on its way: it is answered, and told that the connection ends, in place of being cut.
const RECENT: u64 = 1_000;

impl Http {
    /// When a client that has not sent its head has had its time.
    pub(super) fn head_due<N: Net>(&self, who: &Who, cx: &Context<'_, N>) -> Tick {
        let Some(listener) = cx.snapshot.listener(who.listener) else { return cx.now };
        match self.head_since {
            Some(began) => began.after(listener.http.header_timeout),
            None if self.served => self.since.after(listener.idle_timeout),
            None => self.since.after(listener.http.header_timeout),
        }
    }

    /// Reads until a head is whole.
    pub(super) fn read_head<N: Net>(&mut self, who: &mut Who, cx: &mut Context<'_, N>) -> Go {
        let mut have = self.inbox.peek(&mut cx.scratch[..READ]);
        if have > 0 {
            // It came with the request before.
            self.head_since.get_or_insert(cx.now);
        }
        // What was searched before is not searched again before more has come.
        let mut fresh = have > 0 && !self.scan.has_begun();
        loop {
            if fresh && let Some(go) = self.open(have, who, cx) {
                return go;
            }
            let Some(client) = cx.links.get_mut(who.client) else { return Go::Done(Close::Clean) };
            // What is not understood yet goes back behind what the inbox holds, and must fit there.
            let most = READ.min(self.inbox.len() + self.inbox.room());
            let read =
                if client.readable() && have < most { client.recv(&mut cx.scratch[have..most]) } else { Read::Empty };
            match read {
                Read::Bytes(n) => {
                    cx.count.bytes_in.add(n as u64);
                    have += n;
                    // Line ends before a request are none of it (RFC 9112, section 2.2).
                    if cx.scratch[..have].iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                        self.head_since.get_or_insert(cx.now);
                    }
                    fresh = true;
                }
                Read::Empty => {
                    let held = self.inbox.len();
                    if have > held && self.inbox.push(&cx.scratch[held..have], cx.blocks).is_err() {
                        return Go::Done(Close::Cut);
                    }
                    let mut due = self.head_due(who, cx);
                    if cx.draining && self.served && self.head_since.is_none() {
                        let rested = Tick(self.since.0 + RECENT);
                        if cx.now >= rested {
                            return Go::Done(Close::Clean);
                        }
                        due = due.min(rested);
                    }
                    if cx.now < due {
                        return Go::Wait(due.min(self.private.due()));
                    }
                    return self.too_late(who, cx);
                }
                // Between requests, or in the midst of a head: nothing was asked for.
                Read::End | Read::Broken => return Go::Done(Close::Clean),
            }
        }
    }

    fn too_late<N: Net>(&mut self, who: &Who, cx: &mut Context<'_, N>) -> Go {
        cx.count.idle.add(1);
        if self.head_since.is_none() {
            return Go::Done(Close::Clean);
        }
        self.refuse(408, "the request did not come in time", false, who, cx);
        Go::On
    }

    /// Parses `have` bytes of scratch; `None` when the head is not whole.
    fn open<N: Net>(&mut self, have: usize, who: &mut Who, cx: &mut Context<'_, N>) -> Option<Go> {
        let snapshot = cx.snapshot;
        let Some(listener) = snapshot.listener(who.listener) else { return Some(Go::Done(Close::Clean)) };
        let limits = Limits { head: listener.http.max_header_size, ..Limits::default() };
        let mut storage = Storage::new();
        let (request, length) = match parse_request(&cx.scratch[..have], &mut self.scan, &limits, &mut storage) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return None,
            Err(bad) => {
                self.refuse(bad.status, bad.why, false, who, cx);
                return Some(Go::On);
            }
        };
        let asked_head = request.method == "HEAD";
        let may_stay = request.body.is_empty() && request.keep_alive;
        let desk = called(&request, listener, &snapshot.admin, who, cx.path, cx.now);
        cx.out.clear();
        // The admin API is not limited: it is needed most when there is too much of everything.
        let order = match desk {
            Some(desk) => Ok(Asks::Us(desk)),
            None => match Gate::enter(&request, listener, who, cx) {
                Ok(mut gate) => decide(&request, listener, snapshot, who, cx.out, cx.path).map(|order| {
                    gate.toward(snapshot.pool(order.pool), &request, listener, who);
                    Asks::Backend(order, gate)
                }),
                Err(seconds) => {
                    self.retry_after = Some(seconds);
                    cx.count.limited.add(1);
                    Err((429, gate::WHY))
                }
            },
        };
        // Written anew it is longer, since the host stands in it twice; it is kept whole, and sent from the scratch.
        let order =
            if cx.out.len() > READ { Err((431, "the header fields are too long to be passed on")) } else { order };
        // What follows the head is the body, or the next request.
        let (held, rest) = (self.inbox.len(), length..have);
        if held >= length {
            self.inbox.consume(length, cx.blocks);
            let behind = &cx.scratch[held..have];
            if self.inbox.push(behind, cx.blocks).is_err() {
                return Some(Go::Done(Close::Cut));
            }
        } else {
            self.inbox.clear(cx.blocks);
            if self.inbox.push(&cx.scratch[rest], cx.blocks).is_err() {
                return Some(Go::Done(Close::Cut));
            }
        }
        self.scan = HeadScan::default();
        self.head_since = None;
        let (order, gate) = match order {
            Ok(Asks::Us(desk)) => {
                self.state = State::Admin(desk);
                return Some(Go::On);
            }
            Ok(Asks::Backend(order, gate)) => (order, gate),
            Err(refusal) => {
                // Where the next request begins is certain, and nothing else is wrong with this client.
                let stay = may_stay && matches!(refusal.0, 404 | 429) && !cx.draining;
                cx.books().refused(who);
                cx.books().moved(who, None, None, length as u64, 0);
                self.answer(refusal.0, refusal.1, asked_head, stay, who, cx);
                return Some(Go::On);
            }
        };
        let mut exchange = cx.spare.take();
        exchange.open(order.pool, length, who, cx);
        if !exchange.begin(order, gate, cx.out, cx.now, cx.blocks) {
            exchange.finish(who, cx);
            return Some(Go::Done(Close::Cut));
        }
        self.state = State::Busy(exchange);
        Some(Go::On)
    }
}

/// Whom a request is for.
enum Asks {
    Backend(Order, Gate),
    Us(Box<Desk>),
}

/// Told as Host for an HTTP/1.0 client that names none: an empty one is refused by many servers, and ours to the backend
/// is HTTP/1.1, which must have one (RFC 9112, section 3.2). The backend is not picked yet, so its name cannot be told.
const NO_HOST: &str = "localhost";

/// What a request comes to: an order for an exchange with its head in `out`, or an answer of our own.
fn decide(
    request: &Request<'_>,
    listener: &Listener,
    snapshot: &Snapshot,
    who: &Who,
    out: &mut Vec<u8>,
    path: &mut String,
) -> Result<Order, (u16, &'static str)> {
    let http = &listener.http;
    if via_count(&request.fields, NAME) > LOOPS {
        return Err((502, "the request goes round in a loop"));
    }
    let max_body = http.max_body_size;
    if matches!(request.body, Body::Length(length) if max_body > 0 && length > max_body) {
        return Err((413, "the body is larger than is accepted here"));
    }
    let normal = http1::normalise_path(request.target.path, path).map_err(|bad| (bad.status, bad.why))?;
    let facts = Facts {
        host: route::host_of(request.host),
        path: normal,
        method: request.method,
        fields: request.fields.iter(),
    };
    let pool = match http.router.find(&facts) {
        Some(route) => http.routes[route],
        None => listener.pool.ok_or((404, "there is nothing here"))?,
    };
    let peer = who.address;
    let trusted = http.trusted.contains(peer.ip());
    let client = || client_address(peer, request.fields.all("x-forwarded-for"), &http.trusted);
    let key = match snapshot.pool(pool) {
        Some(pool) if pool.hashes() => key::of_request(pool, request, normal, client),
        _ => Key::default(),
    };
    let forward =
        Forward { peer: peer.ip(), proto: "http", trusted, default_host: NO_HOST, close: false, upgrade: true };
    write_request(out, request, &forward);
    Ok(Order {
        pool,
        key,
        body: request.body,
        max_body,
        asked_head: request.method == "HEAD",
        upgrade: request.upgrade.map(Into::into),
        idempotent: matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
        version: request.version,
        keep: request.keep_alive && request.version == Version::Http11,
        te_trailers: request.te_trailers,
    })
}
