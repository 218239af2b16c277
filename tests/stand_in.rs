//! A stand-in for Slack's Web API: plain HTTP/1.1 on a loopback socket, a thread per connection.
//!
//! It keeps every call, answers as Slack answers (down to refusing blocks that Slack would refuse), and can be told to
//! fail. Dropping it closes the listener and every connection, and ends their threads.

#![allow(
    dead_code,
    reason = "a stand-in answers for more than any one set of tests asks"
)]

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The bot token that a fresh stand-in accepts.
pub const TOKEN: &str = "xoxb-test-token";

/// Slack on a port of its own.
pub struct StandIn {
    slack: Arc<Slack>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

/// One request that arrived, whatever became of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The Web API method, `response_url`, or the path when it is neither.
    pub method: String,
    /// The request target, query included.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The JSON body, or the form's and the query's fields as an object of strings.
    pub body: Value,
    pub at: Instant,
    /// How the call was refused; `None` when Slack would have been content.
    pub error: Option<String>,
    /// What Slack answered; null when it failed.
    pub answer: Value,
}

/// A way for Slack to fail.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    RateLimited {
        retry_after_seconds: u64,
    },
    /// This HTTP status, with a body that is not JSON.
    Status(u16),
    /// HTTP 200 with `"ok": false` and this error.
    NotOk(&'static str),
    /// No answer until [`StandIn::recover`] or drop, which close the connection.
    Hang,
    /// What Slack would have answered, but not before [`StandIn::recover`].
    Late,
    /// HTTP 200 with a page of HTML.
    Garbage,
    CloseWithoutAnswer,
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

/// What `users.info` says of a guest.
#[derive(Clone, Copy, Debug)]
pub enum Guest {
    /// Of several channels: `is_restricted`.
    Multi,
    /// Of one channel: both flags.
    Single,
    /// It says neither of the two flags.
    Unsaid,
}

/// How many calls a failure meets.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    Next(usize),
    Forever,
}

impl StandIn {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a loopback port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let slack = Arc::new(Slack::default());
        let serving = Arc::clone(&slack);
        let listener = thread::spawn(move || serving.accept(&listener));
        Self {
            slack,
            address,
            listener: Some(listener),
        }
    }

    /// The base of the Web API, as `SLACK_API_URL` wants it.
    pub fn url(&self) -> String {
        format!("http://{}/api/", self.address)
    }

    /// A `response_url` at the same origin; Slack lets each be used five times.
    pub fn response_url(&self, name: &str) -> String {
        format!("http://{}/actions/T0001/1/{name}", self.address)
    }

    pub fn token(&self) -> String {
        self.slack.state().token.clone()
    }

    /// Accepts this token and no other from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.slack.state().token);
    }

    /// Answers this method with this document, once the token is right.
    pub fn answer(&self, method: &str, answer: Value) {
        self.slack.state().answers.insert(method.to_owned(), answer);
    }

    /// Makes these people, by id, the members of a user group; there are no groups but those.
    pub fn set_members(&self, group: &str, members: &[&str]) {
        let members = members.iter().map(ToString::to_string).collect();
        self.slack.state().groups.insert(group.to_owned(), members);
    }

    /// Makes a person a guest of the workspace; all others are full members.
    pub fn set_guest(&self, user: &str, guest: Guest) {
        self.slack.state().guests.insert(user.to_owned(), guest);
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
        let mut state = self.slack.state();
        state.planned.clear();
        state.hanging.clear();
        state.recoveries += 1;
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

    /// Waits for at least `count` calls of a method and returns them all; panics with every call when they do not come.
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
        for connection in state.connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.slack.changed.notify_all();
        // A last connection is what wakes the listener from `accept`.
        let _ = TcpStream::connect(self.address);
        let ended = self.listener.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || !matches!(ended, Some(Err(_))),
            "the stand-in for Slack panicked"
        );
    }
}

#[derive(Default)]
struct Slack {
    state: Mutex<State>,
    /// Signalled when a call arrives, at recovery and at the end.
    changed: Condvar,
}

struct State {
    token: String,
    calls: Vec<Call>,
    answers: HashMap<String, Value>,
    groups: HashMap<String, Vec<String>>,
    guests: HashMap<String, Guest>,
    planned: Vec<Planned>,
    hanging: Vec<&'static str>,
    held: Vec<&'static str>,
    recoveries: u64,
    connections: HashMap<u64, TcpStream>,
    accepted: u64,
    stopped: bool,
}

struct Planned {
    method: Option<&'static str>,
    failure: Failure,
    times: Times,
}

enum Reply {
    Http(Vec<u8>),
    /// Nothing until there were more recoveries than this.
    Hang(u64),
    /// This, once there were more recoveries than that.
    Late(Vec<u8>, u64),
    Close,
}

impl Slack {
    /// A test that panicked under the lock leaves the state whole, so poisoning means nothing here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &TcpListener) {
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
                state.connections.insert(number, handle);
                scope.spawn(move || {
                    // A client may leave at any time; only the calls that arrived whole matter.
                    let _ = self.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                    self.state().connections.remove(&number);
                });
            }
        });
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(head) = Head::read(&mut reader)? {
            let body = head.read_body(&mut reader, Unframed::Empty)?;
            let call = Call::new(&head, &body);
            let method = call.method.clone();
            match self.receive(call) {
                Reply::Http(bytes) => {
                    self.wait_while_held(&method);
                    writer.write_all(&bytes)?;
                }
                Reply::Hang(recoveries) => {
                    self.wait_for_recovery(recoveries);
                    break;
                }
                Reply::Late(bytes, recoveries) => {
                    self.wait_for_recovery(recoveries);
                    writer.write_all(&bytes)?;
                }
                Reply::Close => break,
            }
            if head.header("connection") == Some("close") {
                break;
            }
        }
        Ok(())
    }

    fn receive(&self, mut call: Call) -> Reply {
        let mut state = self.state();
        let reply = state.reply(&mut call);
        state.calls.push(call);
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

impl Call {
    fn new(head: &Head, body: &[u8]) -> Self {
        let path = head.first_line.split(' ').nth(1).unwrap_or_default();
        let (route, query) = path.split_once('?').unwrap_or((path, ""));
        let method = if route.starts_with("/actions/") {
            "response_url"
        } else {
            route.strip_prefix("/api/").unwrap_or(route)
        };
        let body = if head.is_json() {
            serde_json::from_slice(body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
        } else {
            form_urlencoded::parse(query.as_bytes())
                .chain(form_urlencoded::parse(body))
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect()
        };
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: head.headers.clone(),
            body,
            at: Instant::now(),
            error: None,
            answer: Value::Null,
        }
    }

    /// The blocks of the message that it carries.
    pub fn blocks(&self) -> &[Value] {
        self.body["blocks"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The block of the buttons, if its message has any.
    pub fn buttons(&self) -> Option<&Value> {
        let mut blocks = self.blocks().iter();
        blocks.find(|block| block["type"] == "actions")
    }

    /// The approval that the buttons decide.
    pub fn approval_id(&self) -> &str {
        let buttons = self.buttons().expect("the message has buttons");
        let value = buttons["elements"][0]["value"].as_str();
        value.expect("a button has a value")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The text argument of this name, empty when there is none.
    fn argument(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            token: TOKEN.to_owned(),
            calls: Vec::new(),
            answers: HashMap::new(),
            groups: HashMap::new(),
            guests: HashMap::new(),
            planned: Vec::new(),
            hanging: Vec::new(),
            held: Vec::new(),
            recoveries: 0,
            connections: HashMap::new(),
            accepted: 0,
            stopped: false,
        }
    }
}

impl State {
    fn calls_of(&self, method: &str) -> Vec<Call> {
        let of_method = self.calls.iter().filter(|call| call.method == method);
        of_method.cloned().collect()
    }

    fn plan(&mut self, method: Option<&'static str>, failure: Failure, times: Times) {
        self.planned.push(Planned {
            method,
            failure,
            times,
        });
    }

    fn next_failure(&mut self, method: &str) -> Option<Failure> {
        self.planned
            .retain(|planned| !matches!(planned.times, Times::Next(0)));
        let planned = self
            .planned
            .iter_mut()
            .find(|planned| planned.method.is_none_or(|only| only == method))?;
        if let Times::Next(left) = &mut planned.times {
            *left -= 1;
        }
        Some(planned.failure)
    }

    fn reply(&mut self, call: &mut Call) -> Reply {
        let failure = if self.hanging.contains(&call.argument("channel")) {
            Some(Failure::Hang)
        } else {
            self.next_failure(&call.method)
        };
        if let Some(failure) = failure.filter(|failure| !matches!(failure, Failure::Late)) {
            call.error = Some(format!("{failure:?}"));
            return self.failed(failure);
        }
        let answer = self.answer(call);
        call.error = answer["error"].as_str().map(str::to_owned);
        call.answer = answer.clone();
        let reply = match (call.method.as_str(), call.error.as_deref()) {
            ("response_url", None) => http(200, "text/plain", "", "ok"),
            (_, Some("used_url" | "no_such_path")) => json_reply(404, "", &answer),
            _ => json_reply(200, "", &answer),
        };
        match reply {
            Reply::Http(bytes) if failure.is_some() => Reply::Late(bytes, self.recoveries),
            reply => reply,
        }
    }

    fn failed(&self, failure: Failure) -> Reply {
        match failure {
            Failure::RateLimited {
                retry_after_seconds,
            } => {
                let retry_after = format!("Retry-After: {retry_after_seconds}\r\n");
                json_reply(429, &retry_after, &not_ok("ratelimited"))
            }
            Failure::Status(status) => http(status, "text/plain", "", "the stand-in fails"),
            Failure::NotOk(error) => json_reply(200, "", &not_ok(error)),
            Failure::Hang | Failure::Late => Reply::Hang(self.recoveries),
            Failure::Garbage => {
                let page = "<!DOCTYPE html><html><body>Something went wrong</body></html>";
                http(200, "text/html", "", page)
            }
            Failure::CloseWithoutAnswer => Reply::Close,
        }
    }

    fn answer(&self, call: &Call) -> Value {
        let method = call.method.as_str();
        if method == "response_url" {
            return self.respond(call).err().unwrap_or_else(|| ok(json!({})));
        }
        if !call.path.starts_with("/api/") {
            return not_ok("no_such_path");
        }
        match call.header("authorization") {
            None => return not_ok("not_authed"),
            Some(given) if given.strip_prefix("Bearer ") != Some(&self.token) => {
                return not_ok("invalid_auth");
            }
            Some(_) => {}
        }
        if let Some(answer) = self.answers.get(method) {
            return answer.clone();
        }
        let answer = match method {
            "auth.test" => Ok(json!({
                "url": "https://example.slack.com/", "team": "Example", "user": "runbook",
                "team_id": "T0001", "user_id": "U0RUNBOOK", "bot_id": "B0RUNBOOK",
                "is_enterprise_install": false,
            })),
            "chat.postMessage" => Self::post(call),
            "chat.update" => update(call),
            "chat.postEphemeral" => Self::post_ephemeral(call),
            "views.open" => self.open_view(call),
            "views.publish" => publish_view(call),
            "users.info" => self.user_info(call),
            "usergroups.users.list" => self.group_members(call),
            _ => Err(not_ok("unknown_method")),
        };
        answer.map_or_else(|refusal| refusal, ok)
    }

    /// A `response_url` needs no token, and serves five times.
    fn respond(&self, call: &Call) -> Result<(), Value> {
        let uses = self
            .calls
            .iter()
            .filter(|earlier| earlier.path == call.path && earlier.error.is_none());
        if uses.count() >= 5 {
            return Err(not_ok("used_url"));
        }
        if call.body["delete_original"] == true {
            return Ok(());
        }
        check_message(call)
    }

    fn post(call: &Call) -> Result<Value, Value> {
        let channel = match call.argument("channel") {
            "" => return Err(not_ok("channel_not_found")),
            id if is_conversation(id) => id,
            _name => "C0BYNAME01",
        };
        if let Some(thread) = call.body.get("thread_ts")
            && !thread.as_str().is_some_and(is_ts)
        {
            return Err(not_ok("invalid_thread_ts"));
        }
        check_message(call)?;
        let ts = Self::fresh_ts();
        let message = json!({
            "type": "message", "user": "U0RUNBOOK", "bot_id": "B0RUNBOOK", "ts": ts,
            "text": call.body["text"], "blocks": call.body["blocks"],
        });
        Ok(json!({"channel": channel, "ts": ts, "message": message}))
    }

    fn post_ephemeral(call: &Call) -> Result<Value, Value> {
        match (call.argument("channel"), call.argument("user")) {
            ("", _) => Err(not_ok("channel_not_found")),
            (_, "") => Err(not_ok("user_not_in_channel")),
            _ => check_message(call).map(|()| json!({"message_ts": Self::fresh_ts()})),
        }
    }

    /// A `trigger_id` opens one view.
    fn open_view(&self, call: &Call) -> Result<Value, Value> {
        let trigger = call.argument("trigger_id");
        let opened = |earlier: &Call| {
            earlier.method == call.method
                && earlier.error.is_none()
                && earlier.argument("trigger_id") == trigger
        };
        if trigger.is_empty() {
            return Err(not_ok("invalid_trigger_id"));
        }
        if self.calls.iter().any(opened) {
            return Err(not_ok("exchanged_trigger_id"));
        }
        check_view("modal", &call.body["view"])
    }

    fn user_info(&self, call: &Call) -> Result<Value, Value> {
        let user = form_argument(call, "user")?;
        let mut info = json!({
            "id": user, "team_id": "T0001", "name": "alice", "real_name": "Alice Example",
            "deleted": false, "is_bot": false,
            "profile": {"display_name": "alice", "real_name": "Alice Example"},
        });
        let flags = match self.guests.get(user) {
            None => Some((false, false)),
            Some(Guest::Multi) => Some((true, false)),
            Some(Guest::Single) => Some((true, true)),
            Some(Guest::Unsaid) => None,
        };
        if let Some((restricted, ultra_restricted)) = flags {
            info["is_restricted"] = restricted.into();
            info["is_ultra_restricted"] = ultra_restricted.into();
        }
        Ok(json!({"user": info}))
    }

    fn group_members(&self, call: &Call) -> Result<Value, Value> {
        let group = form_argument(call, "usergroup")?;
        let members = self.groups.get(group);
        members
            .map(|members| json!({"users": members}))
            .ok_or_else(|| not_ok("no_such_subteam"))
    }

    /// No two messages have the same one, not even in two workspaces.
    fn fresh_ts() -> String {
        static POSTED: AtomicU32 = AtomicU32::new(1);
        let number = POSTED.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.expect("the clock is past 1970").as_secs();
        format!("{seconds}.{number:06}")
    }
}

/// An update wants the conversation's id, not its name, and its text is held shorter than a post's.
fn update(call: &Call) -> Result<Value, Value> {
    if !is_conversation(call.argument("channel")) {
        return Err(not_ok("channel_not_found"));
    }
    if call.argument("ts").is_empty() {
        return Err(not_ok("message_not_found"));
    }
    if length(call.argument("text"), Markup::Mrkdwn) > 4000 {
        return Err(not_ok("msg_too_long"));
    }
    check_message(call)?;
    let (channel, ts, text) = (&call.body["channel"], &call.body["ts"], &call.body["text"]);
    Ok(json!({"channel": channel, "ts": ts, "text": text}))
}

fn publish_view(call: &Call) -> Result<Value, Value> {
    if !call.argument("user_id").starts_with(['U', 'W']) {
        return Err(missing("user_id"));
    }
    check_view("home", &call.body["view"])
}

/// Slack's reading methods take form fields or a query, and look at no JSON.
fn form_argument<'c>(call: &'c Call, name: &str) -> Result<&'c str, Value> {
    let json = call.header("content-type").is_some_and(is_json);
    match call.argument(name) {
        value if !json && !value.is_empty() => Ok(value),
        _ => Err(missing(name)),
    }
}

/// Seconds and six digits: `1705333850.000300`.
fn is_ts(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = text.split_once('.');
    parts.is_some_and(|(seconds, rest)| digits(seconds) && digits(rest) && rest.len() == 6)
}

fn is_conversation(channel: &str) -> bool {
    channel.starts_with(['C', 'D', 'G'])
        && channel
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

fn ok(mut answer: Value) -> Value {
    answer["ok"] = true.into();
    answer
}

fn not_ok(error: &str) -> Value {
    json!({"ok": false, "error": error})
}

fn refused(error: &str, problems: &[String]) -> Value {
    json!({"ok": false, "error": error, "response_metadata": {"messages": problems}})
}

fn missing(argument: &str) -> Value {
    let problem = format!("[ERROR] missing required field: {argument}");
    refused("invalid_arguments", &[problem])
}

fn json_reply(status: u16, headers: &str, answer: &Value) -> Reply {
    http(
        status,
        "application/json; charset=utf-8",
        headers,
        &answer.to_string(),
    )
}

fn http(status: u16, content_type: &str, headers: &str, body: &str) -> Reply {
    let answer = format!(
        "HTTP/1.1 {status} Stand-in\r\nContent-Type: {content_type}\r\n\
         X-OAuth-Scopes: chat:write,chat:write.public,users:read,usergroups:read\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    Reply::Http(answer.into_bytes())
}

// HTTP/1.1 as both ends of the tests read it.

/// The start line and the header fields of a message.
pub struct Head {
    pub first_line: String,
    pub headers: Vec<(String, String)>,
}

/// What a message without `Content-Length` and `Transfer-Encoding` carries.
#[derive(Clone, Copy)]
pub enum Unframed {
    /// Nothing, as in a request.
    Empty,
    /// Everything until the peer closes, as in an answer.
    UntilClose,
}

impl Head {
    /// Reads up to the empty line; `None` when the peer closed before the first byte.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first_line = line(from)?;
        let mut headers = Vec::new();
        loop {
            let field = line(from)?;
            if field.is_empty() {
                return Ok(Some(Self {
                    first_line,
                    headers,
                }));
            }
            let (name, value) = field.split_once(':').ok_or_else(|| malformed(&field))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The first field of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn read_body(&self, from: &mut impl BufRead, unframed: Unframed) -> io::Result<Vec<u8>> {
        if self.header("transfer-encoding") == Some("chunked") {
            return chunks(from);
        }
        let mut body = Vec::new();
        match (self.header("content-length"), unframed) {
            (Some(length), _) => {
                body = exactly(from, length.parse().map_err(|_| malformed(length))?)?;
            }
            (None, Unframed::Empty) => {}
            (None, Unframed::UntilClose) => {
                from.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn is_json(&self) -> bool {
        self.header("content-type").is_some_and(is_json)
    }
}

/// The first value of this name, in whatever case.
pub fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let mut fields = headers.iter();
    fields
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches('\r').to_owned())
}

fn exactly(from: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes)?;
    if read as u64 == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| malformed(&size))?;
        body.extend(exactly(from, length)?);
        if length == 0 {
            while !line(from)?.is_empty() {}
            return Ok(body);
        }
        line(from)?;
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what:?}"))
}

// Block Kit as Slack checks it: https://docs.slack.dev/reference/block-kit/

/// Characters that the texts of all blocks of a message may have together.
const BLOCKS_TEXT: usize = 13_000;

fn check_message(call: &Call) -> Result<(), Value> {
    let none = Vec::new();
    let blocks = match &call.body["blocks"] {
        Value::Null => &none,
        Value::Array(blocks) => blocks,
        _ => return Err(not_ok("invalid_blocks_format")),
    };
    let attached = call.body["attachments"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if call.argument("text").is_empty() && blocks.is_empty() && !attached {
        return Err(not_ok("no_text"));
    }
    let mut review = Review::default();
    review.blocks("", &call.body, 50);
    if !review.problems.is_empty() {
        return Err(refused("invalid_blocks", &review.problems));
    }
    if blocks.iter().map(text_length).sum::<usize>() > BLOCKS_TEXT {
        return Err(not_ok("msg_blocks_too_long"));
    }
    Ok(())
}

/// Bytes of a view's JSON, which Slack may write with escapes: `\u4e00`.
const VIEW_SIZE: usize = 250_000;

fn check_view(kind: &str, view: &Value) -> Result<Value, Value> {
    let escaped = |c: char| if c.is_ascii() { 1 } else { 6 * c.len_utf16() };
    if view.to_string().chars().map(escaped).sum::<usize>() > VIEW_SIZE {
        return Err(not_ok("view_too_large"));
    }
    let mut review = Review::default();
    if view["type"] != kind {
        review.refuse("/view/type", &format!("must be {kind}"));
    }
    review.view("/view", view);
    if !review.problems.is_empty() {
        return Err(refused("invalid_arguments", &review.problems));
    }
    let mut answer = view.clone();
    answer["id"] = "V0001".into();
    answer["hash"] = "1.stand-in".into();
    Ok(json!({"view": answer}))
}

#[derive(Clone, Copy)]
enum Markup {
    Plain,
    Mrkdwn,
}

/// Slack counts a text after `&`, `<` and `>` are escaped. In mrkdwn the sender did that, and `<` and `>` are markup.
fn length(text: &str, markup: Markup) -> usize {
    let entity = |rest: &str| {
        ["&amp;", "&lt;", "&gt;"]
            .iter()
            .any(|e| rest.starts_with(e))
    };
    text.char_indices()
        .map(|(at, c)| match (c, markup) {
            ('&', Markup::Mrkdwn) if entity(&text[at..]) => 1,
            ('&', _) => 5,
            ('<' | '>', Markup::Plain) => 4,
            _ => 1,
        })
        .sum()
}

/// The length of every text in a block, however deep.
fn text_length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(text_length).sum(),
        Value::Object(fields) => {
            let markup = match value["type"].as_str() {
                Some("mrkdwn") => Markup::Mrkdwn,
                _ => Markup::Plain,
            };
            fields
                .iter()
                .map(|(name, field)| match field {
                    Value::String(text) if name == "text" => length(text, markup),
                    other => text_length(other),
                })
                .sum()
        }
        _ => 0,
    }
}

/// What is wrong with some blocks. In its methods `at` is the JSON pointer of the object beside it.
#[derive(Default)]
struct Review {
    problems: Vec<String>,
    block_ids: HashSet<String>,
}

impl Review {
    fn view(&mut self, at: &str, view: &Value) {
        let common = [
            "type",
            "blocks",
            "private_metadata",
            "callback_id",
            "external_id",
        ];
        let modal = [
            "title",
            "submit",
            "close",
            "clear_on_close",
            "notify_on_close",
        ];
        match view["type"].as_str() {
            Some("modal") => self.only(at, view, &[&common[..], &modal].concat()),
            _ => self.only(at, view, &common),
        }
        match view["type"].as_str() {
            Some("modal") => self.text(at, view, "title", &["plain_text"], 24),
            Some("home") => {}
            _ => self.refuse(&format!("{at}/type"), "unsupported type"),
        }
        for button in ["submit", "close"] {
            self.optional_text(at, view, button, &["plain_text"], 24);
        }
        self.optional_string(at, view, "callback_id", 255);
        self.optional_string(at, view, "private_metadata", 3000);
        self.required(at, view, "blocks");
        self.blocks(at, view, 100);
    }

    fn blocks(&mut self, at: &str, parent: &Value, most: usize) {
        for (at, block) in self.items(at, parent, "blocks", most) {
            self.block(&at, block);
        }
    }

    fn block(&mut self, at: &str, block: &Value) {
        self.optional_string(at, block, "block_id", 255);
        if let Some(id) = block["block_id"].as_str()
            && !self.block_ids.insert(id.to_owned())
        {
            self.refuse(
                &format!("{at}/block_id"),
                &format!("block_id `{id}` already exists"),
            );
        }
        match block["type"].as_str() {
            Some("header") => self.header(at, block),
            Some("section") => self.section(at, block),
            Some("divider") => self.only(at, block, &["type", "block_id"]),
            Some("context") => self.context(at, block),
            Some("actions") => self.actions(at, block),
            Some("image") => self.image_block(at, block),
            Some("rich_text") => self.rich_text(at, block),
            Some("input") => self.input(at, block),
            other => self.unsupported(at, other),
        }
    }

    fn header(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "text"]);
        self.text(at, block, "text", &["plain_text"], 150);
    }

    fn section(&mut self, at: &str, block: &Value) {
        let known = ["type", "block_id", "text", "fields", "accessory", "expand"];
        self.only(at, block, &known);
        if block.get("fields").is_none() {
            self.required(at, block, "text");
        }
        self.optional_text(at, block, "text", &["plain_text", "mrkdwn"], 3000);
        for (at, field) in self.items(at, block, "fields", 10) {
            self.text_object(&at, field, &["plain_text", "mrkdwn"], 2000);
        }
        if let Some(accessory) = block.get("accessory") {
            self.element(&format!("{at}/accessory"), accessory);
        }
    }

    fn context(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "elements"]);
        self.required(at, block, "elements");
        for (at, element) in self.items(at, block, "elements", 10) {
            match element["type"].as_str() {
                Some("image") => self.image(&at, element),
                _ => self.text_object(&at, element, &["plain_text", "mrkdwn"], 3000),
            }
        }
    }

    fn actions(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "elements"]);
        self.required(at, block, "elements");
        let mut ids = HashSet::new();
        for (at, element) in self.items(at, block, "elements", 25) {
            self.element(&at, element);
            if let Some(id) = element["action_id"].as_str()
                && !ids.insert(id)
            {
                self.refuse(
                    &format!("{at}/action_id"),
                    &format!("action_id `{id}` already exists"),
                );
            }
        }
    }

    fn image_block(&mut self, at: &str, block: &Value) {
        self.image(at, block);
        self.optional_text(at, block, "title", &["plain_text"], 2000);
    }

    fn rich_text(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "elements"]);
        self.required(at, block, "elements");
        for (at, element) in self.items(at, block, "elements", usize::MAX) {
            match element["type"].as_str() {
                Some("rich_text_section" | "rich_text_quote") => {
                    self.rich_text_run(&at, element, &INLINE);
                }
                Some("rich_text_preformatted") => {
                    self.rich_text_run(&at, element, &["text", "link"]);
                }
                Some("rich_text_list") => self.rich_text_list(&at, element),
                other => self.unsupported(&at, other),
            }
        }
    }

    fn rich_text_list(&mut self, at: &str, list: &Value) {
        if !matches!(list["style"].as_str(), Some("bullet" | "ordered")) {
            self.refuse(&format!("{at}/style"), "must be a valid enum value");
        }
        self.required(at, list, "elements");
        for (at, element) in self.items(at, list, "elements", usize::MAX) {
            match element["type"].as_str() {
                Some("rich_text_section") => self.rich_text_run(&at, element, &INLINE),
                other => self.unsupported(&at, other),
            }
        }
    }

    fn rich_text_run(&mut self, at: &str, run: &Value, kinds: &[&str]) {
        self.only(at, run, &["type", "elements", "border", "language"]);
        self.required(at, run, "elements");
        for (at, element) in self.items(at, run, "elements", usize::MAX) {
            match element["type"].as_str() {
                Some(kind) if kinds.contains(&kind) => match kind {
                    "text" => {
                        self.only(&at, element, &["type", "text", "style"]);
                        self.string(&at, element, "text", usize::MAX);
                    }
                    "link" => self.string(&at, element, "url", usize::MAX),
                    "user" => self.string(&at, element, "user_id", usize::MAX),
                    "emoji" => self.string(&at, element, "name", usize::MAX),
                    _ => {}
                },
                other => self.unsupported(&at, other),
            }
        }
    }

    fn input(&mut self, at: &str, block: &Value) {
        self.text(at, block, "label", &["plain_text"], 2000);
        self.optional_text(at, block, "hint", &["plain_text"], 2000);
        self.required(at, block, "element");
        let (at, element) = (format!("{at}/element"), &block["element"]);
        match element["type"].as_str() {
            Some("plain_text_input") => {
                self.optional_text(&at, element, "placeholder", &["plain_text"], 150);
                self.optional_string(&at, element, "action_id", 255);
            }
            other => self.unsupported(&at, other),
        }
    }

    fn element(&mut self, at: &str, element: &Value) {
        match element["type"].as_str() {
            Some("button") => self.button(at, element),
            Some("image") => self.image(at, element),
            other => self.unsupported(at, other),
        }
    }

    fn button(&mut self, at: &str, button: &Value) {
        let known = [
            "type",
            "text",
            "action_id",
            "value",
            "url",
            "style",
            "confirm",
            "accessibility_label",
        ];
        self.only(at, button, &known);
        self.text(at, button, "text", &["plain_text"], 75);
        self.string(at, button, "action_id", 255);
        self.optional_string(at, button, "value", 2000);
        self.optional_string(at, button, "url", 3000);
        self.optional_string(at, button, "accessibility_label", 75);
        self.style(at, button);
        if let Some(confirm) = button.get("confirm") {
            self.confirm(&format!("{at}/confirm"), confirm);
        }
    }

    fn confirm(&mut self, at: &str, confirm: &Value) {
        self.only(at, confirm, &["title", "text", "confirm", "deny", "style"]);
        self.text(at, confirm, "title", &["plain_text"], 100);
        self.text(at, confirm, "text", &["plain_text", "mrkdwn"], 300);
        self.text(at, confirm, "confirm", &["plain_text"], 30);
        self.text(at, confirm, "deny", &["plain_text"], 30);
        self.style(at, confirm);
    }

    fn image(&mut self, at: &str, image: &Value) {
        self.string(at, image, "alt_text", 2000);
        if image.get("slack_file").is_none() {
            self.string(at, image, "image_url", 3000);
        }
    }

    fn style(&mut self, at: &str, element: &Value) {
        if !matches!(
            element.get("style").map(Value::as_str),
            None | Some(Some("primary" | "danger"))
        ) {
            self.refuse(&format!("{at}/style"), "must be a valid enum value");
        }
    }

    fn text(&mut self, at: &str, parent: &Value, name: &str, kinds: &[&str], most: usize) {
        self.required(at, parent, name);
        self.optional_text(at, parent, name, kinds, most);
    }

    fn optional_text(&mut self, at: &str, parent: &Value, name: &str, kinds: &[&str], most: usize) {
        if let Some(text) = parent.get(name) {
            self.text_object(&format!("{at}/{name}"), text, kinds, most);
        }
    }

    fn text_object(&mut self, at: &str, text: &Value, kinds: &[&str], most: usize) {
        let (option, markup) = match text["type"].as_str() {
            Some("mrkdwn") => ("verbatim", Markup::Mrkdwn),
            _ => ("emoji", Markup::Plain),
        };
        match text["type"].as_str() {
            Some(kind) if kinds.contains(&kind) => {}
            other => self.unsupported(at, other),
        }
        self.only(at, text, &["type", "text", option]);
        self.required(at, text, "text");
        self.limited(at, text, "text", most, markup);
    }

    fn string(&mut self, at: &str, parent: &Value, name: &str, most: usize) {
        self.required(at, parent, name);
        self.optional_string(at, parent, name, most);
    }

    /// Identifiers and values are counted as text is: an escape can push them over their limit too.
    fn optional_string(&mut self, at: &str, parent: &Value, name: &str, most: usize) {
        self.limited(at, parent, name, most, Markup::Plain);
    }

    fn limited(&mut self, at: &str, parent: &Value, name: &str, most: usize, markup: Markup) {
        let at = format!("{at}/{name}");
        match parent.get(name).map(Value::as_str) {
            Some(None) => self.refuse(&at, "must be a string"),
            Some(Some("")) => self.refuse(&at, "must be more than 0 characters"),
            Some(Some(text)) if length(text, markup) > most => {
                self.refuse(&at, &format!("must be less than {} characters", most + 1));
            }
            Some(Some(_)) | None => {}
        }
    }

    /// The items of a list with their JSON pointers; nothing when there is no such list.
    fn items<'v>(
        &mut self,
        at: &str,
        parent: &'v Value,
        name: &str,
        most: usize,
    ) -> Vec<(String, &'v Value)> {
        let at = format!("{at}/{name}");
        let Some(list) = parent.get(name).filter(|list| !list.is_null()) else {
            return Vec::new();
        };
        let Some(items) = list.as_array() else {
            self.refuse(&at, "must be an array");
            return Vec::new();
        };
        // A message may carry an empty list of blocks; every other list has to hold something.
        if items.is_empty() && name != "blocks" {
            self.refuse(&at, "no less than 1 items allowed");
        }
        if items.len() > most {
            self.refuse(&at, &format!("no more than {most} items allowed"));
        }
        let numbered = items.iter().enumerate();
        numbered
            .map(|(index, item)| (format!("{at}/{index}"), item))
            .collect()
    }

    fn required(&mut self, at: &str, object: &Value, name: &str) {
        if object.get(name).is_none() {
            self.refuse(at, &format!("missing required field: {name}"));
        }
    }

    fn only(&mut self, at: &str, object: &Value, known: &[&str]) {
        for (name, _) in object.as_object().into_iter().flatten() {
            if !known.contains(&name.as_str()) {
                self.refuse(at, &format!("invalid additional property: {name}"));
            }
        }
    }

    fn unsupported(&mut self, at: &str, kind: Option<&str>) {
        let problem = match kind {
            Some(kind) => format!("unsupported type: {kind}"),
            None => "missing required field: type".to_owned(),
        };
        self.refuse(at, &problem);
    }

    fn refuse(&mut self, at: &str, problem: &str) {
        let problem = format!("[ERROR] {problem} [json-pointer:{at}]");
        self.problems.push(problem);
    }
}

/// What may stand in a line of rich text.
const INLINE: [&str; 8] = [
    "text",
    "link",
    "user",
    "emoji",
    "channel",
    "usergroup",
    "date",
    "broadcast",
];
