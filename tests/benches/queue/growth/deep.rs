//! A queue in which items wait.

use anyhow::{Context, Result};
use common::Producer;
use common::limits::CAPACITY_ITEMS_DEFAULT;

use super::circuit;
use crate::item;

/// The fewest that wait: more than are in motion, so that it makes no difference how those move.
pub const SHALLOW: u64 = 1000;

pub struct Deep {
    pub queue: tests::Queue,
    depth: u64,
    /// Bytes by which the coordinator has grown, for each.
    pub item_bytes: f64,
}

impl Deep {
    pub fn fill(depth: u64) -> Result<Deep> {
        // Room for more, as much at any depth: a queue that is nearly full would hold back what is in motion.
        let capacity = depth + CAPACITY_ITEMS_DEFAULT;
        let (items, bytes) = (capacity.to_string(), (64 * capacity).to_string());
        let queue = tests::Queue::serve(&["--capacity", &items, "--capacity-bytes", &bytes]);
        let kib = || tests::proc_status_kib(queue.pid(), "VmRSS").context("the coordinator's memory");
        let empty_kib = kib()?;
        let producer = Producer::<[u8; 8]>::connect(&queue.endpoint())?;
        for number in 0..depth {
            producer.put(&item::small(number))?;
        }
        producer.flush()?;
        let item_bytes = kib()?.saturating_sub(empty_kib) as f64 * 1024.0 / depth as f64;
        Ok(Deep { queue, depth, item_bytes })
    }

    /// Passes so many items of 8 bytes beside those that wait; returns the seconds that it takes.
    pub fn pass(&self, count: u64) -> Result<f64> {
        circuit::pass(&self.queue, self.depth, count)
    }
}
