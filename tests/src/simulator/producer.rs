//! A process that puts: an application of one or several threads around the real session.

use std::time::Duration;

use common::Error;
use common::checksum;
use common::limits::FLUSH_DELAY;
use common::message::{Position, Role};
use common::simulation::{Greeting, ProducerSession, Put, Session};
use coordinator::queue::ClientId;

use super::item::Tag;
use super::link::Weather;
use super::network::Stage;
use super::player::{Player, Wake};
use super::wired::Wired;

/// What a producer is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name, or none.
    pub name: String,
    /// Whose its items are; one without a name adds to it with every connection.
    pub tag: Tag,
    /// How many it puts.
    pub items: u64,
    /// Threads that share it.
    pub threads: usize,
    /// Microseconds between a thread's calls.
    pub pause_us: (u64, u64),
    /// So many of a hundred calls have no or little patience.
    pub impatient_percent: u64,
    /// It waits until all is settled before it finishes.
    pub joins: bool,
    /// It says `Finish`, instead of just going.
    pub finishes: bool,
    /// It goes on when its connection is lost; else it begins anew, as after a crash.
    pub resumes: bool,
    /// It goes without waiting until what it has put is confirmed.
    pub hasty: bool,
    /// Its connection's.
    pub weather: Weather,
}

/// A thread of its application.
#[derive(Debug)]
enum Caller {
    Idle { until: Duration },
    Waiting { deadline: Option<Duration>, withdrawal: Option<u64> },
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Putting,
    Flushing(Position),
    Joining(u64),
    Finishing,
    Leaving,
}

/// The process.
#[derive(Debug)]
pub struct Producer {
    plan: Plan,
    next: u64,
    /// The checksum of so many of its items as it has put them last, from none on.
    checksums: Vec<u64>,
    wired: Option<Wired<ProducerSession>>,
    callers: Vec<Caller>,
    /// What each thread wants to put next: another may want less meanwhile, and pass it.
    wishes: Vec<u16>,
    ending: Ending,
    done: bool,
    said_finish: bool,
}

fn begin(plan: &Plan) -> fn(Greeting) -> ProducerSession {
    match (plan.resumes, plan.name.is_empty()) {
        (true, _) => ProducerSession::resumable,
        (false, true) => ProducerSession::nameless,
        (false, false) => ProducerSession::new,
    }
}

impl Producer {
    /// One that has not begun.
    pub fn new(plan: Plan) -> Producer {
        Producer {
            plan,
            next: 0,
            checksums: vec![checksum::START],
            wired: None,
            callers: Vec::new(),
            wishes: Vec::new(),
            ending: Ending::Putting,
            done: false,
            said_finish: false,
        }
    }

    fn connect(&mut self, stage: &mut Stage) {
        let mut wired = Wired::connect(stage, self.plan.weather, Role::Producer, &self.plan.name);
        if self.plan.name.is_empty() {
            // What an earlier connection has put is nobody's any more.
            (self.plan.tag, self.next) = (self.plan.tag + 1, 0);
            self.checksums.truncate(1);
        }
        stage.oracle.connects(wired.client, self.plan.tag);
        self.callers = (0..self.plan.threads).map(|_| Caller::Idle { until: stage.now }).collect();
        self.wishes = (0..self.plan.threads).map(|_| stage.random.any() as u16).collect();
        self.ending = Ending::Putting;
        wired.write(stage, begin(&self.plan));
        self.wired = Some(wired);
    }

    fn connect_again(&mut self, stage: &mut Stage) {
        let Some(lost) = self.wired.take() else { return };
        let mut wired = lost.connect_again(stage, self.plan.weather, Role::Producer, &self.plan.name);
        stage.oracle.connects(wired.client, self.plan.tag);
        wired.write(stage, begin(&self.plan));
        self.wired = Some(wired);
    }

    /// One thread goes on as far as it can.
    fn call(&mut self, index: usize, stage: &mut Stage) {
        let Plan { items, tag, impatient_percent, pause_us, .. } = self.plan;
        let Some(wired) = &mut self.wired else { return };
        let now = wired.now(stage);
        for _ in 0..64 {
            match self.callers[index] {
                Caller::Idle { until } if until > stage.now || self.next == items => return,
                Caller::Idle { .. } => {}
                Caller::Waiting { deadline, withdrawal } => {
                    let Some(session) = &mut wired.session else { return };
                    if self.next == items {
                        // Another thread has put the last.
                        session.withdraw();
                        self.callers[index] = Caller::Idle { until: stage.now };
                        return;
                    }
                    if !session.has_wanted() {
                        let over = match withdrawal {
                            Some(number) => session.questions.is_withdrawn(number),
                            None => {
                                session.want();
                                let over = deadline.is_some_and(|deadline| deadline <= stage.now);
                                if over {
                                    session.withdraw();
                                }
                                over
                            }
                        };
                        if over {
                            let until = stage.now + stage.random.micros(pause_us) + Duration::from_micros(50);
                            self.callers[index] = Caller::Idle { until };
                        }
                        return;
                    }
                }
            }
            let (lengths, n, wish) = (stage.lengths, self.next, self.wishes[index]);
            let put = |session: &mut ProducerSession| {
                let encode = |out: &mut Vec<u8>| {
                    lengths.write(tag, n, wish, out);
                    Ok(())
                };
                session.put(encode, || now).expect("an item that may be put")
            };
            let Some(session) = &mut wired.session else { return };
            let mut taken = put(session);
            if taken == Put::NoCredit {
                wired.read(stage, begin(&self.plan));
                let Some(session) = wired.session.as_mut().filter(|_| wired.failed.is_none()) else { return };
                if session.has_wanted() {
                    taken = put(session);
                }
            }
            if taken != Put::NoCredit {
                let due = wired.session.as_ref().and_then(|session| session.next_timeout());
                assert!(
                    taken != Put::Gathering || due.is_some_and(|due| due <= now + FLUSH_DELAY),
                    "what gathers will not leave by itself"
                );
                stage.oracle.puts(tag, n);
                let mut item = Vec::new();
                lengths.write(tag, n, wish, &mut item);
                self.checksums.truncate(n as usize + 1);
                self.checksums.push(checksum::add(self.checksums[n as usize], &item));
                self.next += 1;
                self.wishes[index] = stage.random.any() as u16;
                let pause = stage.random.micros(pause_us);
                self.callers[index] = Caller::Idle { until: stage.now + pause };
                if taken == Put::Gathering && stage.random.chance(50) {
                    wired.read(stage, begin(&self.plan));
                }
                continue;
            }
            let Some(session) = &mut wired.session else { return };
            session.want();
            let patience = stage.random.below(100);
            self.callers[index] = if patience >= impatient_percent {
                Caller::Waiting { deadline: None, withdrawal: None }
            } else if patience.is_multiple_of(2) {
                Caller::Waiting { deadline: None, withdrawal: Some(session.withdraw()) }
            } else {
                Caller::Waiting { deadline: Some(stage.now + stage.random.micros((1, 5000))), withdrawal: None }
            };
            return;
        }
    }

    /// Goes on towards its end once all is put.
    fn end(&mut self, stage: &mut Stage) {
        let Some(session) = self.wired.as_mut().and_then(|wired| wired.session.as_mut()) else { return };
        let after_flush = |session: &mut ProducerSession, finishes: bool| {
            if finishes {
                session.finish();
                Ending::Finishing
            } else {
                session.goodbye();
                Ending::Leaving
            }
        };
        match self.ending {
            Ending::Putting if self.next == self.plan.items && self.plan.hasty => {
                session.goodbye();
                self.ending = Ending::Leaving;
            }
            Ending::Putting if self.next == self.plan.items => self.ending = Ending::Flushing(session.flush()),
            Ending::Flushing(put) if session.confirmed() >= put && self.plan.joins => {
                // Each of its threads asks; the last hears it last.
                let questions = (0..self.plan.threads).map(|_| session.join());
                self.ending = questions.last().map_or(Ending::Finishing, Ending::Joining);
            }
            Ending::Flushing(put) if session.confirmed() >= put => self.ending = after_flush(session, self.plan.finishes),
            Ending::Joining(number) if session.questions.is_joined(number) => {
                stage.oracle.hears_joined(self.plan.tag, session.confirmed().0);
                self.ending = after_flush(session, self.plan.finishes);
            }
            Ending::Finishing if session.is_finished() => {
                session.goodbye();
                self.ending = Ending::Leaving;
            }
            _ => return,
        }
        self.said_finish |= self.ending == Ending::Finishing;
    }
}

impl Player for Producer {
    fn step(&mut self, stage: &mut Stage) -> Wake {
        if self.done {
            return None;
        }
        if self.wired.is_none() {
            self.connect(stage);
        }
        let Some(wired) = &mut self.wired else { return None };
        let greeted = wired.session.is_some();
        let waiting = !wired.is_greeted
            || self.ending != Ending::Putting
            || self.callers.iter().any(|caller| matches!(caller, Caller::Waiting { .. }));
        let due = wired.session.as_ref().and_then(|session| session.next_timeout()).is_some_and(|due| due <= wired.now(stage));
        if waiting || due || stage.random.chance(40) {
            wired.read(stage, begin(&self.plan));
        }
        let now = wired.now(stage);
        if let Some(session) = &mut wired.session {
            if !greeted {
                self.next = session.confirmed().0;
                let known = self.checksums.get(self.next as usize).copied();
                assert!(known.is_some(), "producer {} is told that {} of its items are accepted", self.plan.tag, self.next);
                assert!(
                    wired.checksum.is_none() || wired.checksum == known,
                    "producer {}: what is accepted is not what it has put",
                    self.plan.tag
                );
            }
            session.handle_timeout(now);
            stage.oracle.hears_confirmed(self.plan.tag, session.confirmed().0);
            for index in 0..self.callers.len() {
                if self.ending == Ending::Putting {
                    self.call(index, stage);
                }
            }
            (0..4).for_each(|_| self.end(stage));
        }
        let wired = self.wired.as_mut()?;
        // The background thread writes what a caller does not, a little later.
        let lazy = !waiting && stage.random.chance(10) && !wired.is_written();
        if !lazy {
            wired.write(stage, begin(&self.plan));
        }
        if wired.failed.is_some() {
            let over = wired.judge(stage);
            if let Some(session) = wired.session.as_ref().filter(|_| over) {
                stage.oracle.hears_the_end(self.plan.tag, session.confirmed().0);
            }
            let unfinished = self.ending != Ending::Leaving;
            let lost = matches!(wired.failed, Some(Error::Gone(_)));
            if self.plan.resumes && lost && unfinished {
                self.connect_again(stage);
                return Some(stage.now + stage.random.micros((10, 20_000)));
            }
            self.crash();
            self.done |= over || !unfinished;
            return if self.done { None } else { Some(stage.now + stage.random.micros((10, 20_000))) };
        }
        if self.ending == Ending::Leaving && wired.is_written() {
            self.wired = None;
            self.done = true;
            return None;
        }
        let putting = self.ending == Ending::Putting && wired.session.is_some();
        let idle = self.callers.iter().filter_map(|caller| match caller {
            Caller::Idle { until } => Some(*until).filter(|_| self.next < self.plan.items),
            Caller::Waiting { deadline, .. } => *deadline,
        });
        let wakes = idle.filter(|_| putting).chain(lazy.then(|| stage.now + Duration::from_micros(500)));
        let timeout = wired.session.as_ref().and_then(|session| session.next_timeout()).map(|due| wired.on_stage(due));
        // Who begins to wait looks at what has come before, of which no news comes again.
        let looks = (!waiting && self.ending != Ending::Putting).then_some(stage.now);
        wakes.chain(timeout).chain(looks).min()
    }

    fn client(&self) -> Option<ClientId> {
        self.wired.as_ref().map(|wired| wired.client)
    }

    fn crash(&mut self) {
        self.wired = None;
        // Without a name it cannot be told whether the Finish was heard: it would count twice.
        self.done |= self.said_finish && self.plan.name.is_empty();
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn name(&self) -> String {
        format!("producer {}", self.plan.tag)
    }
}
