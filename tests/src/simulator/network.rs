//! All links, and everything else that the players of a story share.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use common::transport::Scratch;
use coordinator::queue::ClientId;

use super::item::Lengths;
use super::link::{End, Link, News, Side, Weather};
use super::oracle::Oracle;
use crate::random::Random;

/// How often things have happened.
pub type Tally = BTreeMap<&'static str, u64>;

/// What every player can reach.
#[derive(Debug)]
pub struct Stage {
    /// The time.
    pub now: Duration,
    /// Chance.
    pub random: Random,
    /// Who knows what must be true.
    pub oracle: Oracle,
    /// How long items are.
    pub lengths: Lengths,
    /// Where bytes are read to.
    pub scratch: Scratch,
    /// The links.
    pub network: Network,
    /// How often what has gone wrong.
    pub tally: Tally,
    /// Nothing goes wrong in this story.
    pub faultless: bool,
    /// Everything is told on stderr.
    pub trace: bool,
}

impl Stage {
    /// Counts what happens.
    pub fn count(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.tally.entry(what).or_default() += times;
        }
    }

    /// Tells what happens, if anybody wants to know.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
    }
}

/// All links.
#[derive(Debug, Default)]
pub struct Network {
    links: BTreeMap<ClientId, Rc<RefCell<Link>>>,
    /// Connections that the coordinator has not accepted.
    pub fresh: Vec<(ClientId, End)>,
    /// Clients that say what they like.
    pub rogues: BTreeSet<ClientId>,
    count: u64,
}

impl Network {
    /// Connects a client.
    pub fn connect(&mut self, weather: Weather) -> (ClientId, End) {
        let client = ClientId(self.count);
        self.count += 1;
        let (link, near, far) = Link::new(weather);
        self.links.insert(client, link);
        self.fresh.push((client, far));
        (client, near)
    }

    /// Sends on its way what was written, and forgets links that are closed at both ends.
    pub fn depart(&mut self, now: Duration, random: &mut Random) -> Vec<(ClientId, News)> {
        let mut all = Vec::new();
        let mut over = Vec::new();
        for (client, link) in &self.links {
            if let Some(news) = link.borrow_mut().depart(now, random) {
                all.push((*client, news));
                over.extend(Some(*client).filter(|_| Rc::strong_count(link) == 1));
            }
        }
        over.into_iter().for_each(|client| _ = self.links.remove(&client));
        all
    }

    /// A link, unless it is over.
    pub fn link(&self, client: ClientId) -> Option<&Rc<RefCell<Link>>> {
        self.links.get(&client)
    }

    /// Every link's number.
    pub fn clients(&self) -> Vec<ClientId> {
        self.links.keys().copied().collect()
    }

    /// No stalls and cuts from now on; returns what arrives when.
    pub fn heal(&mut self, now: Duration) -> Vec<(ClientId, Duration, Side)> {
        let mut arrivals = Vec::new();
        for (client, link) in &self.links {
            arrivals.extend(link.borrow_mut().heal(now).into_iter().map(|(at, side)| (*client, at, side)));
        }
        arrivals
    }
}
