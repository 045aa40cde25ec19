//! Items whose attempts may take only so long: what is known of their time, and what becomes of those that were taken back.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ConsumerSession, Delivered, Held};
use crate::error::Error;
use crate::message::{ItemId, ItemRange, Message};

/// A taken item that may take only so long.
#[derive(Debug)]
pub(super) struct Leased {
    /// When it is over, as far as it is known here.
    pub(super) until: Duration,
    /// The coordinator has taken it back.
    pub(super) expired: bool,
}

impl ConsumerSession {
    /// True when an item's time is over, as far as that is known here: the coordinator may just have said so.
    pub fn is_overdue(&self, held: Held, now: impl FnOnce() -> Duration) -> bool {
        self.is_held(held) && self.leased.get(&held.delivery()).is_some_and(|leased| leased.until <= now())
    }

    /// An error if the item was taken back.
    pub fn check_lease(&self, held: Held) -> Result<(), Error> {
        match (self.lease, self.leased.get(&held.delivery())) {
            (Some(item_timeout), Some(Leased { expired: true, .. })) if self.is_held(held) => {
                Err(Error::Expired { id: held.id, item_timeout })
            }
            _ => Ok(()),
        }
    }

    /// Nothing is said of this item any more but what is said now; an error if it was taken back.
    pub(super) fn end_lease(&mut self, held: Held) -> Result<(), Error> {
        let checked = self.check_lease(held);
        self.leased.remove(&held.delivery());
        checked
    }

    /// Asks for so much more time for an item, from now on. None: there is no need to ask.
    pub fn extend(&mut self, held: Held, by: Duration, now: Duration) -> Result<Option<u64>, Error> {
        if !self.is_held(held) {
            return Err(Error::Gone(format!("the connection over which item {} came was lost", held.id)));
        }
        self.check_lease(held)?;
        if self.lease.is_none() {
            return Ok(None);
        }
        if let Some(leased) = self.leased.get_mut(&held.delivery()) {
            leased.until = leased.until.max(now.saturating_add(by));
        }
        Ok(Some(self.questions.extend(held.id, by, &mut self.outbox)))
    }

    /// These were taken back. What is settled of them already has crossed that, and leaves before the answer.
    pub(super) fn revoke(&mut self, ranges: &[ItemRange]) {
        self.send_settled();
        for range in ranges {
            for (_, leased) in self.leased.range_mut((range.first, 0)..(ItemId(range.first.0.saturating_add(range.count.into())), 0)) {
                leased.expired = true;
            }
        }
        let mut kept = VecDeque::new();
        while let Some(current) = &self.current {
            let (first, attempt) = (current.next_id(), current.attempt);
            let left = current.batch.slice(current.next, current.left());
            // It may have been announced, but nobody has taken it.
            if ranges.iter().any(|range| index_in(range, first).is_some()) {
                self.leased.remove(&(first, attempt));
            }
            kept.extend(without(ranges, Delivered { first, attempt, batch: left }));
            self.next_batch();
        }
        self.behind_items = kept.iter().map(|delivered| delivered.batch.count()).sum();
        self.behind_bytes = kept.iter().map(|delivered| delivered.batch.body_bytes() as i64).sum();
        self.behind = kept;
        self.next_batch();
        self.outbox.push(&Message::Revoked);
    }
}

/// Where an item is in a range.
fn index_in(range: &ItemRange, id: ItemId) -> Option<u64> {
    id.0.checked_sub(range.first.0).filter(|index| *index < u64::from(range.count))
}

/// The parts of a batch that are in none of these ranges.
fn without(ranges: &[ItemRange], Delivered { first, attempt, batch }: Delivered) -> Vec<Delivered> {
    let mut parts = Vec::new();
    let (mut at, count) = (0, batch.count());
    while at < count {
        let id = ItemId(first.0 + u64::from(at));
        if let Some((range, index)) = ranges.iter().find_map(|range| Some((range, index_in(range, id)?))) {
            at = at.saturating_add((u64::from(range.count) - index) as u32);
            continue;
        }
        let ahead = ranges.iter().filter_map(|range| range.first.0.checked_sub(id.0)).filter(|ahead| *ahead > 0).min();
        let part = ahead.unwrap_or(u64::MAX).min(u64::from(count - at)) as u32;
        parts.push(Delivered { first: id, attempt, batch: batch.slice(at, part) });
        at += part;
    }
    parts
}
