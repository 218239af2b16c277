//! How much of anything a stranger may take, and for how long.

use std::time::Duration;

/// The limits of the public socket. Each stands in the configuration under `webhook.limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. One more, and one of those that keep us waiting for a complete
    /// request has to go.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a body. Slack's payloads are a few kilobytes; one that quotes a long message with
    /// many blocks stays far below the default.
    pub body_bytes: usize,
    /// Requests on one connection.
    pub requests: usize,
    /// From the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// From a request's first byte to its last.
    pub request: Duration,
    /// From an answer to the next request's first byte.
    pub idle: Duration,
    /// For the client to take an answer.
    pub write: Duration,
    /// For a worker to become free.
    pub worker: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head_bytes: 16 << 10,
            headers: 64,
            body_bytes: 1 << 20,
            requests: 1000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            worker: Duration::from_secs(2),
        }
    }
}
