//! The query of a request: `name=value` pairs, percent-encoded.

const ESCAPE: &str = "the query has a malformed escape; write % and two hexadecimal digits, of UTF-8";
const TWICE: &str = "a parameter of the query is there twice; write it once";

/// The value of `name` in `query`, decoded; other names are nobody's business.
///
/// # Errors
/// What to do, when it is there twice or cannot be decoded.
pub(super) fn value(query: &str, name: &str) -> Result<Option<String>, &'static str> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut found = None;
    for (key, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        if decode(key)? == name && found.replace(decode(value)?).is_some() {
            return Err(TWICE);
        }
    }
    Ok(found)
}

/// All parameters of a query, decoded.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of `query`.
    ///
    /// # Errors
    /// What to do, when one is there twice or cannot be decoded.
    pub(super) fn read(query: &str) -> Result<Parameters, &'static str> {
        let mut all: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if all.iter().any(|(other, _)| *other == name) {
                return Err(TWICE);
            }
            all.push((name, value));
        }
        Ok(Parameters(all))
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The value of `name`.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// A part of a path, decoded.
///
/// # Errors
/// When it has a malformed escape, or is no UTF-8.
pub(super) fn segment(text: &str) -> Result<String, &'static str> {
    // A plus is a plus in a path.
    decode(&text.replace('+', "%2B"))
        .map_err(|_| "the path has a malformed escape; write % and two hexadecimal digits, of UTF-8")
}

fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or(ESCAPE)?;
                rest = after;
                let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(ESCAPE);
                (digit(digits[0])? * 16 + digit(digits[1])?) as u8
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| ESCAPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_and_decoded() {
        let rows = [
            ("none", "", Ok(None)),
            ("alone", "pool=web", Ok(Some("web"))),
            ("among others", "a=b&pool=web&c", Ok(Some("web"))),
            ("empty", "pool=", Ok(Some(""))),
            ("without a sign", "pool", Ok(Some(""))),
            ("escaped", "pool=my%20pool%2b", Ok(Some("my pool+"))),
            ("a plus is a blank", "pool=my+pool", Ok(Some("my pool"))),
            ("the name escaped", "%70ool=web", Ok(Some("web"))),
            ("a sign in the value", "pool=a=b", Ok(Some("a=b"))),
            ("another name", "pools=web", Ok(None)),
            ("UTF-8", "pool=%C3%BC", Ok(Some("ü"))),
            ("twice", "pool=a&pool=b", Err(TWICE)),
            ("half an escape", "pool=%4", Err(ESCAPE)),
            ("no escape", "pool=%zz", Err(ESCAPE)),
            ("a sign in an escape", "pool=%+4", Err(ESCAPE)),
            ("no UTF-8", "pool=%ff", Err(ESCAPE)),
        ];
        for (why, query, expected) in rows {
            assert_eq!(value(query, "pool"), expected.map(|value| value.map(str::to_owned)), "{why}");
        }
    }
}
