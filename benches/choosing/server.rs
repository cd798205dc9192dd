//! A server: some slots, a queue without end, and a speed that changes when the run says so.

use l4lb::shared::backend::Lease;
use std::collections::VecDeque;

/// From when on, in seconds, how fast it works: 1 is normal, 0 stands still.
pub(crate) type Speed = (f64, f64);

/// One request at a server.
pub(crate) struct Job {
    /// When it came, in seconds.
    pub(crate) came: f64,
    /// How long it takes at normal speed, in seconds.
    pub(crate) work: f64,
    pub(crate) fails: bool,
    pub(crate) lease: Lease,
}

pub(crate) struct Server {
    idle: u32,
    waiting: VecDeque<Job>,
    speeds: Vec<Speed>,
}

impl Server {
    /// At normal speed but for `speeds`, by time; the last one has no end.
    pub(crate) fn new(slots: u32, speeds: &[Speed]) -> Server {
        let mut all = vec![(0.0, 1.0)];
        all.extend(speeds);
        Server { idle: slots, waiting: VecDeque::new(), speeds: all }
    }

    /// Begins with `job`, and tells when it is done; or puts it into the queue.
    pub(crate) fn come(&mut self, job: Job, now: f64) -> Option<(f64, Job)> {
        if self.idle == 0 {
            self.waiting.push_back(job);
            return None;
        }
        self.idle -= 1;
        Some((self.done_at(now, job.work), job))
    }

    /// One is done: begins with the next.
    pub(crate) fn next(&mut self, now: f64) -> Option<(f64, Job)> {
        let Some(job) = self.waiting.pop_front() else {
            self.idle += 1;
            return None;
        };
        Some((self.done_at(now, job.work), job))
    }

    /// When so much work is done that begins now.
    fn done_at(&self, now: f64, mut work: f64) -> f64 {
        let mut at = now;
        for (n, &(from, speed)) in self.speeds.iter().enumerate() {
            let until = self.speeds.get(n + 1).map_or(f64::INFINITY, |next| next.0);
            if until <= at {
                continue;
            }
            at = at.max(from);
            if work <= (until - at) * speed {
                return at + work / speed;
            }
            work -= (until - at) * speed;
            at = until;
        }
        at
    }
}
