//! Reads the values of a document by the table of keys, and collects errors instead of stopping.
//!
//! A read returns `None` when there is no usable value: either the key is absent and has a default, or an error has been
//! reported. The caller then puts any value in its place and goes on, so that one run finds everything.

mod addresses;
mod checks;
mod limits;
mod secret;
mod web;

pub(super) use secret::Files;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration;
use super::error::{ConfigError, Errors, Fault, Hint, Quoted, Spot};
use super::keys::{Key, Preset, SECTIONS, Scope, Section, Takes};
use super::size;
use super::syntax::{Bad, Lines};
use super::{Backend, Protocol};

/// A value with the place where it was typed.
#[derive(Clone, Debug)]
pub(super) struct Noted<T> {
    pub(super) value: T,
    /// Byte offset into the text.
    pub(super) at: usize,
    /// The dotted place, for messages.
    pub(super) place: String,
}

/// A table of the document, opened as a section.
pub(super) struct Open<'d> {
    section: &'static Section,
    table: &'d DeTable<'d>,
    /// Byte offset of the header, where what is missing is reported.
    pub(super) at: usize,
    /// The dotted place; empty at the top.
    pub(super) place: String,
}

impl Open<'_> {
    /// The place of a key of this table.
    pub(super) fn place_of(&self, key: &str) -> String {
        if self.place.is_empty() { word(key) } else { format!("{}.{}", self.place, word(key)) }
    }
}

/// A part of a dotted place: bare where TOML would take it bare, else quoted and on one line.
fn word(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if bare { text.to_owned() } else { Quoted::new(text).to_string() }
}

/// The text with its errors so far.
pub(super) struct Reader<'t> {
    file: Arc<str>,
    lines: Lines<'t>,
    /// Lines with a syntax error: what was recovered from them is not worth another error.
    unsure: BTreeSet<usize>,
    errors: Vec<(usize, ConfigError)>,
    /// How files that it names are read.
    files: Files,
}

impl<'t> Reader<'t> {
    pub(super) fn new(name: &str, lines: Lines<'t>, syntax: Vec<Bad>, files: Files) -> Self {
        let unsure = syntax.iter().map(|bad| lines.line(bad.at)).collect();
        let mut reader = Reader { file: name.into(), lines, unsure: BTreeSet::new(), errors: Vec::new(), files };
        for bad in syntax {
            reader.report(bad.at, bad.key, bad.fault);
        }
        reader.unsure = unsure;
        reader
    }

    /// Whether lines could not be read: then what seems to be missing may be on one of them.
    pub(super) fn partial(&self) -> bool {
        !self.unsure.is_empty()
    }

    pub(super) fn report(&mut self, at: usize, key: impl Into<String>, fault: Fault) {
        if self.unsure.contains(&self.lines.line(at)) {
            return;
        }
        let spot = self.spot(at, key);
        self.errors.push((at, ConfigError::At { at: spot, fault }));
    }

    /// A place of the file, for whoever finds something wrong with it later.
    pub(super) fn spot(&self, at: usize, key: impl Into<String>) -> Spot {
        let (line, column) = self.lines.spot(at);
        Spot { file: Arc::clone(&self.file), line, column, key: key.into() }
    }

    /// The line of `at`, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.line(at) + 1
    }

    /// `value`, if nothing was reported.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Errors> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_by_key(|(at, _)| *at);
        Err(Errors::new(self.errors.into_iter().map(|(_, error)| error).collect()))
    }

    /// Takes `table` for a section: every key that does not belong there, or not yet, is reported.
    pub(super) fn open<'d>(
        &mut self,
        section: &'static Section,
        table: &'d DeTable<'d>,
        at: usize,
        place: String,
    ) -> Open<'d> {
        let open = Open { section, table, at, place };
        for typed in table.keys() {
            let name: &str = typed.get_ref();
            match section.key(name) {
                Some(Key { takes: Takes::NotYet, .. }) => {
                    self.report(typed.span().start, open.place_of(name), Fault::NotYet);
                }
                Some(_) => {}
                None => {
                    let supported = |s: &&&Section| s.now().any(|key| key.name == name);
                    let mut others = SECTIONS.iter().filter(supported);
                    let hint = match Hint::new(name, section.keys.iter().map(|key| key.name)) {
                        // Where several have such a key, none of them need be what is meant.
                        Hint::OneOf(_) => match (others.next(), others.next()) {
                            (Some(other), None) => Hint::Elsewhere(other.title),
                            _ => Hint::Keys(section),
                        },
                        near => near,
                    };
                    self.report(typed.span().start, open.place_of(name), Fault::UnknownKey(hint));
                }
            }
        }
        open
    }

    /// Whether the key is there, readable or not.
    pub(super) fn has(&self, open: &Open<'_>, key: &str) -> bool {
        open.table.contains_key(key)
    }

    /// Whether the key is not there, or is an array with nothing in it.
    pub(super) fn has_none(&self, open: &Open<'_>, key: &str) -> bool {
        open.table.get(key).is_none_or(|found| found.get_ref().as_array().is_some_and(|items| items.is_empty()))
    }

    /// Reports each key of `open` that its scope keeps out of a listener of `protocol`. What it holds is then not worth
    /// a look.
    pub(super) fn scopes(&mut self, open: &Open<'_>, protocol: Protocol, accept_proxy: bool) {
        self.misplaced(open, |scope| match (scope, protocol) {
            (Scope::Http, Protocol::Tcp | Protocol::Udp) => Some(Fault::HttpOnly(protocol)),
            (Scope::HttpOrProxied, Protocol::Tcp) if !accept_proxy => Some(Fault::NoHeader),
            (Scope::HttpOrProxied | Scope::Connections, Protocol::Udp) => Some(Fault::ConnectionsOnly),
            _ => None,
        });
    }

    /// Reports each key of `open` whose scope is at fault here.
    pub(super) fn misplaced(&mut self, open: &Open<'_>, fault: impl Fn(Scope) -> Option<Fault>) {
        for typed in open.table.keys() {
            let name: &str = typed.get_ref();
            if let Some(fault) = open.section.key(name).and_then(|key| fault(key.scope)) {
                self.report(typed.span().start, open.place_of(name), fault);
            }
        }
    }

    /// Reports that the key is not there, where it is not; for those that cannot be left out in some cases only.
    pub(super) fn demand(&mut self, open: &Open<'_>, name: &str) {
        if let Some(key) = open.section.key(name).filter(|_| !self.partial() && !self.has(open, name)) {
            self.report(open.at, open.place_of(name), Fault::Missing(&key.takes));
        }
    }

    /// The value of a key, with what the table of keys says of it.
    fn value<'d>(&mut self, open: &Open<'d>, name: &str) -> Option<(&'d DeValue<'d>, Range<usize>, &'static Takes)> {
        let Some(key) = open.section.key(name) else {
            unreachable!("{name} is read, but it is not in the table of keys of {}", open.section.title)
        };
        match open.table.get(name) {
            // The parser puts an empty place where it found no value; it has reported that.
            Some(found) if found.span().is_empty() && found.span().start == 0 => None,
            Some(found) => Some((found.get_ref(), found.span(), &key.takes)),
            None => {
                if key.default == Preset::Required && !self.partial() {
                    self.report(open.at, open.place_of(name), Fault::Missing(&key.takes));
                }
                None
            }
        }
    }

    fn wrong_type<T>(&mut self, at: usize, place: String, found: &DeValue<'_>, takes: &'static Takes) -> Option<T> {
        let found = match found {
            DeValue::String(_) => "text in quotes",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.report(at, place, Fault::WrongType { found, takes });
        None
    }

    /// A whole number in the range of its key.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, open: &Open<'_>, key: &str) -> Option<T> {
        let (value, span, takes) = self.value(open, key)?;
        let place = open.place_of(key);
        let DeValue::Integer(number) = value else {
            return self.wrong_type(span.start, place, value, takes);
        };
        let Takes::Integer(range) = takes else {
            return None;
        };
        let read = i64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
        let read = read.and_then(|n| T::try_from(n).ok());
        if read.is_none() {
            let found = number.to_string().chars().take(40).collect();
            self.report(span.start, place, Fault::OutOfRange { found, range: takes.range().unwrap_or_default() });
        }
        read
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, open: &Open<'_>, key: &str) -> Option<bool> {
        let (value, span, takes) = self.value(open, key)?;
        match value {
            DeValue::Boolean(yes) => Some(*yes),
            _ => self.wrong_type(span.start, open.place_of(key), value, takes),
        }
    }

    /// The version of the format.
    pub(super) fn version(&mut self, open: &Open<'_>, key: &str) {
        let Some((value, span, takes)) = self.value(open, key) else {
            return;
        };
        match value {
            DeValue::Integer(n) if i64::from_str_radix(n.as_str(), n.radix()) == Ok(1) => {}
            DeValue::Integer(n) => {
                let found = n.to_string().chars().take(40).collect();
                self.report(span.start, open.place_of(key), Fault::Version(found));
            }
            _ => {
                self.wrong_type::<()>(span.start, open.place_of(key), value, takes);
            }
        }
    }

    /// A time in the range of its key.
    pub(super) fn duration(&mut self, open: &Open<'_>, key: &str) -> Option<Duration> {
        let (value, span, takes) = self.value(open, key)?;
        let Takes::Duration(range) = takes else {
            return None;
        };
        let read = match value {
            DeValue::String(text) if text.trim().is_empty() => Err(Fault::Empty(takes)),
            DeValue::String(text) => duration::read(text).and_then(|time| {
                if range.contains(&time) {
                    Ok(time)
                } else if time.is_zero() {
                    Err(Fault::ZeroTime { found: Quoted::new(text), range: takes.range().unwrap_or_default() })
                } else {
                    let found = Quoted::new(text).to_string();
                    Err(Fault::OutOfRange { found, range: takes.range().unwrap_or_default() })
                }
            }),
            DeValue::Integer(number) => Err(Fault::NoUnit { number: number.to_string().chars().take(40).collect() }),
            DeValue::Float(number) => Err(Fault::NoUnit { number: number.to_string().chars().take(40).collect() }),
            _ => return self.wrong_type(span.start, open.place_of(key), value, takes),
        };
        read.map_err(|fault| self.report(span.start, open.place_of(key), fault)).ok()
    }

    /// A number of bytes in the range of its key.
    pub(super) fn size(&mut self, open: &Open<'_>, key: &str) -> Option<u64> {
        let (value, span, takes) = self.value(open, key)?;
        let Takes::Size(range) = takes else {
            return None;
        };
        let DeValue::String(text) = value else {
            return self.wrong_type(span.start, open.place_of(key), value, takes);
        };
        let read = match text.trim() {
            "" => Err(Fault::Empty(takes)),
            _ => size::read(text).and_then(|bytes| {
                let found = || Quoted::new(text).to_string();
                let outside = || Fault::OutOfRange { found: found(), range: takes.range().unwrap_or_default() };
                range.contains(&bytes).then_some(bytes).ok_or_else(outside)
            }),
        };
        read.map_err(|fault| self.report(span.start, open.place_of(key), fault)).ok()
    }

    /// A number in the range of its key, with a fraction or without.
    pub(super) fn fraction(&mut self, open: &Open<'_>, key: &str) -> Option<f64> {
        let (value, span, takes) = self.value(open, key)?;
        let Takes::Fraction(range) = takes else {
            return None;
        };
        let Some((found, read)) = checks::number(value) else {
            return self.wrong_type(span.start, open.place_of(key), value, takes);
        };
        let read = read.filter(|number| range.contains(number));
        if read.is_none() {
            let found = found.chars().take(40).collect();
            let fault = Fault::OutOfRange { found, range: takes.range().unwrap_or_default() };
            self.report(span.start, open.place_of(key), fault);
        }
        read
    }

    /// One of the words of its key that are supported.
    pub(super) fn choice(&mut self, open: &Open<'_>, key: &str) -> Option<&'static str> {
        let (value, span, takes) = self.value(open, key)?;
        let DeValue::String(text) = value else {
            return self.wrong_type(span.start, open.place_of(key), value, takes);
        };
        let Takes::OneOf { now, later } = takes else {
            return None;
        };
        let known = now.iter().find(|word| **word == text.as_ref()).copied();
        if known.is_none() {
            let found = Quoted::new(text);
            let fault = if text.is_empty() {
                Fault::Empty(takes)
            } else if later.contains(&text.as_ref()) {
                Fault::NotYetValue { found, now }
            } else {
                let hint = Hint::new(text, now.iter().copied());
                Fault::UnknownValue { found, hint }
            };
            self.report(span.start, open.place_of(key), fault);
        }
        known
    }

    /// Text that is not empty, as typed; control characters are reported, the text is returned all the same, so that
    /// what refers to it is found.
    pub(super) fn text(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<String>> {
        let (value, span, takes) = self.value(open, key)?;
        let place = open.place_of(key);
        let DeValue::String(text) = value else {
            return self.wrong_type(span.start, place, value, takes);
        };
        if text.is_empty() {
            self.report(span.start, place, Fault::Empty(takes));
            return None;
        }
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            self.report(span.start, place.clone(), Fault::BadCharacter { found: Quoted::new(text), bad });
        }
        Some(Noted { value: text.clone().into_owned(), at: span.start, place })
    }

    /// A name or an id: part of a path of the admin API, so without `/`, and no dot segment.
    pub(super) fn name(&mut self, open: &Open<'_>, key: &str) -> Option<Noted<String>> {
        let name = self.text(open, key)?;
        if name.value.contains('/') {
            let fault = Fault::BadCharacter { found: Quoted::new(&name.value), bad: '/' };
            self.report(name.at, name.place.clone(), fault);
        }
        if name.value.len() > Backend::LONGEST_ID {
            let fault = Fault::TooLong { found: Quoted::new(&name.value), limit: Backend::LONGEST_ID };
            self.report(name.at, name.place.clone(), fault);
        }
        if name.value == "." || name.value == ".." {
            self.report(name.at, name.place.clone(), Fault::Reserved(Quoted::new(&name.value)));
        }
        Some(name)
    }

    /// A table.
    pub(super) fn table<'d>(&mut self, open: &Open<'d>, key: &'static str) -> Option<Open<'d>> {
        let (value, span, takes) = self.value(open, key)?;
        let Takes::Table(section) = takes else {
            return None;
        };
        let place = open.place_of(key);
        match value {
            DeValue::Table(table) => Some(self.open(section, table, span.start, place)),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                self.report(span.start, place, Fault::ManyTables(key));
                None
            }
            _ => self.wrong_type(span.start, place, value, takes),
        }
    }

    /// An array of tables, each with its place: by the value of `names` where it has one, else by its index.
    pub(super) fn tables<'d>(&mut self, open: &Open<'d>, key: &'static str, names: &str) -> Vec<Open<'d>> {
        let Some((value, span, takes)) = self.value(open, key) else {
            return Vec::new();
        };
        let Takes::Tables(section) = takes else {
            return Vec::new();
        };
        let place = open.place_of(key);
        let mut opened = Vec::new();
        let mut each = |reader: &mut Self, i: usize, value: &'d DeValue<'d>, span: Range<usize>| match value {
            DeValue::Table(table) => {
                let place = match table.get(names).and_then(|name: &Spanned<DeValue<'_>>| name.get_ref().as_str()) {
                    Some(name) if !name.is_empty() => format!("{place}.{}", word(name)),
                    _ => format!("{place}[{i}]"),
                };
                opened.push(reader.open(section, table, span.start, place));
            }
            _ => {
                reader.wrong_type::<()>(span.start, format!("{place}[{i}]"), value, takes);
            }
        };
        match value {
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    each(self, i, item.get_ref(), item.span());
                }
            }
            DeValue::Table(_) => {
                self.report(span.start, place.clone(), Fault::SingleTable(section_name(section)));
                each(self, 0, value, span);
            }
            _ => {
                self.wrong_type::<()>(span.start, place.clone(), value, takes);
            }
        }
        opened
    }
}

/// `pool.backend` of `[[pool.backend]]`.
fn section_name(section: &'static Section) -> &'static str {
    section.title.trim_matches(['[', ']'])
}
