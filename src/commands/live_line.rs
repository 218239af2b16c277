//! The line that a waiting person sees on standard error. A log sees nothing.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::approval::Approval;
use crate::clock;

/// Erases itself when something else is to be printed.
pub(super) struct LiveLine {
    since: Instant,
    watched: bool,
    shown: bool,
}

impl LiveLine {
    /// Begins to count.
    pub(super) fn start() -> Self {
        Self {
            since: clock::tick(),
            watched: stderr().is_terminal(),
            shown: false,
        }
    }

    /// Shows how long it has been, and how long it may be.
    pub(super) fn show(&mut self, approval: &Approval) {
        if !self.watched {
            return;
        }
        let elapsed = words(clock::since(self.since));
        let expiry = approval.expires_at().map(|expiry| {
            let left = words(expiry.since(clock::now()));
            format!(", expires in {left}")
        });
        let line = format!(
            "Waiting for {} for {elapsed}{}",
            approval.id(),
            expiry.unwrap_or_default()
        );
        // Whoever watches may have closed the terminal.
        let _ = write!(stderr(), "\r\x1b[K{line}");
        self.shown = true;
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `12s`, `4m 48s`.
fn words(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}
