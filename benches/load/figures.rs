//! Figures and how they are shown: medians, what /proc and perf print, tables. Pure: text and numbers in, text and
//! numbers out, so that `tests/bench_figures.rs` can include this file and hold it to examples.

use std::collections::BTreeMap;

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` when there is no figure. An even count has the mean of the two in the middle as its median.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

/// The time a task has run, in ns: the first field of /proc/PID/task/TID/schedstat.
pub(crate) fn schedstat_ns(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// What a processor did since the machine started, in ticks (proc_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuTicks {
    pub(crate) busy: u64,
    pub(crate) idle: u64,
    /// Time in which the hypervisor ran somebody else.
    pub(crate) stolen: u64,
}

impl CpuTicks {
    /// The share of the time between `before` and now that `busy` took: 0 to 1.
    pub(crate) fn busy_since(self, before: Self) -> f64 {
        let busy = self.busy.saturating_sub(before.busy) as f64;
        let rest = self.idle.saturating_sub(before.idle) + self.stolen.saturating_sub(before.stolen);
        if busy + rest as f64 == 0.0 { 0.0 } else { busy / (busy + rest as f64) }
    }
}

/// Each processor of /proc/stat by its number.
pub(crate) fn cpu_ticks(proc_stat: &str) -> BTreeMap<usize, CpuTicks> {
    let one = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        // The line of the whole machine has no number.
        let number = words.next()?.strip_prefix("cpu")?.parse().ok()?;
        let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal guest guest_nice; guest time is inside user time
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
        let busy = at(0) + at(1) + at(2) + at(5) + at(6);
        Some((number, CpuTicks { busy, idle: at(3) + at(4), stolen: at(7) }))
    };
    proc_stat.lines().filter_map(one).collect()
}

/// The parent of a process: the fourth field of /proc/PID/stat. The second, a name, may hold blanks and brackets.
pub(crate) fn parent_pid(proc_pid_stat: &str) -> Option<u32> {
    let (_, after_name) = proc_pid_stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Memory of one or several processes, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    /// As RSS, a page that n processes share counting as 1/n: several processes may be added up.
    pub(crate) pss: u64,
    /// Pages that nobody shares.
    pub(crate) private: u64,
}

impl Memory {
    /// Reads /proc/PID/smaps_rollup.
    pub(crate) fn parse(smaps_rollup: &str) -> Self {
        let mut memory = Self::default();
        for line in smaps_rollup.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(Ok(kib))) = (words.next(), words.next().map(str::parse::<u64>)) else {
                continue;
            };
            match name {
                "Rss:" => memory.rss += kib,
                "Pss:" => memory.pss += kib,
                "Private_Clean:" | "Private_Dirty:" => memory.private += kib,
                _ => {}
            }
        }
        memory
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { rss: self.rss + other.rss, pss: self.pss + other.pss, private: self.private + other.private }
    }
}

/// Counts by event from `perf stat -x ';'`. Events that perf could not count are left out.
pub(crate) fn perf_counts(csv: &str) -> BTreeMap<String, u64> {
    let one = |line: &str| {
        let mut fields = line.split(';');
        let count = fields.next()?.parse().ok()?;
        let event = fields.nth(1)?;
        Some((event.to_owned(), count))
    };
    csv.lines().filter_map(one).collect()
}

/// A table of text. The first `left` columns are words, set to the left; the others are figures, set to the right.
pub(crate) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(left: usize, head: &[&str]) -> Self {
        Self { left, rows: vec![head.iter().map(|word| (*word).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// As a Markdown table with aligned columns: readable in a terminal, and fit for a page.
    /// Columns that no row has anything in are left out.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let used: Vec<usize> =
            (0..columns).filter(|&column| self.rows[1..].iter().any(|row| !cell(row, column).is_empty())).collect();
        let width = |column: usize| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for &column in &used {
                let (words, wide) = (cell(row, column), width(column).max(3));
                let padded =
                    if column < self.left { format!("| {words:<wide$} ") } else { format!("| {words:>wide$} ") };
                text.push_str(&padded);
            }
            text.push_str("|\n");
            if number == 0 {
                for &column in &used {
                    let line = "-".repeat(width(column).max(3) + 1);
                    text.push_str(&if column < self.left { format!("|{line}-") } else { format!("|{line}:") });
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// A figure with three significant digits or so, thousands set apart: `0.97`, `38.6`, `128 400`.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 100.0 => format!("{figure:.1}"),
        _ => {
            let digits = format!("{:.0}", figure.abs());
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    text.push(' ');
                }
                text.push(digit);
            }
            if figure < 0.0 { format!("-{text}") } else { text }
        }
    }
}

/// A share of what was lost, as a percentage: nothing looks like something, and something never like nothing.
pub(crate) fn loss(share: f64) -> String {
    match share * 100.0 {
        none if none <= 0.0 => "0%".to_owned(),
        little if little < 0.001 => "<0.001%".to_owned(),
        some if some < 1.0 => format!("{some:.3}%"),
        much => format!("{much:.1}%"),
    }
}

/// A share as a percentage without decimals.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}
