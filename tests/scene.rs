//! A server under a policy, its directory and its Slack: the stage for whoever clicks.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Builder, Click, Scratch, Server, eventually, read_approval, sample, with, write_approval,
};
use crate::stand_in::StandIn;

/// How long something may take that nothing holds up.
pub const SOON: Duration = Duration::from_secs(5);

/// How long something may take that waits for Slack's word: five seconds, and a little.
pub const LATE: Duration = Duration::from_secs(12);

pub struct Scene {
    pub server: Server,
    pub slack: StandIn,
    pub dir: Scratch,
}

impl Scene {
    pub fn under(policy: &str) -> Self {
        Self::with(policy, |_| ())
    }

    /// Prepares Slack before the server asks it anything.
    pub fn with(policy: &str, prepare: impl FnOnce(&StandIn)) -> Self {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        prepare(&slack);
        let server = Self::builder(policy, &slack, &dir).start();
        Self { server, slack, dir }
    }

    /// Another server of the same directory and Slack.
    pub fn another(&self, policy: &str) -> Server {
        Self::builder(policy, &self.slack, &self.dir).start()
    }

    /// With one worker, so that one that is stuck is seen.
    fn builder(policy: &str, slack: &StandIn, dir: &Scratch) -> Builder {
        let builder = Server::builder().dir(dir).slack(slack).config(policy);
        builder
            .args(["--workers", "1"])
            .env("RUNBOOK_CALLBACK_SECRET", "a-secret")
    }

    /// The sample request with these changes.
    pub fn file(&self, id: &str, changes: &Value) {
        write_approval(&self.dir, &with(sample(id), changes));
    }

    pub fn stored(&self, id: &str) -> Value {
        read_approval(&self.dir, id)
    }

    pub fn status(&self, id: &str) -> String {
        let status = self.stored(id)["status"].clone();
        status.as_str().unwrap().to_owned()
    }

    /// The status, once it is final.
    pub fn outcome(&self, id: &str) -> String {
        eventually("a decision", LATE, || {
            Some(self.status(id)).filter(|status| status != "pending")
        })
    }

    /// Clicks without a word.
    pub fn click(&self, click: &Click) {
        self.server.click(click);
    }

    /// Clicks and returns the private word that follows.
    pub fn word(&self, click: &Click) -> String {
        self.word_through(&self.server, click)
    }

    pub fn word_through(&self, server: &Server, click: &Click) -> String {
        let before = self.words().len();
        let url = self.slack.response_url(&before.to_string());
        let click = click.clone().response_url(url);
        server.click(&click);
        self.next_word(before)
    }

    /// The private words so far.
    pub fn words(&self) -> Vec<String> {
        let calls = self.slack.calls_of("response_url");
        let text = |body: &Value| body["text"].as_str().unwrap().to_owned();
        calls.iter().map(|call| text(&call.body)).collect()
    }

    /// The last private word, once there are more than so many.
    pub fn next_word(&self, before: usize) -> String {
        let call = self.slack.wait_for("response_url", before + 1, LATE).pop();
        let body = call.unwrap().body;
        assert_eq!(body["response_type"], "ephemeral");
        body["text"].as_str().unwrap().to_owned()
    }

    /// Waits until no click is kept any more that is yet to be decided.
    pub fn settled(&self) {
        eventually("no click is left", LATE, || {
            let kept = fs::read_dir(self.dir.join(".ballots")).unwrap();
            (kept.count() == 0).then_some(())
        });
    }

    pub fn reload(&self, policy: &str, said: &str) -> String {
        let before = self.server.log().matches(said).count();
        fs::write(self.server.config_file(), policy).unwrap();
        self.server.signal(Signal::HUP);
        eventually(said, SOON, || {
            let log = self.server.log();
            (log.matches(said).count() > before).then_some(log)
        })
    }
}

/// A click of this person.
pub fn by(user: &str, click: Click) -> Click {
    click.by(user, &user.to_lowercase())
}
