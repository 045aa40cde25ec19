//! A process that gets: an application of one or several threads around the real session.

use std::time::Duration;

use common::Error;
use common::limits::{FLUSH_DELAY, PREFETCH_GIVE_BACK_AFTER};
use common::message::{Outcome, Role};
use common::simulation::{ConsumerSession, Greeting, Held, Session, Settled};
use coordinator::queue::ClientId;

use super::item::result_byte;
use super::link::Weather;
use super::network::Stage;
use super::player::{Player, Wake};
use super::wired::Wired;

/// What a consumer is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many items it asks for ahead, if that is fixed.
    pub prefetch: Option<u32>,
    /// Threads that share it.
    pub threads: usize,
    /// Microseconds that an item takes.
    pub work_us: (u64, u64),
    /// So many of a thousand items take tens of milliseconds, however quick the others are.
    pub slow_permille: u64,
    /// Items that a thread holds at once, at most.
    pub in_hand_max: usize,
    /// So many of a hundred calls have no or little patience.
    pub impatient_percent: u64,
    /// So many of a hundred items are not simply acknowledged.
    pub fails_percent: u64,
    /// So often, of a hundred times, it asks for more time before it is done with an item.
    pub extends_percent: u64,
    /// So many of a hundred done items have a result.
    pub results_percent: u64,
    /// So many of a thousand items are its last: it stops by itself, and comes again.
    pub stops_permille: u64,
    /// It goes on when its connection is lost; else it begins anew, as after a crash.
    pub resumes: bool,
    /// It is the only one.
    pub alone: bool,
    /// Its connection's.
    pub weather: Weather,
}

/// A thread of its application.
#[derive(Debug)]
struct Caller {
    doing: Doing,
    in_hand: Vec<Held>,
}

#[derive(Debug)]
enum Doing {
    Idle { until: Duration },
    Waiting { from: Duration, deadline: Option<Duration>, withdrawal: Option<u64> },
    Stopped,
}

impl Caller {
    fn waits_for_good(&self) -> bool {
        matches!(self.doing, Doing::Waiting { deadline: None, withdrawal: None, .. })
    }
}

/// The process.
#[derive(Debug)]
pub struct Consumer {
    number: u64,
    plan: Plan,
    wired: Option<Wired<ConsumerSession>>,
    callers: Vec<Caller>,
    leaving: bool,
    done: bool,
    last: Option<(u32, u64)>,
    /// Since when items lie at hand that nobody takes, or since the last look; and how many looks found them since.
    lying: Option<(Duration, u32)>,
}

impl Consumer {
    /// One that has not begun.
    pub fn new(number: u64, plan: Plan) -> Consumer {
        Consumer { number, plan, wired: None, callers: Vec::new(), leaving: false, done: false, last: None, lying: None }
    }

    fn connect(&mut self, stage: &mut Stage) {
        let mut wired = Wired::connect(stage, self.plan.weather, Role::Consumer, "");
        self.serve(wired.client, stage);
        self.callers = (0..self.plan.threads).map(|_| Caller { doing: Doing::Idle { until: stage.now }, in_hand: Vec::new() }).collect();
        self.leaving = false;
        wired.write(stage, begin(self.plan.prefetch));
        self.wired = Some(wired);
    }

    fn connect_again(&mut self, stage: &mut Stage) {
        let Some(lost) = self.wired.take() else { return };
        let mut wired = lost.connect_again(stage, self.plan.weather, Role::Consumer, "");
        self.serve(wired.client, stage);
        wired.write(stage, begin(self.plan.prefetch));
        self.wired = Some(wired);
    }

    fn serve(&mut self, client: ClientId, stage: &mut Stage) {
        // With a number of its own to ask ahead, it never has more open than that, or than its threads wait for.
        let demand_max = self.plan.prefetch.map(|items| items.max(self.plan.threads as u32));
        stage.oracle.serves(client, demand_max);
        self.lying = None;
    }

    /// One thread goes on as far as it can.
    fn call(&mut self, index: usize, stage: &mut Stage) {
        let begin = begin(self.plan.prefetch);
        for _ in 0..64 {
            let Some(wired) = self.wired.as_mut().filter(|wired| wired.failed.is_none()) else { return };
            let now = wired.now(stage);
            let heard_stop = wired.heard_stop;
            let Some(session) = &mut wired.session else { return };
            let others_wait = self.callers.iter().any(|caller| caller.waits_for_good());
            assert!(!heard_stop || !session.has_local(), "items are at hand behind Stop");
            let caller = &mut self.callers[index];
            match caller.doing {
                Doing::Stopped => return,
                Doing::Idle { until } if until > stage.now && !(until == Duration::MAX && session.is_stopped()) => return,
                Doing::Idle { .. } => {
                    if caller.in_hand.len() >= self.plan.in_hand_max || (!caller.in_hand.is_empty() && stage.random.chance(70)) {
                        self.settle(index, stage);
                        continue;
                    }
                    if !session.has_local() && !session.is_stopped() {
                        caller.doing = ask(&self.plan, !caller.in_hand.is_empty(), session, now, stage);
                        wired.write(stage, &begin);
                        wired.read(stage, &begin);
                        continue;
                    }
                }
                Doing::Waiting { from, deadline, withdrawal } => {
                    let answered = withdrawal.is_some_and(|number| session.questions.is_withdrawn(number));
                    let late = deadline.is_some_and(|deadline| deadline <= stage.now);
                    if !(session.has_local() || session.is_stopped() || answered || late) {
                        if withdrawal.is_none() {
                            session.keep_demanding();
                        }
                        return;
                    }
                    session.end_wait(now, now - from);
                    if late && !session.has_local() && !session.is_stopped() {
                        session.withdraw();
                    }
                    caller.doing = Doing::Idle { until: stage.now };
                    if !session.has_local() && !session.is_stopped() {
                        // It may never ask again: who still waits must not depend on that.
                        let rests = others_wait && caller.in_hand.is_empty() && stage.random.chance(20);
                        let until = if rests { Duration::MAX } else { stage.now + stage.random.micros((20, 3000)) };
                        caller.doing = Doing::Idle { until };
                        return;
                    }
                }
            }
            self.take(index, stage);
        }
    }

    /// What lies behind a long item goes back in time, unless it is kept by wish: other consumers may be idle.
    fn check_nothing_lies(&mut self, stage: &Stage) {
        let Some((wired, session)) = self.wired.as_ref().and_then(|wired| Some((wired, wired.session.as_ref()?))) else { return };
        let waiting = self.callers.iter().any(|caller| matches!(caller.doing, Doing::Waiting { .. }));
        if waiting || !session.has_local() || self.plan.prefetch.is_some_and(|items| items > 0) {
            self.lying = None;
            return;
        }
        let soon = wired.now(stage) + PREFETCH_GIVE_BACK_AFTER;
        assert!(session.next_timeout().is_some_and(|due| due <= soon), "nobody will look after the items at hand: {session:?}");
        let (since, looks) = self.lying.get_or_insert((stage.now, 0));
        if stage.now >= *since + PREFETCH_GIVE_BACK_AFTER {
            (*since, *looks) = (stage.now, *looks + 1);
            assert!(*looks < 3, "items lie at hand, and are not given back: {session:?}");
        }
    }

    /// Takes the item at hand, or learns that there will be none.
    fn take(&mut self, index: usize, stage: &mut Stage) {
        let Some(wired) = &mut self.wired else { return };
        let now = wired.now(stage);
        let Some(session) = &mut wired.session else { return };
        let caller = &mut self.callers[index];
        if session.next_quick().is_none() && session.has_local() {
            session.look_ahead(now);
        }
        if let Some(next) = session.next_quick() {
            let (held, whose) = (next.held, stage.oracle.takes(next.batch.item(next.index)));
            session.take_quick();
            caller.in_hand.push(held);
            self.lying = None;
            let in_order = stage.faultless && self.plan.alone && self.plan.threads == 1;
            if in_order && let Some(last) = self.last.filter(|last| last.0 == whose.0) {
                assert!(last.1 < whose.1, "item {} of producer {} comes after item {}", whose.1, whose.0, last.1);
            }
            self.last = Some(whose);
            let is_slow = stage.random.below(1000) < self.plan.slow_permille;
            let work = stage.random.micros(if is_slow { (6_000, 40_000) } else { self.plan.work_us });
            caller.doing = Doing::Idle { until: stage.now + work };
            wired.write(stage, begin(self.plan.prefetch));
        } else if session.is_stopped() {
            if caller.in_hand.is_empty() {
                caller.doing = Doing::Stopped;
            } else {
                self.settle(index, stage);
            }
        }
    }

    /// Settles one of the items in hand, in any order.
    fn settle(&mut self, index: usize, stage: &mut Stage) {
        let Some(wired) = &mut self.wired else { return };
        let now = wired.now(stage);
        let Some(session) = &mut wired.session else { return };
        let in_hand = &mut self.callers[index].in_hand;
        let held = in_hand.remove(stage.random.below(in_hand.len() as u64) as usize);
        if stage.random.chance(self.plan.extends_percent) {
            let by = stage.random.micros((0, 50_000));
            let asked = session.extend(held, by, now).is_ok_and(|asked| asked.is_some());
            stage.count("extensions", u64::from(asked));
            if asked {
                in_hand.push(held);
                self.callers[index].doing = Doing::Idle { until: stage.now + stage.random.micros(self.plan.work_us) };
                return wired.write(stage, begin(self.plan.prefetch));
            }
        }
        // That of a connection that was lost is without effect, and that of an item that was taken back an error.
        let expired = session.check_lease(held).is_err();
        let counts = session.is_held(held) && !expired;
        stage.count("refused acknowledgements", u64::from(expired));
        let mut gathers = false;
        if stage.random.chance(self.plan.fails_percent) {
            let cause = String::from("it would not work");
            let outcome = match stage.random.below(6) {
                0 => Outcome::Unstarted,
                1 => Outcome::Released,
                2 | 3 => Outcome::Failed { cause },
                4 => Outcome::Rejected { cause },
                _ => Outcome::RetryAfter { delay_ms: stage.random.below(30) },
            };
            assert_eq!(session.give_back(held, outcome).is_err(), expired);
        } else if stage.random.chance(self.plan.results_percent) {
            let result = vec![result_byte(held.id.0); stage.random.below(if stage.faultless { 9 } else { 20 }) as usize];
            // A result over the limit fails its item, which is one more way.
            if let Ok(settled) = session.ack_with(held, &result, || now) {
                gathers = settled != Settled::Ready;
                if counts {
                    stage.oracle.settles(wired.client, held.id.0, Some(result.len()));
                }
            }
        } else {
            let settled = session.ack(held, || now);
            assert_eq!(settled.is_err(), expired);
            gathers = settled.is_ok_and(|settled| settled != Settled::Ready);
            if counts {
                stage.oracle.settles(wired.client, held.id.0, None);
            }
        }
        let soon = session.next_timeout().is_some_and(|due| due <= now + FLUSH_DELAY);
        assert!(soon || !gathers || !counts, "what is settled will not leave by itself: {session:?}");
        if stage.random.below(1000) < self.plan.stops_permille {
            session.stop(now);
            assert!(!session.has_local(), "items stay at hand though nobody will take them");
        }
        if stage.random.chance(70) {
            wired.write(stage, begin(self.plan.prefetch));
        }
    }
}

fn begin(prefetch: Option<u32>) -> impl Fn(Greeting) -> ConsumerSession {
    move |greeting| ConsumerSession::new(greeting, prefetch)
}

/// A thread finds nothing at hand: asks, with what patience it has. One that still holds an item has little: others may wait for that.
fn ask(plan: &Plan, holds: bool, session: &mut ConsumerSession, now: Duration, stage: &mut Stage) -> Doing {
    let patience = stage.random.below(100);
    let withdrawal = (patience < plan.impatient_percent && patience.is_multiple_of(2)).then(|| {
        session.refill(now, true);
        session.withdraw()
    });
    if withdrawal.is_none() {
        session.refill_to_wait(now);
    }
    session.begin_wait();
    let impatient = holds || patience < plan.impatient_percent;
    Doing::Waiting {
        from: now,
        deadline: (impatient && withdrawal.is_none()).then(|| stage.now + stage.random.micros((1, 5000))),
        withdrawal,
    }
}

impl Player for Consumer {
    fn step(&mut self, stage: &mut Stage) -> Wake {
        if self.done {
            return None;
        }
        if self.wired.is_none() {
            self.connect(stage);
        }
        let begin = begin(self.plan.prefetch);
        let wired = self.wired.as_mut()?;
        let waiting = self.leaving || !wired.is_greeted || self.callers.iter().any(|caller| matches!(caller.doing, Doing::Waiting { .. }));
        let due = wired.session.as_ref().and_then(|session| session.next_timeout()).is_some_and(|due| due <= wired.now(stage));
        if waiting || due || stage.random.chance(40) {
            wired.read(stage, &begin);
        }
        let now = wired.now(stage);
        if let Some(session) = &mut wired.session {
            session.handle_timeout(now);
        }
        self.check_nothing_lies(stage);
        (0..self.callers.len()).for_each(|index| self.call(index, stage));
        let all_stopped = self.callers.iter().all(|caller| matches!(caller.doing, Doing::Stopped));
        let wired = self.wired.as_mut()?;
        // Nobody is there to hear a goodbye before the greeting has come.
        let leaves = all_stopped && !self.leaving && wired.is_greeted;
        if let Some(session) = wired.session.as_mut().filter(|_| leaves) {
            session.goodbye();
            self.leaving = true;
        }
        let lazy = !waiting && stage.random.chance(10) && !wired.is_written();
        if !lazy {
            wired.write(stage, &begin);
        }
        if wired.failed.is_some() || (self.leaving && wired.is_written()) {
            let heard_stop = wired.heard_stop;
            assert!(!self.leaving || wired.session.as_ref().is_some_and(|session| session.is_stopped()), "left without a reason");
            if wired.failed.is_none() && stage.network.link(wired.client).is_some_and(|link| link.borrow().is_whole()) {
                stage.oracle.leaves(wired.client);
            }
            if wired.failed.is_some() && !self.leaving {
                wired.judge(stage);
                if self.plan.resumes && matches!(wired.failed, Some(Error::Gone(_))) {
                    self.connect_again(stage);
                    return Some(stage.now + stage.random.micros((10, 20_000)));
                }
            }
            self.wired = None;
            self.done = heard_stop && self.leaving;
            return if self.done { None } else { Some(stage.now + stage.random.micros((10, 20_000))) };
        }
        let greeted = wired.session.is_some();
        let stopped = wired.session.as_ref().is_some_and(|session| session.is_stopped());
        let callers = self.callers.iter().filter_map(|caller| match caller.doing {
            Doing::Idle { until: Duration::MAX } => Some(stage.now).filter(|_| stopped),
            Doing::Idle { until } => Some(until).filter(|_| greeted),
            Doing::Waiting { deadline, .. } => deadline,
            Doing::Stopped => None,
        });
        let wakes = callers.chain(lazy.then(|| stage.now + Duration::from_micros(500)));
        let timeout = wired.session.as_ref().and_then(|session| session.next_timeout()).map(|due| wired.on_stage(due));
        wakes.chain(timeout).min()
    }

    fn client(&self) -> Option<ClientId> {
        self.wired.as_ref().map(|wired| wired.client)
    }

    fn crash(&mut self) {
        self.wired = None;
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn mend(&mut self) {
        (self.plan.fails_percent, self.plan.stops_permille, self.plan.extends_percent) = (0, 0, 0);
    }

    fn name(&self) -> String {
        format!("consumer {}", self.number)
    }
}
