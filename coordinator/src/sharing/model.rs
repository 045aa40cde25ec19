//! What the servers of a shared queue do, as plainly as it can be written: in memory, one machine's request at a time, when it is told to.
//! For tests: of the queue and of what lies between, for which it stands in.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::ItemId;
use common::batch::Batch;
use common::limits::batch_cost_bytes;

use super::Servers;
use crate::jetstream::{Answer, ClusterError, Fetched, Lost, Marks, View};
use crate::queue::{DeadLetter, DeadPage, DeadRange, Origin};

/// The servers, and all machines' connections to them.
#[derive(Clone, Debug)]
pub struct Model(Rc<RefCell<World>>);

/// One machine's connection.
#[derive(Debug)]
pub struct Link {
    world: Rc<RefCell<World>>,
    machine: usize,
}

#[derive(Debug)]
struct World {
    capacity_items: u64,
    capacity_bytes: u64,
    messages: BTreeMap<u64, Message>,
    next_sequence: u64,
    dead: BTreeMap<ItemId, DeadLetter>,
    again: Vec<ItemId>,
    names: BTreeMap<Arc<str>, Name>,
    machines: Vec<Machine>,
    had_producers: bool,
    /// Raised with each change that a look can show.
    changes: u64,
    now: Duration,
}

#[derive(Debug)]
struct Message {
    batch: Batch,
    deliveries: u64,
    holder: Option<usize>,
    marks: Marks,
    not_before: Duration,
}

#[derive(Debug, Default)]
struct Name {
    owner: Option<usize>,
    position: u64,
    checksum: u64,
    finished: bool,
}

#[derive(Debug, Default)]
struct Machine {
    is_gone: bool,
    work: VecDeque<Work>,
    puts: VecDeque<(u64, Batch, Origin)>,
    wanted: u32,
    producers: (u64, u64),
    wants_look: bool,
    /// The changes that its last look has shown.
    looked: u64,
    answers: Vec<Answer>,
}

#[derive(Debug)]
enum Work {
    Put(u64, Batch, Origin),
    Want(u32),
    WantNothing,
    Settle(u64),
    Release(u64, Duration),
    Mark(u64, Marks),
    Bury(DeadLetter),
    LoadDead(DeadRange),
    ForgetDead(ItemId),
    Claim(Arc<str>),
    Finish(Arc<str>),
    Announce(u64, u64),
    Look,
}

impl Model {
    /// Servers of a queue with these bounds.
    pub fn new(capacity_items: u64, capacity_bytes: u64) -> Model {
        Model(Rc::new(RefCell::new(World {
            capacity_items,
            capacity_bytes,
            messages: BTreeMap::new(),
            next_sequence: 1,
            dead: BTreeMap::new(),
            again: Vec::new(),
            names: BTreeMap::new(),
            machines: Vec::new(),
            had_producers: false,
            changes: 1,
            now: Duration::ZERO,
        })))
    }

    /// Connects another machine.
    pub fn connect(&self) -> Link {
        let mut world = self.0.borrow_mut();
        world.machines.push(Machine::default());
        Link { world: Rc::clone(&self.0), machine: world.machines.len() - 1 }
    }

    /// It is so late now.
    pub fn set_now(&self, now: Duration) {
        self.0.borrow_mut().now = now;
    }

    /// Does one thing for a machine, if there is something to do. False if there is nothing.
    pub fn serve(&self, machine: usize) -> bool {
        self.0.borrow_mut().serve(machine)
    }

    /// A machine is dead, and that is noticed: what it held is everybody's, and its producers are not waited for.
    pub fn lose(&self, machine: usize) {
        let mut world = self.0.borrow_mut();
        world.changes += 1;
        let (expected, finished) = world.machines[machine].producers;
        world.machines[machine] = Machine { is_gone: true, ..Machine::default() };
        for message in world.messages.values_mut().filter(|message| message.holder == Some(machine)) {
            message.holder = None;
        }
        let lost = Lost { machine: machine.to_string(), producers_unfinished: expected.saturating_sub(finished) };
        for other in world.machines.iter_mut().filter(|machine| !machine.is_gone) {
            other.answers.push(Answer::Lost(lost.clone()));
        }
    }

    /// Items at the servers.
    pub fn items(&self) -> u64 {
        self.0.borrow().items()
    }

    /// The dead letters, in the order of their items.
    pub fn dead(&self) -> Vec<DeadLetter> {
        self.0.borrow().dead.values().cloned().collect()
    }

    /// Items that wait at the servers, or are held: those that are not marked as settled.
    pub fn open_items(&self) -> Vec<Vec<u8>> {
        let world = self.0.borrow();
        let open = |message: &Message| {
            let is_settled = |index: u32| message.marks.settled.iter().any(|(from, count)| (*from..from + count).contains(&index));
            let items = (0..message.batch.count()).filter(|index| !is_settled(*index));
            items.map(|index| message.batch.item(index).to_vec()).collect::<Vec<_>>()
        };
        world.messages.values().flat_map(open).collect()
    }
}

impl World {
    fn items(&self) -> u64 {
        self.messages.values().map(|message| u64::from(message.batch.count())).sum()
    }

    fn bytes(&self) -> u64 {
        self.messages.values().map(|message| batch_cost_bytes(message.batch.body_bytes())).sum()
    }

    fn serve(&mut self, machine: usize) -> bool {
        self.store_next(machine) || self.do_next(machine) || self.deliver_next(machine) || self.look_if_changed(machine)
    }

    fn answer(&mut self, machine: usize, answer: Answer) {
        self.machines[machine].answers.push(answer);
    }

    /// Stores what a machine has put, if there is room for it.
    fn store_next(&mut self, machine: usize) -> bool {
        let Some((_, batch, _)) = self.machines[machine].puts.front() else { return false };
        let items = self.items() + u64::from(batch.count());
        let bytes = self.bytes() + batch_cost_bytes(batch.body_bytes());
        if items > self.capacity_items || bytes > self.capacity_bytes {
            return false;
        }
        let Some((ticket, batch, origin)) = self.machines[machine].puts.pop_front() else { return false };
        self.changes += 1;
        let is_known = match origin {
            Origin::Nameless => false,
            Origin::Producer(by) => {
                let name = self.names.entry(by.name).or_default();
                let is_known = name.position >= by.position;
                if !is_known {
                    (name.position, name.checksum) = (by.position, by.checksum);
                }
                is_known
            }
            Origin::DeadLetter(id) => {
                let is_known = self.again.contains(&id);
                self.again.push(id);
                is_known
            }
        };
        if !is_known {
            let message = Message { batch, deliveries: 0, holder: None, marks: Marks::default(), not_before: Duration::ZERO };
            self.messages.insert(self.next_sequence, message);
            self.next_sequence += 1;
        }
        let sequence = self.next_sequence - 1;
        self.answer(machine, Answer::Kept { ticket, sequence });
        true
    }

    fn deliver_next(&mut self, machine: usize) -> bool {
        if self.machines[machine].wanted == 0 {
            return false;
        }
        let now = self.now;
        let free = |message: &&mut Message| message.holder.is_none() && message.not_before <= now;
        let Some((&sequence, message)) = self.messages.iter_mut().find(|(_, message)| free(message)) else { return false };
        message.holder = Some(machine);
        message.deliveries += 1;
        let fetched = Fetched { sequence, deliveries: message.deliveries, batch: message.batch.clone(), marks: message.marks.clone() };
        self.machines[machine].wanted -= 1;
        self.answer(machine, Answer::Fetched(fetched));
        true
    }

    fn do_next(&mut self, machine: usize) -> bool {
        let Some(work) = self.machines[machine].work.pop_front() else { return false };
        match work {
            Work::Put(ticket, batch, origin) => self.machines[machine].puts.push_back((ticket, batch, origin)),
            Work::Want(messages) => self.machines[machine].wanted += messages,
            Work::WantNothing => self.machines[machine].wanted = 0,
            Work::Settle(sequence) => {
                self.messages.remove(&sequence);
                self.changes += 1;
                self.answer(machine, Answer::Settled(sequence));
            }
            Work::Release(sequence, delay) => {
                let not_before = self.now + delay;
                if let Some(message) = self.messages.get_mut(&sequence).filter(|message| message.holder == Some(machine)) {
                    (message.holder, message.not_before) = (None, not_before);
                }
            }
            Work::Mark(sequence, marks) => {
                if let Some(message) = self.messages.get_mut(&sequence).filter(|message| message.holder == Some(machine)) {
                    message.marks = marks;
                }
            }
            Work::Bury(letter) => {
                let id = letter.id;
                self.dead.insert(id, letter);
                self.changes += 1;
                self.answer(machine, Answer::Buried(id));
            }
            Work::LoadDead(DeadRange { from, until }) => {
                let page = DeadPage::of(self.dead.range(ItemId(from)..ItemId(until)).map(|(_, letter)| letter.clone()));
                self.answer(machine, Answer::DeadLoaded(page));
            }
            Work::ForgetDead(id) => {
                self.dead.remove(&id);
                self.changes += 1;
                self.answer(machine, Answer::DeadForgotten(id));
            }
            Work::Claim(name) => {
                let known = self.names.entry(Arc::clone(&name)).or_default();
                let before = known.owner.replace(machine).filter(|before| *before != machine);
                let Name { position, checksum, finished, .. } = *known;
                if let Some(before) = before {
                    self.answer(before, Answer::Replaced(Arc::clone(&name)));
                }
                self.answer(machine, Answer::Claimed { name, position, checksum, finished });
            }
            Work::Finish(name) => {
                self.names.entry(Arc::clone(&name)).or_default().finished = true;
                self.answer(machine, Answer::Finished(name));
            }
            Work::Announce(expected, finished) => {
                self.machines[machine].producers = (expected, finished);
                self.changes += 1;
                self.had_producers |= expected > 0;
            }
            Work::Look => self.machines[machine].wants_look = true,
        }
        true
    }

    /// A machine sees how it all is: who waits for a change is not told that there is none.
    fn look_if_changed(&mut self, machine: usize) -> bool {
        let changes = self.changes;
        let asking = &mut self.machines[machine];
        if !asking.wants_look || asking.looked == changes {
            return false;
        }
        (asking.wants_look, asking.looked) = (false, changes);
        self.look(machine);
        true
    }

    fn look(&mut self, machine: usize) {
        let here = || self.machines.iter().filter(|machine| !machine.is_gone);
        let all_finished = here().all(|machine| machine.producers.1 >= machine.producers.0 && machine.puts.is_empty());
        let view = View {
            machines: here().count() as u64,
            producers_expected: here().map(|machine| machine.producers.0).sum(),
            producers_finished: here().map(|machine| machine.producers.1).sum(),
            messages: self.messages.len() as u64,
            items: self.items(),
            bytes: self.bytes(),
            first_sequence: self.messages.first_key_value().map_or(self.next_sequence, |(sequence, _)| *sequence),
            last_sequence: self.next_sequence - 1,
            dead: self.dead.len() as u64,
            is_done: self.had_producers && all_finished && self.messages.is_empty(),
        };
        self.answer(machine, Answer::Cluster(view));
    }
}

impl Link {
    /// Its number among all that were ever connected.
    pub fn machine(&self) -> usize {
        self.machine
    }

    fn ask(&self, work: Work) {
        self.world.borrow_mut().machines[self.machine].work.push_back(work);
    }
}

impl Servers for Link {
    fn put(&mut self, ticket: u64, batch: Batch, origin: Origin) {
        self.ask(Work::Put(ticket, batch, origin));
    }

    fn want_more(&mut self, messages: u32) {
        self.ask(Work::Want(messages));
    }

    fn want_nothing(&mut self) {
        self.ask(Work::WantNothing);
    }

    fn settle(&mut self, sequence: u64) {
        self.ask(Work::Settle(sequence));
    }

    fn release(&mut self, sequence: u64, delay: Duration) {
        self.ask(Work::Release(sequence, delay));
    }

    fn mark(&mut self, sequence: u64, marks: Marks) {
        self.ask(Work::Mark(sequence, marks));
    }

    fn bury(&mut self, letter: DeadLetter) {
        self.ask(Work::Bury(letter));
    }

    fn load_dead(&mut self, range: DeadRange) {
        self.ask(Work::LoadDead(range));
    }

    fn forget_dead(&mut self, id: ItemId) {
        self.ask(Work::ForgetDead(id));
    }

    fn claim(&mut self, name: Arc<str>) {
        self.ask(Work::Claim(name));
    }

    fn finish(&mut self, name: Arc<str>) {
        self.ask(Work::Finish(name));
    }

    fn announce(&mut self, expected: u64, finished: u64) {
        self.ask(Work::Announce(expected, finished));
    }

    fn look(&mut self) {
        self.ask(Work::Look);
    }

    fn collect(&mut self) -> Result<Vec<Answer>, ClusterError> {
        Ok(std::mem::take(&mut self.world.borrow_mut().machines[self.machine].answers))
    }
}
