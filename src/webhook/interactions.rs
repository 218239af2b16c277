//! `POST /slack/interactions`: a click becomes a ballot, and the ballot is decided.

use serde_json::json;

use super::{FORM, Refusal, Request, Response, Webhook};
use crate::approval::{ApprovalId, Ballot, Choice, Entry, Event, Principal, Route, Sent, Voter};
use crate::clock;
use crate::effects::Outcome;
use crate::metrics::{self, Counter};
use crate::slack::dialog::INPUT;
use crate::slack::interaction::{Actor, Button, Click, Denial, Interaction, Place};
use crate::slack::notice::Notice;
use crate::slack::signature::SignedBody;
use crate::store::{Caution, StoreError};

/// Whose action it is, and what is known of how it came.
struct Came {
    voter: Voter,
    sent: Sent,
    /// It is about another app or workspace than the configured one.
    is_foreign: bool,
}

impl Webhook {
    /// Answers an interaction: 200 once its outcome is durable.
    pub(super) fn interaction(
        &self,
        request: &Request,
        body: &SignedBody,
    ) -> Result<Response, Refusal> {
        if !request.has_content_type(FORM) {
            log::warn!(reason:% = format_args!("its content type is not {FORM}"); "Interaction refused");
            return Err(Refusal::Unreadable);
        }
        let interaction = Interaction::parse(body.bytes()).map_err(|unreadable| {
            log::warn!(reason:% = unreadable; "Interaction refused");
            Refusal::Unreadable
        })?;
        match interaction {
            Interaction::Click(click) => self.click(*click, sent(request, body)),
            Interaction::Denial(denial) => self.denial(*denial, sent(request, body)),
            Interaction::BlockSuggestion => Ok(Response::json(200, &json!({ "options": [] }))),
            Interaction::Unused(kind) => {
                metrics::count(Counter::Requests { action: "unused" });
                log::debug!(kind:%; "Interaction acknowledged without effect");
                Ok(Response::empty())
            }
        }
    }

    fn click(&self, click: Click, sent: Sent) -> Result<Response, Refusal> {
        metrics::count(Counter::Requests {
            action: click.choice.word(),
        });
        let route = Route {
            channel: click.channel,
            ts: click.ts,
            response_url: self.admitted(click.response_url),
        };
        let came = self.receive(click.actor, sent);
        if came.is_foreign {
            return self.refuse_foreign(came, &route, None);
        }
        let Came { voter, sent, .. } = came;
        let Some(id) = ApprovalId::parse(&click.value) else {
            log::warn!(action = click.choice.word(); "Click of @{} carries no approval id", voter.person.username);
            self.effects
                .tell(&voter.person, &route, None, &Notice::NoId);
            return self.refuse(voter, sent, "it carries no approval id");
        };
        let ballot = Ballot {
            id,
            choice: click.choice,
            voter,
            reason: None,
            route,
            seen: click.seen,
            may_precede_file: click.button == Button::RunbookAi,
            trigger_id: click.trigger_id,
            sent,
            at: clock::now(),
        };
        let answer = self.vote(&ballot);
        match click.place {
            Place::HomeTab => self.effects.open_home(ballot.voter),
            Place::Message => {}
        }
        answer
    }

    /// A reason that was given in the dialog denies; an empty one is refused there.
    fn denial(&self, denial: Denial, sent: Sent) -> Result<Response, Refusal> {
        metrics::count(Counter::Requests { action: "deny" });
        let reason = denial.reason.trim();
        if reason.is_empty() {
            return Ok(Response::json(
                200,
                &json!({ "response_action": "errors", "errors": { INPUT: "Please say why." } }),
            ));
        }
        let subject = denial.subject;
        let route = Route {
            response_url: self.admitted(subject.route.response_url),
            ..subject.route
        };
        let came = self.receive(denial.actor, sent);
        if came.is_foreign {
            return self.refuse_foreign(came, &route, Some(&subject.id));
        }
        let Came { voter, sent, .. } = came;
        self.vote(&Ballot {
            id: subject.id,
            choice: Choice::Deny,
            voter,
            reason: Some(reason.to_owned()),
            route,
            seen: subject.seen,
            may_precede_file: subject.may_precede_file,
            trigger_id: None,
            sent,
            at: clock::now(),
        })
    }

    fn receive(&self, actor: Actor, sent: Sent) -> Came {
        let is_foreign = self.is_foreign(actor.app.as_deref(), actor.workspace.as_deref());
        let team = actor.team.clone();
        Came {
            voter: self.voter(actor),
            sent: Sent { team, ..sent },
            is_foreign,
        }
    }

    /// Tells whoever clicked in the name of another app or workspace that this decides nothing.
    fn refuse_foreign(
        &self,
        came: Came,
        route: &Route,
        id: Option<&ApprovalId>,
    ) -> Result<Response, Refusal> {
        let clicker = &came.voter.person;
        self.effects.tell(clicker, route, id, &Notice::Foreign);
        self.refuse(came.voter, came.sent, "another app or workspace")
    }

    /// Acknowledges a click that is about no approval of ours, once that is recorded.
    fn refuse(&self, voter: Voter, sent: Sent, why: &str) -> Result<Response, Refusal> {
        let store = self.effects.store();
        let mut entry = Entry::new(Event::Refused, clock::now(), store.station()).refused(why);
        entry.by = Some(Principal {
            team: sent.team,
            ..voter.person.into()
        });
        entry.from.address = sent.address;
        entry.from.request_timestamp = sent.request_timestamp;
        let recorded = store.record(&[entry], Caution::New);
        recorded.map(|()| Response::empty()).map_err(|error| {
            log::error!(reason:% = error; "A refused click could not be recorded");
            Refusal::Failed
        })
    }

    /// A `response_url` that may be called.
    fn admitted(&self, response_url: Option<String>) -> Option<String> {
        response_url.filter(|url| {
            let admitted = self.effects.terms().slack.admits(url);
            if !admitted {
                log::warn!("A response_url that is not Slack's is not used");
            }
            admitted
        })
    }

    /// Whether Slack means another app or workspace than the configured one.
    pub(super) fn is_foreign(&self, app: Option<&str>, workspace: Option<&str>) -> bool {
        let access = self.access.now();
        let differs = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_some() && wanted.as_deref() != found
        };
        let foreign = differs(&access.app, app) || differs(&access.workspace, workspace);
        if foreign {
            let (app, workspace) = (app.unwrap_or("none"), workspace.unwrap_or("none"));
            log::warn!(app, workspace; "Request from another app or workspace than the configured one");
        }
        foreign
    }

    /// Who votes. As soon as Slack has said whose the token is, that tells who is from outside; of the
    /// organisation only a payload from our own workspace may tell.
    pub(super) fn voter(&self, actor: Actor) -> Voter {
        let external = match (&*self.effects.identity(), &actor.team) {
            (Some(identity), Some(team)) => {
                let is_from_home = actor.workspace == identity.team_id;
                !identity.is_home(team) && (actor.external || !is_from_home)
            }
            _ => actor.external,
        };
        Voter {
            person: actor.person,
            external,
        }
    }

    fn vote(&self, ballot: &Ballot) -> Result<Response, Refusal> {
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

/// What is recorded of a request beside what it says.
fn sent(request: &Request, body: &SignedBody) -> Sent {
    Sent {
        address: Some(request.peer.to_canonical().to_string()),
        request_timestamp: Some(body.sent()),
        team: None,
    }
}
