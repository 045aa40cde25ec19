//! Who takes part: the machines that were heard of lately, how far each is with its producers, and the producers that have a name here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::message::{MachineRecord, ProducerRecord, Reached};

/// What is known of all machines together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Machines that are there, this one among them.
    pub machines: u64,
    /// Producers that they expect.
    pub producers_expected: u64,
    /// Producers that have finished.
    pub producers_finished: u64,
    /// Messages in the stream, held ones among them.
    pub messages: u64,
    /// Items of these messages.
    pub items: u64,
    /// Bytes of these messages.
    pub bytes: u64,
    /// The number of the first of them; if there are none, that of the next to come.
    pub first_sequence: u64,
    /// The number of the last message that was ever stored: what has a higher one, these figures do not count yet.
    pub last_sequence: u64,
    /// Dead letters that are kept, about two looks ago at most; all of them once `is_done`.
    pub dead: u64,
    /// There were producers, all of them have finished or are lost, and all that they have put is settled.
    pub is_done: bool,
}

/// A machine that was not heard of for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its host and process.
    pub machine: String,
    /// Producers of it that had not finished: what they had not put is lost.
    pub producers_unfinished: u64,
}

#[derive(Debug)]
struct Machine {
    record: MachineRecord,
    heard: Duration,
}

/// The machines, by id.
#[derive(Debug)]
pub(super) struct Machines {
    ours: String,
    own: MachineRecord,
    others: BTreeMap<String, Machine>,
    lost_after: Duration,
    had_producers: bool,
    /// Raised with each change that the end of a run depends on.
    changes: u64,
}

impl Machines {
    pub(super) fn new(ours: String, name: String, lost_after: Duration) -> Machines {
        let own = MachineRecord { name, ..MachineRecord::default() };
        Machines { ours, own, others: BTreeMap::new(), lost_after, had_producers: false, changes: 0 }
    }

    pub(super) fn ours(&self) -> &str {
        &self.ours
    }

    /// This machine's producers.
    pub(super) fn announce(&mut self, producers_expected: u64, producers_finished: u64) {
        (self.own.producers_expected, self.own.producers_finished) = (producers_expected, producers_finished);
        self.had_producers |= producers_expected > 0;
        self.changes += 1;
    }

    /// What this machine says of itself now.
    pub(super) fn beat(&mut self, leaving: bool) -> MachineRecord {
        self.own.beat += 1;
        MachineRecord { leaving, ..self.own.clone() }
    }

    /// A record of a machine has come: said by itself just now, or found. One that comes twice is no sign of life.
    pub(super) fn heard(&mut self, id: &str, record: MachineRecord, is_said: bool, now: Duration) {
        if id == self.ours {
            return;
        }
        let before = self.others.get(id).map(|machine| &machine.record);
        if before.is_some_and(|before| before.beat >= record.beat) {
            return;
        }
        let matters = |record: &MachineRecord| (record.producers_expected, record.producers_finished);
        if record.leaving || before.map(matters) != Some(matters(&record)) {
            self.changes += 1;
        }
        // What is found may be of a run long ago.
        self.had_producers |= is_said && record.producers_expected > 0;
        if record.leaving {
            self.others.remove(id);
        } else {
            self.others.insert(id.into(), Machine { record, heard: now });
        }
    }

    /// Those that are registered now, after it may have been missed who left.
    pub(super) fn registered(&mut self, ids: &[&str]) {
        let before = self.others.len();
        self.others.retain(|id, _| ids.contains(&id.as_str()));
        self.changes += u64::from(self.others.len() < before);
    }

    /// We were out of touch ourselves: nobody is to blame for not having been heard.
    pub(super) fn excuse(&mut self, now: Duration) {
        self.others.values_mut().for_each(|machine| machine.heard = now);
    }

    /// Forgets those that were not heard of for too long, and says who they were.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(String, Lost)> {
        let lost_after = self.lost_after;
        let gone: Vec<_> = self.others.extract_if(.., |_, machine| machine.heard + lost_after <= now).collect();
        self.changes += gone.len() as u64;
        let lost = |record: MachineRecord| {
            let producers_unfinished = record.producers_expected.saturating_sub(record.producers_finished);
            Lost { machine: record.name, producers_unfinished }
        };
        gone.into_iter().map(|(id, machine)| (id, lost(machine.record))).collect()
    }

    /// When the next is to be given up.
    pub(super) fn expire_at(&self) -> Option<Duration> {
        self.others.values().map(|machine| machine.heard + self.lost_after).min()
    }

    pub(super) fn count(&self) -> u64 {
        1 + self.others.len() as u64
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// True if there were producers, and nobody is left who has not finished.
    pub(super) fn have_finished(&self) -> bool {
        self.had_producers && self.all().all(|record| record.producers_finished >= record.producers_expected)
    }

    /// Without what the stream holds.
    pub(super) fn view(&self) -> View {
        View {
            machines: self.count(),
            producers_expected: self.all().map(|record| record.producers_expected).sum(),
            producers_finished: self.all().map(|record| record.producers_finished).sum(),
            ..View::default()
        }
    }

    fn all(&self) -> impl Iterator<Item = &MachineRecord> {
        std::iter::once(&self.own).chain(self.others.values().map(|machine| &machine.record))
    }
}

/// What is to be done about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Write this record, if the one before has this number (0: there is none).
    Write { name: Arc<str>, claim: u64, record: ProducerRecord, after: u64 },
    /// It is ours, and has come so far.
    Claimed { name: Arc<str>, record: ProducerRecord },
    /// Its end is kept.
    Finished { name: Arc<str> },
    /// Another has come for it: look whose it is.
    Check { name: Arc<str>, claim: u64 },
}

#[derive(Debug)]
struct Name {
    /// Which claim this is: what is answered to an earlier one counts no more.
    claim: u64,
    record: ProducerRecord,
    /// The number of its record at the servers.
    revision: u64,
    is_claimed: bool,
    /// Another has come while it was being claimed.
    is_contested: bool,
    /// Its end is to be told once it is kept.
    is_ending: bool,
    /// What is kept there, and what is on its way.
    kept: Option<ProducerRecord>,
    writing: Option<ProducerRecord>,
}

/// The names that are ours.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeMap<Arc<str>, Name>,
    /// Those that were ours, and have not been claimed since; and whether somebody waits for the end.
    lost: BTreeMap<Arc<str>, bool>,
    claims: u64,
}

impl Names {
    /// What is known of a name was looked up: its record and that one's number, and the last that lies in the stream.
    pub(super) fn found(
        &mut self,
        name: &Arc<str>,
        machine: &str,
        kept: Option<(ProducerRecord, u64)>,
        last: Option<Reached>,
    ) -> Option<Claim> {
        let (mut record, revision) = kept.unwrap_or_default();
        if let Some(last) = last.filter(|last| last.position > record.position) {
            // It was put, but its machine died before it could say so here.
            (record.position, record.checksum) = (last.position, last.checksum);
        }
        record.machine = machine.into();
        self.lost.remove(name);
        let is_ending = self.names.get(name).is_some_and(|before| before.is_ending);
        record.finished |= is_ending;
        self.claims += 1;
        let claim = self.claims;
        let known = Name { claim, record, revision, is_claimed: false, is_contested: false, is_ending, kept: None, writing: None };
        self.names.insert(Arc::clone(name), known);
        self.write(name)
    }

    /// More of its items are stored.
    pub(super) fn reached(&mut self, name: &Arc<str>, reached: Reached) -> Option<Claim> {
        let known = self.names.get_mut(name).filter(|known| reached.position > known.record.position)?;
        (known.record.position, known.record.checksum) = (reached.position, reached.checksum);
        self.write(name)
    }

    /// It puts no more. Of a name that is not ours there is nothing to keep.
    pub(super) fn finish(&mut self, name: &Arc<str>) -> Option<Claim> {
        let Some(known) = self.names.get_mut(name) else { return Some(Claim::Finished { name: Arc::clone(name) }) };
        (known.record.finished, known.is_ending) = (true, true);
        self.write(name)
    }

    /// A record is written, and has this number.
    pub(super) fn written(&mut self, name: &Arc<str>, claim: u64, revision: u64) -> Vec<Claim> {
        let Some(known) = self.names.get_mut(name).filter(|known| known.claim == claim) else { return Vec::new() };
        let Some(written) = known.writing.take() else { return Vec::new() };
        known.revision = revision;
        known.kept = Some(written.clone());
        let is_first = !std::mem::replace(&mut known.is_claimed, true);
        let said = is_first.then(|| Claim::Claimed { name: Arc::clone(name), record: written });
        let check = std::mem::take(&mut known.is_contested).then(|| Claim::Check { name: Arc::clone(name), claim });
        said.into_iter().chain(check).chain(self.write(name)).collect()
    }

    /// The servers say that what was to be written is not the next: it may have been written before, or another has taken the name. Gives what
    /// is to be done, or none if the name is another's now.
    pub(super) fn verify(&mut self, name: &Arc<str>, claim: u64, machine: &str, kept: Option<(ProducerRecord, u64)>) -> Option<Vec<Claim>> {
        let Some(known) = self.names.get_mut(name).filter(|known| known.claim == claim) else { return Some(Vec::new()) };
        match kept {
            Some((record, revision)) if known.writing.as_ref() == Some(&record) => Some(self.written(name, claim, revision)),
            Some((record, _)) if record.machine != machine && known.is_claimed => {
                self.lose(name);
                None
            }
            // Two came for the name at once: the one that asks again is the later, and goes on behind what the other has done.
            other => {
                let (other, revision) = other.unwrap_or_default();
                if other.position > known.record.position {
                    (known.record.position, known.record.checksum) = (other.position, other.checksum);
                }
                known.record.finished |= other.finished;
                (known.revision, known.writing, known.kept) = (revision, None, None);
                Some(self.write(name).into_iter().collect())
            }
        }
    }

    /// Another machine has said that it wants the name. Whether it gets it, the servers decide.
    pub(super) fn contested(&mut self, name: &str) -> Option<Claim> {
        let (name, known) = self.names.get_key_value(name)?;
        let (name, claim) = (Arc::clone(name), known.claim);
        if known.is_claimed {
            return Some(Claim::Check { name, claim });
        }
        self.names.get_mut(&name)?.is_contested = true;
        None
    }

    /// It was looked whose a name is. True if it was ours, and is not any more.
    pub(super) fn is_lost(&mut self, name: &Arc<str>, claim: u64, machine: &str, kept: Option<(ProducerRecord, u64)>) -> bool {
        let is_anothers = kept.is_some_and(|(record, _)| record.machine != machine);
        let was_ours = self.names.get(name).is_some_and(|known| known.claim == claim && known.is_claimed);
        if is_anothers && was_ours {
            self.lose(name);
        }
        is_anothers && was_ours
    }

    /// True if a name was ours, and is another's now as far as is known.
    pub(super) fn has_lost(&self, name: &str) -> bool {
        self.lost.contains_key(name)
    }

    /// What is to be done about a name once it is known to be lost: whoever waits for its end waits no more.
    pub(super) fn end_lost(&mut self, name: &Arc<str>) -> Option<Claim> {
        let is_ending = self.lost.get_mut(name).is_some_and(std::mem::take);
        is_ending.then(|| Claim::Finished { name: Arc::clone(name) })
    }

    fn lose(&mut self, name: &Arc<str>) {
        let known = self.names.remove(name);
        self.lost.insert(Arc::clone(name), known.is_some_and(|known| known.is_ending));
    }

    /// One record after the other, so that each knows the one before; the last says all.
    fn write(&mut self, name: &Arc<str>) -> Option<Claim> {
        let known = self.names.get_mut(name)?;
        if known.writing.is_some() {
            return None;
        }
        if known.kept.as_ref() == Some(&known.record) {
            return std::mem::take(&mut known.is_ending).then(|| Claim::Finished { name: Arc::clone(name) });
        }
        known.writing = Some(known.record.clone());
        Some(Claim::Write { name: Arc::clone(name), claim: known.claim, record: known.record.clone(), after: known.revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn record(beat: u64, producers_expected: u64, producers_finished: u64) -> MachineRecord {
        MachineRecord { name: "b:1".into(), beat, producers_expected, producers_finished, leaving: false }
    }

    fn machines() -> Machines {
        Machines::new("a".into(), "a:1".into(), 3 * SECOND)
    }

    #[test]
    fn a_run_ends_when_all_producers_everywhere_have_finished_and_not_before_there_was_one() {
        let mut machines = machines();
        assert!(!machines.have_finished());
        machines.heard("b", record(1, 2, 1), true, SECOND);
        assert!(!machines.have_finished());
        let changes = machines.changes();
        machines.heard("b", record(2, 2, 1), true, SECOND);
        assert_eq!(machines.changes(), changes, "nothing has changed");
        machines.heard("b", record(3, 2, 2), true, SECOND);
        assert!(machines.have_finished() && machines.changes() > changes);
        machines.announce(1, 0);
        assert!(!machines.have_finished());
        assert_eq!(machines.view(), View { machines: 2, producers_expected: 3, producers_finished: 2, ..View::default() });
    }

    #[test]
    fn a_machine_that_is_not_heard_of_is_given_up_with_what_its_producers_had_not_put() {
        let mut machines = machines();
        machines.heard("b", record(1, 2, 1), true, SECOND);
        machines.heard("b", record(1, 2, 1), true, 3 * SECOND);
        assert_eq!(machines.expire_at(), Some(4 * SECOND), "the same record again is no sign of life");
        assert_eq!(machines.expire(3 * SECOND), []);
        machines.excuse(2 * SECOND);
        assert_eq!(machines.expire(4 * SECOND), []);
        assert_eq!(machines.expire(5 * SECOND), [("b".into(), Lost { machine: "b:1".into(), producers_unfinished: 1 })]);
        assert!(machines.have_finished(), "nobody waits for it");
        machines.heard("b", record(2, 2, 1), true, 6 * SECOND);
        assert!(!machines.have_finished(), "it was merely out of touch");
    }

    #[test]
    fn a_machine_that_leaves_is_not_waited_for() {
        let mut machines = machines();
        machines.heard("b", record(1, 1, 0), true, SECOND);
        machines.heard("b", MachineRecord { leaving: true, ..record(2, 1, 0) }, true, SECOND);
        assert!(machines.have_finished() && machines.expire_at().is_none());
        machines.heard("c", record(1, 1, 0), true, SECOND);
        machines.registered(&["d"]);
        assert!(machines.have_finished(), "its goodbye was missed");
    }

    #[test]
    fn what_a_machine_says_of_itself_is_newer_each_time_and_no_news_to_itself() {
        let mut machines = machines();
        machines.announce(2, 1);
        let says = |beat, leaving| MachineRecord { name: "a:1".into(), leaving, ..record(beat, 2, 1) };
        assert_eq!((machines.beat(false), machines.beat(true)), (says(1, false), says(2, true)));
        let changes = machines.changes();
        assert_eq!(machines.ours(), "a");
        machines.heard("a", says(9, false), true, SECOND);
        assert_eq!((machines.count(), machines.changes()), (1, changes));
    }

    #[test]
    fn whatever_the_end_of_a_run_depends_on_is_a_change() {
        let mut machines = machines();
        let mut changes = Vec::new();
        let mut step = |step: &dyn Fn(&mut Machines)| {
            step(&mut machines);
            changes.push(machines.changes());
        };
        step(&|machines| machines.announce(1, 0));
        step(&|machines| machines.heard("b", record(1, 1, 0), true, SECOND));
        step(&|machines| machines.heard("b", MachineRecord { leaving: true, ..record(2, 1, 0) }, true, SECOND));
        step(&|machines| ["c", "d", "e"].iter().for_each(|id| machines.heard(id, record(1, 1, 0), true, SECOND)));
        step(&|machines| machines.registered(&["c", "d", "e", "f"]));
        step(&|machines| machines.registered(&["d", "e"]));
        step(&|machines| assert_eq!(machines.expire(9 * SECOND).len(), 2));
        assert_eq!(changes, [1, 2, 3, 6, 6, 7, 9]);
    }

    #[test]
    fn who_expects_no_producer_ends_no_run_and_who_says_so_twice_says_so_still() {
        let mut machines = machines();
        machines.announce(0, 0);
        machines.heard("b", record(1, 0, 0), true, SECOND);
        assert!(!machines.have_finished());
        (0..2).for_each(|_| machines.announce(1, 1));
        assert!(machines.have_finished());
        machines.announce(0, 0);
        assert!(machines.have_finished());
        let mut machines = self::machines();
        (1..=2).for_each(|beat| machines.heard("b", record(beat, 1, 1), true, SECOND));
        assert!(machines.have_finished());
    }

    #[test]
    fn what_is_left_of_a_run_long_ago_does_not_end_one_that_has_not_begun() {
        let mut machines = machines();
        machines.heard("b", record(7, 1, 1), false, SECOND);
        assert!(!machines.have_finished());
        assert_eq!(machines.expire(9 * SECOND).len(), 1);
        assert!(!machines.have_finished());
    }

    fn name() -> Arc<str> {
        "n".into()
    }

    fn producer(position: u64) -> ProducerRecord {
        ProducerRecord { machine: "a".into(), position, checksum: position, finished: false }
    }

    fn reached(position: u64) -> Reached {
        Reached { position, checksum: position }
    }

    fn write(position: u64, after: u64) -> Claim {
        Claim::Write { name: name(), claim: 1, record: producer(position), after }
    }

    fn claimed() -> Names {
        let mut names = Names::default();
        assert_eq!(names.found(&name(), "a", None, None), Some(write(0, 0)));
        assert_eq!(names.written(&name(), 1, 1), [Claim::Claimed { name: name(), record: producer(0) }]);
        names
    }

    #[test]
    fn a_name_goes_on_behind_what_is_kept_or_behind_what_lies_in_the_stream() {
        for (last, position) in [(None, 5), (Some(reached(3)), 5), (Some(reached(9)), 9)] {
            let mut names = Names::default();
            let kept = ProducerRecord { machine: "b".into(), ..producer(5) };
            assert_eq!(names.found(&name(), "a", Some((kept, 4)), last), Some(write(position, 4)));
            assert_eq!(names.written(&name(), 1, 6), [Claim::Claimed { name: name(), record: producer(position) }]);
        }
    }

    #[test]
    fn how_far_a_name_has_come_is_written_one_at_a_time_the_last_standing_for_all() {
        let mut names = claimed();
        assert_eq!(names.reached(&name(), reached(3)), Some(write(3, 1)));
        assert_eq!((names.reached(&name(), reached(5)), names.reached(&name(), reached(7))), (None, None));
        assert_eq!(names.written(&name(), 1, 2), [write(7, 2)]);
        assert_eq!(names.written(&name(), 1, 3), []);
        assert_eq!(names.reached(&name(), reached(7)), None);
        let end = ProducerRecord { finished: true, ..producer(7) };
        assert_eq!(names.finish(&name()), Some(Claim::Write { name: name(), claim: 1, record: end, after: 3 }));
        assert_eq!(names.written(&name(), 1, 4), [Claim::Finished { name: name() }]);
    }

    #[test]
    fn a_name_that_has_finished_and_says_so_again_is_answered_at_once() {
        let end = ProducerRecord { finished: true, ..producer(7) };
        let mut names = Names::default();
        names.found(&name(), "a", Some((end.clone(), 4)), None);
        assert_eq!(names.finish(&name()), None, "it is not ours yet");
        assert_eq!(names.written(&name(), 1, 5), [Claim::Claimed { name: name(), record: end }, Claim::Finished { name: name() }]);
        assert_eq!(names.finish(&name()), Some(Claim::Finished { name: name() }));
        assert_eq!(names.reached(&name(), reached(9)).map(|_| names.written(&name(), 1, 6)), Some(vec![]), "nobody has asked");
    }

    #[test]
    fn who_waits_for_an_end_is_answered_whoever_has_the_name_by_then() {
        let finished = || Some(Claim::Finished { name: name() });
        assert_eq!(Names::default().finish(&name()), finished());
        let mut names = claimed();
        names.finish(&name());
        let others = ProducerRecord { machine: "b".into(), ..producer(0) };
        assert_eq!(names.verify(&name(), 1, "a", Some((others, 9))), None);
        assert_eq!((names.end_lost(&name()), names.end_lost(&name())), (finished(), None));
        // It comes again to us before its end is kept.
        let mut names = claimed();
        names.finish(&name());
        let end = ProducerRecord { finished: true, ..producer(0) };
        let again = Claim::Write { name: name(), claim: 2, record: end.clone(), after: 1 };
        assert_eq!(names.found(&name(), "a", Some((producer(0), 1)), None), Some(again));
        assert_eq!(names.written(&name(), 2, 2), [Claim::Claimed { name: name(), record: end }, finished().unwrap()]);
    }

    #[test]
    fn an_end_that_is_said_while_a_record_is_on_its_way_is_answered_once_it_is_kept() {
        let mut names = claimed();
        names.reached(&name(), reached(3));
        assert_eq!((names.finish(&name()), names.finish(&name())), (None, None));
        let end = ProducerRecord { finished: true, ..producer(3) };
        assert_eq!(names.written(&name(), 1, 2), [Claim::Write { name: name(), claim: 1, record: end.clone(), after: 2 }]);
        assert_eq!(names.verify(&name(), 1, "a", Some((end, 3))), Some(vec![Claim::Finished { name: name() }]));
    }

    #[test]
    fn a_record_that_was_written_though_the_answer_is_lost_counts_and_anothers_ends_the_claim() {
        let mut names = claimed();
        names.reached(&name(), reached(3));
        assert_eq!(names.verify(&name(), 1, "a", Some((producer(3), 8))), Some(vec![]));
        assert_eq!(names.reached(&name(), reached(4)), Some(write(4, 8)));
        assert_eq!(names.verify(&name(), 1, "a", None), Some(vec![write(4, 0)]), "somebody has deleted it");
        let others = ProducerRecord { machine: "b".into(), ..producer(4) };
        assert_eq!(names.verify(&name(), 1, "a", Some((others, 9))), None);
        assert_eq!(names.reached(&name(), reached(5)), None, "it is not ours any more");
        assert!(names.has_lost("n") && names.end_lost(&name()).is_none());
        names.found(&name(), "a", None, None);
        assert!(!names.has_lost("n"));
    }

    #[test]
    fn a_name_that_another_comes_for_is_anothers_only_if_the_servers_say_so() {
        let others = |revision| Some((ProducerRecord { machine: "b".into(), ..producer(0) }, revision));
        let check = || Claim::Check { name: name(), claim: 1 };
        let mut names = Names::default();
        names.found(&name(), "a", None, None);
        assert_eq!(names.contested("n"), None, "it is not ours yet");
        assert!(!names.is_lost(&name(), 1, "a", others(1)), "nor can it be lost");
        assert_eq!(names.written(&name(), 1, 1), [Claim::Claimed { name: name(), record: producer(0) }, check()]);
        assert!(!names.is_lost(&name(), 1, "a", Some((producer(0), 1))), "the other was refused");
        assert_eq!(names.contested("n"), Some(check()));
        assert!(names.is_lost(&name(), 1, "a", others(2)) && !names.is_lost(&name(), 1, "a", others(2)));
        assert_eq!((names.contested("n"), names.contested("m")), (None, None));
    }

    #[test]
    fn what_is_answered_to_an_earlier_claim_counts_no_more() {
        let mut names = claimed();
        names.reached(&name(), reached(3));
        let again = names.found(&name(), "a", Some((producer(0), 1)), None);
        assert_eq!(again, Some(Claim::Write { name: name(), claim: 2, record: producer(0), after: 1 }));
        assert_eq!(names.written(&name(), 1, 2), [], "the record of before");
        assert_eq!(names.verify(&name(), 1, "a", None), Some(vec![]));
        // That one has come first, so this one is not the next.
        let rewritten = Claim::Write { name: name(), claim: 2, record: producer(3), after: 2 };
        assert_eq!(names.verify(&name(), 2, "a", Some((producer(3), 2))), Some(vec![rewritten]));
    }

    #[test]
    fn a_claim_that_comes_second_goes_on_behind_what_the_first_has_done_meanwhile() {
        let mut names = Names::default();
        names.found(&name(), "a", Some((producer(2), 1)), None);
        let first = ProducerRecord { machine: "b".into(), finished: true, ..producer(9) };
        let ours = ProducerRecord { machine: "a".into(), ..first.clone() };
        let rewritten = Claim::Write { name: name(), claim: 1, record: ours.clone(), after: 5 };
        assert_eq!(names.verify(&name(), 1, "a", Some((first, 5))), Some(vec![rewritten]));
        assert_eq!(names.written(&name(), 1, 6), [Claim::Claimed { name: name(), record: ours }]);
    }
}
