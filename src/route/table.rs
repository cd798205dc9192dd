//! The routes of one host, so arranged that a request finds its candidates by hashing.
//!
//! A route stands in one place: under its path, else under its prefix, else with those that have neither; and there with
//! those that ask for the same field. A request looks into each place that could be meant: that of its path, those of its
//! path cut at a slash, and that of no path. Lists are in the order of the file: the first that fits ends the walk of one.

use rustc_hash::FxHashMap;

use super::{Facts, Route};

#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: FxHashMap<Box<[u8]>, Place>,
    prefixes: FxHashMap<Box<[u8]>, Place>,
    /// Bit n: a prefix of n bytes is there; the last bit: one that is longer. Saves hashing in vain.
    lengths: u64,
    /// Bytes of the longest prefix.
    longest: usize,
    /// Routes without either.
    rest: Place,
}

impl Paths {
    pub(super) fn insert(&mut self, index: u32, route: &Route, routes: &[Route]) {
        let prefix = route.path_prefix.as_deref().filter(|prefix| *prefix != "/");
        let place = match (&route.path, prefix) {
            (Some(path), Some(prefix)) if !covers(prefix, path) => return, // nothing can meet both
            (Some(path), _) => self.exact.entry(path.as_bytes().into()).or_default(),
            (None, Some(prefix)) => {
                self.lengths |= bit(prefix.len());
                self.longest = self.longest.max(prefix.len());
                self.prefixes.entry(prefix.as_bytes().into()).or_default()
            }
            (None, None) => &mut self.rest,
        };
        place.insert(index, route, routes);
    }

    /// Lowers `best` to the first route that takes the request, if that is before it.
    pub(super) fn find<'a, I>(&self, facts: &Facts<'a, I>, routes: &[Route], best: &mut u32)
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        self.rest.find(facts, routes, best);
        let path = facts.path.as_bytes();
        if let Some(place) = self.exact.get(path) {
            place.find(facts, routes, best);
        }
        if self.prefixes.is_empty() {
            return;
        }
        let mut look = |prefix: &[u8]| {
            if self.lengths & bit(prefix.len()) != 0
                && let Some(place) = self.prefixes.get(prefix)
            {
                place.find(facts, routes, best);
            }
        };
        // Those that `covers` would find: cut before a slash, behind it, and not at all.
        let reach = path.len().min(self.longest + 1);
        for slash in (0..reach).filter(|&at| path[at] == b'/') {
            look(&path[..slash]);
            look(&path[..=slash]);
        }
        look(path);
    }
}

fn bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// Whether `prefix` is `path`, or whole segments at its beginning.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Routes with the same host and path.
#[derive(Debug, Default)]
struct Place {
    plain: List,
    /// By the name of the field that they ask for: rarely more than one.
    named: Vec<Named>,
}

#[derive(Debug, Default)]
struct Named {
    name: Box<str>,
    /// The lowest index in it: when there is a better one, no field need be read.
    first: u32,
    present: List,
    values: FxHashMap<Box<[u8]>, List>,
}

impl Place {
    fn insert(&mut self, index: u32, route: &Route, routes: &[Route]) {
        let list = match &route.header {
            None => &mut self.plain,
            Some(header) => {
                let at = self.named.iter().position(|named| named.name.eq_ignore_ascii_case(&header.name));
                let at = at.unwrap_or_else(|| {
                    self.named.push(Named { name: header.name.as_str().into(), first: index, ..Named::default() });
                    self.named.len() - 1
                });
                match &header.value {
                    None => &mut self.named[at].present,
                    Some(value) => self.named[at].values.entry(value.as_slice().into()).or_default(),
                }
            }
        };
        list.insert(index, routes);
    }

    fn find<'a, I>(&self, facts: &Facts<'a, I>, routes: &[Route], best: &mut u32)
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        self.plain.find(facts.method, routes, best);
        for named in &self.named {
            if named.first >= *best {
                break; // so are the others: they stand in the order of their first routes
            }
            let fields = facts.fields.clone().filter(|(name, _)| name.eq_ignore_ascii_case(&named.name));
            for (_, value) in fields {
                named.present.find(facts.method, routes, best);
                if let Some(list) = named.values.get(value) {
                    list.find(facts.method, routes, best);
                }
            }
        }
    }
}

/// Indices of routes that differ only in their methods, in order.
#[derive(Debug, Default)]
struct List(Vec<u32>);

impl List {
    fn insert(&mut self, index: u32, routes: &[Route]) {
        // Behind one that takes every method none has its turn.
        if !self.0.last().is_some_and(|&last| routes[last as usize].methods.is_empty()) {
            self.0.push(index);
        }
    }

    fn find(&self, method: &str, routes: &[Route], best: &mut u32) {
        let before = self.0.iter().take_while(|index| **index < *best);
        let mut fit = before.filter(|index| {
            let methods = &routes[**index as usize].methods;
            methods.is_empty() || methods.iter().any(|known| known == method)
        });
        if let Some(&index) = fit.next() {
            *best = index;
        }
    }
}
