//! A request for `/lb/*`: who may ask it, what it asks, and what is answered at once.
//!
//! Knows: the rules, the paths. Must not touch: sockets, threads, what the answer to a question is: control knows that.
//! Nothing here waits, and nothing grows with the number of backends. Read [`decide`] first.

mod body;
mod query;
mod write;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod write_tests;

pub use write::Form;

use crate::admin::write::Target;
use crate::config::HostMatch;
use crate::route::host_of;
use crate::shared::admin::{Answer, Question, Rules};
use crate::shared::order::Tags;
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
    /// Control is asked; where its answer is about the configuration of `unless`, there is nothing to say.
    Ask {
        /// What.
        question: Question,
        /// If-None-Match.
        unless: Option<Tags>,
    },
    /// Control is to change something, once the body is there.
    Write(Box<Form>),
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
    allowed(asked, rules).and_then(|()| meant(asked)).unwrap_or_else(Decision::Answer)
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

/// What is at a path.
enum Place {
    Read(Question),
    Write(Target),
}

/// What is at `path`, if anything is.
fn place(path: &str) -> Result<Option<Place>, &'static str> {
    let Some(rest) = path.strip_prefix("/lb/") else { return Ok(None) };
    let parts = rest.split('/').map(query::segment).collect::<Result<Vec<String>, _>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.contains(&"") {
        return Ok(None);
    }
    let own = |text: &str| text.to_owned();
    Ok(Some(match parts[..] {
        ["health"] => Place::Read(Question::Health),
        ["stats"] => Place::Read(Question::Stats),
        ["backends"] => Place::Read(Question::Backends { pool: None }),
        ["config"] => Place::Read(Question::Config),
        ["reload"] => Place::Write(Target::Reload),
        ["backends", "add"] => Place::Write(Target::Add),
        ["backends", id] => Place::Write(Target::Patch(own(id))),
        ["backends", id, "remove"] => Place::Write(Target::Remove(own(id))),
        ["backends", id, "enable"] => Place::Write(Target::Enable(own(id))),
        ["backends", id, "disable"] => Place::Write(Target::Disable(own(id))),
        ["backends", id, "drain"] => Place::Write(Target::Drain(own(id))),
        ["services", pool, "register"] => Place::Write(Target::Register(own(pool))),
        ["services", pool, id] => Place::Write(Target::Service(own(pool), own(id))),
        _ => return Ok(None),
    }))
}

/// What is asked, of those paths that are there.
fn meant<'f, F>(asked: &Asked<'_, F>) -> Result<Decision, Answer>
where
    F: Iterator<Item = (&'f str, &'f [u8])> + Clone,
{
    let bad = |why: &str| Answer::problem(400, why);
    let Some(place) = place(asked.path).map_err(bad)? else {
        let detail = "there is nothing here; see /lb/health, /lb/stats, /lb/backends and /lb/config to read, and the manual page l4lb(1) to change things";
        return Err(Answer::problem(404, detail));
    };
    let tags = |name: &'static str| {
        let fields = asked.fields.clone().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        Tags::read(fields.map(|(_, value)| value)).map_err(|why| bad(&format!("{name}: {why}")))
    };
    let query = asked.query.unwrap_or_default();
    match place {
        Place::Read(mut question) => {
            if !matches!(asked.method, "GET" | "HEAD") {
                let detail = "this can only be read; use GET or HEAD";
                return Err(Answer::problem(405, detail).with("Allow", READ));
            }
            if let Question::Backends { pool } = &mut question {
                *pool = query::value(query, "pool").map_err(bad)?;
            }
            Ok(Decision::Ask { question, unless: tags("If-None-Match")? })
        }
        Place::Write(target) => {
            let method = target.method();
            if asked.method != method {
                let detail = format!("this can only be written to; use {method}");
                return Err(Answer::problem(405, &detail).with("Allow", method));
            }
            Form::new(target, query, tags("If-Match")?).map(|form| Decision::Write(Box::new(form)))
        }
    }
}
