//! The manifest that Slack makes an app from: what this server serves and what it calls, in the words
//! of Slack's schema. The same document is JSON, YAML, or a link that carries it to Slack.
//!
//! Source: <https://docs.slack.dev/reference/app-manifest>

use std::fmt::Write as _;

use form_urlencoded::byte_serialize;
use serde_json::{Value, json};

use crate::outgoing::Url;

/// The app's name: up to 35 characters, by Slack's schema.
#[derive(Debug)]
pub struct AppName(String);

impl AppName {
    /// `None` for a name that Slack would not take.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = (1..=35).contains(&text.chars().count());
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.to_owned()))
    }

    /// What people write behind `@`. Slack allows `a-z`, `0-9`, `-`, `_` and `.`.
    fn handle(&self) -> String {
        let letter = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => Some(c),
            ' ' => Some('-'),
            _ => None,
        };
        let handle: String = self.0.chars().filter_map(letter).collect();
        let has_letters = handle.contains(|c: char| c.is_ascii_alphanumeric());
        if has_letters {
            handle
        } else {
            "runbook".into()
        }
    }
}

/// Where Slack reaches the server: https, a host and perhaps a path before ours.
#[derive(Debug)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// `None` for anything that Slack could not call, or that already is one of our addresses.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.trim_end_matches('/');
        (bare.starts_with("https://") && is_base(text)).then(|| Self(bare.to_owned()))
    }
}

/// Whether our addresses can stand behind a URL, http or https: it has no query, and is none of them itself.
pub fn is_base(text: &str) -> bool {
    let bare = text.trim_end_matches('/');
    let odd = text.contains(['?', '#']) || bare.ends_with("/slack") || bare.contains("/slack/");
    Url::parse(bare).is_some() && !odd
}

/// What the app has to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// To post, to tell who clicked, and to answer who mentions it.
    Basics,
    /// To look up the members of user groups as well.
    Groups,
}

/// The bot's scopes.
pub fn scopes(needs: Needs) -> Vec<&'static str> {
    let mut scopes = vec![
        "chat:write",
        "chat:write.public",
        "users:read",
        "app_mentions:read",
    ];
    if needs == Needs::Groups {
        scopes.push("usergroups:read");
    }
    scopes
}

/// The manifest of an app for the server at `url`.
pub fn manifest(name: &AppName, url: &PublicUrl, needs: Needs) -> Value {
    let scopes = scopes(needs);
    let address = |path: &str| format!("{}{path}", url.0);
    json!({
        "display_information": {
            "name": name.0,
            // 140 characters at most.
            "description": "Gives automation a human's yes or no",
        },
        "features": {
            "app_home": {
                "home_tab_enabled": true,
                "messages_tab_enabled": false,
            },
            "bot_user": {
                "display_name": name.handle(),
                "always_online": true,
            },
        },
        "oauth_config": { "scopes": { "bot": scopes } },
        "settings": {
            "event_subscriptions": {
                "request_url": address("/slack/events"),
                "bot_events": ["app_home_opened", "app_mention"],
            },
            "interactivity": {
                "is_enabled": true,
                "request_url": address("/slack/interactions"),
            },
            "org_deploy_enabled": false,
            "socket_mode_enabled": false,
            "token_rotation_enabled": false,
        },
    })
}

/// The page of Slack that has the manifest filled in already.
pub fn link(manifest: &Value) -> String {
    let text: String = byte_serialize(manifest.to_string().as_bytes()).collect();
    // A form's + is no space to everybody.
    let text = text.replace('+', "%20");
    format!("https://api.slack.com/apps?new_app=1&manifest_json={text}")
}

/// The same document as YAML, as people write it.
pub fn yaml(manifest: &Value) -> String {
    let mut text = String::new();
    write_yaml(&mut text, manifest, 0);
    text
}

fn write_yaml(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let _ = write!(text, "{indent}{key}:");
                write_below(text, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                let _ = write!(text, "{indent}-");
                write_below(text, item, depth);
            }
        }
        scalar => {
            let _ = writeln!(text, "{}", Scalar(scalar));
        }
    }
}

/// What stands behind a colon or a dash.
fn write_below(text: &mut String, value: &Value, depth: usize) {
    if value.is_object() || value.is_array() {
        text.push('\n');
        write_yaml(text, value, depth + 1);
    } else {
        text.push(' ');
        write_yaml(text, value, 0);
    }
}

/// One word stands as it is, like a URL or a scope; anything else as JSON, which YAML reads too.
struct Scalar<'a>(&'a Value);

impl std::fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = self.0.as_str().filter(|word| is_plain(word));
        match word {
            Some(word) => f.write_str(word),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Whether YAML 1.1 and 1.2 both read this as the text that it is.
fn is_plain(word: &str) -> bool {
    let meant_otherwise = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && !word.ends_with(':')
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b))
        && !meant_otherwise.contains(&word.to_ascii_lowercase().as_str())
}
