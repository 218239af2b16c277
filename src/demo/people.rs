//! Who is in the demo's workspace.

use serde::Serialize;

/// The workspace that the app belongs to, and its one channel.
pub(super) const TEAM: &str = "T0001";
pub const CHANNEL: &str = "C1234567890";
pub(super) const CHANNEL_NAME: &str = "deployments";
/// The Slack app and its bot user.
pub(super) const APP: &str = "A0RUNBOOK1";
pub(super) const BOT: &str = "U0RUNBOOK";

/// One person, as Slack names them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Person {
    pub id: &'static str,
    /// The handle, without its `@`.
    pub username: &'static str,
    pub name: &'static str,
    /// The workspace that they belong to.
    pub team: &'static str,
    /// What they are here for.
    pub role: &'static str,
}

/// Those that one can click as.
pub const PEOPLE: [Person; 4] = [
    Person {
        id: "U061F7AUR",
        username: "alice",
        name: "Alice",
        team: TEAM,
        role: "may decide",
    },
    Person {
        id: "U0BOB0001",
        username: "bob",
        name: "Bob",
        team: TEAM,
        role: "may decide",
    },
    Person {
        id: "U0DAVE001",
        username: "dave",
        name: "Dave",
        team: TEAM,
        role: "is no approver",
    },
    Person {
        id: "U0CAROL01",
        username: "carol",
        name: "Carol",
        team: "T0002",
        role: "is from another company",
    },
];

impl Person {
    pub(super) fn of(id: &str) -> Option<Self> {
        PEOPLE.into_iter().find(|person| person.id == id)
    }
}
