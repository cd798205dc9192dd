//! What the admin API asks control to change, and what it was based on.

use crate::base::ids::ListenerId;
use crate::config::{Address, CheckUrl};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The heaviest a backend may be.
pub const HEAVIEST: u16 = 256;
/// How long a registration may last without another word, at the least and at the most.
pub const TTLS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);

/// A change that is asked for, checked as far as one can without knowing the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is to change.
    pub change: Change,
    /// Only what would change is to be told.
    pub dry_run: bool,
    /// The configuration it was based on, if it says so.
    pub only_if: Option<Tags>,
    /// Where it came in: its default pool is meant where none is named.
    pub listener: ListenerId,
}

impl Order {
    /// How long it is to wait, once it is done, before it is answered.
    pub fn wait(&self) -> Duration {
        match self.change {
            Change::Remove { wait, .. } => wait.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

/// What is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A backend more.
    Add {
        /// In this pool; where it is left out: the only one, or that of the listener.
        pool: Option<String>,
        /// Under this id.
        id: String,
        /// What it is.
        added: Added,
    },
    /// A backend less.
    Remove {
        /// Which one.
        which: Which,
        /// How long to wait until it is gone before there is an answer; `None`: not at all.
        wait: Option<Duration>,
    },
    /// It takes work again, whatever kept it from that.
    Enable(Which),
    /// It takes no new work.
    Disable(Which),
    /// It takes no new sessions.
    Drain(Which),
    /// It takes this part of the work; 0 to 256.
    Weight(Which, u16),
    /// A backend tells of itself: that it is there, or still there.
    Register {
        /// Its pool.
        pool: String,
        /// Its id.
        id: String,
        /// What it is.
        registered: Registered,
    },
    /// A backend takes its leave.
    Deregister {
        /// Its pool.
        pool: String,
        /// Its id.
        id: String,
    },
    /// The file is read again.
    Reload {
        /// What the API has changed is let go.
        discard: bool,
    },
}

/// A backend as an operator adds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Where it is.
    pub address: Address,
    /// 0 to 256.
    pub weight: u16,
    /// Connections, requests or sessions at once; 0 means no limit.
    pub max_connections: u32,
    /// Used only when no other is up.
    pub backup: bool,
}

/// A backend as it registers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Where it is.
    pub address: Address,
    /// 0 to 256.
    pub weight: u16,
    /// How long it stays without another word.
    pub ttl: Duration,
    /// Where it is checked; `None`: as its pool says.
    pub check: Option<CheckUrl>,
}

/// A backend that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// Its id.
    pub id: String,
    /// Its pool, where that is told.
    pub pool: Option<String>,
}

/// The entity tags of If-Match and If-None-Match (RFC 9110, section 13.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`
    Any,
    /// Any of these; what is between the quotes, and whether it is weak.
    Of(Vec<(String, bool)>),
}

impl Tags {
    /// Reads all fields of one name; `None` when there is no such field.
    ///
    /// # Errors
    /// What to write, when one of them is malformed.
    pub fn read<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Result<Option<Tags>, &'static str> {
        const MALFORMED: &str = "write what ETag said, with its quotes, as in \"7\"; several with commas between; or *";
        let (mut tags, mut some) = (Vec::new(), false);
        for field in fields {
            some = true;
            let mut rest = std::str::from_utf8(field).map_err(|_| MALFORMED)?.trim();
            if rest == "*" {
                return Ok(Some(Tags::Any));
            }
            loop {
                // Empty elements of a list are let pass (section 5.6.1.2).
                rest = rest.trim_start_matches([',', ' ', '\t']);
                if rest.is_empty() {
                    break;
                }
                let weak = rest.strip_prefix("W/");
                let quoted = weak.unwrap_or(rest).strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (tag, behind) = quoted.ok_or(MALFORMED)?;
                tags.push((tag.to_owned(), weak.is_some()));
                rest = behind.trim_start();
                if !rest.is_empty() && !rest.starts_with(',') {
                    return Err(MALFORMED);
                }
            }
        }
        if some && tags.is_empty() { Err(MALFORMED) } else { Ok(some.then_some(Tags::Of(tags))) }
    }

    /// Whether one of them names `edition`, as If-Match has it: a weak one names nothing.
    pub fn name(&self, edition: u64) -> bool {
        self.any(|tag, weak| !weak && tag == edition.to_string())
    }

    /// Whether one of them names `edition`, as If-None-Match has it.
    pub fn name_weakly(&self, edition: u64) -> bool {
        self.any(|tag, _| tag == edition.to_string())
    }

    fn any(&self, names: impl Fn(&str, bool) -> bool) -> bool {
        match self {
            Tags::Any => true,
            Tags::Of(tags) => tags.iter().any(|(tag, weak)| names(tag, *weak)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_a_list_of_what_is_quoted() {
        type Read = Result<Option<Tags>, ()>;
        let of = |tags: &[(&str, bool)]| -> Read {
            Ok(Some(Tags::Of(tags.iter().map(|(tag, weak)| ((*tag).to_owned(), *weak)).collect())))
        };
        let rows: [(&str, &[&str], Read); 14] = [
            ("no field", &[], Ok(None)),
            ("an empty field", &[""], Err(())),
            ("one", &["\"7\""], of(&[("7", false)])),
            ("a weak one", &["W/\"7\""], of(&[("7", true)])),
            ("a list", &["\"7\", \"8\""], of(&[("7", false), ("8", false)])),
            ("without blanks", &["\"7\",W/\"8\""], of(&[("7", false), ("8", true)])),
            ("empty elements", &[", \"7\" ,,"], of(&[("7", false)])),
            ("two fields", &["\"7\"", "\"8\""], of(&[("7", false), ("8", false)])),
            ("a comma in a tag", &["\"a,b\""], of(&[("a,b", false)])),
            ("anything", &[" * "], Ok(Some(Tags::Any))),
            ("no quotes", &["7"], Err(())),
            ("half a quote", &["\"7"], Err(())),
            ("nothing between two", &["\"7\" \"8\""], Err(())),
            ("a weak one in lower case", &["w/\"7\""], Err(())),
        ];
        for (why, fields, expected) in rows {
            let read = Tags::read(fields.iter().map(|field| field.as_bytes()));
            assert_eq!(read.map_err(drop), expected, "{why}");
        }
    }

    #[test]
    fn a_weak_tag_is_good_for_reading_alone() {
        for (why, field, strong, weak) in [
            ("the same", "\"7\"", true, true),
            ("one of several", "\"6\", \"7\"", true, true),
            ("another", "\"8\"", false, false),
            ("the same, weak", "W/\"7\"", false, true),
            ("spelled otherwise", "\"07\"", false, false),
            ("any", "*", true, true),
        ] {
            let tags = Tags::read(std::iter::once(field.as_bytes())).expect(why).expect(why);
            assert_eq!((tags.name(7), tags.name_weakly(7)), (strong, weak), "{why}");
        }
    }
}
