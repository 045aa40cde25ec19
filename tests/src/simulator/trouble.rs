//! What goes wrong in a story, and what people do to the queue meanwhile.

use std::time::Duration;

use common::message::{DeadFate, ItemId, Message};
use coordinator::queue::{ClientId, Input};

use super::link::Side;
use super::player::Player;
use super::rogue::Rogue;
use super::scenario::{Ending, TAGS_EACH};
use super::world::{Event, World};

impl World {
    /// Something goes wrong.
    pub(super) fn trouble(&mut self) {
        self.troubles += 1;
        let index = self.stage.random.below(self.cast.len() as u64) as usize;
        let clients = self.stage.network.clients();
        let client = (!clients.is_empty()).then(|| self.stage.random.pick(&clients));
        let what = self.stage.random.below(100);
        let name = self.cast[index].player.name();
        match what {
            0..25 => {
                let side = self.stage.random.pick(&[Side::Client, Side::Coordinator]);
                let bytes = self.stage.random.scale(0, 3_000) as usize;
                self.stage.tell(|| format!("trouble: {client:?} is cut {bytes} bytes on towards the {side:?}"));
                if let Some(link) = client.and_then(|client| self.stage.network.link(client)) {
                    link.borrow_mut().cut_after(side, bytes);
                }
            }
            25..45 => {
                let until = self.stage.now + self.stage.random.micros((100, 60_000));
                self.stage.tell(|| format!("trouble: {client:?} is stalled until {until:?}"));
                let arrivals = client.and_then(|client| self.stage.network.link(client)).map(|link| link.borrow_mut().stall(until));
                self.stage.count("stalls", u64::from(arrivals.is_some()));
                for (client, (at, side)) in client.into_iter().cycle().zip(arrivals.into_iter().flatten()) {
                    self.push_arrival(client, at, side);
                }
            }
            45..65 => {
                let back = self.stage.now + self.stage.random.micros((1, 30_000));
                self.stage.tell(|| format!("trouble: {name} dies, and is back at {back:?}"));
                self.stage.count("deaths", u64::from(self.cast[index].player.client().is_some()));
                self.cast[index].player.crash();
                self.cast[index].hung_until = back;
                self.wake(index, back);
            }
            65..85 => {
                let for_good = self.stage.random.chance(40);
                let until = if for_good { Duration::MAX } else { self.stage.now + self.stage.random.micros((500, 100_000)) };
                self.stage.tell(|| format!("trouble: {name} hangs until {until:?}"));
                self.stage.count(if for_good { "hangs for good" } else { "hangs" }, u64::from(self.cast[index].player.client().is_some()));
                self.cast[index].hung_until = until;
            }
            91..97 if self.scenario.rules.journaled.is_some() => self.coordinator_dies(),
            85..97 => {
                let plan = &self.scenario.consumers[0];
                let (tag, weather) = ((20 + self.cast.len() as u32) * TAGS_EACH, plan.weather);
                let rogue = Rogue::new(tag, weather, self.scenario.rules.capacity_items, &mut self.stage);
                self.stage.tell(|| format!("trouble: {} comes", rogue.name()));
                self.stage.count("rogues", 1);
                self.enter(Box::new(rogue), 1_000);
            }
            97..99 => match self.scenario.ending {
                Ending::Expected => self.lose(index),
                Ending::Drain | Ending::Stop => self.end(),
            },
            _ => {}
        }
        let next = self.stage.now + self.stage.random.micros(self.scenario.trouble_every_us);
        self.push(next, Event::Trouble);
    }

    /// Somebody pauses the queue, lets it go on, or deals with its dead letters.
    pub(super) fn steer(&mut self) {
        let accepted = self.broker.queue.status().accepted;
        let random = &mut self.stage.random;
        let from = if random.chance(50) { 0 } else { random.below(accepted + 1) };
        let until = if random.chance(50) { u64::MAX } else { from + random.below(20) };
        let (from, until) = (ItemId(from), ItemId(until));
        let (what, message) = match random.below(100) {
            0..20 => ("pauses", Message::SetPaused { paused: true }),
            20..50 => ("resumes", Message::SetPaused { paused: false }),
            50..75 => ("requeues", Message::DeadRemove { from, until, fate: DeadFate::Requeue }),
            75..83 => ("drops", Message::DeadRemove { from, until, fate: DeadFate::Drop }),
            83..95 => ("lists", Message::DeadList { from, until }),
            _ => {
                let client = self.steerer;
                if !self.broker.is_down {
                    self.broker.feed(Input::Left { client, orderly: false }, &mut self.stage);
                    self.ask_for_turn();
                }
                ("leaves", Message::SetPaused { paused: false })
            }
        };
        self.stage.count(what, 1);
        self.steer_by(message);
        if let Some(steer_every_us) = self.scenario.steer_every_us {
            let next = self.stage.now + self.stage.random.micros(steer_every_us);
            self.push(next, Event::Steer);
        }
    }

    /// Another client comes to say this.
    pub(super) fn steer_by(&mut self, message: Message) {
        if self.broker.is_down {
            return;
        }
        self.steerer = ClientId(self.steerer.0 - 1);
        self.broker.feed(Input::Steered { client: self.steerer, message }, &mut self.stage);
        self.ask_for_turn();
    }

    /// A producer will never come again, and everybody knows.
    fn lose(&mut self, index: usize) {
        let name = self.scenario.producers.get(index).map(|plan| plan.name.clone()).filter(|name| !name.is_empty());
        let Some(name) = name.filter(|_| !self.cast[index].written_off) else { return };
        self.stage.tell(|| format!("trouble: {name} is lost for good"));
        self.cast[index].player.crash();
        self.cast[index].written_off = true;
        self.stage.count("lost producers", 1);
        self.lost.push(name.clone());
        if !self.broker.is_down {
            self.broker.feed(Input::ProducerLost { name }, &mut self.stage);
            self.ask_for_turn();
        }
    }

    /// The coordinator dies, and with it all that it has not written.
    fn coordinator_dies(&mut self) {
        if self.broker.is_down {
            return;
        }
        let back = self.stage.now + self.stage.random.micros((1, 20_000));
        self.stage.tell(|| format!("trouble: the coordinator dies, and is back at {back:?}"));
        self.stage.count("coordinator deaths", 1);
        self.broker.die(&mut self.stage);
        self.push(back, Event::BeginAgain);
    }

    /// It comes again. What no journal tells it, it is told by whoever knows: who will never come again, and later that it is to end.
    pub(super) fn coordinator_begins_again(&mut self) {
        self.stage.tell(|| "the coordinator begins again".into());
        self.broker.begin_again(&mut self.stage);
        for name in self.lost.clone() {
            self.broker.feed(Input::ProducerLost { name }, &mut self.stage);
        }
        if std::mem::take(&mut self.ended) {
            let at = self.stage.now + self.stage.random.micros((1, 20_000));
            self.push(at, Event::End);
        }
        self.ask_for_turn();
    }
}
