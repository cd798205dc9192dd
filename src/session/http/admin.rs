//! A request for the admin API on a client's connection: its body is read, control is asked, the answer is sent.
//!
//! Read [`Http::attend`] first. Who may ask what is decided in the room `admin`; nothing of it is counted in statistics.

use crate::admin::{self, Asked, Decision};
use crate::base::time::Tick;
use crate::link::{Net, Read, Write};
use crate::relay::Flushed;
use crate::session::http::{Go, Http, READ, State};
use crate::session::{Close, Context, Who};
use crate::shared::admin::{Answer, Rules};
use crate::shared::mail::ControlMail;
use crate::shared::snapshot::{Listener, Serves};
use crate::wire::forwarded::client_address;
use crate::wire::http1::{self, BodyDecoder, Limits, Own, Piece, Request, Version, write_own};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

/// The largest body of a request.
const MOST: u64 = 64 * 1024;
/// How long control may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// So much of an answer is sent along with its head, and held where the client does not take it.
const JOIN: usize = 32 * 1024;

/// See the module.
pub(super) struct Desk {
    body: BodyDecoder,
    /// The content of the body, where it is for more than being let go.
    content: Vec<u8>,
    /// The client waits for leave to send its body.
    waits: bool,
    asked_head: bool,
    keep: bool,
    /// When a byte last moved, or control was asked.
    since: Tick,
    stage: Stage,
}

enum Stage {
    /// The request's body is read; then this is done.
    Reading(Decision),
    /// Control has been asked, and may take so long to answer. `writes`: it may have changed something already.
    Asked { patience: Duration, writes: bool },
    /// Control has answered.
    Answered(Answer),
    /// The rest of an answer, of which the client has taken so many bytes.
    Sending { body: Arc<Vec<u8>>, taken: usize },
}

/// A request for the admin API, if it is one and this listener serves that.
pub(super) fn called(
    request: &Request<'_>,
    listener: &Listener,
    rules: &Rules,
    who: &Who,
    path: &mut String,
    now: Tick,
) -> Option<Box<Desk>> {
    if listener.serves == Serves::Traffic {
        return None;
    }
    let path = http1::normalise_path(request.target.path, path);
    if listener.serves == Serves::Both && !path.is_ok_and(admin::is_ours) {
        return None;
    }
    let forwarded = request.fields.all("x-forwarded-for").collect::<Vec<_>>();
    let decision = match path {
        Ok(path) => admin::decide(
            &Asked {
                method: request.method,
                path,
                query: request.target.query,
                authority: request.host,
                client: client_address(who.address, forwarded, &listener.http.trusted),
                fields: request.fields.iter(),
            },
            rules,
        ),
        Err(bad) => Decision::Answer(Answer::problem(bad.status, bad.why)),
    };
    Some(Box::new(Desk {
        body: BodyDecoder::new(request.body, MOST, &Limits::default()),
        content: Vec::new(),
        waits: request.expects_continue,
        asked_head: request.method == "HEAD",
        keep: request.keep_alive && request.version == Version::Http11,
        since: now,
        stage: Stage::Reading(decision),
    }))
}

/// How reading a body ended for now.
enum Body {
    Whole,
    More,
    Gone,
    Bad(http1::Bad),
}

impl Http {
    /// Goes on with a request for the admin API.
    pub(super) fn attend<N: Net>(&mut self, mut desk: Box<Desk>, who: &Who, cx: &mut Context<'_, N>) -> Go {
        loop {
            if cx.links.get_mut(who.client).is_none_or(super::is_broken) {
                return Go::Done(Close::Clean);
            }
            let due = match &mut desk.stage {
                Stage::Reading(_) => match self.read_body(&mut desk, who, cx) {
                    Body::Gone => return Go::Done(Close::Clean),
                    Body::Whole => {
                        let Stage::Reading(decision) = std::mem::replace(&mut desk.stage, Stage::NOBODY) else {
                            return Go::Done(Close::Cut);
                        };
                        desk.since = cx.now;
                        let content = std::mem::take(&mut desk.content);
                        desk.stage = ask(decision, &content, who, cx).unwrap_or_else(Stage::Answered);
                        continue;
                    }
                    Body::Bad(bad) => {
                        let detail = match bad.status {
                            413 => "a request here may have a body of 64 KiB; send less",
                            _ => bad.why,
                        };
                        desk.give_up(Answer::problem(bad.status, detail));
                        continue;
                    }
                    Body::More => {
                        let timeout = cx.snapshot.listener(who.listener).map(|listener| listener.http.body_timeout);
                        let due = desk.since.after(timeout.unwrap_or_default());
                        if cx.now >= due {
                            desk.give_up(Answer::problem(
                                408,
                                "the request's body did not come in time; send it faster",
                            ));
                            continue;
                        }
                        due
                    }
                },
                Stage::Asked { patience, writes } => {
                    let due = desk.since.after(*patience);
                    if cx.now >= due {
                        // Its answer may still come: it must not be taken for that of another question.
                        let answer = if *writes { lost() } else { busy() };
                        desk.give_up(answer);
                        continue;
                    }
                    due
                }
                Stage::Answered(answer) => {
                    let answer = std::mem::take(answer);
                    self.send_head(&mut desk, answer, who, cx);
                    desk.since = cx.now;
                    continue;
                }
                Stage::Sending { body, taken } => {
                    let Some(client) = cx.links.get_mut(who.client) else { return Go::Done(Close::Clean) };
                    let before = (*taken, self.outbox.len());
                    let flushed = self.outbox.flush(client, cx.blocks);
                    while flushed == Flushed::All && *taken < body.len() && client.writable() {
                        match client.send(&[IoSlice::new(&body[*taken..])]) {
                            Write::Taken(n) => *taken += n,
                            Write::Broken => return Go::Done(Close::Clean),
                        }
                    }
                    match flushed {
                        Flushed::Broken => return Go::Done(Close::Clean),
                        Flushed::All if *taken == body.len() => return self.attended(&desk, who, cx),
                        _ => {}
                    }
                    if (*taken, self.outbox.len()) != before {
                        desk.since = cx.now;
                    }
                    let timeout = cx.snapshot.listener(who.listener).map(|listener| listener.http.body_timeout);
                    let due = desk.since.after(timeout.unwrap_or_default());
                    if cx.now >= due {
                        cx.count.idle.add(1);
                        return Go::Done(Close::Cut);
                    }
                    due
                }
            };
            self.state = State::Admin(desk);
            return Go::Wait(due);
        }
    }

    /// Takes what control has answered; false when it was not asked.
    pub(in crate::session) fn take_answer(&mut self, answer: Answer) -> bool {
        match &mut self.state {
            State::Admin(desk) if matches!(desk.stage, Stage::Asked { .. }) => {
                desk.stage = Stage::Answered(answer);
                true
            }
            _ => false,
        }
    }

    /// Reads on to the end of the request's body. Its content is kept for a write, and let go otherwise.
    fn read_body<N: Net>(&mut self, desk: &mut Desk, who: &Who, cx: &mut Context<'_, N>) -> Body {
        let Some(client) = cx.links.get_mut(who.client) else { return Body::Gone };
        let keeps = matches!(desk.stage, Stage::Reading(Decision::Write(_)));
        // One that is told to be too long is not waited for.
        if let Err(bad) = desk.body.next(&mut &b""[..]) {
            return Body::Bad(bad);
        }
        if desk.waits && self.inbox.is_empty() && !desk.body.is_end() {
            desk.waits = false;
            self.outbox.put([b"HTTP/1.1 100 Continue\r\n\r\n", &[]], client, cx.blocks);
        }
        loop {
            if desk.body.is_end() {
                return Body::Whole;
            }
            let held = self.inbox.peek(&mut cx.scratch[..READ]);
            let n = match held {
                0 if !client.readable() => return Body::More,
                0 => match client.recv(&mut cx.scratch[..READ]) {
                    Read::Bytes(n) => {
                        cx.count.bytes_in.add(n as u64);
                        n
                    }
                    Read::Empty => return Body::More,
                    Read::End | Read::Broken => return Body::Gone,
                },
                held => held,
            };
            desk.since = cx.now;
            let mut rest = &cx.scratch[..n];
            loop {
                match desk.body.next(&mut rest) {
                    Ok(Piece::Data(data)) => {
                        if keeps {
                            desk.content.extend_from_slice(data);
                        }
                        if desk.body.is_end() {
                            break;
                        }
                    }
                    Ok(_) => break,
                    Err(bad) => return Body::Bad(bad),
                }
            }
            if held > 0 {
                self.inbox.consume(n - rest.len(), cx.blocks);
            } else if self.inbox.push(rest, cx.blocks).is_err() {
                return Body::Gone;
            }
        }
    }

    /// Sends the head of an answer, and with it as much of the rest as is held at the most.
    fn send_head<N: Net>(&mut self, desk: &mut Desk, answer: Answer, who: &Who, cx: &mut Context<'_, N>) {
        let Answer { status, problem, generation, fields, body } = answer;
        // Nothing is described that does not come (RFC 9110, section 15.4.5).
        let empty = status == 304;
        desk.keep &= !cx.draining;
        let tag = generation.map(|generation| format!("\"{generation}\""));
        let mut all = vec![("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];
        all.extend(tag.as_deref().map(|tag| ("ETag", tag)));
        all.extend(fields);
        let own = Own {
            status,
            close: !desk.keep,
            date: None,
            content_type: match (empty, problem) {
                (true, _) => None,
                (_, true) => Some("application/problem+json"),
                (_, false) => Some("application/json"),
            },
            length: (!empty).then_some(body.len() as u64),
            fields: &all,
        };
        cx.out.clear();
        write_own(cx.out, &own);
        let body = if desk.asked_head { Arc::default() } else { body };
        let first = body.len().min(JOIN);
        if let Some(client) = cx.links.get_mut(who.client) {
            self.outbox.put([cx.out, &body[..first]], client, cx.blocks);
        }
        desk.stage = Stage::Sending { body, taken: first };
    }

    /// All of it is sent.
    fn attended<N: Net>(&mut self, desk: &Desk, who: &Who, cx: &mut Context<'_, N>) -> Go {
        self.served = true;
        self.since = cx.now;
        if !desk.keep {
            self.leave(who, cx, true);
        }
        Go::On
    }
}

impl Desk {
    /// Answers, and then the connection ends: where the next request begins is not certain, or whose answer comes next.
    fn give_up(&mut self, answer: Answer) {
        self.keep = false;
        self.stage = Stage::Answered(answer);
    }
}

impl Stage {
    /// While one is on the way to the next.
    const NOBODY: Stage = Stage::Asked { patience: PATIENCE, writes: false };
}

fn lost() -> Answer {
    let detail = "there was no answer in time, and whether the change was made is not known; look at /lb/config";
    Answer::problem(504, detail)
}

fn busy() -> Answer {
    Answer::problem(503, "too much is asked here just now; try again in a second").with("Retry-After", "1")
}

/// Does what was decided, for a request with this content; what is to be answered at once.
fn ask<N: Net>(decision: Decision, content: &[u8], who: &Who, cx: &Context<'_, N>) -> Result<Stage, Answer> {
    let (worker, session) = (cx.worker, who.id);
    let (mail, patience, writes) = match decision {
        Decision::Answer(answer) => return Err(answer),
        Decision::Ask { question, unless } => (ControlMail::Ask { worker, session, question, unless }, PATIENCE, false),
        Decision::Write(form) => {
            let order = form.fill(content, who.listener)?;
            let patience = PATIENCE + order.wait();
            (ControlMail::Order { worker, session, order: Box::new(order) }, patience, true)
        }
    };
    let sent = cx.control.is_some_and(|control| control.try_send(mail).is_ok());
    if sent { Ok(Stage::Asked { patience, writes }) } else { Err(busy()) }
}
