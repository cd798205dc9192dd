//! What a new configuration changes: told on the log in a line, and by the admin API as an object.

use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Names told of each kind on the log; the rest are counted.
const TOLD: usize = 8;

/// What is different from what was in force before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// By name.
    pub listeners: Diff<String>,
    /// By name. A pool has changed when anything but its backends has.
    pub pools: Diff<String>,
    /// By pool and id.
    pub backends: Diff<Which>,
    /// Keys of `[global]` and `[admin]` that hold at once.
    pub settings: Vec<String>,
    /// What the admin API had changed and has no place over the file any more, a line each.
    pub dropped: Vec<String>,
    /// What takes effect at the next restart: until then what was in force stays.
    pub at_restart: Vec<String>,
}

/// What came, went and is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff<T> {
    /// There was none.
    pub added: Vec<T>,
    /// It stays, with another value somewhere.
    pub changed: Vec<T>,
    /// There is none any more.
    pub removed: Vec<T>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Which {
    /// Its pool.
    pub pool: String,
    /// Its id.
    pub id: String,
}

impl Display for Which {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.id)
    }
}

impl<T> Default for Diff<T> {
    fn default() -> Self {
        Diff { added: Vec::new(), changed: Vec::new(), removed: Vec::new() }
    }
}

impl<T> Diff<T> {
    /// True when nothing is different.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Changes {
    /// True when nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// Words about what has changed, one after the other.
struct Words<'a, 'b> {
    f: &'a mut Formatter<'b>,
    begun: bool,
}

impl Words<'_, '_> {
    fn say<T: Display>(&mut self, what: &str, names: &[T]) -> fmt::Result {
        if names.is_empty() {
            return Ok(());
        }
        let between = if self.begun { "; " } else { "" };
        self.begun = true;
        write!(self.f, "{between}{what}")?;
        for (at, name) in names.iter().take(TOLD).enumerate() {
            write!(self.f, "{} {name}", if at > 0 { "," } else { "" })?;
        }
        match names.len().saturating_sub(TOLD) {
            0 => Ok(()),
            rest => write!(self.f, " and {rest} more"),
        }
    }

    fn diff<T: Display>(&mut self, what: &str, diff: &Diff<T>) -> fmt::Result {
        self.say(&format!("{what} added:"), &diff.added)?;
        self.say(&format!("{what} changed:"), &diff.changed)?;
        self.say(&format!("{what} removed:"), &diff.removed)
    }
}

/// One line.
impl Display for Changes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing has changed");
        }
        let mut words = Words { f, begun: false };
        words.diff("listeners", &self.listeners)?;
        words.diff("pools", &self.pools)?;
        words.diff("backends", &self.backends)?;
        words.say("settings changed:", &self.settings)?;
        words.say("changes of the admin API dropped:", &self.dropped)?;
        words.say("takes effect at the next restart:", &self.at_restart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_one_line_however_many_there_are() {
        let which = |n: usize| Which { pool: "p".into(), id: format!("b{n}") };
        let mut changes = Changes::default();
        assert_eq!(changes.to_string(), "nothing has changed");
        changes.listeners.added.push("web".into());
        changes.backends.removed = (0..10).map(which).collect();
        changes.at_restart.push("global.workers".into());
        let line = "listeners added: web; backends removed: p/b0, p/b1, p/b2, p/b3, p/b4, p/b5, p/b6, p/b7 and 2 more; \
                    takes effect at the next restart: global.workers";
        assert_eq!(changes.to_string(), line);
    }
}
