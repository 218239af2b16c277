//! One accepted socket: what it is doing, until when it may, and who shuts it down if it does not.
//!
//! No read or write has a timeout of its own: a client that drips one byte before each would never
//! run into it. Each phase has one deadline instead, and one thread, the reaper, holds all sockets
//! to theirs.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use crate::clock;
use crate::live::{hold, wait};

/// How often the reaper looks.
const PERIOD: Duration = Duration::from_millis(50);
/// How many may hold a descriptor without a place: files are to be opened all the same.
const LEAVERS: usize = 4;
/// How long a client that was too slow has to take the answer that says so.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Once we are told to end: how long a request that has begun to arrive may take to be whole, and how
/// long after it was made a connection may be without one.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    /// Between two requests.
    Idle,
    Head,
    Body,
    /// A complete request is being answered.
    Serving,
    Writing,
    /// The answer is out; what the client still sends is thrown away.
    Draining,
}

impl Phase {
    /// Whether the client keeps us waiting, so that it may have to make room.
    fn is_waiting(self) -> bool {
        match self {
            Self::Handshake | Self::Idle | Self::Head | Self::Body | Self::Draining => true,
            Self::Serving | Self::Writing => false,
        }
    }
}

/// An accepted socket.
#[derive(Debug)]
pub(super) struct Line {
    socket: TcpStream,
    /// Whose it is, as far as making room goes.
    party: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When it was made, until its first request begins to arrive.
    new_since: Option<Instant>,
    /// Since when it has waited for a complete request.
    waiting_since: Instant,
    deadline: Option<Instant>,
    /// The deadline has passed: nothing more is read.
    too_slow: bool,
    /// We are told to end: whatever its phase allows, no client is waited for after this.
    end: Option<Instant>,
}

impl Line {
    pub(super) fn new(socket: TcpStream, peer: IpAddr, phase: Phase, deadline: Instant) -> Self {
        let waiting_since = clock::tick();
        let state = State {
            phase,
            new_since: Some(waiting_since),
            waiting_since,
            deadline: Some(deadline),
            too_slow: false,
            end: None,
        };
        Self {
            socket,
            party: party(peer),
            state: Mutex::new(state),
        }
    }

    /// Begins a phase that must end in `span`, or that we answer for ourselves.
    pub(super) fn enter(&self, phase: Phase, span: Option<Duration>) {
        let now = clock::tick();
        self.enter_until(phase, span.map(|span| now + span));
    }

    /// Begins a phase that must end by then.
    pub(super) fn enter_until(&self, phase: Phase, deadline: Option<Instant>) {
        let mut state = self.state();
        if phase.is_waiting() && !state.phase.is_waiting() {
            state.waiting_since = clock::tick();
        }
        let end = state.end.filter(|_| phase.is_waiting());
        if phase == Phase::Head {
            state.new_since = None;
        }
        state.phase = phase;
        state.deadline = [deadline, end].into_iter().flatten().min();
        state.too_slow = false;
    }

    /// Whether a deadline has cut off what was being read.
    pub(super) fn is_too_slow(&self) -> bool {
        self.state().too_slow
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Holds the connection to its deadline. A request that is too slow loses only its reading
    /// side, so that it can be told; everything else ends.
    fn reap(&self, now: Instant) {
        let mut state = self.state();
        if state.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let can_be_told = matches!(state.phase, Phase::Head | Phase::Body) && !state.too_slow;
        state.deadline = can_be_told.then(|| now + LAST_WORD);
        state.too_slow = true;
        // A socket that is gone already needs no shutting down.
        let _ = self.socket.shutdown(if can_be_told {
            Shutdown::Read
        } else {
            Shutdown::Both
        });
    }

    /// Until when the client is waited for once we are told to end. `None` when it has nothing under
    /// way: whoever has just connected, and whoever's bytes we have not read yet, means to ask.
    fn last_chance(&self, state: &State, now: Instant) -> Option<Instant> {
        match state.phase {
            Phase::Serving | Phase::Writing | Phase::Head | Phase::Body => Some(now + FAREWELL),
            Phase::Handshake | Phase::Idle => state
                .new_since
                .map(|since| since + FAREWELL)
                .filter(|end| now < *end)
                .or_else(|| self.has_unread_bytes().then_some(now + FAREWELL)),
            Phase::Draining => None,
        }
    }

    /// Whether something has arrived that nobody has looked at.
    pub(super) fn has_unread_bytes(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(&self.socket, &mut [0; 1], flags);
        peeked.is_ok_and(|(read, _)| read == 1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }
}

impl Read for &Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.socket).read(buffer) {
                _ if self.is_too_slow() => return Err(ErrorKind::TimedOut.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Write for &Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who stands behind an address: whoever has an IPv6 address has all of its network.
fn party(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// All connections of a listener.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    lines: HashMap<u64, Arc<Line>>,
    number: u64,
    /// Connections that have no place any more, and hold their descriptors until their threads have seen it.
    leaving: usize,
    /// We are told to end.
    closed: bool,
    /// And nobody is taken in any more.
    full: bool,
}

impl Lines {
    /// Takes a connection in. At the cap, one whose client has not sent a complete request has to
    /// go: of whoever has most of them, one that has its answer, or the one that has waited longest. So
    /// nobody who comes back again and again can turn over the connections of others. `None` when all
    /// are being answered.
    pub(super) fn add(&self, line: &Arc<Line>, cap: usize) -> Option<u64> {
        let mut table = self.table();
        if table.lines.len() >= cap && !table.evict() {
            return None;
        }
        table.number += 1;
        let number = table.number;
        if table.closed {
            line.state().end_by(clock::tick() + FAREWELL);
        }
        table.lines.insert(number, Arc::clone(line));
        self.changed.notify_all();
        Some(number)
    }

    /// A connection has ended; each does so once.
    pub(super) fn remove(&self, number: u64) {
        let mut table = self.table();
        if table.lines.remove(&number).is_none() {
            table.leaving = table.leaving.saturating_sub(1);
        }
        self.changed.notify_all();
    }

    /// Waits until not too many hold a descriptor without a place, but no longer than that.
    pub(super) fn wait_for_leavers(&self, limit: Duration) {
        let table = self.table();
        drop(
            self.changed
                .wait_timeout_while(table, limit, |table| table.leaving > LEAVERS),
        );
    }

    /// Makes room by ending a connection that waits.
    pub(super) fn evict(&self) {
        self.table().evict();
    }

    /// The reaper's life: until [`Lines::close`], and after that until all have ended.
    pub(super) fn reap(&self) {
        let mut table = self.table();
        while !table.is_done() {
            let now = clock::tick();
            for line in table.lines.values() {
                line.reap(now);
            }
            table = if table.lines.is_empty() {
                wait(&self.changed, table, None)
            } else {
                drop(table);
                std::thread::sleep(PERIOD);
                self.table()
            };
        }
    }

    /// Ends all connections whose clients have nothing under way, and lets the others finish; what has
    /// begun to arrive, or may be on its way, has [`FAREWELL`] to be whole.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        let now = clock::tick();
        for line in table.lines.values() {
            let mut state = line.state();
            let chance = line.last_chance(&state, now);
            if chance.is_none() {
                // Reading alone: its thread may hold a request that it has not begun to look at.
                let _ = line.socket.shutdown(Shutdown::Read);
            }
            state.end_by(chance.unwrap_or(now + FAREWELL));
        }
    }

    /// Says that nobody is taken in any more.
    pub(super) fn end_of_intake(&self) {
        self.table().full = true;
        self.changed.notify_all();
    }

    /// Waits until nobody is taken in and all connections have ended, or the deadline.
    pub(super) fn wait_until_empty(&self, deadline: Instant) {
        let mut table = self.table();
        while !table.is_done() {
            let Some(left) = deadline
                .checked_duration_since(clock::tick())
                .filter(|left| !left.is_zero())
            else {
                return;
            };
            table = wait(&self.changed, table, Some(left));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.table().closed
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        hold(&self.state)
    }
}

impl State {
    /// From now on no client is waited for after this. What we are doing ourselves takes its time.
    fn end_by(&mut self, end: Instant) {
        self.end = Some(end);
        if self.phase.is_waiting() {
            self.deadline = [self.deadline, self.end].into_iter().flatten().min();
        }
    }
}

impl Table {
    fn is_done(&self) -> bool {
        self.full && self.lines.is_empty()
    }

    /// Ends one connection that waits. `false` when none does.
    fn evict(&mut self) -> bool {
        let waiting: Vec<_> = self
            .lines
            .iter()
            .filter_map(|(number, line)| {
                let state = line.state();
                let answered = state.phase == Phase::Draining;
                state.phase.is_waiting().then_some((
                    line.party,
                    !answered,
                    state.waiting_since,
                    *number,
                ))
            })
            .collect();
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for (party, ..) in &waiting {
            *held.entry(*party).or_default() += 1;
        }
        let first = waiting.iter().min_by_key(|(party, asks, since, number)| {
            (Reverse(held[party]), *asks, *since, *number)
        });
        let Some((.., number)) = first else {
            return false;
        };
        if let Some(line) = self.lines.remove(number) {
            let _ = line.socket.shutdown(Shutdown::Both);
            self.leaving += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_an_ipv4_address_or_an_ipv6_network() {
        let of = |peer: &str| party(peer.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
