//! What the applications of honest clients were given and have said: what the queue hears of it must be just that.

use std::collections::BTreeMap;

use common::batch::Batch;
use coordinator::queue::ClientId;

use crate::simulator::item::{Tag, result_byte};

#[derive(Debug, Default)]
pub(super) struct Applications {
    /// How often they got each item.
    taken: BTreeMap<(Tag, u64), u32>,
    consumers: BTreeMap<ClientId, Words>,
}

/// One connection's.
#[derive(Debug, Default)]
struct Words {
    /// Items that are settled, those with a result with its length, and the queue has not heard it.
    settled: BTreeMap<u64, Option<usize>>,
    /// Items that it may have open, asked for and not got.
    demand_max: Option<u32>,
    /// It has said goodbye, and nothing has kept that from arriving.
    left_in_peace: bool,
}

impl Applications {
    pub(super) fn serves(&mut self, client: ClientId, demand_max: Option<u32>) {
        self.consumers.insert(client, Words { demand_max, ..Words::default() });
    }

    pub(super) fn is_honest_consumer(&self, client: ClientId) -> bool {
        self.consumers.contains_key(&client)
    }

    /// How often it was taken, this time included.
    pub(super) fn takes(&mut self, tag: Tag, n: u64) -> u32 {
        let times = self.taken.entry((tag, n)).or_default();
        *times += 1;
        *times
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.len() as u64
    }

    pub(super) fn settles(&mut self, client: ClientId, id: u64, result_bytes: Option<usize>) {
        if let Some(words) = self.consumers.get_mut(&client) {
            let before = words.settled.insert(id, result_bytes);
            assert_eq!(before, None, "an application settles item {id} twice");
        }
    }

    /// The queue hears that it asks for items, and that so many are open now.
    pub(super) fn check_demand(&self, client: ClientId, items: u64) {
        let most = self.consumers.get(&client).and_then(|words| words.demand_max);
        assert!(most.is_none_or(|most| items <= u64::from(most)), "{client:?} has asked for {items} items; it needs {most:?}");
    }

    pub(super) fn leaves(&mut self, client: ClientId) {
        if let Some(words) = self.consumers.get_mut(&client) {
            words.left_in_peace = true;
        }
    }

    /// The queue hears that an item is settled.
    pub(super) fn settled(&mut self, client: ClientId, id: u64, result: Option<&[u8]>) {
        let Some(words) = self.consumers.get_mut(&client) else { return };
        let said = words.settled.remove(&id);
        assert_eq!(said, Some(result.map(<[u8]>::len)), "how the application of {client:?} has settled item {id}");
        let own = result.is_none_or(|result| result.iter().all(|byte| *byte == result_byte(id)));
        assert!(own, "the result of item {id} is another's");
    }

    /// The queue hears that these items have results.
    pub(super) fn have_results(&mut self, client: ClientId, ids: std::ops::Range<u64>, results: &Batch) {
        for (id, result) in ids.zip(results.iter()) {
            self.settled(client, id, Some(result));
        }
    }

    /// The coordinator dies, and hears nothing that is on its way to it.
    pub(super) fn lose_all(&mut self) {
        self.consumers.clear();
    }

    /// The queue hears that a client has gone.
    pub(super) fn left(&mut self, client: ClientId, orderly: bool) {
        let Some(words) = self.consumers.remove(&client) else { return };
        assert!(orderly || !words.left_in_peace, "the goodbye of {client:?} was not heard");
        assert!(!orderly || words.settled.is_empty(), "{client:?} says goodbye, but not that it has settled {:?}", words.settled);
    }
}
