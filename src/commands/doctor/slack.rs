//! Whether Slack can be reached, knows the token, lets it do what is needed, and has our time.

use super::Check;
use crate::clock::{self, Timestamp};
use crate::config::Diagnosis;
use crate::outgoing::CallError;
use crate::slack::api::{self, Client, Introduction, TokenKind};
use crate::slack::manifest::scopes;
use crate::slack::message::Message;
use crate::slack::signature::WINDOW;

const TOKEN: &str = "bot token";
const SLACK: &str = "slack";
const SCOPES: &str = "scopes";
const CLOCK: &str = "clock";
const POST: &str = "post";
const CHANNEL: &str = "channel";
const NAMES_CHANNEL: &str = "SLACK_DEFAULT_CHANNEL or incident.slack.approvalChannel names one";
/// Seconds that a clock may be off before somebody should look after it.
const DRIFT: u64 = 30;
/// Without these the server still decides.
const OPTIONAL: [&str; 1] = ["app_mentions:read"];

pub(super) fn checks(diagnosis: &Diagnosis, post: bool) -> Vec<Check> {
    let slack = match &diagnosis.slack {
        Ok(slack) if slack.is_off() => {
            let what = "incident.slack.enabled is false, so Slack is never called";
            return vec![Check::notable(SLACK, what)];
        }
        Ok(slack) => slack,
        Err(complaint) => return vec![Check::complain(TOKEN, complaint)],
    };
    let token = match slack.token_kind() {
        None => {
            let what =
                "there is none: messages change only through response_url, and none is posted";
            return vec![
                Check::bad(TOKEN, what).hint(
                    "set SLACK_BOT_TOKEN; Slack shows it under OAuth & Permissions of the app",
                ),
            ];
        }
        Some(TokenKind::Bot) => Check::good(TOKEN, "there is one, and it looks like one"),
        Some(TokenKind::User) => Check::bad(TOKEN, "it is a user's (xoxp-), not a bot's")
            .hint("take the Bot User OAuth Token (xoxb-…)"),
        Some(TokenKind::App) => Check::bad(TOKEN, "it is an app-level token (xapp-), not a bot's")
            .hint("take the Bot User OAuth Token (xoxb-…)"),
        Some(TokenKind::Unknown) => Check::bad(TOKEN, "it does not look like one: xoxb-…")
            .hint("take the Bot User OAuth Token under OAuth & Permissions of the app"),
    };
    let mut checks = vec![token, channel(diagnosis)];
    match slack.introduce() {
        Ok(introduction) => {
            let known = introduction.named.is_ok();
            checks.extend(introduced(diagnosis, &introduction));
            if post && known {
                checks.push(posted(slack, diagnosis.channel.as_deref()));
            } else if post {
                checks.push(Check::unseen(POST, "Slack does not take the token"));
            }
        }
        Err(error) => {
            checks.push(Check::bad(SLACK, format!("cannot be reached: {error}")).hint(
                "this machine must reach https://slack.com, perhaps by HTTPS_PROXY; name resolution and firewalls are the usual causes",
            ));
            for name in [SCOPES, CLOCK] {
                checks.push(Check::unseen(name, "Slack was not reached"));
            }
            checks.extend(post.then(|| Check::unseen(POST, "Slack was not reached")));
        }
    }
    checks
}

fn channel(diagnosis: &Diagnosis) -> Check {
    match &diagnosis.channel {
        Some(channel) => Check::good(CHANNEL, channel),
        None => Check::notable(
            CHANNEL,
            "there is none: a request that names none is not posted",
        )
        .hint(NAMES_CHANNEL),
    }
}

fn introduced(diagnosis: &Diagnosis, introduction: &Introduction) -> Vec<Check> {
    let named = match &introduction.named {
        Ok(names) => {
            let team = names.team.as_deref().unwrap_or("?");
            let user = names.user.as_deref().unwrap_or("?");
            Check::good(
                SLACK,
                format!("it knows the token: bot {user} of workspace {team}"),
            )
        }
        Err(CallError::Refused(error)) => {
            let hint = api::hint(error).unwrap_or("Slack's documentation of auth.test tells more");
            Check::bad(SLACK, format!("it refuses the token: {error}")).hint(hint)
        }
        Err(error) => Check::bad(SLACK, format!("it does not answer as Slack does: {error}"))
            .hint("SLACK_API_URL should be unset, or the base of Slack's Web API"),
    };
    let scopes = match (&introduction.scopes, &introduction.named) {
        (Some(granted), Ok(_)) => granted_scopes(diagnosis, granted),
        _ => Check::unseen(SCOPES, "Slack does not say what the token may do"),
    };
    vec![named, scopes, clock_check(introduction.date)]
}

fn granted_scopes(diagnosis: &Diagnosis, granted: &[String]) -> Check {
    let missing = scopes(diagnosis.needs);
    let missing = missing
        .into_iter()
        .filter(|scope| !granted.iter().any(|granted| granted == scope));
    let (optional, needed): (Vec<_>, Vec<_>) = missing.partition(|scope| OPTIONAL.contains(scope));
    let hint = "add it under OAuth & Permissions of the app, and install it again";
    if !needed.is_empty() {
        Check::bad(SCOPES, format!("missing: {}", needed.join(", "))).hint(hint)
    } else if optional.is_empty() {
        Check::good(SCOPES, "all that is needed")
    } else {
        let missing = optional.join(", ");
        Check::good(
            SCOPES,
            format!("all that is needed; without {missing} nobody can ask the bot in a channel"),
        )
    }
}

fn clock_check(slack: Option<Timestamp>) -> Check {
    let Some(slack) = slack else {
        return Check::unseen(CLOCK, "Slack does not say what time it is");
    };
    let (ours, theirs) = (clock::now().unix(), slack.unix());
    let off = ours.abs_diff(theirs);
    let side = if ours > theirs { "ahead of" } else { "behind" };
    let what = format!("{off} s {side} Slack's");
    match off {
        off if off > WINDOW => Check::bad(
            CLOCK,
            format!("{what}, and {WINDOW} s are allowed: every click is refused"),
        )
        .hint("let NTP set it (timedatectl set-ntp true)"),
        off if off > DRIFT => {
            Check::notable(CLOCK, what).hint("let NTP set it (timedatectl set-ntp true)")
        }
        _ => Check::good(CLOCK, format!("within {DRIFT} s of Slack's")),
    }
}

fn posted(slack: &Client, channel: Option<&str>) -> Check {
    let Some(channel) = channel else {
        return Check::bad(POST, "there is no channel to post to").hint(NAMES_CHANNEL);
    };
    let text = "This is a test by runbook doctor: requests for approval will appear here. There is nothing to do.";
    let message = Message {
        text: text.into(),
        blocks: vec![serde_json::json!({ "type": "section",
            "text": { "type": "plain_text", "text": text, "emoji": false } })],
    };
    match slack.post_message(channel, &message) {
        Ok(_) => Check::good(POST, format!("a test message stands in {channel}")),
        Err(error) => {
            let check = Check::bad(POST, format!("cannot post to {channel}: {error}"));
            match &error {
                CallError::Refused(word) => match api::hint(word) {
                    Some(hint) => check.hint(hint),
                    None => check,
                },
                CallError::Limited(_) | CallError::Failed(_) => check.hint("try again later"),
            }
        }
    }
}
