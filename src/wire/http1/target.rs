//! What a request line asks for (RFC 9112, section 3.2).

use super::{Bad, host};

/// In which form the target was sent; all but `Asterisk` are forwarded in origin form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`, as to a forward proxy.
    Absolute,
    /// `*`: `OPTIONS` about the server itself.
    Asterisk,
}

/// A request target, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// How it was written.
    pub form: Form,
    /// Begins with `/`; or is `*` and nothing else. Not normalised: see [`super::normalise_path`].
    pub path: &'a str,
    /// What follows the first `?`; may be empty.
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads a target, and the authority if that is in it.
    pub(super) fn parse(method: &str, text: &'a str) -> Result<(Target<'a>, Option<&'a str>), Bad> {
        if text.bytes().any(|byte| byte == b'#' || byte >= 0x80) {
            return Err(Bad::request("the target has a byte that no target may have"));
        }
        if text.starts_with('/') {
            return Ok((Target::origin(Form::Origin, text), None));
        }
        if text == "*" {
            if method != "OPTIONS" {
                return Err(Bad::request("only OPTIONS may ask for *"));
            }
            return Ok((Target { form: Form::Asterisk, path: "*", query: None }, None));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Bad::request("the target is neither a path nor a URL"));
        };
        if scheme.eq_ignore_ascii_case("https") {
            // RFC 9110, section 7.4: not over a connection that is not secured.
            return Err(Bad { status: 421, why: "https is not served on this connection" });
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(Bad::request("the target is not an http URL"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = host::check(&rest.as_bytes()[..end])?;
        let target = match &rest[end..] {
            // RFC 9112, section 3.2.4: the last proxy makes it an asterisk.
            "" if method == "OPTIONS" => Target { form: Form::Asterisk, path: "*", query: None },
            path => Target::origin(Form::Absolute, path),
        };
        Ok((target, Some(authority)))
    }

    fn origin(form: Form, text: &'a str) -> Target<'a> {
        let (path, query) = match memchr::memchr(b'?', text.as_bytes()) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        Target { form, path: if path.is_empty() { "/" } else { path }, query }
    }
}
