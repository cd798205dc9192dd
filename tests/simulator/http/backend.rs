//! A backend's end of one connection: whole requests, one after the other, and an answer to each.

use super::ledger::{Attempt, Ledger, is_known, truth};
use super::parser::{Framing, Head, Parser, Part};
use super::plan::{Answer, Body, Ending, Ends, Meets, Then, When};
use super::render::{self, EXTRA, GARBAGE, TRAILERS_KEPT, in_tunnel, said};
use crate::script::Shape;
use l4lb::base::time::Tick;
use l4lb::link::scripted::{Dice, End, Record, Socket, State};

/// After so many acts everything is twice as big.
const WIDER: u32 = 150;

/// See the module.
pub(crate) struct Conn {
    pub(crate) socket: usize,
    shape: Shape,
    meets: Meets,
    parser: Parser,
    /// A request was begun and not answered yet.
    serving: Option<Serving>,
    /// Requests begun on it.
    pub(crate) requests: u64,
    /// No further request may come: why.
    spoilt: Option<String>,
    /// Bytes read, and bytes sent that belong to responses.
    got: u64,
    sent: u64,
    /// What is still to be sent, without any request.
    extra: Option<(Tick, bool, u64)>,
    ends: Option<(Tick, Ending)>,
    tunnel: Option<Tunnel>,
    /// Bytes of whole requests.
    asked: u64,
    /// What l4lb had sent when it had read more than was owed.
    overread_at: Option<u64>,
    /// It says nothing more, and does not listen.
    is_silent: bool,
    pub(crate) left: bool,
    saw: Option<End>,
    acts: u32,
    pub(crate) acted_at: Tick,
}

struct Serving {
    id: usize,
    attempt: usize,
    answer: Answer,
    body_got: u64,
    whole: bool,
    due: Option<Tick>,
    head: u64,
    out: Vec<u8>,
    sent: usize,
    is_answered: bool,
}

struct Tunnel {
    id: usize,
    got: u64,
    length: u64,
}

impl Conn {
    pub(crate) fn new(socket: usize, shape: Shape, meets: Meets, now: Tick) -> Conn {
        Conn {
            socket,
            shape,
            meets,
            parser: Parser::new(),
            serving: None,
            requests: 0,
            spoilt: None,
            got: 0,
            sent: 0,
            extra: None,
            ends: None,
            tunnel: None,
            asked: 0,
            overread_at: None,
            is_silent: false,
            left: false,
            saw: None,
            acts: 0,
            acted_at: now,
        }
    }

    /// Bytes moved at once, at most.
    pub(crate) fn grain(&self) -> usize {
        self.shape.grain
    }

    /// Who was told more than is owed is to say nothing more.
    pub(crate) fn check_overread(&mut self, record: &Record) -> Result<(), String> {
        match self.overread_at {
            Some(sent) if record.sent > sent => {
                Err(format!("socket {}: it goes on after it has said more than it was asked", self.socket))
            }
            // It may have asked for the next thing before that came.
            None if record.taken > self.sent && record.sent <= self.asked && self.tunnel.is_none() => {
                self.overread_at = Some(record.sent);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// When it goes on by itself.
    pub(crate) fn wakes_at(&self, now: Tick) -> Option<Tick> {
        if self.left {
            return None;
        }
        let due = self.serving.as_ref().and_then(|serving| serving.due);
        let ends = self.ends.map(|ends| ends.0);
        due.into_iter().chain(ends).chain(self.extra.map(|extra| extra.0)).filter(|at| *at > now).min()
    }

    /// Reads, and answers. True when it did anything.
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
        if socket.state() == State::Connecting {
            self.left = socket.record().closed_at.is_some();
            return Ok(false);
        }
        let read = self.read(socket, dice, ledger)?;
        let busy = self.go_on(socket, now, dice, ledger) || read;
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

    fn read(&mut self, socket: &mut Socket, dice: &mut Dice, ledger: &mut Ledger) -> Result<bool, String> {
        let mut most = dice.from_to(1, self.shape.grain);
        if let Meets::Slams(after, _) = self.meets {
            most = most.min((after - self.got.min(after)) as usize);
        }
        let bytes = socket.far_read(most);
        self.got += bytes.len() as u64;
        self.parser.push(&bytes);
        if !bytes.is_empty() || self.tunnel.is_some() {
            self.understand(socket, ledger).map_err(|why| format!("backend's socket {}: {why}", self.socket))?;
        }
        let saw = socket.far_end();
        let news = saw != self.saw;
        self.saw = saw;
        Ok(news || !bytes.is_empty())
    }

    /// Everything l4lb has sent is held against what may come.
    fn understand(&mut self, socket: &Socket, ledger: &mut Ledger) -> Result<(), String> {
        loop {
            if let Some(tunnel) = &mut self.tunnel {
                let bytes = self.parser.take();
                if !in_tunnel(tunnel.id, true).holds(tunnel.got, &bytes) {
                    return Err(format!("byte {} and on in the tunnel of request {} are wrong", tunnel.got, tunnel.id));
                }
                tunnel.got += bytes.len() as u64;
                ledger.requests[tunnel.id].tunnelled = tunnel.got;
                return if tunnel.got <= tunnel.length { Ok(()) } else { Err("more than was said".into()) };
            }
            if self.is_silent {
                return Ok(());
            }
            let Some(serving) = &mut self.serving else {
                let Some(head) = self.parser.head()? else { return Ok(()) };
                self.begin(&head, socket, ledger)?;
                continue;
            };
            if serving.whole && serving.is_answered && self.tunnel.is_none() {
                self.serving = None;
                continue;
            }
            if serving.whole {
                return match self.parser.left() {
                    [] => Ok(()),
                    _ if serving.answer.status == 101 => Ok(()),
                    left => Err(format!(
                        "{:?} behind request {} before it is answered",
                        String::from_utf8_lossy(left),
                        serving.id
                    )),
                };
            }
            let Some(part) = self.parser.part()? else { return Ok(()) };
            let request = &mut ledger.requests[serving.id];
            let body = request.ask.body;
            match part {
                Part::Data(data) => {
                    let known = is_known(body, serving.body_got + data.len() as u64 - 1);
                    if known && !said(serving.id).holds(serving.body_got, &data) {
                        return Err(format!(
                            "byte {} and on of request {}'s content are wrong",
                            serving.body_got, serving.id
                        ));
                    }
                    serving.body_got += data.len() as u64;
                }
                Part::End(trailers) => {
                    if !request.is_sent() && request.ask.upgrade.is_none() || request.ask.is_bad() {
                        return Err(format!("request {} seems whole, and is not", serving.id));
                    }
                    if serving.body_got != body.length() {
                        return Err(format!("request {} has {} bytes of content", serving.id, serving.body_got));
                    }
                    let with = matches!(body, Body::Chunked { trailers: true, .. });
                    check_trailers(&trailers, with)?;
                    serving.whole = true;
                    self.asked = self.got - self.parser.left().len() as u64;
                    request.attempts[serving.attempt].whole = true;
                }
            }
        }
    }

    fn begin(&mut self, head: &Head, socket: &Socket, ledger: &mut Ledger) -> Result<(), String> {
        if let Some(why) = &self.spoilt {
            return Err(format!("a request on a connection that was not to be used again, {why}: {head:?}"));
        }
        let taken = socket.record().taken;
        if taken < self.sent {
            return Err(format!("a request after {taken} bytes were read of {} that were owed: {head:?}", self.sent));
        }
        let mut start = head.start.split(' ');
        let (method, target, version) = (start.next(), start.next(), start.next());
        let id = target.and_then(|target| target.strip_prefix("/r/")?.strip_suffix("?q=1"));
        let id = ledger.id(id.unwrap_or_default())?;
        let client = ledger.requests[id].client;
        let request = &mut ledger.requests[id];
        let ask = &request.ask;
        if ask.bad_head.is_some() || request.sent < request.head as u64 {
            return Err(format!("request {id} should never have been passed on"));
        }
        if (method, version, start.next()) != (Some(ask.method), Some("HTTP/1.1"), None) {
            return Err(format!("request {id} begins with {:?}", head.start));
        }
        let address = format!("192.0.2.{}", client + 1);
        let via = if ask.http10 { "1.0 l4lb" } else { "1.1 l4lb" };
        let padding = "p".repeat(ask.padding);
        let body = match ask.body {
            Body::None => (None, None),
            Body::Length(length) => (Some(length.to_string()), None),
            Body::Chunked { .. } | Body::Bad { .. } => (None, Some("chunked")),
        };
        let expects = ask.expect && ask.body.length() > 0;
        let expected: [(&str, Option<&str>); 8] = [
            ("host", Some("www.test")),
            ("x-forwarded-for", Some(&address)),
            ("via", Some(via)),
            ("x-padding", (ask.padding > 0).then_some(&*padding)),
            ("content-length", body.0.as_deref()),
            ("transfer-encoding", body.1),
            ("upgrade", ask.upgrade.map(|_| "chatter")),
            ("expect", expects.then_some("100-continue")),
        ];
        for (name, value) in expected {
            // A body in chunks may turn out to be empty: then it was asked for all the same.
            if head.one(name)? != value && !(name == "expect" && body.1.is_some()) {
                return Err(format!("request {id} has {name}: {:?}", head.one(name)?));
            }
        }
        if !request.attempts.is_empty() && !ask.is_idempotent() {
            return Err(format!("request {id}, a {}, for the second time", ask.method));
        }
        let attempt = request.attempts.len();
        ledger.repeated += u64::from(attempt > 0);
        ledger.reused += u64::from(self.requests > 0);
        let mut answer = ask.answer(attempt).clone();
        let rendered = render::response(&answer, ask, id, attempt);
        if let Some((_, ending)) = answer.cut.take_if(|cut| cut.0 >= rendered.bytes.len() as u64) {
            answer.then = Then::End(0, ending);
        }
        let truth = truth(&answer, ask, &rendered);
        let framing = head.framing()?;
        if !answer.keeps(ask) {
            self.spoilt = Some(format!("since {id} was answered {answer:?}"));
        }
        request.attempts.push(Attempt { socket: self.socket, taken_before: taken, whole: false, truth });
        self.requests += 1;
        self.parser.begin_body(framing.unwrap_or(Framing::Length(0)));
        self.serving = Some(Serving {
            id,
            attempt,
            answer,
            body_got: 0,
            whole: false,
            due: None,
            head: rendered.head as u64,
            out: rendered.bytes,
            sent: 0,
            is_answered: false,
        });
        Ok(())
    }

    fn go_on(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice, ledger: &mut Ledger) -> bool {
        if self.saw == Some(End::Reset) || socket.state() == State::Dead {
            self.left = true;
            return false;
        }
        if let Meets::Slams(after, ending) = self.meets
            && self.got >= after
        {
            self.end(socket, ending, dice, ledger);
            return true;
        }
        if let Some((_, ending)) = self.ends.take_if(|ends| ends.0 <= now) {
            self.end(socket, ending, dice, ledger);
            return true;
        }
        // In the midst of the next response it would be a part of that.
        let is_answering = self.serving.as_ref().is_some_and(|serving| serving.sent > 0);
        let requests = self.requests;
        self.extra = self.extra.filter(|extra| extra.2 == requests || !is_answering);
        if let Some((_, is_fake, _)) = self.extra.take_if(|extra| extra.0 <= now) {
            socket.far_send(if is_fake { EXTRA } else { GARBAGE }.as_bytes());
            return true;
        }
        if self.serving.as_ref().is_some_and(|serving| serving.is_answered && serving.whole) {
            self.serving = None;
            return true;
        }
        if let Some(busy) = self.answer(socket, now, dice, ledger) {
            return busy;
        }
        // Nothing left to say, and l4lb has ended: so does it.
        if self.saw.is_some() {
            socket.far_close();
            self.left = true;
            return true;
        }
        false
    }

    /// `None` when nothing is being answered.
    fn answer(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice, ledger: &mut Ledger) -> Option<bool> {
        let serving = self.serving.as_mut().filter(|serving| !serving.is_answered)?;
        let answer = &serving.answer;
        let is_due = serving.whole || matches!(answer.when, When::Body(at) if serving.body_got >= at);
        if !is_due {
            // Cut off before it was asked: nobody is owed anything.
            return if self.saw.is_some() { None } else { Some(false) };
        }
        let due = *serving.due.get_or_insert(Tick(now.0 + answer.delay));
        if now < due {
            return Some(false);
        }
        let all = serving.out.len();
        let most = answer.cut.map_or(all, |cut| all.min(usize::try_from(cut.0).unwrap_or(all)));
        if serving.sent < most {
            let end = most.min(serving.sent + dice.from_to(1, self.shape.grain));
            let n = socket.far_send(&serving.out[serving.sent..end]);
            serving.sent += n;
            self.sent += n as u64;
            if serving.sent < most {
                return Some(n > 0);
            }
        }
        serving.is_answered = true;
        if answer.status == 101 && most == all && answer.wrong == super::plan::Wrong::Nothing {
            let ask = &ledger.requests[serving.id].ask;
            if let Some((length, _)) = ask.upgrade {
                self.tunnel = Some(Tunnel { id: serving.id, got: 0, length });
                socket.far_shutdown();
                self.serving = None;
                return Some(true);
            }
        }
        match (answer.cut, answer.then) {
            (Some((_, ending)), _) => self.ends = Some((now, ending)),
            (None, Then::Keep) => {}
            (None, Then::End(wait, ending)) => self.ends = Some((Tick(now.0 + wait), ending)),
            (None, Then::Extra(wait, is_fake)) => self.extra = Some((Tick(now.0 + wait), is_fake, self.requests)),
        }
        Some(true)
    }

    fn end(&mut self, socket: &mut Socket, ending: Ending, dice: &mut Dice, ledger: &mut Ledger) {
        if let Some(serving) = &self.serving
            && serving.answer.ends == Ends::Close
            && matches!(ending, Ending::Close | Ending::Finish)
        {
            // Nobody can tell such an end from that of the content.
            let truth = &mut ledger.requests[serving.id].attempts[serving.attempt].truth;
            *truth = truth.map(|whole| whole.min((serving.sent as u64).saturating_sub(serving.head)));
        }
        self.extra = None;
        match ending {
            Ending::Close => socket.far_close(),
            Ending::Reset => socket.far_reset(dice.below(1 << 20), libc::ECONNRESET),
            Ending::Silence => {
                self.is_silent = true;
                self.meets = Meets::Serves(0);
                self.serving = None;
                return;
            }
            Ending::Finish => {
                socket.far_shutdown();
                self.is_silent = true;
                self.meets = Meets::Serves(0);
                self.serving = None;
                return;
            }
        }
        ledger.lost += 1;
        self.left = true;
    }
}

/// `with`: they were sent.
pub(crate) fn check_trailers(trailers: &[(String, String)], with: bool) -> Result<(), String> {
    let expected = if with { &TRAILERS_KEPT[..] } else { &[] };
    let same = trailers.len() == expected.len()
        && trailers.iter().zip(expected).all(|(one, other)| (&*one.0, &*one.1) == *other);
    if same { Ok(()) } else { Err(format!("the trailers are {trailers:?}")) }
}
