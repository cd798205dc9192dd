//! What is shown at the end: the table, and everything as JSON.

use std::path::Path;

use serde_json::json;

use crate::args::{Args, Kind, Protocol, Scenario};
use crate::figures::{Spread, Table, loss, percent, short};
use crate::netns::Place;
use crate::rows::Row;
use crate::run::Findings;
use crate::window::WARM_UP;

/// Below this share of its processor's time a proxy sleeps between events, and each wake-up is charged to the units.
const SATURATED: f64 = 0.85;
/// Below this share of the rate that was asked for, the load was what limited.
const RATE_MET: f64 = 0.95;
/// Above this share of its processor's time the load may be what limits.
const LOAD_LIMIT: f64 = 0.98;

/// The table, with what one must know to read it.
pub(crate) fn text(args: &Args, place: &Place, findings: &Findings) -> String {
    let mut table = Table::new(
        3,
        &[
            "scenario",
            "workers",
            "party",
            "CPU us/unit",
            "CPU ms/GB",
            "(min..max)",
            "ratio",
            "units/s",
            "GB/s",
            "lost",
            "bytes/idle conn",
            "to backend",
            "memory MiB",
            "proxy busy",
            "its CPUs",
            "load busy",
            "others",
            "syscalls/unit",
            "marks",
        ],
    );
    let mut seen = String::new();
    for row in &findings.rows {
        let shared = findings.layouts.iter().any(|(workers, layout)| *workers == row.workers && layout.shared);
        let marks = marks(row, shared, args.rate);
        seen.push_str(&marks);
        table.row(cells(row, findings, shared, marks));
    }
    let mut text = heading(args, place, findings);
    text.push_str(&table.render());
    text.push_str("\nCPU: all threads of the proxy and the ksoftirqd of its processors. ratio: to the better of haproxy and nginx\n");
    text.push_str("in the same scenario (CPU per unit or GB; bytes per idle connection). Medians of the rounds.\n");
    let legends = [
        (
            '!',
            "! the proxy was not near saturation (under 85 %): each event is then a wake-up of its own; do not compare",
        ),
        (
            '~',
            "~ in every round other programs took over 5 % of the machine from some party: measure again when it is quiet",
        ),
        (
            '-',
            "-n so many rounds are left out for all, since other programs took over 5 % of the machine from some party",
        ),
        ('L', "L the load was at its limit, so the proxy was not"),
        ('R', "R the load could not keep the rate that was asked for, so little may have been lost"),
        ('E', "E connections failed while measuring"),
    ];
    for (mark, legend) in legends {
        if seen.contains(mark) {
            text.push_str(legend);
            text.push('\n');
        }
    }
    for row in &findings.rows {
        let Some(syscalls) = &row.syscalls else {
            continue;
        };
        let mut by_name: Vec<_> = syscalls.by_name.iter().collect();
        by_name.sort_by(|left, right| right.1.total_cmp(left.1));
        let list: Vec<String> = by_name.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
        let (scenario, party) = (row.scenario.name(), row.party.name());
        text.push_str(&format!("system calls, {scenario}, {} worker(s), {party}: {}\n", row.workers, list.join(", ")));
    }
    for (row, without, ratio) in trains(&findings.rows) {
        let (scenario, party, without) = (row.scenario.name(), row.party.name(), without.name());
        text.push_str(&format!(
            "trains, {} worker(s), {party}: {scenario} costs {} of its own {without}\n",
            row.workers,
            short(ratio)
        ));
    }
    for why in &findings.left_out {
        text.push_str(&format!("left out: {why}\n"));
    }
    text
}

/// What each party saves by trains: its `udp-train`, another scenario without trains, and the ratio of their costs. The
/// same bursts without trains are the fair comparison; the other also has to do with fewer datagrams at once.
fn trains(rows: &[Row]) -> impl Iterator<Item = (&Row, Scenario, f64)> {
    rows.iter().filter(|row| row.scenario == Scenario::UdpTrain).flat_map(move |row| {
        let own = move |other: &Row| other.party == row.party && other.workers == row.workers;
        [Scenario::UdpTrainOff, Scenario::UdpRr].into_iter().filter_map(move |without| {
            let cost = rows.iter().find(|other| other.scenario == without && own(other)).and_then(Row::cost)?;
            Some((row, without, row.cost()? / cost))
        })
    })
}

fn heading(args: &Args, place: &Place, findings: &Findings) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = match &place.namespace {
        Some(name) => format!("network namespace {name}; congestion control {}", place.congestion_control),
        None => match place.congestion_of_load() {
            Some(ours) => format!(
                "plain loopback; congestion control {} (the load's own sockets: {ours})",
                place.congestion_control
            ),
            None => format!("plain loopback; congestion control {}", place.congestion_control),
        },
    };
    text.push_str(&format!(
        "; Linux {}; {} CPUs\n",
        kernel.trim(),
        std::thread::available_parallelism().map_or(1, usize::from)
    ));
    let entrants: Vec<String> =
        findings.entrants.iter().map(|entrant| format!("{} {}", entrant.kind.name(), entrant.version)).collect();
    text.push_str(&format!("{}\n", entrants.join("; ")));
    for (workers, layout) in &findings.layouts {
        let how = if layout.shared { "shared by load and proxy" } else { "apart" };
        text.push_str(&format!(
            "{workers} worker(s): load on CPUs {:?}, proxy on CPUs {:?}, {how}\n",
            layout.load, layout.proxy
        ));
    }
    let time = args.seconds.as_secs_f64();
    text.push_str(&format!(
        "{} interleaved round(s) of {time} s each, after a warm-up of {} s\n\n",
        args.rounds,
        WARM_UP.as_secs_f64()
    ));
    text
}

fn marks(row: &Row, shared: bool, rate: u32) -> String {
    let mut marks = String::new();
    if row.saturation(shared).is_some_and(|busy| busy < SATURATED) {
        marks.push('!');
    }
    let load = row.spread(|sample| Some(sample.window.load_busy));
    if row.party != Kind::Direct && load.is_some_and(|busy| busy.median > LOAD_LIMIT) {
        marks.push('L');
    }
    let sent = row.spread(|sample| Some(sample.units_per_second / (1.0 - sample.lost?).max(f64::EPSILON)));
    if row.scenario == Scenario::UdpLoss && sent.is_some_and(|sent| sent.median < RATE_MET * f64::from(rate)) {
        marks.push('R');
    }
    match row.disturbed.len() {
        0 => {}
        _ if row.all_disturbed() => marks.push('~'),
        some => marks.push_str(&format!("-{some}")),
    }
    if row.errors() > 0 {
        marks.push_str(&format!("E{}", row.errors()));
    }
    marks
}

fn cells(row: &Row, findings: &Findings, shared: bool, marks: String) -> Vec<String> {
    let figure = |spread: Option<Spread>| spread.map_or(String::new(), |spread| short(spread.median));
    let range = |spread: Option<Spread>| {
        spread.map_or(String::new(), |spread| format!("{}..{}", short(spread.min), short(spread.max)))
    };
    let share = |spread: Option<Spread>| spread.map_or(String::new(), |spread| percent(spread.median));
    let bar = findings
        .rows
        .iter()
        .filter(|other| other.scenario == row.scenario && other.workers == row.workers)
        .filter(|other| matches!(other.party, Kind::Haproxy | Kind::Nginx))
        .filter_map(Row::cost)
        .min_by(f64::total_cmp);
    let ratio = row.cost().zip(bar).map_or(String::new(), |(cost, bar)| format!("{:.2}", cost / bar));
    let bulk = row.scenario.protocol() == Protocol::Bulk;
    let cpu = row.spread(|sample| sample.cpu_us_per_unit.map(|us| if bulk { us / 1e3 } else { us }));
    let rate = row.spread(|sample| Some(sample.units_per_second));
    // One of two columns: us and units, or ms and GB.
    let apart = |figure: String| if bulk { [String::new(), figure] } else { [figure, String::new()] };
    let [cpu_us, cpu_ms] = apart(figure(cpu));
    let [units_rate, gb_rate] = apart(figure(rate));
    let proxy = row.party != Kind::Direct;
    let idle = row.idle_bytes();
    let held = row.spread(|sample| proxy.then_some(sample.memory_kib.pss as f64 / 1024.0));
    vec![
        row.scenario.name().to_owned(),
        row.workers.to_string(),
        row.party.name().to_owned(),
        cpu_us,
        cpu_ms,
        range(cpu),
        ratio,
        units_rate,
        gb_rate,
        row.spread(|sample| sample.lost).map_or(String::new(), |lost| loss(lost.max)),
        idle.map_or(String::new(), |idle| format!("{:.0} ({:.0}..{:.0})", idle.median, idle.min, idle.max)),
        figure(row.backend_connections()),
        figure(held),
        row.spread(|sample| proxy.then_some(sample.window.proxy_cpu_seconds / sample.window.seconds))
            .map_or(String::new(), |busy| percent(busy.median)),
        share(row.spread(|sample| (proxy && !shared).then_some(sample.window.proxy_cpus_busy))),
        share(row.spread(|sample| Some(sample.window.load_busy))),
        share(row.spread(|sample| Some(sample.window.others_busy))),
        row.syscalls.as_ref().map_or(String::new(), |syscalls| format!("{:.2}", syscalls.per_unit)),
        marks,
    ]
}

/// Writes all figures of the run.
pub(crate) fn write_json(path: &Path, args: &Args, place: &Place, findings: &Findings) -> Result<(), String> {
    let layouts: Vec<_> =
        findings.layouts.iter().map(|(workers, layout)| json!({ "workers": workers, "layout": layout })).collect();
    let rows: Vec<_> = findings
        .rows
        .iter()
        .map(|row| {
            json!({
                "row": row,
                "unit": row.scenario.unit(),
                "cpu_us_per_unit": row.spread(|sample| sample.cpu_us_per_unit),
                "units_per_second": row.spread(|sample| Some(sample.units_per_second)),
                "lost_share": row.spread(|sample| sample.lost),
                "cost_to_own_without_trains": trains(&findings.rows)
                    .filter(|(trains, ..)| std::ptr::eq(*trains, row))
                    .map(|(_, without, ratio)| (without.name(), ratio))
                    .collect::<std::collections::BTreeMap<_, _>>(),
                "idle_bytes_per_connection": row.idle_bytes(),
                "idle_backend_connections": row.backend_connections(),
                "idle_private_bytes_per_connection":
                    Spread::of(row.growth.iter().map(|growth| growth.bytes(|memory| memory.private))),
                "idle_rss_bytes_per_connection":
                    Spread::of(row.growth.iter().map(|growth| growth.bytes(|memory| memory.rss))),
            })
        })
        .collect();
    let all = json!({
        "place": place,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "parties": findings.entrants,
        "layouts": layouts,
        "seconds": args.seconds.as_secs_f64(),
        "rounds": args.rounds,
        "udp_loss_rate": args.rate,
        "rows": rows,
        "left_out": findings.left_out,
    });
    let text = serde_json::to_string_pretty(&all).map_err(|err| err.to_string())?;
    std::fs::write(path, text + "\n").map_err(|err| format!("{}: {err}", path.display()))
}
