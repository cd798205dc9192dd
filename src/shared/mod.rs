//! What crosses threads, and nothing else: the snapshot, how it is published, the live state of backends, mail.
//!
//! Knows: pools, backends and what they can be picked by. Must not touch: sockets; it holds no thread and waits for none.

#[cfg(feature = "proxy")]
pub mod admin;
pub mod backend;
#[cfg(feature = "proxy")]
pub mod changes;
#[cfg(feature = "proxy")]
pub mod checks;
pub mod choose;
#[cfg(feature = "proxy")]
pub mod handing;
#[cfg(feature = "proxy")]
pub mod hub;
#[cfg(feature = "proxy")]
pub mod limit;
#[cfg(feature = "proxy")]
pub mod mail;
#[cfg(feature = "proxy")]
pub mod order;
#[cfg(feature = "proxy")]
pub mod queue;
#[cfg(feature = "proxy")]
pub mod snapshot;
#[cfg(feature = "proxy")]
pub mod standing;
