//! The payload of `POST /slack/interactions`: a form with one field, `payload`, that holds JSON.
//!
//! Sources: <https://docs.slack.dev/interactivity/handling-user-interaction> and
//! <https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>

use std::fmt;

use memchr::memchr_iter;
use serde::Deserialize;
use serde_json::Value;

use super::dialog::{self, Subject};
use super::message;
use crate::approval::{Choice, Digest, Person};

/// What an interaction means to us.
#[derive(Debug, PartialEq, Eq)]
pub enum Interaction {
    /// Somebody clicked Approve or Deny.
    Click(Box<Click>),
    /// Somebody said why they deny.
    Denial(Box<Denial>),
    /// Slack wants options for a menu; we have none.
    BlockSuggestion,
    /// Anything that we do not use. The payload's type.
    Unused(String),
}

/// Who acts, and where they and we belong.
#[derive(Debug, PartialEq, Eq)]
pub struct Actor {
    pub person: Person,
    /// Whether the payload says that they are of another workspace than the app's (Slack Connect).
    pub external: bool,
    /// Their own workspace.
    pub team: Option<String>,
    /// The app that Slack means.
    pub app: Option<String>,
    /// The workspace that the payload is from.
    pub workspace: Option<String>,
}

/// A reason given in our dialog.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    pub subject: Subject,
    pub reason: String,
    pub actor: Actor,
}

/// One click on a button of an approval message.
#[derive(Debug, PartialEq, Eq)]
pub struct Click {
    pub choice: Choice,
    /// The button's value: an approval id, if it is well formed.
    pub value: String,
    /// Whose message the button stands in.
    pub button: Button,
    pub place: Place,
    /// What the message showed, when it is ours.
    pub seen: Option<Digest>,
    pub actor: Actor,
    /// Lets us open one dialog, within seconds.
    pub trigger_id: Option<String>,
    pub channel: Option<String>,
    /// The message's `ts`.
    pub ts: Option<String>,
    pub response_url: Option<String>,
}

/// The two kinds of buttons that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// `approve` and `deny`.
    Runbook,
    /// `approve_{id}` and `reject_{id}` (or `deny_{id}`), as the RunbookAI agent posts them.
    RunbookAi,
}

/// Where a button stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Message,
    /// The clicker's own Home tab: there is no channel, no message and no `response_url`.
    HomeTab,
}

/// Why a body is no interaction.
#[derive(Debug)]
pub enum Unreadable {
    /// There is not exactly one `payload` in the form.
    Form,
    /// The payload is not JSON of the documented shape.
    Payload(serde_json::Error),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("the form does not have exactly one payload"),
            Self::Payload(error) => write!(f, "the payload is not what Slack documents: {error}"),
        }
    }
}

impl Interaction {
    /// Reads the form and the payload in it.
    ///
    /// # Errors
    /// The form or the payload is not what Slack documents.
    pub fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let mut payloads = form_urlencoded::parse(body).filter(|(key, _)| key == "payload");
        let (Some((_, payload)), None) = (payloads.next(), payloads.next()) else {
            return Err(Unreadable::Form);
        };
        // Most are clicks, which are read once.
        let clicked: Result<BlockActions, _> = serde_json::from_str(&payload);
        let typed = |payload| serde_json::from_str::<Typed>(payload).map(|typed| typed.kind);
        let kind = match &clicked {
            Ok(clicked) => clicked.kind.clone(),
            Err(_) => typed(&payload).map_err(Unreadable::Payload)?,
        };
        match kind.as_str() {
            "block_actions" => {
                let click = clicked.map_err(Unreadable::Payload)?.click();
                Ok(click.map_or(Self::Unused(kind), |click| Self::Click(Box::new(click))))
            }
            "view_submission" => {
                let payload: ViewSubmission =
                    serde_json::from_str(&payload).map_err(Unreadable::Payload)?;
                Ok(payload
                    .denial()
                    .map_or(Self::Unused(kind), |denial| Self::Denial(Box::new(denial))))
            }
            "block_suggestion" => Ok(Self::BlockSuggestion),
            _ => Ok(Self::Unused(kind)),
        }
    }
}

/// Whether a form says that Slack is only checking the certificate. Such a form is not signed. It is asked of every
/// click and of whatever strangers send, so fields that are too long for it are not decoded.
pub fn is_ssl_check(body: &[u8]) -> bool {
    // Every byte of `ssl_check=1` may be written with three.
    const LONGEST: usize = 3 * "ssl_check=1".len();
    let mut start = 0;
    let ends = memchr_iter(b'&', body).chain([body.len()]);
    let fields = ends.map(|end| &body[std::mem::replace(&mut start, end + 1)..end]);
    let mut short = fields.filter(|field| field.len() <= LONGEST);
    short.any(|field| {
        form_urlencoded::parse(field).any(|(key, value)| key == "ssl_check" && value == "1")
    })
}

/// What every payload says of itself.
#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

/// The parts of `block_actions` that we use. All but the user and the actions may be absent.
#[derive(Deserialize)]
struct BlockActions {
    #[serde(rename = "type")]
    kind: String,
    user: User,
    actions: Vec<Action>,
    team: Option<Team>,
    enterprise: Option<Named>,
    api_app_id: Option<String>,
    trigger_id: Option<String>,
    channel: Option<Named>,
    message: Option<Message>,
    container: Option<Container>,
    view: Option<View>,
    response_url: Option<String>,
}

#[derive(Deserialize)]
struct User {
    id: String,
    username: Option<String>,
    name: Option<String>,
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct Team {
    id: Option<String>,
    enterprise_id: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    ts: Option<String>,
}

#[derive(Deserialize)]
struct View {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Container {
    message_ts: Option<String>,
    channel_id: Option<String>,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names, reason = "these are Slack's names")]
struct Action {
    action_id: Option<String>,
    block_id: Option<String>,
    value: Option<String>,
}

/// The parts of `view_submission` that we use.
#[derive(Deserialize)]
struct ViewSubmission {
    user: User,
    team: Option<Team>,
    enterprise: Option<Named>,
    api_app_id: Option<String>,
    view: Dialog,
}

#[derive(Deserialize)]
struct Dialog {
    #[serde(default)]
    callback_id: String,
    #[serde(default)]
    private_metadata: String,
    /// The app's own workspace; `team` is the person's.
    app_installed_team_id: Option<String>,
    #[serde(default)]
    state: Value,
}

impl BlockActions {
    /// The first action that is one of our buttons.
    fn click(self) -> Option<Click> {
        let (choice, button, seen, value) = self.actions.into_iter().find_map(|action| {
            let (choice, button) = meaning(action.action_id.as_deref()?)?;
            let seen = action.block_id.as_deref().and_then(message::seen);
            Some((choice, button, seen, action.value.unwrap_or_default()))
        })?;
        let view = self.view.and_then(|view| view.kind);
        let place = match view.as_deref() {
            Some("home") => Place::HomeTab,
            Some(_) | None => Place::Message,
        };
        let container = self.container;
        let (message_ts, channel_id) =
            container.map_or((None, None), |c| (c.message_ts, c.channel_id));
        let team = self.team;
        let workspace = team.as_ref().and_then(|team| team.id.clone());
        let user = self.user.of(workspace.as_ref());
        let homes = [
            workspace.clone(),
            team.and_then(|team| team.enterprise_id),
            self.enterprise.and_then(|enterprise| enterprise.id),
        ];
        Some(Click {
            choice,
            value,
            button,
            place,
            seen,
            actor: user.actor(&homes, workspace, self.api_app_id),
            trigger_id: self.trigger_id,
            channel: self.channel.and_then(|channel| channel.id).or(channel_id),
            ts: self.message.and_then(|message| message.ts).or(message_ts),
            response_url: self.response_url,
        })
    }
}

impl ViewSubmission {
    /// The reason, if it was given in a dialog of ours.
    fn denial(self) -> Option<Denial> {
        let view = self.view;
        if view.callback_id != dialog::CALLBACK {
            return None;
        }
        let subject = serde_json::from_str(&view.private_metadata).ok()?;
        let reason = view.state["values"][dialog::INPUT][dialog::INPUT]["value"].as_str();
        let reason = reason.unwrap_or_default().to_owned();
        let team = self.team.and_then(|team| team.id);
        let user = self.user.of(team.as_ref());
        let workspace = view.app_installed_team_id.or(team);
        let enterprise = self.enterprise.and_then(|enterprise| enterprise.id);
        let homes = [workspace.clone(), enterprise];
        Some(Denial {
            subject,
            reason,
            actor: user.actor(&homes, workspace, self.api_app_id),
        })
    }
}

impl User {
    /// Who does not say which workspace they are of is of the payload's.
    fn of(mut self, team: Option<&String>) -> Self {
        self.team_id = self.team_id.or_else(|| team.cloned());
        self
    }

    /// The person, who is external if their team is none of the app's own.
    fn actor(
        self,
        homes: &[Option<String>],
        workspace: Option<String>,
        app: Option<String>,
    ) -> Actor {
        let external = self
            .team_id
            .as_ref()
            .is_some_and(|team| !homes.iter().flatten().any(|home| home == team));
        Actor {
            external,
            team: self.team_id.clone(),
            app,
            workspace,
            person: self.person(),
        }
    }

    /// Slack leaves out names now and then; the id stands in.
    fn person(self) -> Person {
        let username = self
            .username
            .clone()
            .or(self.name.clone())
            .unwrap_or_else(|| self.id.clone());
        let name = self
            .name
            .or(self.username)
            .unwrap_or_else(|| self.id.clone());
        Person {
            id: self.id,
            username,
            name,
        }
    }
}

fn meaning(action_id: &str) -> Option<(Choice, Button)> {
    let of_agent = |prefix| action_id.starts_with(prefix);
    match action_id {
        "approve" => Some((Choice::Approve, Button::Runbook)),
        "deny" => Some((Choice::Deny, Button::Runbook)),
        _ if of_agent("approve_") => Some((Choice::Approve, Button::RunbookAi)),
        _ if of_agent("reject_") || of_agent("deny_") => Some((Choice::Deny, Button::RunbookAi)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &str) -> Interaction {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", payload)
            .finish();
        Interaction::parse(body.as_bytes()).unwrap()
    }

    fn fixture(name: &str) -> Interaction {
        let path = format!("{}/fixtures/slack/{name}.json", env!("CARGO_MANIFEST_DIR"));
        parse(&std::fs::read_to_string(path).unwrap())
    }

    fn click(name: &str) -> Click {
        match fixture(name) {
            Interaction::Click(click) => *click,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_click_is_read_with_or_without_its_optional_parts() {
        let full = click("block_actions_approve");
        assert_eq!(
            (full.choice, full.button, full.value.as_str()),
            (Choice::Approve, Button::Runbook, "apr-abc123")
        );
        assert_eq!(
            (
                full.actor.person.id.as_str(),
                full.actor.person.username.as_str()
            ),
            ("U061F7AUR", "alice")
        );
        assert_eq!(full.channel.as_deref(), Some("C1234567890"));
        assert_eq!(full.ts.as_deref(), Some("1705333800.000100"));
        let minimal = click("block_actions_minimal");
        assert_eq!(minimal.actor.person.username, minimal.actor.person.id);
        assert_eq!((minimal.channel, minimal.response_url), (None, None));
        assert_eq!(click("block_actions_deny").choice, Choice::Deny);
    }

    #[test]
    fn the_agents_buttons_are_known_by_their_prefix() {
        for (name, choice) in [
            ("block_actions_runbookai_approve", Choice::Approve),
            ("block_actions_runbookai_reject", Choice::Deny),
        ] {
            let click = click(name);
            assert_eq!(
                (click.choice, click.button, click.value.as_str()),
                (choice, Button::RunbookAi, "mut-9f3a2c")
            );
        }
    }

    #[test]
    fn a_click_on_the_home_tab_is_told_from_one_on_a_message() {
        let home = click("block_actions_from_home_tab");
        assert_eq!((home.place, home.channel), (Place::HomeTab, None));
        assert_eq!(click("block_actions_approve").place, Place::Message);
    }

    #[test]
    fn only_people_of_another_workspace_are_external() {
        assert!(click("block_actions_slack_connect").actor.external);
        for name in [
            "block_actions_approve",
            "block_actions_enterprise_grid",
            "block_actions_minimal",
        ] {
            assert!(!click(name).actor.external, "{name}");
        }
    }

    #[test]
    fn a_reason_comes_with_what_it_is_about() {
        let Interaction::Denial(denial) = fixture("view_submission") else {
            panic!("no denial");
        };
        assert_eq!(denial.reason, "Not during the sale");
        assert_eq!(denial.subject.id.as_str(), "apr-abc123");
        assert_eq!(denial.subject.route.channel.as_deref(), Some("C1234567890"));
        assert!(!denial.actor.external);
        let Interaction::Denial(denial) = fixture("view_submission_slack_connect") else {
            panic!("no denial");
        };
        assert!(denial.actor.external);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for name in [
            "block_actions_foreign_action",
            "view_closed",
            "shortcut",
            "message_action",
        ] {
            assert!(matches!(fixture(name), Interaction::Unused(_)), "{name}");
        }
        assert_eq!(fixture("block_suggestion"), Interaction::BlockSuggestion);
        assert!(matches!(fixture("unknown_type"), Interaction::Unused(_)));
    }

    #[test]
    fn a_form_must_have_exactly_one_payload() {
        for body in [
            "",
            "payload",
            "payload=%7B",
            "payload={}&payload={}",
            "other=1",
            "payload=[]",
            "payload=null",
        ] {
            assert!(Interaction::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(
            is_ssl_check(b"ssl_check=1&token=x")
                && !is_ssl_check(b"ssl_check=0")
                && !is_ssl_check(b"payload=1")
        );
    }
}
