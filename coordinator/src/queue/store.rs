//! Where items live until they are settled: whole batches, as they came, under the number of their first item.

use std::collections::BTreeMap;

use common::batch::Batch;
use common::limits::batch_cost_bytes;

/// The memory engine. A batch goes when its last item is settled; until then its bytes count.
#[derive(Debug, Default)]
pub(super) struct Store {
    batches: BTreeMap<u64, Stored>,
    bytes: u64,
}

#[derive(Debug)]
struct Stored {
    batch: Batch,
    unsettled: u32,
}

impl Store {
    /// Keeps `batch`, whose items are numbered from `first` on.
    pub(super) fn insert(&mut self, first: u64, batch: Batch) {
        self.bytes += batch_cost_bytes(batch.body_bytes());
        let unsettled = batch.count();
        let before = self.batches.insert(first, Stored { batch, unsettled });
        assert!(before.is_none(), "item {first} is stored twice");
    }

    /// The batch in which item `id` lies, and its index there.
    ///
    /// # Panics
    /// When the item is not stored.
    pub(super) fn find(&self, id: u64) -> (&Batch, u32) {
        let found = self.batches.range(..=id).next_back();
        match found {
            Some((first, stored)) if id - first < u64::from(stored.batch.count()) => (&stored.batch, (id - first) as u32),
            _ => panic!("item {id} is not stored"),
        }
    }

    /// Forgets items: they are settled, each once.
    pub(super) fn settle(&mut self, mut id: u64, mut count: u64) {
        while count > 0 {
            let Some((&first, stored)) = self.batches.range_mut(..=id).next_back() else { panic!("item {id} is settled but not stored") };
            let here = count.min(first + u64::from(stored.batch.count()) - id);
            assert!(here > 0 && here <= u64::from(stored.unsettled), "item {id} is settled twice");
            stored.unsettled -= here as u32;
            if stored.unsettled == 0 {
                self.bytes -= batch_cost_bytes(stored.batch.body_bytes());
                self.batches.remove(&first);
            }
            id += here;
            count -= here;
        }
    }

    /// The number of the first item of the oldest batch that is not wholly settled.
    pub(super) fn first_unsettled(&self) -> Option<u64> {
        self.batches.first_key_value().map(|(first, _)| *first)
    }

    /// Bytes that the stored batches cost.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::batch::BatchBuilder;

    fn batch(items: u32) -> Batch {
        let mut builder = BatchBuilder::default();
        (0..items).for_each(|_| builder.push_bytes(b"12345678"));
        builder.take_batch().unwrap()
    }

    #[test]
    fn a_batch_goes_with_its_last_item() {
        let mut store = Store::default();
        store.insert(0, batch(3));
        store.insert(3, batch(2));
        assert_eq!(store.bytes(), batch_cost_bytes(24) + batch_cost_bytes(16));
        assert_eq!(store.find(4).1, 1);
        store.settle(1, 3);
        assert_eq!(store.first_unsettled(), Some(0));
        store.settle(0, 1);
        assert_eq!(store.first_unsettled(), Some(3));
        assert_eq!(store.bytes(), batch_cost_bytes(16));
        store.settle(4, 1);
        assert!(store.is_empty());
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "item 3 is not stored")]
    fn what_lies_behind_the_last_batch_is_not_stored() {
        let mut store = Store::default();
        store.insert(0, batch(3));
        store.find(3);
    }

    #[test]
    #[should_panic(expected = "settled twice")]
    fn nothing_is_settled_twice() {
        let mut store = Store::default();
        store.insert(0, batch(2));
        store.settle(0, 1);
        store.settle(0, 2);
    }
}
