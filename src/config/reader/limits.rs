//! The part of the reader that knows whose share of a limit is meant.

use super::super::error::{Fault, Hint, Quoted};
use super::super::limits::LimitKey;
use super::web::token;
use super::{Noted, Open, Reader};

impl Reader<'_> {
    /// Who shares a limit.
    pub(in crate::config) fn limit_key(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<LimitKey>> {
        let (value, span, takes) = self.value(open, key)?;
        let place = open.place_of(key);
        let value = self.parsed(value, span.start, place.clone(), takes, limit_key)?;
        Some(Noted { value, at: span.start, place })
    }

    /// A whole number in the range of its key, with its place.
    pub(in crate::config) fn noted_integer<T: TryFrom<i64>>(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<T>> {
        let at = self.value(open, key)?.1.start;
        Some(Noted { value: self.integer(open, key)?, at, place: open.place_of(key) })
    }
}

fn limit_key(text: &str) -> Result<LimitKey, Fault> {
    const WORDS: [&str; 3] = ["all", "client_ip", "header:NAME"];
    match (text, text.split_once(':')) {
        ("all", _) => Ok(LimitKey::All),
        ("client_ip", _) => Ok(LimitKey::ClientIp),
        ("header", _) | (_, Some(("header", ""))) => Err(Fault::Nameless { found: Quoted::new(text), what: "header" }),
        (_, Some(("header", name))) => {
            Ok(LimitKey::Header(token(name, "name of a header", "x-api-key")?.to_ascii_lowercase()))
        }
        _ => Err(Fault::UnknownValue { found: Quoted::new(text), hint: Hint::new(text, WORDS) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_words_or_have_a_name() {
        let rows = [
            ("all clients together", "all", "All"),
            ("each address", "client_ip", "ClientIp"),
            ("a header, in any case", "header:X-Api-Key", "Header(\"x-api-key\")"),
            ("no name", "header:", "\"header:\" names no header"),
            ("no colon", "header", "\"header\" names no header"),
            ("a blank in it", "header: x", "\" x\" is no name of a header: ' ' is in it"),
            ("nearly", "client-ip", "did you mean \"client_ip\"?"),
            ("what hashing takes", "path", "write one of \"all\", \"client_ip\", \"header:NAME\""),
        ];
        for (why, text, expected) in rows {
            let told = limit_key(text).map_or_else(|fault| fault.to_string(), |key| format!("{key:?}"));
            assert!(told.contains(expected), "{why}: {told}");
        }
    }
}
