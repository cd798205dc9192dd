//! One measurement of one party: start the load, wait until it flows, look twice, subtract.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::args::{Protocol, Scenario};
use crate::figures::Memory;
use crate::measure::{Watch, memory};
use crate::netns::{Interrupt, Place};
use crate::party::Party;
use crate::role::{Reading, Role};
use crate::rows::{Growth, Sample, Work};
use crate::syscalls::{self, Syscalls};

/// How long the load runs before it is measured.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
const SYSCALL_WINDOW: Duration = Duration::from_secs(1);
/// What has not come back by then is lost.
const HOMECOMING: Duration = Duration::from_millis(500);

/// A party under load.
pub(crate) struct Running<'a> {
    pub(crate) load: &'a mut Role,
    pub(crate) place: &'a Place,
    pub(crate) interrupt: &'a Interrupt,
    /// Of `udp-loss`, datagrams a second.
    pub(crate) rate: u32,
}

impl Running<'_> {
    /// Starts the load, and waits until it flows and everything is warm.
    fn warm(&mut self, scenario: Scenario, party: &mut Party) -> Result<(), String> {
        self.order(scenario, party, scenario.connections())?;
        self.interrupt.sleep(WARM_UP)
    }

    /// Gives an order, and waits until each connection has done a unit of work.
    fn order(&mut self, scenario: Scenario, party: &mut Party, count: usize) -> Result<(), String> {
        let congestion = self.place.congestion_of_load().filter(|_| scenario.protocol() != Protocol::Udp);
        let congestion = congestion.map(|name| format!(" {name}")).unwrap_or_default();
        self.load.ask(&format!("{} {} {count}{congestion}", scenario.order(self.rate), party.address))?;
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

    /// Measures a window of length `time`.
    pub(crate) fn sample(
        &mut self,
        scenario: Scenario,
        party: &mut Party,
        watch: &Watch,
        time: Duration,
    ) -> Result<Sample, String> {
        self.warm(scenario, party)?;
        self.load.ask("mark")?;
        let (first, before) = (self.read()?, watch.snapshot());
        self.interrupt.sleep(time)?;
        let (last, after) = (self.read()?, watch.snapshot());
        party.alive()?;
        if last.units == first.units {
            return Err("no unit of work was done in the window".to_owned());
        }
        let held: Memory = memory(&watch.proxy)?;
        let work = Work {
            units: (last.units - first.units) as f64 / scenario.counted_per_unit(),
            seconds: (last.at_ns - first.at_ns) as f64 / 1e9,
            errors: last.errors - first.errors,
            lost: if scenario.protocol() == Protocol::Udp { Some(self.lost()?) } else { None },
        };
        Ok(Sample::new(work, watch.window(&before, &after), held))
    }

    /// The share of the datagrams sent since the mark that do not come back: 0 to 1. Nothing is sent any more.
    fn lost(&mut self) -> Result<f64, String> {
        self.load.ask("pause")?;
        let end = Instant::now() + HOMECOMING;
        loop {
            let reading = self.read()?;
            if reading.lost == 0 || Instant::now() > end {
                return Ok(reading.lost as f64 / reading.sent.max(1) as f64);
            }
            self.interrupt.sleep(Duration::from_millis(10))?;
        }
    }

    /// Counts system calls, in windows of their own.
    pub(crate) fn syscalls(
        &mut self,
        scenario: Scenario,
        party: &mut Party,
        directory: &Path,
    ) -> Result<Syscalls, String> {
        self.warm(scenario, party)?;
        syscalls::count(&party.pids(), directory, &mut || {
            let first = self.read()?;
            self.interrupt.sleep(SYSCALL_WINDOW)?;
            Ok((self.read()?.units - first.units) as f64 / scenario.counted_per_unit())
        })
    }

    /// Measures what `count` idle connections make a freshly started party grow.
    pub(crate) fn growth(&mut self, scenario: Scenario, party: &mut Party, count: u64) -> Result<Growth, String> {
        // What every process needs once (lazily filled tables, first pages of a heap) is not the connections' cost.
        self.order(scenario, party, 8)?;
        self.load.ask("stop")?;
        let before = self.steady(party)?;
        let errors = self.read()?.errors;
        self.order(scenario, party, count as usize)?;
        let after = self.steady(party)?;
        let reading = self.read()?;
        let errors = reading.errors.saturating_sub(errors);
        Ok(Growth { connections: count, backend_connections: reading.backend_open, errors, before, after })
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
