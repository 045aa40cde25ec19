//! A machine of a cluster: the client side of the engine, as a coordinator's loop uses it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::batch::{Batch, BatchBuilder};
use coordinator::jetstream::{Answer, Cluster, ClusterError, Fetched, Settings, Timing, View};
use coordinator::queue::{Origin, Progress};
use tests::{DEADLINE, within};

/// A machine, and what has come to it that nobody has asked for yet.
pub struct Machine {
    pub cluster: Cluster,
    seen: Vec<Answer>,
}

/// A queue of a thousand items at this server, and less patience than in earnest.
pub fn settings(url: &str) -> Settings {
    Settings {
        address: format!("{url}/jobs").parse().expect("an address"),
        capacity_items: 1000,
        capacity_bytes: 64 << 20,
        item_bytes_max: Some(512 << 10),
        machine: "here:1".into(),
        timing: Timing {
            ack_wait: Duration::from_secs(3),
            heartbeat: Duration::from_millis(200),
            machine_lost: Duration::from_secs(3),
            look: Duration::from_millis(200),
        },
    }
}

/// A batch of these items.
pub fn batch<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Batch {
    let mut builder = BatchBuilder::default();
    items.into_iter().for_each(|item| builder.push_bytes(item.as_ref()));
    builder.take_batch().expect("an item")
}

/// The items of a message as text.
pub fn texts(fetched: &Fetched) -> Vec<String> {
    fetched.batch.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect()
}

/// How far a producer has come.
pub fn progress(name: &str, position: u64) -> Origin {
    Origin::Producer(Progress { name: name.into(), position, checksum: position * 31 })
}

impl Machine {
    pub fn open(settings: Settings) -> Machine {
        Machine::try_open(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_open(settings: Settings) -> Result<Machine, ClusterError> {
        Ok(Machine { cluster: Cluster::open(settings, || {})?, seen: Vec::new() })
    }

    /// One at a server, with the usual settings.
    pub fn at(url: &str) -> Machine {
        Machine::open(settings(url))
    }

    /// Waits for the first answer of a kind, and takes it; the others stay.
    pub fn wait(&mut self, what: &str, is_it: impl Fn(&Answer) -> bool) -> Answer {
        let place = within(
            DEADLINE,
            || what.into(),
            || {
                self.look();
                self.seen.iter().position(&is_it)
            },
        );
        self.seen.remove(place)
    }

    /// All that has come so far.
    pub fn look(&mut self) -> &mut Vec<Answer> {
        self.seen.extend(self.cluster.collect().unwrap_or_else(|error| panic!("{error}")));
        &mut self.seen
    }

    /// The error that ends it.
    pub fn fail(&mut self) -> ClusterError {
        within(DEADLINE, || "an error".into(), || self.cluster.collect().err())
    }

    /// Puts lone items, without waiting.
    pub fn put(&mut self, tickets: std::ops::Range<u64>) {
        for ticket in tickets {
            self.cluster.put(ticket, Batch::one(Bytes::from(ticket.to_string())), Origin::Nameless);
        }
    }

    /// Waits until these are kept, which is told in order.
    pub fn kept(&mut self, tickets: std::ops::Range<u64>) {
        let mut highest = 0;
        for expected in tickets {
            let came = self.wait("a confirmation", |answer| matches!(answer, Answer::Kept { .. }));
            match came {
                Answer::Kept { ticket, sequence } if ticket == expected && sequence >= highest => highest = sequence,
                other => panic!("{other:?}, not {expected} at {highest} or later"),
            }
        }
    }

    /// Waits for a message that was wanted.
    pub fn fetched(&mut self) -> Fetched {
        match self.wait("a message", |answer| matches!(answer, Answer::Fetched(_))) {
            Answer::Fetched(fetched) => fetched,
            other => panic!("{other:?}"),
        }
    }

    /// Wants one message, and waits for it.
    pub fn fetch(&mut self) -> Fetched {
        self.cluster.want(1);
        self.fetched()
    }

    /// Settles a message, and waits until that is known.
    pub fn settle(&mut self, sequence: u64) {
        self.cluster.settle(sequence);
        self.settled(sequence);
    }

    pub fn settled(&mut self, sequence: u64) {
        self.wait("a settlement", |answer| matches!(answer, Answer::Settled(settled) if *settled == sequence));
    }

    /// Waits until the cluster looks so.
    pub fn sees(&mut self, what: &str, is_it: impl Fn(&View) -> bool) {
        self.wait(what, |answer| matches!(answer, Answer::Cluster(view) if is_it(view)));
    }

    /// Claims a name; gives its position and whether it has finished.
    pub fn claim(&mut self, name: &str) -> (u64, bool) {
        self.cluster.claim(Arc::from(name));
        match self.wait("a claim", |answer| matches!(answer, Answer::Claimed { .. })) {
            Answer::Claimed { position, finished, .. } => (position, finished),
            other => panic!("{other:?}"),
        }
    }

    /// Fetches and settles until the queue has nothing more, and says what that was; each item may come only once.
    pub fn drain(&mut self, count: usize) -> Vec<String> {
        let mut items = Vec::new();
        self.cluster.want(16);
        let mut sequences = BTreeSet::new();
        while items.len() < count {
            let fetched = self.fetched();
            items.extend(texts(&fetched));
            self.cluster.settle(fetched.sequence);
            sequences.insert(fetched.sequence);
            self.cluster.want(16);
        }
        self.cluster.want(0);
        sequences.into_iter().for_each(|sequence| self.settled(sequence));
        items
    }
}
