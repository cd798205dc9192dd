//! One process takes the place of another: the same listening sockets, what is known of backends, and sessions of
//! datagrams go from the old one to a new one that it starts. Nobody who is served notices.
//!
//! The phases, and what can fail in each:
//!
//! 1. The old process starts the new one, and tells it of its sockets and of what it knows (`old::begin`).
//! 2. The new one reads its configuration, takes the sockets that it has listeners for, binds what is new, builds all
//!    there is, and says Ready. It serves nobody yet, so until here a failure costs nothing.
//! 3. Socket by socket the old process reads no more datagrams, tells of the sessions, and the new one reads on. What
//!    comes meanwhile waits in the sockets. If it fails here the old one goes on with the sessions as they were.
//! 4. Commit: the new one opens everything, and says Serving. That word, heard, is the point of no return: the old process
//!    leaves the sockets and drains. Until then both accept from the same queues, so nobody in those is ever lost.

mod channel;
mod launch;
mod new;
mod old;

pub(super) use launch::Program;
pub(super) use new::Predecessor;
pub(super) use old::{Old, Upgrades};

/// The environment variable that tells the number of the inherited socket.
const VARIABLE: &str = "L4LB_UPGRADE_FD";
/// The name of what is known of backends.
const VERDICTS: &str = "verdicts";
/// The name of what the admin API has changed.
const OVERLAY: &str = "overlay";
