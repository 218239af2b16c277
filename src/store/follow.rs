//! Waiting for one file to change. On Linux the kernel tells (inotify) about the very file, so that
//! thousands can wait in one directory and only those wake whom a change concerns; where it does
//! not, the file is looked at every [`POLL`].

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use super::Follow;
use super::durable::Stamp;
use crate::clock;

/// How often the file is looked at where the kernel does not tell.
const POLL: Duration = Duration::from_millis(250);
/// A replaced file loses its name (`ATTRIB`), before it goes (`DELETE_SELF`).
const WHAT: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE_SELF);

/// Follows the file at a path, whichever file stands there.
pub(super) struct Follower {
    path: PathBuf,
    /// Other hosts may change it, and its attributes may be remembered: only reading it tells.
    shared: bool,
    /// Absent where the kernel does not tell, or gives no more of it: a user has 128 by default.
    inotify: Option<OwnedFd>,
    /// The file that is watched; `None` when there was none to watch.
    watched: Option<i32>,
    last: Option<Stamp>,
}

impl Follower {
    /// Follows from now on: what is read after this and changes after that is told.
    pub(super) fn of(path: PathBuf, shared: bool) -> Self {
        let made = || inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        let mut follower = Self {
            path,
            shared,
            inotify: (!shared).then(made).flatten(),
            watched: None,
            last: None,
        };
        follower.watch();
        follower
    }

    /// Watches the file that stands at the path now.
    fn watch(&mut self) {
        self.last = self.look();
        if let Some(inotify) = &self.inotify {
            let fresh = inotify::add_watch(inotify, &self.path, WHAT | WatchFlags::DONT_FOLLOW);
            let fresh = fresh.ok();
            if let Some(old) = self.watched.filter(|old| Some(*old) != fresh) {
                // The kernel has forgotten it already when its file is gone.
                let _ = inotify::remove_watch(inotify, old);
            }
            self.watched = fresh;
        }
    }

    /// Takes in what the kernel has told.
    fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        if let Some(inotify) = &self.inotify {
            let mut events = Reader::new(inotify, &mut buffer);
            while events.next().is_ok() {}
        }
    }

    fn look(&self) -> Option<Stamp> {
        let metadata = std::fs::symlink_metadata(&self.path).ok()?;
        Some(Stamp::of(&metadata))
    }
}

impl Drop for Follower {
    /// The kernel takes 5 to 20 ms to let go of a watch, and whoever has waited wants to go on: another thread has the
    /// patience.
    fn drop(&mut self) {
        if let Some(inotify) = self.inotify.take() {
            // Without a thread to be had it is closed here.
            let _ = thread::Builder::new().spawn(move || drop(inotify));
        }
    }
}

impl Follow for Follower {
    fn wait(&mut self, limit: Duration, wake: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let deadline = clock::tick() + limit;
        loop {
            let left = deadline.saturating_duration_since(clock::tick());
            let told = self.inotify.as_ref().filter(|_| self.watched.is_some());
            let nap = if told.is_some() { left } else { left.min(POLL) };
            let mut waiting: Vec<PollFd<'_>> = told
                .map(AsFd::as_fd)
                .into_iter()
                .chain(wake)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let nap = Timespec::try_from(nap).unwrap_or(Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            });
            let ready = match poll(&mut waiting, Some(&nap)) {
                Err(rustix::io::Errno::INTR) => 1,
                ready => ready?,
            };
            let changed = self.shared || self.look() != self.last;
            if changed || ready > 0 || clock::tick() >= deadline {
                self.drain();
                self.watch();
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Waits as where the kernel tells, or as where it gives no more of it.
    fn waits_for(told: bool, change: impl FnOnce(&std::path::Path)) -> bool {
        let name = format!("runbook-follow-{}", crate::random::letters(12).unwrap());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("a.json");
        std::fs::write(&path, "1").unwrap();
        let mut follower = Follower::of(path.clone(), false);
        if !told {
            follower.inotify = None;
        }
        let (done, ended) = mpsc::channel();
        let waiting = thread::spawn(move || {
            follower.wait(LONG, None).unwrap();
            done.send(()).unwrap();
        });
        let early = ended.recv_timeout(Duration::from_millis(50)).is_ok();
        change(&path);
        let told = ended.recv_timeout(LONG / 4).is_ok();
        waiting.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        told && !early
    }

    #[test]
    fn a_file_that_is_replaced_written_or_gone_is_told() {
        for told in [true, false] {
            assert!(waits_for(told, |path| {
                let fresh = path.with_extension("new");
                std::fs::write(&fresh, "2").unwrap();
                std::fs::rename(&fresh, path).unwrap();
            }));
            assert!(waits_for(told, |path| std::fs::write(path, "22").unwrap()));
            assert!(waits_for(told, |path| std::fs::remove_file(path).unwrap()));
        }
    }

    #[test]
    fn what_changed_between_two_waits_is_told_by_the_second() {
        let folder = std::env::temp_dir().join(crate::random::letters(16).unwrap());
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("a.json");
        std::fs::write(&path, "1").unwrap();
        let mut follower = Follower::of(path.clone(), false);
        for content in ["2", "3", "4"] {
            let fresh = folder.join("fresh");
            std::fs::write(&fresh, content).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
            let started = clock::tick();
            follower.wait(LONG, None).unwrap();
            assert!(started.elapsed() < LONG / 2);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
