//! What happens to items that are held for too long, and to results that come too early.

use std::time::Duration;

use common::batch::Batch;
use common::limits::ACK_RANGES_MAX;
use common::message::{ItemId, ItemRange, Message};
use common::status::Phase;

use super::consumers::Expired;
use super::runs::Run;
use super::shared::Shared;
use super::{Queue, Record, Retry};

impl Queue {
    /// Takes back what consumers have held for too long.
    pub(super) fn take_back(&mut self, now: Duration) {
        while let Some(Expired { client, runs, sat_on }) = self.consumers.next_expired(now) {
            for runs in runs.chunks(ACK_RANGES_MAX) {
                let range = |(run, _): &(Run, bool)| ItemRange { first: ItemId(run.first), count: run.count as u32 };
                self.send(client, Message::Revoke { ranges: runs.iter().map(range).collect() });
            }
            self.shared.as_mut().map(Shared::note_came_back);
            let within = humantime::format_duration(self.rules.lease.map_or(Duration::ZERO, |lease| lease.item_timeout));
            for (run, failed) in runs {
                if !failed {
                    self.keep_failures(run);
                    self.requeue(run, Duration::ZERO, now);
                } else if sat_on {
                    self.fail(run, &format!("its consumer did not begin it within {within}"), Retry::Later, now);
                } else {
                    self.fail(run, &format!("took longer than {within}, and was taken back"), Retry::Later, now);
                }
            }
        }
    }

    /// Items are known from now on.
    pub(super) fn arrive(&mut self, first: u64, count: u64, settled: &[(u64, u64)]) {
        if let Some(order) = &mut self.order {
            order.arrive(first, count, settled);
        }
    }

    /// No result waits for these any more.
    pub(super) fn pass(&mut self, first: u64, count: u64) {
        if let Some(order) = &mut self.order {
            order.pass(first, count);
        }
    }

    /// Writes results, if it is their turn.
    pub(super) fn write_results(&mut self, first: u64, results: Batch, items: Vec<Run>) {
        let count = u64::from(results.count());
        let item_bytes = if self.order.is_some() { self.store.cost_bytes(first, count) } else { 0 };
        match &mut self.order {
            Some(order) => order.insert(first, results, items, item_bytes),
            None => self.write(first, count, None, Record::Results(results)),
        }
    }

    /// Writes the results whose turn has come. Where nothing is handed out and nobody holds anything any more, it will not come: these are
    /// not done.
    pub(super) fn write_in_order(&mut self) {
        while let Some((first, results)) = self.order.as_mut().and_then(super::Order::next_in_turn) {
            self.write(first, u64::from(results.count()), None, Record::Results(results));
        }
        let in_vain = self.phase == Phase::Stopping && self.consumers.held_items() == 0;
        for run in self.order.as_mut().filter(|_| in_vain).map(super::Order::give_up).unwrap_or_default() {
            self.store.hand_back(run.first, run.count, false);
            self.ready.insert(run);
        }
    }

    /// Items whose results wait for others'.
    pub(super) fn early_items(&self) -> u64 {
        self.order.as_ref().map_or(0, super::Order::early_items)
    }
}
