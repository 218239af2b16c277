//! What dead processes left in the store: their temporaries, what they announced themselves with, and answers that they
//! had decided but not delivered.

use std::io;
use std::time::Duration;

use super::directory::Directory;
use super::{lock, runbookai};
use crate::clock;
use crate::complaint::reason;
use crate::live::hold;

/// How often it is looked for processes that have died.
const LOOK: Duration = Duration::from_secs(4);

impl Directory {
    /// Removes what dead processes left behind and delivers what they had decided.
    pub(super) fn clear_up(&self) -> io::Result<()> {
        let dead = self.dead()?;
        // Those as well that have left nothing else.
        self.remove_temporaries(&|owner| self.locks.is_dead(owner))?;
        for file in std::fs::read_dir(self.files.intents())?.filter_map(Result::ok) {
            let name = file.file_name().into_string().unwrap_or_default();
            let id = runbookai::ready_for(&name);
            if let Some(id) = id {
                self.answers.put_off(id);
            }
        }
        self.audit.clear_up(clock::now());
        self.answers.deliver_late(&self.locks);
        self.forget(dead);
        Ok(())
    }

    /// Removes the temporaries of these processes.
    fn remove_temporaries(&self, of: &dyn Fn(&str) -> bool) -> io::Result<()> {
        for folder in [
            &self.files.path,
            &self.files.intents(),
            self.ballots.folder(),
        ] {
            for file in std::fs::read_dir(folder)?.filter_map(Result::ok) {
                let name = file.file_name().into_string().unwrap_or_default();
                if lock::temporary_owner(&name).is_some_and(of) {
                    // Another process may be clearing up, too.
                    let _ = std::fs::remove_file(file.path());
                }
            }
        }
        Ok(())
    }

    /// Removes what dead processes announced themselves with, and their temporaries: commands that were
    /// killed leave them while a server goes on.
    fn bury_the_dead(&self) -> io::Result<()> {
        let dead = self.dead()?;
        if !dead.is_empty() {
            self.remove_temporaries(&|owner| dead.iter().any(|dead| dead == owner))?;
            self.forget(dead);
        }
        Ok(())
    }

    /// The dead processes that announced themselves here.
    fn dead(&self) -> io::Result<Vec<String>> {
        let mut owners = self.locks.owners()?;
        owners.retain(|owner| *owner != self.home.owner() && self.locks.is_dead(owner));
        Ok(owners)
    }

    /// Removes what dead processes announced themselves with, once nothing else of theirs is left.
    fn forget(&self, dead: Vec<String>) {
        for owner in dead {
            if !self.ballots.are_owned_by(&owner) {
                self.locks.forget_if_dead(&owner);
            }
        }
    }

    /// Looks for dead processes, if that has not been done lately.
    pub(super) fn look_for_the_dead(&self) {
        let mut looked = hold(&self.looked);
        let tick = clock::tick();
        if looked.is_some_and(|at| tick.duration_since(at) < LOOK) {
            return;
        }
        *looked = Some(tick);
        if let Err(error) = self.bury_the_dead() {
            log::debug!(reason:% = reason(&error); "Not cleared up after dead processes");
        }
    }
}
