//! Who may come in, and who has to go for it: bounds on connections, and on those that have not said who they are. No socket, no clock.
//!
//! Connections that say nothing must not keep out those that would: when there are too many, the one that has been silent for longest
//! gives way to the next that comes, as soon as it had time enough to say something. Until then newcomers wait in the system's line,
//! in which nobody can pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limits::{CLIENTS_MAX, DESCRIPTORS_KEPT, GREETING_CLIENTS_MAX, GREETING_YIELD};
use crate::queue::ClientId;

/// Whether one more may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Free,
    /// There is if this one goes: it is closed already, or has said nothing for long enough.
    If(ClientId),
    /// Not before then.
    At(Duration),
    /// Not until somebody goes: there are no descriptors for more.
    WhenOneGoes,
    /// No, and whoever comes is to be told so.
    Full,
}

/// The connections there are, as far as that matters here.
#[derive(Debug)]
pub struct Door {
    /// As many as there are descriptors for.
    most: usize,
    connections: usize,
    /// Those that have not said `Hello`, and since when.
    greeting: BTreeMap<ClientId, Duration>,
    /// Those that we have closed, and that may still read why.
    lingering: BTreeSet<ClientId>,
}

impl Door {
    /// A door to a process that may have this many descriptors.
    pub fn new(descriptors: usize) -> Door {
        let most = descriptors.saturating_sub(DESCRIPTORS_KEPT).clamp(1, CLIENTS_MAX);
        Door { most, connections: 0, greeting: BTreeMap::new(), lingering: BTreeSet::new() }
    }

    /// Whether one more may come in.
    pub fn room(&self, now: Duration) -> Room {
        if self.greeting.len() < GREETING_CLIENTS_MAX && self.connections < self.most {
            return Room::Free;
        }
        if let Some(closed) = self.lingering.first() {
            return Room::If(*closed);
        }
        if let Some((silent, since)) = self.greeting.first_key_value() {
            let yields_at = *since + GREETING_YIELD;
            return if yields_at <= now { Room::If(*silent) } else { Room::At(yields_at) };
        }
        if self.most < CLIENTS_MAX { Room::WhenOneGoes } else { Room::Full }
    }

    /// One has come in.
    pub fn came(&mut self, client: ClientId, now: Duration) {
        self.connections += 1;
        self.greeting.insert(client, now);
    }

    /// One has said hello.
    pub fn greeted(&mut self, client: ClientId) {
        self.greeting.remove(&client);
    }

    /// One is closed by us.
    pub fn closed(&mut self, client: ClientId) {
        self.greeting.remove(&client);
        self.lingering.insert(client);
    }

    /// One is gone.
    pub fn gone(&mut self, client: ClientId) {
        self.connections -= 1;
        self.greeting.remove(&client);
        self.lingering.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn door(descriptors: usize, silent: u64, greeted: u64) -> Door {
        let mut door = Door::new(descriptors);
        (0..silent + greeted).for_each(|n| door.came(ClientId(n), NOW));
        (silent..silent + greeted).for_each(|n| door.greeted(ClientId(n)));
        door
    }

    #[test]
    fn the_one_that_is_silent_for_longest_gives_way_but_not_before_it_had_time_to_say_something() {
        let silent = GREETING_CLIENTS_MAX as u64;
        assert_eq!(door(100_000, silent - 1, 5000).room(NOW), Room::Free);
        let mut door = door(100_000, silent, 5000);
        assert_eq!(door.room(NOW), Room::At(NOW + GREETING_YIELD));
        assert_eq!(door.room(NOW + GREETING_YIELD), Room::If(ClientId(0)));
        door.greeted(ClientId(0));
        assert_eq!(door.room(NOW + GREETING_YIELD), Room::Free);
    }

    #[test]
    fn one_that_is_closed_gives_way_first() {
        let mut door = door(DESCRIPTORS_KEPT + 10, 5, 5);
        door.closed(ClientId(7));
        assert_eq!(door.room(NOW), Room::If(ClientId(7)));
        door.gone(ClientId(7));
        assert_eq!(door.room(NOW), Room::Free);
    }

    #[test]
    fn clients_that_are_known_give_way_to_nobody() {
        assert_eq!(door(DESCRIPTORS_KEPT + 10, 0, 10).room(NOW), Room::WhenOneGoes);
        assert_eq!(door(100_000, 0, CLIENTS_MAX as u64).room(NOW), Room::Full);
    }
}
