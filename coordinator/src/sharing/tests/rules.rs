//! What is said between a queue and the servers, word by word.

use super::*;
use crate::jetstream::{Lost, View};
use crate::queue::DeadPage;

/// Servers that note what they are asked, and answer what a test says.
#[derive(Default)]
struct Scribe {
    asked: Vec<String>,
    answers: Vec<Answer>,
}

impl Scribe {
    fn note(&mut self, asked: String) {
        self.asked.push(asked);
    }
}

impl Servers for Scribe {
    fn put(&mut self, ticket: u64, batch: Batch, _: Origin) {
        self.note(format!("put {ticket} of {}", batch.count()));
    }

    fn want_more(&mut self, messages: u32) {
        self.note(format!("want {messages}"));
    }

    fn want_nothing(&mut self) {
        self.note("want nothing".into());
    }

    fn settle(&mut self, sequence: u64) {
        self.note(format!("settle {sequence}"));
    }

    fn release(&mut self, sequence: u64, delay: Duration) {
        self.note(format!("release {sequence} for {delay:?}"));
    }

    fn mark(&mut self, sequence: u64, Told { settled, failed }: Told) {
        self.note(format!("mark {sequence} {settled:?} {failed:?}"));
    }

    fn bury(&mut self, letter: DeadLetter) {
        self.note(format!("bury {}", letter.id));
    }

    fn load_dead(&mut self, range: DeadRange) {
        self.note(format!("load dead {}..{}", range.from, range.until));
    }

    fn forget_dead(&mut self, id: ItemId) {
        self.note(format!("forget {id}"));
    }

    fn claim(&mut self, name: Arc<str>) {
        self.note(format!("claim {name}"));
    }

    fn finish(&mut self, name: Arc<str>) {
        self.note(format!("finish {name}"));
    }

    fn announce(&mut self, expected: u64, finished: u64) {
        self.note(format!("announce {finished} of {expected}"));
    }

    fn look(&mut self) {
        self.note("look".into());
    }

    fn collect(&mut self) -> Result<Vec<Answer>, ClusterError> {
        Ok(std::mem::take(&mut self.answers))
    }
}

const NOW: Duration = Duration::from_secs(100);

impl Sharing<Scribe> {
    fn asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.servers.asked)
    }

    /// What comes of an answer.
    fn told(&mut self, answer: Answer) -> Vec<String> {
        self.servers.answers.push(answer);
        let in_short = |said| match said {
            Said::Input(Input::Journaled { entries }) => format!("{entries} entries"),
            Said::Input(Input::Published { until }) => format!("published until {until}"),
            Said::Input(Input::Whole(Whole { items, bytes, .. })) => format!("{items} items, {bytes} bytes"),
            Said::Input(Input::Arrived { batches }) => {
                let Loaded { first, batch, settled, failed, attempts } = &batches[0];
                format!("{} from {first} on, settled {settled:?}, failed {failed:?}, attempts {attempts}", batch.count())
            }
            other => format!("{other:?}"),
        };
        self.collect().unwrap().into_iter().map(in_short).collect()
    }

    fn entry(&mut self, entry: Entry) {
        assert!(self.serve(Output::Journal(entry), NOW).is_none());
    }

    fn fetch(&mut self, sequence: u64, items: u32, deliveries: u64, marks: Told) -> Vec<String> {
        self.told(Answer::Fetched(Fetched { sequence, deliveries, batch: batch(items), marks }))
    }

    fn publish(&mut self, items: u32) {
        assert!(self.serve(Output::Publish { batch: batch(items), origin: Origin::Nameless }, NOW).is_none());
    }
}

fn sharing() -> Sharing<Scribe> {
    Sharing { parts: Parts::after(1 << 40), ..Sharing::new(Scribe::default()) }
}

fn batch(items: u32) -> Batch {
    let mut builder = BatchBuilder::default();
    (0..items).for_each(|_| builder.push_bytes(b"x"));
    builder.take_batch().unwrap()
}

fn cost(items: u32) -> u64 {
    batch_cost_bytes(batch(items).body_bytes())
}

fn at(sequence: u64, index: u32) -> u64 {
    item_id(sequence, index).0
}

fn settled(first: u64, count: u64) -> Entry {
    Entry::Settled { first, count, output_bytes: None }
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn an_end_counts_at_once_unless_it_is_its_messages_last_and_all_count_in_order() {
    let mut sharing = sharing();
    assert_eq!(sharing.fetch(7, 3, 1, Told::default()), [format!("3 from {} on, settled [], failed [], attempts 0", at(7, 0))]);
    sharing.entry(settled(at(7, 0), 2));
    assert_eq!((sharing.take_kept(), sharing.asked(), sharing.is_idle()), (1, none(), true));
    sharing.entry(settled(at(7, 2), 1));
    sharing.entry(Entry::Finished { name: None });
    assert_eq!((sharing.take_kept(), sharing.asked(), sharing.is_idle()), (0, vec!["settle 7".into()], false));
    assert_eq!(sharing.told(Answer::Settled(8)), none());
    assert_eq!(sharing.told(Answer::Settled(7)), ["2 entries"]);
    assert!(sharing.is_idle() && sharing.messages.is_empty() && sharing.awaited.is_empty() && sharing.ending.is_empty());
}

#[test]
fn an_entry_that_ends_several_messages_counts_once_all_of_them_are_done() {
    let most = 1 << crate::limits::JETSTREAM_INDEX_BITS;
    let mut sharing = sharing();
    (4..8).for_each(|sequence| _ = sharing.fetch(sequence, most, 1, Told::default()));
    // From the middle of the first to the middle of the last: full messages have numbers without a gap.
    sharing.entry(settled(at(4, 10), 3 * u64::from(most)));
    assert_eq!((sharing.asked(), sharing.take_kept()), (vec!["settle 6".into(), "settle 5".into()], 0));
    assert_eq!(sharing.told(Answer::Settled(5)), none());
    assert_eq!(sharing.told(Answer::Settled(6)), ["1 entries"]);
    sharing.entry(settled(at(4, 0), 10));
    sharing.entry(settled(at(7, 10), u64::from(most) - 10));
    assert_eq!(sharing.asked(), ["settle 4", "settle 7"]);
    assert_eq!(sharing.told(Answer::Settled(7)), none());
    assert_eq!(sharing.told(Answer::Settled(4)), ["2 entries"]);
    (8..10).for_each(|sequence| _ = sharing.fetch(sequence, most, 1, Told::default()));
    sharing.entry(settled(at(9, 0), 1));
    sharing.note_marks(NOW + SHARED_MARK);
    assert_eq!(sharing.asked(), ["mark 9 [(0, 1)] []"], "nothing has become of the one before");
}

#[test]
fn what_became_of_items_is_noted_after_a_while_and_only_what_is_new() {
    let mut sharing = sharing();
    (1..4).for_each(|sequence| _ = sharing.fetch(sequence, 4, 1, Told::default()));
    assert_eq!(sharing.next_due(), None);
    sharing.entry(settled(at(1, 1), 2));
    sharing.entry(Entry::Failed { first: at(2, 3), count: 1, failures: 2 });
    sharing.entry(settled(at(3, 0), 4));
    sharing.asked();
    assert_eq!(sharing.next_due(), Some(NOW + SHARED_MARK));
    sharing.note_marks(NOW + SHARED_MARK - Duration::from_nanos(1));
    assert_eq!(sharing.asked(), none());
    sharing.note_marks(NOW + SHARED_MARK);
    assert_eq!(sharing.asked(), ["mark 1 [(1, 2)] []", "mark 2 [] [(3, 1, 2)]"]);
    assert_eq!(sharing.next_due(), None);
    sharing.entry(settled(at(1, 0), 1));
    sharing.note_marks(NOW + 2 * SHARED_MARK);
    assert_eq!(sharing.asked(), ["mark 1 [(0, 3)] []"]);
}

#[test]
#[should_panic(expected = "some are settled already")]
fn nothing_is_settled_twice() {
    let mut sharing = sharing();
    sharing.fetch(1, 3, 1, Told::default());
    sharing.entry(settled(at(1, 0), 2));
    sharing.entry(settled(at(1, 1), 2));
}

#[test]
fn what_goes_to_another_machine_goes_with_what_became_of_it() {
    let mut sharing = sharing();
    (1..4).for_each(|sequence| _ = sharing.fetch(sequence, 2, 1, Told::default()));
    for sequence in [1, 3] {
        sharing.entry(settled(at(sequence, 0), 1));
    }
    let delay = Duration::from_secs(3);
    for sequence in [1, 2] {
        assert!(sharing.serve(Output::Release { first: at(sequence, 0), delay }, NOW).is_none());
    }
    assert_eq!(sharing.asked(), ["mark 1 [(0, 1)] []", "release 1 for 3s", "release 2 for 3s"]);
    sharing.fetch(4, 2, 1, Told::default());
    assert_eq!(sharing.into_servers().asked, ["mark 3 [(0, 1)] []"], "that is the end of this machine");
}

#[test]
fn a_message_comes_with_what_became_of_it_elsewhere_as_far_as_that_can_be() {
    let mut sharing = sharing();
    let marks = Told { settled: vec![(0, 1), (0, 2), (3, 2), (u32::MAX, 2)], failed: vec![(2, 1, 3), (3, 2, 9)] };
    let first = at(9, 0);
    let expected = format!("4 from {first} on, settled [({first}, 1)], failed [({}, 1, 3)], attempts 4", first + 2);
    assert_eq!(sharing.fetch(9, 4, 5, marks), [expected]);
    sharing.entry(settled(at(9, 1), 3));
    assert_eq!(sharing.asked(), ["settle 9"]);
    let whole = Told { settled: vec![(2, 2)], failed: vec![(0, 2, 1)] };
    let first = at(10, 0);
    let expected = format!("4 from {first} on, settled [({}, 2)], failed [({first}, 2, 1)], attempts {}", first + 2, u32::MAX);
    assert_eq!(sharing.fetch(10, 4, u64::MAX, whole), [expected]);
}

#[test]
fn of_a_message_that_is_all_done_the_servers_are_told_and_another_is_asked_for() {
    let mut sharing = sharing();
    assert_eq!(sharing.fetch(9, 2, 5, Told { settled: vec![(0, 2)], failed: vec![] }), none());
    assert_eq!(sharing.asked(), ["settle 9", "want 1"]);
    assert_eq!((sharing.told(Answer::Settled(9)), sharing.messages.len()), (none(), 0), "nobody waits for that");
}

#[test]
fn a_dead_letters_item_ends_when_it_is_kept_and_the_others_know_at_once() {
    let letter = |id| DeadLetter { id: ItemId(id), attempts: 3, cause: "no".into(), item: bytes::Bytes::new() };
    let mut sharing = sharing();
    sharing.fetch(1, 2, 1, Told::default());
    sharing.entry(Entry::Dead(letter(at(1, 0))));
    sharing.entry(Entry::Dead(letter(at(1, 1))));
    assert_eq!(sharing.asked(), [format!("bury {}", at(1, 0)), format!("bury {}", at(1, 1))]);
    assert_eq!(sharing.told(Answer::Buried(ItemId(at(1, 0)))), ["1 entries"]);
    assert_eq!(sharing.asked(), ["mark 1 [(0, 1)] []"], "else it would be tried and buried again if this machine dies now");
    sharing.note_marks(NOW + SHARED_MARK);
    assert_eq!((sharing.asked(), sharing.told(Answer::Buried(ItemId(at(1, 0))))), (none(), none()));
    assert_eq!(sharing.told(Answer::Buried(ItemId(at(1, 1)))), none(), "the message is not done");
    assert_eq!(sharing.asked(), ["settle 1"]);
    assert_eq!(sharing.told(Answer::Settled(1)), ["1 entries"]);
}

#[test]
fn a_put_counts_when_all_of_its_messages_are_kept() {
    let mut sharing = Sharing { parts: Parts::after(512), ..sharing() };
    sharing.publish(3);
    sharing.publish(1);
    assert_eq!(sharing.asked(), ["put 0 of 2", "put 1 of 1", "put 2 of 1"]);
    let kept = |ticket| Answer::Kept { ticket, sequence: 20 + ticket };
    assert_eq!(
        [0, 1, 2].map(|ticket| sharing.told(kept(ticket))),
        [none(), vec![format!("published until {}", at(22, 0))], vec![format!("published until {}", at(23, 0))]]
    );
}

#[test]
fn a_look_counts_what_was_reported_as_stored_and_not_what_was_not_reported_as_done() {
    let view = |last_sequence| View { items: 100, bytes: 10_000, last_sequence, ..View::default() };
    let mut sharing = sharing();
    for (ticket, items) in [(0, 3), (1, 5)] {
        sharing.publish(items);
        assert_eq!(sharing.told(Answer::Kept { ticket, sequence: 20 + ticket }).len(), 1);
    }
    let whole = |items, bytes| [format!("{items} items, {bytes} bytes")];
    assert_eq!(sharing.told(Answer::Cluster(view(19))), whole(108, 10_000 + cost(3) + cost(5)));
    assert_eq!(sharing.told(Answer::Cluster(view(20))), whole(105, 10_000 + cost(5)));
    assert_eq!(sharing.told(Answer::Cluster(view(21))), whole(100, 10_000));
    sharing.fetch(29, 2, 1, Told::default());
    sharing.entry(settled(at(29, 0), 1));
    assert_eq!(sharing.take_kept(), 1);
    // Two end behind a first that the servers have not answered.
    sharing.fetch(30, 1, 1, Told::default());
    sharing.fetch(31, 2, 1, Told::default());
    sharing.fetch(32, 4, 1, Told::default());
    [(30, 1), (31, 2), (32, 4)].into_iter().for_each(|(sequence, count)| sharing.entry(settled(at(sequence, 0), count)));
    assert_eq!(sharing.told(Answer::Cluster(view(40))), whole(100, 10_000));
    assert_eq!(sharing.told(Answer::Settled(31)), none());
    assert_eq!(sharing.told(Answer::Settled(32)), none());
    assert_eq!(
        sharing.told(Answer::Cluster(view(40))),
        whole(106, 10_000 + cost(2) + cost(4)),
        "they are gone there, and not reported here"
    );
    assert_eq!(sharing.told(Answer::Settled(30)), ["3 entries"]);
    assert_eq!(sharing.told(Answer::Cluster(view(40))), whole(100, 10_000));
}

#[test]
fn what_a_look_has_seen_settled_counts_once_it_is_reported_as_that() {
    let settled_until = |sharing: &mut Sharing<Scribe>, first_sequence| {
        sharing.servers.answers.push(Answer::Cluster(View { first_sequence, ..View::default() }));
        match &sharing.collect().unwrap()[..] {
            [Said::Input(Input::Whole(whole))] => whole.settled_until,
            other => panic!("{other:?}"),
        }
    };
    let mut sharing = sharing();
    sharing.fetch(30, 1, 1, Told::default());
    assert_eq!(settled_until(&mut sharing, 31), at(31, 0), "another machine has settled it");
    sharing.entry(settled(at(30, 0), 1));
    assert_eq!([29, 30, 31].map(|first| settled_until(&mut sharing, first)), [at(29, 0), at(30, 0), at(30, 0)]);
    assert_eq!(sharing.told(Answer::Settled(30)), ["1 entries"]);
    assert_eq!(settled_until(&mut sharing, 31), at(31, 0));
}

#[test]
fn a_look_says_of_messages_what_the_queue_knows_by_items() {
    let view = View {
        machines: 2,
        producers_expected: 3,
        producers_finished: 4,
        messages: 5,
        items: 6,
        bytes: 7,
        first_sequence: 8,
        last_sequence: 9,
        dead: 10,
        is_done: true,
    };
    let mut sharing = sharing();
    sharing.servers.answers.push(Answer::Cluster(view));
    let said = sharing.collect().unwrap();
    let expected = Whole {
        items: 6,
        bytes: 7,
        settled_until: at(8, 0),
        next_id: at(10, 0),
        dead: 10,
        machines: 2,
        producers_expected: 3,
        producers_finished: 4,
        is_done: true,
    };
    assert!(matches!(&said[..], [Said::Input(Input::Whole(whole))] if *whole == expected), "{said:?}");
}

#[test]
fn a_names_end_and_a_forgotten_letter_count_when_the_servers_say_so() {
    let finished = || Entry::Finished { name: Some("one".into()) };
    let mut sharing = sharing();
    sharing.entry(finished());
    sharing.entry(Entry::Dropped { id: 5, item_bytes: 3 });
    sharing.entry(finished());
    assert_eq!(sharing.asked(), ["finish one", "forget 5", "finish one"]);
    assert_eq!(sharing.told(Answer::Finished("other".into())), none());
    assert_eq!(sharing.told(Answer::Finished("one".into())), ["1 entries"], "one answer is for both, and the last waits for its turn");
    assert_eq!(sharing.told(Answer::DeadForgotten(ItemId(5))), ["2 entries"]);
}

#[test]
fn what_is_for_the_servers_reaches_them_and_the_rest_goes_on() {
    let mut sharing = sharing();
    for output in [
        Output::Want { batches: 3 },
        Output::WantNothing,
        Output::Claim { name: "one".into() },
        Output::Announce { expected: 3, finished: 2 },
        Output::LoadDead(DeadRange { from: 4, until: 5 }),
        Output::Look,
    ] {
        assert!(sharing.serve(output, NOW).is_none());
    }
    assert_eq!(sharing.asked(), ["want 3", "want nothing", "claim one", "announce 2 of 3", "load dead 4..5", "look"]);
    let close = Output::Close { client: PRODUCER, reason: common::message::CloseReason::Ended, words: String::new() };
    assert!(matches!(sharing.serve(close, NOW), Some(Output::Close { .. })));
}

#[test]
fn what_people_should_know_is_passed_on() {
    let mut sharing = sharing();
    let lost = Lost { machine: "m".into(), producers_unfinished: 2 };
    sharing.servers.answers = vec![
        Answer::Lost(lost),
        Answer::Outage("o".into()),
        Answer::Restored { after: NOW },
        Answer::NoSpace("n".into()),
        Answer::OldServer("v".into()),
        Answer::Replaced("one".into()),
        Answer::DeadLoaded(DeadPage::default()),
    ];
    let said = sharing.collect().unwrap();
    let notices: Vec<&Notice> = said.iter().filter_map(|said| if let Said::Notice(notice) = said { Some(notice) } else { None }).collect();
    let expected = [
        Notice::Lost { machine: "m".into(), producers_unfinished: 2 },
        Notice::Outage("o".into()),
        Notice::Restored { after: NOW },
        Notice::NoSpace("n".into()),
        Notice::OldServer("v".into()),
    ];
    assert_eq!(notices, expected.iter().collect::<Vec<_>>());
    assert!(matches!(&said[5..], [Said::Input(Input::Replaced { .. }), Said::Input(Input::DeadLoaded(_))]));
}
