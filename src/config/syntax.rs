//! TOML text to a document with places, past as many syntax errors as can be told apart.
//!
//! The parser recovers from most errors by itself. It gives up at a line that is no `key = value`, and an array without
//! an end swallows what follows; both are blanked out here, and the rest is read again.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::Fault;

/// A place as a byte offset into the text, with the line and column that a person counts.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Lines {
            text,
            starts: std::iter::once(0)
                .chain(ends.map(|(at, _)| at + 1))
                .collect(),
        }
    }

    /// The index of the line of `offset`, from 0. An offset past the end is on the last line.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1)
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
        let end = self
            .starts
            .get(line + 1)
            .map_or(self.text.len(), |next| next - 1);
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
            let end = if patched[range.clone()].ends_with('\r') {
                range.end - 1
            } else {
                range.end
            };
            patched.replace_range(range.start..end, &" ".repeat(end - range.start));
        }
    }
    (patched, bad.into_values().collect())
}

/// Parses once; adds what is new to `bad` and returns the lines to blank out before the next time.
fn round(patched: &str, lines: &Lines<'_>, bad: &mut BTreeMap<usize, Bad>) -> Vec<usize> {
    let (document, errors) = DeTable::parse_recoverable(patched);
    let errors: Vec<(usize, &str)> = errors
        .iter()
        .map(|error| (error.span().map_or(0, |span| span.start), error.message()))
        .collect();
    let open = errors.iter().find(|(_, message)| is_unclosed(message));
    if let Some(open) = open.and_then(|(end, _)| last_value(document.get_ref(), *end, patched)) {
        // The first thing that does not fit tells where the value should have ended.
        let stop = errors
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| *at > open)
            .min()
            .unwrap_or(open);
        let (first, last) = (lines.line(open), lines.line(stop));
        let (what, close) = if patched[open..].starts_with('[') {
            ("this array has no end", "]")
        } else {
            ("this table has no end", "}")
        };
        let fault = Fault::Syntax {
            what: what.to_owned(),
            fix: format!("close it with `{close}`"),
        };
        bad.entry(first).or_insert(Bad {
            at: open,
            key: "syntax".to_owned(),
            fault,
        });
        return (first..last.max(first + 1))
            .filter(|line| !patched[lines.range(*line)].trim().is_empty())
            .collect();
    }
    let mut blank = Vec::new();
    for (at, message) in errors {
        let line = lines.line(at);
        let source = &patched[lines.range(line)];
        bad.entry(line)
            .or_insert_with(|| explain(patched, at, message));
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

/// Where the last array or inline table begins that ends by `end`: the outermost one.
fn last_value(table: &DeTable<'_>, end: usize, text: &str) -> Option<usize> {
    let mut best: Option<Range<usize>> = None;
    let mut todo: Vec<(Range<usize>, &DeValue<'_>)> =
        table.iter().map(|(_, v)| (v.span(), v.get_ref())).collect();
    while let Some((span, value)) = todo.pop() {
        let fits =
            span.end <= end && !span.is_empty() && text[span.start..].starts_with(['[', '{']);
        let compound = matches!(value, DeValue::Array(_) | DeValue::Table(_));
        let later = best
            .as_ref()
            .is_none_or(|b| (span.end, b.start) > (b.end, span.start));
        if fits && compound && later {
            best = Some(span);
        }
        match value {
            DeValue::Array(items) => todo.extend(items.iter().map(|v| (v.span(), v.get_ref()))),
            DeValue::Table(table) => {
                todo.extend(table.iter().map(|(_, v)| (v.span(), v.get_ref())))
            }
            _ => {}
        }
    }
    best.map(|span| span.start)
}

/// Turns what the parser says into what and fix.
fn explain(text: &str, at: usize, message: &str) -> Bad {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let rest = text.get(at..).unwrap_or("");
    let fix = match (what, expected) {
        (TWICE, _) => {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || "_-".contains(*c))
                .collect();
            let key = if name.is_empty() {
                "syntax".to_owned()
            } else {
                name
            };
            let fault = Fault::Syntax {
                what: "is set twice in one table".to_owned(),
                fix: "keep one of the two".to_owned(),
            };
            return Bad { at, key, fault };
        }
        ("string values must be quoted", _) => {
            // What stands there was no number, no date and not true or false.
            let bare = rest
                .chars()
                .next()
                .is_some_and(|c| !c.is_whitespace() && c != '#');
            let (what, fix) = if bare {
                (
                    "this is neither a number nor true or false",
                    "put text in double quotes",
                )
            } else {
                ("there is no value behind the `=`", "write one")
            };
            let fault = Fault::Syntax {
                what: what.to_owned(),
                fix: fix.to_owned(),
            };
            return Bad {
                at,
                key: "syntax".to_owned(),
                fault,
            };
        }
        ("key with no value", _) => "write key = value".to_owned(),
        (_, "nothing") => "leave it out".to_owned(),
        (_, "") => "write it as on https://toml.io".to_owned(),
        (_, list) => format!("write {}", list.replace(", ", " or ")),
    };
    Bad {
        at,
        key: "syntax".to_owned(),
        fault: Fault::Syntax {
            what: what.to_owned(),
            fix,
        },
    }
}
