//! Slack, played on one machine, so that people and tests can see what Slack would show.
//!
//! [`stand_in`] answers the Web API's calls as Slack answers them, down to the blocks that Slack would refuse, and can
//! be told to fail. It talks to nobody but loopback.

use std::io;
use std::thread::{Builder, JoinHandle};

mod block_kit;
mod call;
mod channel;
mod http;
mod interactions;
mod page;
mod people;
mod place;
mod preview;
mod review;
pub mod stand_in;
mod state;
pub mod story;
mod template;
mod web_api;

pub use interactions::App;
pub use page::{Granter, Wish};
pub use people::{CHANNEL, PEOPLE, Person};
pub use place::Place;

/// Does something on a thread of its own.
///
/// # Errors
/// The system gives no thread.
pub fn aside(what: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    // A box, for the making of a thread would be compiled again for each closure.
    Builder::new().name("demo".into()).spawn(what)
}
