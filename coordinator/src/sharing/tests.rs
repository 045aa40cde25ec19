//! Whole machines, with queue and all, that share one in memory: whatever happens in whatever order, what was confirmed is done or in the
//! dead letters, and in the end all machines are told to stop.

mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::backoff::Backoff;
use common::batch::BatchBuilder;
use common::message::{ItemRange, Message as Word, Outcome, Position};
use common::status::Phase;
use proptest::prelude::*;

use super::model::{Link, Model};
use super::*;
use crate::queue::{ClientId, Queue, Record, Rules, Window};

const RULES: Rules = Rules {
    capacity_items: 40,
    capacity_bytes: 40_000,
    item_bytes_max: 1000,
    attempts_max: 3,
    retry_delay: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(3) },
    lease: None,
    early_bytes_max: None,
    producers_expected: Some(1),
    dead_letters_max: 20,
    dead_bytes_max: 20_000,
    journaled: Some(Window { near_bytes: 2_000, unwritten_bytes: 10_000 }),
    shared: true,
};

const PRODUCER: ClientId = ClientId(1);

/// What a producer knows.
#[derive(Debug, Default)]
struct Producer {
    is_here: bool,
    next: u64,
    confirmed: u64,
    credit_items: u64,
    credit_bytes: u64,
    is_finished: bool,
    has_finished: bool,
    put: VecDeque<u64>,
}

struct Machine {
    queue: Queue,
    sharing: Sharing<Link>,
    producer: Producer,
    /// What each consumer holds: its items, by number.
    consumers: BTreeMap<ClientId, BTreeMap<u64, (u64, u32)>>,
    stopped: BTreeSet<ClientId>,
    joined: u64,
    withdrawn: u64,
    next_client: u64,
}

struct World {
    model: Model,
    machines: Vec<Machine>,
    now: Duration,
    next_item: u64,
    confirmed: BTreeSet<u64>,
    acknowledged: BTreeMap<u64, u32>,
    faults: bool,
}

fn value(item: &[u8]) -> u64 {
    u64::from_le_bytes(item.try_into().unwrap())
}

impl World {
    fn new(machines: usize) -> World {
        World::with(machines, RULES)
    }

    fn with(machines: usize, rules: Rules) -> World {
        let model = Model::new(rules.capacity_items, rules.capacity_bytes);
        let mut world = World {
            model,
            machines: Vec::new(),
            now: Duration::ZERO,
            next_item: 0,
            confirmed: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            faults: false,
        };
        (0..machines).for_each(|_| world.join(rules.clone()));
        world
    }

    fn join(&mut self, rules: Rules) {
        self.machines.push(Machine {
            queue: Queue::new(rules),
            // With what was put before, the batches here stay whole.
            sharing: Sharing { parts: Parts::after(1 << 40), ..Sharing::new(self.model.connect()) },
            producer: Producer::default(),
            consumers: BTreeMap::new(),
            stopped: BTreeSet::new(),
            joined: 0,
            withdrawn: 0,
            next_client: 10,
        });
        self.handle(self.machines.len() - 1, Input::Tick);
    }

    fn handle(&mut self, at: usize, input: Input) {
        self.machines[at].queue.handle(input, self.now);
        loop {
            while let Some(output) = self.machines[at].queue.poll() {
                self.follow(at, output);
            }
            let machine = &mut self.machines[at];
            machine.sharing.note_marks(self.now);
            let entries = machine.sharing.take_kept();
            if entries == 0 {
                return;
            }
            machine.queue.handle(Input::Journaled { entries }, self.now);
        }
    }

    fn follow(&mut self, at: usize, output: Output) {
        let machine = &mut self.machines[at];
        match machine.sharing.serve(output, self.now) {
            None => {}
            Some(Output::Write { ticket, record }) => {
                assert!(matches!(record, Record::DeadLetter(_)));
                self.handle(at, Input::Written { ticket, output_bytes: None });
            }
            Some(Output::Welcome { position, .. }) => {
                let producer = &mut machine.producer;
                producer.put.retain(|_| false);
                *producer = Producer {
                    is_here: true,
                    next: position.0,
                    confirmed: position.0,
                    is_finished: producer.is_finished,
                    ..Producer::default()
                };
            }
            Some(Output::Send { client, message, batch }) => match message {
                Word::Confirm { position, credit_items, credit_bytes } => {
                    let producer = &mut machine.producer;
                    producer.credit_items += credit_items;
                    producer.credit_bytes += credit_bytes;
                    for _ in producer.confirmed..position.0 {
                        self.confirmed.extend(producer.put.pop_front());
                    }
                    producer.confirmed = position.0;
                }
                Word::Recall { .. } => {
                    (machine.producer.credit_items, machine.producer.credit_bytes) = (0, 0);
                    self.say(at, client, Word::Recalled, None);
                }
                Word::Finished => machine.producer.has_finished = true,
                Word::Joined => machine.joined += 1,
                Word::Withdrawn => machine.withdrawn += 1,
                Word::Deliver { first, attempt, .. } => {
                    let held = machine.consumers.get_mut(&client).unwrap();
                    for (index, item) in batch.unwrap().iter().enumerate() {
                        held.insert(first.0 + index as u64, (value(item), attempt));
                    }
                }
                Word::Hurry => assert!(!machine.consumers[&client].is_empty()),
                Word::Stop => _ = machine.stopped.insert(client),
                other => panic!("{other:?}"),
            },
            Some(Output::Close { client: PRODUCER, .. }) => machine.producer.is_here = false,
            Some(other) => panic!("{other:?}"),
        }
    }

    fn say(&mut self, at: usize, client: ClientId, message: Word, batch: Option<Batch>) {
        self.handle(at, Input::Said { client, message, batch });
    }

    fn collect(&mut self, at: usize) {
        for said in self.machines[at].sharing.collect().unwrap() {
            if let Said::Input(input) = said {
                self.handle(at, input);
            }
        }
    }

    /// All that servers have to do, and all that comes of that.
    fn settle(&mut self) {
        loop {
            let mut worked = false;
            for at in 0..self.machines.len() {
                while self.model.serve(self.machines[at].sharing.servers().machine()) {
                    worked = true;
                }
                self.collect(at);
            }
            if !worked {
                return;
            }
        }
    }

    fn produce(&mut self, at: usize, name: Option<&str>) {
        self.machines[at].producer.is_here = true;
        self.handle(at, Input::ProducerJoined { client: PRODUCER, name: name.map(Into::into) });
    }

    fn put(&mut self, at: usize, items: u64) {
        let mut builder = BatchBuilder::default();
        (0..items).for_each(|item| builder.push_bytes(&(self.next_item + item).to_le_bytes()));
        let batch = builder.take_batch().unwrap();
        let cost = batch_cost_bytes(batch.body_bytes());
        let producer = &mut self.machines[at].producer;
        if !producer.is_here || producer.is_finished {
            return;
        }
        if producer.credit_items < items || producer.credit_bytes < cost {
            if producer.confirmed == producer.next {
                self.say(at, PRODUCER, Word::Want { bytes: cost }, None);
            }
            return;
        }
        producer.credit_items -= items;
        producer.credit_bytes -= cost;
        producer.put.extend(self.next_item..self.next_item + items);
        self.next_item += items;
        let message = Word::Put { position: Position(producer.next), checksum: 0, batch: batch.header() };
        producer.next += items;
        self.say(at, PRODUCER, message, Some(batch));
    }

    fn finish(&mut self, at: usize) {
        let producer = &mut self.machines[at].producer;
        if producer.is_here && !producer.is_finished && producer.confirmed == producer.next {
            producer.is_finished = true;
            self.say(at, PRODUCER, Word::Finish, None);
        }
    }

    fn consume(&mut self, at: usize) -> ClientId {
        let machine = &mut self.machines[at];
        let client = ClientId(machine.next_client);
        machine.next_client += 1;
        machine.consumers.insert(client, BTreeMap::new());
        self.handle(at, Input::ConsumerJoined { client });
        client
    }

    fn leave(&mut self, at: usize, client: ClientId) {
        self.machines[at].consumers.remove(&client);
        self.handle(at, Input::Left { client, orderly: false });
    }

    fn demand(&mut self, at: usize, client: ClientId, items: u32) {
        self.say(at, client, Word::Demand { items, bytes: 100 * u64::from(items) }, None);
    }

    fn ack(&mut self, at: usize, client: ClientId, most: usize) {
        for _ in 0..most {
            let Some((id, (value, _))) = self.machines[at].consumers.get_mut(&client).and_then(BTreeMap::pop_first) else { return };
            *self.acknowledged.entry(value).or_default() += 1;
            let ranges = vec![ItemRange { first: ItemId(id), count: 1 }];
            self.say(at, client, Word::Ack { ranges }, None);
        }
    }

    fn fail(&mut self, at: usize, client: ClientId, outcome: Outcome) {
        if let Some((id, _)) = self.machines[at].consumers.get_mut(&client).and_then(BTreeMap::pop_first) {
            let range = ItemRange { first: ItemId(id), count: 1 };
            self.say(at, client, Word::Return { range, outcome }, None);
        }
    }

    /// A machine dies, and another takes its place.
    fn crash(&mut self, at: usize) {
        self.faults = true;
        self.model.lose(self.machines[at].sharing.servers().machine());
        let producer = std::mem::take(&mut self.machines[at].producer);
        self.machines.remove(at);
        self.join(RULES);
        // What it had not said that it is confirmed may be there all the same.
        drop(producer);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.model.set_now(self.now);
        for at in 0..self.machines.len() {
            if self.machines[at].queue.next_timeout().is_some_and(|due| due <= self.now) {
                self.handle(at, Input::Tick);
            }
        }
    }

    fn first_consumer(&self, at: usize) -> Option<ClientId> {
        self.machines[at].consumers.keys().next().copied()
    }

    /// When nothing goes wrong any more, all is done, and everybody hears of it.
    fn drain(&mut self) {
        for at in 0..self.machines.len() {
            if !self.machines[at].producer.is_here && !self.machines[at].producer.is_finished {
                self.produce(at, None);
            }
            if self.machines[at].consumers.is_empty() {
                self.consume(at);
            }
        }
        for round in 0..200 {
            self.settle();
            for at in 0..self.machines.len() {
                self.finish(at);
                for client in self.machines[at].consumers.keys().copied().collect::<Vec<_>>() {
                    self.demand(at, client, 5);
                    self.settle();
                    self.ack(at, client, usize::MAX);
                }
                // Somebody else is to see that it is over.
                let link = self.machines[at].sharing.servers.machine();
                self.machines[at].sharing.servers.look();
                while self.model.serve(link) {}
                self.collect(at);
            }
            self.pass(Duration::from_secs(1));
            if round > 5 && self.machines.iter().all(|machine| machine.queue.phase() == Phase::Done) {
                break;
            }
        }
        for (at, machine) in self.machines.iter().enumerate() {
            assert_eq!(machine.queue.phase(), Phase::Done, "machine {at}: {:?}", machine.queue.status());
            assert_eq!(machine.stopped.len(), machine.consumers.len(), "machine {at}: not all consumers are told");
        }
        assert_eq!(self.model.items(), 0);
        let dead: BTreeSet<u64> = self.model.dead().iter().map(|letter| value(&letter.item)).collect();
        for item in &self.confirmed {
            let done = self.acknowledged.contains_key(item) || dead.contains(item);
            assert!(done, "item {item} is lost");
        }
        if !self.faults {
            for (item, times) in &self.acknowledged {
                assert!(*times == 1 && !dead.contains(item), "item {item} is done {times} times without a fault");
            }
        }
    }
}

#[test]
fn what_is_put_at_one_machine_is_done_at_another_and_both_end() {
    let mut world = World::new(2);
    world.produce(0, None);
    world.produce(1, None);
    for _ in 0..10 {
        world.put(0, 3);
        world.settle();
    }
    assert_eq!(world.confirmed.len(), 30);
    assert_eq!(world.model.items(), 30);
    let client = world.consume(1);
    world.demand(1, client, 4);
    world.settle();
    assert_eq!(world.machines[1].consumers[&client].len(), 4);
    world.drain();
    assert_eq!(world.acknowledged.len(), 30);
}

#[test]
fn no_more_is_fetched_than_consumers_ask_for() {
    let mut world = World::new(2);
    world.produce(0, None);
    (0..10).for_each(|_| world.put(0, 3));
    world.settle();
    let client = world.consume(1);
    world.demand(1, client, 1);
    world.settle();
    let other = world.consume(0);
    world.demand(0, other, 100);
    world.settle();
    assert_eq!(world.machines[0].consumers[&other].len(), 27, "all but one batch");
}

#[test]
fn what_a_dead_consumer_held_goes_to_other_machines_at_once() {
    let mut world = World::new(2);
    world.produce(0, None);
    world.put(0, 3);
    world.settle();
    let (here, there) = (world.consume(0), world.consume(1));
    world.demand(0, here, 3);
    world.settle();
    world.ack(0, here, 1);
    world.demand(1, there, 3);
    world.settle();
    assert_eq!(world.machines[1].consumers[&there].len(), 0);
    let status = world.machines[0].queue.status();
    assert_eq!((status.ready, status.held), (0, 2), "what is done of a batch is done");
    world.leave(0, here);
    world.settle();
    let held = &world.machines[1].consumers[&there];
    assert_eq!(
        held.values().copied().collect::<Vec<_>>(),
        [(1, 2), (2, 2)],
        "what is done is not done again, the rest is a second delivery"
    );
    assert_eq!(world.model.items(), 3, "the message is one until all of it is done");
    world.ack(1, there, 2);
    world.settle();
    assert_eq!(world.model.items(), 0);
}

#[test]
fn what_nobody_asks_for_any_more_goes_to_other_machines_after_a_while() {
    let mut world = World::new(2);
    world.produce(0, None);
    (0..2).for_each(|_| world.put(0, 2));
    world.settle();
    let (here, there) = (world.consume(0), world.consume(1));
    world.demand(0, here, 3);
    world.settle();
    assert_eq!(world.machines[0].queue.status().ready, 1);
    world.say(0, here, Word::Return { range: ItemRange { first: item_id(2, 0), count: 1 }, outcome: Outcome::Unstarted }, None);
    world.demand(1, there, 1);
    world.settle();
    assert_eq!(world.machines[1].consumers[&there].len(), 0);
    world.pass(SHARED_MARK);
    world.settle();
    assert_eq!(world.machines[1].consumers[&there].len(), 1);
}

#[test]
fn a_machine_that_drains_does_the_rest_if_it_is_alone_and_leaves_it_to_others_if_not() {
    for machines in [1, 2] {
        let mut world = World::new(machines);
        world.produce(0, None);
        (0..10).for_each(|_| world.put(0, 3));
        world.settle();
        let client = world.consume(0);
        world.demand(0, client, 3);
        // So that it knows who else is there.
        world.say(0, PRODUCER, Word::Join, None);
        world.settle();
        world.handle(0, Input::Drain);
        world.demand(0, client, 3);
        while !world.machines[0].consumers[&client].is_empty() {
            assert_ne!(world.machines[0].queue.phase(), Phase::Done);
            world.ack(0, client, 3);
            world.demand(0, client, 3);
            world.settle();
        }
        assert_eq!(world.machines[0].queue.phase(), Phase::Done, "{machines}");
        let (done, left) = (world.acknowledged.len() as u64, world.model.items());
        assert_eq!((done + left, left == 0), (30, machines == 1), "{done} done, {left} left");
    }
}

#[test]
fn who_wants_to_know_whether_there_is_an_item_hears_it_from_the_servers() {
    let mut world = World::new(2);
    world.produce(0, None);
    let client = world.consume(1);
    for there_is_one in [false, true, false] {
        if there_is_one {
            world.put(0, 1);
            world.settle();
        }
        let before = world.machines[1].withdrawn;
        world.demand(1, client, 1);
        world.say(1, client, Word::Withdraw, None);
        // What was asked for before may have come by now.
        assert!(there_is_one || world.machines[1].withdrawn == before, "nobody here can know");
        world.settle();
        assert_eq!((world.machines[1].withdrawn, world.machines[1].consumers[&client].len()), (before + 1, usize::from(there_is_one)));
        world.ack(1, client, 1);
    }
    world.handle(1, Input::Drain);
    world.demand(1, client, 1);
    world.say(1, client, Word::Withdraw, None);
    assert_eq!(world.machines[1].withdrawn, 4, "there is nobody to ask any more");
}

#[test]
fn what_is_asked_for_behind_a_question_stays_when_that_is_answered() {
    let mut world = World::new(2);
    world.produce(0, None);
    let client = world.consume(1);
    // A wait that runs out, a look whether there is something, and a wait that does not end: all on their way before the first answer.
    world.demand(1, client, 1);
    world.say(1, client, Word::Withdraw, None);
    world.demand(1, client, 2);
    world.say(1, client, Word::Withdraw, None);
    world.demand(1, client, 1);
    assert_eq!(world.machines[1].withdrawn, 0);
    world.settle();
    assert_eq!(world.machines[1].withdrawn, 1, "nothing changes, so the model has nothing to show for the second");
    for (withdrawn, held) in [(2, 1), (2, 2), (2, 2)] {
        world.put(0, 1);
        world.settle();
        let machine = &world.machines[1];
        assert_eq!((machine.withdrawn, machine.consumers[&client].len()), (withdrawn, held), "one for the question, one for the wait");
    }
}

#[test]
fn a_full_queue_holds_producers_back_at_every_machine_and_is_never_overfull() {
    for machines in [1, 2] {
        let mut world = World::new(machines);
        (0..machines).for_each(|at| world.produce(at, None));
        for _ in 0..100 {
            (0..machines).for_each(|at| world.put(at, 1));
            world.settle();
            assert!(world.model.items() <= RULES.capacity_items);
        }
        assert_eq!((world.model.items(), world.confirmed.len() as u64), (RULES.capacity_items, RULES.capacity_items));
        // What others put is known only from a look.
        assert!(machines > 1 || world.next_item == RULES.capacity_items, "{} were put", world.next_item);
        world.drain();
        assert_eq!(world.acknowledged.len() as u64, world.next_item);
    }
}

#[test]
fn failures_count_wherever_they_happen_and_the_last_makes_a_dead_letter_once() {
    let mut world = World::new(2);
    world.produce(0, None);
    world.put(0, 2);
    world.settle();
    for at in [0, 1, 0] {
        let client = world.consume(at);
        world.demand(at, client, 1);
        world.settle();
        assert_eq!(world.machines[at].consumers[&client].len(), 1, "at {at}");
        world.fail(at, client, Outcome::Failed { cause: "it is bad".into() });
        world.leave(at, client);
        world.settle();
        world.pass(Duration::from_secs(5));
        world.settle();
    }
    let dead = world.model.dead();
    assert_eq!(dead.iter().map(|letter| (value(&letter.item), &*letter.cause)).collect::<Vec<_>>(), [(0, "it is bad")]);
    world.drain();
    assert_eq!(world.acknowledged.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_machine_that_dies_gives_back_all_that_was_not_noted() {
    let mut world = World::new(2);
    world.produce(0, None);
    world.put(0, 4);
    world.settle();
    let client = world.consume(1);
    world.demand(1, client, 4);
    world.settle();
    world.ack(1, client, 2);
    world.pass(SHARED_MARK);
    world.handle(1, Input::Tick);
    world.settle();
    world.ack(1, client, 1);
    world.crash(1);
    world.drain();
    assert_eq!(world.acknowledged.values().copied().collect::<Vec<_>>(), [1, 1, 2, 1]);
}

#[test]
fn a_name_goes_on_at_another_machine_where_it_was() {
    let mut world = World::new(2);
    world.produce(0, Some("one"));
    world.settle();
    world.put(0, 3);
    world.settle();
    world.produce(1, Some("one"));
    world.settle();
    assert!(!world.machines[0].producer.is_here, "it is replaced");
    assert_eq!(world.machines[1].producer.next, 3);
    world.put(1, 2);
    world.settle();
    assert_eq!(world.confirmed.len(), 5);
    world.produce(0, Some("one"));
    world.settle();
    assert_eq!((world.machines[0].producer.next, world.machines[1].producer.is_here), (5, false));
}

#[test]
fn a_join_is_answered_when_all_before_it_is_settled_at_whatever_machine() {
    let mut world = World::new(2);
    world.produce(0, None);
    world.put(0, 3);
    // What is still on its way counts, too.
    world.say(0, PRODUCER, Word::Join, None);
    world.settle();
    let client = world.consume(1);
    world.demand(1, client, 3);
    world.settle();
    world.ack(1, client, 2);
    world.settle();
    assert_eq!(world.machines[0].joined, 0);
    world.ack(1, client, 1);
    world.settle();
    world.settle();
    assert_eq!(world.machines[0].joined, 1);
}

#[test]
fn a_dead_letter_is_put_again_from_whatever_machine() {
    let mut world = World::new(2);
    world.produce(0, None);
    world.put(0, 1);
    let client = world.consume(0);
    world.demand(0, client, 1);
    world.settle();
    world.fail(0, client, Outcome::Rejected { cause: "no".into() });
    world.settle();
    assert_eq!((world.model.dead().len(), world.model.items()), (1, 0));
    // Another asks for all of them.
    let id = world.model.dead()[0].id;
    let ask = Word::DeadRemove { from: ItemId(0), until: ItemId(u64::MAX), fate: common::message::DeadFate::Requeue };
    world.machines[1].queue.handle(Input::Steered { client: ClientId(5), message: ask }, world.now);
    let mut removed = None;
    for _ in 0..10 {
        while let Some(output) = world.machines[1].queue.poll() {
            match output {
                Output::Send { client: ClientId(5), message, .. } => removed = Some(message),
                output => world.follow(1, output),
            }
        }
        world.settle_quietly(1);
    }
    assert!(matches!(removed, Some(Word::DeadRemoved { count: 1, .. })), "{removed:?} of {id:?}");
    assert_eq!((world.model.dead().len(), world.model.items()), (0, 1));
    world.drain();
}

impl World {
    /// Answers for one machine, without looking at what comes of them.
    fn settle_quietly(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        while self.model.serve(machine.sharing.servers().machine()) {}
        for said in machine.sharing.collect().unwrap() {
            if let Said::Input(input) = said {
                machine.queue.handle(input, self.now);
            }
        }
        let entries = machine.sharing.take_kept();
        if entries > 0 {
            machine.queue.handle(Input::Journaled { entries }, self.now);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Produce,
    Put(u64),
    Finish,
    Consume,
    Leave,
    Demand(u32),
    Ack(usize),
    Fail(bool),
    Serve(usize),
    Collect,
    Pass(u64),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        1 => Just(Step::Produce),
        8 => (1..6u64).prop_map(Step::Put),
        1 => Just(Step::Finish),
        3 => Just(Step::Consume),
        1 => Just(Step::Leave),
        6 => (1..8u32).prop_map(Step::Demand),
        6 => (1..5usize).prop_map(Step::Ack),
        2 => any::<bool>().prop_map(Step::Fail),
        12 => (1..6usize).prop_map(Step::Serve),
        10 => Just(Step::Collect),
        3 => (1..2500u64).prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec((0..3usize, step), 1..150)
}

fn play(steps: Vec<(usize, Step)>, crashes: bool, whole: bool) {
    let mut world = World::new(3);
    if !whole {
        world.machines.iter_mut().for_each(|machine| machine.sharing.parts = Parts::default());
    }
    for (at, step) in steps {
        match step {
            Step::Produce if !world.machines[at].producer.is_here && !world.machines[at].producer.is_finished => world.produce(at, None),
            Step::Produce => {}
            Step::Put(items) => world.put(at, items),
            Step::Finish => world.finish(at),
            Step::Consume => _ = world.consume(at),
            Step::Leave => {
                if let Some(client) = world.first_consumer(at) {
                    world.leave(at, client);
                }
            }
            Step::Demand(items) => {
                if let Some(client) = world.first_consumer(at) {
                    world.demand(at, client, items);
                }
            }
            Step::Ack(most) => {
                if let Some(client) = world.first_consumer(at) {
                    world.ack(at, client, most);
                }
            }
            Step::Fail(hard) => {
                if let Some(client) = world.first_consumer(at) {
                    let cause = "it fails".to_string();
                    world.fail(at, client, if hard { Outcome::Rejected { cause } } else { Outcome::Failed { cause } });
                }
            }
            Step::Serve(times) => {
                let link = world.machines[at].sharing.servers().machine();
                (0..times).for_each(|_| _ = world.model.serve(link));
            }
            Step::Collect => world.collect(at),
            Step::Pass(ms) => world.pass(Duration::from_millis(ms)),
            Step::Crash if crashes => world.crash(at),
            Step::Crash => {}
        }
        assert!(world.model.items() <= RULES.capacity_items);
    }
    world.drain();
}

proptest! {
    #[test]
    fn whatever_happens_nothing_confirmed_is_lost_and_all_machines_end(steps in steps(), whole in any::<bool>()) {
        play(steps, true, whole);
    }

    #[test]
    fn without_a_fault_each_item_is_done_once(steps in steps(), whole in any::<bool>()) {
        play(steps, false, whole);
    }
}
