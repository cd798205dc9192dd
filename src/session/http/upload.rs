//! A request on its way to its backend: the head, kept until it is known that it need not be repeated, then the body.

use crate::base::blocks::{Chain, Pool as Blocks};
use crate::base::time::Tick;
use crate::link::{Link, Read, Stream};
use crate::relay::{Bulk, Flushed, Outbox, Spliced};
use crate::session::http::READ;
use crate::session::http::exchange::{Failed, Stop};
use crate::stats::Cell;
use crate::wire::http1::{Body, BodyDecoder, CHUNK_END, ChunkHead, Limits, Piece, write_last_chunk};
use std::num::NonZeroUsize;

/// Content moved from the inbox into the first write, behind the head.
const FIRST: usize = 8 * 1024;

/// See the module.
pub(super) struct Upload {
    /// The head as sent; empty once it need not be repeated.
    head: Chain,
    head_sent: bool,
    body: BodyDecoder,
    chunked: bool,
    /// The body has ended and is written to the outbox.
    ended: bool,
    outbox: Outbox,
    bulk: Bulk,
    /// Bytes were written to the backend that is asked now.
    sent: bool,
    /// Content was read from the client.
    consumed: bool,
    pub(super) moved_at: Tick,
    /// Bytes of the body that were taken from the client, framing and all.
    pub(super) read: u64,
}

impl Default for Upload {
    fn default() -> Self {
        Upload {
            head: Chain::default(),
            head_sent: false,
            body: BodyDecoder::new(Body::None, 0, &Limits::default()),
            chunked: false,
            ended: false,
            outbox: Outbox::default(),
            bulk: Bulk::default(),
            sent: false,
            consumed: false,
            moved_at: Tick(0),
            read: 0,
        }
    }
}

impl Upload {
    pub(super) fn begin(&mut self, body: Body, max: u64, head: &[u8], now: Tick, blocks: &mut Blocks) -> bool {
        self.body = BodyDecoder::new(body, max, &Limits::default());
        self.chunked = body == Body::Chunked;
        self.ended = self.body.is_end();
        self.bulk = Bulk::default();
        self.moved_at = now;
        self.head.push(head, blocks).is_ok()
    }

    /// The whole request is written.
    pub(super) fn is_done(&self) -> bool {
        self.head_sent && self.ended && self.outbox.is_empty()
    }

    /// Nothing of it is left with the client.
    pub(super) fn was_read(&self) -> bool {
        self.ended
    }

    pub(super) fn has_sent(&self) -> bool {
        self.sent
    }

    /// Nothing is needed for a second try but the head.
    pub(super) fn can_repeat(&self) -> bool {
        !self.consumed
    }

    /// From the beginning, on another connection.
    pub(super) fn repeat(&mut self, blocks: &mut Blocks) {
        if self.sent {
            // What is held is the rest of a head: behind the next one it would be a body, or another request.
            self.outbox.clear(blocks);
        }
        self.head_sent = false;
        self.sent = false;
    }

    /// True when it is the client that does not go on.
    pub(super) fn waits_for_client(&self) -> bool {
        self.head_sent && self.outbox.is_empty()
    }

    pub(super) fn holds_blocks(&self) -> bool {
        !self.head.is_empty() || !self.outbox.is_empty()
    }

    pub(super) fn clear(&mut self, blocks: &mut Blocks) {
        self.head.clear(blocks);
        self.outbox.clear(blocks);
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is lent by the worker, and is split so that it can be")]
    pub(super) fn pump<S: Stream>(
        &mut self,
        inbox: &mut Chain,
        client: &mut Link<S>,
        backend: &mut Link<S>,
        scratch: &mut [u8],
        out: &mut Vec<u8>,
        blocks: &mut Blocks,
        count: &Cell,
        now: Tick,
        budget: &mut usize,
    ) -> Result<bool, Stop> {
        let mut progress = false;
        if backend.broken() {
            // It may have answered before it broke: the download finds out.
            return Ok(false);
        }
        if !self.head_sent {
            // One write for the head and what has come of the body with it.
            let have = self.head.peek(scratch);
            let more = if self.ended || !self.outbox.is_empty() { 0 } else { inbox.len().min(FIRST) };
            let (head, rest) = scratch.split_at_mut(have);
            let mut whole = false;
            if more > 0 {
                let n = inbox.peek(&mut rest[..more]);
                let used = self.encode(&rest[..n], out)?;
                inbox.consume(used, blocks);
                if self.ended && self.head.room() >= out.len() && self.head.push(out, blocks).is_ok() {
                    // The whole body came with the head: both are kept, and can be sent again as one.
                    self.consumed = false;
                    whole = true;
                }
            } else {
                out.clear();
            }
            self.head_sent = true;
            self.moved_at = now;
            progress = true;
            if !self.outbox.is_empty() {
                // A second try: what was taken from the body at the first goes behind the head once more.
                let mut behind = std::mem::take(&mut self.outbox).into_chain();
                out.resize(behind.len(), 0);
                behind.peek(out);
                behind.clear(blocks);
            }
            if self.outbox.put([head, out], backend, blocks) == Flushed::Broken {
                // Nothing was sent, and nothing is lost: another connection gets all of it.
                if !whole && !self.outbox.hold(out, blocks) {
                    return Err(Stop::Client);
                }
                return Ok(progress);
            }
            self.sent = true;
        }
        loop {
            let held = self.outbox.len();
            match self.outbox.flush(backend, blocks) {
                Flushed::Broken => return Ok(progress),
                Flushed::Full => {
                    if self.outbox.len() != held {
                        self.moved_at = now;
                    }
                    return Ok(progress);
                }
                Flushed::All => {}
            }
            if self.ended || *budget == 0 {
                return Ok(progress);
            }
            if self.bulk.is_on() && inbox.is_empty() && client.readable() {
                match self.splice(client, backend, blocks, count) {
                    Spliced::Bytes(n) => {
                        progress = true;
                        *budget = budget.saturating_sub(n);
                        self.moved_at = now;
                        continue;
                    }
                    Spliced::Wait => return Ok(progress),
                    Spliced::Read => {}
                }
            }
            let n = if !inbox.is_empty() {
                inbox.peek(&mut scratch[..READ])
            } else if client.readable() {
                match client.recv(&mut scratch[..READ]) {
                    Read::Bytes(n) => {
                        count.bytes_in.add(n as u64);
                        n
                    }
                    Read::Empty => return Ok(progress),
                    // A request that will never be whole: nobody waits for its answer.
                    Read::End | Read::Broken => return Err(Stop::Client),
                }
            } else {
                return Ok(progress);
            };
            progress = true;
            self.moved_at = now;
            *budget = budget.saturating_sub(n);
            self.bulk.saw(self.body.run().min(n as u64), blocks);
            let from_inbox = !inbox.is_empty();
            let used = self.encode_to(&scratch[..n], out, backend, blocks)?;
            if from_inbox {
                inbox.consume(used, blocks);
            } else if used < n && inbox.push(&scratch[used..n], blocks).is_err() {
                return Err(Stop::Client);
            }
        }
    }

    /// Content that goes on as it came, past our memory. The last of it is always read, with what may stand behind it: a
    /// short read tells that there is nothing, and a splice does not.
    fn splice<S: Stream>(
        &mut self,
        client: &mut Link<S>,
        backend: &mut Link<S>,
        blocks: &mut Blocks,
        count: &Cell,
    ) -> Spliced {
        let least = blocks.bulk_below() as u64;
        if self.chunked || self.body.run() < 2 * least {
            return Spliced::Read;
        }
        let spliced = self.bulk.splice(client, backend, self.body.run() - least, &mut self.outbox, blocks);
        if let Spliced::Bytes(n) = spliced {
            self.consumed = true;
            count.bytes_in.add(n as u64);
            self.read += n as u64;
            self.body.advance(n as u64);
        }
        spliced
    }

    /// Sends the content of `bytes`; says how many of them belonged to this body.
    fn encode_to<S: Stream>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        backend: &mut Link<S>,
        blocks: &mut Blocks,
    ) -> Result<usize, Stop> {
        if self.chunked {
            let used = self.encode(bytes, out)?;
            self.outbox.put([out, &[]], backend, blocks);
            return Ok(used);
        }
        let mut rest = bytes;
        self.consumed = true;
        if let Piece::Data(data) = self.body.next(&mut rest).map_err(refuse)? {
            self.outbox.put([data, &[]], backend, blocks);
        }
        self.ended = self.body.is_end();
        self.read += (bytes.len() - rest.len()) as u64;
        Ok(bytes.len() - rest.len())
    }

    /// Writes the content of `bytes` to `out`, framed anew; says how many of them belonged to this body.
    fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Stop> {
        out.clear();
        self.consumed = true;
        let mut rest = bytes;
        self.ended = frame(&mut self.body, &mut rest, self.chunked, out).map_err(refuse)?;
        self.read += (bytes.len() - rest.len()) as u64;
        Ok(bytes.len() - rest.len())
    }
}

fn refuse(bad: crate::wire::http1::Bad) -> Stop {
    Stop::Refuse(Failed { status: bad.status, why: bad.why })
}

/// Writes the content of `bytes` to `out`, in chunks or as it is; true when the body has ended. The pieces that came
/// together leave as one chunk.
pub(super) fn frame(
    body: &mut BodyDecoder,
    bytes: &mut &[u8],
    chunked: bool,
    out: &mut Vec<u8>,
) -> Result<bool, crate::wire::http1::Bad> {
    let ended = loop {
        match body.next(bytes)? {
            Piece::Data(data) if chunked => {
                if let Some(size) = NonZeroUsize::new(data.len()) {
                    out.extend_from_slice(ChunkHead::new(size).as_bytes());
                    out.extend_from_slice(data);
                    out.extend_from_slice(CHUNK_END);
                }
            }
            Piece::Data(data) => out.extend_from_slice(data),
            Piece::More => break false,
            Piece::End => break true,
        }
        if body.is_end() {
            break true;
        }
    };
    if ended && chunked {
        write_last_chunk(out, body.trailers());
    }
    Ok(ended)
}
