//! `runbook` gives automation a human's yes or no.
//!
//! One click's way through the house, in order:
//!
//! 1. [`commands`] starts the server with what [`cli`] parsed and [`config`] settled.
//! 2. [`webhook`] receives one bounded request, checks Slack's signature and answers.
//! 3. [`slack`] speaks Slack's words: what a click says, what a message shows.
//! 4. [`approval`] decides; it is pure, without files, sockets or clocks.
//! 5. [`store`] holds the lock and makes the decision durable.
//! 6. [`effects`] carries out what follows: the message is updated, the clicker is told.
//!
//! Beside that way:
//!
//! * [`client`] is the asking side: ask, wait, run, decide from the terminal. Other programs may call it.
//! * `demo` plays Slack before all this, for people and for tests.
//! * [`probe`] asks a running server, for `runbook health` and `doctor`, and [`certificate`] reads what it shows.
//! * [`outgoing`] makes our own HTTP calls, to Slack and to agents.
//! * [`complaint`] is what an operator is told, [`logging`] and [`metrics`] what happened.
//! * [`allocator`] and `copy` do quickly for the static binary what musl does slowly.
//! * [`clock`] and [`random`] are the only ways to the time and to chance; [`live`] is what threads share.
//!
//! Imports go down only, from the floors that `tests/layout.rs` lists.

pub mod allocator;
pub mod approval;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod complaint;
pub mod config;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod copy;
#[cfg(feature = "demo")]
pub mod demo;
pub mod effects;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod outgoing;
pub mod probe;
pub mod random;
pub mod slack;
pub mod store;
pub mod webhook;
