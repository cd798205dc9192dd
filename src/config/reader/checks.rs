//! The part of the reader that knows what hashing looks at, and what checks send and expect.

use toml::de::DeValue;

use super::super::address::AddressError;
use super::super::error::{Fault, Hint, Quoted};
use super::super::host::{HostError, HostMatch};
use super::super::keys::Takes;
use super::super::picking::HashKey;
use super::web::token;
use super::{Noted, Open, Reader};

/// The longest path of a check, and the most that one sends or expects, in bytes: no service needs as much to show that
/// it works.
const LONGEST: usize = 4096;

/// The statuses that a response can end with: those below are followed by another (RFC 9110, section 15.2).
const STATUSES: std::ops::RangeInclusive<u16> = 200..=599;

impl Reader<'_> {
    /// What is hashed.
    pub(in crate::config) fn hash_key(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<HashKey>> {
        let (value, span, takes) = self.value(open, key)?;
        let place = open.place_of(key);
        let value = self.parsed(value, span.start, place.clone(), takes, hash_key)?;
        Some(Noted { value, at: span.start, place })
    }

    /// 0, or a number in the range of its key; `None` is 0 too.
    pub(in crate::config) fn zero_or(&mut self, open: &Open<'_>, key: &str) -> Option<f64> {
        let (value, span, takes) = self.value(open, key)?;
        let Takes::ZeroOr(range) = takes else {
            return None;
        };
        let (found, number) = match number(value) {
            Some(read) => read,
            None => return self.wrong_type(span.start, open.place_of(key), value, takes),
        };
        match number {
            Some(0.0) => None,
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let found = found.chars().take(40).collect();
                let fault = Fault::NotZeroNor { found, range: takes.range().unwrap_or_default() };
                self.report(span.start, open.place_of(key), fault);
                None
            }
        }
    }

    /// The target of a check's request.
    pub(in crate::config) fn check_path(&mut self, open: &Open<'_>, key: &str) -> Option<String> {
        let (value, span, takes) = self.value(open, key)?;
        self.parsed(value, span.start, open.place_of(key), takes, target)
    }

    /// The Host of a check's request.
    pub(in crate::config) fn check_host(&mut self, open: &Open<'_>, key: &str) -> Option<String> {
        let (value, span, takes) = self.value(open, key)?;
        self.parsed(value, span.start, open.place_of(key), takes, host)
    }

    /// Statuses, from and to, both included; one alone may be a number.
    pub(in crate::config) fn statuses(&mut self, open: &Open<'_>, key: &str) -> Option<(u16, u16)> {
        let (value, span, takes) = self.value(open, key)?;
        match value {
            DeValue::Integer(number) => {
                let code = i64::from_str_radix(number.as_str(), number.radix()).ok();
                let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| STATUSES.contains(code));
                if code.is_none() {
                    let found = number.to_string().chars().take(40).collect();
                    self.report(span.start, open.place_of(key), Fault::BadStatus { found });
                }
                code.map(|code| (code, code))
            }
            _ => self.parsed(value, span.start, open.place_of(key), takes, statuses),
        }
    }

    /// Bytes as text, or as `hex:` and pairs of digits.
    pub(in crate::config) fn bytes(&mut self, open: &Open<'_>, key: &str) -> Option<Vec<u8>> {
        let (value, span, takes) = self.value(open, key)?;
        let place = open.place_of(key);
        let read = self.parsed(value, span.start, place.clone(), takes, bytes)?;
        if read.is_empty() {
            self.report(span.start, place, Fault::Empty(takes));
            return None;
        }
        Some(read)
    }
}

/// A number as typed and as read; nothing when it is of another type.
pub(super) fn number(value: &DeValue<'_>) -> Option<(String, Option<f64>)> {
    match value {
        DeValue::Float(number) => Some((number.to_string(), number.as_str().parse::<f64>().ok())),
        DeValue::Integer(number) => {
            let whole = i64::from_str_radix(number.as_str(), number.radix()).ok();
            Some((number.to_string(), whole.map(|whole| whole as f64)))
        }
        _ => None,
    }
}

fn hash_key(text: &str) -> Result<HashKey, Fault> {
    const WORDS: [&str; 5] = ["client_ip", "path", "uri", "header:NAME", "cookie:NAME"];
    let nameless = |what| Err(Fault::Nameless { found: Quoted::new(text), what });
    match (text, text.split_once(':')) {
        ("client_ip", _) => Ok(HashKey::ClientIp),
        ("path", _) => Ok(HashKey::Path),
        ("uri", _) => Ok(HashKey::Uri),
        ("header", _) | (_, Some(("header", ""))) => nameless("header"),
        ("cookie", _) | (_, Some(("cookie", ""))) => nameless("cookie"),
        (_, Some(("header", name))) => {
            Ok(HashKey::Header(token(name, "name of a header", "x-session")?.to_ascii_lowercase()))
        }
        (_, Some(("cookie", name))) => Ok(HashKey::Cookie(token(name, "name of a cookie", "session")?.to_owned())),
        _ => Err(Fault::UnknownValue { found: Quoted::new(text), hint: Hint::new(text, WORDS) }),
    }
}

/// What a request asks for (RFC 9112, section 3.2.1).
fn target(text: &str) -> Result<String, Fault> {
    let bad = |why: String| Err(Fault::BadPath { found: Quoted::new(text), why });
    if text.len() > LONGEST {
        return Err(Fault::TooLong { found: Quoted::new(text), limit: LONGEST });
    }
    if !text.starts_with('/') {
        return bad("it does not begin with \"/\"".to_owned());
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        Some('#') => bad("what follows \"#\" is not sent".to_owned()),
        Some(c) => bad(format!("{c:?} is sent percent-encoded")),
        None => Ok(text.to_owned()),
    }
}

/// One host, with a port or without (RFC 9110, section 7.2).
fn host(text: &str) -> Result<String, Fault> {
    let (host, port) = match text.rsplit_once(':') {
        // Otherwise it is a part of an IPv6 address, or of a URL.
        Some((host, port)) if (!host.contains(':') || host.ends_with(']')) && !port.contains('/') => (host, Some(port)),
        _ => (text, None),
    };
    match host.parse() {
        Ok(HostMatch::Exact(_)) => {}
        Ok(HostMatch::Suffix(_)) | Err(HostError::Wildcard { .. } | HostError::Every { .. }) => {
            return Err(Fault::ManyHosts { found: Quoted::new(text) });
        }
        Err(error) => return Err(error.into()),
    }
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port {
        Some(port) if !digits(port) || port.parse::<u16>().is_err() => {
            let example = format!("{host}:8080");
            Err(AddressError::BadPort { found: Quoted::new(text), example }.into())
        }
        _ => Ok(text.to_owned()),
    }
}

/// `200` or `200-399`.
fn statuses(text: &str) -> Result<(u16, u16), Fault> {
    let code = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|code| digits && STATUSES.contains(code))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let both = code(from.trim()).zip(code(to.trim())).filter(|(from, to)| from <= to);
    both.ok_or_else(|| Fault::BadStatus { found: Quoted::new(text).to_string() })
}

/// What is behind `hex:`, or the text itself.
fn bytes(text: &str) -> Result<Vec<u8>, Fault> {
    let bytes = match text.strip_prefix("hex:") {
        None => text.as_bytes().to_vec(),
        Some(digits) => {
            let digits: Vec<char> = digits.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let values: Result<Vec<u8>, char> =
                digits.iter().map(|c| c.to_digit(16).map(|digit| digit as u8).ok_or(*c)).collect();
            let bad = |why| Fault::BadHex { found: Quoted::new(text), why };
            let values = values.map_err(|c| bad(format!("{c:?} is no digit from 0 to 9 or a to f")))?;
            if !values.len().is_multiple_of(2) {
                return Err(bad("it has an odd number of digits".to_owned()));
            }
            values.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        }
    };
    if bytes.len() > LONGEST {
        return Err(Fault::TooLong { found: Quoted::new(text), limit: LONGEST });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T: std::fmt::Debug>(read: Result<T, Fault>) -> String {
        read.map_or_else(|fault| fault.to_string(), |read| format!("{read:?}"))
    }

    #[test]
    fn hash_keys_are_words_or_have_a_name() {
        let rows = [
            ("the client", "client_ip", "ClientIp"),
            ("the path", "path", "Path"),
            ("with the query", "uri", "Uri"),
            ("a header, in any case", "header:X-Tenant", "Header(\"x-tenant\")"),
            ("a cookie, letter by letter", "cookie:JSESSIONID", "Cookie(\"JSESSIONID\")"),
            ("no name", "header:", "\"header:\" names no header; write one, as in \"header:session\""),
            ("no colon", "cookie", "\"cookie\" names no cookie; write one, as in \"cookie:session\""),
            ("a blank in it", "header: x", "\" x\" is no name of a header: ' ' is in it"),
            ("a second colon", "cookie:a:b", "\"a:b\" is no name of a cookie: ':' is in it"),
            ("nearly", "client-ip", "did you mean \"client_ip\"?"),
            (
                "another word",
                "source",
                "write one of \"client_ip\", \"path\", \"uri\", \"header:NAME\", \"cookie:NAME\"",
            ),
            ("another case", "URI", "there is no \"URI\""),
        ];
        for (why, text, expected) in rows {
            let told = told(hash_key(text));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }

    #[test]
    fn statuses_are_one_or_a_range() {
        let bad = |text: &str| told(statuses(text)).contains("is no status of a response");
        assert_eq!(statuses("200-399"), Ok((200, 399)));
        assert_eq!(statuses("204"), Ok((204, 204)));
        assert_eq!(statuses("200 - 599"), Ok((200, 599)));
        let rows = [
            ("backwards", "399-200"),
            ("an interim one", "100-399"),
            ("none", "600"),
            ("open", "200-"),
            ("a class", "2xx"),
            ("a sign", "+200"),
            ("four digits", "0200"),
            ("a list", "200,204"),
            ("three", "200-300-400"),
        ];
        for (why, text) in rows {
            assert!(bad(text), "{why}: {text}");
        }
    }

    #[test]
    fn bytes_are_text_or_hex() {
        let long = "x".repeat(LONGEST + 1);
        let rows = [
            ("text with a line's end", "PING\r\n", "[80, 73, 78, 71, 13, 10]"),
            ("digits", "hex:00ff", "[0, 255]"),
            ("blanks and capitals", "hex: AB cd\n", "[171, 205]"),
            ("not ASCII", "ä", "[195, 164]"),
            ("half a byte", "hex:abc", "it has an odd number of digits"),
            ("no digit", "hex:zz", "'z' is no digit"),
            ("too much", &long, "is longer than 4096 bytes"),
        ];
        for (why, text, expected) in rows {
            let told = told(bytes(text));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }

    #[test]
    fn checks_ask_for_a_path_with_a_query_or_without() {
        let rows = [
            ("a path", "/health", "\"/health\""),
            ("a query", "/health?full=1", "\"/health?full=1\""),
            ("no slash", "health", "does not begin with \"/\""),
            ("a fragment", "/#a", "is not sent"),
            ("a blank", "/a b", "' ' is sent percent-encoded"),
            ("a second line", "/\r\nX: y", "'\\r' is sent percent-encoded"),
            ("not ASCII", "/ä", "'ä' is sent percent-encoded"),
        ];
        for (why, text, expected) in rows {
            let told = told(target(text));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }

    #[test]
    fn checks_ask_one_host() {
        let rows = [
            ("a name", "API.example.com", "\"API.example.com\""),
            ("with a port", "api.example.com:8080", "\"api.example.com:8080\""),
            ("IPv4", "192.0.2.1:80", "\"192.0.2.1:80\""),
            ("IPv6", "[::1]", "\"[::1]\""),
            ("IPv6 with a port", "[::1]:80", "\"[::1]:80\""),
            ("IPv6 without brackets", "::1", "in brackets"),
            ("many", "*.example.com", "is many hosts, and a check asks for one"),
            ("every", "*", "is many hosts"),
            ("some", "www.*", "is many hosts"),
            ("a URL", "http://example.com/", "is a URL or a path"),
            ("no port", "example.com:", "has a port that is no number"),
            ("a word for a port", "example.com:http", "has a port that is no number"),
            ("too large a port", "example.com:65536", "has a port that is no number"),
            ("a second line", "a\r\nX: y", "is no host name"),
        ];
        for (why, text, expected) in rows {
            let told = told(host(text));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }
}
