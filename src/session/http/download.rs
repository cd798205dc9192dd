//! A response on its way to the client: interim ones, the head, the body.

use crate::base::blocks::{Chain, Pool as Blocks};
use crate::base::time::Tick;
use crate::link::{Link, Read, Stream};
use crate::relay::{Bulk, Flushed, Outbox, Spliced};
use crate::session::http::READ;
use crate::session::http::exchange::Stop;
use crate::session::http::upload::frame;
use crate::stats::Cell;
use crate::wire::http1::{
    Answer, Asked, Body, BodyDecoder, HeadScan, Limits, Piece, Storage, Version, parse_response, write_response,
};

/// A response's head may be this large.
const HEAD: Limits = Limits { head: 48 * 1024, fields: 100 };
/// Content up to this long is copied behind the head and sent with it in one piece: one buffer costs the kernel less
/// than two do (`writev`), and up to here copying costs less than that.
const JOIN: usize = 4 * 1024;
/// Interim responses to one request.
const INTERIM: u8 = 32;

/// See the module.
pub(super) struct Download {
    asked_head: bool,
    upgrade: Option<Box<str>>,
    to: Version,
    /// Read and not understood yet: the beginning of a head.
    inbox: Chain,
    scan: HeadScan,
    state: State,
    bulk: Bulk,
    interim: u8,
    /// Of the response; 0 before it has come.
    pub(super) status: u16,
    /// When the end of its head was read, in nanoseconds.
    pub(super) head_at: Option<u64>,
    /// Bytes of it that were read.
    pub(super) read: u64,
    /// Bytes came behind the end of the response, or its connection is not to be used again.
    spoilt: bool,
    client_stays: bool,
    /// When the request was sent whole, and the wait for the response began.
    pub(super) waiting_since: Option<Tick>,
    /// When a byte of the response last moved.
    pub(super) moved_at: Option<Tick>,
}

#[derive(Debug)]
enum State {
    Head,
    /// `direct`: content goes on as it came, nothing stands between.
    Body {
        body: BodyDecoder,
        chunked: bool,
        direct: bool,
    },
    Done,
}

impl Default for Download {
    fn default() -> Self {
        Download {
            asked_head: false,
            upgrade: None,
            to: Version::Http11,
            inbox: Chain::default(),
            scan: HeadScan::default(),
            state: State::Head,
            bulk: Bulk::default(),
            interim: 0,
            status: 0,
            head_at: None,
            read: 0,
            spoilt: false,
            client_stays: false,
            waiting_since: None,
            moved_at: None,
        }
    }
}

/// What one read made of the response.
enum Taken {
    /// It is passed on.
    Used,
    /// Not whole: what was read is to be kept.
    More,
    /// Interim ones were passed on, and what is left is kept.
    Kept,
}

impl Download {
    pub(super) fn begin(&mut self, asked_head: bool, upgrade: Option<Box<str>>, to: Version, _te_trailers: bool) {
        (self.asked_head, self.upgrade, self.to) = (asked_head, upgrade, to);
    }

    pub(super) fn asked_head(&self) -> bool {
        self.asked_head
    }

    /// The final head was passed on.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Head)
    }

    /// The whole response was written.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn backend_stays(&self) -> bool {
        !self.spoilt
    }

    pub(super) fn client_stays(&self) -> bool {
        self.client_stays
    }

    pub(super) fn holds_blocks(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// From the beginning, on another connection.
    pub(super) fn repeat(&mut self, blocks: &mut Blocks) {
        self.inbox.clear(blocks);
        self.scan = HeadScan::default();
        self.waiting_since = None;
        self.head_at = None;
    }

    pub(super) fn clear(&mut self, blocks: &mut Blocks) {
        self.inbox.clear(blocks);
    }

    /// `keep`: the client may send another request after this response.
    #[expect(clippy::too_many_arguments, reason = "all of it is lent by the worker, and is split so that it can be")]
    pub(super) fn pump<S: Stream>(
        &mut self,
        outbox: &mut Outbox,
        client: &mut Link<S>,
        backend: &mut Link<S>,
        scratch: &mut [u8],
        out: &mut Vec<u8>,
        blocks: &mut Blocks,
        count: &Cell,
        now: Tick,
        keep: bool,
        budget: &mut usize,
        nanos: impl Fn() -> u64,
    ) -> Result<bool, Stop> {
        let mut progress = false;
        loop {
            let held = outbox.len();
            let flushed = outbox.flush(client, blocks);
            if outbox.len() != held && self.has_begun() {
                self.moved_at = Some(now);
                progress = true;
            }
            match flushed {
                Flushed::Broken => return Err(Stop::Client),
                Flushed::Full => return Ok(progress),
                Flushed::All => {}
            }
            if self.is_done() || *budget == 0 || !backend.readable() {
                return Ok(progress);
            }
            if self.bulk.is_on() {
                match self.splice(outbox, client, backend, scratch, blocks, count) {
                    Spliced::Bytes(n) => {
                        progress = true;
                        *budget = budget.saturating_sub(n);
                        self.moved_at = Some(now);
                        continue;
                    }
                    Spliced::Wait => return Ok(progress),
                    Spliced::Read => {}
                }
            }
            let have = self.inbox.peek(&mut scratch[..READ]);
            let n = match backend.recv(&mut scratch[have..READ]) {
                Read::Bytes(n) => n,
                Read::Empty => return Ok(progress),
                Read::End => {
                    self.ended(out)?;
                    outbox.put([out, &[]], client, blocks);
                    progress = true;
                    continue;
                }
                Read::Broken if self.has_begun() => return Err(Stop::Broke),
                Read::Broken => return Err(self.lost("its connection broke")),
            };
            progress = true;
            *budget = budget.saturating_sub(n);
            count.bytes_out.add(n as u64);
            self.read += n as u64;
            if matches!(self.state, State::Head) {
                // Of what comes in pieces the last one counts, as it does for response_timeout.
                self.head_at = Some(nanos());
                match self.heads(&scratch[..have + n], outbox, client, out, blocks, keep)? {
                    Taken::Used => self.inbox.clear(blocks),
                    Taken::Kept => continue,
                    Taken::More => {
                        if self.inbox.push(&scratch[have..have + n], blocks).is_err() {
                            return Err(Stop::Client);
                        }
                        continue;
                    }
                }
            } else {
                out.clear();
                self.body(&scratch[..n], outbox, client, out, blocks)?;
            }
            if let State::Body { body, direct: true, .. } = &self.state {
                self.bulk.saw(body.run().min(n as u64), blocks);
            }
            if self.has_begun() {
                self.moved_at = Some(now);
            }
        }
    }

    /// Content that goes on as it came, past our memory. Never beyond its end; what is left of little is read.
    fn splice<S: Stream>(
        &mut self,
        outbox: &mut Outbox,
        client: &mut Link<S>,
        backend: &mut Link<S>,
        scratch: &mut [u8],
        blocks: &mut Blocks,
        count: &Cell,
    ) -> Spliced {
        let State::Body { body, direct: true, .. } = &mut self.state else { return Spliced::Read };
        if body.run() < blocks.bulk_below() as u64 {
            return Spliced::Read;
        }
        let spliced = self.bulk.splice(backend, client, body.run(), outbox, blocks);
        let Spliced::Bytes(n) = spliced else { return spliced };
        count.bytes_out.add(n as u64);
        self.read += n as u64;
        body.advance(n as u64);
        if body.is_end() {
            self.state = State::Done;
            // A short read tells that nothing came behind the end, which whoever uses this connection again relies on.
            // A splice does not.
            if !self.spoilt {
                match backend.recv(scratch) {
                    Read::Empty => {}
                    Read::Bytes(n) => {
                        count.bytes_out.add(n as u64);
                        self.spoilt = true;
                    }
                    Read::End | Read::Broken => self.spoilt = true,
                }
            }
        }
        spliced
    }

    /// The backend ended its side.
    fn ended(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        out.clear();
        self.spoilt = true;
        let State::Body { body, chunked, .. } = &mut self.state else {
            return Err(self.lost("it closed without a response"));
        };
        // A body that is cut short must not seem whole: no last chunk, no clean end.
        body.ended().map_err(|_| Stop::Broke)?;
        if *chunked {
            crate::wire::http1::write_last_chunk(out, &[]);
        }
        self.state = State::Done;
        Ok(())
    }

    fn lost(&self, why: &'static str) -> Stop {
        Stop::Backend { answered: !self.inbox.is_empty() || self.interim > 0, why }
    }

    /// Reads heads until the final one, and the body that came with it.
    fn heads<S: Stream>(
        &mut self,
        bytes: &[u8],
        outbox: &mut Outbox,
        client: &mut Link<S>,
        out: &mut Vec<u8>,
        blocks: &mut Blocks,
        keep: bool,
    ) -> Result<Taken, Stop> {
        out.clear();
        let mut rest = bytes;
        loop {
            let mut storage = Storage::new();
            let asked = Asked { head: self.asked_head, upgrade: self.upgrade.as_deref() };
            let parsed = parse_response(rest, &asked, &mut self.scan, &HEAD, &mut storage)
                .map_err(|bad| Stop::Backend { answered: true, why: bad.why })?;
            let Some((response, length)) = parsed else {
                if rest.len() == bytes.len() {
                    return Ok(Taken::More);
                }
                // Interim ones were whole; the beginning of the next head stays.
                outbox.put([out, &[]], client, blocks);
                self.inbox.clear(blocks);
                return match self.inbox.push(rest, blocks) {
                    Ok(()) => Ok(Taken::Kept),
                    Err(_) => Err(Stop::Client),
                };
            };
            self.scan = HeadScan::default();
            if response.status < 200 && response.status != 101 {
                self.interim += 1;
                if self.interim > INTERIM {
                    return Err(Stop::Backend { answered: true, why: "it sends interim responses without end" });
                }
                if self.to == Version::Http11 {
                    write_response(out, &response, &Answer { to: self.to, close: false });
                }
                rest = &rest[length..];
                if rest.is_empty() {
                    outbox.put([out, &[]], client, blocks);
                    self.inbox.clear(blocks);
                    return Ok(Taken::Used);
                }
                continue;
            }
            // The length of a body that ends with the connection must be seen to be right: in chunks, or by our close.
            let close_delimited = self.to == Version::Http10;
            self.client_stays = keep && !close_delimited;
            let answer = Answer { to: self.to, close: !self.client_stays };
            let framing = write_response(out, &response, &answer);
            let (behind, chunked) = (&rest[length..], framing == Body::Chunked);
            self.status = response.status;
            self.spoilt = !response.keep_alive;
            if response.status == 101 {
                outbox.put([out, behind], client, blocks);
                self.state = State::Done;
                return Err(Stop::Switch);
            }
            let body = BodyDecoder::new(response.body, 0, &HEAD);
            let direct = !chunked && response.body != Body::Chunked;
            // Much is to come: no read need show it. Little that is left behind a large head is read.
            self.bulk = Bulk::default();
            self.bulk.saw(if direct { body.run().saturating_sub(behind.len() as u64) } else { 0 }, blocks);
            self.state = State::Body { body, chunked, direct };
            return match self.body(behind, outbox, client, out, blocks) {
                Ok(()) => Ok(Taken::Used),
                Err(Stop::Broke) => {
                    // Nothing of it was passed on yet, so the client can be told.
                    (self.state, self.status) = (State::Head, 0);
                    Err(Stop::Backend { answered: true, why: "the framing of its body is wrong" })
                }
                Err(other) => Err(other),
            };
        }
    }

    /// Passes content on, behind what stands in `out` already.
    fn body<S: Stream>(
        &mut self,
        bytes: &[u8],
        outbox: &mut Outbox,
        client: &mut Link<S>,
        out: &mut Vec<u8>,
        blocks: &mut Blocks,
    ) -> Result<(), Stop> {
        let State::Body { body, chunked, direct } = &mut self.state else { return Ok(()) };
        let mut rest = bytes;
        let mut as_is: &[u8] = &[];
        let cut_short = |_| Stop::Broke;
        let mut ended = body.is_end();
        if *direct && !ended {
            if let Piece::Data(data) = body.next(&mut rest).map_err(cut_short)? {
                as_is = data;
            }
            ended = body.is_end();
        } else if !ended {
            ended = frame(body, &mut rest, *chunked, out).map_err(cut_short)?;
        }
        if ended {
            self.state = State::Done;
            // Bytes that nobody asked for: what else comes on this connection could not be trusted.
            self.spoilt |= !rest.is_empty();
        }
        if !out.is_empty() && as_is.len() <= JOIN {
            out.extend_from_slice(as_is);
            as_is = &[];
        }
        match outbox.put([out, as_is], client, blocks) {
            Flushed::Broken => Err(Stop::Client),
            _ => Ok(()),
        }
    }
}
