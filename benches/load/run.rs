//! One run: every scenario, worker count, round and party in turn (A B C A B C ...), so that what changes on the
//! machine meanwhile meets all parties alike.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::args::{Args, Kind, Scenario};
use crate::figures::Memory;
use crate::measure::{Layout, Watch, memory, softirq_threads};
use crate::netns::{Interrupt, Place};
use crate::party::{Entrant, Party, Terms, on_path};
use crate::report::{Growth, Progress, Row, Sample};
use crate::role::{Reading, Role};
use crate::syscalls;

/// Connections of the scenarios that move bytes.
const CONNECTIONS: usize = 64;
/// Idle connections aimed at; a proxy needs two descriptors for each.
const IDLE: u64 = 10_000;
/// What a proxy may need besides.
const SPARE_DESCRIPTORS: u64 = 400;
const WARM_UP: Duration = Duration::from_millis(500);
const SYSCALL_WINDOW: Duration = Duration::from_secs(1);

/// Everything that a run found out.
pub(crate) struct Findings {
    pub(crate) entrants: Vec<Entrant>,
    pub(crate) layouts: Vec<(u16, Layout)>,
    pub(crate) rows: Vec<Row>,
    /// What was asked for and is not there, and why.
    pub(crate) left_out: Vec<String>,
    /// l4lb was asked for and could not be measured.
    pub(crate) l4lb_failed: bool,
}

/// Measures what `args` asks for.
pub(crate) fn run(args: &Args, place: &Place, interrupt: &Interrupt) -> Result<Findings, String> {
    let scratch = Scratch::create()?;
    let mut entrants = Vec::new();
    let mut left_out = Vec::new();
    for &kind in &args.peer {
        match Entrant::find(kind) {
            Ok(entrant) => entrants.push(entrant),
            Err(why) => left_out.push(why),
        }
    }
    let mut stage = Stage {
        args,
        place,
        interrupt,
        scratch,
        idle: idle_connections(&mut left_out),
        perf: args.syscalls,
        progress: Progress::new(args, entrants.len()),
        rows: Vec::new(),
        left_out,
    };
    if stage.perf
        && let Err(why) = on_path("perf")
    {
        stage.left_out.push(format!(
            "system calls: {why} (Debian: linux-perf, Ubuntu: linux-tools-generic)"
        ));
        stage.perf = false;
    }
    let mut layouts = Vec::new();
    for &workers in &args.workers {
        let layout = Layout::of(usize::from(workers))?;
        stage.with_workers(workers, &layout, &entrants)?;
        layouts.push((workers, layout));
    }
    stage.progress.end();
    let measured = |kind| stage.rows.iter().any(|row: &Row| row.party == kind);
    let l4lb_failed = args.peer.contains(&Kind::L4lb) && !measured(Kind::L4lb);
    Ok(Findings {
        entrants,
        layouts,
        rows: stage.rows,
        left_out: stage.left_out,
        l4lb_failed,
    })
}

struct Stage<'a> {
    args: &'a Args,
    place: &'a Place,
    interrupt: &'a Interrupt,
    scratch: Scratch,
    idle: u64,
    perf: bool,
    progress: Progress,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

impl Stage<'_> {
    fn with_workers(
        &mut self,
        workers: u16,
        layout: &Layout,
        entrants: &[Entrant],
    ) -> Result<(), String> {
        // A port a party, used again when idle memory wants a fresh process: that comes after, not beside it.
        let ports = self.place.free_ports(2 * entrants.len(), 2000)?;
        let (front, behind) = ports.split_at(entrants.len());
        let congestion = self.place.congestion_of_load().unwrap_or("-").to_owned();
        let words: Vec<String> = std::iter::once(congestion)
            .chain(behind.iter().map(u16::to_string))
            .collect();
        let mut load = Layout::on(&layout.load, || Role::start(&words))?;
        let terms = |index: usize, directory| Terms {
            workers,
            port: front[index],
            backend_port: behind[index],
            connections: self.idle + 16,
            layout,
            directory,
        };
        let directory = self.scratch.0.clone();
        let terms: Vec<Terms<'_>> = (0..entrants.len())
            .map(|index| terms(index, directory.as_path()))
            .collect();
        let (moving, idle): (Vec<Scenario>, Vec<Scenario>) = self
            .args
            .scenario
            .iter()
            .partition(|&&scenario| scenario != Scenario::TcpIdle);
        if !moving.is_empty() {
            let mut parties = Vec::new();
            for (entrant, terms) in entrants.iter().zip(&terms) {
                match Party::start(entrant, terms, self.interrupt) {
                    Ok(party) => parties.push(party),
                    Err(why) => self.leave_out(workers, &why)?,
                }
            }
            for scenario in moving {
                self.moving(scenario, workers, layout, &mut parties, &mut load)?;
            }
        }
        for scenario in idle {
            self.idle(scenario, workers, entrants, &terms, &mut load)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, workers: u16, why: &str) -> Result<(), String> {
        if self.interrupt.came() {
            return Err("interrupted".to_owned());
        }
        let told = format!("with {workers} worker(s): {why}");
        if !self.left_out.contains(&told) {
            self.left_out.push(told);
        }
        Ok(())
    }

    /// A scenario that moves bytes: parties stay up, and take turns.
    fn moving(
        &mut self,
        scenario: Scenario,
        workers: u16,
        layout: &Layout,
        parties: &mut Vec<Party>,
        load: &mut Role,
    ) -> Result<(), String> {
        let softirq = softirq_threads();
        let first_row = self.rows.len();
        self.rows.extend(
            parties
                .iter()
                .map(|party| Row::new(scenario, workers, party.kind)),
        );
        let windows = self.args.rounds + u32::from(self.perf);
        for round in 1..=windows {
            let mut failed = Vec::new();
            for (index, party) in parties.iter_mut().enumerate() {
                let counting = round > self.args.rounds;
                if counting && party.kind == Kind::Direct {
                    continue;
                }
                self.progress
                    .at(scenario, workers, round, party.kind, counting);
                let watch = Watch {
                    proxy: party.pids(),
                    load: load.pid(),
                    softirq: softirq.clone(),
                    layout: layout.clone(),
                };
                let mut window = Running {
                    load: &mut *load,
                    place: self.place,
                    interrupt: self.interrupt,
                };
                let result = if counting {
                    window
                        .syscalls(scenario, party, &watch, &self.scratch.0)
                        .map(|counts| {
                            self.rows[first_row + index].syscalls = counts;
                            None
                        })
                } else {
                    window
                        .sample(scenario, party, &watch, self.args.seconds)
                        .map(Some)
                };
                load.ask("stop")?;
                match result {
                    Ok(Some(sample)) => {
                        self.progress.found(&sample);
                        self.rows[first_row + index].samples.push(sample);
                    }
                    Ok(None) => {}
                    Err(why) => failed.push((index, why)),
                }
            }
            for (index, why) in failed.into_iter().rev() {
                self.leave_out(
                    workers,
                    &format!("{} {}: {why}", scenario.name(), parties[index].kind.name()),
                )?;
                // Without a system call count a party goes on; without a measurement it is out.
                if round <= self.args.rounds {
                    self.rows.remove(first_row + index);
                    parties.remove(index);
                }
            }
        }
        Ok(())
    }

    /// Idle memory: a fresh process each time, since a proxy keeps for reuse what it once took.
    fn idle(
        &mut self,
        scenario: Scenario,
        workers: u16,
        entrants: &[Entrant],
        terms: &[Terms<'_>],
        load: &mut Role,
    ) -> Result<(), String> {
        let first_row = self.rows.len();
        let proxies = || {
            entrants
                .iter()
                .zip(terms)
                .filter(|(entrant, _)| entrant.kind != Kind::Direct)
        };
        self.rows
            .extend(proxies().map(|(entrant, _)| Row::new(scenario, workers, entrant.kind)));
        for round in 1..=self.args.rounds {
            for (index, (entrant, terms)) in proxies().enumerate() {
                self.progress
                    .at(scenario, workers, round, entrant.kind, false);
                let mut window = Running {
                    load: &mut *load,
                    place: self.place,
                    interrupt: self.interrupt,
                };
                let result = Party::start(entrant, terms, self.interrupt).and_then(|mut party| {
                    let growth = window.growth(&mut party, self.idle);
                    window.load.ask("stop")?; // before the party goes: nothing is to connect any more
                    growth
                });
                match result {
                    Ok(growth) => self.rows[first_row + index].growth.push(growth),
                    Err(why) => self.leave_out(
                        workers,
                        &format!("{} {}: {why}", scenario.name(), entrant.kind.name()),
                    )?,
                }
            }
        }
        self.rows
            .retain(|row| row.scenario != scenario || !row.growth.is_empty());
        Ok(())
    }
}

/// A party under load.
struct Running<'a> {
    load: &'a mut Role,
    place: &'a Place,
    interrupt: &'a Interrupt,
}

impl Running<'_> {
    /// Starts the load, and waits until it flows and everything is warm.
    fn warm(&mut self, scenario: Scenario, party: &mut Party) -> Result<(), String> {
        let order = match scenario {
            Scenario::TcpRr => "rr",
            Scenario::TcpConnect => "connect",
            Scenario::TcpIdle => "hold",
        };
        self.order(order, party, CONNECTIONS)?;
        self.interrupt.sleep(WARM_UP)
    }

    /// Gives an order, and waits until each connection has done a unit of work.
    fn order(&mut self, order: &str, party: &mut Party, count: usize) -> Result<(), String> {
        let congestion = self
            .place
            .congestion_of_load()
            .map(|name| format!(" {name}"))
            .unwrap_or_default();
        self.load
            .ask(&format!("{order} {} {count}{congestion}", party.address))?;
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let reading = self.load.ask("read")?;
            if reading.settled >= count {
                return Ok(());
            }
            party.alive()?;
            if Instant::now() > end {
                return Err(format!(
                    "only {} of {count} connections did anything within 30 s ({} failed)",
                    reading.settled, reading.errors
                ));
            }
            self.interrupt.sleep(Duration::from_millis(10))?;
        }
    }

    fn read(&mut self) -> Result<Reading, String> {
        self.load.ask("read")
    }

    fn sample(
        &mut self,
        scenario: Scenario,
        party: &mut Party,
        watch: &Watch,
        time: Duration,
    ) -> Result<Sample, String> {
        self.warm(scenario, party)?;
        let (first, before) = (self.read()?, watch.snapshot());
        self.interrupt.sleep(time)?;
        let (last, after) = (self.read()?, watch.snapshot());
        party.alive()?;
        let units = last.units - first.units;
        if units == 0 {
            return Err("no unit of work was done in the window".to_owned());
        }
        let held: Memory = memory(&watch.proxy)?;
        let seconds = (last.at_ns - first.at_ns) as f64 / 1e9;
        Ok(Sample::new(
            units,
            seconds,
            last.errors - first.errors,
            watch.window(&before, &after),
            held,
        ))
    }

    fn syscalls(
        &mut self,
        scenario: Scenario,
        party: &mut Party,
        watch: &Watch,
        directory: &std::path::Path,
    ) -> Result<Option<syscalls::Syscalls>, String> {
        self.warm(scenario, party)?;
        let counts = syscalls::count(&watch.proxy, directory, &mut || {
            let first = self.read()?;
            self.interrupt.sleep(SYSCALL_WINDOW)?;
            Ok(self.read()?.units - first.units)
        })?;
        Ok(Some(counts))
    }

    fn growth(&mut self, party: &mut Party, count: u64) -> Result<Growth, String> {
        // What every process needs once (lazily filled tables, first pages of a heap) is not the connections' cost.
        self.order("hold", party, 8)?;
        self.load.ask("stop")?;
        let before = self.steady(party)?;
        self.order("hold", party, count as usize)?;
        let after = self.steady(party)?;
        let reading = self.read()?;
        Ok(Growth {
            connections: count,
            errors: reading.errors,
            before,
            after,
        })
    }

    /// The proxy's memory once it stands still: equal for half a second, or as it is after 5 s.
    fn steady(&self, party: &mut Party) -> Result<Memory, String> {
        let pids = party.pids();
        let (mut last, mut equal) = (memory(&pids)?, 0);
        for _ in 0..50 {
            self.interrupt.sleep(Duration::from_millis(100))?;
            party.alive()?;
            let now = memory(&pids)?;
            equal = if now == last { equal + 1 } else { 0 };
            last = now;
            if equal == 5 {
                break;
            }
        }
        Ok(last)
    }
}

/// Raises the limit of descriptors as far as allowed; children inherit it.
fn idle_connections(left_out: &mut Vec<String>) -> u64 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match limit {
        Ok(limit) => IDLE.min(limit.saturating_sub(SPARE_DESCRIPTORS) / 2),
        Err(err) => {
            left_out.push(format!(
                "the limit of open files cannot be raised ({err}): 300 idle connections only"
            ));
            300
        }
    }
}

/// A directory for configurations, logs and pipes; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("l4lb-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|err| format!("{}: {err}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
