//! Memory for large frames, used again and again: pages that are fresh from the system cost more than what is written into them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Frames below this are left to the allocator, which is good at them.
const POOLED_BYTES_MIN: usize = 16 * 1024;

/// What lies unused is not more than this: enough for what is on its way at full speed.
const UNUSED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many unused buffers are tried for one that fits.
const TRIES: usize = 8;

/// New buffers have a multiple of this, so that batches of about one size can use each other's.
const STEP_BYTES: usize = 1024;

/// Buffers that return by themselves when the last who shares them is done. Clones share the buffers.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    unused: Arc<Mutex<Unused>>,
}

#[derive(Debug, Default)]
struct Unused {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// A buffer for `bytes` bytes.
    pub(crate) fn take(&self, bytes: usize) -> Buffer {
        if bytes < POOLED_BYTES_MIN {
            return Buffer { memory: vec![0; bytes], bytes, pool: None };
        }
        let memory = self.unused().find(bytes).unwrap_or_else(|| vec![0; bytes.next_multiple_of(STEP_BYTES)]);
        Buffer { memory, bytes, pool: Some(self.clone()) }
    }

    fn unused(&self) -> std::sync::MutexGuard<'_, Unused> {
        // Nothing that can panic happens under this lock.
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unused {
    /// The buffer used last that is large enough, and not so large that the queue would hold much more memory than it counts.
    fn find(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| buffer.len() >= bytes && buffer.len() - bytes <= (bytes / 32).max(STEP_BYTES);
        let at = self.buffers.iter().rev().take(TRIES).position(fits)?;
        let buffer = self.buffers.remove(self.buffers.len() - 1 - at)?;
        self.bytes -= buffer.len();
        Some(buffer)
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if buffer.len() > UNUSED_BYTES_MAX {
            return;
        }
        self.bytes += buffer.len();
        self.buffers.push_back(buffer);
        while self.bytes > UNUSED_BYTES_MAX
            && let Some(oldest) = self.buffers.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }
}

/// Memory that is filled, then shared.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    bytes: usize,
    pool: Option<Pool>,
}

impl Buffer {
    /// All of it, with whatever is in there.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.bytes]
    }

    /// Bytes to be shared; the memory returns to its pool after the last clone and the last part.
    pub(crate) fn share(mut self) -> Bytes {
        if self.pool.is_none() { Bytes::from(std::mem::take(&mut self.memory)) } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.bytes]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.unused().keep(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(buffer: &Buffer) -> usize {
        buffer.as_ref().as_ptr() as usize
    }

    #[test]
    fn a_buffer_returns_after_its_last_part_and_serves_frames_of_about_its_size() {
        let pool = Pool::default();
        let buffer = pool.take(65_000);
        let first = address(&buffer);
        let part = buffer.share().slice(100..200);
        assert_ne!(address(&pool.take(65_000)), first);
        drop(part);
        let again = pool.take(65_400);
        assert_eq!(address(&again), first);
        assert_eq!(again.as_ref().len(), 65_400);
    }

    #[test]
    fn a_much_larger_buffer_is_not_used_for_a_small_frame() {
        let pool = Pool::default();
        drop(pool.take(1_000_000));
        assert_eq!(pool.take(20_000).memory.len(), 20 * STEP_BYTES);
    }

    #[test]
    fn what_lies_unused_is_bounded_and_the_oldest_goes_first() {
        let pool = Pool::default();
        let many: Vec<Buffer> = (0..100).map(|_| pool.take(UNUSED_BYTES_MAX / 10)).collect();
        drop(many);
        assert!(pool.unused().bytes <= UNUSED_BYTES_MAX);
        drop(pool.take(UNUSED_BYTES_MAX + STEP_BYTES));
        assert_eq!(pool.unused().buffers.len(), 9);
    }

    #[test]
    fn only_large_frames_come_from_the_pool() {
        let pool = Pool::default();
        drop(pool.take(POOLED_BYTES_MIN - 1));
        assert_eq!(pool.unused().buffers.len(), 0);
        drop(pool.take(POOLED_BYTES_MIN));
        assert_eq!(pool.unused().buffers.len(), 1);
    }

    #[test]
    fn a_buffer_is_larger_than_its_frame_by_a_step_or_a_thirty_second_at_most() {
        let cases = [(16 + 1, 16 * 1024, true), (16 + 2, 17 * 1024 - 1, false), (66, 64 * 1024, true), (66, 64 * 1024 - 1, false)];
        for (unused_steps, bytes, is_used) in cases {
            let pool = Pool::default();
            drop(pool.take(unused_steps * STEP_BYTES));
            let taken = pool.take(bytes).memory.len();
            assert_eq!(taken, if is_used { unused_steps * STEP_BYTES } else { bytes.next_multiple_of(STEP_BYTES) }, "{bytes}");
        }
    }

    #[test]
    fn the_buffer_used_last_is_used_first_and_only_a_few_are_looked_at() {
        let pool = Pool::default();
        let buffers = [(); 2].map(|()| pool.take(100_000));
        let addresses = buffers.each_ref().map(address);
        drop(buffers);
        let one = pool.take(100_000);
        assert_eq!(pool.unused().bytes, one.memory.len(), "the other");
        drop(one);
        let again = [(); 2].map(|()| pool.take(100_000));
        assert_eq!(again.each_ref().map(address), [addresses[1], addresses[0]]);
        assert_eq!(pool.unused().bytes, 0);
        drop(again);
        let others: Vec<Buffer> = (0..TRIES - 1).map(|_| pool.take(20_000)).collect();
        drop(others);
        let found = pool.take(100_000);
        assert_eq!(address(&found), addresses[0], "seven others were used since");
        drop(pool.take(20_000 + 4 * STEP_BYTES));
        pool.take(100_000);
        assert_eq!(pool.unused().buffers.len(), 1 + TRIES + 1, "eight others are too many: a new one was made");
    }

    #[test]
    fn as_much_may_lie_unused_as_is_allowed_and_no_larger_buffer() {
        let pool = Pool::default();
        drop(pool.take(UNUSED_BYTES_MAX));
        assert_eq!(pool.unused().bytes, UNUSED_BYTES_MAX);
        drop(pool.take(UNUSED_BYTES_MAX + 1));
        assert_eq!(pool.unused().bytes, UNUSED_BYTES_MAX, "what is there is not pushed out");
    }
}
