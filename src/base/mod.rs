//! (being built)

pub mod exit;
