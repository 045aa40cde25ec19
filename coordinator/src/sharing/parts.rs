//! How many items share a message.
//!
//! Many to a message are what makes the servers quick; few are what lets machines share the work, since a message is one machine's. So no
//! message has more than a small part of all that was put here before it, or of all that was settled here: a short queue of long items is spread
//! as evenly as one item a message allows, and a long queue, or one of short items, soon has large messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::batch::Batch;
use common::checksum;

use crate::limits::{SHARED_MESSAGE_SETTLED_SHARE, SHARED_MESSAGE_SHARE};
use crate::queue::{Origin, Progress};

/// Cuts batches, in the order in which they are put.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Items put so far.
    items: u64,
    /// Items settled so far.
    settled: u64,
    /// How far each producer with a name is: position and checksum.
    reached: BTreeMap<Arc<str>, (u64, u64)>,
}

impl Parts {
    /// As it is after many items.
    #[cfg(test)]
    pub(super) fn after(items: u64) -> Parts {
        Parts { items, ..Parts::default() }
    }

    /// A producer goes on from here.
    pub(super) fn goes_on(&mut self, from: &Progress) {
        self.reached.insert(Arc::clone(&from.name), (from.position, from.checksum));
    }

    /// So many items more are settled here.
    pub(super) fn settled(&mut self, items: u64) {
        self.settled += items;
    }

    /// Cuts a batch. Each part says how far its producer is with it, so that whoever comes for the name goes on behind the last that is stored.
    pub(super) fn cut(&mut self, batch: Batch, origin: Origin) -> Vec<(Batch, Origin)> {
        let most = (self.items / SHARED_MESSAGE_SHARE).max(self.settled / SHARED_MESSAGE_SETTLED_SHARE);
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        let count = batch.count();
        self.items += u64::from(count);
        let mut at = match &origin {
            Origin::Producer(by) => {
                let begin = self.reached.insert(Arc::clone(&by.name), (by.position, by.checksum));
                match begin.filter(|(position, _)| position + u64::from(count) == by.position) {
                    Some((position, checksum)) => Some(Progress { name: Arc::clone(&by.name), position, checksum }),
                    // Not known to go on behind what was put before, it is one.
                    None => return vec![(batch, origin)],
                }
            }
            Origin::Nameless | Origin::DeadLetter(_) => None,
        };
        if count <= most {
            return vec![(batch, origin)];
        }
        let mut parts = Vec::with_capacity(count.div_ceil(most) as usize);
        for from in (0..count).step_by(most as usize) {
            let part = batch.slice(from, most.min(count - from));
            let is_last = from + part.count() == count;
            let origin = match at.as_mut().filter(|_| !is_last) {
                None => origin.clone(),
                Some(at) => {
                    at.position += u64::from(part.count());
                    at.checksum = part.iter().fold(at.checksum, checksum::add);
                    Origin::Producer(at.clone())
                }
            };
            parts.push((part, origin));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::batch::BatchBuilder;

    fn batch(items: &[&str]) -> Batch {
        let mut builder = BatchBuilder::default();
        items.iter().for_each(|item| builder.push_bytes(item.as_bytes()));
        builder.take_batch().unwrap()
    }

    fn counts(parts: &[(Batch, Origin)]) -> Vec<u32> {
        parts.iter().map(|(part, _)| part.count()).collect()
    }

    #[test]
    fn messages_grow_with_what_was_put_before() {
        let mut parts = Parts::default();
        assert_eq!(counts(&parts.cut(batch(&["x"; 100]), Origin::Nameless)), [1; 100]);
        parts.items = 4 * SHARED_MESSAGE_SHARE + 1;
        assert_eq!(counts(&parts.cut(batch(&["x"; 10]), Origin::Nameless)), [4, 4, 2]);
        parts.items = u64::MAX / 2;
        assert_eq!(counts(&parts.cut(batch(&["x"; 10]), Origin::Nameless)), [10]);
    }

    #[test]
    fn messages_grow_with_what_was_settled_before() {
        let mut parts = Parts::default();
        parts.settled(2 * SHARED_MESSAGE_SETTLED_SHARE);
        parts.settled(SHARED_MESSAGE_SETTLED_SHARE);
        assert_eq!(counts(&parts.cut(batch(&["x"; 10]), Origin::Nameless)), [3, 3, 3, 1]);
    }

    #[test]
    fn how_far_a_producer_is_is_known_with_each_message() {
        let items = ["a", "bc", "d"];
        let progress = |position, checksum| Progress { name: "one".into(), position, checksum };
        let all: Vec<Progress> = items
            .iter()
            .scan((10, 7), |(position, checksum), item| {
                (*position, *checksum) = (*position + 1, checksum::add(*checksum, item.as_bytes()));
                Some(progress(*position, *checksum))
            })
            .collect();
        let end = Origin::Producer(all[2].clone());
        let mut parts = Parts::default();
        assert_eq!(counts(&parts.cut(batch(&items), end.clone())), [3], "nobody knows what lies before");
        parts.goes_on(&progress(10, 7));
        let origins: Vec<Origin> = parts.cut(batch(&items), end).into_iter().map(|(_, origin)| origin).collect();
        assert_eq!(origins, all.into_iter().map(Origin::Producer).collect::<Vec<_>>());
    }

    #[test]
    fn only_the_last_message_says_that_its_producer_is_through_with_all() {
        let mut parts = Parts { items: 3 * SHARED_MESSAGE_SHARE, ..Parts::default() };
        parts.goes_on(&Progress { name: "one".into(), position: 10, checksum: 7 });
        let end = Progress { name: "one".into(), position: 19, checksum: 8 };
        let reached = |(_, origin): (Batch, Origin)| if let Origin::Producer(by) = origin { by.position } else { 0 };
        let cut = parts.cut(batch(&["x"; 9]), Origin::Producer(end)).into_iter().map(reached);
        assert_eq!(cut.collect::<Vec<_>>(), [13, 16, 19]);
    }
}
