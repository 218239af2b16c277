//! Signals to who asks: while waiting they withdraw the request, and then they are the command's.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::{process, thread};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use crate::complaint::{Complaint, Exit, reason};
use crate::config;
use crate::live::hold;

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
    /// Ours. The one that has asked us to stop.
    Waiting(Option<Signal>),
    /// The command's, which is about to start.
    Starting(Vec<Signal>),
    /// The command's.
    Running(Pid),
    /// Ours again, to end as the command did, once that is known.
    Over(Option<Exit>),
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
            phase: Phase::Waiting(None),
        }));
        let mut heard = vec![SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
        // What we were started to ignore the command ignores, too.
        heard.retain(|signal| !config::ignores(*signal));
        // Not told to anybody: who ignores it, as we may have been started to, is not told how a command has ended.
        heard.push(SIGCHLD);
        let mut signals = SignalsInfo::<WithOrigin>::new(heard)?;
        let hearing = Arc::clone(&state);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for origin in signals.forever() {
                    if let Some(signal) = Signal::from_named_raw(origin.signal) {
                        hold(&hearing).take(signal, origin.cause);
                    }
                }
            })?;
        Ok(Self { told, state })
    }

    /// Can be read once a signal has come that asks us to stop.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    /// From now on signals are kept for the command, and so is one that came too late to keep it from being run.
    pub(super) fn keep(&self) {
        let mut state = hold(&self.state);
        let kept = match state.phase {
            Phase::Waiting(asked) => asked.into_iter().collect(),
            _ => Vec::new(),
        };
        state.phase = Phase::Starting(kept);
    }

    /// From now on signals are this process's; `None` when it has ended.
    pub(super) fn pass_on(&self, process: Option<Pid>) {
        let mut state = hold(&self.state);
        let phase = process.map_or(Phase::Over(None), Phase::Running);
        let before = std::mem::replace(&mut state.phase, phase);
        if let (Phase::Starting(kept), Some(process)) = (before, process) {
            for signal in kept {
                // It may have ended just now.
                let _ = kill_process(process, signal);
            }
        }
    }

    /// From now on a signal ends this process as the command has ended, for all else can wait.
    pub(super) fn end_with(&self, exit: Exit) {
        hold(&self.state).phase = Phase::Over(Some(exit));
    }
}

impl State {
    fn take(&mut self, signal: Signal, cause: Cause) {
        if signal == Signal::CHILD {
            return;
        }
        let stops = ![Signal::USR1, Signal::USR2].contains(&signal);
        match &mut self.phase {
            Phase::Waiting(asked) if stops => {
                if asked.replace(signal).is_some() {
                    // Whoever insists does not want to wait for Slack to hear of it.
                    process::exit(128 + signal.as_raw());
                }
                // Its other end lives as long as we do.
                let _ = self.teller.write_all(b"!");
            }
            Phase::Starting(kept) => kept.push(signal),
            // The terminal has told the command already, which is of its foreground as we are.
            Phase::Running(_) if matches!(cause, Cause::Kernel) => {}
            Phase::Running(process) => {
                // It may have ended just now.
                let _ = kill_process(*process, signal);
            }
            Phase::Over(Some(exit)) if stops => process::exit(exit.code().into()),
            Phase::Waiting(_) | Phase::Over(_) => {}
        }
    }
}
