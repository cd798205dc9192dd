//! Reads /proc: which processes belong to a proxy, how long they have run, what memory they hold, how busy the
//! processors are. And which processors each side of a measurement may use.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::figures::{CpuTicks, Memory, cpu_ticks, parent_pid, schedstat_ns};

/// Which processors the two sides use.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Layout {
    pub(crate) load: Vec<usize>,
    pub(crate) proxy: Vec<usize>,
    /// The two sides share processors.
    pub(crate) shared: bool,
}

impl Layout {
    /// The load has the first processor, `workers` the following ones; where they are too few, everybody uses all.
    pub(crate) fn of(workers: usize) -> Result<Self, String> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(|err| format!("processors: {err}"))?;
        let all: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
        Ok(match all.split_first() {
            Some((&first, rest)) if rest.len() >= workers => {
                Self { load: vec![first], proxy: rest[..workers].to_vec(), shared: false }
            }
            _ => Self { load: all.clone(), proxy: all, shared: true },
        })
    }

    /// Runs `start` on these processors: what it starts inherits them.
    pub(crate) fn on<T>(cpus: &[usize], start: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let me = Pid::from_raw(0);
        let before = sched_getaffinity(me).map_err(|err| format!("processors: {err}"))?;
        let mut wanted = CpuSet::new();
        for &cpu in cpus {
            wanted.set(cpu).map_err(|err| format!("processor {cpu}: {err}"))?;
        }
        sched_setaffinity(me, &wanted).map_err(|err| format!("processors {cpus:?}: {err}"))?;
        let started = start();
        sched_setaffinity(me, &before).map_err(|err| format!("processors: {err}"))?;
        started
    }
}

/// Raises the limit of open files as far as it goes, and tells how far; children inherit it.
pub(crate) fn raise_descriptor_limit() -> Result<u64, String> {
    let raise = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    };
    raise().map_err(|err: nix::Error| format!("the limit of open files cannot be raised: {err}"))
}

/// `root` and all that descends from it.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some(parent) = parent_pid(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children.get(&pid).into_iter().flatten());
        next += 1;
    }
    found
}

/// Memory of some processes together.
pub(crate) fn memory(pids: &[u32]) -> Result<Memory, String> {
    pids.iter().try_fold(Memory::default(), |sum, pid| {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|err| format!("{path}: {err}"))?;
        Ok(sum.plus(Memory::parse(&text)))
    })
}

/// The kernel's ksoftirqd thread of each processor.
pub(crate) fn softirq_threads() -> BTreeMap<usize, u32> {
    let cpu_of = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.trim().strip_prefix("ksoftirqd/")?.parse().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((cpu_of(pid)?, pid)))
        .collect()
}

/// Who is watched during a window.
pub(crate) struct Watch {
    pub(crate) proxy: Vec<u32>,
    pub(crate) load: u32,
    pub(crate) softirq: BTreeMap<usize, u32>,
    pub(crate) layout: Layout,
}

/// What /proc said at one end of a window.
pub(crate) struct Snapshot {
    at: Instant,
    proxy: Threads,
    load: Threads,
    softirq: BTreeMap<usize, u64>,
    ticks: BTreeMap<usize, CpuTicks>,
}

/// Running time of threads, in ns by thread id.
type Threads = HashMap<u32, u64>;

/// What happened between two snapshots. Shares are of one processor's time unless said otherwise.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    /// All threads of the proxy and the ksoftirqd of its processors, in seconds.
    pub(crate) proxy_cpu_seconds: f64,
    /// Of that, ksoftirqd.
    pub(crate) softirq_cpu_seconds: f64,
    /// Clients and backend, of one processor.
    pub(crate) load_busy: f64,
    /// The proxy's processors, whoever used them: 0 to 1.
    pub(crate) proxy_cpus_busy: f64,
    /// All processors, 0 to 1.
    pub(crate) machine_busy: f64,
    /// What none of the parties used, of all processors: 0 to 1.
    pub(crate) others_busy: f64,
}

impl Watch {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let softirq = self.softirq.iter().filter_map(|(&cpu, &pid)| {
            Some((cpu, schedstat_ns(&fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?)?))
        });
        Snapshot {
            at: Instant::now(),
            proxy: threads(&self.proxy),
            load: threads(&[self.load]),
            softirq: softirq.collect(),
            ticks: cpu_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        }
    }

    pub(crate) fn window(&self, before: &Snapshot, after: &Snapshot) -> Window {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let of_softirq = |cpus: &mut dyn Iterator<Item = usize>| -> f64 {
            let at = |snapshot: &Snapshot, cpu| snapshot.softirq.get(&cpu).copied().unwrap_or(0);
            cpus.map(|cpu| at(after, cpu).saturating_sub(at(before, cpu)) as f64 / 1e9).sum()
        };
        let busy = |cpus: &mut dyn Iterator<Item = usize>| -> f64 {
            let shares: Vec<f64> =
                cpus.filter_map(|cpu| Some(after.ticks.get(&cpu)?.busy_since(*before.ticks.get(&cpu)?))).collect();
            if shares.is_empty() { 0.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
        };
        let proxy = if self.proxy.is_empty() { 0.0 } else { ran(&before.proxy, &after.proxy) };
        let softirq = if self.proxy.is_empty() { 0.0 } else { of_softirq(&mut self.layout.proxy.iter().copied()) };
        let load = ran(&before.load, &after.load);
        let machine = busy(&mut after.ticks.keys().copied());
        let ours = proxy + load + of_softirq(&mut self.softirq.keys().copied());
        let processors = after.ticks.len().max(1) as f64;
        Window {
            seconds,
            proxy_cpu_seconds: proxy + softirq,
            softirq_cpu_seconds: softirq,
            load_busy: load / seconds,
            proxy_cpus_busy: busy(&mut self.layout.proxy.iter().copied()),
            machine_busy: machine,
            others_busy: (machine - ours / seconds / processors).max(0.0),
        }
    }
}

fn threads(pids: &[u32]) -> Threads {
    let mut found = Threads::new();
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let ran = fs::read_to_string(task.path().join("schedstat")).ok().and_then(|text| schedstat_ns(&text));
            let id = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(id), Some(ran)) = (id, ran) {
                found.insert(id, ran);
            }
        }
    }
    found
}

/// How long they ran between two looks, in seconds; a thread that came in between ran for all its time.
fn ran(before: &Threads, after: &Threads) -> f64 {
    after.iter().map(|(id, ns)| ns.saturating_sub(before.get(id).copied().unwrap_or(0)) as f64 / 1e9).sum()
}
