//! The journal (`coordinator/src/journal/mod.rs`) without its thread and its disk: what waits becomes one commit, which counts from one
//! instant on; questions are answered between commits, before entries that wait; and all answers come back in one line, some time later.

use std::collections::VecDeque;
use std::time::Duration;

use coordinator::journal::model::Model;
use coordinator::queue::{DeadRange, Entry, Input, Load};

use crate::random::Random;

/// How quick a journal is, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For a commit.
    pub commit_us: (u64, u64),
    /// For a look at what is in it.
    pub load_us: (u64, u64),
    /// Until the loop hears of either.
    pub report_us: (u64, u64),
}

#[derive(Debug)]
enum Work {
    Commit(usize),
    Look(Look),
}

#[derive(Debug)]
enum Look {
    Load(Load),
    Dead(DeadRange),
}

/// The journal and what it has to do.
#[derive(Debug)]
pub struct Journal {
    pace: Pace,
    /// What is there for good.
    pub model: Model,
    entries: VecDeque<Entry>,
    looks: VecDeque<Look>,
    /// What it is at, and when that is done.
    work: Option<(Duration, Work)>,
    answers: VecDeque<(Duration, Input)>,
}

impl Journal {
    /// An empty one.
    pub fn new(pace: Pace) -> Journal {
        let model = Model::default();
        Journal { pace, model, entries: VecDeque::new(), looks: VecDeque::new(), work: None, answers: VecDeque::new() }
    }

    /// Takes an entry; [`Journal::go_on`] begins with it.
    pub fn keep(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Takes a question.
    pub fn load(&mut self, load: Load) {
        self.looks.push_back(Look::Load(load));
    }

    /// Takes a question about dead letters.
    pub fn load_dead(&mut self, range: DeadRange) {
        self.looks.push_back(Look::Dead(range));
    }

    /// Does what is done by now, and begins with what waits.
    pub fn go_on(&mut self, now: Duration, random: &mut Random) {
        if let Some((_, work)) = self.work.take_if(|(due, _)| *due <= now) {
            let answer = match work {
                Work::Look(Look::Load(load)) => Input::Loaded { batches: self.model.load(load) },
                Work::Look(Look::Dead(range)) => Input::DeadLoaded(self.model.load_dead(range)),
                Work::Commit(entries) => {
                    self.entries.drain(..entries).for_each(|entry| self.model.keep(&entry));
                    Input::Journaled { entries }
                }
            };
            let last = self.answers.back().map_or(Duration::ZERO, |(at, _)| *at);
            self.answers.push_back(((now + random.micros(self.pace.report_us)).max(last), answer));
        }
        if self.work.is_some() {
            return;
        }
        if let Some(look) = self.looks.pop_front() {
            self.work = Some((now + random.micros(self.pace.load_us), Work::Look(look)));
        } else if !self.entries.is_empty() {
            let all = self.entries.len() as u64;
            let entries = if random.chance(70) { all } else { random.between(1, all) };
            self.work = Some((now + random.micros(self.pace.commit_us), Work::Commit(entries as usize)));
        }
    }

    /// The next answer that has come back.
    pub fn collect(&mut self, now: Duration) -> Option<Input> {
        self.answers.pop_front_if(|(at, _)| *at <= now).map(|(_, answer)| answer)
    }

    /// It is quick from now on.
    pub fn mend(&mut self) {
        self.pace.commit_us.0 = 1;
        self.pace.commit_us.1 = self.pace.commit_us.1.min(500);
    }

    /// When there is something to do for it or to be heard from it.
    pub fn next(&self) -> Option<Duration> {
        let work = self.work.as_ref().map(|(due, _)| *due);
        work.into_iter().chain(self.answers.front().map(|(at, _)| *at)).min()
    }

    /// Its process dies: what is not committed is lost. How many entries are committed and were not reported.
    pub fn dies(&mut self, now: Duration, random: &mut Random) -> usize {
        self.go_on(now, random);
        self.entries.clear();
        self.looks.clear();
        self.work = None;
        let kept = |(_, answer)| if let Input::Journaled { entries } = answer { entries } else { 0 };
        self.answers.drain(..).map(kept).sum()
    }
}
