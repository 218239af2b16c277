//! Slack's words, both ways: what it sends us, and what we send it.

pub mod api;
pub mod dialog;
pub mod event;
pub mod home;
pub mod interaction;
pub mod manifest;
pub mod mention;
pub mod message;
pub mod notice;
mod room;
pub mod signature;
pub mod text;
