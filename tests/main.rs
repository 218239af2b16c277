//! One crate for all tests that look at `runbook` from outside. Each module is one scenario, each
//! test a claim about it.
//!
//! With `RUNBOOK_BIN=path/to/runbook` the same tests run against another binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what it expects by unwrapping it"
)]

use runbook::demo::stand_in;

mod agent;
mod excuse;
mod harness;
mod scene;
mod strace;
mod wire;

mod adoption;
mod asking;
mod attacks;
mod audit;
mod binding;
mod callbacks;
mod cli;
mod clock;
mod completion;
mod crash;
mod crash_asking;
mod demo;
mod deploy;
mod dialog;
mod doctor;
mod edge;
mod events;
mod examples;
mod groups;
mod health;
mod home;
mod init;
mod journey;
mod layout;
mod listing;
mod man;
mod manifest;
mod mentions;
mod mutations;
mod naming;
mod operations;
mod policy;
mod readme;
mod runbookai;
mod running;
mod schema;
mod signed;
mod store;
mod votes;
mod waiting;
mod witness;
