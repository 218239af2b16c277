//! Slack, played on one machine, so that people and tests can see what Slack would show.
//!
//! [`stand_in`] answers the Web API's calls as Slack answers them, down to the blocks that Slack would refuse, and can
//! be told to fail. It talks to nobody but loopback.

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
pub use page::Wish;
pub use people::{CHANNEL, PEOPLE, Person};
pub use place::Place;
