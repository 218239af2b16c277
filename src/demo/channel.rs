//! What people see: the messages of the channel, private words, Home tabs and dialogs, as the calls that Slack was
//! content with have left them; and what has passed between Slack and the server.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Map, Value};

use super::call::Call;
use super::people::{BOT, Person};
use super::web_api::fresh_ts;
use crate::clock;

/// Messages and entries that are kept.
const MESSAGES: usize = 100;
const ENTRIES: usize = 200;

/// The one channel, and each person's own views.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) messages: VecDeque<Message>,
    /// Home tabs by person.
    pub(super) homes: Map<String, Value>,
    /// Open dialogs by person.
    pub(super) dialogs: Map<String, Value>,
    /// Clicks that are under way, or that were not acknowledged.
    pub(super) presses: Vec<Press>,
    pub(super) journal: VecDeque<Entry>,
    pub(super) answerable: Vec<Answerable>,
}

/// A message as the channel shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Message {
    pub(super) ts: String,
    /// Who wrote it.
    pub(super) user: String,
    pub(super) text: String,
    pub(super) blocks: Value,
    /// The message in whose thread it stands.
    pub(super) thread: Option<String>,
    /// The only person who sees it.
    pub(super) only: Option<String>,
    pub(super) edited: bool,
}

/// A click that its person waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Press {
    pub(super) user: &'static str,
    /// Of the message; `None` on the Home tab.
    pub(super) ts: Option<String>,
    pub(super) block: String,
    /// Why Slack shows its warning sign; `None` while it waits.
    pub(super) trouble: Option<String>,
}

/// A click that the app may answer.
pub(super) struct Answerable {
    /// Opens a dialog for the person.
    pub(super) trigger: String,
    /// The path of its `response_url`.
    pub(super) path: String,
    pub(super) user: &'static str,
    /// Of the message; `None` on the Home tab.
    pub(super) ts: Option<String>,
}

/// One thing that has happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    time: String,
    between: &'static str,
    what: String,
    outcome: String,
    well: bool,
}

impl Channel {
    /// Shows what a call does that Slack was content with.
    pub(super) fn show(&mut self, call: &Call) {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let message = || Message {
            user: BOT.to_owned(),
            text: call.argument("text").to_owned(),
            blocks: call.body["blocks"].clone(),
            ..Message::default()
        };
        match call.method.as_str() {
            "chat.postMessage" => self.add(Message {
                ts: word(&call.answer["ts"]).unwrap_or_default(),
                thread: word(&call.body["thread_ts"]),
                ..message()
            }),
            "chat.update" => self.replace(call.argument("ts"), message()),
            "chat.postEphemeral" => self.add(Message {
                ts: fresh_ts(),
                only: word(&call.body["user"]),
                ..message()
            }),
            "response_url" => {
                let mut clicks = self.answerable.iter();
                let Some(click) = clicks.find(|click| click.path == call.path) else {
                    return;
                };
                let (user, ts) = (click.user, click.ts.clone().unwrap_or_default());
                if call.body["replace_original"] == true {
                    self.replace(&ts, message());
                } else {
                    let only =
                        (call.body["response_type"] != "in_channel").then(|| user.to_owned());
                    let ts = fresh_ts();
                    self.add(Message {
                        ts,
                        only,
                        ..message()
                    });
                }
            }
            "views.open" => {
                let view = call.answer["view"].clone();
                let trigger = call.argument("trigger_id");
                let mut clicks = self.answerable.iter();
                if let Some(click) = clicks.find(|click| click.trigger == trigger) {
                    self.dialogs.insert(click.user.to_owned(), view);
                }
            }
            "views.publish" => {
                let view = call.answer["view"].clone();
                self.homes.insert(call.argument("user_id").to_owned(), view);
            }
            _ => {}
        }
    }

    pub(super) fn add(&mut self, message: Message) {
        self.messages.push_back(message);
        if self.messages.len() > MESSAGES {
            self.messages.pop_front();
        }
    }

    fn replace(&mut self, ts: &str, new: Message) {
        let mut messages = self.messages.iter_mut();
        if let Some(message) = messages.find(|message| message.ts == ts) {
            (message.text, message.blocks, message.edited) = (new.text, new.blocks, true);
        }
    }

    /// The message with its buttons, or the person's Home tab, as the blocks that hold the button.
    pub(super) fn blocks(&self, person: &Person, ts: Option<&str>) -> Option<&Value> {
        match ts {
            Some(ts) => {
                let mut messages = self.messages.iter();
                let found = messages.find(|message| message.ts == ts);
                found.map(|message| &message.blocks)
            }
            None => self.homes.get(person.id).map(|view| &view["blocks"]),
        }
    }

    /// Notes what has happened between whom, and how it went.
    pub(super) fn note(&mut self, between: &'static str, what: &str, went: Result<&str, &str>) {
        let (Ok(outcome) | Err(outcome)) = went;
        self.journal.push_back(Entry {
            time: clock::now().time_of_day(),
            between,
            what: what.to_owned(),
            outcome: outcome.to_owned(),
            well: went.is_ok(),
        });
        if self.journal.len() > ENTRIES {
            self.journal.pop_front();
        }
    }
}
