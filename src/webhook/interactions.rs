//! `POST /slack/interactions`: a click becomes a ballot, and the ballot is decided.

use serde_json::json;

use super::{FORM, Refusal, Request, Response, Webhook};
use crate::approval::{ApprovalId, Ballot, Route, Voter};
use crate::clock;
use crate::effects::Outcome;
use crate::metrics::{self, Counter};
use crate::slack::interaction::{Button, Click, Interaction, Place};
use crate::slack::message::Notice;
use crate::slack::signature::SignedBody;
use crate::store::StoreError;

impl Webhook {
    /// Answers an interaction: 200 once its outcome is durable.
    pub(super) fn interaction(
        &self,
        request: &Request,
        body: &SignedBody,
    ) -> Result<Response, Refusal> {
        if !request.has_content_type(FORM) {
            log::warn!("Interaction refused: its content type is not {FORM}");
            return Err(Refusal::Unreadable);
        }
        let interaction = Interaction::parse(body.bytes()).map_err(|unreadable| {
            log::warn!(reason:% = unreadable; "Interaction refused");
            Refusal::Unreadable
        })?;
        match interaction {
            Interaction::Click(click) => self.click(*click),
            Interaction::BlockSuggestion => Ok(Response::json(200, &json!({ "options": [] }))),
            Interaction::Unused(kind) => {
                metrics::count(Counter::Requests { action: "unused" });
                log::debug!(kind:%; "Interaction acknowledged without effect");
                Ok(Response::empty())
            }
        }
    }

    fn click(&self, click: Click) -> Result<Response, Refusal> {
        metrics::count(Counter::Requests {
            action: click.choice.word(),
        });
        let response_url = click.response_url.filter(|url| {
            let admitted = self.effects.terms().slack.admits(url);
            if !admitted {
                log::warn!("A response_url that is not Slack's is not used");
            }
            admitted
        });
        let voter = Voter {
            person: click.person,
            external: click.external,
        };
        let route = Route {
            channel: click.channel,
            ts: click.ts,
            response_url,
        };
        let Some(id) = ApprovalId::parse(&click.value) else {
            log::warn!(action = click.choice.word(); "Click of @{} carries no approval id", voter.person.username);
            let notice = Notice::NoId;
            self.effects.tell(&voter.person, &route, None, &notice);
            return Ok(Response::empty());
        };
        let ballot = Ballot {
            id,
            choice: click.choice,
            voter,
            reason: None,
            route,
            seen: click.seen,
            may_precede_file: click.button == Button::RunbookAi,
            at: clock::now(),
        };
        let answer = self.cast(&ballot);
        match click.place {
            Place::HomeTab => self.effects.open_home(ballot.voter),
            Place::Message => {}
        }
        answer
    }

    fn cast(&self, ballot: &Ballot) -> Result<Response, Refusal> {
        match self.effects.decide(ballot) {
            Ok(Outcome::Settled | Outcome::Deferred) => Ok(Response::empty()),
            Ok(Outcome::Unsynced) => Err(Refusal::Failed),
            Err(error) => {
                log::error!(approvalId:% = ballot.id, reason:% = error; "A click could not be decided");
                self.effects.tell_voter(ballot, &Notice::Failed);
                Err(if matches!(error, StoreError::Busy) {
                    Refusal::Busy
                } else {
                    Refusal::Failed
                })
            }
        }
    }
}
