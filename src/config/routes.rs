//! The part of a listener that is about HTTP, key by key: its limits and its routes.

use super::error::{Fault, Quoted};
use super::http::{Http, Route};
use super::reader::{Noted, Open, Reader};

/// The limits of a listener.
pub(super) fn http(r: &mut Reader<'_>, t: &Open<'_>) -> Http {
    let usual = Http::default();
    Http {
        header_timeout: r.duration(t, "header_timeout").unwrap_or(usual.header_timeout),
        body_timeout: r.duration(t, "body_timeout").unwrap_or(usual.body_timeout),
        request_timeout: r.duration(t, "request_timeout").filter(|time| !time.is_zero()),
        tunnel_timeout: r.duration(t, "tunnel_timeout").unwrap_or(usual.tunnel_timeout),
        max_header_size: r.size(t, "max_header_size").map_or(usual.max_header_size, |bytes| bytes as usize),
        max_body_size: r.size(t, "max_body_size").filter(|bytes| *bytes > 0),
    }
}

/// The routes of a listener, each with the pool that it names.
pub(super) fn read(r: &mut Reader<'_>, listener: &Open<'_>) -> Vec<(Route, Option<Noted<String>>)> {
    let mut routes = Vec::new();
    let mut all: Option<usize> = None;
    for t in r.tables(listener, "route", "") {
        if let Some(first) = all {
            let first = r.line(first);
            r.report(t.at, t.place.clone(), Fault::NeverReached { first });
        }
        // By what is typed, not by what could be read of it; and an unreadable line may be a condition.
        let conditions = ["host", "path", "path_prefix", "method", "header"];
        if !r.partial() && !conditions.iter().any(|key| r.has(&t, key)) {
            all = all.or(Some(t.at));
        }
        routes.push(route(r, &t));
    }
    routes
}

fn route(r: &mut Reader<'_>, t: &Open<'_>) -> (Route, Option<Noted<String>>) {
    let host = r.host(t, "host");
    let path = r.url_path(t, "path");
    let prefix = r.url_path(t, "path_prefix");
    if let (Some(path), Some(prefix)) = (&path, &prefix)
        && !below(&path.value, &prefix.value)
    {
        let (found, prefix) = (Quoted::new(&path.value), Quoted::new(&prefix.value));
        r.report(path.at, path.place.clone(), Fault::NotBelow { found, prefix });
    }
    let methods = r.methods(t, "method");
    let header = r.table(t, "header").and_then(|header| {
        let name = r.header_name(&header, "name");
        let value = r.header_value(&header, "value");
        Some((name?, value))
    });
    let pool = r.text(t, "pool");
    let (path, path_prefix) = (path.map(|path| path.value), prefix.map(|prefix| prefix.value));
    // The number of the pool is set when the pools are known.
    (Route { host, path, path_prefix, methods, header, pool: usize::MAX }, pool)
}

/// Whether `path` has `prefix` before it in whole parts.
fn below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_parts() {
        let cases = [
            ("itself", "/v1", "/v1", true),
            ("below", "/v1/x", "/v1", true),
            ("a longer part", "/v1x", "/v1", false),
            ("another", "/v2", "/v1", false),
            ("all", "/v1", "/", true),
            ("below a slash", "/v1/x", "/v1/", true),
            ("the slash is missing", "/v1", "/v1/", false),
        ];
        for (why, path, prefix, expected) in cases {
            assert_eq!(below(path, prefix), expected, "{why}");
        }
    }
}
