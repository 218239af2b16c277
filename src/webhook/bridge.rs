//! The `tiny_http` side: sockets in, a fixed number of workers, [`Request`]s out.
//!
//! Nothing outside this file names `tiny_http`. It has no deadlines and no limits of its own on
//! connections and heads, so a reverse proxy belongs in front of it.

use std::io::Read;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{LARGEST_BODY, Refusal, Request, Response};
use crate::clock;

/// Answers a request. It may panic: the worker survives and answers 500.
pub type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// Called when the listener has failed for good and a worker ends because of it.
pub type OnFailure = Arc<dyn Fn() + Send + Sync>;

/// A running server.
pub struct Bridge {
    server: Arc<tiny_http::Server>,
    workers: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Bridge {
    /// Starts `workers` threads that answer what arrives at the listener.
    ///
    /// # Errors
    /// When the system gives no more threads or the listener cannot be used.
    pub fn start(
        listener: TcpListener,
        workers: usize,
        handler: &Handler,
        on_failure: &OnFailure,
    ) -> std::io::Result<Self> {
        let server =
            tiny_http::Server::from_listener(listener, None).map_err(std::io::Error::other)?;
        let mut bridge = Self {
            server: Arc::new(server),
            workers: Vec::new(),
            stopping: Arc::default(),
        };
        for number in 1..=workers {
            let (server, stopping) = (Arc::clone(&bridge.server), Arc::clone(&bridge.stopping));
            let (handler, on_failure) = (Arc::clone(handler), Arc::clone(on_failure));
            let worker = thread::Builder::new().name(format!("worker-{number}"));
            bridge.workers.push(worker.spawn(move || {
                work(&server, &stopping, &handler);
                if !stopping.load(Ordering::Acquire) {
                    on_failure();
                }
            })?);
        }
        Ok(bridge)
    }

    /// Lets the workers finish what they have, until the deadline.
    pub fn stop(self, deadline: Instant) {
        self.stopping.store(true, Ordering::Release);
        for worker in self.workers {
            while !worker.is_finished() && clock::tick() < deadline {
                self.server.unblock();
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn work(server: &tiny_http::Server, stopping: &AtomicBool, handler: &Handler) {
    while !stopping.load(Ordering::Acquire) {
        match server.recv() {
            Ok(request) => serve(request, handler),
            Err(_) if stopping.load(Ordering::Acquire) => return,
            Err(error) => {
                log::error!(reason:% = error; "The listener has failed");
                return;
            }
        }
    }
}

fn serve(mut raw: tiny_http::Request, handler: &Handler) {
    let request = Request {
        method: raw.method().to_string(),
        target: raw.url().to_owned(),
        headers: raw
            .headers()
            .iter()
            .map(|h| (h.field.to_string(), h.value.to_string()))
            .collect(),
        peer: raw.remote_addr().map(std::net::SocketAddr::ip),
        body: read_body(&mut raw),
    };
    let response = catch_unwind(AssertUnwindSafe(|| handler(&request))).unwrap_or_else(|_| {
        log::error!("A worker panicked; this is a bug");
        Refusal::Failed.response()
    });
    let mut answer =
        tiny_http::Response::from_data(response.body).with_status_code(response.status);
    for (name, value) in response.headers {
        if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
            answer.add_header(header);
        }
    }
    if let Err(error) = raw.respond(answer) {
        log::debug!(reason:% = error; "The client did not wait for its answer");
    }
}

fn read_body(raw: &mut tiny_http::Request) -> Result<Vec<u8>, Refusal> {
    let length = raw.body_length();
    if length.is_some_and(|length| length > LARGEST_BODY) {
        return Err(Refusal::TooLarge);
    }
    let mut body = Vec::with_capacity(length.unwrap_or(0));
    let read = raw
        .as_reader()
        .take(LARGEST_BODY as u64 + 1)
        .read_to_end(&mut body);
    match read {
        Err(_) => Err(Refusal::Incomplete),
        Ok(bytes) if bytes > LARGEST_BODY => Err(Refusal::TooLarge),
        Ok(bytes) if length.is_some_and(|length| length != bytes) => Err(Refusal::Incomplete),
        Ok(_) => Ok(body),
    }
}
