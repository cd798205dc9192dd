//! What the admin API needs on both sides of the mail: its rules, what is asked of control, and what is answered.

use crate::base::net::Networks;
use crate::base::secret::Secret;
use crate::config::HostMatch;
use crate::wire::http1::phrase;
use std::sync::Arc;

/// Who may call it; a part of the snapshot.
#[derive(Debug, Default)]
pub struct Rules {
    /// Clients that may call it at all.
    pub allow: Networks,
    /// Names for Host besides IP literals and localhost.
    pub hosts: Vec<HostMatch>,
    /// What each request must carry.
    pub token: Option<Secret>,
}

/// What only control can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `/lb/health`
    Health,
    /// `/lb/stats`
    Stats,
    /// `/lb/backends`
    Backends {
        /// Those of this pool alone.
        pool: Option<String>,
    },
    /// `/lb/config`
    Config,
}

/// A whole answer, but for what the connection adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// An error, as RFC 9457 has it; else it is plain JSON.
    pub problem: bool,
    /// The generation of the configuration it tells of: its ETag.
    pub generation: Option<u64>,
    /// Fields besides.
    pub fields: Vec<(&'static str, &'static str)>,
    /// JSON; shared by all who ask the same at once.
    pub body: Arc<Vec<u8>>,
}

impl Answer {
    /// 200, or another status that is no error.
    pub fn json(status: u16, body: Vec<u8>) -> Answer {
        Answer { status, body: Arc::new(body), ..Answer::default() }
    }

    /// An error; `detail` says what to do.
    pub fn problem(status: u16, detail: &str) -> Answer {
        let body = serde_json::json!({
            "type": "about:blank", "title": phrase(status), "status": status, "detail": detail,
        });
        Answer { status, problem: true, body: Arc::new(format!("{body}\n").into_bytes()), ..Answer::default() }
    }

    /// The same about the configuration of this generation.
    pub fn about(self, generation: u64) -> Answer {
        Answer { generation: Some(generation), ..self }
    }

    /// There is nothing to say that the client does not know.
    pub fn unchanged(generation: u64) -> Answer {
        Answer { status: 304, generation: Some(generation), ..Answer::default() }
    }

    /// The same with a field more.
    pub fn with(mut self, name: &'static str, value: &'static str) -> Answer {
        self.fields.push((name, value));
        self
    }
}
