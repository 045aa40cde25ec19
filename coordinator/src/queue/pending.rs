//! What is to happen once it is in the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ClientId;
use super::entry::Progress;

/// What an entry changes.
#[derive(Debug)]
pub(super) enum Effect {
    /// Items are accepted.
    Put {
        client: ClientId,
        first: u64,
        count: u64,
        /// What they cost.
        bytes: u64,
        by: Option<Progress>,
    },
    /// Items are done with.
    Settled {
        first: u64,
        count: u64,
        /// They are given up.
        dead: bool,
    },
    /// A dead letter is an item again.
    Requeued {
        id: u64,
        first: u64,
        /// What it costs.
        bytes: u64,
    },
    /// A dead letter is forgotten.
    Dropped { id: u64 },
    /// A producer puts no more.
    Finished { client: ClientId, name: Option<Arc<str>> },
    /// Nothing here.
    None,
}

impl Effect {
    fn items(&self) -> (u64, u64) {
        match self {
            Effect::Put { count, .. } => (*count, 0),
            Effect::Settled { count, .. } => (0, *count),
            Effect::Requeued { .. } => (1, 0),
            Effect::Dropped { .. } | Effect::Finished { .. } | Effect::None => (0, 0),
        }
    }
}

/// Effects in the order of their entries.
#[derive(Debug, Default)]
pub(super) struct Pending {
    effects: VecDeque<Effect>,
    put_items: u64,
    settled_items: u64,
    finishing: u64,
}

impl Pending {
    pub(super) fn push(&mut self, effect: Effect) {
        let (put, settled) = effect.items();
        self.put_items += put;
        self.settled_items += settled;
        self.finishing += u64::from(matches!(effect, Effect::Finished { .. }));
        self.effects.push_back(effect);
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front()?;
        let (put, settled) = effect.items();
        self.put_items -= put;
        self.settled_items -= settled;
        self.finishing -= u64::from(matches!(effect, Effect::Finished { .. }));
        Some(effect)
    }

    /// Items that are not accepted yet.
    pub(super) fn put_items(&self) -> u64 {
        self.put_items
    }

    /// Producers that are about to have finished.
    pub(super) fn finishing(&self) -> u64 {
        self.finishing
    }

    /// Items that are not settled yet.
    pub(super) fn settled_items(&self) -> u64 {
        self.settled_items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_counts_until_it_is_there() {
        let mut pending = Pending::default();
        pending.push(Effect::Put { client: ClientId(1), first: 0, count: 3, bytes: 9, by: None });
        pending.push(Effect::Requeued { id: 0, first: 3, bytes: 9 });
        pending.push(Effect::Settled { first: 1, count: 2, dead: false });
        pending.push(Effect::Dropped { id: 1 });
        pending.push(Effect::None);
        let mut seen = Vec::new();
        loop {
            seen.push((pending.put_items(), pending.settled_items()));
            if pending.pop().is_none() {
                break;
            }
        }
        assert_eq!(seen, [(4, 2), (1, 2), (0, 2), (0, 0), (0, 0), (0, 0)]);
    }
}
