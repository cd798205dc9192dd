//! The part of the reader that knows hosts, paths, methods and header fields, and the networks of proxies.

use std::str::FromStr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::super::error::{Fault, Quoted};
use super::super::host::HostMatch;
use super::super::keys::Takes;
use super::super::network;
use super::{Noted, Open, Reader};

/// Methods that are meant when they are typed in small letters (RFC 9110, section 9.3, and RFC 5789).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

impl Reader<'_> {
    /// An array of networks; those that are usable.
    pub(in crate::config) fn networks(&mut self, open: &Open<'_>, key: &str) -> Vec<IpNet> {
        let Some((value, span, takes)) = self.value(open, key) else {
            return Vec::new();
        };
        let place = open.place_of(key);
        let DeValue::Array(items) = value else {
            self.wrong_type::<()>(span.start, place, value, takes);
            return Vec::new();
        };
        let mut networks = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let read = |text: &str| network::read(text).map_err(Fault::from);
            let at = item.span().start;
            networks.extend(self.parsed(item.get_ref(), at, format!("{place}[{i}]"), takes, read));
        }
        networks
    }

    /// An array of hosts; those that are usable.
    pub(in crate::config) fn hosts(&mut self, open: &Open<'_>, key: &str) -> Vec<HostMatch> {
        let Some((value, span, takes)) = self.value(open, key) else {
            return Vec::new();
        };
        let place = open.place_of(key);
        let DeValue::Array(items) = value else {
            self.wrong_type::<()>(span.start, place, value, takes);
            return Vec::new();
        };
        let mut hosts = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let read = |text: &str| HostMatch::from_str(text).map_err(Fault::from);
            let at = item.span().start;
            hosts.extend(self.parsed(item.get_ref(), at, format!("{place}[{i}]"), takes, read));
        }
        hosts
    }

    /// The host of a route.
    pub(in crate::config) fn host(&mut self, open: &Open<'_>, key: &str) -> Option<HostMatch> {
        let (value, span, takes) = self.value(open, key)?;
        let read = |text: &str| HostMatch::from_str(text).map_err(Fault::from);
        self.parsed(value, span.start, open.place_of(key), takes, read)
    }

    /// A path of a request, or the beginning of one.
    pub(in crate::config) fn url_path(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<String>> {
        let (value, span, takes) = self.value(open, key)?;
        let place = open.place_of(key);
        let value = self.parsed(value, span.start, place.clone(), takes, path)?;
        Some(Noted { value, at: span.start, place })
    }

    /// One method or an array of them, each once.
    pub(in crate::config) fn methods(&mut self, open: &Open<'_>, key: &str) -> Vec<String> {
        let Some((value, span, takes)) = self.value(open, key) else {
            return Vec::new();
        };
        let place = open.place_of(key);
        let mut methods: Vec<String> = Vec::new();
        match value {
            DeValue::Array(items) if items.is_empty() => self.report(span.start, place, Fault::Empty(takes)),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let at = item.span().start;
                    let read = self.parsed(item.get_ref(), at, format!("{place}[{i}]"), takes, method);
                    methods.extend(read.filter(|method| !methods.contains(method)));
                }
            }
            _ => methods.extend(self.parsed(value, span.start, place, takes, method)),
        }
        methods
    }

    /// The name of a header field, in lower case.
    pub(in crate::config) fn header_name(&mut self, open: &Open<'_>, key: &str) -> Option<String> {
        let (value, span, takes) = self.value(open, key)?;
        let read = |text: &str| Ok(token(text, "name of a header", "x-canary")?.to_ascii_lowercase());
        self.parsed(value, span.start, open.place_of(key), takes, read)
    }

    /// The value of a header field.
    pub(in crate::config) fn header_value(&mut self, open: &Open<'_>, key: &str) -> Option<String> {
        let value = self.text(open, key)?;
        if value.value.starts_with([' ', '\t']) || value.value.ends_with([' ', '\t']) {
            self.report(value.at, value.place, Fault::Blanks { found: Quoted::new(&value.value) });
        }
        Some(value.value)
    }

    /// Text that is not empty, as `read` takes it.
    pub(super) fn parsed<T>(
        &mut self,
        value: &DeValue<'_>,
        at: usize,
        place: String,
        takes: &'static Takes,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let DeValue::String(text) = value else {
            return self.wrong_type(at, place, value, takes);
        };
        let read = if text.is_empty() { Err(Fault::Empty(takes)) } else { read(text) };
        read.map_err(|fault| self.report(at, place, fault)).ok()
    }
}

/// A path as a request could have it, once it is in its normal form (RFC 3986, section 3.3 and 6.2.2.3).
fn path(text: &str) -> Result<String, Fault> {
    let bad = |why: String| Err(Fault::BadPath { found: Quoted::new(text), why });
    if !text.starts_with('/') {
        return bad("it does not begin with \"/\"".to_owned());
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || "?#".contains(*c)) {
        Some('?') => return bad("what follows \"?\" is no part of a path".to_owned()),
        Some('#') => return bad("what follows \"#\" is not sent".to_owned()),
        Some(c) => return bad(format!("{c:?} is sent percent-encoded")),
        None => {}
    }
    if text.split('/').any(|part| part == "." || part == "..") {
        return bad("a \".\" or \"..\" part is gone before routes are looked at".to_owned());
    }
    Ok(text.to_owned())
}

fn method(text: &str) -> Result<String, Fault> {
    let method = token(text, "method", "GET")?;
    let meant = method.to_ascii_uppercase();
    if meant != method && METHODS.contains(&meant.as_str()) {
        return Err(Fault::MethodCase { found: Quoted::new(text), meant });
    }
    Ok(method.to_owned())
}

/// `text`, if it is a token (RFC 9110, section 5.6.2).
pub(super) fn token<'a>(text: &'a str, what: &'static str, example: &'static str) -> Result<&'a str, Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    match text.chars().find(|c| !good(*c)) {
        Some(bad) => Err(Fault::NoToken { found: Quoted::new(text), what, bad, example }),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T>(read: Result<T, Fault>) -> String {
        read.err().map_or_else(|| "good".to_owned(), |fault| fault.to_string())
    }

    #[test]
    fn paths_are_those_that_a_request_can_have() {
        let cases = [
            ("the root", "/", "good"),
            ("parts", "/v1/status", "good"),
            ("a slash at the end", "/v1/", "good"),
            ("an escape", "/a%20b", "good"),
            ("what needs no escape", "/~a/b;c=1,2/@x:y!$&'()*+", "good"),
            ("what should have one, and is sent without", "/a|b", "good"),
            ("dots that are a name", "/..a/.well-known/...", "good"),
            ("no slash", "v1", "does not begin with \"/\""),
            ("a URL", "http://example.com/v1", "does not begin with \"/\""),
            ("a star, as other programs have it", "*", "does not begin with \"/\""),
            ("a query", "/v1?x=1", "no part of a path"),
            ("a fragment", "/v1#top", "is not sent"),
            ("a blank", "/a b", "' ' is sent percent-encoded"),
            ("not ASCII", "/größe", "'ö' is sent percent-encoded"),
            ("a control character", "/a\n", "'\\n' is sent percent-encoded"),
            ("one up", "/a/../b", "is gone before"),
            ("here", "/a/.", "is gone before"),
        ];
        for (why, text, expected) in cases {
            let told = told(path(text));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }

    #[test]
    fn methods_are_tokens_in_the_case_they_are_sent() {
        let cases = [
            ("usual", "GET", "good"),
            ("of one's own", "M-SEARCH", "good"),
            ("of one's own in small letters", "purge", "good"),
            ("usual in small letters", "get", "write \"GET\""),
            ("mixed", "Post", "write \"POST\""),
            ("two", "GET HEAD", "is no method: ' ' is in it"),
            ("two", "GET,HEAD", "is no method: ',' is in it"),
            ("not ASCII", "GÉT", "is no method: 'É' is in it"),
        ];
        for (why, text, expected) in cases {
            let told = told(method(text));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }

    #[test]
    fn names_of_headers_are_tokens() {
        let cases = [
            ("usual", "X-Canary", "good"),
            ("a colon", "x-canary:", "':' is in it"),
            ("a blank", "x canary", "' ' is in it"),
            ("a line's end", "x\r\n", "'\\r' is in it"),
        ];
        for (why, text, expected) in cases {
            let told = told(token(text, "name of a header", "x-canary"));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }
}
