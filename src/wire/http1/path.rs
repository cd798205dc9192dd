//! The copy of a path that routes are matched against; the path as sent is what is forwarded.
//!
//! Two servers that read one path differently are how rules are got around, so the copy is what most backends would
//! make of it, and what they would disagree about is refused. A slash that is escaped stays an escape (some
//! applications put whole names into one segment), unless taking it for a slash would make a dot segment.

use super::Bad;

const ABOVE_ROOT: Bad = Bad::request("the path leads above the root");
const BAD_ESCAPE: Bad = Bad::request("the path has a malformed escape");
const HIDDEN_DOTS: Bad = Bad::request("the path hides a dot segment");

/// `path` with dot segments removed (RFC 3986, section 5.2.4), runs of slashes made one, escapes of unreserved
/// characters decoded and the other escapes in upper case. `*` stays as it is. `scratch` is used only where the copy
/// differs.
///
/// # Errors
/// 400 for `%00`, an escape that is none, dot segments that lead above the root, and ones hidden behind `%2F`, `%5C`,
/// a backslash or path parameters (`..;x`).
pub fn normalise_path<'a>(path: &'a str, scratch: &'a mut String) -> Result<&'a str, Bad> {
    if is_normal(path.as_bytes()) {
        return Ok(path);
    }
    scratch.clear();
    let mut ends_in_slash = true;
    for segment in path.split('/').skip(1) {
        let from = scratch.len();
        scratch.push('/');
        decode(segment, scratch)?;
        let decoded = &scratch[from + 1..];
        ends_in_slash = matches!(decoded, "" | "." | "..");
        match decoded {
            "" | "." => scratch.truncate(from),
            ".." => {
                let parent = scratch[..from].rfind('/').ok_or(ABOVE_ROOT)?;
                scratch.truncate(parent);
            }
            _ if hides_dots(decoded) => return Err(HIDDEN_DOTS),
            _ => {}
        }
    }
    if ends_in_slash {
        scratch.push('/');
    }
    Ok(scratch)
}

fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

fn decode(segment: &str, out: &mut String) -> Result<(), Bad> {
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let &[high, low, ..] = after.as_bytes() else { return Err(BAD_ESCAPE) };
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(BAD_ESCAPE);
        let value = (digit(high)? * 16 + digit(low)?) as u8;
        match value {
            0 => return Err(Bad::request("the path has a NUL")),
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(value)),
            _ => out.extend(['%', char::from(high.to_ascii_uppercase()), char::from(low.to_ascii_uppercase())]),
        }
        rest = &after[2..];
    }
    out.push_str(rest);
    Ok(())
}

/// Whether somebody who decodes slashes, takes backslashes for slashes, or cuts parameters off sees a dot segment.
fn hides_dots(segment: &str) -> bool {
    let pieces = segment.split("%2F").flat_map(|piece| piece.split("%5C")).flat_map(|piece| piece.split('\\'));
    let mut names = pieces.map(|piece| piece.split("%3B").next().unwrap_or(piece).split(';').next().unwrap_or(piece));
    names.any(|name| matches!(name, "." | ".."))
}
