//! What Slack answers: what is taken from it, and what its errors mean.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::outgoing::CallError;

/// Where a message was posted: the conversation's id, and the message's `ts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Posted {
    pub channel: String,
    pub ts: String,
}

/// Whose a token is, as `auth.test` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    pub team_id: Option<String>,
    pub enterprise_id: Option<String>,
}

impl Identity {
    /// Whether a team is the workspace, or the organisation that it belongs to.
    pub fn is_home(&self, team: &str) -> bool {
        [&self.team_id, &self.enterprise_id]
            .iter()
            .any(|own| own.as_deref() == Some(team))
    }
}

/// What Slack says when a token introduces itself.
#[derive(Debug)]
pub struct Introduction {
    /// Whose the token is, or Slack's word for why it is nobody's.
    pub named: Result<Names, CallError>,
    /// What the token may do.
    pub scopes: Option<Vec<String>>,
    /// Slack's clock.
    pub date: Option<Timestamp>,
}

/// A workspace and a bot, by the names that people know.
#[derive(Debug, Deserialize)]
pub struct Names {
    pub team: Option<String>,
    pub user: Option<String>,
}

/// What we take from an answer that says no more than that it is well.
#[derive(Deserialize)]
pub(super) struct Nothing {}

/// What the Web API's `{"ok":…,"error":…}` means.
pub(super) fn verdict<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    #[derive(Deserialize)]
    struct Answer {
        ok: bool,
        error: Option<String>,
    }
    let strange = |_| CallError::Failed("the answer is not Slack's".into());
    match serde_json::from_slice(body).map_err(strange)? {
        Answer { ok: true, .. } => serde_json::from_slice(body).map_err(strange),
        Answer {
            error: Some(error), ..
        } if is_permanent(&error) => Err(CallError::Refused(error)),
        Answer { error, .. } => Err(CallError::Failed(
            error.unwrap_or_else(|| "no reason given".into()),
        )),
    }
}

/// Whether Slack does not know the token, or does not grant it what we need.
pub fn is_about_credentials(error: &str) -> bool {
    const CREDENTIALS: [&str; 8] = [
        "account_inactive",
        "invalid_auth",
        "missing_scope",
        "not_allowed_token_type",
        "not_authed",
        "org_login_required",
        "token_expired",
        "token_revoked",
    ];
    CREDENTIALS.contains(&error)
}

/// What would help against an error of Slack.
pub fn hint(error: &str) -> Option<&'static str> {
    Some(match error {
        "not_in_channel" => {
            "invite the bot to the channel (/invite @runbook), or add the scope chat:write.public"
        }
        "channel_not_found" => {
            "check the channel's name or id; into a private channel the bot has to be invited"
        }
        "is_archived" => "the channel is archived; name another one",
        "not_enabled" => "switch on the Home tab under App Home of the Slack app",
        "missing_scope" => {
            "add chat:write under OAuth & Permissions of the Slack app, and install it again"
        }
        "restricted_action" => {
            "the workspace's settings forbid posting there; name another channel"
        }
        error if is_about_credentials(error) => {
            "SLACK_BOT_TOKEN should be the Bot User OAuth Token of an installed app (xoxb-…)"
        }
        _ => return None,
    })
}

/// Errors that stay however often we ask. Any other is tried again, for Slack may add new ones.
/// Sources: <https://docs.slack.dev/reference/methods/chat.update>,
/// <https://docs.slack.dev/reference/methods/chat.postMessage>,
/// <https://docs.slack.dev/reference/methods/chat.postEphemeral>,
/// <https://docs.slack.dev/reference/methods/views.publish>
fn is_permanent(error: &str) -> bool {
    const PERMANENT: &[&str] = &[
        "access_denied",
        "account_inactive",
        "as_user_not_supported",
        "block_mismatch",
        "cannot_reply_to_message",
        "cant_update_message",
        "channel_not_found",
        "deprecated_endpoint",
        "edit_window_closed",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "exchanged_trigger_id",
        "expired_trigger_id",
        "expired_url",
        "invalid_arguments",
        "invalid_attachments",
        "invalid_auth",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_trigger_id",
        "is_archived",
        "is_inactive",
        "message_limit_exceeded",
        "message_not_found",
        "messages_tab_disabled",
        "method_deprecated",
        "missing_scope",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_permission",
        "no_such_subteam",
        "no_text",
        "not_allowed_token_type",
        "not_authed",
        "not_enabled",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "restricted_action_read_only_channel",
        "restricted_action_thread_locked",
        "restricted_action_thread_only_channel",
        "team_access_not_granted",
        "team_not_found",
        "token_expired",
        "token_revoked",
        "too_many_attachments",
        "two_factor_setup_required",
        "unknown_method",
        "used_url",
        "user_not_found",
        "user_not_visible",
        "user_not_in_channel",
        "view_too_large",
    ];
    PERMANENT.contains(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_passing_trouble() {
        let posted = Posted {
            channel: "C1".into(),
            ts: "1.2".into(),
        };
        assert_eq!(
            verdict(br#"{"ok":true,"channel":"C1","ts":"1.2"}"#),
            Ok(posted)
        );
        assert_eq!(
            verdict::<Posted>(br#"{"ok":false,"error":"channel_not_found"}"#),
            Err(CallError::Refused("channel_not_found".into()))
        );
        for passing in [
            r#"{"ok":false,"error":"internal_error"}"#,
            r#"{"ok":false}"#,
            r#"{"ok":true}"#,
            "<html>",
            "",
            "[]",
        ] {
            assert!(
                matches!(
                    verdict::<Posted>(passing.as_bytes()),
                    Err(CallError::Failed(_))
                ),
                "{passing}"
            );
        }
    }
}
