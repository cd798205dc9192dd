//! What can be wrong with a configuration, told so that it can be mended without our source.
//!
//! Each message is `what; fix`. Text from the file is quoted and escaped, so that an error is always one line.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::Protocol;
use super::address::AddressError;
use super::host::HostError;
use super::keys::{Section, Takes};
use super::network::NetworkError;
use super::picking::Algorithm;

/// A place in a configuration file. Displays as `file:line:column: key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file as the caller named it.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The dotted place with names where known, `pool.api.backend[1].weight`; elements are counted from 0.
    pub key: String,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.key)
    }
}

/// One thing wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: {why}; {}", unreadable_fix(why))]
    Unreadable {
        /// The file as the caller named it.
        file: Arc<str>,
        /// What the system said.
        why: io::Error,
    },
    /// The file is no text.
    #[error("{file}:{line}:{column}: there is a byte that is not UTF-8; save the file as UTF-8 text")]
    NotText {
        /// The file as the caller named it.
        file: Arc<str>,
        /// The line of the first such byte, counted from 1.
        line: usize,
        /// Its column in characters, counted from 1.
        column: usize,
    },
    /// The file is larger than any configuration.
    #[error("{file}: is larger than {limit} bytes; is it the right file?")]
    TooLarge {
        /// The file as the caller named it.
        file: Arc<str>,
        /// The largest size that is read, in bytes.
        limit: u64,
    },
    /// Something at a place in the file.
    #[error("{at}: {fault}")]
    At {
        /// Where.
        at: Spot,
        /// What.
        fault: Fault,
    },
}

fn unreadable_fix(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "let the user that runs l4lb read it",
        io::ErrorKind::IsADirectory => "name a file in it",
        io::ErrorKind::InvalidInput => "name a regular file",
        _ => "check the path and the disk",
    }
}

/// What is wrong at a place: `what; fix`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Not TOML.
    #[error("{what}; {fix}")]
    Syntax {
        /// What the parser says.
        what: String,
        /// What to write instead.
        fix: String,
    },
    /// A key that the contract does not have.
    #[error("unknown key; {0}")]
    UnknownKey(Hint),
    /// A key or table of the contract that is not built yet.
    #[error("is not supported yet; leave it out")]
    NotYet,
    /// A value of the contract that is not built yet.
    #[error("{found} is not supported yet; write {}", one_of(now))]
    NotYetValue {
        /// The value as typed, quoted.
        found: Quoted,
        /// The values that are.
        now: &'static [&'static str],
    },
    /// None of the words that may stand here.
    #[error("there is no {found}; {hint}")]
    UnknownValue {
        /// The value as typed, quoted.
        found: Quoted,
        /// What may stand here.
        hint: Hint,
    },
    /// Another type of value.
    #[error("is {found}; write {takes}")]
    WrongType {
        /// The type, with its article.
        found: &'static str,
        /// What may stand here.
        takes: &'static Takes,
    },
    /// `[listener]` for `[[listener]]`.
    #[error("is a single table; write [[{0}]], in double brackets")]
    SingleTable(&'static str),
    /// `[[global]]` for `[global]`.
    #[error("is an array; write [{0}] once, in single brackets")]
    ManyTables(&'static str),
    /// Outside its range.
    #[error("{found} is outside {range}; write a value inside it")]
    OutOfRange {
        /// The value as typed.
        found: String,
        /// `LOWEST to HIGHEST`.
        range: String,
    },
    /// A time of zero where nothing could be done in it.
    #[error("{found} would be over at once, and there is no \"never\"; write a time from {range}")]
    ZeroTime {
        /// The value as typed, quoted.
        found: Quoted,
        /// `SHORTEST to LONGEST`.
        range: String,
    },
    /// A duration without a unit.
    #[error("{number} has no unit; add one: \"{number}s\" for seconds, \"{number}ms\" for milliseconds")]
    NoUnit {
        /// The number as typed.
        number: String,
    },
    /// No duration.
    #[error("{found} is no duration: {why}; write a number and one of us, ms, s, m, h, d, such as \"250ms\"")]
    BadDuration {
        /// The value as typed, quoted.
        found: Quoted,
        /// What is wrong with it.
        why: String,
    },
    /// No size.
    #[error("{found} is no size: {why}; write a number and one of B, KiB, MiB, GiB, such as \"16KiB\"")]
    BadSize {
        /// The value as typed, quoted.
        found: Quoted,
        /// What is wrong with it.
        why: String,
    },
    /// A key of HTTP where bytes or datagrams are passed on as they are.
    #[error("is only for http, and this listener is {0}; leave it out, or write protocol = \"http\"")]
    HttpOnly(Protocol),
    /// `header_timeout` where no header is waited for.
    #[error(
        "is for http, or for a PROXY header, and this tcp listener takes none; leave it out, or write accept_proxy = true"
    )]
    NoHeader,
    /// A key of connections where there are none.
    #[error("is only for http and tcp, and this listener is udp; leave it out")]
    ConnectionsOnly,
    /// `hash_key` where nothing is hashed.
    #[error(
        "is only for algorithms that hash, and {0} does not; leave it out, or write algorithm = \"consistent_hash\""
    )]
    NotHashing(Algorithm),
    /// `hash_balance` where there is no ring.
    #[error(
        "is only for consistent_hash, and the algorithm of this pool is {0}; leave it out, or write algorithm = \"consistent_hash\""
    )]
    NotConsistent(Algorithm),
    /// `ip_hash` and a key that is no address.
    #[error(
        "{found} is not what ip_hash hashes, which is the address of the client; leave it out, or write algorithm = \"consistent_hash\""
    )]
    NotByAddress {
        /// The key, quoted.
        found: Quoted,
    },
    /// A key that is read from requests, where some of the traffic has none.
    #[error(
        "{found} is read from HTTP requests, and listener {listener}, which uses this pool too, is {protocol}; write \"client_ip\", or give that listener a pool of its own"
    )]
    NoRequest {
        /// The key, quoted.
        found: Quoted,
        /// The name of the listener, quoted.
        listener: Quoted,
        /// What it speaks.
        protocol: Protocol,
    },
    /// A key that is read from requests, where there is no traffic.
    #[error("{found} is read from HTTP requests, and no http listener uses this pool; write \"client_ip\"")]
    NoHttp {
        /// The key, quoted.
        found: Quoted,
    },
    /// `header:` without a name.
    #[error("{found} names no {what}; write one, as in \"{what}:session\"")]
    Nameless {
        /// The value as typed, quoted.
        found: Quoted,
        /// What is to be named.
        what: &'static str,
    },
    /// Neither off nor inside its range.
    #[error("{found} is neither 0 nor inside {range}; write one of these")]
    NotZeroNor {
        /// The value as typed.
        found: String,
        /// `LOWEST to HIGHEST`.
        range: String,
    },
    /// A key of another kind of check.
    #[error("is only for {of}, and this check is \"{kind}\"; leave it out, or write another kind")]
    OtherKind {
        /// The kinds that have it, in words.
        of: &'static str,
        /// The kind that it is.
        kind: &'static str,
    },
    /// A key of another kind than the one that holds when none is given.
    #[error("is only for {of}, and without a kind this check is \"tcp\"; add the kind")]
    NoKind {
        /// The kinds that have it, in words.
        of: &'static str,
    },
    /// A key of checks, where there are none.
    #[error("does nothing, for kind \"none\" means that there are no checks; leave it out, or write another kind")]
    NoCheck,
    /// A key of another kind of limit.
    #[error("is only for {of}, and this limit is {algorithm}; leave it out, or write another algorithm")]
    OtherLimit {
        /// The algorithms that have it, in words.
        of: &'static str,
        /// The algorithm that it is.
        algorithm: &'static str,
    },
    /// A key of another kind of limit than the one that holds when none is given.
    #[error("is only for {of}, and without an algorithm this limit is {algorithm}; add the algorithm")]
    UsualLimit {
        /// The algorithms that have it, in words.
        of: &'static str,
        /// The algorithm that holds.
        algorithm: &'static str,
    },
    /// A sliding window for each key that would remember too much of each.
    #[error(
        "{found} is more than {most}, and each key would have as many; write at most {most}, or algorithm = \"token_bucket\", or key = \"all\""
    )]
    TooManyForEach {
        /// The number as typed.
        found: u32,
        /// The largest that is held for each.
        most: u32,
    },
    /// A limit of a listener by what requests have, where there are none.
    #[error("{found} is read from HTTP requests, and this listener is {protocol}; write \"client_ip\" or \"all\"")]
    NoRequestHere {
        /// The key, quoted.
        found: Quoted,
        /// What the listener speaks.
        protocol: Protocol,
    },
    /// No kind of check where the usual one would say nothing.
    #[error(
        "is missing, and only udp listeners use this pool; write kind = \"udp\", or another way to tell that these backends are up"
    )]
    NoUdpKind,
    /// No status of a response that ends a check.
    #[error("{found} is no status of a response, nor a range of them; write one from 200 to 599, as in \"200-399\"")]
    BadStatus {
        /// The value as typed.
        found: String,
    },
    /// No bytes.
    #[error("{found} is not bytes: {why}; write two digits for each byte, as in \"hex:0d0a\"")]
    BadHex {
        /// The value as typed, quoted.
        found: Quoted,
        /// What is wrong with it.
        why: String,
    },
    /// `*.example.com` where one is asked for.
    #[error("{found} is many hosts, and a check asks for one; write it as in \"api.example.com\"")]
    ManyHosts {
        /// The value as typed, quoted.
        found: Quoted,
    },
    /// A listener that leads nowhere.
    #[error(
        "is missing, and there is no route either; write the name of a [[pool]] in quotes, or add a [[listener.route]]"
    )]
    NoPoolNoRoute,
    /// A route behind one that takes everything.
    #[error("can never match, for the route in line {first} takes everything; move it above that one")]
    NeverReached {
        /// The line of the one that takes everything.
        first: usize,
    },
    /// A path that is not below the prefix of the same route.
    #[error("{found} is not below path_prefix {prefix}, and both must hold; keep one of the two")]
    NotBelow {
        /// The path as typed, quoted.
        found: Quoted,
        /// The prefix as typed, quoted.
        prefix: Quoted,
    },
    /// No path of a request.
    #[error("{found} is no path of a request: {why}; write one as in \"/v1/status\"")]
    BadPath {
        /// The value as typed, quoted.
        found: Quoted,
        /// What is wrong with it.
        why: String,
    },
    /// A method or the name of a header that could not stand in a request (RFC 9110, section 5.6.2).
    #[error("{found} is no {what}: {bad:?} is in it; write letters, digits and \"-\", as in {example:?}")]
    NoToken {
        /// The value as typed, quoted.
        found: Quoted,
        /// What it should be.
        what: &'static str,
        /// The first character that cannot be in it.
        bad: char,
        /// A good one.
        example: &'static str,
    },
    /// `get`, which is another method than `GET` (RFC 9110, section 9.1).
    #[error("{found} is not {meant:?}, for methods are compared letter by letter; write {meant:?}")]
    MethodCase {
        /// The value as typed, quoted.
        found: Quoted,
        /// The usual one.
        meant: String,
    },
    /// A header's value that cannot be, since blanks around it do not belong to it (RFC 9110, section 5.5).
    #[error("{found} begins or ends with a blank, and no header's value does; write it without")]
    Blanks {
        /// The value as typed, quoted.
        found: Quoted,
    },
    /// No host of a request.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A key that must be there.
    #[error("is missing; write {0}")]
    Missing(&'static Takes),
    /// An empty string or array.
    #[error("is empty; write {0}")]
    Empty(&'static Takes),
    /// A file that the configuration names.
    #[error("{found} cannot be read: {why}; check the path, and let the user that runs l4lb read it")]
    NoFile {
        /// The path as typed, quoted.
        found: Quoted,
        /// What the system said.
        why: String,
    },
    /// A token file with nothing in it.
    #[error("{found} holds no token; write one into it, such as what \"openssl rand -hex 32\" prints")]
    NoSecret {
        /// The path as typed, quoted.
        found: Quoted,
    },
    /// A token file with something else in it.
    #[error("what {found} holds is not one line of visible ASCII characters; write the token into it, and no more")]
    BadSecret {
        /// The path as typed, quoted.
        found: Quoted,
    },
    /// A character that may not stand in a name, an id or a path.
    #[error("{found} contains {bad:?}; write it without")]
    BadCharacter {
        /// The value as typed, quoted.
        found: Quoted,
        /// The first such character.
        bad: char,
    },
    /// Longer than the system takes.
    #[error("{found} is longer than {limit} bytes; write a shorter one")]
    TooLong {
        /// The value as typed, quoted.
        found: Quoted,
        /// The longest that fits, in bytes.
        limit: usize,
    },
    /// A word that means something else in the paths of the admin API.
    #[error("{0} has a meaning of its own in the paths of the admin API; choose another")]
    Reserved(Quoted),
    /// No address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A name or id that must be unique.
    #[error("{found} is taken in line {first}; choose another")]
    Taken {
        /// The name as typed, quoted.
        found: Quoted,
        /// The line of the first one.
        first: usize,
    },
    /// Two backends of a pool at one address.
    #[error(
        "{found} is already a backend of this pool in line {first}; keep one of the two, with a weight if it should get more"
    )]
    SameBackend {
        /// The address.
        found: String,
        /// The line of the first one.
        first: usize,
    },
    /// Two binds that want one address.
    #[error("{found} is taken by {other} in line {first}; change one of the two")]
    BoundTwice {
        /// The address.
        found: String,
        /// The key and the address that has it.
        other: String,
        /// The line of it.
        first: usize,
    },
    /// A backend that is one of our listeners.
    #[error(
        "{found} is our own {other} in line {first}, so what is sent there would come back to l4lb; write the address of a server"
    )]
    OwnListener {
        /// The address.
        found: String,
        /// The key and the address of the listener.
        other: String,
        /// The line of it.
        first: usize,
    },
    /// A pool that does not exist.
    #[error("there is no pool {found}; {hint}")]
    UnknownPool {
        /// The name as typed, quoted.
        found: Quoted,
        /// The pools that exist.
        hint: Hint,
    },
    /// Nothing to listen on.
    #[error("there is none; add a [[listener]] with name, bind, protocol and pool")]
    NoListener,
    /// A format that is not ours.
    #[error("this l4lb reads format 1, not {0}; write version = 1")]
    Version(String),
}

/// What could have been meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Hint {
    /// One known word is close.
    Nearest(String),
    /// The key exists in another section.
    Elsewhere(&'static str),
    /// None is close: all that are known, or none.
    OneOf(Vec<String>),
    /// No key of the section is close.
    Keys(&'static Section),
    /// There is no pool at all.
    AddPool(String),
}

impl Hint {
    /// The nearest of `known` to `found`, or all of them when none is near.
    pub(super) fn new<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        // Distance is counted in edits: a word must share about two thirds of its letters to be worth proposing.
        let near = known
            .iter()
            .map(|word| (strsim::osa_distance(found, word), *word))
            .filter(|(distance, word)| *distance <= word.chars().count().max(5) / 3)
            .min_by_key(|(distance, _)| *distance);
        match near {
            Some((_, word)) => Hint::Nearest(word.to_owned()),
            None => Hint::OneOf(known.into_iter().map(str::to_owned).collect()),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::Nearest(word) => write!(f, "did you mean {}?", Quoted::new(word)),
            Hint::Elsewhere(section) => write!(f, "it belongs in {section}"),
            Hint::AddPool(name) => write!(f, "add a [[pool]] with name = {}", Quoted::new(name)),
            Hint::OneOf(words) if words.is_empty() => f.write_str("leave it out"),
            Hint::OneOf(words) => write!(f, "write {}", one_of(words)),
            Hint::Keys(section) => {
                let now: Vec<&str> = section.now().map(|key| key.name).collect();
                write!(f, "leave it out; the keys here are {}", now.join(", "))
            }
        }
    }
}

/// `"a"`, or `one of "a", "b"`; a long list is cut.
pub(super) fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    const SHOWN: usize = 40;
    let mut quoted: Vec<String> = words.iter().take(SHOWN).map(|word| Quoted::new(word.as_ref()).to_string()).collect();
    if words.len() > SHOWN {
        quoted.push(format!("and {} more", words.len() - SHOWN));
    }
    match quoted.as_slice() {
        [only] => only.clone(),
        all => format!("one of {}", all.join(", ")),
    }
}

/// Text of the file as it is shown: in quotes, control characters escaped, cut when it is long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    const SHOWN: usize = 60;

    /// `text` as it can be shown.
    pub fn new(text: &str) -> Self {
        if text.chars().count() <= Self::SHOWN {
            return Quoted(format!("{text:?}"));
        }
        let start: String = text.chars().take(Self::SHOWN).collect();
        Quoted(format!("{start:?}..."))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that is wrong with a configuration, in the order of the file; never empty. Displays one error a line,
/// without a newline at the end.
#[derive(Debug)]
pub struct Errors(Vec<ConfigError>);

impl Errors {
    pub(super) fn new(errors: Vec<ConfigError>) -> Self {
        debug_assert!(!errors.is_empty(), "no error is no Errors");
        Errors(errors)
    }

    /// The errors in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for Errors {
    fn from(error: ConfigError) -> Self {
        Errors(vec![error])
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
