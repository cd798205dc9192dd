//! A request for `/lb/*`: who may ask it, what it asks, and what is answered at once.
//!
//! Knows: the rules, the paths. Must not touch: sockets, threads, what the answer to a question is: control knows that.
//! Nothing here waits, and nothing grows with the number of backends. Read [`decide`] first.

mod query;

#[cfg(test)]
mod tests;

use crate::config::HostMatch;
use crate::route::host_of;
use crate::shared::admin::{Answer, Question, Rules};
use std::net::{IpAddr, Ipv6Addr};

/// What is asked for, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a, F> {
    /// As sent.
    pub method: &'a str,
    /// In its normal form.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// Host as sent, with the port; empty when there is none.
    pub authority: &'a str,
    /// Who asks: behind proxies, whoever they say (`wire::forwarded::client_address`).
    pub client: IpAddr,
    /// All fields of the head.
    pub fields: F,
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// This is answered.
    Answer(Answer),
    /// Control is asked.
    Ask(Question),
}

/// True for a path of the admin API, in its normal form.
pub fn is_ours(path: &str) -> bool {
    path.strip_prefix("/lb").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Methods of a path that is only read.
const READ: &str = "GET, HEAD";

/// What is answered to `asked`, or asked of control for it. The rules come in an order that tells a stranger least: who
/// may not ask learns neither whether a token is right nor which paths there are.
pub fn decide<'f, F>(asked: &Asked<'_, F>, rules: &Rules) -> Decision
where
    F: Iterator<Item = (&'f str, &'f [u8])> + Clone,
{
    match allowed(asked, rules).and_then(|()| read(asked)) {
        Ok(question) => Decision::Ask(question),
        Err(answer) => Decision::Answer(answer),
    }
}

fn allowed<'f, F>(asked: &Asked<'_, F>, rules: &Rules) -> Result<(), Answer>
where
    F: Iterator<Item = (&'f str, &'f [u8])> + Clone,
{
    if !rules.allow.contains(asked.client) {
        let detail = format!("{} may not call this; add its network to allow in [admin]", asked.client);
        return Err(Answer::problem(403, &detail));
    }
    let field = |name: &'static str| asked.fields.clone().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
    if let Some(token) = &rules.token {
        let mut given = field("authorization").map(|(_, value)| bearer(value));
        return match (given.next(), given.next()) {
            (Some(Some(given)), None) if token.is(given) => Ok(()),
            (None, _) => {
                let detail = "a token is required; send it as \"Authorization: Bearer TOKEN\"";
                Err(Answer::problem(401, detail).with("WWW-Authenticate", "Bearer realm=\"l4lb\""))
            }
            _ => {
                let detail =
                    "this is not the token; send what token_file of [admin] holds as \"Authorization: Bearer TOKEN\"";
                Err(Answer::problem(401, detail)
                    .with("WWW-Authenticate", "Bearer realm=\"l4lb\", error=\"invalid_token\""))
            }
        };
    }
    // Without a token, a page that somebody's browser shows must not be able to speak for them: neither under a name
    // that has come to mean this address, nor from another place.
    if !is_known(host_of(asked.authority), &rules.hosts) {
        let detail = "this name is not known here; use an IP address or localhost, or add the name to hosts in [admin]";
        return Err(Answer::problem(421, detail));
    }
    if !matches!(asked.method, "GET" | "HEAD" | "OPTIONS") {
        let foreign = field("origin").any(|(_, origin)| !is_same(origin, asked.authority))
            || field("sec-fetch-site").any(|(_, site)| site == b"cross-site");
        if foreign {
            let detail = "a page from elsewhere may change nothing here; call this from its own origin, or set token_file in [admin]";
            return Err(Answer::problem(403, detail));
        }
    }
    Ok(())
}

/// The token of an Authorization field (RFC 6750, section 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// True for an IP literal, localhost, a name that is listed, and for no name at all: every browser sends one.
fn is_known(host: &str, hosts: &[HostMatch]) -> bool {
    let literal = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => host.parse::<IpAddr>().is_ok(),
    };
    let listed = |name: &HostMatch| match name {
        HostMatch::Exact(name) => host.eq_ignore_ascii_case(name),
        HostMatch::Suffix(name) => {
            let before = host.len().saturating_sub(name.len());
            before > 0 && host.get(before..).is_some_and(|end| end.eq_ignore_ascii_case(name))
        }
    };
    host.is_empty() || literal || host.eq_ignore_ascii_case("localhost") || hosts.iter().any(listed)
}

/// Whether an Origin is that of `authority`. Its scheme says nothing: who ends TLS before us is of the same place.
fn is_same(origin: &[u8], authority: &str) -> bool {
    let Some(at) = origin.windows(3).position(|part| part == b"://") else { return false };
    origin[at + 3..].eq_ignore_ascii_case(authority.as_bytes())
}

/// What is asked, of those paths that are there.
fn read<F>(asked: &Asked<'_, F>) -> Result<Question, Answer> {
    let question = match asked.path {
        "/lb/health" => Question::Health,
        "/lb/stats" => Question::Stats,
        "/lb/backends" => Question::Backends { pool: None },
        _ => {
            let detail = "there is nothing here; see /lb/health, /lb/stats and /lb/backends";
            return Err(Answer::problem(404, detail));
        }
    };
    if !matches!(asked.method, "GET" | "HEAD") {
        let detail = "this can only be read; use GET or HEAD";
        return Err(Answer::problem(405, detail).with("Allow", READ));
    }
    match question {
        Question::Backends { .. } => {
            let pool =
                query::value(asked.query.unwrap_or_default(), "pool").map_err(|why| Answer::problem(400, why))?;
            Ok(Question::Backends { pool })
        }
        other => Ok(other),
    }
}
