//! Where Slack's Web API is, and the token that opens it.

use std::fmt;

use crate::outgoing::Url;

/// Where Slack's Web API is.
pub const DEFAULT_BASE: &str = "https://slack.com/api/";

/// A bot token. It cannot be displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct BotToken(Box<str>);

impl BotToken {
    /// `None` when it is empty or cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.into()))
    }

    /// What the header of a call says.
    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Of which kind it is, by how it begins.
    pub fn kind(&self) -> TokenKind {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| self.0.starts_with(prefix));
        match () {
            () if begins(&["xoxb-", "xoxe.xoxb-"]) => TokenKind::Bot,
            () if begins(&["xoxp-", "xoxe.xoxp-"]) => TokenKind::User,
            () if begins(&["xapp-"]) => TokenKind::App,
            () => TokenKind::Unknown,
        }
    }
}

impl fmt::Debug for BotToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BotToken(..)")
    }
}

/// Which of Slack's kinds a token is, by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Bot,
    /// `xoxp-`: it acts as a person.
    User,
    /// `xapp-`: it cannot call these methods.
    App,
    Unknown,
}

/// The base URL of Slack's Web API, with a slash at its end.
#[derive(Clone, Debug)]
pub struct Base(Url);

impl Base {
    /// `None` when it is no absolute `http` or `https` URL, or has a user or a query.
    pub fn parse(text: &str) -> Option<Self> {
        let slash = if text.ends_with('/') { "" } else { "/" };
        let url = Url::parse(&format!("{text}{slash}"))?;
        (!text.contains(['?', '#'])).then_some(Self(url))
    }

    /// Where a method of the Web API is.
    pub(super) fn method(&self, name: &str) -> String {
        format!("{}{name}", self.0.as_str())
    }

    /// Whether a `response_url` may be called: it is Slack's own, or of the very scheme, host and
    /// port of this base. What a payload says must not send us anywhere else.
    pub fn admits(&self, response_url: &str) -> bool {
        response_url.starts_with("https://hooks.slack.com/")
            || response_url.starts_with(self.0.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slack_and_the_configured_origin_are_called_back() {
        let base = Base::parse("http://127.0.0.1:8080/api").unwrap();
        assert_eq!(base.method(""), "http://127.0.0.1:8080/api/");
        for good in [
            "https://hooks.slack.com/actions/T1/2/x",
            "http://127.0.0.1:8080/actions/1",
        ] {
            assert!(base.admits(good), "{good}");
        }
        for bad in [
            "http://hooks.slack.com/actions/1",
            "https://hooks.slack.com.evil.example/",
            "https://hooks.slack.com@evil.example/",
            "http://127.0.0.1:80801/",
            "http://127.0.0.1:8081/",
            "https://127.0.0.1:8080/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!base.admits(bad), "{bad}");
        }
        for bad in [
            "slack.com/api",
            "ftp://slack.com/",
            "https://u:p@slack.com/api/",
            "https://slack.com/api/?x=1",
        ] {
            assert!(Base::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_cannot_be_printed_or_break_a_header() {
        assert_eq!(
            format!("{:?}", BotToken::new("xoxb-1")),
            "Some(BotToken(..))"
        );
        assert!(BotToken::new("xoxb-1\r\nX: y").is_none());
    }
}
