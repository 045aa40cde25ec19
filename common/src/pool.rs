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
}
