//! `POST /slack/events`: the challenge, and events, each handled once.

use std::collections::{HashSet, VecDeque};
use std::sync::PoisonError;

use serde_json::json;

use super::{JSON, Refusal, Request, Response, Webhook};
use crate::metrics::{self, Counter};
use crate::slack::event::Delivery;
use crate::slack::signature::SignedBody;

/// How many event ids are remembered. Slack delivers an event at most four times within about an
/// hour; a workspace would have to send one a second for longer than that to outrun this.
const REMEMBERED: usize = 4096;

/// The ids of the events that came last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether the event is new. It is not new any more after that.
    fn is_new(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Webhook {
    /// Answers a delivery of the Events API.
    pub(super) fn event(&self, request: &Request, body: &SignedBody) -> Result<Response, Refusal> {
        if !request.has_content_type(JSON) {
            log::warn!("Event refused: its content type is not {JSON}");
            return Err(Refusal::Unreadable);
        }
        let delivery = Delivery::parse(body.bytes()).map_err(|error| {
            log::warn!(reason:% = error; "Event refused");
            Refusal::Unreadable
        })?;
        metrics::count(Counter::Requests { action: "event" });
        match delivery {
            Delivery::UrlVerification { challenge } => {
                log::info!("Slack verified the request URL");
                Ok(Response::json(200, &json!({ "challenge": challenge })))
            }
            Delivery::EventCallback { event_id, event } => {
                // The id decides, not Slack's retry header: a retry may be the first to arrive.
                if self
                    .seen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_new(&event_id)
                {
                    log::info!(eventId:% = event_id; "Received event {}", event.kind);
                } else {
                    let retry = request.header("x-slack-retry-num").next().unwrap_or("none");
                    log::debug!(eventId:% = event_id, retry; "Event received again");
                }
                Ok(Response::empty())
            }
            Delivery::Unused => {
                log::debug!("Event delivery of an unused type acknowledged");
                Ok(Response::empty())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_and_the_oldest_are_forgotten() {
        let mut seen = Seen::default();
        assert!(seen.is_new("Ev1"));
        assert!(!seen.is_new("Ev1"));
        assert!((0..REMEMBERED).all(|n| seen.is_new(&n.to_string())));
        assert!(seen.is_new("Ev1"));
        assert_eq!(seen.ids.len(), REMEMBERED);
    }
}
