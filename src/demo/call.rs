//! One request that reached the stand-in.

use std::time::Instant;

use serde_json::Value;

use crate::clock;
use crate::webhook::Request;

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

impl Call {
    pub(super) fn new(request: Request) -> Self {
        let (route, query) = match request.target.split_once('?') {
            Some((route, query)) => (route, query),
            None => (&*request.target, ""),
        };
        let method = if route.starts_with("/actions/") {
            "response_url"
        } else {
            route.strip_prefix("/api/").unwrap_or(route)
        };
        let body = if request.has_content_type("application/json") {
            let text = || String::from_utf8_lossy(&request.body).into_owned();
            serde_json::from_slice(&request.body).unwrap_or_else(|_| Value::String(text()))
        } else {
            form_urlencoded::parse(query.as_bytes())
                .chain(form_urlencoded::parse(&request.body))
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect()
        };
        Self {
            method: method.to_owned(),
            body,
            path: request.target,
            headers: request.headers,
            at: clock::tick(),
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

    /// The approval that the buttons decide; empty when there are none.
    pub fn approval_id(&self) -> &str {
        let value = self
            .buttons()
            .map(|buttons| &buttons["elements"][0]["value"]);
        value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The text argument of this name, empty when there is none.
    pub(super) fn argument(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}
