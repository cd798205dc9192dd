//! What a write asks for: its path, method and query come first, its body later.

use crate::admin::body::{Fault, Fields, duration, required};
use crate::admin::query::Parameters;
use crate::base::ids::ListenerId;
use crate::config::{Address, CheckUrl, Quoted};
use crate::shared::admin::Answer;
use crate::shared::order::{Added, Change, HEAVIEST, Order, Registered, TTLS, Tags, Which};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a registration lasts that does not say how long.
const TTL: Duration = Duration::from_secs(10);
/// How long one may wait for a backend to be gone.
const WAITS: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// What is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/lb/backends/add`
    Add,
    /// `/lb/backends/{id}/remove`
    Remove(String),
    /// `/lb/backends/{id}/enable`
    Enable(String),
    /// `/lb/backends/{id}/disable`
    Disable(String),
    /// `/lb/backends/{id}/drain`
    Drain(String),
    /// `/lb/backends/{id}`
    Patch(String),
    /// `/lb/services/{pool}/register`
    Register(String),
    /// `/lb/services/{pool}/{id}`
    Service(String, String),
    /// `/lb/reload`
    Reload,
}

impl Target {
    /// Its method.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Target::Remove(_) | Target::Service(..) => "DELETE",
            Target::Patch(_) => "PATCH",
            _ => "POST",
        }
    }

    /// The parameters that its query may have.
    fn parameters(&self) -> &'static [&'static str] {
        match self {
            Target::Add | Target::Register(_) | Target::Service(..) => &["dry_run"],
            Target::Remove(_) => &["dry_run", "pool", "wait"],
            Target::Reload => &["dry_run", "discard"],
            _ => &["dry_run", "pool"],
        }
    }
}

/// A write whose body has not come yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    target: Target,
    dry_run: bool,
    only_if: Option<Tags>,
    pool: Option<String>,
    wait: Option<Duration>,
    discard: bool,
}

impl Form {
    /// A write to `target`.
    pub(super) fn new(target: Target, query: &str, only_if: Option<Tags>) -> Result<Form, Answer> {
        let bad = |why: &str| Answer::problem(400, why);
        let mut parameters = Parameters::read(query).map_err(bad)?;
        let known = target.parameters();
        if let Some(name) = parameters.names().find(|name| !known.contains(name)) {
            let known = known.join(", ");
            let detail = format!("{}: is no parameter here; leave it out, or write one of {known}", Quoted::new(name));
            return Err(bad(&detail));
        }
        let dry_run = match parameters.take("dry_run").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(bad(&format!("dry_run: {} is neither true nor false", Quoted::new(other)))),
        };
        let discard = match parameters.take("discard").as_deref() {
            None => false,
            Some("api") => true,
            Some(other) => {
                let detail = format!("discard: {} cannot be let go; write api, or leave it out", Quoted::new(other));
                return Err(bad(&detail));
            }
        };
        let wait = parameters.take("wait").map(|text| duration("wait", &text, WAITS)).transpose();
        let wait = wait.map_err(|why| bad(&why))?;
        Ok(Form { target, dry_run, only_if, pool: parameters.take("pool"), wait, discard })
    }

    /// The order, now that the body is there too; it came in by `listener`.
    ///
    /// # Errors
    /// 400, with what is wrong with the body.
    pub fn fill(self, body: &[u8], listener: ListenerId) -> Result<Order, Answer> {
        let Form { target, dry_run, only_if, pool, wait, discard } = self;
        let which = |id: String| Which { id, pool };
        let no_body = || Fields::read(body, &[]).map(drop);
        let change = match target {
            Target::Add => add(body),
            Target::Remove(id) => no_body().map(|()| Change::Remove { which: which(id), wait }),
            Target::Enable(id) => no_body().map(|()| Change::Enable(which(id))),
            Target::Disable(id) => no_body().map(|()| Change::Disable(which(id))),
            Target::Drain(id) => no_body().map(|()| Change::Drain(which(id))),
            Target::Patch(id) => weight(body).map(|weight| Change::Weight(which(id), weight)),
            Target::Register(pool) => register(pool, body),
            Target::Service(pool, id) => no_body().map(|()| Change::Deregister { pool, id }),
            Target::Reload => no_body().map(|()| Change::Reload { discard }),
        };
        let change = change.map_err(|why| Answer::problem(400, &why))?;
        Ok(Order { change, dry_run, only_if, listener })
    }
}

fn add(body: &[u8]) -> Result<Change, Fault> {
    const KNOWN: [&str; 7] = ["host", "port", "id", "pool", "weight", "max_connections", "backup"];
    let mut fields = Fields::read(body, &KNOWN)?;
    let (address, typed) = address(&mut fields)?;
    let added = Added {
        address,
        weight: fields.number("weight", 0..=u64::from(HEAVIEST))?.unwrap_or(1) as u16,
        max_connections: fields.number("max_connections", 0..=u64::from(u32::MAX))?.unwrap_or(0) as u32,
        backup: fields.flag("backup")?.unwrap_or(false),
    };
    let id = fields.id()?.unwrap_or(typed);
    Ok(Change::Add { pool: fields.text("pool", "web")?, id, added })
}

fn weight(body: &[u8]) -> Result<u16, Fault> {
    let mut fields = Fields::read(body, &["weight"])?;
    required("weight", fields.number("weight", 0..=u64::from(HEAVIEST))?).map(|weight| weight as u16)
}

fn register(pool: String, body: &[u8]) -> Result<Change, Fault> {
    const KNOWN: [&str; 6] = ["id", "host", "port", "weight", "ttl", "health_check_url"];
    let mut fields = Fields::read(body, &KNOWN)?;
    let id = required("id", fields.id()?)?;
    let (address, _) = address(&mut fields)?;
    let check = fields.text("health_check_url", "http://10.0.0.7:8080/health")?;
    let check =
        check.map(|url| url.parse::<CheckUrl>().map_err(|why| format!("health_check_url: {why}"))).transpose()?;
    if let Some(check) = &check {
        let own = match &address {
            Address::Ip(address) => address.ip().to_string(),
            Address::Name { host, .. } => host.clone(),
        };
        let bare = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if bare(&check.host) != bare(&own) {
            return Err(format!("health_check_url: its host is {:?}; write {own:?}, that of the backend", check.host));
        }
    }
    let registered = Registered {
        address,
        weight: fields.number("weight", 0..=u64::from(HEAVIEST))?.unwrap_or(1) as u16,
        ttl: fields.duration("ttl", TTLS)?.unwrap_or(TTL),
        check,
    };
    Ok(Change::Register { pool, id, registered })
}

/// Where a backend is, and how it is called when nothing else is said.
fn address(fields: &mut Fields) -> Result<(Address, String), Fault> {
    let host = required("host", fields.text("host", "10.0.0.7")?)?;
    let port = required("port", fields.number("port", 1..=65535)?)? as u16;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let typed = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) if host.contains([':', '[', ']']) => {
            return Err(format!("host: {} is no address and no name; write the port as port", Quoted::new(&host)));
        }
        Err(_) => format!("{host}:{port}"),
    };
    let address = Address::backend(&typed).map_err(|error| format!("host: {error}"))?;
    Ok((address, typed))
}
