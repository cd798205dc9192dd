//! Takes sockets from the store, starts threads, handles signals, joins.
//!
//! `app` alone knows every room; it decides nothing about a connection.

mod limits;
mod logging;
mod reload;
mod store;

use crate::app::reload::Loader;
use crate::app::store::Store;
use crate::base::exit::Exit;
use crate::base::ids::WorkerId;
use crate::base::machine::own_addresses;
use crate::base::time::Clock;
use crate::config::{Config, Protocol, Serves, Transport};
use crate::control::{Control, Orders, Plan};
use crate::discovery::{Name, Resolver};
use crate::guard::Cap;
use crate::health::Checker;
use crate::link::plain::PlainStream;
use crate::shared::hub::Hub;
use crate::shared::mail::{ControlMail, Moves, Reload, WorkerMail, WorkerPost, control_box};
use crate::shared::queue::Wakers;
use crate::stats::Stats;
use crate::worker::thread::{Common, Held, Worker};
use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the start waits for names to be resolved; the rest come later, by mail.
const FIRST_NAMES: Duration = Duration::from_secs(2);
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
    let log = match logging::start(&config.global, options.debug) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Config;
        }
    };
    let exit = serve(config, options);
    log.finish();
    exit
}

fn serve(config: Config, options: Options) -> Exit {
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
    let workers = limits::workers(config.global.workers);
    let mut store = Store::new(workers, options.told_by);
    let opened = match store.open(&config) {
        Ok(opened) => opened,
        Err(error) => {
            log::error!("{error}");
            return Exit::Bind;
        }
    };
    let bound = opened.bound;
    let running = match Running::start(config, (store, opened.moves), workers, &options) {
        Ok(running) => running,
        Err(error) => {
            log::error!("cannot start: {error}");
            return Exit::Config;
        }
    };
    bound.iter().for_each(announce);
    if let Some(ready) = options.ready {
        ready(&bound);
    }
    running.until_told(options.stop.unwrap_or_default(), signals)
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
        if config.listeners.iter().all(|listener| listener.serves == Serves::Traffic) {
            log::warn!(
                "admin.token_file: nothing serves /lb/*; write listen in [admin], or admin = true in a [[listener]]"
            );
        }
    }
}

/// Everything that runs.
struct Running {
    posts: Vec<WorkerPost<PlainStream>>,
    /// Told by each worker as its last act; a worker that ends untold is a bug.
    ended: Receiver<WorkerId>,
    workers: Vec<JoinHandle<Option<Held>>>,
    control: (Sender<ControlMail>, JoinHandle<()>),
    stats: Arc<Stats>,
    store: Arc<Mutex<Store>>,
    /// A reload may change it.
    shutdown_timeout: Arc<Mutex<Duration>>,
}

impl Running {
    fn start(
        config: Config,
        (store, moves): (Store, Moves),
        workers: usize,
        options: &Options,
    ) -> std::io::Result<Running> {
        let clock = Clock::start();
        let global = config.global.clone();
        let pipes = limits::pipes(workers);
        let most = limits::connections(global.max_connections, pipes * workers);
        let possible = limits::connections(0, pipes * workers);
        let connections = Cap::new(most);
        let (mail, mailbox) = control_box();
        let (resolver, first) = Resolver::start(Name::of(&config), mail.clone(), FIRST_NAMES)?;
        let wakers = Wakers::default();
        let mut plan = Plan::new(config, workers).listening(moves.bound, own_addresses).waking(wakers.clone());
        for (name, addresses) in first {
            plan.resolved(name.host, name.port, addresses);
        }
        let ids = plan.listener_ids().to_vec();
        let first = plan.build();
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
            built.push(Worker::new(WorkerId(at as u16), common.clone(), listen.with(|at| ids[at]).open)?);
        }
        let posts: Vec<_> = built.iter().map(Worker::post).collect();
        let _ = wakers.set(posts.iter().map(WorkerPost::waker).collect());
        let checker = Checker::start(clock, mail.clone())?;
        let shutdown_timeout = Arc::new(Mutex::new(global.shutdown_timeout));
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
                let (debug, shutdown_timeout) = (options.debug, shutdown_timeout.clone());
                Box::new(move |global| {
                    logging::set_level(global, debug);
                    let wanted = global.max_connections;
                    connections.set_limit(if wanted == 0 { possible } else { wanted.min(possible) });
                    *lock(&shutdown_timeout) = global.shutdown_timeout;
                })
            },
        };
        let control = Control::new(plan, hub, posts.clone(), clock, mailbox, orders);
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
        Ok(Running { posts, ended, workers: threads, control, stats, store, shutdown_timeout })
    }

    fn until_told(self, stop: Stop, mut signals: Signals) -> Exit {
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
        let exit = loop {
            select_biased! {
                recv(told) -> signal => match signal {
                    Ok(SIGTERM | SIGINT) => break Exit::Done,
                    Ok(SIGHUP) => _ = self.control.0.send(ControlMail::Reload(Reload::default())),
                    Ok(signal) => log::warn!("{} is not supported yet; nothing is changed", signal_name(signal)),
                    Err(_) => break Exit::Done,
                },
                recv(stop.told) -> _ => break Exit::Done,
                recv(self.ended) -> worker => {
                    log::error!("{worker:?} is gone, and the rest with it; this is a bug, please report it");
                    break Exit::Config;
                }
            }
        };
        let exit = self.drain(exit, &told);
        handle.close();
        exit
    }

    fn order_all(&self, mail: impl Fn() -> WorkerMail<PlainStream>) {
        for (at, post) in self.posts.iter().enumerate() {
            if !post.order(mail()) {
                log::error!("worker {at} takes no orders");
            }
        }
    }

    /// Lets sessions end, at most for shutdown_timeout; a second signal ends at once.
    fn drain(self, exit: Exit, told: &Receiver<i32>) -> Exit {
        let shutdown_timeout = *lock(&self.shutdown_timeout);
        log::info!("draining, at most for {shutdown_timeout:?}; a second signal ends at once");
        // What workers close is to be closed.
        lock(&self.store).let_go();
        self.order_all(|| WorkerMail::Drain);
        let until = Instant::now() + shutdown_timeout;
        // Each tells its end once, and one that had told it already is why we are here. Counting who is finished now would
        // count those twice whose word is still on its way, and then wait for the others deaf to signals and the clock.
        let mut left = self.workers.len() - usize::from(exit != Exit::Done);
        let mut cut_until = None;
        while left > 0 {
            select_biased! {
                recv(told) -> signal => if matches!(signal, Ok(SIGTERM | SIGINT)) {
                    if cut_until.is_some() {
                        return exit;
                    }
                    log::warn!("ended at once by a second signal");
                    // Not by leaving it to the kernel, which would end every connection as if it were whole.
                    cut_until = Some(Instant::now() + CUT);
                    self.order_all(|| WorkerMail::Cut);
                },
                recv(self.ended) -> _ => left -= 1,
                default(cut_until.unwrap_or(until).saturating_duration_since(Instant::now())) => {
                    if cut_until.is_some() {
                        log::error!("a worker does not end; leaving it behind");
                        return exit;
                    }
                    log::warn!("the drain has lasted for {shutdown_timeout:?}; cutting what is left");
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

fn signal_name(signal: i32) -> &'static str {
    match signal {
        SIGUSR1 => "SIGUSR1 (reopen logs)",
        SIGUSR2 => "SIGUSR2 (upgrade)",
        _ => "this signal",
    }
}
