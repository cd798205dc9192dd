//! The side of the process that takes the place of another.

use crate::app::notify;
use crate::app::store::{Handed, Place, Taken};
use crate::app::upgrade::channel::{Channel, Message};
use crate::app::upgrade::{OVERLAY, VARIABLE, VERDICTS};
use crate::config::Transport;
use crate::control::{Overlay, Verdicts};
use crate::link::plain::PlainStream;
use crate::shared::handing::Handing;
use crate::shared::mail::{WorkerMail, WorkerPost};
use crate::sys::pass;
use crossbeam_channel::bounded;
use std::collections::HashMap;
use std::env;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the old process may take for each of its steps. It waits for as long, and more, for us.
const STEP: Duration = Duration::from_secs(60);
/// How long a worker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The process whose place this one takes.
pub(in crate::app) struct Predecessor {
    channel: Channel,
    sockets: Vec<Handed>,
    /// What is known of things, in bytes that their owners understand, by name.
    blobs: HashMap<String, Vec<u8>>,
}

impl Predecessor {
    /// The one that has started this process, if it was started to take over, once it has told of its sockets.
    ///
    /// # Errors
    /// What cannot be understood of it.
    pub(in crate::app) fn find() -> Result<Option<Predecessor>, String> {
        let Some(number) = env::var_os(VARIABLE) else { return Ok(None) };
        let number = number.to_str().and_then(|number| number.parse().ok());
        let inherited = number.ok_or("it is no number".to_owned());
        let inherited = inherited.and_then(|number| pass::inherited(number).map_err(|error| error.to_string()));
        let stream = match inherited {
            Ok(descriptor) => UnixStream::from(descriptor),
            Err(error) => {
                // It was meant for some process before this one.
                log::warn!("{VARIABLE} in the environment is passed over: {error}");
                return Ok(None);
            }
        };
        let failed = |error: String| format!("cannot take over from the process before this one: {error}");
        let channel = Channel::begin(stream).map_err(|error| failed(error.to_string()))?;
        let mut before = Predecessor { channel, sockets: Vec::new(), blobs: HashMap::new() };
        before.listen().map_err(failed)?;
        Ok(Some(before))
    }

    fn listen(&mut self) -> Result<(), String> {
        loop {
            match self.channel.receive(Instant::now() + STEP)? {
                Message::Sockets(records, sockets) => {
                    let handed = records.into_iter().zip(sockets).map(|(record, socket)| Handed {
                        number: record.number,
                        transport: if record.udp { Transport::Udp } else { Transport::Tcp },
                        address: record.address,
                        slot: record.slot,
                        asked: record.asked,
                        socket: socket.into(),
                    });
                    self.sockets.extend(handed);
                }
                Message::Blob(name, bytes) => _ = self.blobs.insert(name, bytes),
                Message::Told => return Ok(()),
                other => return Err(format!("it says {other:?} too early")),
            }
        }
    }

    /// Its listening sockets.
    pub(in crate::app) fn take_sockets(&mut self) -> Vec<Handed> {
        std::mem::take(&mut self.sockets)
    }

    /// What it knew of backends.
    pub(in crate::app) fn take_verdicts(&mut self) -> Option<Verdicts> {
        let bytes = self.take_blob(VERDICTS)?;
        let verdicts = Verdicts::from_bytes(&bytes);
        verdicts.inspect_err(|error| log::warn!("what was known of backends is not understood: {error}")).ok()
    }

    /// What the admin API had changed there.
    pub(in crate::app) fn take_overlay(&mut self) -> Overlay {
        let bytes = self.take_blob(OVERLAY);
        let overlay = bytes.map_or(Ok(Overlay::default()), |bytes| Overlay::from_bytes(&bytes));
        overlay.unwrap_or_else(|error| {
            log::error!("what the admin API had changed is not understood, and is lost: {error}");
            Overlay::default()
        })
    }

    fn take_blob(&mut self, name: &str) -> Option<Vec<u8>> {
        self.blobs.remove(name)
    }

    /// Says that this process is ready, takes sessions over, and opens everything when it is told to.
    ///
    /// # Errors
    /// The other process goes on in place of this one, or has gone.
    pub(in crate::app) fn take_over(
        mut self,
        posts: &[WorkerPost<PlainStream>],
        taken: &[Taken],
    ) -> Result<(), String> {
        let said = |error: std::io::Error| error.to_string();
        self.channel.send_ready(taken.iter().map(|taken| taken.number).collect()).map_err(said)?;
        loop {
            match self.channel.receive(Instant::now() + STEP)? {
                Message::Flows(about, flows) => {
                    let here = taken.iter().find(|taken| taken.number == about.socket);
                    let here = here.filter(|taken| taken.transport == Transport::Udp);
                    let Some(Taken { at: Place { worker, id, slot }, .. }) = here.copied() else {
                        return Err("sessions came for a socket that was not taken".into());
                    };
                    let (tell, told) = bounded(1);
                    let last = about.last.then_some(tell);
                    order(&posts[worker], worker, Handing::Adopt { front: (id, slot), flows, last })?;
                    if about.last {
                        told.recv_timeout(ANSWER).map_err(|_| format!("worker {worker} does not answer"))?;
                        self.channel.send_reads(about.socket).map_err(said)?;
                    }
                }
                Message::Commit(error) => {
                    // What was said so far went through the other process, which will end.
                    if let Some(error) = error
                        && let Err(error) = nix::unistd::dup2_stderr(error)
                    {
                        log::warn!("standard error stays what it was: {error}");
                    }
                    break;
                }
                other => return Err(format!("it says {other:?} too late")),
            }
        }
        for (at, post) in posts.iter().enumerate() {
            order(post, at, Handing::Open)?;
        }
        // Before the other one can end: the service manager would take that for the end of the service.
        notify::ready_instead();
        if let Err(error) = self.channel.send_serving() {
            log::warn!("the process before this one has gone already: {error}");
        }
        Ok(())
    }
}

fn order(post: &WorkerPost<PlainStream>, worker: usize, order: Handing) -> Result<(), String> {
    match post.order(WorkerMail::Hand(order)) {
        true => Ok(()),
        false => Err(format!("worker {worker} takes no orders")),
    }
}
