//! A bound on what happens at once: who finds it full waits until somebody leaves.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lets at most so many in.
pub(super) struct Gate {
    inside: Arc<Inside>,
    most: usize,
}

struct Inside {
    count: Mutex<usize>,
    left: Condvar,
}

/// The right to be inside; dropping it leaves.
pub(super) struct Pass {
    inside: Arc<Inside>,
}

impl Gate {
    pub(super) fn new(most: usize) -> Gate {
        Gate { inside: Arc::new(Inside { count: Mutex::new(0), left: Condvar::new() }), most }
    }

    /// Waits for a place and takes it.
    pub(super) fn enter(&self) -> Pass {
        let count = self.inside.lock();
        let mut count =
            self.inside.left.wait_while(count, |count| *count >= self.most).unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        Pass { inside: self.inside.clone() }
    }

    /// Waits until somebody leaves, at most a second: what is short may also come back from elsewhere.
    pub(super) fn wait_for_leave(&self) {
        let _ = self.inside.left.wait_timeout(self.inside.lock(), Duration::from_secs(1));
    }
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.inside.lock() -= 1;
        self.inside.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_full_gate_opens_when_somebody_leaves() {
        let gate = Gate::new(2);
        let (first, _second) = (gate.enter(), gate.enter());
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _third = gate.enter();
                tell.send(()).unwrap();
            });
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "two are inside, and two is the most");
            drop(first);
            told.recv_timeout(Duration::from_secs(10)).expect("one has left, so one may enter");
        });
        assert_eq!(*gate.inside.lock(), 1, "the third has left again");
    }
}
