//! Who asked for what, and what became of it: the truth that both ends are held against.

use super::plan::{Answer, Ask, Body, Ending, Ends, Scenario, Then, Wrong, ask_has_no_body};
use super::render;

/// One request.
pub(crate) struct Request {
    pub(crate) client: usize,
    pub(crate) ask: Ask,
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: usize,
    /// Bytes of it that its client has sent.
    pub(crate) sent: u64,
    pub(crate) attempts: Vec<Attempt>,
    /// Bytes in another protocol that came to the backend.
    pub(crate) tunnelled: u64,
}

/// A backend has seen the request.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The socket at l4lb.
    pub(crate) socket: usize,
    /// What l4lb had read from that before.
    pub(crate) taken_before: u64,
    pub(crate) whole: bool,
    /// The length of its content, if the answer can be taken for whole.
    pub(crate) truth: Option<u64>,
}

/// See the module.
pub(crate) struct Ledger {
    pub(crate) requests: Vec<Request>,
    /// The first request of each client.
    pub(crate) first: Vec<usize>,
    /// Requests that went over a connection that had served before.
    pub(crate) reused: u64,
    /// Requests that a backend saw for the second time.
    pub(crate) repeated: u64,
    /// Connections that backends have broken or ended under us.
    pub(crate) lost: u64,
}

impl Ledger {
    pub(crate) fn new(scenario: &Scenario) -> Ledger {
        let (mut requests, mut first) = (Vec::new(), Vec::new());
        for (client, spec) in scenario.clients.iter().enumerate() {
            first.push(requests.len());
            for ask in &spec.asks {
                let (bytes, head) = render::request(ask, requests.len());
                requests.push(Request {
                    client,
                    ask: ask.clone(),
                    bytes,
                    head,
                    sent: 0,
                    attempts: Vec::new(),
                    tunnelled: 0,
                });
            }
        }
        Ledger { requests, first, reused: 0, repeated: 0, lost: 0 }
    }

    /// The number of a request, from how it is named.
    pub(crate) fn id(&self, text: &str) -> Result<usize, String> {
        let known = |id: &usize| *id < self.requests.len();
        text.parse().ok().filter(known).ok_or_else(|| format!("a request {text:?} that nobody made"))
    }
}

impl Request {
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.bytes.len() as u64
    }
}

/// How long the content of an answer is when it is whole; `None` when it can never be.
pub(crate) fn truth(answer: &Answer, ask: &Ask, rendered: &render::Rendered) -> Option<u64> {
    let (head, all) = (rendered.head as u64, rendered.bytes.len() as u64);
    let cut = answer.cut.filter(|cut| cut.0 < all);
    if matches!(answer.wrong, Wrong::Head(_)) || cut.is_some_and(|cut| cut.0 < head) {
        return None;
    }
    if ask_has_no_body(ask, answer.status) {
        return Some(0);
    }
    match (answer.ends, cut, answer.then) {
        // Nobody can tell such an end from that of the content.
        (Ends::Close, Some((at, Ending::Close | Ending::Finish)), _) => Some(at - head),
        (_, Some(_), _) => None,
        (_, None, _) if answer.wrong != Wrong::Nothing => None,
        (Ends::Close, None, Then::End(_, Ending::Close | Ending::Finish)) => Some(answer.length),
        (Ends::Close, None, _) => None,
        (_, None, _) => Some(answer.length),
    }
}

/// The content that may be forwarded of a request: `None` for one in which bad chunks follow.
pub(crate) fn is_known(body: Body, at: u64) -> bool {
    !matches!(body, Body::Bad { length, .. } if at >= length)
}
