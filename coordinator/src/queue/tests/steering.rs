//! What people do to a queue: pausing it, and sending its dead letters again.

use super::*;
use common::limits::BATCH_OVERHEAD_BYTES;
use common::message::{DeadFate, Obstacle};

const ALL: (u64, u64) = (0, u64::MAX);
const WINDOW: Window = Window { near_bytes: 100_000, unwritten_bytes: 100_000 };
const JOURNALED: Rules = Rules { journaled: Some(WINDOW), ..RULES };

impl Bench {
    fn set_paused(&mut self, paused: bool) -> (bool, bool) {
        self.steer(50, Message::SetPaused { paused });
        let state = |output: &Output| match output {
            Output::Send { message: Message::PausedSet { paused, changed }, .. } => Some((*paused, *changed)),
            _ => None,
        };
        let answer = self.outputs.iter().rev().find_map(state).expect("an answer");
        self.outputs.retain(|output| state(output).is_none());
        answer
    }

    fn ask_removal(&mut self, client: u64, fate: DeadFate, (from, until): (u64, u64)) {
        self.steer(client, Message::DeadRemove { from: ItemId(from), until: ItemId(until), fate });
    }

    /// What has come of such a question: how many, where to go on, why not further.
    fn removed(&mut self) -> Option<(u64, Option<u64>, Option<Obstacle>)> {
        let is = |output: &Output| matches!(output, Output::Send { message: Message::DeadRemoved { .. }, .. });
        let at = self.outputs.iter().position(is)?;
        let Output::Send { message: Message::DeadRemoved { count, next, obstacle }, .. } = self.outputs.remove(at) else { return None };
        Some((count, next.map(|next| next.0), obstacle))
    }

    fn requeue(&mut self, range: (u64, u64)) -> (u64, Option<u64>, Option<Obstacle>) {
        self.ask_removal(50, DeadFate::Requeue, range);
        self.removed().expect("an answer")
    }

    /// Dead letters as they are listed, and how many are not kept.
    fn listed(&mut self, (from, until): (u64, u64)) -> (Vec<(u64, u32, String, String)>, u64) {
        self.steer(50, Message::DeadList { from: ItemId(from), until: ItemId(until) });
        let (mut letters, mut end) = (Vec::new(), None);
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Send { message: Message::DeadLetter { id, attempts, cause, .. }, batch: Some(batch), .. } => {
                    letters.push((id.0, attempts, cause, String::from_utf8(batch.item(0).to_vec()).unwrap()));
                }
                Output::Send { message: Message::DeadListed { next: None, unkept }, .. } => end = Some(unkept),
                _ => {}
            }
        }
        (letters, end.expect("an end"))
    }

    /// Puts items, each by a producer that comes and goes, and gives them up.
    fn bury(&mut self, items: &[&str]) {
        self.consumer(2);
        for item in items {
            let id = self.queue.status().accepted;
            self.producer(100 + id);
            self.say(100 + id, Message::Want { bytes: batch_cost_bytes(item.len() as u64) });
            self.put(100 + id, &[item]);
            self.leave(100 + id);
            self.demand(2, 1);
            self.give_back(2, id, 1, Outcome::Rejected { cause: "bad".into() });
            self.write_all();
        }
        self.outputs.clear();
    }
}

#[test]
fn a_paused_queue_takes_and_settles_but_hands_out_nothing_until_it_goes_on() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a", "b"]);
    bench.demand(2, 1);
    assert_eq!(bench.delivered(), [one(2, 1, "a")]);
    assert_eq!([bench.set_paused(true), bench.set_paused(true)], [(true, true), (true, false)]);
    bench.ack(2, 0, 1);
    bench.demand(2, 5);
    bench.put(1, &["c"]);
    bench.say(2, Message::Withdraw);
    assert_eq!((bench.sent(2, "Withdrawn"), bench.delivered().len()), (1, 0), "it has nothing to give");
    let status = bench.queue.status();
    assert!(status.paused);
    assert_eq!((status.ready, status.held, status.acknowledged), (2, 0, 1));
    bench.demand(2, 5);
    assert_eq!([bench.set_paused(false), bench.set_paused(false)].map(|(paused, _)| paused), [false, false]);
    assert_eq!(bench.delivered(), [(2, 1, vec!["b".into()]), (2, 1, vec!["c".into()])]);
}

#[test]
fn a_paused_queue_that_is_to_end_goes_on_and_one_with_nothing_left_ends() {
    let mut bench = Bench::new(RULES);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["a"]);
    bench.set_paused(true);
    bench.demand(2, 5);
    bench.handle(Input::Drain);
    assert_eq!(bench.delivered(), [one(2, 1, "a")]);
    assert!(!bench.queue.status().paused);
    bench.set_paused(true);
    bench.ack(2, 0, 1);
    assert_eq!(bench.queue.phase(), Phase::Done);
    assert_eq!(bench.set_paused(true), (false, false), "there is nothing to pause");
    let mut bench = Bench::new(Rules { producers_expected: Some(1), ..RULES });
    bench.producer(1);
    bench.set_paused(true);
    bench.say(1, Message::Finish);
    assert_eq!(bench.queue.phase(), Phase::Done);
}

#[test]
fn a_dead_letter_put_again_is_a_new_item_behind_all_others_with_all_its_attempts() {
    for rules in [RULES, JOURNALED] {
        let mut bench = Bench::new(rules.clone());
        bench.bury(&["x", "y"]);
        bench.producer(1);
        bench.put(1, &["fresh"]);
        let letter = |id, item: &str| (id, 1, "bad".to_string(), item.to_string());
        assert_eq!(bench.listed(ALL), (vec![letter(0, "x"), letter(1, "y")], 0));
        assert_eq!(bench.listed((1, 1)).0, []);
        assert_eq!(bench.requeue((1, 2)), (1, None, None));
        assert_eq!(bench.requeue((1, 2)), (0, None, None), "it is there no more");
        assert_eq!(bench.listed(ALL).0, [letter(0, "x")]);
        bench.demand(2, 9);
        assert_eq!(bench.delivered(), [one(2, 1, "fresh"), one(2, 1, "y")]);
        let status = bench.queue.status();
        assert_eq!((status.accepted, status.dead, status.dead_removed, status.held), (4, 1, 1, 2));
        bench.give_back(2, 3, 1, Outcome::Failed { cause: "again".into() });
        bench.ack(2, 2, 1);
        bench.pass(Duration::from_secs(3));
        assert_eq!(bench.delivered(), [one(2, 2, "y")], "one failure of three");
        assert_eq!(bench.queue.buried(), 2);
    }
}

#[test]
fn letters_that_are_dropped_are_gone_and_the_queue_comes_to_its_end_without_them() {
    for rules in [RULES, JOURNALED] {
        let mut bench = Bench::new(rules);
        bench.bury(&["x", "y", "z"]);
        bench.ask_removal(50, DeadFate::Drop, (1, 9));
        assert_eq!(bench.removed(), Some((2, None, None)));
        assert_eq!((bench.queue.status().dead, bench.queue.status().dead_removed, bench.queue.status().accepted), (1, 2, 3));
        bench.handle(Input::Drain);
        assert_eq!(bench.queue.phase(), Phase::Done);
        assert_eq!(bench.requeue(ALL), (0, Some(0), Some(Obstacle::Ending)));
        bench.ask_removal(50, DeadFate::Drop, ALL);
        assert_eq!((bench.removed(), bench.queue.status().dead), (Some((1, None, None)), 0));
    }
}

#[test]
fn letters_are_put_again_as_far_as_there_is_room_which_unused_credit_does_not_take() {
    for rules in [RULES, JOURNALED] {
        let mut bench = Bench::new(Rules { capacity_items: 3, ..rules });
        bench.bury(&["w", "x", "y", "z"]);
        bench.producer(7);
        assert_eq!(bench.queue.status().dead, 4);
        assert_eq!(bench.requeue(ALL), (3, Some(3), Some(Obstacle::Full)));
        assert!(bench.sent(7, "Recall") > 0, "credit that was not used is taken back");
        bench.demand(2, 1);
        bench.ack(2, 4, 1);
        assert_eq!(bench.requeue(ALL), (1, None, None));
        assert_eq!(bench.queue.status().stored(), 3);
    }
}

#[test]
fn without_a_journal_the_letters_with_the_lowest_numbers_are_let_go_of_beyond_the_bounds() {
    let mut bench = Bench::new(Rules { dead_letters_max: 2, ..RULES });
    bench.bury(&["a", "b", "c"]);
    let (letters, unkept) = bench.listed(ALL);
    assert_eq!((letters.iter().map(|letter| letter.0).collect::<Vec<_>>(), unkept), (vec![1, 2], 1));
    assert_eq!(bench.requeue((0, 1)), (0, None, None), "its item is not known any more");
    assert_eq!(bench.queue.status().dead, 3);
    bench.ask_removal(50, DeadFate::Drop, (1, 2));
    assert_eq!((bench.removed(), bench.queue.status().dead), (Some((1, None, None)), 2));
    bench.ask_removal(50, DeadFate::Drop, (0, 3));
    assert_eq!((bench.removed(), bench.queue.status().dead), (Some((2, None, None)), 0), "all of them, those let go of too");
    let mut bench = Bench::new(Rules { dead_bytes_max: 0, ..RULES });
    bench.bury(&["a", "b"]);
    assert_eq!(bench.listed(ALL).0.len(), 1, "the last one in any case");
}

#[test]
fn letters_are_let_go_of_one_by_one_as_far_as_their_bytes_with_what_is_around_them_need() {
    // Three of them, to the byte.
    let bytes = 3 * (5 + 3 + BATCH_OVERHEAD_BYTES);
    let mut bench = Bench::new(Rules { dead_letters_max: 9, dead_bytes_max: bytes, ..RULES });
    bench.bury(&["item0", "item1", "item2", "item3", "item4"]);
    let kept = |bench: &mut Bench| bench.listed(ALL).0.iter().map(|letter| letter.0).collect::<Vec<_>>();
    assert_eq!(kept(&mut bench), [2, 3, 4]);
    bench.ask_removal(50, DeadFate::Drop, (2, 4));
    assert_eq!(bench.removed(), Some((2, None, None)));
    bench.bury(&["item5", "item6", "item7"]);
    assert_eq!(kept(&mut bench), [5, 6, 7]);
    let removed = bench.queue.status().dead_removed;
    bench.ask_removal(50, DeadFate::Drop, (0, 4));
    assert_eq!((bench.removed(), bench.listed(ALL).1), (Some((0, None, None)), 3), "not all of those that were let go of");
    bench.ask_removal(50, DeadFate::Drop, (0, 5));
    assert_eq!((bench.removed(), bench.listed(ALL).1), (Some((3, None, None)), 0));
    assert_eq!((bench.queue.status().dead, bench.queue.status().dead_removed), (3, removed + 3));
}

#[test]
fn what_one_asks_who_leaves_is_done_if_it_was_begun_and_else_forgotten() {
    let mut bench = Bench::new(JOURNALED);
    bench.bury(&["x", "y"]);
    bench.slow_journal = true;
    bench.ask_removal(50, DeadFate::Drop, (0, 1));
    bench.ask_removal(51, DeadFate::Drop, (1, 2));
    bench.leave(51);
    (0..3).for_each(|_| bench.journal_answers());
    assert_eq!((bench.removed(), bench.removed()), (Some((1, None, None)), None));
    assert_eq!(bench.queue.status().dead, 1);
    bench.ask_removal(50, DeadFate::Drop, ALL);
    bench.leave(50);
    (0..3).for_each(|_| bench.journal_answers());
    assert_eq!((bench.removed(), bench.queue.status().dead), (None, 0));
}

#[test]
fn a_removal_counts_once_the_journal_has_it_and_the_next_question_waits_for_that() {
    let mut bench = Bench { slow_journal: true, ..Bench::new(JOURNALED) };
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &["x"]);
    bench.demand(2, 1);
    bench.journal_answers();
    bench.give_back(2, 0, 1, Outcome::Rejected { cause: "bad".into() });
    bench.write_all();
    bench.journal_answers();
    bench.delivered();
    bench.ask_removal(50, DeadFate::Requeue, ALL);
    bench.ask_removal(51, DeadFate::Requeue, ALL);
    bench.journal_answers();
    bench.demand(2, 1);
    assert_eq!((bench.removed(), bench.delivered().len(), bench.queue.status().dead), (None, 0, 1));
    bench.journal_answers();
    assert_eq!((bench.removed(), bench.delivered(), bench.queue.status().dead), (Some((1, None, None)), vec![one(2, 1, "x")], 0));
    bench.journal_answers();
    assert_eq!(bench.removed(), Some((0, None, None)), "nothing was left for the second");
}

#[test]
fn a_second_question_before_the_answer_is_refused_and_one_who_leaves_is_not_answered() {
    let mut bench = Bench { slow_journal: true, ..Bench::new(JOURNALED) };
    bench.ask_removal(50, DeadFate::Drop, ALL);
    bench.ask_removal(50, DeadFate::Drop, ALL);
    assert!(matches!(&bench.closed()[..], [(50, CloseReason::Protocol, _)]));
    bench.ask_removal(51, DeadFate::Drop, ALL);
    bench.ask_removal(52, DeadFate::Drop, ALL);
    bench.leave(51);
    (0..3).for_each(|_| bench.journal_answers());
    assert_eq!([50, 51, 52].map(|client| bench.sent(client, "DeadRemoved")), [0, 0, 1]);
}

#[test]
fn what_is_put_again_waits_for_its_turn_on_the_way_to_the_journal() {
    let window = Window { near_bytes: 100_000, unwritten_bytes: 300 };
    let rules = Rules { item_bytes_max: 50, journaled: Some(window), ..RULES };
    let mut bench = Bench::new(rules);
    bench.bury(&["x", "y", "z"]);
    bench.slow_journal = true;
    bench.ask_removal(50, DeadFate::Requeue, ALL);
    for _ in 0..4 {
        assert_eq!(bench.removed(), None);
        bench.journal_answers();
    }
    assert_eq!(bench.removed(), Some((3, None, None)));
}

#[test]
fn a_coordinator_that_comes_again_knows_what_was_put_again_and_what_was_dropped() {
    let mut bench = Bench::new(JOURNALED);
    bench.bury(&["x", "y", "z"]);
    bench.requeue((0, 1));
    bench.ask_removal(50, DeadFate::Drop, (1, 2));
    let mut again = Bench::on(JOURNALED, bench.journal);
    let status = again.queue.status();
    assert_eq!((status.accepted, status.ready, status.dead, status.dead_removed), (4, 1, 1, 2));
    again.consumer(2);
    again.demand(2, 9);
    assert_eq!(again.delivered(), [one(2, 1, "x")]);
}
