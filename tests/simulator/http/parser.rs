//! HTTP/1 as the ends of a simulation read it: a model of its own, short and unforgiving. What l4lb writes is held
//! against it, so it shares nothing with `src/wire`.

/// A start line and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// The value of the one field of this name (in lower case); an error when there are two.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, String> {
        let mut values = self.fields.iter().filter(|field| field.0 == name).map(|field| &*field.1);
        let first = values.next();
        match values.next() {
            Some(_) => Err(format!("two fields {name}: {self:?}")),
            None => Ok(first),
        }
    }

    /// Whether `Connection` has this option.
    pub(crate) fn has_option(&self, option: &str) -> Result<bool, String> {
        Ok(self.one("connection")?.is_some_and(|value| value.split(", ").any(|one| one == option)))
    }

    /// What the fields say of the body.
    pub(crate) fn framing(&self) -> Result<Option<Framing>, String> {
        match (self.one("content-length")?, self.one("transfer-encoding")?) {
            (None, None) => Ok(None),
            (None, Some("chunked")) => Ok(Some(Framing::Chunked)),
            (Some(length), None) => match length.parse() {
                Ok(number) if format!("{number}") == length => Ok(Some(Framing::Length(number))),
                _ => Err(format!("a length of {length:?}")),
            },
            _ => Err(format!("framing that nobody should send: {self:?}")),
        }
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    ToClose,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Data(Vec<u8>),
    /// The end, with the trailers.
    End(Vec<(String, String)>),
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Length(u64),
    /// Before the size of a chunk.
    Size,
    Chunk(u64),
    /// Before the CRLF behind a chunk.
    ChunkEnd,
    Trailers,
    ToClose,
}

/// A stream of messages, as far as it has come.
#[derive(Debug)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    state: State,
}

const MOST_LINE: usize = 128 * 1024;

impl Parser {
    pub(crate) fn new() -> Parser {
        Parser { bytes: Vec::new(), state: State::Head }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are no whole part yet.
    pub(crate) fn left(&self) -> &[u8] {
        &self.bytes
    }

    /// All of them, as they are.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The next head, once it is whole.
    pub(crate) fn head(&mut self) -> Result<Option<Head>, String> {
        let Some(end) = find(&self.bytes, b"\r\n\r\n") else {
            return match self.bytes.len() > MOST_LINE {
                true => Err("a head without end".into()),
                false => Ok(None),
            };
        };
        let text: Vec<u8> = self.bytes.drain(..end + 4).take(end).collect();
        let text = String::from_utf8(text).map_err(|_| "a head that is no text")?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        if text.contains('\0') || text.replace("\r\n", "").contains(['\r', '\n']) {
            return Err(format!("a head with a stray control: {text:?}"));
        }
        Ok(Some(Head { start, fields }))
    }

    /// What follows the head that was read last.
    pub(crate) fn begin_body(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::ToClose => State::ToClose,
        };
    }

    /// The next part of the body; `None` when more has to come first.
    pub(crate) fn part(&mut self) -> Result<Option<Part>, String> {
        loop {
            match self.state {
                State::Head => return Err("there is no body here".into()),
                State::Length(0) => {
                    self.state = State::Head;
                    return Ok(Some(Part::End(Vec::new())));
                }
                State::Length(left) => {
                    let data = self.data(left);
                    self.state = State::Length(left - data.len() as u64);
                    return Ok((!data.is_empty()).then_some(Part::Data(data)));
                }
                State::ToClose => {
                    let data = self.take();
                    return Ok((!data.is_empty()).then_some(Part::Data(data)));
                }
                State::Size => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let is_hex = !line.is_empty() && line.len() <= 12 && line.bytes().all(|b| b.is_ascii_hexdigit());
                    let size = u64::from_str_radix(&line, 16).ok().filter(|_| is_hex);
                    self.state = match size {
                        None => return Err(format!("a chunk that begins with {line:?}")),
                        Some(0) => State::Trailers,
                        Some(size) => State::Chunk(size),
                    };
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => {
                    let data = self.data(left);
                    self.state = State::Chunk(left - data.len() as u64);
                    return Ok((!data.is_empty()).then_some(Part::Data(data)));
                }
                State::ChunkEnd => {
                    if self.bytes.len() < 2 {
                        return Ok(None);
                    }
                    if self.bytes.drain(..2).as_slice() != b"\r\n" {
                        return Err("a chunk that is longer than it says".into());
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    if self.bytes.starts_with(b"\r\n") {
                        self.bytes.drain(..2);
                        self.state = State::Head;
                        return Ok(Some(Part::End(Vec::new())));
                    }
                    let Some(end) = find(&self.bytes, b"\r\n\r\n") else { return Ok(None) };
                    let text: Vec<u8> = self.bytes.drain(..end + 4).take(end).collect();
                    let text = String::from_utf8(text).map_err(|_| "trailers that are no text")?;
                    self.state = State::Head;
                    return Ok(Some(Part::End(text.split("\r\n").map(field).collect::<Result<_, _>>()?)));
                }
            }
        }
    }

    fn data(&mut self, most: u64) -> Vec<u8> {
        let n = self.bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.bytes.drain(..n).collect()
    }

    fn line(&mut self) -> Result<Option<String>, String> {
        let Some(end) = find(&self.bytes, b"\r\n") else { return Ok(None) };
        let line: Vec<u8> = self.bytes.drain(..end + 2).take(end).collect();
        String::from_utf8(line).map(Some).map_err(|_| "a line that is no text".into())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(": ").ok_or_else(|| format!("a field line {line:?}"))?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match is_name && value.trim() == value {
        true => Ok((name.to_ascii_lowercase(), value.to_owned())),
        false => Err(format!("a field line {line:?}")),
    }
}
