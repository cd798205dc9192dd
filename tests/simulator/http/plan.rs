//! What happens in one run: who asks for what, what is answered, and what goes wrong.

use crate::script::Shape;
use l4lb::link::scripted::Whims;

/// Everything that is fixed before a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) listener: Listener,
    pub(crate) pool: Pool,
    pub(crate) clients: Vec<Client>,
    pub(crate) whims: Whims,
    /// Bytes the worker may hold.
    pub(crate) memory: usize,
    /// Events taken at once, at most.
    pub(crate) batch: usize,
    /// Of a hundred turns, how many see a wake-up for nothing, or one for a link that is gone.
    pub(crate) stray: usize,
    /// When every session is cut, in milliseconds.
    pub(crate) cut_at: Option<u64>,
    /// How often the snapshot changes, in turns; 0 is never.
    pub(crate) publish: usize,
    /// Calls that panic: of which socket, and the how manieth.
    pub(crate) panics: Vec<(usize, u64)>,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) idle: u64,
    pub(crate) header: u64,
    pub(crate) body: u64,
    /// 0 is none.
    pub(crate) request: u64,
    pub(crate) tunnel: u64,
    /// 0 is no limit.
    pub(crate) max_body: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) connect_timeout: u64,
    pub(crate) response_timeout: u64,
    pub(crate) retries: usize,
    pub(crate) keepalive: usize,
    pub(crate) keepalive_timeout: u64,
    /// Of the connections to backends, by chance.
    pub(crate) shapes: Vec<Shape>,
    pub(crate) backends: Vec<Backend>,
}

#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) max_connections: u32,
    /// One of these, by chance, for each connect.
    pub(crate) meets: Vec<Meets>,
}

/// How a backend meets a connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meets {
    /// The connect fails at once, with this errno.
    Fails(i32),
    /// It ends after so many milliseconds, with this errno; `None` is never.
    Refuses(Option<u64>, i32),
    /// It accepts after so many milliseconds (0 is at once), and serves.
    Serves(u64),
    /// It accepts at once and serves, but ends the connection once so many bytes have come.
    Slams(u64, Ending),
}

/// How an end ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Close,
    /// It ends its side, and reads on.
    Finish,
    Reset,
    /// Nothing more comes, and nothing ends.
    Silence,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: u64,
    pub(crate) shape: Shape,
    pub(crate) asks: Vec<Ask>,
    pub(crate) acts: Vec<Act>,
}

/// One act of a client. Reading goes on beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Sends what it has to say, up to this byte of that request; `u64::MAX` is all of it.
    Send(usize, u64),
    /// The same up to the end of its head.
    SendHead(usize),
    Pause(u64),
    /// Reads nothing from now on for so many milliseconds; the next act follows at once.
    Hold(u64),
    /// Reads up to so many bytes, and waits for them.
    Hear(u64),
    /// Until so many responses have come, or the end.
    Await(usize),
    /// Until an interim response to that request has come, or the final one, or the end.
    AwaitContinue(usize),
    Finish,
    Close,
    Reset,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) http10: bool,
    /// It says that it is the last.
    pub(crate) close: bool,
    pub(crate) body: Body,
    pub(crate) expect: bool,
    /// Bytes in a field that means nothing.
    pub(crate) padding: usize,
    /// It takes trailers.
    pub(crate) te: bool,
    /// Another protocol is asked for: bytes that the client says in it, and whether it begins at once.
    pub(crate) upgrade: Option<(u64, bool)>,
    /// The place in `render::BAD_HEADS` of what is sent in its place.
    pub(crate) bad_head: Option<usize>,
    /// What is said at each try; the last for all further ones.
    pub(crate) answers: Vec<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Length(u64),
    /// In chunks of at most `grain` bytes.
    Chunked {
        length: u64,
        grain: u64,
        trailers: bool,
    },
    /// The place in `render::BAD_CHUNKS` of what stands in it after so many bytes.
    Bad {
        length: u64,
        bad: usize,
    },
}

impl Body {
    pub(crate) fn length(self) -> u64 {
        match self {
            Body::None => 0,
            Body::Length(length) | Body::Chunked { length, .. } | Body::Bad { length, .. } => length,
        }
    }
}

impl Ask {
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.bad_head.is_some() || matches!(self.body, Body::Bad { .. })
    }

    pub(crate) fn answer(&self, attempt: usize) -> &Answer {
        &self.answers[attempt.min(self.answers.len() - 1)]
    }
}

/// When an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// After the head and so many bytes of content.
    Body(u64),
    /// The whole request.
    Whole,
}

/// How the body of a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Length,
    Chunked,
    Close,
    /// The status says that there is none; `true`: with a length all the same.
    Never(bool),
}

/// What a backend does for a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) when: When,
    pub(crate) delay: u64,
    pub(crate) interim: Vec<u16>,
    pub(crate) status: u16,
    pub(crate) http10: bool,
    pub(crate) ends: Ends,
    pub(crate) length: u64,
    pub(crate) trailers: bool,
    /// It says that it will close.
    pub(crate) close: bool,
    pub(crate) wrong: Wrong,
    /// Of the bytes of the response only so many are sent, and then this.
    pub(crate) cut: Option<(u64, Ending)>,
    /// Behind the response, after so many milliseconds.
    pub(crate) then: Then,
}

/// What is wrong with a response as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nothing,
    /// The place in `render::BAD_RESPONSES` of what is sent in its place.
    Head(usize),
    /// Bad chunks after so many bytes of content.
    Chunk(u64),
}

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    /// The connection ends, after so many milliseconds.
    End(u64, Ending),
    /// Bytes that nobody asked for, after so many milliseconds; they may look like a response.
    Extra(u64, bool),
}

impl Answer {
    /// What is usual.
    pub(crate) fn plain(length: u64) -> Answer {
        Answer {
            when: When::Whole,
            delay: 0,
            interim: Vec::new(),
            status: 200,
            http10: false,
            ends: Ends::Length,
            length,
            trailers: false,
            close: false,
            wrong: Wrong::Nothing,
            cut: None,
            then: Then::Keep,
        }
    }

    /// Whether another request may come on its connection.
    pub(crate) fn keeps(&self, ask: &Ask) -> bool {
        let lies = matches!(self.ends, Ends::Never(true)) && self.status == 204;
        let ends = self.ends == Ends::Close && !ask_has_no_body(ask, self.status);
        let is_wrong = match self.wrong {
            Wrong::Nothing => false,
            Wrong::Head(_) => true,
            Wrong::Chunk(_) => !ask_has_no_body(ask, self.status),
        };
        !is_wrong && self.cut.is_none() && !self.close && !ends && !lies && self.status != 101
    }

    /// Whether it is one that is to be expected of a backend.
    pub(crate) fn is_kind(&self) -> bool {
        self.wrong == Wrong::Nothing && self.cut.is_none() && matches!(self.then, Then::Keep)
    }
}

pub(crate) fn ask_has_no_body(ask: &Ask, status: u16) -> bool {
    ask.method == "HEAD" || matches!(status, 204 | 304)
}

impl Scenario {
    /// Requests to the pool wait for a moment of their own.
    fn pool_queues(&self) -> bool {
        self.seed % 5 == 3
    }

    /// Requests of each client wait for a moment of their own.
    fn listener_queues(&self) -> bool {
        self.seed % 7 == 3
    }

    /// Requests may wait before they go anywhere.
    pub(crate) fn queues(&self) -> bool {
        self.pool_queues() || self.listener_queues()
    }

    /// The configuration, as a user would write it.
    pub(crate) fn config(&self) -> String {
        let Listener { idle, header, body, request, tunnel, max_body } = self.listener;
        let mut text = format!(
            "version = 1\n[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:1000\"\nprotocol = \"http\"\npool = \"web\"\n\
             idle_timeout = \"{idle}ms\"\nheader_timeout = \"{header}ms\"\nbody_timeout = \"{body}ms\"\n\
             request_timeout = \"{request}ms\"\ntunnel_timeout = \"{tunnel}ms\"\nmax_body_size = \"{max_body}\"\n"
        );
        let pool = &self.pool;
        text += &format!(
            "[[pool]]\nname = \"web\"\nconnect_timeout = \"{}ms\"\nresponse_timeout = \"{}ms\"\nretries = {}\n\
             keepalive = {}\nkeepalive_timeout = \"{}ms\"\nhealth_check = {{ kind = \"none\" }}\n",
            pool.connect_timeout, pool.response_timeout, pool.retries, pool.keepalive, pool.keepalive_timeout
        );
        // Nobody is refused; everybody waits for a moment of its own, and some leave meanwhile.
        let waits = |key: &str| {
            format!("{{ algorithm = \"leaky_bucket\", key = \"{key}\", capacity = 1000000, leak_rate = 100 }}\n")
        };
        if self.pool_queues() {
            text += &format!("rate_limit = {}", waits("all"));
        }
        if self.listener_queues() {
            text = text.replace("[[pool]]", &format!("rate_limit = {}[[pool]]", waits("client_ip")));
        }
        for (number, backend) in pool.backends.iter().enumerate() {
            text += &format!(
                "[[pool.backend]]\nid = \"b{number}\"\naddress = \"10.0.{number}.1:80\"\nmax_connections = {}\n",
                backend.max_connections
            );
        }
        text
    }
}
