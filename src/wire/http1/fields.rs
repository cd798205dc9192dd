//! The fields of a head: what they are called, and which of them a proxy has to know.

use std::mem::MaybeUninit;

use httparse::Header;

use super::Bad;

/// Field lines a head may have.
pub const MAX_FIELDS: usize = 100;

/// Elements that the `Connection` fields may have, empty ones too: all fields are compared with all of them.
const MAX_OPTIONS: usize = 64;

/// The fields that mean something to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// End to end, and of no interest here.
    Other,
    /// Has an underscore for the hyphen of one of the others: one of them to whoever maps hyphens to underscores, as
    /// CGI does.
    Alias,
    Authorization,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    /// Any other that begins with `X-Forwarded-`.
    XForwardedRest,
    XRealIp,
}

/// Whether `name` is `lower`, a lower-case literal of letters, digits and hyphens, in any case; an underscore counts
/// as a hyphen. `name` has to be a token.
fn is(name: &[u8], lower: &[u8]) -> bool {
    name.len() == lower.len() && starts(name, lower)
}

fn starts(name: &[u8], lower: &[u8]) -> bool {
    name.len() >= lower.len() && name.iter().zip(lower).all(|(a, b)| (a | 0x20) == *b || (*a == b'_' && *b == b'-'))
}

impl Kind {
    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What a field of this name, a token, is.
    pub(super) fn of(name: &str) -> Kind {
        match Kind::alike(name.as_bytes()) {
            Kind::Other => Kind::Other,
            _ if name.contains('_') => Kind::Alias,
            kind => kind,
        }
    }

    fn alike(name: &[u8]) -> Kind {
        let Some(first) = name.first() else { return Kind::Other };
        let (kind, full): (Kind, &[u8]) = match (first | 0x20, name.len()) {
            (b't', 2) => (Kind::Te, b"te"),
            (b'v', 3) => (Kind::Via, b"via"),
            (b'h', 4) => (Kind::Host, b"host"),
            (b'e', 6) => (Kind::Expect, b"expect"),
            (b'c', 6) => (Kind::Cookie, b"cookie"),
            (b't', 7) => (Kind::Trailer, b"trailer"),
            (b'u', 7) => (Kind::Upgrade, b"upgrade"),
            (b'f', 9) => (Kind::Forwarded, b"forwarded"),
            (b'x', 9) => (Kind::XRealIp, b"x-real-ip"),
            (b'c', 10) => (Kind::Connection, b"connection"),
            (b'k', 10) => (Kind::KeepAlive, b"keep-alive"),
            (b'a', 13) => (Kind::Authorization, b"authorization"),
            (b'c', 14) => (Kind::ContentLength, b"content-length"),
            (b'h', 14) => (Kind::Http2Settings, b"http2-settings"),
            (b'p', 16) => (Kind::ProxyConnection, b"proxy-connection"),
            (b't', 17) => (Kind::TransferEncoding, b"transfer-encoding"),
            (b'x', 12..) if starts(name, b"x-forwarded-") => {
                return match &name[12..] {
                    rest if is(rest, b"for") => Kind::XForwardedFor,
                    rest if is(rest, b"host") => Kind::XForwardedHost,
                    rest if is(rest, b"proto") => Kind::XForwardedProto,
                    _ => Kind::XForwardedRest,
                };
            }
            _ => return Kind::Other,
        };
        if is(name, full) { kind } else { Kind::Other }
    }

    /// Whether a `Connection` field cannot have it removed: framing, what we set, and who the client is.
    fn is_protected(self) -> bool {
        matches!(
            self,
            Kind::Authorization
                | Kind::ContentLength
                | Kind::Cookie
                | Kind::Expect
                | Kind::Forwarded
                | Kind::Host
                | Kind::TransferEncoding
                | Kind::Via
        ) || self.is_forwarded()
    }

    /// Whether it says for whom, or on what way, a request was forwarded; `Via` aside.
    pub(super) fn is_forwarded(self) -> bool {
        matches!(
            self,
            Kind::Forwarded
                | Kind::XForwardedFor
                | Kind::XForwardedHost
                | Kind::XForwardedProto
                | Kind::XForwardedRest
                | Kind::XRealIp
        )
    }
}

/// Where the fields of one head are put; a local of the caller's, made anew for free.
pub struct Storage<'b> {
    pub(super) headers: [MaybeUninit<Header<'b>>; MAX_FIELDS],
    pub(super) kinds: [Kind; MAX_FIELDS],
}

impl Storage<'_> {
    /// Room for [`MAX_FIELDS`] fields.
    #[inline]
    pub fn new() -> Self {
        Storage { headers: [const { MaybeUninit::uninit() }; MAX_FIELDS], kinds: [Kind::Other; MAX_FIELDS] }
    }
}

impl Default for Storage<'_> {
    fn default() -> Self {
        Storage::new()
    }
}

/// The fields of a head as received, hop-by-hop ones too, in their order.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    headers: &'a [Header<'a>],
    kinds: &'a [Kind],
    /// A bit for each kind that is there: most are not, and are not searched for then.
    present: u32,
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(headers: &'a [Header<'a>], kinds: &'a mut [Kind; MAX_FIELDS]) -> Fields<'a> {
        let mut present = 0;
        for (header, kind) in headers.iter().zip(kinds.iter_mut()) {
            *kind = Kind::of(header.name);
            present |= kind.bit();
        }
        Fields { headers, kinds: &kinds[..headers.len()], present }
    }

    /// Names as sent, and values without the white space around them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a str, &'a [u8])> + Clone + use<'a> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The values of all fields of this name, in any case.
    pub fn all<'n>(&self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first field of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = (Kind, &'a str, &'a [u8])> + use<'a> {
        self.kinds.iter().zip(self.headers).map(|(kind, header)| (*kind, header.name, header.value))
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.present & kind.bit() != 0
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let found = self.has(kind).then(|| self.kinds());
        found.into_iter().flatten().filter(move |found| found.0 == kind).map(|found| found.2)
    }

    /// Whether a `Connection` field names this one and may.
    pub(super) fn nominated(&self, kind: Kind, name: &str) -> bool {
        !kind.is_protected()
            && self.of(Kind::Connection).flat_map(elements).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// The elements of a list, white space around them removed; empty ones too (RFC 9110, section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// As [`list`] without the empty ones.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    list(value).filter(|element| !element.is_empty())
}

/// Without SP and HTAB at both ends, and no other white space.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether a byte may be part of a token (RFC 9110, section 5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether these bytes are a token.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_tchar(*byte))
}

/// What the `Connection` fields of a message ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Whether it names a field that is not removed anyway.
    pub(super) nominates: bool,
}

impl Options {
    /// Reads them (RFC 9110, section 7.6.1).
    pub(super) fn of(fields: &Fields<'_>) -> Result<Options, Bad> {
        let mut options = Options::default();
        for (count, option) in fields.of(Kind::Connection).flat_map(list).enumerate() {
            match option {
                _ if count == MAX_OPTIONS => return Err(Bad::request("Connection has too many options")),
                b"" => {}
                _ if option.eq_ignore_ascii_case(b"keep-alive") => options.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"close") => options.close = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => options.upgrade = true,
                _ if option.eq_ignore_ascii_case(b"te") => {}
                _ if !is_token(option) => return Err(Bad::request("Connection is not a list of tokens")),
                _ => options.nominates = true,
            }
        }
        Ok(options)
    }
}

/// How often `name` (in any case) is among those who received and forwarded the message: the sign of a loop
/// (RFC 9110, section 7.6.3).
pub fn via_count(fields: &Fields<'_>, name: &str) -> usize {
    let by = |element: &[u8]| {
        let mut words = element.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    fields.of(Kind::Via).flat_map(elements).filter(|element| by(element)).count()
}
