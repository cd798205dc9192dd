//! What control orders to be checked.

use crate::base::ids::BackendSlot;
use crate::probe::{Check, Rules};
use crate::shared::backend::BackendState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A backend to check.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which backend it is. What is known of it outlives an order that names it again.
    pub slot: BackendSlot,
    /// Its pool, for the log.
    pub pool: Arc<str>,
    /// Its id, for the log.
    pub id: Arc<str>,
    /// Where it is, in the order to try. Empty: its name does not resolve, and that is a bad check.
    pub addresses: Arc<[SocketAddr]>,
    /// How it is checked.
    pub plan: Arc<CheckPlan>,
    /// Where its health is told.
    pub state: Arc<BackendState>,
}

/// How the backends of a pool are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPlan {
    /// What a connection begins with: a PROXY header, where the pool sends one.
    pub begins: Vec<u8>,
    /// What is sent and expected.
    pub check: Check,
    /// When a verdict changes, and how often to look.
    pub rules: Rules,
    /// How long a check may take, over all addresses.
    pub timeout: Duration,
}
