//! Frames and descriptors over the socket between the two processes, and what the frames mean.

use crate::app::store::Place;
use crate::shared::handing::{Carried, FlowRecord};
use crate::sys::pass;
use crate::wire::handover::{MOST_DESCRIPTORS, Reader, preamble, write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the other side may take to read what is sent.
const SEND: Duration = Duration::from_secs(30);
/// What is said of one that has closed its end.
const GONE: &str = "the other process has gone";
/// Read by one call.
const PIECE: usize = 64 << 10;

/// What either process says to the other, in the order in which it is said.
#[derive(Debug)]
pub(super) enum Message {
    /// Old to new: listening sockets, with their descriptors.
    Sockets(Vec<SocketRecord>, Vec<OwnedFd>),
    /// Old to new: something that its owner alone understands, by its name.
    Blob(String, Vec<u8>),
    /// Old to new: that was all there is to begin with.
    Told,
    /// New to old: everything is there to serve by; these sockets are taken.
    Ready(Taken),
    /// Old to new: sessions of a socket for datagrams, which is not read any more, with their descriptors.
    Flows(Flows, Vec<Carried<OwnedFd>>),
    /// New to old: that socket is read here now.
    Reads(usize),
    /// Old to new: serve. With it comes our standard error, in place of the pipe that the start was watched by.
    Commit(Option<OwnedFd>),
    /// New to old: all is served here. From now on there is no way back.
    Serving,
}

const SOCKETS: u16 = 1;
const BLOB: u16 = 2;
const TOLD: u16 = 3;
const READY: u16 = 4;
const FLOWS: u16 = 5;
const READS: u16 = 6;
const COMMIT: u16 = 7;
const SERVING: u16 = 8;

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SocketRecord {
    /// The old process counts them so.
    pub(super) number: usize,
    pub(super) udp: bool,
    pub(super) address: SocketAddr,
    /// Which one of those at its address.
    pub(super) slot: usize,
    /// The listener that asked for it by port 0, and the address it asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<(String, SocketAddr)>,
    /// Who has it in the old process: no business of the new one.
    #[serde(skip)]
    pub(super) at: Option<Place>,
}

/// See [`Message::Ready`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) taken: Vec<usize>,
}

/// See [`Message::Flows`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flows {
    /// By its number.
    pub(super) socket: usize,
    pub(super) flows: Vec<FlowRecord>,
    /// These are the last.
    pub(super) last: bool,
}

/// One end of the socket.
pub(super) struct Channel {
    stream: UnixStream,
    reader: Reader,
    /// Descriptors that have come, and whose frame was not looked at yet.
    descriptors: VecDeque<OwnedFd>,
}

impl Channel {
    /// An end that says first what it speaks.
    ///
    /// # Errors
    /// The other end has gone.
    pub(super) fn begin(stream: UnixStream) -> io::Result<Channel> {
        stream.set_write_timeout(Some(SEND))?;
        (&stream).write_all(&preamble()).map_err(in_words)?;
        Ok(Channel { stream, reader: Reader::default(), descriptors: VecDeque::new() })
    }

    /// Sends listening sockets.
    pub(super) fn send_sockets(&self, records: &[SocketRecord], sockets: &[OwnedFd]) -> io::Result<()> {
        for (records, sockets) in records.chunks(MOST_DESCRIPTORS).zip(sockets.chunks(MOST_DESCRIPTORS)) {
            let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            self.send(SOCKETS, &json(&records)?, &sockets)?;
        }
        Ok(())
    }

    /// Sends what its owner alone understands.
    pub(super) fn send_blob(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut payload = vec![name.len() as u8];
        payload.extend_from_slice(name.as_bytes());
        payload.extend_from_slice(bytes);
        self.send(BLOB, &payload, &[])
    }

    /// Sends sessions of a socket for datagrams.
    pub(super) fn send_flows(&self, socket: usize, flows: Vec<Carried<OwnedFd>>, last: bool) -> io::Result<()> {
        let (flows, sockets): (Vec<_>, Vec<_>) = flows.into_iter().map(|one| (one.flow, one.sockets)).unzip();
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().flatten().map(AsFd::as_fd).collect();
        self.send(FLOWS, &json(&Flows { socket, flows, last })?, &sockets)
    }

    pub(super) fn send_told(&self) -> io::Result<()> {
        self.send(TOLD, &[], &[])
    }

    pub(super) fn send_ready(&self, taken: Vec<usize>) -> io::Result<()> {
        self.send(READY, &json(&Taken { taken })?, &[])
    }

    pub(super) fn send_reads(&self, socket: usize) -> io::Result<()> {
        self.send(READS, &json(&socket)?, &[])
    }

    pub(super) fn send_commit(&self, error: BorrowedFd<'_>) -> io::Result<()> {
        self.send(COMMIT, &[], &[error])
    }

    pub(super) fn send_serving(&self) -> io::Result<()> {
        self.send(SERVING, &[], &[])
    }

    fn send(&self, kind: u16, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 8);
        write(&mut bytes, kind, descriptors.len(), payload);
        let sent = loop {
            match pass::send(self.stream.as_fd(), &bytes, descriptors) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(in_words)?,
            }
        };
        (&self.stream).write_all(&bytes[sent..]).map_err(in_words)
    }

    /// The next message; kinds that are not known are passed over.
    ///
    /// # Errors
    /// None comes before `until`, the other side has gone, or it says what is not to be understood.
    pub(super) fn receive(&mut self, until: Instant) -> Result<Message, String> {
        loop {
            while let Some(frame) = self.reader.frame().map_err(|bad| bad.to_string())? {
                if frame.descriptors > self.descriptors.len() {
                    return Err("descriptors are missing: this process may not have so many".into());
                }
                let descriptors: Vec<OwnedFd> = self.descriptors.drain(..frame.descriptors).collect();
                if let Some(message) = understand(frame.kind, &frame.payload, descriptors)? {
                    return Ok(message);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the other process says nothing".into());
            }
            self.stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
            let (mut piece, mut came) = (vec![0; PIECE], Vec::new());
            match pass::receive(self.stream.as_fd(), &mut piece, &mut came) {
                Ok(0) => return Err(GONE.into()),
                // It left without having read all that was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(GONE.into()),
                Ok(n) => {
                    self.reader.push(&piece[..n]);
                    self.descriptors.extend(came);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// What a frame means; `None` for one of a kind that is not known.
fn understand(kind: u16, payload: &[u8], descriptors: Vec<OwnedFd>) -> Result<Option<Message>, String> {
    let message = match kind {
        SOCKETS => {
            let records: Vec<SocketRecord> = parse(payload)?;
            if records.len() != descriptors.len() {
                return Err("sockets and their descriptors are not as many".into());
            }
            Message::Sockets(records, descriptors)
        }
        BLOB => {
            let named = payload.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
            let (name, bytes) = named.ok_or("a blob is shorter than its name")?;
            Message::Blob(String::from_utf8_lossy(name).into_owned(), bytes.to_vec())
        }
        TOLD => Message::Told,
        READY => Message::Ready(parse(payload)?),
        FLOWS => {
            let flows: Flows = parse(payload)?;
            if flows.flows.iter().map(FlowRecord::sockets).sum::<usize>() != descriptors.len() {
                return Err("sessions and their descriptors are not as many".into());
            }
            let mut descriptors = descriptors.into_iter();
            let carried = flows.flows.iter().map(|flow| Carried {
                flow: flow.clone(),
                sockets: descriptors.by_ref().take(flow.sockets()).collect(),
            });
            let carried = carried.collect();
            Message::Flows(flows, carried)
        }
        READS => Message::Reads(parse(payload)?),
        COMMIT => Message::Commit(descriptors.into_iter().next()),
        SERVING => Message::Serving,
        _ => {
            log::debug!("a message of kind {kind} is not known here, and passed over");
            return Ok(None);
        }
    };
    Ok(Some(message))
}

fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => io::Error::new(error.kind(), GONE),
        _ => error,
    }
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::from)
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| format!("a message is not to be understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::handing::Onward;
    use std::os::fd::AsRawFd;

    fn pair() -> (Channel, Channel) {
        let (near, far) = UnixStream::pair().unwrap();
        (Channel::begin(near).unwrap(), Channel::begin(far).unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn record(number: usize) -> SocketRecord {
        let address = "[fe80::1%3]:80".parse().unwrap();
        let asked = (number.is_multiple_of(2)).then(|| ("web".to_owned(), "127.0.0.1:0".parse().unwrap()));
        SocketRecord { number, udp: number.is_multiple_of(3), address, slot: number / 7, asked, at: None }
    }

    #[test]
    fn messages_arrive_as_they_were_sent_with_what_belongs_to_them() {
        let (near, mut far) = pair();
        let records: Vec<_> = (0..300).map(record).collect();
        let sockets: Vec<_> = (0..300).map(|_| descriptor()).collect();
        let flow = |listed, onward| FlowRecord {
            client: "192.0.2.1:5".parse().unwrap(),
            local: Some("2001:db8::1".parse().unwrap()),
            pool: "p".into(),
            idle_left: 9,
            sent: 7,
            listed,
            onward,
        };
        let peer = "192.0.2.9:53".parse().unwrap();
        let one = flow(true, Onward::One { backend: "dns.test:53".into(), peer, requests: 3, replies: 2 });
        let each = flow(false, Onward::Each { v4: true, v6: true, known: vec![(peer, "dns.test:53".into())] });
        let none = flow(false, Onward::Each { v4: false, v6: false, known: Vec::new() });
        let flows = [(one, 1), (none, 0), (each, 2)];
        let carried = |(flow, n): &(FlowRecord, usize)| Carried {
            flow: flow.clone(),
            sockets: (0..*n).map(|_| descriptor()).collect(),
        };
        // More than one buffer of the socket holds, so the two sides take turns.
        let far = std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut came = Vec::new();
                while !matches!(came.last(), Some(Message::Serving)) {
                    came.push(far.receive(soon()).unwrap());
                }
                came
            });
            near.send_sockets(&records, &sockets).unwrap();
            near.send_blob("verdicts", &vec![7; 1 << 20]).unwrap();
            near.send(40_000, b"of a later version", &[sockets[0].as_fd()]).unwrap();
            near.send_told().unwrap();
            near.send_flows(4, flows.iter().map(carried).collect(), true).unwrap();
            near.send_commit(sockets[0].as_fd()).unwrap();
            near.send_serving().unwrap();
            reading.join().unwrap()
        });
        let mut told = Vec::new();
        for message in far {
            match message {
                Message::Sockets(records, sockets) => {
                    assert_eq!(records.len(), sockets.len());
                    told.extend(records);
                }
                Message::Blob(name, bytes) => assert_eq!((&*name, bytes), ("verdicts", vec![7; 1 << 20])),
                Message::Flows(about, carried) => {
                    assert_eq!((about.socket, about.last), (4, true));
                    for (came, (flow, n)) in carried.iter().zip(&flows) {
                        assert_eq!((&came.flow, came.sockets.len()), (flow, *n));
                    }
                }
                Message::Commit(error) => assert!(error.unwrap().as_raw_fd() > 2),
                other => assert!(matches!(other, Message::Told | Message::Serving), "{other:?}"),
            }
        }
        assert_eq!(told, records);
    }

    #[test]
    fn what_cannot_be_understood_or_does_not_come_is_told() {
        let rows: [(&str, u16, &[u8], &str); 4] = [
            (
                "a socket without a descriptor",
                SOCKETS,
                br#"[{"number":1,"udp":true,"address":"1.2.3.4:5","slot":0}]"#,
                "not as many",
            ),
            ("no list", SOCKETS, b"{}", "not to be understood"),
            ("a blob that ends in its name", BLOB, b"\x09verdicts", "shorter than its name"),
            ("the end", 0, b"", "has gone"),
        ];
        for (why, kind, payload, words) in rows {
            let (near, mut far) = pair();
            if kind != 0 {
                near.send(kind, payload, &[]).unwrap();
            }
            drop(near);
            let error = far.receive(soon()).unwrap_err();
            assert!(error.contains(words), "{why}: {error}");
        }
        let (_near, mut far) = pair();
        let error = far.receive(Instant::now() + Duration::from_millis(30)).unwrap_err();
        assert!(error.contains("says nothing"), "{error}");
    }
}
