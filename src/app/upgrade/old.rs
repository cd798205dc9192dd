//! The side of the process that is replaced.

use crate::app::lock;
use crate::app::notify;
use crate::app::store::{Lent, Place, Store};
use crate::app::upgrade::channel::{Channel, Message, SocketRecord};
use crate::app::upgrade::{OVERLAY, Program, VERDICTS};
use crate::base::time::Clock;
use crate::config::Transport;
use crate::control::Verdicts;
use crate::link::plain::PlainStream;
use crate::shared::handing::Handing;
use crate::shared::hub::Hub;
use crate::shared::mail::{ControlMail, Reload, WorkerMail, WorkerPost};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the new process may take until it is ready.
const START: Duration = Duration::from_secs(30);
/// How long each later step of it may take.
const STEP: Duration = Duration::from_secs(30);
/// How long a worker may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What is needed of the process that is replaced.
#[derive(Clone)]
pub(in crate::app) struct Old {
    pub(in crate::app) posts: Vec<WorkerPost<PlainStream>>,
    pub(in crate::app) hub: Arc<Hub>,
    pub(in crate::app) clock: Clock,
    pub(in crate::app) control: Sender<ControlMail>,
    /// While an upgrade is under way nobody else has this, so no reload begins.
    pub(in crate::app) store: Arc<Mutex<Store>>,
}

/// How an upgrade ended.
#[derive(Debug)]
pub(in crate::app) enum Ended {
    /// The process of that number serves in our place.
    Serving(u32),
    /// We go on as if nothing had been; this is why.
    Failed(String),
}

/// Upgrades of this process, one at a time.
pub(in crate::app) struct Upgrades {
    program: Option<Program>,
    tell: Sender<Ended>,
    /// Told at the end of each.
    pub(in crate::app) ended: Receiver<Ended>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    thread: JoinHandle<()>,
    /// Whoever serves in the end is to read its file again.
    reload: bool,
    /// Our end of the socket, to hang up.
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    stream: Option<UnixStream>,
    given_up: bool,
}

impl Upgrades {
    /// None yet. Without a `program` there can be none.
    pub(in crate::app) fn of(program: Option<Program>) -> Upgrades {
        let (tell, ended) = bounded(1);
        Upgrades { program, tell, ended, under_way: None }
    }

    /// Begins one, on a thread of its own.
    pub(in crate::app) fn begin(&mut self, old: Old) {
        if self.under_way.is_some() {
            log::warn!("an upgrade is under way already; nothing is changed");
            return;
        }
        let Some(program) = self.program.clone() else {
            log::warn!("SIGUSR2 (upgrade): this command cannot be replaced while it runs; nothing is changed");
            return;
        };
        let (line, tell) = (Arc::<Mutex<Line>>::default(), self.tell.clone());
        let body = {
            let line = line.clone();
            move || {
                let ended = upgrade(&program, &old, &line);
                let _ = tell.send(ended);
            }
        };
        match thread::Builder::new().name("upgrade".into()).spawn(body) {
            Ok(thread) => self.under_way = Some(UnderWay { thread, reload: false, line }),
            Err(error) => log::error!("the upgrade has failed: {error}; going on as before"),
        }
    }

    /// Whether one is under way.
    pub(in crate::app) fn are_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// When the one that is under way has ended, whoever serves then reads its file again.
    pub(in crate::app) fn reload_then(&mut self) {
        log::info!("SIGHUP (reload): an upgrade is under way; the file is read again when that has ended");
        if let Some(under_way) = &mut self.under_way {
            under_way.reload = true;
        }
    }

    /// Takes note of how it ended. True when another process serves in place of this one.
    pub(in crate::app) fn has_ended(&mut self, ended: Ended, control: &Sender<ControlMail>) -> bool {
        // Said here, where the next one may begin: whoever reads it may ask for that at once.
        let reload = self.under_way.take().is_some_and(|under_way| under_way.reload);
        match ended {
            Ended::Serving(process) => {
                // It may have read the file before that was changed.
                if reload && let Err(error) = kill(Pid::from_raw(process.cast_signed()), Signal::SIGHUP) {
                    log::error!("process {process} cannot be told to reload ({error}); send it SIGHUP");
                }
                true
            }
            Ended::Failed(why) => {
                log::error!("the upgrade has failed: {why}; going on as before");
                notify::ready();
                if reload {
                    let _ = control.send(ControlMail::Reload(Reload::default()));
                }
                false
            }
        }
    }

    /// Gives up the one that is under way: this process is to end. The number of the new one, if that serves already.
    pub(in crate::app) fn give_up(&mut self) -> Option<u32> {
        let UnderWay { thread, line, .. } = self.under_way.take()?;
        {
            let mut line = lock(&line);
            line.given_up = true;
            if let Some(stream) = &line.stream {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let _ = thread.join();
        match self.ended.try_recv() {
            Ok(Ended::Serving(process)) => Some(process),
            _ => None,
        }
    }
}

fn upgrade(program: &Program, old: &Old, line: &Mutex<Line>) -> Ended {
    let path = program.path().display();
    log::info!("upgrade: starting {path}");
    notify::reloading();
    let mut launched = match program.launch() {
        Ok(launched) => launched,
        Err(error) => return Ended::Failed(format!("{path} cannot be started: {error}")),
    };
    let process = launched.child.id();
    match hand_over(old, &launched.stream, line) {
        Ok(flows) => {
            log::info!(
                "upgrade: process {process} serves in place of this one; it has {flows} sessions of udp of ours"
            );
            // That process is on its own: nobody waits for its end.
            Ended::Serving(process)
        }
        Err(why) => {
            // First that one, so that no two read the same sockets.
            let ended = launched.end();
            old.order_all(|| WorkerMail::Hand(Handing::Thaw));
            let _ = old.control.send(ControlMail::Resume);
            Ended::Failed(format!("{why}; of process {process}: {ended} and {}", launched.last_words()))
        }
    }
}

/// All phases; how many sessions of datagrams have gone over.
fn hand_over(old: &Old, stream: &UnixStream, line: &Mutex<Line>) -> Result<usize, String> {
    let told = |error: io::Error| format!("the new process cannot be told anything: {error}");
    {
        let mut line = lock(line);
        if line.given_up {
            return Err("this process is to end".into());
        }
        line.stream = Some(stream.try_clone().map_err(told)?);
    }
    let mut channel = stream.try_clone().and_then(Channel::begin).map_err(told)?;
    let until = Instant::now() + START;
    // A reload that has begun is over before its sockets are to be had, or begins when this is over.
    let mut store = lock(&old.store);
    let sockets = old.begin(&channel, &store)?;
    let taken = match channel.receive(until)? {
        Message::Ready(ready) => ready.taken,
        other => return Err(format!("it says {other:?} before it is ready")),
    };
    let taken: Vec<&SocketRecord> = taken.iter().filter_map(|number| sockets.get(*number)).collect();
    let mut flows = 0;
    for socket in taken.iter().filter(|socket| socket.udp) {
        flows += old.hand_flows(&channel, socket)?;
        match channel.receive(Instant::now() + STEP)? {
            Message::Reads(number) if number == socket.number => {}
            other => return Err(format!("it says {other:?} in place of reading a socket")),
        }
    }
    channel.send_commit(io::stderr().as_fd()).map_err(told)?;
    match channel.receive(Instant::now() + STEP)? {
        Message::Serving => {}
        other => return Err(format!("it says {other:?} in place of serving")),
    }
    for (at, post) in old.posts.iter().enumerate() {
        let ours = taken.iter().filter(|socket| socket.at.is_some_and(|place| place.worker == at) && !socket.udp);
        let doors = ours.filter_map(|socket| Some(socket.at?.id)).collect();
        if !post.order(WorkerMail::Hand(Handing::Leave { doors })) {
            log::error!("worker {at} takes no orders, and keeps sockets that another process serves");
        }
    }
    // Before anybody else has it: a reload that has waited is not for this process any more.
    store.let_go();
    Ok(flows)
}

impl Old {
    fn order_all(&self, mail: impl Fn() -> WorkerMail<PlainStream>) {
        for (at, post) in self.posts.iter().enumerate() {
            if !post.order(mail()) {
                log::error!("worker {at} takes no orders");
            }
        }
    }

    /// Tells of all listening sockets, and of what is known.
    fn begin(&self, channel: &Channel, store: &Store) -> Result<Vec<SocketRecord>, String> {
        let told = |error: io::Error| format!("the new process cannot be told of our sockets: {error}");
        let overlay = self.halt()?;
        let lent = store.lend().map_err(|error| format!("our sockets cannot be passed on: {error}"))?;
        let (records, sockets): (Vec<_>, Vec<_>) = lent.into_iter().enumerate().map(record).unzip();
        channel.send_sockets(&records, &sockets).map_err(told)?;
        let verdicts = Verdicts::of(&self.hub.current(), self.clock.now());
        channel.send_blob(VERDICTS, &verdicts.to_bytes()).map_err(told)?;
        channel.send_blob(OVERLAY, &overlay).map_err(told)?;
        channel.send_told().map_err(told)?;
        Ok(records)
    }

    /// From now on nothing changes the configuration. What the admin API has changed of it.
    fn halt(&self) -> Result<Vec<u8>, String> {
        let (tell, told) = bounded(1);
        let sent = self.control.send(ControlMail::Halt { tell });
        let overlay = sent.ok().and_then(|()| told.recv_timeout(ANSWER).ok());
        overlay.ok_or_else(|| "the configuration is not to be had".to_owned())
    }

    /// Reads a socket for datagrams no more, and tells of its sessions.
    fn hand_flows(&self, channel: &Channel, socket: &SocketRecord) -> Result<usize, String> {
        let Some(Place { worker, id, slot }) = socket.at else { return Ok(0) };
        let mut from = 0;
        loop {
            let flows = ask(&self.posts[worker], worker, |tell| Handing::Freeze { front: (id, slot), from, tell })?;
            let count = flows.len();
            let sent = channel.send_flows(socket.number, flows, count == 0);
            sent.map_err(|error| format!("sessions of udp cannot be handed over: {error}"))?;
            if count == 0 {
                return Ok(from);
            }
            from += count;
        }
    }
}

/// What a worker answers to an order.
fn ask<T>(
    post: &WorkerPost<PlainStream>,
    worker: usize,
    order: impl FnOnce(Sender<T>) -> Handing,
) -> Result<T, String> {
    let (tell, told) = bounded(1);
    if !post.order(WorkerMail::Hand(order(tell))) {
        return Err(format!("worker {worker} takes no orders"));
    }
    told.recv_timeout(ANSWER).map_err(|_| format!("worker {worker} does not answer"))
}

/// What is told of a socket, and the socket.
fn record((number, lent): (usize, Lent)) -> (SocketRecord, OwnedFd) {
    let Lent { transport, address, at, asked, socket } = lent;
    let udp = transport == Transport::Udp;
    (SocketRecord { number, udp, address, slot: at.slot as usize, asked, at: Some(at) }, socket.into())
}
