//! `POST /slack/events`: the challenge, and events, each handled once.

use std::collections::{HashSet, VecDeque};

use serde_json::json;

use super::{JSON, Refusal, Request, Response, Webhook};
use crate::approval::{Person, UserId};
use crate::live::hold;
use crate::metrics::{self, Counter};
use crate::slack::event::{Delivery, Event};
use crate::slack::interaction::Actor;
use crate::slack::signature::SignedBody;
use crate::store::Novelty;

/// How many event ids are remembered here, beside those in the store. Slack delivers an event at most
/// four times within about an hour; a workspace would have to send one a second for longer than that
/// to outrun this.
const REMEMBERED: usize = 4096;

/// The ids of the events that came last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether the event is new here. It is not new any more after that.
    fn meet(&mut self, id: &str) -> Novelty {
        if !self.ids.insert(id.to_owned()) {
            return Novelty::Known;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        Novelty::New
    }
}

impl Webhook {
    /// Answers a delivery of the Events API.
    pub(super) fn event(&self, request: &Request, body: &SignedBody) -> Result<Response, Refusal> {
        if !request.has_content_type(JSON) {
            log::warn!(reason:% = format_args!("its content type is not {JSON}"); "Event refused");
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
            Delivery::EventCallback {
                event_id,
                event,
                team_id,
                context_team_id,
                api_app_id,
                authorizations,
            } => {
                let mut installed = authorizations.into_iter().flatten();
                let installed = || installed.find_map(|by| by.team_id);
                let workspace = context_team_id
                    .or_else(installed)
                    .or_else(|| team_id.clone());
                if self.is_foreign(api_app_id.as_deref(), workspace.as_deref()) {
                    return Ok(Response::empty());
                }
                match self.meet(&event_id, &event) {
                    Novelty::New => {
                        log::info!(eventId:% = event_id; "Received event {}", event.kind());
                        self.take_up(event, |user| opener(user, team_id, workspace, api_app_id));
                    }
                    Novelty::Known => {
                        let retry = request.header("x-slack-retry-num").next().unwrap_or("none");
                        log::debug!(eventId:% = event_id, retry; "Event received again");
                    }
                }
                Ok(Response::empty())
            }
            Delivery::Unused => {
                log::debug!("Event delivery of an unused type acknowledged");
                Ok(Response::empty())
            }
        }
    }

    /// Begins what follows from an event; `actor` says who has opened their Home tab.
    fn take_up(&self, event: Event, actor: impl FnOnce(&UserId) -> Actor) {
        match event {
            Event::HomeOpened { user } => self.effects.open_home(self.voter(actor(&user))),
            Event::Mention(mention) => self.effects.answer(mention),
            Event::Unused(_) => {}
        }
    }

    /// Whether nobody has handled an event. The id decides, not Slack's retry header: a retry may be
    /// the first to arrive.
    fn meet(&self, event_id: &str, event: &Event) -> Novelty {
        let mut seen = hold(&self.seen);
        let here = seen.meet(event_id);
        drop(seen);
        match (here, event) {
            // Nothing follows from it, so only the log would show it twice.
            (Novelty::Known, _) | (Novelty::New, Event::Unused(_)) => here,
            (Novelty::New, Event::Mention(_) | Event::HomeOpened { .. }) => {
                let taken_on = self.effects.store().take_on_event(event_id);
                taken_on.unwrap_or_else(|error| {
                    log::warn!(eventId:% = event_id, reason:% = error; "Other servers may handle this event, too");
                    here
                })
            }
        }
    }
}

/// Who has opened their Home tab: the event names them by id, and the workspace that they did it in.
fn opener(
    user: &UserId,
    team: Option<String>,
    workspace: Option<String>,
    app: Option<String>,
) -> Actor {
    let [id, username, name] = [(); 3].map(|()| user.to_string());
    Actor {
        person: Person { id, username, name },
        external: team != workspace,
        team,
        app,
        workspace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_and_the_oldest_are_forgotten() {
        let mut seen = Seen::default();
        assert_eq!(seen.meet("Ev1"), Novelty::New);
        assert_eq!(seen.meet("Ev1"), Novelty::Known);
        assert!((0..REMEMBERED).all(|n| seen.meet(&n.to_string()) == Novelty::New));
        assert_eq!(seen.meet("Ev1"), Novelty::New);
        assert_eq!(seen.ids.len(), REMEMBERED);
    }
}
