//! What the machine gives: cores, descriptors.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use std::thread::available_parallelism;

/// Descriptors kept back for what is not a client: logs, wakers, names being resolved.
const RESERVE: u64 = 32;
/// Of the descriptors, one in so many may be a pipe's; whoever finds no pipe copies.
const PIPE_SHARE: u64 = 16;
/// Pipes a worker at the most: full, they are as much memory as it may hold for slow readers.
const PIPES: usize = 1024;

/// As many descriptors as we may have without asking: the hard limit.
pub(super) fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("the limit of {soft} file descriptors cannot be raised to {hard}: {error}");
    }
}

/// How many workers: 0 means one a core.
pub(super) fn workers(configured: usize) -> usize {
    match configured {
        0 => available_parallelism().map_or(1, usize::from),
        some => some,
    }
}

/// How many pipes each of so many workers may have open at once: two descriptors a pipe.
pub(super) fn pipes(workers: usize) -> usize {
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let all = usize::try_from(soft / PIPE_SHARE / 2).unwrap_or(usize::MAX);
    (all / workers.max(1)).min(PIPES)
}

/// How many clients at once, beside so many pipes: each needs a descriptor, and one for its backend.
pub(super) fn connections(configured: u32, pipes: usize) -> u32 {
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return configured };
    let open = std::fs::read_dir("/proc/self/fd").map_or(16, |entries| entries.count() as u64);
    let kept = open + RESERVE + 2 * pipes as u64;
    let possible = u32::try_from(soft.saturating_sub(kept) / 2).unwrap_or(u32::MAX).max(1);
    if configured > possible {
        log::warn!(
            "global.max_connections = {configured} needs more than the {soft} file descriptors allowed; \
             {possible} will be served at once (raise the limit: ulimit -n, LimitNOFILE=)"
        );
    }
    match configured {
        0 => possible,
        some => some.min(possible),
    }
}

/// Pins the calling thread to core `at` of those that the process may use, counted round.
pub(super) fn pin(at: usize) {
    let pinned = sched_getaffinity(Pid::from_raw(0)).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        let mut set = CpuSet::new();
        set.set(cores[at % cores.len().max(1)])?;
        sched_setaffinity(Pid::from_raw(0), &set)
    });
    if let Err(error) = pinned {
        log::warn!("worker {at} cannot be pinned to a core: {error}");
    }
}
