//! Takes sockets from the store, starts threads, handles signals, joins.
//!
//! `app` alone knows every room; it decides nothing about a connection.

mod account;
mod limits;
mod logging;
mod notify;
mod reload;
pub mod state_file;
mod store;
mod upgrade;

pub use crate::app::account::Account;
use crate::app::logging::Log;
use crate::app::reload::Loader;
use crate::app::state_file::{Found, Start, StateFile, look};
use crate::app::store::Store;
use crate::base::exit::Exit;
use crate::base::ids::WorkerId;
use crate::base::machine::own_addresses;
use crate::base::time::Clock;
use crate::config::{Config, Global, Protocol, Serves, Spot, Transport};
use crate::control::{Control, Keeping, Orders, Overlay, Plan, Sources, Verdicts};
use crate::discovery::{Name, Resolver};
use crate::guard::Cap;
use crate::health::Checker;
use crate::link::plain::PlainStream;
use crate::shared::hub::Hub;
use crate::shared::mail::{ControlMail, Moves, Reload, WorkerMail, WorkerPost, control_box};
use crate::shared::queue::Wakers;
use crate::stats::Stats;
use crate::worker::thread::{Common, Held, Worker};
use crossbeam_channel::{Receiver, RecvError, Sender, bounded, select_biased};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use upgrade::{Old, Predecessor, Program, Upgrades};

/// How long the start waits for names to be resolved; the rest come later, by mail.
const FIRST_NAMES: Duration = Duration::from_secs(2);
/// How far back a process that goes on from another can tell when something began.
const BEFORE: Duration = Duration::from_secs(3_600);
/// How long workers may take to end once they were told to cut everything.
const CUT: Duration = Duration::from_secs(2);

/// Told where everything listens.
pub type Ready = Box<dyn FnOnce(&[Bound]) + Send>;

/// What the command line adds to a configuration.
#[derive(Default)]
pub struct Options {
    /// Log at level debug, whatever the configuration says.
    pub debug: bool,
    /// The file that the configuration is from, to be read again; `None`: it is from flags.
    pub file: Option<PathBuf>,
    /// Where the addresses of listeners come from, so that an error can say what to change.
    pub told_by: ToldBy,
    /// SIGUSR2 starts this program once more, to take the place of this process.
    pub upgradable: bool,
    /// Begins the same drain as SIGTERM, from inside the process.
    pub stop: Option<Stop>,
    /// Called once, when all listeners are bound and clients are served.
    pub ready: Option<Ready>,
}

/// What tells where to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToldBy {
    /// The file, by `bind`.
    #[default]
    File,
    /// The flags `--host` and `--port`.
    HostAndPort,
    /// The flag `--port` alone.
    Port,
}

/// An address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The listener's name.
    pub listener: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The true address: port 0 has become the port that the system chose.
    pub address: SocketAddr,
}

/// A handle that ends [`run`] as SIGTERM does.
#[derive(Clone, Debug)]
pub struct Stop {
    tell: Sender<()>,
    told: Receiver<()>,
}

impl Default for Stop {
    fn default() -> Self {
        let (tell, told) = bounded(1);
        Stop { tell, told }
    }
}

impl Stop {
    /// A handle that nobody has used yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Begins the drain. Once is enough; again does nothing.
    pub fn stop(&self) {
        let _ = self.tell.try_send(());
    }
}

/// Starts everything and serves until told to stop. Says on the log why it cannot start.
pub fn run(config: Config, options: Options) -> Exit {
    let account = match Account::of(&config.global) {
        Ok(account) => account,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Config;
        }
    };
    let log = match logging::start(&config.global, options.debug, account.as_ref()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Config;
        }
    };
    let exit = serve(config, options, account, &log);
    log.finish();
    exit
}

fn serve(config: Config, options: Options, account: Option<Account>, log: &Log) -> Exit {
    let program = options.upgradable.then(Program::of_this).flatten();
    warn_of_admin(&config);
    limits::raise_descriptors();
    // Before any thread, so that every thread leaves these signals to the one that waits for them.
    let signals = match Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]) {
        Ok(signals) => signals,
        Err(error) => {
            log::error!("signals cannot be handled: {error}");
            return Exit::Config;
        }
    };
    let mut before = match options.upgradable.then(Predecessor::find).transpose() {
        Ok(before) => before.flatten(),
        Err(error) => {
            log::error!("{error}");
            return Exit::Config;
        }
    };
    let workers = limits::workers(config.global.workers);
    let handed = before.as_mut().map(Predecessor::take_sockets).unwrap_or_default();
    let mut store = Store::new(workers, options.told_by);
    let opened = match store.open(&config, handed) {
        Ok(opened) => opened,
        Err(error) => {
            log::error!("{error}");
            return Exit::Bind;
        }
    };
    let kept = config.admin.state_file.as_ref().map(|path| {
        let start = if before.is_some() { Start::Successor } else { Start::Alone };
        look(path, start, account.as_ref().map(Account::owner))
    });
    if let Some(Err(error)) = account.map(|account| account.take_on(account::needs_low_ports(&config))) {
        log::error!("{error}");
        return Exit::Config;
    }
    let store::Change { moves, bound, taken, .. } = opened;
    let known = before.as_mut().map(|before| before.take_verdicts().unwrap_or_default());
    let overlay = before.as_mut().map(Predecessor::take_overlay);
    let sources = match sources(config, kept, overlay) {
        Ok(sources) => sources,
        Err(error) => {
            log::error!("{error}");
            return Exit::Config;
        }
    };
    let running = match Running::start(sources, (store, moves), workers, known, &options) {
        Ok(running) => running,
        Err(error) => {
            log::error!("cannot start: {error}");
            return Exit::Config;
        }
    };
    match before {
        None => notify::ready(),
        Some(before) => {
            if let Err(error) = before.take_over(&running.old.posts, &taken) {
                log::error!("cannot take over from the process before this one: {error}");
                return Exit::Config;
            }
            // Behind the word that there is no way back: what is answered as made here must not be undone there.
            let _ = running.control.0.send(ControlMail::Resume);
        }
    }
    let _ = running.control.0.send(ControlMail::Started);
    bound.iter().for_each(announce);
    if let Some(ready) = options.ready {
        ready(&bound);
    }
    running.until_told(options.stop.unwrap_or_default(), Upgrades::of(program), signals, log)
}

/// `config`, and over it what the admin API has changed: `handed` by the process before this one, or else as far as it was
/// `kept`. From now on it is kept there.
///
/// # Errors
/// Nothing can be kept: a line with the place in the configuration, and what to do.
fn sources(config: Config, kept: Option<Found>, handed: Option<Overlay>) -> Result<Sources, String> {
    let at = config.admin.state_file_at.as_ref().map_or_else(|| "l4lb: admin.state_file".to_owned(), Spot::to_string);
    let sources = Sources::new(config).waiting(handed.is_some());
    let Some(found) = kept else {
        return Ok(sources.with(handed.unwrap_or_default(), Box::new(|_| Ok(()))));
    };
    let (file, overlay) = StateFile::open(found, Overlay::from_bytes).map_err(|error| format!("{at}: {error}"))?;
    let broken = file.broken().cloned();
    let keep = move |what: Keeping<'_>| match what {
        Keeping::Bytes(bytes) => file.write(bytes),
        Keeping::Take(bytes) => file.hold(bytes, bytes == Overlay::default().to_bytes()),
        Keeping::Release => {
            file.release();
            Ok(())
        }
    };
    // The other process may have kept it elsewhere, or nowhere.
    let sources = match handed {
        Some(handed) => sources.with(handed, Box::new(keep)),
        None => sources.with(overlay, Box::new(keep)),
    };
    Ok(match broken {
        Some(broken) => sources.broken(broken.to_string()),
        None => sources,
    })
}

/// Says on the log where a listener is.
fn announce(Bound { listener, protocol, address }: &Bound) {
    match protocol.transport() {
        Transport::Tcp => log::info!("listener {listener} on {address}"),
        Transport::Udp => log::info!("listener {listener} on {address} (udp)"),
    }
}

/// What is no error of a configuration, and hardly what was meant.
fn warn_of_admin(config: &Config) {
    if let Some(token) = &config.admin.token {
        let file = token.file.display();
        match std::fs::metadata(&token.file) {
            Ok(about) if about.permissions().mode() & 0o004 != 0 => {
                log::warn!("admin.token_file: {file} can be read by everybody on this machine; run chmod 600 {file}");
            }
            _ => {}
        }
    }
    let keys = [("token_file", config.admin.token.is_some()), ("state_file", config.admin.state_file.is_some())];
    if config.listeners.iter().all(|listener| listener.serves == Serves::Traffic) {
        for (key, _) in keys.iter().filter(|(_, given)| *given) {
            log::warn!("admin.{key}: nothing serves /lb/*; write listen in [admin], or admin = true in a [[listener]]");
        }
    }
}

/// Everything that runs.
struct Running {
    /// What the next process is told of.
    old: Old,
    /// Told by each worker as its last act; a worker that ends untold is a bug.
    ended: Receiver<WorkerId>,
    workers: Vec<JoinHandle<Option<Held>>>,
    control: (Sender<ControlMail>, JoinHandle<()>),
    stats: Arc<Stats>,
    store: Arc<Mutex<Store>>,
    /// What a reload may change of how it ends: shutdown_delay and shutdown_timeout.
    shutdown: Arc<Mutex<Shutdown>>,
}

/// How long an end may take.
#[derive(Clone, Copy, Debug)]
struct Shutdown {
    delay: Duration,
    timeout: Duration,
}

impl Shutdown {
    fn of(global: &Global) -> Shutdown {
        Shutdown { delay: global.shutdown_delay, timeout: global.shutdown_timeout }
    }
}

impl Running {
    /// `known`: what another process knew, which serves by the sockets still; they are not served by before workers are
    /// told to.
    fn start(
        sources: Sources,
        (store, moves): (Store, Moves),
        workers: usize,
        known: Option<Verdicts>,
        options: &Options,
    ) -> std::io::Result<Running> {
        let config = sources.config().clone();
        // Those that other process has sessions with, though they are in no file any more.
        let with_leavers = known.as_ref().map(|known| known.with_leavers(&config));
        let clock = if known.is_some() { Clock::started(BEFORE) } else { Clock::start() };
        let global = config.global.clone();
        let pipes = limits::pipes(workers);
        let most = limits::connections(global.max_connections, pipes * workers);
        let possible = limits::connections(0, pipes * workers);
        let connections = Cap::new(most);
        let (mail, mailbox) = control_box();
        let (resolver, first) =
            Resolver::start(Name::of(with_leavers.as_ref().unwrap_or(&config)), mail.clone(), FIRST_NAMES)?;
        let wakers = Wakers::default();
        let mut plan = match with_leavers {
            None => Plan::new(config, workers),
            Some(with_leavers) => {
                let mut plan = Plan::new(with_leavers, workers);
                plan.adopt(config);
                plan
            }
        };
        plan = plan.listening(moves.bound, own_addresses).waking(wakers.clone());
        for (name, addresses) in first {
            plan.resolved(name.host, name.port, addresses);
        }
        let ids = plan.listener_ids().to_vec();
        let mut first = plan.build();
        if let Some(known) = &known {
            known.recall(&first, clock.now());
            first = plan.build();
        }
        let hub = Hub::new(first.clone(), workers);
        let stats = Arc::new(Stats::new(workers));
        let common = Common {
            hub: hub.clone(),
            stats: stats.clone(),
            clock,
            connections: connections.clone(),
            control: mail.clone(),
            spin: global.spin,
            pipes,
        };
        let mut built = Vec::new();
        for (at, listen) in moves.orders.into_iter().enumerate() {
            built.push(Worker::new(
                WorkerId(at as u16),
                common.clone(),
                listen.with(|at| ids[at]).open,
                known.is_some(),
            )?);
        }
        let posts: Vec<_> = built.iter().map(Worker::post).collect();
        let _ = wakers.set(posts.iter().map(WorkerPost::waker).collect());
        let checker = Checker::start(clock, mail.clone())?;
        let shutdown = Arc::new(Mutex::new(Shutdown::of(&global)));
        let store = Arc::new(Mutex::new(store));
        let loader = Loader {
            file: options.file.clone(),
            resolver: resolver.clone(),
            mail: mail.clone(),
            store: store.clone(),
            posts: posts.clone(),
        };
        let reload = loader.start()?;
        let orders = Orders {
            check: Box::new(move |targets| checker.check(targets)),
            reload: Box::new(move |wish| _ = reload.send(wish)),
            names: Box::new(move |names| {
                let names = names.into_iter().map(|(host, port)| Name { host, port });
                // What they resolve to comes by mail.
                resolver.learn(names.collect(), Duration::ZERO);
            }),
            global: {
                let (debug, shutdown) = (options.debug, shutdown.clone());
                Box::new(move |global| {
                    logging::set_level(global, debug);
                    let wanted = global.max_connections;
                    connections.set_limit(if wanted == 0 { possible } else { wanted.min(possible) });
                    *lock(&shutdown) = Shutdown::of(global);
                })
            },
        };
        let control = Control::new(plan, hub.clone(), posts.clone(), clock, mailbox, orders).over(sources);
        let control = (mail, thread::Builder::new().name("control".into()).spawn(move || control.run())?);
        let (end, ended) = bounded(workers);
        let mut threads = Vec::new();
        for (at, worker) in built.into_iter().enumerate() {
            let (end, posts, pin) = (Last(WorkerId(at as u16), end.clone()), posts.clone(), global.cpu_affinity);
            let body = move || {
                let _end = end;
                if pin {
                    limits::pin(at);
                }
                match worker.run(posts) {
                    Ok(held) => Some(held),
                    Err(error) => {
                        log::error!("worker {at} ended: {error}");
                        None
                    }
                }
            };
            threads.push(thread::Builder::new().name(format!("worker-{at}")).spawn(body)?);
        }
        Ok(Running {
            old: Old { posts, hub, clock, control: control.0.clone(), store: store.clone() },
            ended,
            workers: threads,
            control,
            stats,
            store,
            shutdown,
        })
    }

    fn until_told(self, stop: Stop, mut upgrades: Upgrades, mut signals: Signals, log: &Log) -> Exit {
        let (tell, told) = bounded(4);
        let handle = signals.handle();
        let waiting = thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if tell.send(signal).is_err() {
                    break;
                }
            }
        });
        if let Err(error) = waiting {
            log::error!("signals cannot be waited for: {error}");
        }
        let mut replaced = false;
        let mut exit = loop {
            select_biased! {
                recv(told) -> signal => match signal {
                    Ok(SIGTERM | SIGINT) | Err(_) => break Exit::Done,
                    Ok(SIGUSR2) => upgrades.begin(self.old.clone()),
                    Ok(SIGHUP) if upgrades.are_under_way() => upgrades.reload_then(),
                    Ok(signal) => self.heed(signal, log),
                },
                recv(stop.told) -> _ => break Exit::Done,
                recv(upgrades.ended) -> ended => if ended.is_ok_and(|ended| upgrades.has_ended(ended, &self.control.0)) {
                    replaced = true;
                    break Exit::Done;
                },
                recv(self.ended) -> worker => {
                    break broken(worker);
                }
            }
        };
        if let Some(process) = upgrades.give_up() {
            log::warn!("process {process} serves in place of this one already, and goes on");
            replaced = true;
        }
        let at_once = if replaced {
            false
        } else {
            // Of one that was replaced the service manager would take it for the end of both, and whoever asks for
            // /lb/health for a reason to send nobody to either.
            notify::stopping();
            self.old.hub.depart();
            match exit {
                Exit::Done => match self.delay(&told, log) {
                    Ok(at_once) => at_once,
                    Err(broken) => {
                        exit = broken;
                        false
                    }
                },
                _ => false,
            }
        };
        let exit = self.drain(exit, End { at_once, replaced }, &told, log);
        handle.close();
        exit
    }

    fn order_all(&self, mail: impl Fn() -> WorkerMail<PlainStream>) {
        for (at, post) in self.old.posts.iter().enumerate() {
            if !post.order(mail()) {
                log::error!("worker {at} takes no orders");
            }
        }
    }

    /// Does what a signal asks for that does not end the process.
    fn heed(&self, signal: i32, log: &Log) {
        match signal {
            SIGHUP => _ = self.control.0.send(ControlMail::Reload(Reload::default())),
            SIGUSR1 => log.reopen(),
            _ => log::warn!("no upgrade is begun any more: this process ends"),
        }
    }

    /// Goes on for shutdown_delay, in which /lb/health tells that nobody should be sent here any more. Whether it is to end
    /// at once then.
    ///
    /// # Errors
    /// A worker has ended.
    fn delay(&self, told: &Receiver<i32>, log: &Log) -> Result<bool, Exit> {
        let delay = lock(&self.shutdown).delay;
        if !delay.is_zero() {
            log::info!("/lb/health says so from now on; draining in {delay:?}; a second signal ends at once");
        }
        let until = Instant::now() + delay;
        loop {
            select_biased! {
                recv(told) -> signal => match signal {
                    Ok(SIGTERM | SIGINT) => return Ok(true),
                    Ok(signal) => self.heed(signal, log),
                    Err(_) => return Ok(false),
                },
                recv(self.ended) -> worker => return Err(broken(worker)),
                default(until.saturating_duration_since(Instant::now())) => return Ok(false),
            }
        }
    }

    /// Lets sessions end, at most for shutdown_timeout; a second signal ends at once, or a third where the first was none to
    /// end, but another process has taken the place of this one.
    fn drain(self, exit: Exit, how: End, told: &Receiver<i32>, log: &Log) -> Exit {
        let End { at_once, mut replaced } = how;
        let timeout = lock(&self.shutdown).timeout;
        // What workers close is to be closed.
        lock(&self.store).let_go();
        if at_once {
            log::warn!("ended at once by a second signal");
            self.order_all(|| WorkerMail::Cut);
        } else {
            log::info!("draining, at most for {timeout:?}; a second signal ends at once");
            self.order_all(|| WorkerMail::Drain);
        }
        let until = Instant::now() + timeout;
        // Each tells its end once, and one that had told it already is why we are here. Counting who is finished now would
        // count those twice whose word is still on its way, and then wait for the others deaf to signals and the clock.
        let mut left = self.workers.len() - usize::from(exit != Exit::Done);
        let mut cut_until = at_once.then(|| Instant::now() + CUT);
        while left > 0 {
            select_biased! {
                recv(told) -> signal => match signal {
                    Ok(SIGTERM | SIGINT) if std::mem::take(&mut replaced) => {
                        log::info!("draining already; another signal ends at once");
                    }
                    Ok(SIGTERM | SIGINT) if cut_until.is_some() => return exit,
                    Ok(SIGTERM | SIGINT) => {
                        log::warn!("ended at once by a second signal");
                        // Not by leaving it to the kernel, which would end every connection as if it were whole.
                        cut_until = Some(Instant::now() + CUT);
                        self.order_all(|| WorkerMail::Cut);
                    }
                    Ok(SIGHUP) => log::warn!("nothing is reloaded any more: this process ends"),
                    Ok(signal) => self.heed(signal, log),
                    Err(_) => return exit,
                },
                recv(self.ended) -> _ => left -= 1,
                default(cut_until.unwrap_or(until).saturating_duration_since(Instant::now())) => {
                    if cut_until.is_some() {
                        log::error!("a worker does not end; leaving it behind");
                        return exit;
                    }
                    log::warn!("the drain has lasted for {timeout:?}; cutting what is left");
                    cut_until = Some(Instant::now() + CUT);
                    self.order_all(|| WorkerMail::Cut);
                }
            }
        }
        let held: Vec<_> = self.workers.into_iter().map(JoinHandle::join).collect();
        drop(held);
        let (mail, control) = self.control;
        let _ = mail.send(ControlMail::Stop);
        let _ = control.join();
        log::info!("served {}", self.stats.totals());
        exit
    }
}

/// What is behind a lock here is a number that a panic leaves whole.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells that a worker has ended, however it did.
struct Last(WorkerId, Sender<WorkerId>);

impl Drop for Last {
    fn drop(&mut self) {
        let _ = self.1.try_send(self.0);
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Without waiting for anybody.
    at_once: bool,
    /// Another process serves in place of this one.
    replaced: bool,
}

/// A worker has ended by itself.
fn broken(worker: Result<WorkerId, RecvError>) -> Exit {
    log::error!("{worker:?} is gone, and the rest with it; this is a bug, please report it");
    Exit::Config
}
