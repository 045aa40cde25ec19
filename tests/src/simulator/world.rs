//! A story from its beginning to its end: who does what when, what goes wrong, and whether it comes to a good end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use common::message::Message;
use common::transport::Scratch;
use coordinator::queue::{ClientId, Input};

use super::broker::Broker;
use super::consumer::Consumer;
use super::link::{Side, Weather};
use super::looker::Looker;
use super::network::{Network, Stage, Tally};
use super::oracle::Oracle;
use super::player::Player;
use super::producer::{self, Producer};
use super::scenario::{Ending, Scenario, TAGS_EACH};
use crate::random::Random;

/// Once nothing goes wrong any more, the story must end within so many events. Before, it lasts as long as the scenario says.
const EVENTS_MAX: u64 = 500_000;

/// And within this time.
const TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Turn,
    Wake(usize),
    ToClient(ClientId),
    ToCoordinator(ClientId),
    Trouble,
    Steer,
    Mend,
    End,
    Stop,
    BeginAgain,
}

/// A player and how it is doing.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) player: Box<dyn Player>,
    wake_at: Option<Duration>,
    pub(super) hung_until: Duration,
    /// It never does anything again, and need not.
    pub(super) written_off: bool,
}

/// What a story came to.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Events.
    pub events: u64,
    /// Things that went wrong.
    pub troubles: u64,
    /// Items accepted.
    pub accepted: u64,
    /// Deliveries beyond each item's first.
    pub redelivered: u64,
    /// Dead letters.
    pub dead: u64,
    /// Events since nothing went wrong any more.
    pub tail_events: u64,
    /// Time since then.
    pub tail: Duration,
    /// What has gone wrong, and how often.
    pub tally: Tally,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) stage: Stage,
    pub(super) broker: Broker,
    pub(super) cast: Vec<Role>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    events_total: u64,
    events_count: u64,
    turn_at: Option<Duration>,
    pub(super) troubles: u64,
    /// Producers that will never come again.
    pub(super) lost: Vec<String>,
    /// When and after how many events things ceased to go wrong.
    mended_at: Option<(Duration, u64)>,
    pub(super) ended: bool,
    /// What the last one was who steers the queue; each is another client.
    pub(super) steerer: ClientId,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, trace: bool) -> World {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        let stage = Stage {
            now: Duration::ZERO,
            random,
            oracle: Oracle::new(scenario.rules.clone(), scenario.lengths, scenario.faultless, scenario.has_output),
            lengths: scenario.lengths,
            scratch: Scratch::default(),
            network: Network::default(),
            tally: Tally::default(),
            faultless: scenario.faultless,
            trace,
        };
        stage.tell(|| format!("{scenario:#?}"));
        let broker = Broker::new(&scenario);
        let mut world = World {
            stage,
            broker,
            cast: Vec::new(),
            events: BinaryHeap::new(),
            events_total: 0,
            events_count: 0,
            turn_at: None,
            troubles: 0,
            lost: Vec::new(),
            mended_at: None,
            ended: false,
            steerer: ClientId(u64::MAX),
            scenario,
        };
        for plan in world.scenario.producers.clone() {
            world.enter(Box::new(Producer::new(plan)), 5_000);
        }
        for (number, plan) in world.scenario.consumers.clone().into_iter().enumerate() {
            world.enter(Box::new(Consumer::new(number as u64, plan)), 5_000);
        }
        if let Some(weather) = world.scenario.looker {
            world.enter(Box::new(Looker::new(weather)), 5_000);
        }
        if !world.scenario.faultless {
            let first = world.stage.random.micros(world.scenario.trouble_every_us);
            world.push(first, Event::Trouble);
        }
        if let Some(steer_every_us) = world.scenario.steer_every_us {
            let first = world.stage.random.micros(steer_every_us);
            world.push(first, Event::Steer);
        }
        world.push(Duration::from_micros(world.scenario.trouble_us), Event::Mend);
        world
    }

    pub(super) fn enter(&mut self, player: Box<dyn Player>, within_us: u64) {
        let at = self.stage.now + self.stage.random.micros((1, within_us));
        self.cast.push(Role { player, wake_at: None, hung_until: Duration::ZERO, written_off: false });
        self.wake(self.cast.len() - 1, at);
    }

    /// Tells the story to its end.
    ///
    /// # Panics
    /// When something is not as it must be.
    pub fn play(&mut self) -> Facts {
        self.play_until_all_are_done();
        // Who comes late hears the same.
        let weather = Weather { delay_us: (1, 100), room: 4096, torn_percent: 5 };
        if let Some(plan) = self.scenario.consumers.first().cloned() {
            self.enter(Box::new(Consumer::new(99, plan)), 100);
        }
        let (name, tag) = (String::new(), 99 * TAGS_EACH);
        let plan = producer::Plan {
            name,
            tag,
            weather,
            items: 1,
            threads: 1,
            pause_us: (0, 1),
            impatient_percent: 0,
            joins: false,
            finishes: true,
            resumes: false,
            hasty: false,
        };
        self.enter(Box::new(Producer::new(plan)), 100);
        self.play_until_all_are_done();
        while self.go_on() {}
        self.stage.oracle.end(&self.broker.queue, self.broker.output());
        let status = self.broker.queue.status();
        let (accepted, redelivered, dead) = (status.accepted, status.redelivered, status.dead);
        let (tail_events, tail) = self.tail();
        let (requeued, dropped) = self.stage.oracle.dead_letters_moved();
        self.stage.count("dead letters put again", requeued);
        self.stage.count("dead letters dropped", dropped);
        let tally = std::mem::take(&mut self.stage.tally);
        Facts { events: self.events_count, troubles: self.troubles, accepted, redelivered, dead, tail_events, tail, tally }
    }

    /// Events and time since things ceased to go wrong.
    fn tail(&self) -> (u64, Duration) {
        let (at, count) = self.mended_at.unwrap_or((self.stage.now, self.events_count));
        (self.events_count - count, self.stage.now - at)
    }

    fn play_until_all_are_done(&mut self) {
        while !(self.mended_at.is_some() && self.all_are_done()) {
            assert!(self.go_on(), "nothing happens any more\n{}", self.state());
        }
    }

    fn all_are_done(&self) -> bool {
        self.cast.iter().all(|role| role.written_off || role.player.is_done())
    }

    /// How things stand, for people.
    fn state(&self) -> String {
        let mut state = format!("{:?}\n{:?}", self.stage.now, self.broker.queue.status());
        for role in self.cast.iter().filter(|role| !role.player.is_done()) {
            let hung = if role.hung_until > self.stage.now { " (hung)" } else { "" };
            let mut player = format!("{:?}", role.player);
            player.truncate(if self.stage.trace { usize::MAX } else { 700 });
            state += &format!("\nnot done{hung}: {player}");
        }
        state
    }

    /// The next event. False when there is none.
    fn go_on(&mut self) -> bool {
        let Some(Reverse((at, _, event))) = self.events.pop() else { return false };
        self.events_count += 1;
        self.stage.now = at;
        let (tail_events, tail) = self.tail();
        assert!(tail_events < EVENTS_MAX && tail < TIME_MAX, "it does not come to an end\n{}", self.state());
        match event {
            Event::Turn if self.turn_at == Some(at) => self.turn(),
            Event::Wake(index) if self.cast[index].wake_at == Some(at) => self.step(index),
            Event::Turn | Event::Wake(_) => return true,
            Event::ToClient(client) => {
                if self.arrives(client, Side::Client) {
                    self.wake_owner(client);
                }
            }
            Event::ToCoordinator(client) => {
                if self.arrives(client, Side::Coordinator) {
                    let hung_up = self.stage.network.link(client).is_some_and(|link| link.borrow_mut().has_ended(Side::Coordinator));
                    self.broker.note(client, true, hung_up, false);
                    self.ask_for_turn();
                }
            }
            Event::Trouble | Event::Steer if self.mended_at.is_some() => {}
            Event::Steer => self.steer(),
            Event::Trouble => self.trouble(),
            Event::Mend => self.mend(),
            Event::End => self.end(),
            Event::BeginAgain => self.coordinator_begins_again(),
            // Who has told a coordinator that is dead finds it dead.
            Event::Stop if self.broker.is_down => {}
            Event::Stop => {
                self.broker.feed(Input::Stop, &mut self.stage);
                self.ask_for_turn();
            }
        }
        self.depart();
        if self.mended_at.is_some() && !self.ended && self.scenario.ending == Ending::Drain {
            let producers = &self.cast[..self.scenario.producers.len()];
            if producers.iter().all(|role| role.written_off || role.player.is_done()) {
                self.end();
            }
        }
        true
    }

    fn turn(&mut self) {
        self.turn_at = None;
        if let Some(next) = self.broker.turn(&mut self.stage) {
            self.turn_by(next.max(self.stage.now + Duration::from_micros(1)));
        }
    }

    fn step(&mut self, index: usize) {
        let role = &mut self.cast[index];
        role.wake_at = None;
        if role.hung_until > self.stage.now {
            let until = role.hung_until;
            return if until < Duration::MAX {
                self.wake(index, until)
            };
        }
        if role.written_off {
            return;
        }
        let was_done = role.player.is_done();
        let next = role.player.step(&mut self.stage);
        if !was_done && role.player.is_done() {
            self.stage.tell(|| format!("{} is done", role.player.name()));
        }
        if let Some(next) = next {
            self.wake(index, next.max(self.stage.now + Duration::from_micros(1)));
        }
    }

    fn arrives(&mut self, client: ClientId, side: Side) -> bool {
        self.stage.network.link(client).is_some_and(|link| link.borrow_mut().arrive(side, self.stage.now))
    }

    fn depart(&mut self) {
        for (client, news) in self.stage.network.depart(self.stage.now, &mut self.stage.random) {
            self.stage.count("torn pieces", news.torn);
            self.stage.count("cuts", u64::from(news.cut));
            self.stage.count("full links", news.writable.len() as u64);
            for (at, side) in news.arrivals {
                self.push_arrival(client, at, side);
            }
            for side in news.writable {
                match side {
                    Side::Client => self.wake_owner(client),
                    Side::Coordinator => {
                        self.broker.note(client, false, false, true);
                        self.ask_for_turn();
                    }
                }
            }
        }
        if !self.stage.network.fresh.is_empty() {
            self.ask_for_turn();
        }
    }

    pub(super) fn push(&mut self, at: Duration, event: Event) {
        self.events_total += 1;
        self.events.push(Reverse((at, self.events_total, event)));
    }

    pub(super) fn push_arrival(&mut self, client: ClientId, at: Duration, side: Side) {
        self.push(at, if side == Side::Client { Event::ToClient(client) } else { Event::ToCoordinator(client) });
    }

    pub(super) fn ask_for_turn(&mut self) {
        let at = self.stage.now + self.stage.random.micros(self.scenario.turn_us);
        self.turn_by(at);
    }

    fn turn_by(&mut self, at: Duration) {
        if self.turn_at.is_none_or(|turn_at| at < turn_at) {
            self.turn_at = Some(at);
            self.push(at, Event::Turn);
        }
    }

    pub(super) fn wake(&mut self, index: usize, at: Duration) {
        let role = &mut self.cast[index];
        if role.wake_at.is_none_or(|wake_at| at < wake_at) {
            role.wake_at = Some(at);
            self.push(at, Event::Wake(index));
        }
    }

    fn wake_owner(&mut self, client: ClientId) {
        if let Some(index) = self.cast.iter().position(|role| role.player.client() == Some(client)) {
            let at = self.stage.now + self.stage.random.micros((1, 50));
            self.wake(index, at);
        }
    }

    /// From now on nothing goes wrong: what was dead or hung begins anew, but for producers that nobody waits for.
    fn mend(&mut self) {
        self.stage.tell(|| "from now on nothing goes wrong".into());
        self.mended_at = Some((self.stage.now, self.events_count));
        self.broker.mend();
        self.steer_by(Message::SetPaused { paused: false });
        for (client, at, side) in self.stage.network.heal(self.stage.now) {
            self.push_arrival(client, at, side);
        }
        for index in 0..self.cast.len() {
            let is_producer = index < self.scenario.producers.len();
            let role = &mut self.cast[index];
            role.player.mend();
            if role.hung_until > self.stage.now {
                let stays = is_producer && self.scenario.ending != Ending::Expected && self.stage.random.chance(50);
                if stays {
                    role.written_off = true;
                    continue;
                }
                role.player.crash();
                role.hung_until = self.stage.now;
            }
            let at = self.stage.now + self.stage.random.micros((1, 5_000));
            self.wake(index, at);
        }
        if self.scenario.ending == Ending::Stop {
            let at = self.stage.now + self.stage.random.micros((1, 50_000));
            self.push(at, Event::End);
        }
    }

    /// The queue is told to come to its end.
    pub(super) fn end(&mut self) {
        // A coordinator that is dead is told once it has come again.
        if !std::mem::replace(&mut self.ended, true) && !self.broker.is_down {
            let input = if self.scenario.ending == Ending::Stop { Input::Stop } else { Input::Drain };
            self.broker.feed(input, &mut self.stage);
            self.ask_for_turn();
            // Who told it to drain may lose patience, before or after it has come to its end.
            if self.scenario.ending == Ending::Drain && self.stage.random.chance(30) {
                let at = self.stage.now + self.stage.random.micros((1, 50_000));
                self.push(at, Event::Stop);
            }
        }
    }
}
