//! A mutex that costs the thread that takes it most next to nothing: no atomic read-modify-write.
//!
//! A client is mostly used by one thread, beside which its background thread looks in now and then; locking would cost a consumer 4 ns an
//! item, beside 8 for all else. So the lock has an owner, who enters by raising a flag of his own and looking whether he still is the owner. Whoever
//! else comes takes the ownership away first, and then looks at the flag. Each writes, then reads what the other writes, as in Dekker's
//! algorithm; the barrier that this needs on both sides is all on that of who comes seldom: `membarrier(2)` makes every core that runs a thread
//! of this process pass one. Where that is not to be had, nobody becomes the owner, and it is an ordinary mutex; likewise for all threads
//! but the first that takes it often.
//!
//! Sources: Dice, Huang, Yang, "Asymmetric Dekker Synchronization" (2001); Kawachiya, Koseki, Onodera, "Lock Reservation" (OOPSLA 2002).

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// Who takes the lock so often in a row becomes its owner, or does so again. To take it from an owner costs some 2 to 30 µs, so it has to have paid before.
const OWNER_AFTER: u32 = 1024;

/// Not a thread's number.
const NOBODY: u64 = 0;

/// See the module.
pub(crate) struct Biased<T> {
    /// Who may enter by his flag alone. Written only with `others` locked.
    owner: AtomicU64,
    /// The owner's flag: he is in. Written by him only.
    inside: AtomicBool,
    /// Everybody else is in with this locked, nobody the owner, and `inside` seen lowered since.
    others: Mutex<Record>,
    /// Waited on by who has taken the ownership away while the owner was in.
    left: Condvar,
    value: UnsafeCell<T>,
}

/// Who took the lock last, not as its owner.
#[derive(Debug, Default)]
struct Record {
    thread: u64,
    in_a_row: u32,
    /// The one thread that may ever be the owner: there is one flag, and who has looked whether he may raise it may be held up for long.
    candidate: u64,
    /// Whom the ownership goes back to when the holder leaves.
    lender: u64,
}

/// The lock, held by its owner, by his flag, until this is dropped. A mere reference: what is larger costs more to move about than to lock.
pub(crate) struct OwnersGuard<'a, T> {
    lock: &'a Biased<T>,
    stays: PhantomData<MutexGuard<'a, T>>,
}

/// The lock, held until this is dropped, by the thread that took it.
pub(crate) struct Guard<'a, T> {
    lock: &'a Biased<T>,
    /// None: by the owner's flag.
    record: Option<MutexGuard<'a, Record>>,
}

#[expect(unsafe_code, reason = "a mutex hands what it holds to whichever thread has locked it")]
// SAFETY: the value is reached only through a guard, of which there is one at a time (see `enter`), so that `T` is used by one thread at a
// time, and each sees what the one before has written. That is what `Mutex<T>` asks of `T`, too.
unsafe impl<T: Send> Sync for Biased<T> {}

impl<T> Biased<T> {
    pub(crate) fn new(value: T) -> Biased<T> {
        Biased {
            owner: AtomicU64::new(NOBODY),
            inside: AtomicBool::new(false),
            others: Mutex::default(),
            left: Condvar::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The lock, for its owner; for others see [`Biased::lock`].
    #[inline(always)]
    pub(crate) fn lock_as_owner(&self) -> Option<OwnersGuard<'_, T>> {
        // Not made, and dropped, where it is not due.
        self.enter().then(|| OwnersGuard { lock: self, stays: PhantomData })
    }

    /// Waits for the lock. It outlives a panic of its holder.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        if self.enter() { Guard { lock: self, record: None } } else { self.lock_as_other() }
    }

    /// The lock, if nobody has it. Whoever owns it goes on owning it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // The likeliest obstacle, seen without disturbing anybody.
        if self.inside.load(Ordering::Relaxed) {
            return None;
        }
        let mut record = match self.others.try_lock() {
            Ok(record) => record,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        record.lender = self.take_ownership();
        let guard = Guard { lock: self, record: Some(record) };
        if self.inside.load(Ordering::Acquire) {
            drop(guard.into_record());
            return None;
        }
        Some(guard)
    }

    /// Gives the lock up until `condition` is notified, or for so long at most, and waits for it again.
    pub(crate) fn wait<'a>(&'a self, guard: Guard<'a, T>, condition: &Condvar, at_most: Option<Duration>) -> Guard<'a, T> {
        let record = guard.into_record();
        let record = match at_most {
            Some(at_most) => condition.wait_timeout(record, at_most).unwrap_or_else(PoisonError::into_inner).0,
            None => condition.wait(record).unwrap_or_else(PoisonError::into_inner),
        };
        self.exclude_owner(record)
    }

    /// The owner's way in.
    #[inline(always)]
    fn enter(&self) -> bool {
        let thread = this_thread();
        if self.owner.load(Ordering::Relaxed) != thread {
            return false;
        }
        // An encoder that calls its client, say. The value has one user at a time, so that cannot go on.
        assert!(!self.inside.load(Ordering::Relaxed), "the thread that has locked a client locks it again");
        self.inside.store(true, Ordering::Relaxed);
        // Who takes the ownership away makes this core pass a barrier before it looks at `inside`. If that comes behind the store above,
        // it sees it, and waits; if before, the load below sees that the ownership is gone, or what was written until it came back.
        compiler_fence(Ordering::SeqCst);
        let entered = self.owner.load(Ordering::Acquire) == thread;
        if !entered {
            self.leave();
        }
        entered
    }

    /// The owner's way out.
    #[inline(always)]
    fn leave(&self) {
        self.inside.store(false, Ordering::Release);
        // Likewise: who has not seen that is seen here.
        compiler_fence(Ordering::SeqCst);
        if self.owner.load(Ordering::Relaxed) != this_thread() {
            self.tell_who_waits();
        }
    }

    #[cold]
    fn tell_who_waits(&self) {
        // Who has looked at `inside` holds it until it waits.
        drop(self.lock_record());
        self.left.notify_all();
    }

    #[cold]
    fn lock_as_other(&self) -> Guard<'_, T> {
        let thread = number_this_thread();
        let mut guard = self.exclude_owner(self.lock_record());
        if let Some(record) = &mut guard.record {
            let before = if record.thread == thread { record.in_a_row } else { 0 };
            (record.thread, record.in_a_row) = (thread, before.saturating_add(1));
            if before >= OWNER_AFTER && [NOBODY, thread].contains(&record.candidate) && barrier::is_ready() {
                (record.candidate, record.lender) = (thread, thread);
            }
        }
        guard
    }

    fn lock_record(&self) -> MutexGuard<'_, Record> {
        // A panic of a guard's holder says nothing of the record.
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the others locked out, waits until the owner is, too.
    fn exclude_owner<'a>(&'a self, mut record: MutexGuard<'a, Record>) -> Guard<'a, T> {
        loop {
            if self.take_ownership() == this_thread() {
                record.lender = this_thread();
            }
            if !self.inside.load(Ordering::Acquire) {
                return Guard { lock: self, record: Some(record) };
            }
            record = self.left.wait(record).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// With the others locked out, sees to it that nobody enters by his flag, and says whose right that was.
    fn take_ownership(&self) -> u64 {
        let owner = self.owner.load(Ordering::Relaxed);
        if owner != NOBODY {
            self.owner.store(NOBODY, Ordering::Relaxed);
            if owner != this_thread() {
                barrier::pass_everywhere();
            }
        }
        owner
    }

    fn give_ownership_back(&self, record: &mut Record) {
        let lender = mem::replace(&mut record.lender, NOBODY);
        if lender != NOBODY {
            self.owner.store(lender, Ordering::Release);
        }
    }
}

impl<'a, T> Guard<'a, T> {
    /// Gives up what it guards, and keeps the others out.
    fn into_record(mut self) -> MutexGuard<'a, Record> {
        let (lock, record) = (self.lock, self.record.take());
        mem::forget(self);
        if let Some(mut record) = record {
            lock.give_ownership_back(&mut record);
            return record;
        }
        let record = lock.lock_record();
        lock.inside.store(false, Ordering::Release);
        lock.left.notify_all();
        record
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        match &mut self.record {
            None => self.lock.leave(),
            // Before the record is unlocked.
            Some(record) => self.lock.give_ownership_back(record),
        }
    }
}

impl<'a, T> From<OwnersGuard<'a, T>> for Guard<'a, T> {
    fn from(owner: OwnersGuard<'a, T>) -> Guard<'a, T> {
        let lock = owner.lock;
        mem::forget(owner);
        Guard { lock, record: None }
    }
}

impl<T> Drop for OwnersGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.leave();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        #[expect(unsafe_code, reason = "see `Sync`")]
        // SAFETY: as long as this guard lives there is no other, and this borrow ends before it.
        unsafe {
            &*self.lock.value.get()
        }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        #[expect(unsafe_code, reason = "see `Sync`")]
        // SAFETY: as for `deref`; and this guard itself is borrowed for as long.
        unsafe {
            &mut *self.lock.value.get()
        }
    }
}

impl<T> Deref for OwnersGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        #[expect(unsafe_code, reason = "see `Sync`")]
        // SAFETY: as long as this guard lives there is no other, and this borrow ends before it.
        unsafe {
            &*self.lock.value.get()
        }
    }
}

impl<T> DerefMut for OwnersGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        #[expect(unsafe_code, reason = "see `Sync`")]
        // SAFETY: as for `deref`; and this guard itself is borrowed for as long.
        unsafe {
            &mut *self.lock.value.get()
        }
    }
}

impl<T> fmt::Debug for Biased<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Biased").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// Makes ready, once for the process, what owning needs, should a thread want to own a lock: to be called now and then by one that can spare the
/// 10 ms that the kernel takes for it.
pub(crate) fn make_ready_if_wanted() {
    barrier::make_ready_if_wanted();
}

const UNNUMBERED: u64 = u64::MAX;

thread_local! {
    /// Numbers are not used again, unlike a thread's id or the address of what is local to it.
    static THREAD: Cell<u64> = const { Cell::new(UNNUMBERED) };
}

/// This thread's number, or one that no thread has.
#[inline(always)]
fn this_thread() -> u64 {
    THREAD.get()
}

fn number_this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(NOBODY + 1);
    if this_thread() == UNNUMBERED {
        THREAD.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    this_thread()
}

#[cfg(target_os = "linux")]
mod barrier {
    use std::sync::atomic::{AtomicU8, Ordering};

    use rustix::thread::{MembarrierCommand, membarrier};

    const UNASKED: u8 = 0;
    const WANTED: u8 = 1;
    const READY: u8 = 2;
    const NOT_TO_BE_HAD: u8 = 3;

    static STATE: AtomicU8 = AtomicU8::new(UNASKED);

    /// True when [`pass_everywhere`] works; if that is not known, somebody is to find out.
    pub(super) fn is_ready() -> bool {
        let state = STATE.load(Ordering::Acquire);
        if state == UNASKED {
            let _ = STATE.compare_exchange(UNASKED, WANTED, Ordering::Relaxed, Ordering::Relaxed);
        }
        state == READY
    }

    pub(super) fn make_ready_if_wanted() {
        if STATE.load(Ordering::Relaxed) == WANTED {
            let registered =
                membarrier(MembarrierCommand::RegisterPrivateExpedited).and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
            STATE.store(if registered.is_ok() { READY } else { NOT_TO_BE_HAD }, Ordering::Release);
        }
    }

    /// Each core that runs a thread of this process passes a full barrier, this one as well.
    pub(super) fn pass_everywhere() {
        // Without it, nobody knows whether the owner is in: it is not to be gone on.
        #[expect(clippy::expect_used, reason = "it has worked before anybody became an owner, and the kernel does not take it back")]
        membarrier(MembarrierCommand::PrivateExpedited).expect("membarrier(2), which has worked for this process before");
    }
}

#[cfg(not(target_os = "linux"))]
mod barrier {
    pub(super) fn is_ready() -> bool {
        false
    }

    pub(super) fn make_ready_if_wanted() {}

    /// Nobody becomes an owner, so there is never anybody to call this for.
    pub(super) fn pass_everywhere() {}
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    fn ready() {
        barrier::is_ready();
        make_ready_if_wanted();
    }

    /// Asked of the system itself: what this module thinks of it is under test. And no more than asked: that it makes ready is, too.
    fn can_be_owned() -> bool {
        #[cfg(target_os = "linux")]
        return rustix::thread::membarrier_query().contains_command(rustix::thread::MembarrierCommand::RegisterPrivateExpedited);
        #[cfg(not(target_os = "linux"))]
        return false;
    }

    /// A lock that this thread owns; none where that is not to be had.
    fn owned<T>(value: T) -> Option<Biased<T>> {
        ready();
        let lock = Biased::new(value);
        (0..=OWNER_AFTER).for_each(|_| drop(lock.lock()));
        let owned = lock.lock().record.is_none();
        assert_eq!(owned, can_be_owned());
        owned.then_some(lock)
    }

    #[test]
    fn nobody_owns_it_who_has_not_come_often() {
        ready();
        let lock = Biased::new(());
        (0..OWNER_AFTER).for_each(|_| drop(lock.lock()));
        assert!(lock.lock_as_owner().is_none());
    }

    #[test]
    fn the_owner_lets_others_in_when_he_goes() {
        let Some(lock) = owned(()) else { return };
        drop(lock.lock_as_owner().expect("its owner"));
        assert!(thread::scope(|scope| scope.spawn(|| lock.try_lock().is_some()).join().expect("no panic")));
        drop(lock.lock_as_owner().expect("its owner, after somebody has looked in"));
    }

    #[test]
    fn who_comes_often_in_a_row_enters_by_his_flag_until_somebody_else_comes() {
        let Some(lock) = owned(()) else { return };
        thread::scope(|scope| drop(scope.spawn(|| drop(lock.lock()))));
        assert!(lock.lock().record.is_some());
        (0..=OWNER_AFTER).for_each(|_| drop(lock.lock()));
        assert!(lock.lock().record.is_none());
    }

    #[test]
    #[should_panic(expected = "locks it again")]
    fn who_is_in_does_not_come_in_again() {
        let Some(lock) = owned(()) else { panic!("locks it again: not to be tried here") };
        let _inside = lock.lock();
        drop(lock.lock());
    }

    #[test]
    fn nobody_is_its_owner_after_another() {
        let Some(lock) = owned(()) else { return };
        let another = || {
            (0..=OWNER_AFTER).for_each(|_| drop(lock.lock()));
            lock.lock_as_owner().is_none()
        };
        thread::scope(|scope| assert!(scope.spawn(another).join().expect("no panic")));
    }

    #[test]
    fn who_only_looks_in_leaves_the_owner_his_right() {
        let Some(lock) = owned(1) else { return };
        thread::scope(|scope| {
            scope.spawn(|| *lock.try_lock().expect("nobody is in") = 2);
        });
        assert!(lock.lock().record.is_none());
        let inside = lock.lock();
        thread::scope(|scope| assert!(scope.spawn(|| lock.try_lock().is_none()).join().expect("a look")));
        assert_eq!(*inside, 2);
        drop(inside);
        assert!(lock.lock().record.is_none());
    }

    #[test]
    fn who_comes_while_the_owner_is_in_is_let_in_when_he_leaves() {
        let Some(lock) = owned(Vec::new()) else { return };
        for round in 0..100 {
            (0..=OWNER_AFTER).for_each(|_| drop(lock.lock()));
            let mut inside = lock.lock();
            thread::scope(|scope| {
                scope.spawn(|| lock.lock().push(2 * round + 1));
                while lock.owner.load(Ordering::Relaxed) != NOBODY {
                    thread::yield_now();
                }
                inside.push(2 * round);
                drop(inside);
            });
        }
        assert!(lock.lock().iter().copied().eq(0..200));
    }

    #[test]
    fn who_waits_for_news_has_given_the_lock_up() {
        let Some(lock) = owned(0) else { return };
        let news = Condvar::new();
        thread::scope(|scope| {
            let mut guard = lock.lock();
            scope.spawn(|| {
                *lock.lock() = 1;
                news.notify_all();
            });
            while *guard == 0 {
                guard = lock.wait(guard, &news, None);
            }
        });
        let guard = lock.wait(lock.lock(), &news, Some(Duration::from_millis(1)));
        assert_eq!(*guard, 1);
    }

    /// Numbers that are read and written without any order of their own: one that is lost was written by two at a time.
    #[test]
    fn whoever_comes_is_in_alone() {
        ready();
        let lock = Biased::new((0u64, 0u64));
        let until = Instant::now() + Duration::from_millis(500);
        let add = |(one, other): &mut (u64, u64)| {
            assert_eq!(one, other, "somebody is at it");
            *one += 1;
            *other += 1;
        };
        let added = thread::scope(|scope| {
            let often = scope.spawn(|| {
                let add_once = |_| add(&mut lock.lock_as_owner().map_or_else(|| lock.lock(), Guard::from));
                let added = (0u64..).take_while(|_| Instant::now() < until).map(|_| (0..1000).for_each(add_once)).count();
                1000 * added as u64
            });
            let seldom = [true, false].map(|waits| {
                let (lock, add) = (&lock, &add);
                scope.spawn(move || {
                    let mut added = 0;
                    while Instant::now() < until {
                        assert!(lock.lock_as_owner().is_none());
                        match if waits { Some(lock.lock()) } else { lock.try_lock() } {
                            Some(mut guard) => add(&mut guard),
                            None => continue,
                        }
                        added += 1;
                        if waits {
                            thread::park_timeout(Duration::from_micros(500));
                        }
                    }
                    added
                })
            });
            often.join().expect("no panic") + seldom.map(|thread| thread.join().expect("no panic")).iter().sum::<u64>()
        });
        assert_eq!(*lock.lock(), (added, added));
    }
}
