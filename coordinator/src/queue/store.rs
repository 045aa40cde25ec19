//! Where items live until they are settled: whole batches, as they came, under the number of their first item.
//!
//! Without a journal all of them are in memory. With one, memory holds a window: the batches *near* the head, each known here by itself,
//! most of them with their bytes; and behind them, if there are more, those that are *far*: in the journal alone, known here by number and
//! size in all. New batches go far as long as there are any, so that the order is kept; they come near again from the front.
//!
//! ```text
//!    near: settled in part, in hand, ready, away        far: in the journal alone
//!    |-----------------------------------------------|----------------------------| next_id
//! ```

use std::collections::BTreeMap;

use common::batch::Batch;
use common::limits::batch_cost_bytes;

use super::entry::{Load, Loaded, Recovered};
use super::intake::Amount;

/// The batches. One goes when its last item is settled; until then its bytes count.
#[derive(Debug)]
pub(super) struct Store {
    near: BTreeMap<u64, Stored>,
    /// What the batches cost whose bytes are in memory, those not counted that are on their way to the journal.
    near_bytes: u64,
    /// More than that is not kept in memory where it can be helped.
    near_bytes_max: u64,
    far: Far,
    bytes: u64,
}

#[derive(Debug)]
struct Stored {
    count: u32,
    cost_bytes: u64,
    unsettled: u32,
    /// Items that a consumer holds, or that are being written.
    in_hand: u32,
    /// None while it is away: near, but its bytes are in the journal alone.
    batch: Option<Batch>,
}

/// The batches from one on.
#[derive(Debug, Default)]
struct Far {
    from: u64,
    items: u64,
}

impl Store {
    /// An empty store that keeps about so many bytes in memory, if it can.
    pub(super) fn new(near_bytes_max: u64) -> Store {
        Store { near: BTreeMap::new(), near_bytes: 0, near_bytes_max, far: Far::default(), bytes: 0 }
    }

    /// All that a journal holds is far.
    pub(super) fn recover(&mut self, recovered: &Recovered) {
        let bytes = recovered.body_bytes + recovered.batches * batch_cost_bytes(0);
        self.far = Far { from: 0, items: recovered.items };
        self.bytes = bytes;
    }

    /// Takes in `batch`, whose items are numbered from `first` on; [`Store::kept`] follows.
    pub(super) fn insert(&mut self, first: u64, batch: Batch) {
        let cost_bytes = batch_cost_bytes(batch.body_bytes());
        self.bytes += cost_bytes;
        let count = batch.count();
        let before = self.near.insert(first, Stored { count, cost_bytes, unsettled: count, in_hand: 0, batch: Some(batch) });
        assert!(before.is_none(), "item {first} is stored twice");
    }

    /// The batch that begins with `first` is where it is to be. True if its items are at hand; else they are far.
    pub(super) fn kept(&mut self, first: u64) -> bool {
        let Some(cost_bytes) = self.near.get(&first).map(|stored| stored.cost_bytes) else { panic!("item {first} is kept but not stored") };
        if self.far.items == 0 && self.near_bytes + cost_bytes <= self.near_bytes_max {
            self.near_bytes += cost_bytes;
            return true;
        }
        let Some(stored) = self.near.remove(&first) else { return true };
        if self.far.items == 0 {
            self.far.from = first;
        }
        self.far.items += u64::from(stored.count);
        false
    }

    /// The batch in which item `id` lies, and its index there; or what has to be loaded first.
    ///
    /// # Panics
    /// When the item is not near.
    pub(super) fn find(&self, id: u64) -> Result<(&Batch, u32), Load> {
        let Some((&first, stored)) = self.near.range(..=id).next_back() else { panic!("item {id} is not stored") };
        assert!(id - first < u64::from(stored.count), "item {id} is not stored");
        let load = Load { from: first, until: first + 1, bytes_min: 1 };
        stored.batch.as_ref().map(|batch| (batch, (id - first) as u32)).ok_or(load)
    }

    /// What these items cost, each as much of its batch as any other.
    pub(super) fn cost_bytes(&mut self, id: u64, count: u64) -> u64 {
        let mut bytes = 0;
        self.each_batch(id, count, |_, stored, here| bytes += stored.cost_bytes / u64::from(stored.count) * u64::from(here));
        bytes
    }

    /// Items are handed out.
    pub(super) fn hand_out(&mut self, id: u64, count: u64) {
        self.each_batch(id, count, |_, stored, here| stored.in_hand += here);
    }

    /// Items that were in hand wait again. If they are `delayed` and there are enough bytes in memory, theirs need not be.
    pub(super) fn hand_back(&mut self, id: u64, count: u64, delayed: bool) {
        let (mut near_bytes, near_bytes_max) = (self.near_bytes, self.near_bytes_max);
        self.each_batch(id, count, |_, stored, here| {
            stored.in_hand -= here;
            if delayed && stored.in_hand == 0 && near_bytes > near_bytes_max && stored.batch.take().is_some() {
                near_bytes -= stored.cost_bytes;
            }
        });
        self.near_bytes = near_bytes;
    }

    /// Forgets items that were in hand: they are settled, each once. Returns what left with them: batches of which nothing is unsettled.
    pub(super) fn settle(&mut self, id: u64, count: u64) -> Amount {
        let (mut gone, mut left) = (Vec::new(), Amount::default());
        self.each_batch(id, count, |first, stored, here| {
            assert!(here <= stored.unsettled && here <= stored.in_hand, "item {id} is settled twice");
            stored.unsettled -= here;
            stored.in_hand -= here;
            if stored.unsettled == 0 {
                gone.push(first);
            }
        });
        for first in gone {
            let Some(stored) = self.near.remove(&first) else { continue };
            self.bytes -= stored.cost_bytes;
            self.near_bytes -= if stored.batch.is_some() { stored.cost_bytes } else { 0 };
            left = left.plus(Amount { items: u64::from(stored.count), bytes: stored.cost_bytes });
        }
        left
    }

    /// What to load so that there is always something at hand; if `wanted`, also when memory holds enough.
    pub(super) fn load_ahead(&self, wanted: bool) -> Option<Load> {
        let lacking = (self.near_bytes_max / 2).saturating_sub(self.near_bytes);
        let load = Load { from: self.far.from, until: u64::MAX, bytes_min: lacking.max(1) };
        (self.far.items > 0 && (lacking > 0 || wanted)).then_some(load)
    }

    /// Takes in a batch that was loaded. True if it was far: its items are to be made known.
    pub(super) fn loaded(&mut self, loaded: &Loaded) -> bool {
        let cost_bytes = batch_cost_bytes(loaded.batch.body_bytes());
        self.near_bytes += cost_bytes;
        if let Some(stored) = self.near.get_mut(&loaded.first) {
            let before = stored.batch.replace(loaded.batch.clone());
            assert!(before.is_none() && stored.count == loaded.batch.count(), "item {} is loaded though it is here", loaded.first);
            return false;
        }
        let unsettled = self.bring_near(loaded, cost_bytes);
        self.far.items -= u64::from(unsettled);
        self.far.from = loaded.first + u64::from(loaded.batch.count());
        true
    }

    /// Takes in a batch of a shared queue, whose numbers have gaps.
    pub(super) fn arrived(&mut self, loaded: &Loaded) {
        let cost_bytes = batch_cost_bytes(loaded.batch.body_bytes());
        self.near_bytes += cost_bytes;
        self.bytes += cost_bytes;
        self.bring_near(loaded, cost_bytes);
    }

    /// Returns how many of its items are unsettled.
    fn bring_near(&mut self, loaded: &Loaded, cost_bytes: u64) -> u32 {
        let count = loaded.batch.count();
        let settled: u64 = loaded.settled.iter().map(|(_, count)| count).sum();
        let unsettled = count - settled as u32;
        let stored = Stored { count, cost_bytes, unsettled, in_hand: 0, batch: Some(loaded.batch.clone()) };
        let before = self.near.insert(loaded.first, stored);
        assert!(before.is_none(), "item {} is here twice", loaded.first);
        unsettled
    }

    /// Batches of which nothing is in hand: their first items' numbers, and how many they have.
    pub(super) fn idle_batches(&self) -> Vec<(u64, u64)> {
        self.near.iter().filter(|(_, stored)| stored.in_hand == 0).map(|(first, stored)| (*first, u64::from(stored.count))).collect()
    }

    /// The number of the first item of the batch in which item `id` lies.
    pub(super) fn batch_of(&self, id: u64) -> u64 {
        self.near.range(..=id).next_back().map_or(id, |(first, _)| *first)
    }

    /// Forgets a batch of which nothing is in hand.
    pub(super) fn forget(&mut self, first: u64) {
        let Some(stored) = self.near.remove(&first) else { panic!("item {first} is given back and is not here") };
        assert!(stored.in_hand == 0, "item {first} is given back with what is in hand");
        self.bytes -= stored.cost_bytes;
        self.near_bytes -= if stored.batch.is_some() { stored.cost_bytes } else { 0 };
    }

    /// How much more is to be kept in memory.
    pub(super) fn near_room_bytes(&self) -> u64 {
        self.near_bytes_max.saturating_sub(self.near_bytes)
    }

    /// The number of the first item of the oldest batch that is not wholly settled, or one before it.
    pub(super) fn first_unsettled(&self) -> Option<u64> {
        let far = (self.far.items > 0).then_some(self.far.from);
        // What is on its way to the journal is near, and behind what is far.
        self.near.first_key_value().map(|(first, _)| *first).into_iter().chain(far).min()
    }

    /// Items that are far.
    pub(super) fn far_items(&self) -> u64 {
        self.far.items
    }

    /// Items of the batches that are near, settled ones included.
    pub(super) fn near_items(&self) -> u64 {
        self.near.values().map(|stored| u64::from(stored.count)).sum()
    }

    /// What the batches cost whose bytes are in memory, those on their way to the journal among them.
    pub(super) fn bytes_in_memory(&self) -> u64 {
        self.near.values().filter(|stored| stored.batch.is_some()).map(|stored| stored.cost_bytes).sum()
    }

    /// Bytes that the stored batches cost.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.items == 0
    }

    /// The batches in which items `id .. id + count` lie, and how many lie there.
    fn each_batch(&mut self, mut id: u64, mut count: u64, mut each: impl FnMut(u64, &mut Stored, u32)) {
        while count > 0 {
            let Some((&first, stored)) = self.near.range_mut(..=id).next_back() else { panic!("item {id} is not stored") };
            let here = count.min((first + u64::from(stored.count)).saturating_sub(id));
            assert!(here > 0, "item {id} is not stored");
            each(first, stored, here as u32);
            id += here;
            count -= here;
        }
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

    /// What a batch of this many such items costs.
    fn cost(items: u64) -> u64 {
        batch_cost_bytes(8 * items)
    }

    fn store(near_bytes_max: u64, batches: &[(u64, u32)]) -> Store {
        let mut store = Store::new(near_bytes_max);
        for &(first, items) in batches {
            store.insert(first, batch(items));
            store.kept(first);
        }
        store
    }

    fn loaded(first: u64, items: u32, settled: &[(u64, u64)]) -> Loaded {
        Loaded { first, batch: batch(items), settled: settled.to_vec(), failed: Vec::new(), attempts: 0 }
    }

    #[test]
    fn a_batch_goes_with_its_last_item() {
        let mut store = store(u64::MAX, &[(0, 3), (3, 2)]);
        assert_eq!(store.bytes(), cost(3) + cost(2));
        assert_eq!(store.find(4).unwrap().1, 1);
        store.hand_out(0, 5);
        store.settle(1, 3);
        assert_eq!(store.first_unsettled(), Some(0));
        store.settle(0, 1);
        assert_eq!(store.first_unsettled(), Some(3));
        assert_eq!(store.bytes(), cost(2));
        store.settle(4, 1);
        assert!(store.is_empty());
        assert_eq!((store.bytes(), store.near_bytes), (0, 0));
    }

    #[test]
    #[should_panic(expected = "item 3 is not stored")]
    fn what_lies_behind_the_last_batch_is_not_stored() {
        let _ = store(u64::MAX, &[(0, 3)]).find(3);
    }

    #[test]
    #[should_panic(expected = "settled twice")]
    fn nothing_is_settled_twice() {
        let mut store = store(u64::MAX, &[(0, 2)]);
        store.hand_out(0, 2);
        store.settle(0, 1);
        store.settle(0, 2);
    }

    #[test]
    fn what_memory_has_no_room_for_goes_far_and_comes_back_in_order() {
        let mut store = store(cost(3), &[(0, 3), (3, 3), (6, 3)]);
        assert_eq!((store.far_items(), store.bytes()), (6, 3 * cost(3)));
        assert_eq!(store.load_ahead(false), None, "there is enough at hand");
        assert_eq!(store.load_ahead(true), Some(Load { from: 3, until: u64::MAX, bytes_min: 1 }));
        store.hand_out(0, 3);
        store.settle(0, 3);
        assert_eq!(store.first_unsettled(), Some(3));
        assert_eq!(store.load_ahead(false), Some(Load { from: 3, until: u64::MAX, bytes_min: cost(3) / 2 }));
        store.insert(9, batch(1));
        assert!(!store.kept(9), "as long as there is something far, what comes goes behind it");
        assert!(store.loaded(&loaded(3, 3, &[])));
        assert_eq!((store.find(3).unwrap().1, store.far_items()), (0, 4));
        assert!(store.loaded(&loaded(6, 3, &[])));
        assert!(store.loaded(&loaded(9, 1, &[])));
        store.insert(10, batch(1));
        assert!(!store.kept(10), "memory is full");
        assert_eq!(store.first_unsettled(), Some(3));
    }

    #[test]
    fn what_is_on_its_way_to_the_journal_does_not_hide_what_is_far() {
        let mut store = store(0, &[(0, 3)]);
        store.insert(3, batch(3));
        assert_eq!((store.far_items(), store.first_unsettled()), (3, Some(0)));
    }

    #[test]
    fn what_waits_for_its_time_need_not_be_in_memory() {
        let mut store = store(2 * cost(2), &[(0, 2), (2, 2)]);
        store.near_bytes_max = cost(2);
        store.hand_out(0, 3);
        store.hand_back(0, 1, true);
        assert!(store.find(0).is_ok(), "item 1 is still in hand");
        store.hand_back(1, 1, true);
        assert_eq!(store.find(0).unwrap_err(), Load { from: 0, until: 1, bytes_min: 1 });
        assert_eq!(store.bytes(), 2 * cost(2));
        store.hand_back(2, 1, true);
        assert!(store.find(2).is_ok(), "memory is not full any more");
        assert!(!store.loaded(&loaded(0, 2, &[])));
        assert!(store.find(1).is_ok());
        assert_eq!(store.near_bytes, 2 * cost(2));
    }

    #[test]
    fn an_item_that_is_settled_keeps_none_of_its_batch_in_memory() {
        let mut store = store(2 * cost(2), &[(0, 2), (2, 2)]);
        assert_eq!(store.bytes_in_memory(), 2 * cost(2));
        store.near_bytes_max = cost(2);
        store.hand_out(0, 2);
        store.settle(0, 1);
        store.hand_back(1, 1, true);
        assert!(store.find(1).is_err(), "nothing of it is in hand");
        assert_eq!(store.bytes_in_memory(), cost(2));
    }

    #[test]
    fn each_item_costs_as_much_of_its_batch_as_any_other() {
        let mut store = store(u64::MAX, &[(0, 4), (4, 2)]);
        assert_eq!(store.cost_bytes(1, 2), cost(4) / 4 * 2);
        assert_eq!(store.cost_bytes(3, 2), cost(4) / 4 + cost(2) / 2);
    }

    #[test]
    fn all_of_a_journal_is_far_at_first_and_comes_with_what_was_settled() {
        let mut store = Store::new(u64::MAX);
        store.recover(&Recovered { next_id: 7, items: 4, batches: 2, body_bytes: 40, ..Recovered::default() });
        assert_eq!((store.bytes(), store.is_empty(), store.first_unsettled()), (cost(3) + cost(2), false, Some(0)));
        store.loaded(&loaded(2, 3, &[(3, 1)]));
        store.loaded(&loaded(5, 2, &[]));
        assert_eq!((store.far_items(), store.first_unsettled()), (0, Some(2)));
        store.hand_out(2, 1);
        store.settle(2, 1);
        store.hand_out(4, 3);
        store.settle(4, 3);
        assert!(store.is_empty());
        assert_eq!((store.bytes(), store.near_bytes), (0, 0));
    }

    #[test]
    fn a_batch_that_is_given_back_leaves_nothing_behind() {
        let mut store = Store::new(u64::MAX);
        store.arrived(&loaded(10, 3, &[]));
        store.arrived(&loaded(20, 2, &[]));
        assert_eq!([10, 12, 21].map(|id| store.batch_of(id)), [10, 10, 20]);
        store.hand_out(21, 1);
        assert_eq!(store.idle_batches(), [(10, 3)]);
        store.forget(10);
        assert_eq!((store.near_items(), store.bytes(), store.near_bytes), (2, cost(2), cost(2)));
    }
}
