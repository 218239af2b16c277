//! Signals to who asks: while waiting they withdraw the request, and then they are the command's.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::complaint::{Complaint, reason};
use crate::config;

/// Hears signals from now on.
pub(super) struct Stop {
    /// Can be read once a signal has come.
    told: UnixStream,
    state: Arc<Mutex<State>>,
}

struct State {
    teller: UnixStream,
    phase: Phase,
}

/// Whose the signals are.
enum Phase {
    /// Ours. What has come before the command is kept for it.
    Waiting(Vec<Signal>),
    /// The command's.
    Running(Pid),
    /// Nobody's any more.
    Over,
}

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system gives no handlers, sockets or threads.
    pub(super) fn listen() -> Result<Self, Complaint> {
        Self::begin()
            .map_err(|error| Complaint::failure(format!("cannot hear signals: {}", reason(&error))))
    }

    fn begin() -> io::Result<Self> {
        let (told, teller) = UnixStream::pair()?;
        let state = Arc::new(Mutex::new(State {
            teller,
            phase: Phase::Waiting(Vec::new()),
        }));
        let mut heard = vec![SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
        // What we were started to ignore the command ignores, too.
        heard.retain(|signal| !config::ignores(*signal));
        let mut signals = Signals::new(heard)?;
        let hearing = Arc::clone(&state);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for number in signals.forever() {
                    if let Some(signal) = Signal::from_named_raw(number) {
                        hold(&hearing).take(signal);
                    }
                }
            })?;
        Ok(Self { told, state })
    }

    /// Can be read once a signal has come that asks us to stop.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    /// From now on signals are this process's; `None` when it has ended.
    pub(super) fn pass_on(&self, process: Option<Pid>) {
        let mut state = hold(&self.state);
        let phase = process.map_or(Phase::Over, Phase::Running);
        if let (Phase::Waiting(kept), Some(_)) =
            (std::mem::replace(&mut state.phase, phase), process)
        {
            for signal in kept {
                state.take(signal);
            }
        }
    }
}

impl State {
    fn take(&mut self, signal: Signal) {
        match &mut self.phase {
            Phase::Waiting(kept) => {
                kept.push(signal);
                let stops = ![Signal::USR1, Signal::USR2].contains(&signal);
                if stops && kept.iter().filter(|kept| **kept == signal).count() > 1 {
                    // Whoever insists does not want to wait for Slack to hear of it.
                    std::process::exit(130);
                }
                if stops {
                    // Its other end lives as long as we do.
                    let _ = self.teller.write_all(b"!");
                }
            }
            // The terminal has told the command already, which is of its foreground as we are.
            Phase::Running(_) if is_from_terminal(signal) => {}
            Phase::Running(process) => {
                // It may have ended just now.
                let _ = kill_process(*process, signal);
            }
            Phase::Over => {}
        }
    }
}

/// Whether a signal is one that a terminal sends to everyone in its foreground, and we are there.
fn is_from_terminal(signal: Signal) -> bool {
    let in_foreground = || {
        let group = |terminal: &dyn AsFd| tcgetpgrp(terminal.as_fd()).ok();
        [
            group(&io::stdin()),
            group(&io::stdout()),
            group(&io::stderr()),
        ]
        .contains(&Some(getpgrp()))
    };
    [Signal::INT, Signal::QUIT].contains(&signal) && in_foreground()
}

fn hold(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
