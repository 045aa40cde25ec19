//! Between the thread that gets items and the one that attends to the worker: what was got, and how much more may be.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use common::Delivery;

/// An item in hand.
pub(super) type Item<'c> = Delivery<'c, [u8]>;

/// How much more may be got.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// So many items,
    pub(super) items: usize,
    /// as long as this is above zero.
    pub(super) bytes: i64,
}

/// To get one item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    revoked: u64,
}

/// Whether more items come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// They may.
    Open,
    /// There will be no more: what the worker has is to be finished.
    Over,
    /// The connection has failed: nothing of it counts any more.
    Broken,
}

/// See the module.
pub(super) struct Handover<'c> {
    state: Mutex<State<'c>>,
    has_room: Condvar,
    wake: UnixStream,
    woken: UnixStream,
}

struct State<'c> {
    items: VecDeque<Item<'c>>,
    room: Room,
    /// How often room was taken back: what is got was asked for before or after.
    revoked: u64,
    supply: Supply,
    /// The attendant sleeps, or is about to.
    asleep: bool,
    /// The getter waits for room.
    waits: bool,
    /// Nobody attends any more.
    closed: bool,
}

impl<'c> Handover<'c> {
    pub(super) fn new() -> io::Result<Handover<'c>> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (items, room, supply) = (VecDeque::new(), Room::default(), Supply::Open);
        let state = State { items, room, revoked: 0, supply, asleep: false, waits: false, closed: false };
        Ok(Handover { state: Mutex::new(state), has_room: Condvar::new(), wake, woken })
    }

    /// For the getter: waits until another item may be got; none when none is to be.
    pub(super) fn wait_for_room(&self) -> Option<Permit> {
        let mut state = self.lock();
        while !state.has_room() && !state.closed {
            state.waits = true;
            state = self.has_room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.permit()
    }

    /// For the getter: hands an item over. A permit if there is room for another.
    pub(super) fn give(&self, item: Item<'c>, permit: Permit) -> Option<Permit> {
        let mut state = self.lock();
        if permit.revoked == state.revoked {
            state.room.items = state.room.items.saturating_sub(1);
            state.room.bytes -= item.item().len() as i64;
            state.items.push_back(item);
        } else {
            drop(state);
            // Before another is got, so that they keep their order. If it fails, the next get says why.
            let _ = item.give_back_unstarted();
            return self.lock().permit();
        }
        let permit = state.permit();
        self.wake(state);
        permit
    }

    /// For the getter: no more items come.
    pub(super) fn end(&self, supply: Supply) {
        let mut state = self.lock();
        state.supply = supply;
        self.wake(state);
    }

    /// For the attendant: from now on there is no room, and what is got all the same is given back.
    pub(super) fn revoke(&self) {
        let mut state = self.lock();
        state.room = Room::default();
        state.revoked += 1;
    }

    /// For the attendant: what was got.
    pub(super) fn take(&self, items: &mut VecDeque<Item<'c>>) -> Supply {
        let mut state = self.lock();
        items.append(&mut state.items);
        state.supply
    }

    /// For the attendant: says how much more may be got, if that is to change; `room` is told how many items lie here. True if nothing lies
    /// here: then it may sleep, and [`Handover::woken`] is readable as soon as something does.
    pub(super) fn rest(&self, seen: Supply, room: impl FnOnce(usize) -> Option<Room>) -> bool {
        let mut state = self.lock();
        if let Some(room) = room(state.items.len()) {
            state.room = room;
        }
        if state.has_room() && std::mem::take(&mut state.waits) {
            self.has_room.notify_one();
        }
        state.asleep = state.items.is_empty() && state.supply == seen;
        state.asleep
    }

    /// For the attendant, once it is awake.
    pub(super) fn wake_up(&self) {
        self.lock().asleep = false;
    }

    /// Readable when there is something new for the attendant.
    pub(super) fn woken(&self) -> &UnixStream {
        &self.woken
    }

    /// For the attendant: takes note of that.
    pub(super) fn drain(&self) {
        // Only a wake-up, of which a few may have gathered.
        let _ = (&self.woken).read(&mut [0; 64]);
    }

    /// For the attendant: nobody attends any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.has_room.notify_one();
    }

    /// Once nobody attends any more: what still lies here was not begun.
    pub(super) fn give_back(&self) {
        let mut items = VecDeque::new();
        self.take(&mut items);
        // If that fails, the coordinator does it when the connection closes.
        items.into_iter().for_each(|item| drop(item.give_back_unstarted()));
    }

    fn wake(&self, mut state: MutexGuard<'_, State<'c>>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            // If it is full, there is enough to wake up for.
            let _ = (&self.wake).write(&[0]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'c>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State<'_> {
    fn permit(&self) -> Option<Permit> {
        (self.has_room() && !self.closed).then_some(Permit { revoked: self.revoked })
    }

    fn has_room(&self) -> bool {
        self.room.items > 0 && self.room.bytes > 0
    }
}
