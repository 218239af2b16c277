//! The Slack message that shows a request, as its document knows it: where it is, and what it shows.

use super::{Approval, Digest};

impl Approval {
    /// The Slack message that shows the request: channel and `ts`.
    pub fn message(&self) -> Option<(&str, &str)> {
        self.text("slackChannel").zip(self.text("slackMessageTs"))
    }

    /// Notes the Slack message that shows the request, and what it shows.
    pub fn note_message(&mut self, channel: &str, ts: &str, shown: Digest) {
        self.put("slackChannel", channel.into());
        self.put("slackMessageTs", ts.into());
        self.put("slackMessageDigest", shown.to_string().into());
    }

    /// Whether a Slack message shows it, be it what it meant before.
    pub fn is_shown(&self) -> bool {
        let ts = self.value("slackMessageTs");
        ts.is_some_and(|ts| !ts.is_null() && ts != "")
    }

    /// Whether the message is known to show what the request means now.
    pub fn shows_its_meaning(&self) -> bool {
        let shown = self.text("slackMessageDigest").and_then(Digest::parse);
        shown == Some(self.digest())
    }

    /// Whether the message is known to show something else than the request means now.
    pub fn shows_something_else(&self) -> bool {
        self.text("slackMessageDigest").is_some() && !self.shows_its_meaning()
    }

    /// Forgets the Slack message, because it shows something else than the request by now.
    pub fn forget_message(&mut self) {
        for key in ["slackMessageTs", "slackMessageDigest"] {
            self.remove(key);
        }
    }
}
