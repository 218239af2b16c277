//! The stand-in for Slack: plain HTTP/1.1 on a loopback socket, a thread per connection.
//!
//! It keeps every call, answers as Slack answers, and can be told to fail. Dropping it closes the listener and every
//! connection, and ends their threads.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::aside;
pub use super::call::Call;
use super::http::Line;
use super::interactions::App;
use super::page::{Granter, Wish};
use super::people::Person;
pub use super::state::{Failure, Guest, TOKEN, Times};
use super::state::{Reply, State};
use crate::live::hold;
use crate::slack::dialog::INPUT;

/// Slack on a port of its own.
pub struct StandIn {
    pub(super) slack: Arc<Slack>,
    listener: Option<JoinHandle<()>>,
}

/// Answers that are held back until this is dropped.
pub struct Held<'a> {
    slack: &'a Slack,
    method: &'static str,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.slack.state();
        state.held.retain(|method| *method != self.method);
        self.slack.changed.notify_all();
    }
}

impl StandIn {
    /// Slack on any free port.
    ///
    /// # Panics
    /// The system gives no loopback port.
    #[allow(clippy::expect_used, reason = "a test without a port cannot begin")]
    pub fn start() -> Self {
        Self::on(0).expect("bind a loopback port")
    }

    /// Slack on this port, or any free one for 0.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn on(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let address = listener.local_addr()?;
        let slack = Arc::new(Slack {
            address,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&slack);
        let listener = aside(Box::new(move || serving.accept(&listener)))?;
        Ok(Self {
            slack,
            listener: Some(listener),
        })
    }

    /// The base of the Web API, as `SLACK_API_URL` wants it.
    pub fn url(&self) -> String {
        self.slack.at("/api/")
    }

    /// A `response_url` at the same origin; Slack lets each be used five times.
    pub fn response_url(&self, name: &str) -> String {
        self.slack.at(&format!("/actions/T0001/1/{name}"))
    }

    pub fn token(&self) -> String {
        self.slack.state().token.clone()
    }

    /// Accepts this token and no other from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.slack.state().token);
    }

    /// From now on the token may do this, as `X-OAuth-Scopes` lists it.
    pub fn set_scopes(&self, scopes: &str) {
        scopes.clone_into(&mut self.slack.state().scopes);
    }

    /// Puts Slack's clock ahead of this machine's by so many seconds, or behind it.
    pub fn set_clock_off(&self, seconds: i64) {
        self.slack.state().clock_off = seconds;
    }

    /// Answers this method with this document, once the token is right.
    pub fn answer(&self, method: &str, answer: Value) {
        self.slack.state().answers.insert(method.to_owned(), answer);
    }

    /// Makes these people, by id, the members of a user group; there are no groups but those.
    pub fn set_members(&self, group: &str, members: &[&str]) {
        let members = members.into();
        self.slack.state().groups.insert(group.to_owned(), members);
    }

    /// Makes a person a guest of the workspace; all others are full members.
    pub fn set_guest(&self, user: &str, guest: Guest) {
        let mut state = self.slack.state();
        state.guests.retain(|(other, _)| other != user);
        state.guests.push((user.to_owned(), guest));
    }

    /// Fails calls of any method. Failures that were asked for one after another come in that order.
    pub fn fail(&self, failure: Failure, times: Times) {
        self.slack.state().plan(None, failure, times);
    }

    /// Fails calls of this method only.
    pub fn fail_method(&self, method: &'static str, failure: Failure, times: Times) {
        self.slack.state().plan(Some(method), failure, times);
    }

    /// Lets every call about this channel hang until [`StandIn::recover`].
    pub fn hang_channel(&self, channel: &'static str) {
        self.slack.state().hanging.push(channel);
    }

    /// Forgets every failure and lets go of the calls that hang.
    pub fn recover(&self) {
        self.slack.state().recover();
        self.slack.changed.notify_all();
    }

    /// Lets calls of this method arrive, and answers them once what this returns is dropped.
    pub fn hold(&self, method: &'static str) -> Held<'_> {
        self.slack.state().held.push(method);
        Held {
            slack: &self.slack,
            method,
        }
    }

    /// From now on this app's server is told what people do, and what they want is done.
    pub fn install(&self, app: App, granter: Granter) {
        let mut state = self.slack.state();
        state.app = Some(Arc::new(app));
        state.granter = Some(Arc::new(Mutex::new(granter)));
    }

    /// Lets the page tell what the agent has learnt.
    pub fn note_agent(&self, id: &str, learnt: &str) {
        let mut state = self.slack.state();
        state.channel.note("the agent learns", id, Ok(learnt));
        state.learnt = true;
        drop(state);
        self.slack.change();
    }

    /// Waits until an agent has learnt something; `false` when none has in time.
    pub fn agent_learns(&self, within: Duration) -> bool {
        let waiting = |state: &mut State| !state.learnt && !state.stopped;
        let changed = &self.slack.changed;
        let waited = changed.wait_timeout_while(self.slack.state(), within, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.learnt
    }

    /// The URL of the page.
    pub fn page(&self) -> String {
        self.slack.at("/")
    }

    /// Lets people change on the page whether a denial has to say why, which is so now or not.
    pub fn offer_policy(&self, say_why: bool) {
        self.slack.state().say_why = Some(say_why);
    }

    /// Somebody clicks a button of a message that was posted.
    pub fn press(&self, person: Person, posted: &Call, action: &str) {
        let block = posted.buttons().and_then(|row| row["block_id"].as_str());
        let ts = posted.answer["ts"].as_str();
        self.slack
            .click(person, ts, block.unwrap_or_default(), action);
    }

    /// Somebody says why in the dialog that is open.
    pub fn explain(&self, person: Person, reason: &str) {
        let mut values = Value::Null;
        values[INPUT][INPUT]["value"] = reason.into();
        self.slack.submit(person, &values);
    }

    /// A call by its number, from 0, as soon as it comes; `None` when no more will, or not in time.
    pub fn call(&self, number: usize, within: Option<Duration>) -> Option<Call> {
        let waiting = |state: &mut State| state.calls.len() <= number && !state.stopped;
        let (state, changed) = (self.slack.state(), &self.slack.changed);
        let state = match within {
            Some(within) => changed
                .wait_timeout_while(state, within, waiting)
                .map_or_else(|error| error.into_inner().0, |(state, _)| state),
            None => changed
                .wait_while(state, waiting)
                .unwrap_or_else(PoisonError::into_inner),
        };
        state.calls.get(number).cloned()
    }

    /// All calls but `auth.test`, which every server makes when it starts.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = self.slack.state().calls.clone();
        calls.retain(|call| call.method != "auth.test");
        calls
    }

    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        self.slack.state().calls_of(method)
    }

    /// The calls of a method with which Slack was content.
    pub fn done(&self, method: &str) -> Vec<Call> {
        let mut calls = self.calls_of(method);
        calls.retain(|call| call.error.is_none());
        calls
    }

    /// Waits for at least `count` calls of a method and returns them all.
    ///
    /// # Panics
    /// They do not come in time. It tells every call that came.
    pub fn wait_for(&self, method: &str, count: usize, timeout: Duration) -> Vec<Call> {
        let (state, _) = self
            .slack
            .changed
            .wait_timeout_while(self.slack.state(), timeout, |state| {
                state.calls_of(method).len() < count
            })
            .unwrap_or_else(PoisonError::into_inner);
        let found = state.calls_of(method);
        let all = state.calls.clone();
        drop(state);
        assert!(
            found.len() >= count,
            "{} of {count} calls of {method} within {timeout:?}; all calls: {all:#?}",
            found.len()
        );
        found
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let mut state = self.slack.state();
        state.stopped = true;
        for (_, connection) in &state.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.slack.changed.notify_all();
        // A last connection is what wakes the listener from `accept`.
        let _ = TcpStream::connect(self.slack.address);
        let ended = self.listener.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || !matches!(ended, Some(Err(_))),
            "the stand-in for Slack panicked"
        );
    }
}

/// What the threads of all connections share.
pub(super) struct Slack {
    address: SocketAddr,
    state: Mutex<State>,
    /// Signalled when a call arrives, when anything else changes, at recovery and at the end.
    changed: Condvar,
}

impl Slack {
    /// A test that panicked under the lock leaves the state whole, so poisoning means nothing here.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }

    /// The URL of a path here.
    pub(super) fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Whether a `Host` header means this address.
    pub(super) fn is_called(&self, host: &str) -> bool {
        let port = self.address.port();
        [format!("127.0.0.1:{port}"), format!("localhost:{port}")].contains(&host.to_owned())
    }

    /// The app whose server is told what people do; `None` until it is installed.
    pub(super) fn app(&self) -> Option<Arc<App>> {
        self.state().app.clone()
    }

    /// Passes on what people want; `None` when nobody is there to do it.
    pub(super) fn wish(&self, wish: Wish) -> Option<()> {
        let granter = self.state().granter.clone()?;
        let mut grant = hold(&granter);
        grant(wish);
        Some(())
    }

    /// Tells everybody that something has changed.
    pub(super) fn change(&self) {
        self.state().version += 1;
        self.changed.notify_all();
    }

    /// What the state tells once it is newer than what was seen, or the time is up.
    pub(super) fn news<T>(
        &self,
        seen: Option<u64>,
        within: Duration,
        tell: impl Fn(&State) -> T,
    ) -> T {
        let old =
            |state: &mut State| seen.is_some_and(|seen| state.version <= seen) && !state.stopped;
        let waited = self.changed.wait_timeout_while(self.state(), within, old);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        tell(&state)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                let mut state = self.state();
                if state.stopped {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let Ok(handle) = stream.try_clone() else {
                    continue;
                };
                state.accepted += 1;
                let number = state.accepted;
                state.connections.push((number, handle));
                scope.spawn(move || {
                    // A client may leave at any time; only the calls that arrived whole matter.
                    let _ = self.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                    let connections = &mut self.state().connections;
                    connections.retain(|(other, _)| *other != number);
                });
            }
        });
    }

    fn serve(self: &Arc<Self>, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut line = Line::new(stream);
        while let Some(request) = line.request()? {
            if let Some(response) = self.page(&request) {
                line.answer(&response)?;
                continue;
            }
            let call = Call::new(request);
            let method = call.method.clone();
            match self.receive(call) {
                Reply::Answer(response) => {
                    self.wait_while_held(&method);
                    line.answer(&response)?;
                }
                Reply::Hang(recoveries) => {
                    self.wait_for_recovery(recoveries);
                    break;
                }
                Reply::Late(response, recoveries) => {
                    self.wait_for_recovery(recoveries);
                    line.answer(&response)?;
                }
                Reply::Close => break,
            }
        }
        Ok(())
    }

    fn receive(&self, mut call: Call) -> Reply {
        let mut state = self.state();
        let reply = state.reply(&mut call);
        let channel = &mut state.channel;
        let went = call.error.as_deref().map_or(Ok("ok"), Err);
        channel.note("server → Slack", &call.method, went);
        if call.error.is_none() {
            channel.show(&call);
        }
        state.calls.push(call);
        state.version += 1;
        self.changed.notify_all();
        reply
    }

    fn wait_while_held(&self, method: &str) {
        let waiting = |state: &mut State| state.held.contains(&method) && !state.stopped;
        drop(self.changed.wait_while(self.state(), waiting));
    }

    fn wait_for_recovery(&self, recoveries: u64) {
        let waiting = |state: &mut State| state.recoveries == recoveries && !state.stopped;
        drop(self.changed.wait_while(self.state(), waiting));
    }
}
