//! What crosses threads, and nothing else: the snapshot, how it is published, the live state of backends, mail.
//!
//! Knows: pools, backends and what they can be picked by. Must not touch: sockets; it holds no thread and waits for none.

pub mod admin;
pub mod backend;
pub mod changes;
pub mod checks;
pub mod choose;
pub mod handing;
pub mod hub;
pub mod limit;
pub mod mail;
pub mod order;
pub mod queue;
pub mod snapshot;
pub mod standing;
