//! What consumers have asked for.

use std::collections::BTreeMap;

use common::batch::Batch;
use coordinator::limits::{DEMAND_BYTES_MAX, DEMAND_ITEMS_MAX};
use coordinator::queue::ClientId;

use super::Refused;

#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// Items and bytes asked for and not got.
    demands: BTreeMap<ClientId, (u64, i64)>,
}

impl Consumers {
    pub(super) fn joined(&mut self, client: ClientId) {
        self.demands.insert(client, (0, 0));
    }

    /// True if it was one.
    pub(super) fn left(&mut self, client: ClientId) -> bool {
        self.demands.remove(&client).is_some()
    }

    pub(super) fn check(&self, client: ClientId) -> Result<(), Refused> {
        if self.demands.contains_key(&client) { Ok(()) } else { Err(Refused) }
    }

    pub(super) fn demand(&mut self, client: ClientId, items: u32, bytes: u64) -> Result<(), Refused> {
        let demand = self.demands.get_mut(&client).ok_or(Refused)?;
        *demand = (demand.0 + u64::from(items), demand.1.saturating_add_unsigned(bytes));
        let fair = demand.0 <= u64::from(DEMAND_ITEMS_MAX) && demand.1 <= DEMAND_BYTES_MAX;
        if fair { Ok(()) } else { Err(Refused) }
    }

    pub(super) fn withdrawn(&mut self, client: ClientId) {
        if let Some(demand) = self.demands.get_mut(&client) {
            *demand = (0, 0);
        }
    }

    pub(super) fn delivered(&mut self, client: ClientId, batch: &Batch) {
        let demand = self.demands.get_mut(&client).unwrap_or_else(|| panic!("items go to {client:?}, which is no consumer"));
        let (items, bytes) = (u64::from(batch.count()), batch.iter().map(|item| item.len() as i64).sum::<i64>());
        let covered = demand.1 > 0 && (items == 1 || bytes <= demand.1);
        assert!(items <= demand.0 && covered, "{client:?} gets {items} items of {bytes} bytes on a demand for {demand:?}");
        *demand = (demand.0 - items, demand.1 - batch.body_bytes() as i64);
    }

    pub(super) fn hungry(&self) -> u64 {
        self.demands.values().filter(|(items, bytes)| *items > 0 && *bytes > 0).count() as u64
    }
}
