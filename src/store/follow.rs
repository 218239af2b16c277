//! Waiting for one file to change. On Linux the kernel tells (inotify) about the very file, so that
//! thousands can wait in one directory and only those wake whom a change concerns; where it does
//! not, the file is looked at every [`POLL`].

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

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
    /// Letting go of a watch takes the kernel 5 to 20 ms, in which neither the caller nor the end of its process gets on;
    /// so the descriptor is left to the kernel's own collector.
    fn drop(&mut self) {
        if let Some(inotify) = self.inotify.take() {
            // Where it does not go, it is closed here and now.
            let _ = leave_to_collector(inotify);
        }
    }
}

/// Sends a descriptor, with the socket that is to receive it, to that very socket. Once this process has closed the three,
/// nobody can reach them any more, and the kernel's collector of such circles closes them in a thread of the kernel (before
/// Linux 6.10 it does so here, which is no worse than closing them).
fn leave_to_collector(descriptor: OwnedFd) -> io::Result<()> {
    let (sender, receiver) = UnixStream::pair()?;
    let circle = [descriptor.as_fd(), receiver.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&circle));
    let byte = [IoSlice::new(&[0])];
    sendmsg(&sender, &byte, &mut ancillary, SendFlags::NOSIGNAL)?;
    // Before the sockets, whose end wakes the collector.
    drop(descriptor);
    Ok(())
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
    use std::thread;

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

    /// A user has 128 watches by default, fewer than are given back here.
    #[test]
    fn a_watch_that_is_left_to_the_collector_is_given_back() {
        let deadline = clock::tick() + LONG;
        for _ in 0..200 {
            while Follower::of(std::env::temp_dir(), false).inotify.is_none() {
                assert!(clock::tick() < deadline);
                thread::sleep(Duration::from_millis(10));
            }
            // The other tests need some, too.
            thread::sleep(Duration::from_millis(1));
        }
    }
}
