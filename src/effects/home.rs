//! The Home tabs of those who have opened theirs lately. One job at a time works on all of them, so
//! that a Slack that hangs holds up one thread, and no old view ever follows a new one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::queue::Job;
use super::work::{Task, backoff};
use super::{Attempt, Effects, HORIZON, Terms};
use crate::approval::{Approval, UserId, Voter};
use crate::clock;
use crate::live::hold;
use crate::outgoing::CallError;
use crate::slack::home;
use crate::store::{Store, StoreError};

/// How many people are remembered. Slack grants a hundred views a minute.
const MOST: usize = 300;
/// The time between two views of one person.
const SPACING: Duration = Duration::from_secs(1);
/// How often a view is tried that Slack does not take. The next change is another chance.
const ATTEMPTS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Homes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    viewers: BTreeMap<UserId, Viewer>,
    /// Counts how often any was opened.
    openings: u64,
    /// Slack wants to be left alone until then.
    resume: Option<Instant>,
}

#[derive(Debug)]
struct Viewer {
    voter: Voter,
    /// The number of the last time that they opened it.
    opened: u64,
    want: Want,
    attempts: u32,
    /// Nothing is shown before.
    ready: Option<Instant>,
    /// The fingerprint of what is shown.
    shown: Option<u64>,
}

/// What is to be done about a Home tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Nothing,
    /// It is shown anew if that is not what it shows.
    Look,
    /// It is shown, for it was opened.
    Show,
}

/// One person's turn.
struct Turn {
    user: UserId,
    voter: Voter,
    want: Want,
    shown: Option<u64>,
}

/// What came of a turn.
enum Outcome {
    Shows(u64),
    Again,
    /// Slack will not have it.
    Refused,
    Limited(Duration),
}

impl Effects {
    /// Shows a person their Home tab, and keeps it up to date from now on.
    pub fn open_home(&self, voter: Voter) {
        if !self.terms().slack.has_token() {
            log::debug!("A Home tab needs a bot token");
            return;
        }
        if let Some(user) = UserId::parse(&voter.person.id) {
            self.homes.open(user, voter);
            self.push_homes();
        }
    }

    /// Brings the Home tabs up to date, for what is pending has changed.
    pub(super) fn refresh_homes(&self) {
        self.homes.look();
        self.push_homes();
    }

    /// Takes up what is wanted of Home tabs.
    pub(super) fn push_homes(&self) {
        if let Some(due) = self.homes.due(clock::tick()) {
            self.queue.push_homes(Job::new(Task::Homes, HORIZON), due);
        }
    }

    /// Shows one person their Home tab, if anybody's is due.
    pub(super) fn attempt_home(&self) -> Attempt {
        if let Some(turn) = self.homes.next(clock::tick()) {
            let outcome = self.show_home(&turn);
            self.homes.note(&turn, &outcome, clock::tick());
        }
        Attempt::Done(None)
    }

    fn show_home(&self, turn: &Turn) -> Outcome {
        let user = turn.user.as_str();
        let terms = self.terms();
        let view = match self.home_of(&turn.voter, &terms) {
            Ok(view) => view,
            Err(error) => {
                log::warn!(user, reason:% = error; "Home tab not made");
                return Outcome::Again;
            }
        };
        let fingerprint = fingerprint(&view);
        if turn.want == Want::Look && turn.shown == Some(fingerprint) {
            return Outcome::Shows(fingerprint);
        }
        match terms.slack.publish_home(&turn.user, &view) {
            Ok(()) => Outcome::Shows(fingerprint),
            Err(CallError::Refused(reason)) => {
                log::warn!(user, reason:%; "Slack refused a Home tab");
                Outcome::Refused
            }
            Err(CallError::Limited(pause)) => Outcome::Limited(pause),
            Err(CallError::Failed(reason)) => {
                log::debug!(user, reason:%; "Home tab not shown");
                Outcome::Again
            }
        }
    }

    /// What a person may decide, newest first.
    fn home_of(&self, voter: &Voter, terms: &Terms) -> Result<Value, StoreError> {
        let mut approvals = pending(&*self.store)?;
        self.learn(&approvals, voter, terms);
        let (known, now) = (self.known(), clock::now());
        approvals.retain(|approval| voter.may_approve(approval, &terms.policy, &known, now));
        Ok(home::view(&approvals))
    }
}

/// What is pending and not over, newest first. What does not say when it was asked comes last.
pub(super) fn pending(store: &dyn Store) -> Result<Vec<Approval>, StoreError> {
    let now = clock::now();
    let mut approvals = store.pending()?;
    approvals.retain(|approval| !approval.is_over(now));
    approvals.sort_by_cached_key(|approval| {
        let id = approval.id().clone();
        (Reverse(approval.requested_at()), id)
    });
    Ok(approvals)
}

fn fingerprint(view: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    view.to_string().hash(&mut hasher);
    hasher.finish()
}

impl Homes {
    fn open(&self, user: UserId, voter: Voter) {
        let mut state = self.state();
        state.openings += 1;
        let opened = state.openings;
        let viewer = state.viewers.entry(user).or_insert_with(|| Viewer {
            voter: voter.clone(),
            opened,
            want: Want::Nothing,
            attempts: 0,
            ready: None,
            shown: None,
        });
        viewer.opened = opened;
        viewer.voter = voter;
        viewer.wish(Want::Show);
        if state.viewers.len() > MOST {
            let by_age = |(_, viewer): &(&UserId, &Viewer)| viewer.opened;
            let oldest = state.viewers.iter().min_by_key(by_age);
            let oldest = oldest.map(|(user, _)| user.clone());
            oldest.map(|user| state.viewers.remove(&user));
        }
    }

    fn look(&self) {
        for viewer in self.state().viewers.values_mut() {
            viewer.wish(Want::Look);
        }
    }

    /// When somebody's turn comes; `None` when nobody waits.
    fn due(&self, now: Instant) -> Option<Instant> {
        let state = self.state();
        let waiting = state.viewers.values().filter(|viewer| viewer.waits());
        let ready = waiting.map(|viewer| viewer.ready.unwrap_or(now)).min()?;
        Some(state.resume.map_or(ready, |resume| resume.max(ready)))
    }

    /// Whose turn it is: who has opened theirs first, then who has waited longest.
    fn next(&self, now: Instant) -> Option<Turn> {
        let mut state = self.state();
        if state.resume.is_some_and(|resume| now < resume) {
            return None;
        }
        let ready = state
            .viewers
            .iter_mut()
            .filter(|(_, viewer)| viewer.waits() && viewer.ready.is_none_or(|ready| ready <= now));
        let (user, viewer) =
            ready.min_by_key(|(_, viewer)| (Reverse(viewer.want), viewer.ready))?;
        let want = std::mem::replace(&mut viewer.want, Want::Nothing);
        viewer.ready = Some(now + SPACING);
        Some(Turn {
            user: user.clone(),
            voter: viewer.voter.clone(),
            want,
            shown: viewer.shown,
        })
    }

    fn note(&self, turn: &Turn, outcome: &Outcome, now: Instant) {
        let mut state = self.state();
        if let Outcome::Limited(pause) = outcome {
            state.resume = Some(now + *pause);
        }
        let Some(viewer) = state.viewers.get_mut(&turn.user) else {
            return;
        };
        match outcome {
            Outcome::Shows(fingerprint) => {
                viewer.shown = Some(*fingerprint);
                viewer.attempts = 0;
            }
            Outcome::Again => {
                viewer.attempts += 1;
                viewer.ready = Some(now + SPACING.max(backoff(viewer.attempts)));
                if viewer.attempts < ATTEMPTS {
                    viewer.want = viewer.want.max(turn.want);
                }
            }
            Outcome::Limited(_) => viewer.want = viewer.want.max(turn.want),
            // Whoever opens theirs again is another attempt.
            Outcome::Refused => drop(state.viewers.remove(&turn.user)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.0)
    }
}

impl Viewer {
    fn wish(&mut self, want: Want) {
        self.want = self.want.max(want);
        self.attempts = 0;
    }

    fn waits(&self) -> bool {
        self.want != Want::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approval::Person;

    fn open(homes: &Homes, id: &str) {
        let person = Person {
            id: id.into(),
            username: id.into(),
            name: id.into(),
        };
        let external = false;
        homes.open(UserId::parse(id).unwrap(), Voter { person, external });
    }

    fn next(homes: &Homes, now: Instant) -> Option<String> {
        let turn = homes.next(now)?;
        homes.note(&turn, &Outcome::Shows(1), now);
        Some(turn.user.to_string())
    }

    #[test]
    fn a_person_is_shown_one_view_a_second_however_much_changes() {
        let (homes, now) = (Homes::default(), Instant::now());
        open(&homes, "U1");
        homes.look();
        assert_eq!(next(&homes, now).as_deref(), Some("U1"));
        assert_eq!((next(&homes, now), homes.due(now)), (None, None));
        homes.look();
        open(&homes, "U1");
        homes.look();
        assert_eq!(homes.due(now), Some(now + SPACING));
        assert_eq!(next(&homes, now), None);
        assert_eq!(next(&homes, now + SPACING).as_deref(), Some("U1"));
        assert_eq!(next(&homes, now + 2 * SPACING), None);
    }

    #[test]
    fn who_opens_theirs_comes_first_and_then_who_has_waited_longest() {
        let (homes, start) = (Homes::default(), Instant::now());
        for (n, user) in ["U1", "U2", "U3"].into_iter().enumerate() {
            open(&homes, user);
            let at = start + Duration::from_millis(n as u64);
            assert_eq!(next(&homes, at).as_deref(), Some(user));
        }
        let later = start + 2 * SPACING;
        homes.look();
        open(&homes, "U3");
        let order = [(); 4].map(|()| next(&homes, later));
        assert_eq!(
            order.map(Option::unwrap_or_default),
            ["U3", "U1", "U2", ""].map(String::from)
        );
    }

    #[test]
    fn slacks_patience_holds_for_all_and_a_failure_is_not_tried_for_ever() {
        let (homes, mut now) = (Homes::default(), Instant::now());
        open(&homes, "U1");
        open(&homes, "U2");
        let limited = homes.next(now).unwrap();
        homes.note(&limited, &Outcome::Limited(Duration::from_secs(30)), now);
        assert!(homes.next(now + Duration::from_secs(29)).is_none());
        assert_eq!(homes.due(now), Some(now + Duration::from_secs(30)));
        let mut turns = 0;
        now += Duration::from_secs(30);
        while let Some(turn) = homes.next(now) {
            homes.note(&turn, &Outcome::Again, now);
            now += Duration::from_secs(300);
            turns += 1;
        }
        assert_eq!(turns, 2 * ATTEMPTS);
        homes.look();
        assert!(homes.next(now).is_some());
    }

    #[test]
    fn whoever_opened_theirs_longest_ago_is_forgotten_first() {
        let homes = Homes::default();
        for n in 0..=MOST {
            open(&homes, &format!("U{n}"));
            open(&homes, "U0");
        }
        let state = homes.state();
        let knows = |id: &str| state.viewers.contains_key(&UserId::parse(id).unwrap());
        assert_eq!(state.viewers.len(), MOST);
        assert_eq!([knows("U0"), knows("U1"), knows("U2")], [true, false, true]);
    }
}
