//! The body of `POST /slack/events`.
//!
//! Source: <https://docs.slack.dev/apis/events-api/>

use serde::Deserialize;

/// What Slack tells us there.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delivery {
    /// Slack checks that the URL is ours: the challenge goes back as it came.
    UrlVerification { challenge: String },
    /// Something happened in the workspace. It may be delivered up to four times.
    EventCallback { event_id: String, event: Event },
    /// Any other type, which we acknowledge.
    #[serde(other)]
    Unused,
}

/// The event inside an `event_callback`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Event {
    #[serde(rename = "type", default)]
    pub kind: String,
}

impl Delivery {
    /// Reads the body.
    ///
    /// # Errors
    /// What is not JSON of the documented shape.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }
}
