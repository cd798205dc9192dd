//! What was found out about one party in one scenario, window by window, and the figures it comes to.

use std::fmt::{Display, Formatter};

use crate::args::{Kind, Protocol, Scenario};
use crate::figures::{Memory, Spread, loss, short};
use crate::measure::Window;
use crate::syscalls::Syscalls;

/// Above this share of the machine, other programs disturb the figures.
const DISTURBED: f64 = 0.05;

/// One window of one party.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Sample {
    /// As [`Scenario::unit`] says.
    pub(crate) units: f64,
    pub(crate) errors: u64,
    /// UDP: the share of the datagrams that did not come back, 0 to 1.
    pub(crate) lost: Option<f64>,
    pub(crate) units_per_second: f64,
    /// None for `direct`.
    pub(crate) cpu_us_per_unit: Option<f64>,
    pub(crate) window: Window,
    /// Of the proxy's processes, under this load, in KiB.
    pub(crate) memory_kib: Memory,
}

/// What the load has done in a window.
pub(crate) struct Work {
    pub(crate) units: f64,
    /// Between the two counts of units; the window's own length is between the looks at /proc.
    pub(crate) seconds: f64,
    pub(crate) errors: u64,
    pub(crate) lost: Option<f64>,
}

impl Sample {
    pub(crate) fn new(work: Work, window: Window, memory_kib: Memory) -> Self {
        let Work { units, seconds, errors, lost } = work;
        let units_per_second = units / seconds;
        let cpu = window.proxy_cpu_seconds * 1e6 / window.seconds / units_per_second;
        let cpu_us_per_unit = (window.proxy_cpu_seconds > 0.0).then_some(cpu);
        Self { units, errors, lost, units_per_second, cpu_us_per_unit, window, memory_kib }
    }

    /// For the line of progress.
    pub(crate) fn told(&self, scenario: Scenario) -> String {
        let bulk = scenario.protocol() == Protocol::Bulk;
        let mut told = format!("{}{}/s", short(self.units_per_second), if bulk { " GB" } else { "" });
        if let Some(cpu) = self.cpu_us_per_unit {
            let (cpu, unit) = if bulk { (cpu / 1e3, "ms a GB") } else { (cpu, "us each") };
            told.push_str(&format!(", {} {unit}", short(cpu)));
        }
        if let Some(lost) = self.lost {
            told.push_str(&format!(", {} lost", loss(lost)));
        }
        told
    }

    fn disturbed(&self) -> bool {
        self.window.others_busy > DISTURBED
    }
}

/// What idle connections made a proxy grow.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Growth {
    pub(crate) connections: u64,
    /// To the backend, once everything stood still.
    pub(crate) backend_connections: usize,
    pub(crate) errors: u64,
    pub(crate) before: Memory,
    pub(crate) after: Memory,
}

impl Growth {
    pub(crate) fn bytes(&self, of: fn(&Memory) -> u64) -> f64 {
        (of(&self.after) as f64 - of(&self.before) as f64) * 1024.0 / self.connections as f64
    }
}

impl Display for Growth {
    fn fmt(&self, to: &mut Formatter<'_>) -> std::fmt::Result {
        let bytes = self.bytes(|memory| memory.pss);
        write!(to, "{bytes:.0} bytes each of {}; {} to the backend", self.connections, self.backend_connections)
    }
}

/// One party in one scenario with one worker count.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) workers: u16,
    pub(crate) party: Kind,
    /// One a round.
    pub(crate) samples: Vec<Sample>,
    /// Rounds, from 0, in which other programs took a noticeable share of the machine from any of the parties.
    pub(crate) disturbed: Vec<usize>,
    pub(crate) growth: Vec<Growth>,
    pub(crate) syscalls: Option<Syscalls>,
}

impl Row {
    pub(crate) fn new(scenario: Scenario, workers: u16, party: Kind) -> Self {
        Self {
            scenario,
            workers,
            party,
            samples: Vec::new(),
            disturbed: Vec::new(),
            growth: Vec::new(),
            syscalls: None,
        }
    }

    /// Over the rounds that count.
    pub(crate) fn spread(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let all = self.all_disturbed();
        let counts = |round: &usize| all || !self.disturbed.contains(round);
        let samples = self.samples.iter().enumerate().filter(|(round, _)| counts(round));
        Spread::of(samples.filter_map(|(_, sample)| of(sample)))
    }

    /// No round was quiet: then all count, and the row is marked.
    pub(crate) fn all_disturbed(&self) -> bool {
        self.disturbed.len() == self.samples.len()
    }

    pub(crate) fn idle_bytes(&self) -> Option<Spread> {
        Spread::of(self.growth.iter().map(|growth| growth.bytes(|memory| memory.pss)))
    }

    /// Connections to the backend beside the idle ones of clients.
    pub(crate) fn backend_connections(&self) -> Option<Spread> {
        Spread::of(self.growth.iter().map(|growth| growth.backend_connections as f64))
    }

    /// What parties are compared by: CPU per unit, or bytes per idle connection.
    pub(crate) fn cost(&self) -> Option<f64> {
        self.spread(|sample| sample.cpu_us_per_unit).or_else(|| self.idle_bytes()).map(|spread| spread.median)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.samples.iter().map(|sample| sample.errors).sum::<u64>()
            + self.growth.iter().map(|growth| growth.errors).sum::<u64>()
    }

    /// How busy the proxy was, of what it could have used; with shared processors that is the whole machine's time.
    pub(crate) fn saturation(&self, shared: bool) -> Option<f64> {
        let of = |sample: &Sample| match shared {
            true => Some(sample.window.machine_busy),
            false => Some(sample.window.proxy_cpu_seconds / sample.window.seconds / f64::from(self.workers)),
        };
        if self.party == Kind::Direct { None } else { self.spread(of).map(|spread| spread.median) }
    }
}

/// Finds the rounds that do not count: the same for all parties, so that medians are of the same rounds.
pub(crate) fn mark_disturbed(rows: &mut [Row]) {
    let at_once = |left: &Row, right: &Row| left.scenario == right.scenario && left.workers == right.workers;
    for together in rows.chunk_by_mut(at_once) {
        let rounds = together.iter().map(|row| row.samples.len()).max().unwrap_or(0);
        let disturbed = |round: usize| together.iter().any(|row| row.samples.get(round).is_some_and(Sample::disturbed));
        let disturbed: Vec<usize> = (0..rounds).filter(|&round| disturbed(round)).collect();
        for row in together {
            row.disturbed.clone_from(&disturbed);
        }
    }
}
