//! The queue against a naive model, by random steps.

use super::*;
use common::message::{DeadFate, Obstacle};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The naive model: one entry an item, searched from the front, and the rules said as plainly as possible.
#[derive(Default)]
struct Naive {
    items: Vec<Item>,
    demand: BTreeMap<u64, u32>,
    credit_items: BTreeMap<u64, i64>,
    put: BTreeMap<u64, u64>,
    confirmed: BTreeMap<u64, u64>,
    /// Producers that have asked for credit, having none, and have heard of none since.
    asking: BTreeSet<u64>,
    /// What producers were told and have not heard yet.
    unheard: BTreeMap<u64, Vec<Message>>,
    /// How long an attempt may take, all in all.
    lease: Option<Duration>,
    ordered: bool,
    /// Until when consumers that have begun nothing may hold what they hold.
    sits: BTreeMap<u64, Duration>,
    /// Taken back from consumers that have not answered that; what they are still to be told of it; and how often they have to answer.
    revoked: BTreeMap<u64, BTreeSet<u64>>,
    untold: BTreeMap<u64, BTreeSet<u64>>,
    unanswered: BTreeMap<u64, u32>,
    paused: bool,
    /// What was put again, as often as it was.
    requeued: Vec<String>,
    dropped: u64,
    /// The last answer about dead letters.
    removed: Option<(u64, Option<Obstacle>)>,
}

struct Item {
    text: String,
    attempts: u32,
    failures: u32,
    /// Until when its attempt may last, if it has begun.
    due: Option<Duration>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    Delayed(Duration),
    Held(u64),
    /// Its result has come.
    Early,
    Settled,
    Dead,
    /// A dead letter that is none any more.
    Gone,
}

impl Naive {
    fn held_by(&self, client: u64) -> Vec<u64> {
        (0..self.items.len() as u64).filter(|id| self.items[*id as usize].state == State::Held(client)).collect()
    }

    /// An attempt at an item has failed.
    fn fail(&mut self, id: u64, due: impl Fn(u32) -> Duration) {
        let item = &mut self.items[id as usize];
        item.failures += 1;
        item.state = if item.failures >= ATTEMPTS_MAX { State::Dead } else { State::Delayed(due(item.failures)) };
    }

    /// Who holds something and has begun nothing of it has its time from now on.
    fn watch(&mut self, now: Duration) {
        let Some(lease) = self.lease else { return };
        for consumer in CONSUMERS {
            let held = self.held_by(consumer);
            if held.is_empty() || held.iter().any(|id| self.items[*id as usize].due.is_some()) {
                self.sits.remove(&consumer);
            } else {
                self.sits.entry(consumer).or_insert(now + lease);
            }
        }
    }

    /// Whose words are not heard yet has the grace once more.
    fn unheard(&mut self, consumer: u64, now: Duration) {
        for id in self.held_by(consumer) {
            self.items[id as usize].due.iter_mut().filter(|due| **due <= now).for_each(|due| *due = now + GRACE);
        }
        self.sits.get_mut(&consumer).into_iter().filter(|due| **due <= now).for_each(|due| *due = now + GRACE);
    }

    /// The clock is looked at: what has been held for too long is taken back.
    fn expire(&mut self, now: Duration) {
        while self.lease.is_some() {
            let begun = self.items.iter().zip(0..).filter_map(|(item, id)| match item.state {
                State::Held(consumer) => Some((item.due?, consumer, Some(id))),
                _ => None,
            });
            let sits = self.sits.iter().map(|(consumer, due)| (*due, *consumer, None));
            let Some((_, consumer, id)) = begun.chain(sits).min().filter(|(due, ..)| *due <= now) else { return };
            let held = self.held_by(consumer);
            let taken: Vec<u64> =
                held.iter().copied().filter(|other| id == Some(*other) || self.items[*other as usize].due.is_none()).collect();
            for other in taken {
                let failed = id == Some(other) || (id.is_none() && held.len() == 1);
                self.items[other as usize].due = None;
                self.items[other as usize].state = State::Ready;
                if failed {
                    self.fail(other, |failures| now + RULES.retry_delay.spread(failures, other));
                }
                self.revoked.entry(consumer).or_default().insert(other);
                self.untold.entry(consumer).or_default().insert(other);
            }
            *self.unanswered.entry(consumer).or_default() += 1;
            self.watch(now);
        }
    }

    /// The lowest item that is not through.
    fn next(&self) -> u64 {
        let through = |item: &&Item| matches!(item.state, State::Settled | State::Dead | State::Gone);
        self.items.iter().take_while(through).count() as u64
    }

    /// Takes in what a producer was told; true if it answers that it has given its credit back.
    fn hear(&mut self, producer: u64) -> bool {
        let mut recalled = false;
        let put = self.put.get(&producer).copied().unwrap_or_default();
        let credit = self.credit_items.entry(producer).or_default();
        for message in self.unheard.remove(&producer).into_iter().flatten() {
            match message {
                Message::Confirm { credit_items, credit_bytes, .. } => {
                    *credit += credit_items as i64;
                    if credit_items > 0 || credit_bytes > 0 {
                        self.asking.remove(&producer);
                    }
                }
                Message::Recall { position } if position.0 == put => {
                    *credit = 0;
                    recalled = true;
                }
                _ => {}
            }
        }
        recalled
    }

    /// Sees all that has come of what was said so far.
    fn look(&mut self, bench: &mut Bench) {
        bench.hurried = false;
        bench.look();
        let mut written = Vec::new();
        loop {
            for output in std::mem::take(&mut bench.outputs) {
                self.see(output, bench.now, &mut written);
            }
            if written.is_empty() {
                self.untold.retain(|_, ids| !ids.is_empty());
                assert!(self.untold.is_empty(), "consumers are not told what is taken back: {:?}", self.untold);
                self.watch(bench.now);
                return;
            }
            written.drain(..).for_each(|ticket| bench.handle(Input::Written { ticket, output_bytes: None }));
        }
    }

    fn see(&mut self, output: Output, now: Duration, written: &mut Vec<Ticket>) {
        match output {
            Output::Send { client, message: message @ (Message::Confirm { .. } | Message::Recall { .. }), .. } => {
                if let Message::Confirm { position, .. } = message {
                    self.confirmed.insert(client.0, position.0);
                }
                self.unheard.entry(client.0).or_default().push(message);
            }
            Output::Send { message: Message::DeadRemoved { count, obstacle, .. }, .. } => self.removed = Some((count, obstacle)),
            Output::Send { client, message: Message::Deliver { first, attempt, .. }, batch: Some(batch) } => {
                assert!(!self.paused, "items are handed out by a queue that is paused");
                for (id, item) in (first.0..).zip(batch.iter()) {
                    while self.items.len() as u64 <= id {
                        self.items.push(Item { text: String::new(), attempts: 0, failures: 0, due: None, state: State::Ready });
                    }
                    let earlier_ready = self.items[..id as usize].iter().position(|item| item.state == State::Ready && item.attempts > 0);
                    assert_eq!(earlier_ready, None, "item {id} passes an earlier one that came back");
                    let known = &mut self.items[id as usize];
                    if let State::Delayed(due) = known.state {
                        assert!(due <= now, "item {id} comes before its time");
                        known.state = State::Ready;
                    }
                    assert_eq!(known.state, State::Ready, "item {id} is delivered");
                    let text = String::from_utf8(item.to_vec()).unwrap();
                    assert!(known.text.is_empty() || known.text == text, "item {id} has changed");
                    known.text = text;
                    known.attempts += 1;
                    assert_eq!(known.attempts, attempt, "the attempt of item {id}");
                    known.state = State::Held(client.0);
                    let demand = self.demand.entry(client.0).or_default();
                    *demand = demand.checked_sub(1).expect("nothing comes without demand");
                }
            }
            Output::Send { client, message: Message::Revoke { ranges }, .. } => {
                let told = ranges.iter().flat_map(|range| range.first.0..range.first.0 + u64::from(range.count));
                let untold = self.untold.entry(client.0).or_default();
                told.for_each(|id| assert!(untold.remove(&id), "item {id} is not taken back from {client:?}"));
            }
            Output::Write { ticket, record } => {
                match record {
                    Record::DeadLetter(letter) => {
                        let item = &mut self.items[letter.id.0 as usize];
                        assert!(matches!(item.state, State::Dead | State::Settled), "item {} is given up", letter.id);
                        item.state = State::Dead;
                    }
                    Record::Results(results) => {
                        for result in results.iter() {
                            let id: u64 = std::str::from_utf8(result).unwrap().parse().unwrap();
                            assert_eq!(self.items[id as usize].state, State::Early, "the result of item {id}");
                            assert!(!self.ordered || self.next() == id, "the result of item {id} passes item {}", self.next());
                            self.items[id as usize].state = State::Settled;
                        }
                    }
                }
                written.push(ticket);
            }
            Output::Send { .. } | Output::Welcome { .. } => {}
            Output::Journal(_) | Output::Load(_) | Output::LoadDead(_) => panic!("the bench answers these"),
            Output::Close { client, words, .. } => panic!("{client:?} is closed: {words}"),
            other => panic!("only a shared queue says {other:?}"),
        }
    }
}

/// `WantOnce` is what our own client does: it does not ask again while its question is open.
#[derive(Clone, Debug)]
enum Step {
    Put {
        producer: u64,
        items: u64,
    },
    Want {
        producer: u64,
    },
    WantOnce {
        producer: u64,
    },
    Hear {
        producer: u64,
    },
    Demand {
        consumer: u64,
        items: u32,
    },
    Settle {
        consumer: u64,
        which: prop::sample::Index,
        how: u8,
    },
    AckAll {
        consumer: u64,
    },
    Die {
        consumer: u64,
    },
    Begin {
        consumer: u64,
        which: prop::sample::Index,
    },
    Extend {
        consumer: u64,
        which: prop::sample::Index,
        ms: u64,
    },
    /// Settles what was taken back.
    Late {
        consumer: u64,
        how: u8,
    },
    Answer {
        consumer: u64,
    },
    /// Before the clock is looked at, a consumer has said something that is not heard yet.
    Pass {
        ms: u64,
        unheard: Option<u64>,
    },
    Last {
        producer: u64,
    },
    Pause {
        paused: bool,
    },
    RemoveDead {
        fate: DeadFate,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..3, 1u64..6).prop_map(|(producer, items)| Step::Put { producer, items }),
        1 => (0u64..3).prop_map(|producer| Step::Want { producer }),
        3 => (0u64..3).prop_map(|producer| Step::Hear { producer }),
        4 => (10u64..13, 1u32..6).prop_map(|(consumer, items)| Step::Demand { consumer, items }),
        6 => (10u64..13, any::<prop::sample::Index>(), 0u8..6).prop_map(|(consumer, which, how)| Step::Settle { consumer, which, how }),
        1 => (10u64..13).prop_map(|consumer| Step::AckAll { consumer }),
        1 => (10u64..13).prop_map(|consumer| Step::Die { consumer }),
        2 => (10u64..13, any::<prop::sample::Index>()).prop_map(|(consumer, which)| Step::Begin { consumer, which }),
        1 => (10u64..13, any::<prop::sample::Index>(), 0u64..4000).prop_map(|(consumer, which, ms)| Step::Extend { consumer, which, ms }),
        1 => (10u64..13, 0u8..3).prop_map(|(consumer, how)| Step::Late { consumer, how }),
        1 => (10u64..13).prop_map(|consumer| Step::Answer { consumer }),
        2 => (0u64..2000, prop::option::weighted(0.3, 10u64..13)).prop_map(|(ms, unheard)| Step::Pass { ms, unheard }),
        1 => any::<bool>().prop_map(|paused| Step::Pause { paused }),
        1 => prop_oneof![3 => Just(DeadFate::Requeue), 1 => Just(DeadFate::Drop)].prop_map(|fate| Step::RemoveDead { fate }),
    ]
}

const ATTEMPTS_MAX: u32 = 3;
const CONSUMERS: std::ops::Range<u64> = 10..13;
const GRACE: Duration = Duration::from_millis(100);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    #[test]
    fn the_queue_does_what_a_naive_model_does(steps in prop::collection::vec((step(), any::<bool>()), 1..80), capacity in 1u64..20,
        window in prop::option::of((1u64..2000, 20_000u64..100_000)), lease in prop::option::of(50u64..3000),
        early_bytes_max in prop::option::of(0u64..2000)) {
        let journaled = window.map(|(near_bytes, unwritten_bytes)| Window { near_bytes, unwritten_bytes });
        let lease = lease.map(|ms| Lease { item_timeout: Duration::from_millis(ms), grace: GRACE });
        let rules = Rules { capacity_items: capacity, attempts_max: ATTEMPTS_MAX, producers_expected: Some(3), journaled, lease, early_bytes_max, ..RULES };
        let mut bench = Bench::new(rules.clone());
        let lease = lease.map(|lease| lease.item_timeout + GRACE);
        let mut model = Naive { lease, ordered: early_bytes_max.is_some(), ..Naive::default() };
        (0..3).for_each(|producer| bench.producer(producer));
        (10..13).for_each(|consumer| bench.consumer(consumer));
        // What is held is settled before the clock goes on.
        let settled = || CONSUMERS.flat_map(|consumer| [Step::AckAll { consumer }, Step::Answer { consumer }]);
        let served = || settled().chain([Step::Pass { ms: 3000, unheard: None }, Step::Demand { consumer: 10, items: 50 }]).chain(settled());
        // Everybody can put in the end: no producer's wish is forgotten, whatever was recalled and crossed before.
        let resume = std::iter::once(Step::Pause { paused: false });
        let last = (0..3).flat_map(|producer| [Step::Hear { producer }, Step::WantOnce { producer }, Step::Hear { producer }].into_iter()
            .chain(served()).chain([Step::Hear { producer }, Step::Last { producer }]));
        let drain = served().collect::<Vec<_>>();
        let empty = std::iter::repeat_n(drain, 60).flatten();
        let end = empty.clone();
        let afterwards = resume.chain(empty).chain(last).chain(end).map(|step| (step, false));
        for (step, hurried) in steps.into_iter().chain(afterwards) {
            if !matches!(step, Step::Put { .. } | Step::Want { .. } | Step::WantOnce { .. } | Step::Hear { .. }) {
                model.look(&mut bench);
            }
            bench.hurried = hurried;
            match step {
                Step::Put { producer, items } => {
                    let credit = model.credit_items.entry(producer).or_default();
                    let items = items.min((*credit).max(0) as u64);
                    if items > 0 {
                        *credit -= items as i64;
                        let from = model.put.entry(producer).or_default();
                        let texts: Vec<String> = (*from..*from + items).map(|n| format!("{producer}:{n}")).collect();
                        *from += items;
                        bench.put(producer, &texts.iter().map(String::as_str).collect::<Vec<_>>());
                    }
                }
                Step::Hear { producer } => if model.hear(producer) { bench.say(producer, Message::Recalled) },
                Step::WantOnce { producer } if model.asking.contains(&producer) => {}
                Step::Want { producer } | Step::WantOnce { producer } => {
                    // Asked with credit in hand, it is answered already.
                    if model.credit_items.get(&producer).is_none_or(|credit| *credit <= 0) { model.asking.insert(producer); }
                    bench.say(producer, Message::Want { bytes: batch_cost_bytes(10) });
                }
                Step::Demand { consumer, items } => {
                    *model.demand.entry(consumer).or_default() += items;
                    bench.demand(consumer, items);
                }
                Step::Settle { consumer, which, how } => {
                    let held = model.held_by(consumer);
                    if held.is_empty() { continue }
                    let id = held[which.index(held.len())];
                    model.sits.remove(&consumer);
                    let item = &mut model.items[id as usize];
                    item.due = None;
                    match how {
                        0 | 1 => { item.state = State::Settled; bench.ack(consumer, id, 1); }
                        2 => { item.state = State::Ready; item.attempts -= 1; bench.give_back(consumer, id, 1, Outcome::Unstarted); }
                        3 => {
                            item.state = State::Delayed(bench.now + Duration::from_millis(700));
                            bench.give_back(consumer, id, 1, Outcome::RetryAfter { delay_ms: 700 });
                        }
                        4 => {
                            let results = batch(&[&id.to_string()]);
                            item.state = State::Early;
                            let message = Message::Result { first: ItemId(id), batch: results.header() };
                            bench.handle(Input::Said { client: ClientId(consumer), message, batch: Some(results) });
                        }
                        _ => { item.state = State::Settled; bench.give_back(consumer, id, 1, Outcome::Rejected { cause: "bad".into() }); }
                    }
                }
                Step::AckAll { consumer } => for id in model.held_by(consumer) {
                    model.sits.remove(&consumer);
                    let item = &mut model.items[id as usize];
                    (item.due, item.state) = (None, State::Settled);
                    bench.ack(consumer, id, 1);
                },
                Step::Begin { consumer, which } => {
                    let held = model.held_by(consumer);
                    if held.is_empty() { continue }
                    let id = held[which.index(held.len())];
                    let due = bench.now + model.lease.unwrap_or_default();
                    model.items[id as usize].due.get_or_insert(due);
                    bench.say(consumer, Message::Begin { id: ItemId(id) });
                }
                Step::Extend { consumer, which, ms } => {
                    let held = model.held_by(consumer);
                    if held.is_empty() { continue }
                    let id = held[which.index(held.len())];
                    let due = bench.now + Duration::from_millis(ms) + GRACE;
                    let least = bench.now + model.lease.unwrap_or_default();
                    let known = model.items[id as usize].due.get_or_insert(least);
                    *known = due.max(*known);
                    bench.say(consumer, Message::Extend { id: ItemId(id), by_ms: ms });
                }
                Step::Late { consumer, how } => {
                    let Some(id) = model.revoked.get(&consumer).and_then(|ids| ids.first().copied()) else { continue };
                    match how {
                        0 => bench.ack(consumer, id, 1),
                        1 => bench.give_back(consumer, id, 1, Outcome::Rejected { cause: "late".into() }),
                        _ => bench.say(consumer, Message::Extend { id: ItemId(id), by_ms: 1 }),
                    }
                }
                Step::Answer { consumer } => {
                    model.revoked.remove(&consumer);
                    for _ in 0..model.unanswered.remove(&consumer).unwrap_or_default() { bench.say(consumer, Message::Revoked); }
                }
                Step::Die { consumer } => {
                    // Never with a single item: whether that counts as failed has a test of its own.
                    if model.held_by(consumer).len() == 1 { continue }
                    for id in model.held_by(consumer) {
                        let item = &mut model.items[id as usize];
                        item.state = State::Ready;
                        if item.due.take().is_some() {
                            item.failures += 1;
                            if item.failures >= ATTEMPTS_MAX { item.state = State::Dead; }
                        }
                    }
                    model.demand.remove(&consumer);
                    model.revoked.remove(&consumer);
                    model.unanswered.remove(&consumer);
                    model.sits.remove(&consumer);
                    bench.leave(consumer);
                    bench.consumer(consumer);
                }
                Step::Last { producer } => {
                    prop_assert!(model.credit_items[&producer] > 0, "producer {} waits in vain", producer);
                    let from = model.put.entry(producer).or_default();
                    *from += 1;
                    bench.put(producer, &[&format!("{producer}:{}", *from - 1)]);
                }
                Step::Pause { paused } => {
                    let changed = std::mem::replace(&mut model.paused, paused) != paused;
                    bench.steer(20, Message::SetPaused { paused });
                    let is_answer = |output: &Output| matches!(output, Output::Send { message, .. } if *message == Message::PausedSet { paused, changed });
                    let is_answered = bench.outputs.iter().any(is_answer);
                    prop_assert!(hurried || is_answered);
                }
                Step::RemoveDead { fate } => {
                    let before = bench.queue.status();
                    let dead: Vec<usize> = (0..model.items.len()).filter(|id| model.items[*id].state == State::Dead).collect();
                    bench.steer(20, Message::DeadRemove { from: ItemId(0), until: ItemId(u64::MAX), fate });
                    model.look(&mut bench);
                    let (count, obstacle) = model.removed.take().expect("an answer");
                    for id in &dead[..count as usize] {
                        model.items[*id].state = State::Gone;
                        let text = model.items[*id].text.clone();
                        if fate == DeadFate::Requeue { model.requeued.push(text) } else { model.dropped += 1 }
                    }
                    let is_full = (before.stored() + count == capacity) || before.bytes + (count + 1) * batch_cost_bytes(1) > rules.capacity_bytes;
                    match obstacle {
                        None => prop_assert_eq!(count, dead.len() as u64, "all of them"),
                        obstacle => prop_assert!(obstacle == Some(Obstacle::Full) && fate == DeadFate::Requeue && is_full, "{:?}", obstacle),
                    }
                }
                Step::Pass { ms, unheard } => {
                    bench.now += Duration::from_millis(ms);
                    if let Some(consumer) = unheard {
                        model.unheard(consumer, bench.now);
                        bench.handle(Input::Unheard { client: ClientId(consumer) });
                        // What was delayed until now is handed out before anything is taken back.
                        bench.look();
                        model.look(&mut bench);
                    }
                    model.expire(bench.now);
                    bench.pass(Duration::ZERO);
                }
            }
            if hurried { continue }
            model.look(&mut bench);
            let status = bench.queue.status();
            let unsettled = status.accepted - status.acknowledged - status.dead - status.dead_removed;
            prop_assert_eq!(status.dead_removed, model.requeued.len() as u64 + model.dropped);
            prop_assert_eq!(status.paused, model.paused);
            prop_assert_eq!(status.stored(), unsettled, "ready, delayed and held are all that is not settled");
            prop_assert!(unsettled <= capacity && status.bytes <= rules.capacity_bytes);
            prop_assert_eq!(model.confirmed.values().sum::<u64>() + model.requeued.len() as u64, status.accepted, "confirmed is what is accepted");
            prop_assert!(unsettled > 0 || status.producers_waiting == 0, "an empty queue has room for everybody");
            let hungry = model.demand.iter().any(|(consumer, demand)| *demand > 0 && !model.unanswered.contains_key(consumer));
            let early = model.items.iter().any(|item| item.state == State::Early);
            prop_assert!(!early || model.ordered);
            let ready = model.items.iter().position(|item| item.state == State::Ready).unwrap_or(model.items.len());
            let held_back = early && ready as u64 != model.next();
            prop_assert!(!hungry || status.ready == 0 || held_back || model.paused, "nothing waits while somebody asks");
            prop_assert!(model.items.get(model.next() as usize).is_none_or(|item| item.state != State::Early), "its turn has come");
        }
        let mut seen = BTreeSet::new();
        let mut last = BTreeMap::new();
        for (id, item) in model.items.iter().enumerate() {
            prop_assert!(matches!(item.state, State::Settled | State::Dead | State::Gone), "item {} is left {:?}", id, item.state);
            if let Some(at) = model.requeued.iter().position(|text| *text == item.text && seen.contains(text)) {
                model.requeued.remove(at);
                continue;
            }
            let (producer, n) = item.text.split_once(':').unwrap();
            prop_assert!(seen.insert(item.text.clone()), "{} is there twice", item.text);
            let before = last.insert(producer.to_string(), n.parse::<u64>().unwrap());
            prop_assert_eq!(before.map_or(0, |before| before + 1), n.parse::<u64>().unwrap(), "one producer's items keep their order");
        }
        prop_assert!(model.requeued.is_empty(), "put again, and never handed out: {:?}", model.requeued);
        prop_assert_eq!(&model.put, &model.confirmed.clone().into_iter().filter(|(_, n)| *n > 0).collect(), "all that was put came in");
    }
}
