//! TOML text to a document with places, past as many syntax errors as can be told apart.
//!
//! The parser recovers from most errors by itself. It gives up at a line that is no `key = value`, and an array without
//! an end swallows what follows; both are blanked out here, and the rest is read again.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::error::Fault;

/// A place as a byte offset into the text, with the line and column that a person counts.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Lines { text, starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// The index of the line of `offset`, from 0. An offset past the end is on the last line.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Line and column of `offset`, both from 1, the column in characters (a byte order mark is none).
    pub(super) fn spot(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = &self.text.as_bytes()[self.starts[line]..offset.min(self.text.len())];
        // Every character has exactly one byte that is no continuation byte.
        let characters = before.iter().filter(|b| **b & 0xC0 != 0x80).count();
        let mark = usize::from(line == 0 && self.text.starts_with('\u{feff}') && characters > 0);
        (line + 1, characters + 1 - mark)
    }

    /// The bytes of a line without its newline.
    fn range(&self, line: usize) -> Range<usize> {
        let start = self.starts[line];
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        start..end
    }
}

/// A syntax error: where, the key where it is about one, and what.
pub(super) struct Bad {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) fault: Fault,
}

/// How often the text is read again; each time at least one more line is out of the way.
const ROUNDS: usize = 16;

/// Finds the syntax errors of `text`, at most one a line, and gives the text to read the document from: of the same
/// length, with lines blanked that would hide others.
pub(super) fn scan(text: &str, lines: &Lines<'_>) -> (String, Vec<Bad>) {
    let mut patched = text.to_owned();
    let mut bad: BTreeMap<usize, Bad> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let blank = round(&patched, lines, &mut bad);
        if blank.is_empty() {
            break;
        }
        for line in blank {
            let range = lines.range(line);
            // A carriage return stays, or it would be an error of its own in the next round.
            let end = if patched[range.clone()].ends_with('\r') { range.end - 1 } else { range.end };
            patched.replace_range(range.start..end, &" ".repeat(end - range.start));
        }
    }
    (patched, bad.into_values().collect())
}

/// Parses once; adds what is new to `bad` and returns the lines to blank out before the next time.
fn round(patched: &str, lines: &Lines<'_>, bad: &mut BTreeMap<usize, Bad>) -> Vec<usize> {
    let (_, errors) = DeTable::parse_recoverable(patched);
    let errors: Vec<(usize, &str)> =
        errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
    let swallowed = errors.iter().any(|(_, message)| is_unclosed(message));
    if let Some(open) = swallowed.then(|| unclosed(patched)).flatten() {
        // The first thing that does not fit tells where the value should have ended.
        let stop = errors.iter().map(|(at, _)| *at).filter(|at| *at > open).min().unwrap_or(open);
        let (first, last) = (lines.line(open), lines.line(stop));
        let (what, close) = if patched[open..].starts_with('[') {
            ("this array has no end", "]")
        } else {
            ("this table has no end", "}")
        };
        let fault = Fault::Syntax { what: what.to_owned(), fix: format!("close it with `{close}`") };
        bad.entry(first).or_insert(Bad { at: open, key: "syntax".to_owned(), fault });
        return (first..last.max(first + 1)).filter(|line| !patched[lines.range(*line)].trim().is_empty()).collect();
    }
    let mut blank = Vec::new();
    for (at, message) in errors {
        let line = lines.line(at);
        let source = &patched[lines.range(line)];
        bad.entry(line).or_insert_with(|| explain(patched, at, message));
        // A broken header keeps its place, or its keys would fall into the table before.
        if !source.trim().is_empty() && !source.trim_start().starts_with('[') && message != TWICE {
            blank.push(line);
        }
    }
    blank.dedup();
    blank
}

const TWICE: &str = "duplicate key";

fn is_unclosed(message: &str) -> bool {
    message.starts_with("unclosed array,") || message.starts_with("unclosed inline table")
}

/// Where an array or inline table begins that nothing closes: the one that a wrong bracket meets first, or else the
/// innermost that is open at the end. Lines that begin with `[` are headers, unless something is open.
fn unclosed(text: &str) -> Option<usize> {
    let mut open: Vec<(usize, u8)> = Vec::new();
    let bytes = text.as_bytes();
    let mut fresh = true; // nothing but blanks on this line so far
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let line_end = || bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n);
        match byte {
            b'#' => at = line_end() - 1,
            b'[' if fresh && open.is_empty() => at = line_end() - 1,
            b'"' | b'\'' => at = string_end(bytes, at) - 1,
            b'[' => open.push((at, b']')),
            b'{' => open.push((at, b'}')),
            b']' | b'}' => match open.pop() {
                Some((start, closer)) if closer != *byte => return Some(start),
                _ => {}
            },
            _ => {}
        }
        fresh = match bytes.get(at) {
            Some(b'\n') => true,
            Some(b' ' | b'\t') => fresh,
            _ => false,
        };
        at += 1;
    }
    open.last().map(|(start, _)| *start)
}

/// One past the string that begins at `start`; a string in single quotes of either kind ends with its line.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let many = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if many { 3 } else { 1 };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !many => return at,
            b if *b == quote && !many => return at + 1,
            b if *b == quote && bytes[at..].starts_with(&[quote; 3]) => return at + 3,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Turns what the parser says into what and fix.
fn explain(text: &str, at: usize, message: &str) -> Bad {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let rest = text.get(at..).unwrap_or("");
    let nothing = rest.chars().next().is_none_or(|c| c.is_whitespace() || c == '#');
    let mut key = "syntax".to_owned();
    let (what, fix) = match (what, expected) {
        (TWICE, _) => {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || "_-".contains(*c)).collect();
            if !name.is_empty() {
                key = name;
            }
            ("is set twice in one table", "keep one of the two".to_owned())
        }
        ("string values must be quoted", _) if nothing => ("there is no value behind the `=`", "write one".to_owned()),
        ("string values must be quoted" | "invalid boolean", _) => {
            ("this is neither a number nor true or false", "put text in double quotes".to_owned())
        }
        (string, "`\"`" | "`'`") if string.ends_with("string") => {
            ("this text has no end", format!("close it with {expected}"))
        }
        ("key with no value", _) => (what, "write key = value".to_owned()),
        (_, "nothing") => (what, "leave it out".to_owned()),
        (_, "") => (what, "write it as on https://toml.io".to_owned()),
        (_, list) => (what, format!("write {}", list.replace(", ", " or "))),
    };
    Bad { at, key, fault: Fault::Syntax { what: what.to_owned(), fix } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let cases = [
            ("the start", "a = 1\n", 0, (1, 1)),
            ("within a line", "a = 1\n", 4, (1, 5)),
            ("the newline belongs to its line", "a = 1\n", 5, (1, 6)),
            ("past the last newline", "a = 1\n", 6, (2, 1)),
            ("the end without a newline", "a = 1", 5, (1, 6)),
            ("past the end stays at the end", "a = 1", 99, (1, 6)),
            ("nothing", "", 0, (1, 1)),
            ("two bytes, one character", "ä = 1\n", 5, (1, 5)),
            ("four bytes, one character", "\"\u{1f600}\" = 1\n", 9, (1, 7)),
            ("a carriage return is a character", "a\r\nb", 3, (2, 1)),
            ("a byte order mark is none", "\u{feff}a = 1", 3, (1, 1)),
            ("nor before it", "\u{feff}a = 1", 0, (1, 1)),
            ("it stays on the first line", "\u{feff}a\nb = 1", 7, (2, 3)),
        ];
        for (why, text, offset, expected) in cases {
            assert_eq!(Lines::new(text).spot(offset), expected, "{why}");
        }
    }

    /// Where, and words of the message.
    type Told<'a> = &'a [(usize, &'a str)];

    #[test]
    fn syntax_errors_do_not_hide_each_other() {
        let cases: [(&str, &str, Told<'_>); 14] = [
            ("none", "a = 1\n[b]\n", &[]),
            ("two", "a = \"x\nb = 'y\n", &[(6, "no end"), (13, "no end")]),
            ("a line that is nothing", "a\nb = 1\nc\n", &[(1, "no value"), (9, "no value")]),
            ("a missing value", "a =\nb = 1\n", &[(3, "no value behind")]),
            ("a word without quotes", "a = b\nc = tru\n", &[(4, "quotes"), (10, "quotes")]),
            ("one error a line is enough", "a = b c d = e\n", &[(10, "unexpected")]),
            ("an array without an end", "a = [1, 2\nb = 3\nc\n", &[(4, "array has no end"), (17, "no value")]),
            ("over lines", "a = [\n 1,\n 2,\nb = 3\n", &[(4, "array has no end")]),
            ("a table without an end", "a = {b = 1\nc = 2\n", &[(4, "table has no end")]),
            ("the inner one", "a = [\n {b = 1\n {b = 2},\n]\n", &[(7, "table has no end")]),
            ("a bracket in text is none", "a = [\"]\", '}'\nb = \"[\" # {\n", &[(4, "array has no end")]),
            ("a broken header", "[a\nb = 1\n[c\nd = 1\n", &[(2, "unclosed table"), (11, "unclosed table")]),
            ("a key twice", "a = 1\na = 2\na = 3\n", &[(6, "twice"), (12, "twice")]),
            ("windows", "a = \"\r\nb\r\nc = 1\r\n", &[(6, "no end"), (8, "no value")]),
        ];
        for (why, text, expected) in cases {
            let lines = Lines::new(text);
            let (patched, bad) = scan(text, &lines);
            assert_eq!(patched.len(), text.len(), "{why}: offsets must stay");
            let told: Vec<(usize, String)> = bad.iter().map(|bad| (bad.at, bad.fault.to_string())).collect();
            let same = told.len() == expected.len()
                && told.iter().zip(expected).all(|(told, (at, what))| told.0 == *at && told.1.contains(what));
            assert!(same, "{why}: {told:?}");
        }
    }

    #[test]
    fn what_follows_a_syntax_error_is_still_there() {
        let text = "a\n[b]\nc = [1,\nd = 2\n[e]\nf = 3\n";
        let (patched, _) = scan(text, &Lines::new(text));
        let (document, errors) = DeTable::parse_recoverable(&patched);
        assert!(errors.is_empty(), "{errors:?}");
        let document = document.get_ref();
        assert!(document["b"].get_ref().get("d").is_some() && document["e"].get_ref().get("f").is_some());
    }
}
