//! One run: every scenario, worker count, round and party in turn (A B C A B C ...), so that what changes on the
//! machine meanwhile meets all parties alike.

use std::fs;
use std::path::PathBuf;

use crate::args::{Args, Kind, Protocol, Scenario};
use crate::backend::{BULK, HTTP};
use crate::echo::UDP;
use crate::measure::{Layout, Watch, raise_descriptor_limit, softirq_threads};
use crate::netns::{Interrupt, Place};
use crate::party::{Entrant, Party, Terms, on_path};
use crate::progress::Progress;
use crate::role::Role;
use crate::rows::{Row, mark_disturbed};
use crate::window::Running;

/// Idle connections aimed at; a proxy needs two descriptors for each.
const IDLE: u64 = 10_000;
/// What a proxy may need besides.
const SPARE_DESCRIPTORS: u64 = 400;

/// Everything that a run found out.
pub(crate) struct Findings {
    pub(crate) entrants: Vec<Entrant>,
    pub(crate) layouts: Vec<(u16, Layout)>,
    pub(crate) rows: Vec<Row>,
    /// What was asked for and is not there, and why.
    pub(crate) left_out: Vec<String>,
    /// l4lb was asked for, and something of it could not be measured.
    pub(crate) l4lb_failed: bool,
}

/// Measures what `args` asks for.
pub(crate) fn run(args: &Args, place: &Place, interrupt: &Interrupt) -> Result<Findings, String> {
    let scratch = Scratch::create(place)?;
    let mut entrants = Vec::new();
    let mut left_out = Vec::new();
    let mut l4lb_failed = false;
    for &kind in &args.peer {
        match Entrant::find(kind) {
            Ok(entrant) => entrants.push(entrant),
            Err(why) => {
                l4lb_failed |= kind == Kind::L4lb;
                left_out.push(why);
            }
        }
    }
    let mut stage = Stage {
        args,
        place,
        interrupt,
        scratch,
        idle: IDLE.min(raise_descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS) / 2),
        perf: args.syscalls,
        progress: Progress::new(args, &entrants),
        rows: Vec::new(),
        left_out,
        l4lb_failed,
    };
    if stage.perf
        && let Err(why) = on_path("perf")
    {
        stage.left_out.push(format!("system calls: {why} (Debian: linux-perf, Ubuntu: linux-tools-generic)"));
        stage.perf = false;
    }
    let mut layouts = Vec::new();
    for &workers in &args.workers {
        let layout = Layout::of(usize::from(workers))?;
        stage.with_workers(workers, &layout, &entrants)?;
        layouts.push((workers, layout));
    }
    stage.progress.end();
    mark_disturbed(&mut stage.rows);
    Ok(Findings { entrants, layouts, rows: stage.rows, left_out: stage.left_out, l4lb_failed: stage.l4lb_failed })
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
    l4lb_failed: bool,
}

impl Stage<'_> {
    fn with_workers(&mut self, workers: u16, layout: &Layout, entrants: &[Entrant]) -> Result<(), String> {
        // Ports of each party's own, used again when idle memory wants a fresh process: that comes after, not beside it.
        let count = entrants.len();
        let ports = self.place.free_ports(5 * count, 2000)?;
        let group = |which: usize| &ports[which * count..(which + 1) * count];
        let (front, echo, http, bulk, udp) = (group(0), group(1), group(2), group(3), group(4));
        let prefixed = |prefix: &'static str, ports: &[u16]| -> Vec<String> {
            ports.iter().map(|port| format!("{prefix}{port}")).collect()
        };
        let congestion = self.place.congestion_of_load().unwrap_or("-").to_owned();
        let mut words = vec![congestion];
        for (prefix, ports) in [("", echo), (HTTP, http), (BULK, bulk), (UDP, udp)] {
            words.extend(prefixed(prefix, ports));
        }
        let mut load = Layout::on(&layout.load, || Role::start(&words))?;
        let directory = self.scratch.0.clone();
        let backends = [(Protocol::Tcp, echo), (Protocol::Bulk, bulk), (Protocol::Udp, udp), (Protocol::Http, http)];
        for (protocol, behind) in backends {
            let terms = |index: usize| Terms {
                protocol,
                workers,
                port: front[index],
                backend_port: behind[index],
                connections: self.idle + 16,
                layout,
                directory: &directory,
            };
            let terms: Vec<Terms<'_>> = (0..entrants.len()).map(terms).collect();
            self.with_protocol(protocol, entrants, &terms, &mut load)?;
        }
        Ok(())
    }

    fn with_protocol(
        &mut self,
        protocol: Protocol,
        entrants: &[Entrant],
        terms: &[Terms<'_>],
        load: &mut Role,
    ) -> Result<(), String> {
        let Some(&Terms { workers, layout, .. }) = terms.first() else {
            return Ok(());
        };
        let ours = self.args.scenario.iter().filter(|scenario| scenario.protocol() == protocol);
        let (idle, moving): (Vec<Scenario>, Vec<Scenario>) = ours.partition(|scenario| scenario.is_idle());
        if !moving.is_empty() {
            let mut parties = Vec::new();
            for (entrant, terms) in entrants.iter().zip(terms) {
                match Party::start(entrant, terms, self.interrupt) {
                    Ok(party) => parties.push(party),
                    Err(why) => self.leave_out(workers, entrant.kind, protocol.name(), &why)?,
                }
            }
            for scenario in moving {
                self.moving(scenario, workers, layout, &mut parties, load)?;
            }
        }
        for scenario in idle {
            self.idle(scenario, workers, entrants, terms, load)?;
        }
        Ok(())
    }

    fn running<'a>(&'a self, load: &'a mut Role) -> Running<'a> {
        Running { load, place: self.place, interrupt: self.interrupt, rate: self.args.rate }
    }

    fn leave_out(&mut self, workers: u16, kind: Kind, scenario: &str, why: &str) -> Result<(), String> {
        if self.interrupt.came() {
            return Err("interrupted".to_owned());
        }
        self.l4lb_failed |= kind == Kind::L4lb;
        let told = format!("{scenario}, {workers} worker(s), {}: {why}", kind.name());
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
        self.rows.extend(parties.iter().map(|party| Row::new(scenario, workers, party.kind)));
        for round in 1..=self.args.rounds {
            let mut failed = Vec::new();
            for (index, party) in parties.iter_mut().enumerate() {
                self.progress.at(scenario, workers, &format!("round {round}"), party.kind);
                let (softirq, layout) = (softirq.clone(), layout.clone());
                let watch = Watch { proxy: party.pids(), load: load.pid(), softirq, layout };
                let mut window = self.running(load);
                let result = window.sample(scenario, party, &watch, self.args.seconds);
                load.ask("stop")?;
                match result {
                    Ok(sample) => {
                        self.progress.found(&sample.told(scenario));
                        self.rows[first_row + index].samples.push(sample);
                    }
                    Err(why) => failed.push((index, why)),
                }
            }
            for (index, why) in failed.into_iter().rev() {
                self.leave_out(workers, parties[index].kind, scenario.name(), &why)?;
                self.rows.remove(first_row + index);
                parties.remove(index);
            }
        }
        for (index, party) in parties.iter_mut().enumerate().filter(|(_, party)| party.kind != Kind::Direct) {
            if !self.perf {
                break;
            }
            self.progress.at(scenario, workers, "system calls", party.kind);
            let mut window = self.running(load);
            let result = window.syscalls(scenario, party, &self.scratch.0);
            load.ask("stop")?;
            match result {
                Ok(counts) => {
                    self.progress.found(&format!("{:.2} a unit", counts.per_unit));
                    self.rows[first_row + index].syscalls = Some(counts);
                }
                Err(_) if self.interrupt.came() => return Err("interrupted".to_owned()),
                Err(why) => {
                    self.left_out.push(format!("system calls: {why}"));
                    self.perf = false; // what perf may not do now, it may not do later
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
        let proxies = || entrants.iter().zip(terms).filter(|(entrant, _)| entrant.kind != Kind::Direct);
        self.rows.extend(proxies().map(|(entrant, _)| Row::new(scenario, workers, entrant.kind)));
        for round in 1..=self.args.rounds {
            for (index, (entrant, terms)) in proxies().enumerate() {
                self.progress.at(scenario, workers, &format!("round {round}"), entrant.kind);
                let mut window = self.running(load);
                let result = Party::start(entrant, terms, self.interrupt).and_then(|mut party| {
                    let growth = window.growth(scenario, &mut party, self.idle);
                    window.load.ask("stop")?; // before the party goes: nothing is to connect any more
                    growth
                });
                match result {
                    Ok(growth) => {
                        self.progress.found(&growth.to_string());
                        self.rows[first_row + index].growth.push(growth);
                    }
                    Err(why) => self.leave_out(workers, entrant.kind, scenario.name(), &why)?,
                }
            }
        }
        self.rows.retain(|row| row.scenario != scenario || !row.growth.is_empty());
        Ok(())
    }
}

/// A directory for configurations, logs and pipes; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create(place: &Place) -> Result<Self, String> {
        let path = place.directory();
        fs::create_dir(&path).map_err(|err| format!("{}: {err}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
