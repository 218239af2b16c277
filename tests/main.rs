//! One crate for all tests that look at `runbook` from outside. Each module is one scenario, each
//! test a claim about it.
//!
//! With `RUNBOOK_BIN=path/to/runbook` the same tests run against another binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod harness;
mod stand_in;

mod attacks;
mod cli;
mod crash;
mod edge;
mod events;
mod home;
mod journey;
mod layout;
mod mentions;
mod operations;
mod policy;
mod readme;
mod runbookai;
mod store;
mod witness;
