//! Plain load on one http:// address: so many GET requests over so many keep-alive connections, a thread each; then
//! counts, rate and latencies. One's own server is tried with it, so it is simple rather than fast: for comparing
//! proxies there are the scenarios.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use crate::args::Args;
use crate::figures::short;
use crate::http::{Answer, Failure, Incoming, Target};
use crate::measure::raise_descriptor_limit;
use crate::netns::Interrupt;

/// Sends the load; fails when nothing succeeded.
pub(crate) fn run(url: &str, args: &Args) -> ExitCode {
    match load(url, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("load: {why}");
            ExitCode::FAILURE
        }
    }
}

fn load(url: &str, args: &Args) -> Result<bool, String> {
    let target = Target::parse(url)?;
    let resolved = (target.host.as_str(), target.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = resolved.map_err(|err| format!("{}: {err}", target.host))?.collect();
    let interrupt = Interrupt::watch()?;
    raise_descriptor_limit()?;
    let job = Job {
        request: target.request(),
        addresses,
        timeout: args.timeout,
        requests: args.requests,
        taken: AtomicU64::new(0),
        interrupt,
    };
    let threads = u64::from(args.concurrency).min(args.requests);
    let started = Instant::now();
    let mut result = Tally::new(args.timeout)?;
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for _ in 0..threads {
            let tally = Tally::new(args.timeout)?;
            let thread = std::thread::Builder::new().stack_size(256 * 1024);
            let thread = thread.spawn_scoped(scope, || Worker { job: &job, tally, open: None }.work());
            running.push(thread.map_err(|err| format!("only {} connections: {err}", running.len()))?);
        }
        show_progress(&job, &|| running.iter().all(std::thread::ScopedJoinHandle::is_finished));
        for thread in running {
            result.add(&thread.join().map_err(|_| "a thread panicked")?)?;
        }
        Ok::<(), String>(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    print!("{}", result.text(url, args, seconds));
    if let Some(path) = &args.output {
        let text = serde_json::to_string_pretty(&result.json(url, args, seconds)).map_err(|err| err.to_string())?;
        std::fs::write(path, text + "\n").map_err(|err| format!("{}: {err}", path.display()))?;
    }
    Ok(result.succeeded() > 0)
}

/// What all threads work on.
struct Job {
    request: Vec<u8>,
    addresses: Vec<SocketAddr>,
    timeout: Duration,
    requests: u64,
    taken: AtomicU64,
    interrupt: Interrupt,
}

impl Job {
    fn take(&self) -> bool {
        !self.interrupt.came() && self.taken.fetch_add(1, Ordering::Relaxed) < self.requests
    }
}

fn show_progress(job: &Job, all_done: &dyn Fn() -> bool) {
    let terminal = io::stderr().is_terminal();
    let mut shown = Instant::now();
    while !all_done() {
        std::thread::sleep(Duration::from_millis(5));
        if terminal && shown.elapsed() > Duration::from_millis(500) {
            eprint!("\r\x1b[K{} of {} requests", job.taken.load(Ordering::Relaxed).min(job.requests), job.requests);
            shown = Instant::now();
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
}

/// One connection's thread.
struct Worker<'a> {
    job: &'a Job,
    tally: Tally,
    open: Option<(TcpStream, Incoming)>,
}

impl Worker<'_> {
    fn work(mut self) -> Tally {
        while self.job.take() {
            let started = Instant::now();
            match self.exchange(started + self.job.timeout) {
                Ok(answer) => self.tally.answered(&answer, started.elapsed()),
                Err((during, failure)) => {
                    self.open = None;
                    *self.tally.errors.entry(kind(during, &failure)).or_default() += 1;
                }
            }
        }
        self.tally
    }

    fn exchange(&mut self, deadline: Instant) -> Result<Answer, (&'static str, Failure)> {
        if let Some((stream, incoming)) = self.open.take() {
            match self.on(stream, incoming, deadline) {
                // A server may close an idle connection at any time; that is no failure of the request.
                Err((Failure::ClosedEarly, false)) => self.tally.reconnects += 1,
                Err((Failure::Io(err), false)) if is_reset(&err) => self.tally.reconnects += 1,
                Err((failure, _)) => return Err(("response", failure)),
                Ok(answer) => return Ok(answer),
            }
        }
        let stream = self.connect(deadline).map_err(|err| ("connect", Failure::Io(err)))?;
        self.on(stream, Incoming::new(), deadline).map_err(|(failure, _)| ("response", failure))
    }

    fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in &self.job.addresses {
            match TcpStream::connect_timeout(address, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(self.job.timeout))?;
                    return Ok(stream);
                }
                Err(err) => last = err,
            }
        }
        Err(last)
    }

    /// The failure says whether bytes of a response had come.
    fn on(&mut self, stream: TcpStream, mut incoming: Incoming, deadline: Instant) -> Result<Answer, (Failure, bool)> {
        let mut timed = Timed { stream: &stream, deadline, read_any: false };
        (&stream).write_all(&self.job.request).map_err(|err| (Failure::Io(err), false))?;
        let answer = incoming.answer(&mut timed);
        let read_any = timed.read_any;
        let answer = answer.map_err(|failure| (failure, read_any))?;
        // Bytes behind a response belong to no request of ours.
        if answer.keep && incoming.is_empty() {
            self.open = Some((stream, incoming));
        }
        Ok(answer)
    }
}

/// A stream whose reads end at a deadline.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
    read_any: bool,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        let count = self.stream.read(buffer)?;
        self.read_any |= count > 0;
        Ok(count)
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn is_reset(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

/// What went wrong, in words that add up: no ports or times in them.
fn kind(during: &str, failure: &Failure) -> String {
    match failure {
        Failure::ClosedEarly => "response: closed early".to_owned(),
        Failure::NotHttp(what) => format!("response: not HTTP: {what}"),
        Failure::Io(err) => match err.kind() {
            // A read that runs into its time limit says `WouldBlock`.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => format!("{during}: timeout"),
            ErrorKind::ConnectionRefused => format!("{during}: refused"),
            _ if is_reset(err) => format!("{during}: reset"),
            _ => format!("{during}: {err}"),
        },
    }
}

/// Counts of one thread, or of all.
struct Tally {
    /// In us.
    latency: Histogram<u64>,
    status: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    body_bytes: u64,
    /// Keep-alive connections that the server had closed meanwhile.
    reconnects: u64,
}

impl Tally {
    fn new(timeout: Duration) -> Result<Self, String> {
        let most = (timeout.as_micros() as u64).max(1000).saturating_mul(2);
        let latency = Histogram::new_with_bounds(1, most, 3).map_err(|err| format!("--timeout: {err}"))?;
        Ok(Self { latency, status: BTreeMap::new(), errors: BTreeMap::new(), body_bytes: 0, reconnects: 0 })
    }

    fn answered(&mut self, answer: &Answer, latency: Duration) {
        self.latency.saturating_record((latency.as_micros() as u64).max(1));
        *self.status.entry(answer.status).or_default() += 1;
        self.body_bytes += answer.body_bytes;
    }

    fn add(&mut self, other: &Self) -> Result<(), String> {
        self.latency.add(&other.latency).map_err(|err| err.to_string())?;
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.body_bytes += other.body_bytes;
        self.reconnects += other.reconnects;
        Ok(())
    }

    /// Answered at all.
    fn completed(&self) -> u64 {
        self.status.values().sum()
    }

    /// Answered with 2xx or 3xx.
    fn succeeded(&self) -> u64 {
        self.status.range(200..400).map(|(_, count)| count).sum()
    }

    fn tried(&self) -> u64 {
        self.completed() + self.errors.values().sum::<u64>()
    }

    fn success_rate(&self) -> f64 {
        self.succeeded() as f64 / self.tried().max(1) as f64
    }

    fn percentiles(&self) -> [(&'static str, f64); 8] {
        let at = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        [
            ("min", self.latency.min() as f64 / 1000.0),
            ("mean", self.latency.mean() / 1000.0),
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p95", at(0.95)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", self.latency.max() as f64 / 1000.0),
        ]
    }

    fn text(&self, url: &str, args: &Args, seconds: f64) -> String {
        let (tried, succeeded) = (self.tried(), self.succeeded());
        let mut text = format!("{url}: {tried} requests, {} at once, in {seconds:.3} s\n", args.concurrency);
        if tried < args.requests {
            text.push_str(&format!("interrupted: {} were asked for\n", args.requests));
        }
        let rate = self.success_rate() * 100.0;
        text.push_str(&format!("succeeded    {succeeded} ({rate:.2} %), failed {}\n", tried - succeeded));
        let answered = self.completed() as f64 / seconds;
        let bytes = self.body_bytes as f64 / seconds / 1e6;
        text.push_str(&format!("answers      {}/s, {} MB/s of bodies\n", short(answered), short(bytes)));
        if self.completed() > 0 {
            let list: Vec<String> =
                self.percentiles().iter().map(|(name, ms)| format!("{name} {}", short(*ms))).collect();
            text.push_str(&format!("latency, ms  {}\n", list.join("  ")));
        }
        for (status, count) in &self.status {
            text.push_str(&format!("status {status}   {count}\n"));
        }
        for (kind, count) in &self.errors {
            text.push_str(&format!("error        {kind}: {count}\n"));
        }
        text
    }

    fn json(&self, url: &str, args: &Args, seconds: f64) -> serde_json::Value {
        let answered = self.completed() > 0;
        let latency: Option<BTreeMap<_, _>> = answered.then(|| self.percentiles().into_iter().collect());
        json!({
            "url": url,
            "concurrency": args.concurrency,
            "requests": self.tried(),
            "completed": self.completed(),
            "succeeded": self.succeeded(),
            "failed": self.tried() - self.succeeded(),
            "success_rate": self.success_rate(),
            "seconds": seconds,
            "requests_per_second": self.completed() as f64 / seconds,
            "body_bytes": self.body_bytes,
            "reconnects": self.reconnects,
            "latency_ms": latency,
            "status": self.status,
            "errors": self.errors,
        })
    }
}
