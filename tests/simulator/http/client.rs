//! A client's end of its connection: what it asks, and what it is told, held against the truth.

use super::backend::check_trailers;
use super::ledger::Ledger;
use super::parser::{Framing, Head, Parser, Part};
use super::plan::{Act, Client, Ends, ask_has_no_body};
use super::render::{in_tunnel, told};
use crate::script::{PATIENCE, Shape};
use l4lb::base::time::Tick;
use l4lb::link::scripted::{Dice, End, Socket, State};
use std::collections::VecDeque;

/// After so many acts everything is twice as big.
const WIDER: u32 = 150;

/// How long a client waits for `100 Continue`, in milliseconds.
const CONTINUE: u64 = 80;

/// What a client was told for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The answer to that try, whole.
    Whole(usize),
    /// Of the answer to that try, a part; then the end.
    Part(usize),
    /// An error of l4lb's own; whether it was whole.
    Own(u16, bool),
    /// A piece of a head; then the end.
    Torn,
}

/// See the module.
pub(crate) struct Caller {
    /// The socket at l4lb.
    pub(crate) socket: usize,
    shape: Shape,
    script: VecDeque<Act>,
    /// Its requests are from this one to before that one.
    pub(crate) asks: std::ops::Range<usize>,
    parser: Parser,
    reading: Option<Reading>,
    /// Bytes said in another protocol, and heard.
    tunnel: Option<(u64, u64)>,
    pub(crate) seen: Vec<Seen>,
    /// It has ended its side.
    is_shut: bool,
    /// Bytes that came.
    got: u64,
    /// Interim responses to the request that is to be answered next.
    interim: usize,
    /// A response said that it is the last.
    pub(crate) was_told_last: bool,
    pub(crate) saw: Option<End>,
    until: Option<Tick>,
    hold_until: Tick,
    acts: u32,
    pub(crate) left: bool,
    /// It has closed or reset before the other side ended: nothing is owed to it.
    pub(crate) broke: bool,
    /// It stopped reading, or waited, for so long, in milliseconds.
    pub(crate) held: u64,
    pub(crate) paused: u64,
    pub(crate) acted_at: Tick,
}

struct Reading {
    /// `None`: an error of l4lb's own.
    attempt: Option<usize>,
    status: u16,
    got: u64,
    framing: Framing,
}

impl Caller {
    pub(crate) fn new(socket: usize, client: &Client, asks: std::ops::Range<usize>, now: Tick) -> Caller {
        Caller {
            socket,
            shape: client.shape,
            script: client.acts.clone().into(),
            asks,
            parser: Parser::new(),
            reading: None,
            tunnel: None,
            seen: Vec::new(),
            is_shut: false,
            got: 0,
            interim: 0,
            was_told_last: false,
            saw: None,
            until: None,
            hold_until: now,
            acts: 0,
            left: false,
            broke: false,
            held: 0,
            paused: 0,
            acted_at: now,
        }
    }

    /// Bytes moved at once, at most.
    pub(crate) fn grain(&self) -> usize {
        self.shape.grain
    }

    /// When it goes on by itself.
    pub(crate) fn wakes_at(&self, now: Tick) -> Option<Tick> {
        if self.left {
            return None;
        }
        let held = (self.hold_until > now).then_some(self.hold_until);
        self.until.into_iter().chain(held).filter(|at| *at > now).min()
    }

    /// From now on it reads whatever comes, and does nothing else.
    pub(crate) fn retire(&mut self) {
        self.script.clear();
        self.until = None;
        self.hold_until = Tick(0);
    }

    /// Bytes said and heard in another protocol.
    pub(crate) fn tunnelled(&self) -> Option<(u64, u64)> {
        self.tunnel
    }

    /// Reads, and goes on with its script. True when it did anything.
    pub(crate) fn act(
        &mut self,
        socket: &mut Socket,
        now: Tick,
        dice: &mut Dice,
        ledger: &mut Ledger,
    ) -> Result<bool, String> {
        if self.left {
            return Ok(false);
        }
        let mut busy = self.read(socket, now, dice, ledger)?;
        busy |= self.go_on(socket, now, dice, ledger);
        if busy {
            self.acted_at = now;
            self.acts += 1;
            if self.acts.is_multiple_of(WIDER) {
                self.shape.grain *= 2;
                socket.widen();
            }
        }
        Ok(busy)
    }

    fn read(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice, ledger: &Ledger) -> Result<bool, String> {
        if now < self.hold_until {
            return Ok(false);
        }
        let most = match self.script.front() {
            Some(Act::Hear(most)) => most.saturating_sub(self.got) as usize,
            _ => usize::MAX,
        };
        let bytes = socket.far_read(dice.from_to(1, self.shape.grain).min(most));
        self.got += bytes.len() as u64;
        self.parser.push(&bytes);
        let mut understood = Ok(());
        if !bytes.is_empty() {
            understood = self.understand(ledger);
        }
        let saw = socket.far_end();
        let news = saw != self.saw && self.saw.is_none();
        if news && understood.is_ok() {
            self.saw = saw;
            understood = self.ended(ledger);
        }
        match understood {
            Ok(()) => Ok(news || !bytes.is_empty()),
            Err(why) => Err(format!("client's socket {}: {why}", self.socket)),
        }
    }

    fn understand(&mut self, ledger: &Ledger) -> Result<(), String> {
        loop {
            if let Some((_, heard)) = &mut self.tunnel {
                let bytes = self.parser.take();
                let id = self.asks.start + self.seen.len() - 1;
                if !in_tunnel(id, false).holds(*heard, &bytes) {
                    return Err(format!("byte {heard} and on in the tunnel of request {id} are wrong"));
                }
                *heard += bytes.len() as u64;
                return Ok(());
            }
            let id = self.asks.start + self.seen.len();
            let Some(reading) = &mut self.reading else {
                let Some(head) = self.parser.head()? else { return Ok(()) };
                self.begin(id, &head, ledger).map_err(|why| format!("the response to request {id}: {why}"))?;
                continue;
            };
            let Some(part) = self.parser.part()? else { return Ok(()) };
            match part {
                Part::Data(data) => {
                    if let Some(attempt) = reading.attempt {
                        let answer = ledger.requests[id].ask.answer(attempt);
                        let most = match answer.wrong {
                            super::plan::Wrong::Chunk(at) => at,
                            _ => u64::MAX,
                        };
                        let known = most.saturating_sub(reading.got).min(data.len() as u64) as usize;
                        if !told(id, attempt).holds(reading.got, &data[..known]) {
                            return Err(format!(
                                "byte {} and on of the content for request {id} are lost, moved or another's",
                                reading.got
                            ));
                        }
                    }
                    reading.got += data.len() as u64;
                }
                Part::End(trailers) => self.end_of_body(id, &trailers, ledger)?,
            }
        }
    }

    fn begin(&mut self, id: usize, head: &Head, ledger: &Ledger) -> Result<(), String> {
        if self.was_told_last {
            return Err(format!("{head:?} after the last one"));
        }
        let request = match ledger.requests.get(id) {
            Some(request) if self.asks.contains(&id) && request.sent > 0 => request,
            _ => return Err(format!("{head:?} to nothing")),
        };
        let ask = &request.ask;
        let (version, rest) = head.start.split_once(' ').unwrap_or_default();
        let status = rest.split(' ').next().and_then(|status| status.parse::<u16>().ok());
        let (Some(status), "HTTP/1.1") = (status, version) else { return Err(format!("it begins {:?}", head.start)) };
        let attempt = match head.one("x-id")? {
            None => None,
            Some(name) => {
                let mine = name.strip_prefix(&format!("{id}-")).and_then(|attempt| attempt.parse::<usize>().ok());
                match mine.filter(|attempt| *attempt + 1 == request.attempts.len()) {
                    Some(attempt) => Some(attempt),
                    None => return Err(format!("it belongs to {name}, of {} tries", request.attempts.len())),
                }
            }
        };
        let is_last = head.has_option("close")?;
        if status < 200 && status != 101 {
            let known = attempt.is_some_and(|attempt| ask.answer(attempt).interim.get(self.interim) == Some(&status));
            self.interim += 1;
            return match known && !ask.http10 && head.framing()?.is_none() {
                true => Ok(()),
                false => Err(format!("{head:?} is not the interim response that was sent")),
            };
        }
        let framing = head.framing()?;
        let Some(attempt) = attempt else {
            // Only a client whose request was whole may go on.
            let may_go_on = request.is_sent() && !ask.is_bad() && !ask.close && !ask.http10;
            let is_text = head.one("content-type")? == Some("text/plain; charset=utf-8");
            if !is_text || status < 400 || !is_last && !may_go_on || framing.is_none() {
                return Err(format!("{head:?} is no error of ours"));
            }
            self.was_told_last = is_last;
            let framing = if ask.method == "HEAD" && ask.bad_head.is_none() { None } else { framing };
            self.start(None, status, framing.unwrap_or(Framing::Length(0)));
            return Ok(());
        };
        let answer = ask.answer(attempt);
        if status != answer.status || head.one("server")? != Some("sim") {
            return Err(format!("{head:?}, and {} was sent", answer.status));
        }
        let via = if answer.http10 { "1.0 l4lb" } else { "1.1 l4lb" };
        if head.one("via")? != Some(via) {
            return Err(format!("{head:?} has not passed here"));
        }
        if answer.interim.len() != self.interim && !ask.http10 {
            return Err(format!("after {} of {} interim ones", self.interim, answer.interim.len()));
        }
        if status == 101 {
            if head.one("upgrade")? != Some("chatter") || !head.has_option("upgrade")? {
                return Err(format!("{head:?} changes to nothing"));
            }
            self.seen.push(Seen::Whole(attempt));
            let said = request.sent.saturating_sub(request.head as u64);
            self.tunnel = Some((said, 0));
            return Ok(());
        }
        let has_none = ask_has_no_body(ask, status);
        let length = Framing::Length(answer.length);
        let expected = match (answer.ends, has_none) {
            (Ends::Never(_), _) if status == 204 => None,
            (Ends::Length | Ends::Never(true), _) => Some(length),
            (Ends::Chunked | Ends::Close, false) if ask.http10 => Some(Framing::ToClose),
            (Ends::Chunked | Ends::Close, false) => Some(Framing::Chunked),
            (_, true) => None,
            (Ends::Never(false), false) => Some(Framing::ToClose),
        };
        let found = match framing {
            None if !has_none => Some(Framing::ToClose),
            framing => framing,
        };
        if found != expected {
            return Err(format!("its framing is {found:?} in place of {expected:?}"));
        }
        // It is the last only where somebody said so, or where the request was not needed to its end.
        let whole = request.attempts[attempt].whole;
        let must_last = ask.http10 || ask.close;
        if must_last != is_last && (must_last || whole && matches!(answer.when, super::plan::When::Whole)) {
            return Err(format!("{head:?}: whether it is the last is wrong"));
        }
        self.was_told_last = is_last;
        let framing = if has_none { Framing::Length(0) } else { found.unwrap_or(Framing::Length(0)) };
        self.start(Some(attempt), status, framing);
        Ok(())
    }

    fn start(&mut self, attempt: Option<usize>, status: u16, framing: Framing) {
        self.parser.begin_body(framing);
        self.reading = Some(Reading { attempt, status, got: 0, framing });
    }

    fn end_of_body(&mut self, id: usize, trailers: &[(String, String)], ledger: &Ledger) -> Result<(), String> {
        let Some(reading) = self.reading.take() else { return Ok(()) };
        self.interim = 0;
        let Some(attempt) = reading.attempt else {
            self.seen.push(Seen::Own(reading.status, true));
            return Ok(());
        };
        let request = &ledger.requests[id];
        let answer = request.ask.answer(attempt);
        let truth = request.attempts[attempt].truth;
        if truth != Some(reading.got) {
            return Err(format!("the response to request {id} seems whole at {} bytes; it is {truth:?}", reading.got));
        }
        let with = answer.trailers && answer.ends == Ends::Chunked && reading.framing == Framing::Chunked;
        check_trailers(trailers, with)?;
        self.seen.push(Seen::Whole(attempt));
        Ok(())
    }

    /// l4lb has ended.
    fn ended(&mut self, ledger: &Ledger) -> Result<(), String> {
        let id = self.asks.start + self.seen.len();
        if self.saw == Some(End::Fin)
            && self.reading.as_ref().is_some_and(|reading| reading.framing == Framing::ToClose)
        {
            return self.end_of_body(id, &[], ledger);
        }
        match self.reading.take() {
            Some(Reading { attempt: Some(attempt), .. }) => self.seen.push(Seen::Part(attempt)),
            Some(Reading { status, .. }) => self.seen.push(Seen::Own(status, false)),
            None if self.tunnel.is_none() && !self.parser.left().is_empty() => self.seen.push(Seen::Torn),
            None => {}
        }
        Ok(())
    }

    fn go_on(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice, ledger: &mut Ledger) -> bool {
        if self.saw == Some(End::Reset) || socket.state() == State::Dead {
            self.script.clear();
            self.until = None;
            self.left = true;
            return false;
        }
        // What is said in another protocol comes before anything else.
        if let Some((said, _)) = &mut self.tunnel {
            let id = self.asks.start + self.seen.len() - 1;
            let length = ledger.requests[id].ask.upgrade.map_or(0, |upgrade| upgrade.0);
            if *said < length && !self.is_shut {
                let most = (length - *said).min(dice.from_to(1, self.shape.grain) as u64);
                let n = socket.far_send(&in_tunnel(id, true).bytes(*said, most as usize));
                *said += n as u64;
                return n > 0;
            }
            self.script.retain(|act| !matches!(act, Act::Send(..) | Act::SendHead(_)));
        }
        let Some(act) = self.script.front() else {
            if self.saw.is_some() {
                self.left = true;
                socket.far_close();
                return true;
            }
            return false;
        };
        let is_over = self.saw.is_some() || self.was_told_last && self.reading.is_none();
        let over = match *act {
            Act::Send(place, _) | Act::SendHead(place) => {
                let request = &mut ledger.requests[self.asks.start + place];
                let to = match *act {
                    Act::Send(_, to) => to.min(request.bytes.len() as u64),
                    _ => request.head as u64,
                };
                // Nobody goes on asking after the last answer; what was begun may go on.
                if is_over && (request.sent == 0 || self.saw.is_some() || dice.percent(30)) {
                    true
                } else {
                    let end = to.min(request.sent + dice.from_to(1, self.shape.grain) as u64).max(request.sent);
                    let n = socket.far_send(&request.bytes[request.sent as usize..end as usize]) as u64;
                    request.sent += n;
                    if n == 0 && request.sent < to {
                        return false;
                    }
                    request.sent >= to
                }
            }
            Act::Pause(wait) => match self.until {
                None => {
                    self.until = Some(Tick(now.0 + wait));
                    self.paused += wait;
                    return true;
                }
                Some(until) if now < until => return false,
                Some(_) => true,
            },
            Act::Hold(wait) => {
                self.hold_until = Tick(now.0 + wait);
                self.held += wait;
                true
            }
            Act::Hear(most) if self.got < most && self.saw.is_none() => return false,
            Act::Hear(_) => true,
            Act::Await(count) if self.seen.len() < count && !is_over => return false,
            Act::AwaitContinue(place) if self.seen.len() <= place && self.interim == 0 && !is_over => {
                let until = *self.until.get_or_insert(Tick(now.0 + CONTINUE));
                if now < until {
                    return false;
                }
                true
            }
            Act::Await(_) | Act::AwaitContinue(_) => true,
            Act::Finish => {
                self.is_shut = true;
                socket.far_shutdown();
                true
            }
            Act::Close => {
                match dice.percent(50) && socket.unacknowledged() > 0 {
                    true => socket.far_reset(usize::MAX, libc::ECONNRESET),
                    false => socket.far_close(),
                }
                self.left = true;
                self.broke = true;
                true
            }
            Act::Reset => {
                socket.far_reset(dice.below(1 << 20), libc::ECONNRESET);
                self.left = true;
                self.broke = true;
                true
            }
        };
        if over {
            self.script.pop_front();
            self.until = None;
        }
        true
    }

    /// It reads so seldom that a reset may have come before what was sent to it.
    pub(crate) fn is_slow(&self) -> bool {
        self.held > PATIENCE
    }
}
