//! Items that are held for too long: when they are taken back, from whom, and what it may still say of them.

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(1);
const OVER: Duration = Duration::from_secs(11);
const LEASED: Rules = Rules { lease: Some(Lease { item_timeout: TIMEOUT, grace: GRACE }), ..RULES };

impl Bench {
    /// The items that a consumer was told are taken back, message by message.
    fn revoked(&mut self, client: u64) -> Vec<Vec<(u64, u32)>> {
        let mut seen = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Send { client: to, message: Message::Revoke { ranges }, .. } if to.0 == client => {
                seen.push(ranges.iter().map(|range| (range.first.0, range.count)).collect());
                false
            }
            _ => true,
        });
        seen
    }

    fn begin(&mut self, client: u64, id: u64) {
        self.say(client, Message::Begin { id: ItemId(id) });
    }

    fn results(&mut self, client: u64, first: u64, results: &[&str]) {
        let results = batch(results);
        let message = Message::Result { first: ItemId(first), batch: results.header() };
        self.handle(Input::Said { client: ClientId(client), message, batch: Some(results) });
    }

    /// The results that were given out to be written, each with its ticket.
    pub(super) fn written(&mut self) -> Vec<Vec<String>> {
        let mut seen = Vec::new();
        for output in &self.outputs {
            if let Output::Write { record: Record::Results(batch), .. } = output {
                seen.push(batch.iter().map(|result| String::from_utf8_lossy(result).into_owned()).collect());
            }
        }
        self.write_all();
        seen
    }
}

/// A queue with these items, all of which consumer 2 holds.
fn held(rules: Rules, items: &[&str]) -> Bench {
    let mut bench = Bench::new(rules);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, items);
    bench.demand(2, items.len() as u32);
    bench.delivered();
    bench
}

#[test]
fn an_attempt_that_takes_too_long_is_taken_back_as_failed_and_what_lay_beside_it_as_it_was() {
    let mut bench = held(LEASED, &["slow", "beside", "beside too"]);
    bench.pass(OVER / 2);
    bench.begin(2, 0);
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + OVER));
    bench.pass(OVER - Duration::from_nanos(1));
    assert_eq!(bench.revoked(2), Vec::<Vec<_>>::new());
    bench.pass(Duration::from_nanos(1));
    assert_eq!(bench.revoked(2), [[(0, 1), (1, 2)]]);
    bench.consumer(3);
    bench.demand(3, 9);
    assert_eq!(bench.delivered(), [(3, 2, vec!["beside".into(), "beside too".into()])], "the slow one after its delay");
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.delivered(), [one(3, 2, "slow")]);
    assert_eq!(bench.closed(), []);
}

#[test]
fn of_a_range_that_was_taken_back_in_part_the_rest_counts_each_item_once() {
    let mut bench = held(LEASED, &["slow", "beside", "beside too", "begun", "begun, too"]);
    bench.begin(2, 0);
    bench.pass(OVER / 2);
    bench.begin(2, 3);
    bench.begin(2, 4);
    bench.pass(OVER / 2);
    assert_eq!(bench.revoked(2), [[(0, 1), (1, 2)]]);
    bench.ack(2, 0, 5);
    let status = bench.queue.status();
    assert_eq!((status.acknowledged, status.held, bench.closed()), (2, 0, vec![]));
}

#[test]
fn from_one_that_has_said_what_is_not_heard_yet_nothing_is_taken_back_for_the_grace() {
    let mut bench = held(LEASED, &["begun", "beside"]);
    bench.begin(2, 0);
    bench.consumer(3);
    bench.put(1, &["sat on"]);
    bench.demand(3, 1);
    bench.now += OVER;
    assert_eq!(bench.queue.overdue(bench.now - Duration::from_nanos(1)), []);
    assert_eq!(bench.queue.overdue(bench.now), [ClientId(2), ClientId(3)]);
    bench.handle(Input::Unheard { client: ClientId(2) });
    assert_eq!(bench.queue.overdue(bench.now), [ClientId(3)]);
    bench.handle(Input::Unheard { client: ClientId(3) });
    bench.pass(GRACE - Duration::from_nanos(1));
    assert_eq!((bench.revoked(2), bench.revoked(3)), (vec![], vec![]));
    // Whose time is not over has no more of it.
    bench.handle(Input::Unheard { client: ClientId(2) });
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + Duration::from_nanos(1)));
    bench.pass(Duration::from_nanos(1));
    assert_eq!((bench.revoked(2), bench.revoked(3)), (vec![vec![(0, 1), (1, 1)]], vec![vec![(2, 1)]]));
}

#[test]
fn the_last_attempt_that_takes_too_long_is_a_dead_letter_with_its_cause() {
    let mut bench = held(Rules { attempts_max: 1, ..LEASED }, &["slow", "beside"]);
    bench.begin(2, 0);
    bench.pass(OVER);
    assert_eq!(bench.write_all(), [(0, 1, "took longer than 10s, and was taken back".into())]);
    assert_eq!(bench.queue.status().ready, 1);
}

#[test]
fn whoever_holds_items_and_begins_none_does_not_keep_them() {
    let mut bench = held(LEASED, &["a", "b", "c"]);
    bench.pass(OVER / 2);
    bench.ack(2, 0, 1);
    bench.pass(OVER / 2);
    assert_eq!(bench.revoked(2), Vec::<Vec<_>>::new(), "it has done something meanwhile");
    bench.pass(OVER / 2);
    assert_eq!((bench.revoked(2), bench.queue.status().ready), (vec![vec![(1, 2)]], 2), "not failed");
    // With a single item it is to blame, as when it dies.
    bench.consumer(3);
    bench.demand(3, 1);
    bench.pass(OVER);
    assert_eq!((bench.revoked(3), bench.queue.status().delayed), (vec![vec![(1, 1)]], 1));
}

#[test]
fn what_it_says_of_items_that_were_taken_back_is_passed_over_until_it_has_heard() {
    let mut bench = held(LEASED, &["a", "b", "c", "d"]);
    bench.begin(2, 1);
    bench.begin(2, 2);
    bench.say(2, Message::Extend { id: ItemId(2), by_ms: 60_000 });
    bench.pass(OVER);
    assert_eq!(bench.revoked(2), [[(0, 1), (1, 1), (3, 1)]], "the third has its own time");
    bench.results(2, 1, &["B", "C", "D"]);
    assert_eq!(bench.written(), [["C"]]);
    bench.give_back(2, 0, 1, Outcome::Rejected { cause: "bad".into() });
    bench.ack(2, 3, 1);
    bench.say(2, Message::Extend { id: ItemId(3), by_ms: 1 });
    let status = bench.queue.status();
    assert_eq!((status.ready, status.delayed, status.acknowledged, status.dead), (2, 1, 1, 0));
    assert_eq!((bench.sent(2, "Extended"), bench.closed()), (2, vec![]));
    bench.say(2, Message::Revoked);
    bench.ack(2, 3, 1);
    assert_eq!(bench.closed().len(), 1, "now it knows");
}

#[test]
fn of_results_that_were_taken_back_in_the_middle_those_around_it_are_written() {
    let mut bench = held(LEASED, &["a", "b", "c", "d"]);
    for id in [0, 2, 3] {
        bench.say(2, Message::Extend { id: ItemId(id), by_ms: 60_000 });
    }
    bench.begin(2, 1);
    bench.pass(OVER);
    assert_eq!(bench.revoked(2), [[(1, 1)]]);
    bench.results(2, 0, &["A", "B", "C", "D"]);
    assert_eq!(bench.written(), [vec!["A"], vec!["C", "D"]]);
    assert_eq!((bench.queue.status().acknowledged, bench.closed()), (3, vec![]));
}

#[test]
fn an_acknowledgement_that_comes_before_the_clock_is_looked_at_counts() {
    let mut bench = held(LEASED, &["a"]);
    bench.begin(2, 0);
    bench.now += 2 * OVER;
    bench.ack(2, 0, 1);
    bench.handle(Input::Tick);
    assert_eq!((bench.queue.status().acknowledged, bench.revoked(2).len(), bench.queue.next_timeout()), (1, 0, None));
}

#[test]
fn one_that_was_too_slow_gets_nothing_before_it_has_heard_of_it() {
    let mut bench = held(LEASED, &["a", "b"]);
    bench.demand(2, 5);
    assert_eq!(bench.queue.status().consumers_waiting, 1);
    bench.begin(2, 0);
    bench.pass(OVER);
    assert_eq!((bench.delivered(), bench.queue.status().consumers_waiting), (vec![], 0));
    bench.demand(2, 1);
    assert_eq!((bench.delivered(), bench.queue.status().ready), (vec![], 1));
    bench.say(2, Message::Revoked);
    assert_eq!(bench.delivered(), [one(2, 2, "b")]);
    bench.say(2, Message::Revoked);
    assert_eq!(bench.closed().len(), 1, "it was told once");
    assert_eq!(bench.queue.next_timeout().map(|due| due <= bench.now + Duration::from_secs(1)), Some(true));
}

#[test]
fn an_extension_counts_from_now_and_never_makes_the_time_shorter() {
    let mut bench = held(LEASED, &["a"]);
    bench.begin(2, 0);
    bench.say(2, Message::Extend { id: ItemId(0), by_ms: 1000 });
    bench.begin(2, 0);
    assert_eq!(bench.queue.next_timeout(), Some(OVER));
    bench.pass(OVER / 2);
    bench.say(2, Message::Extend { id: ItemId(0), by_ms: 20_000 });
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + Duration::from_secs(20) + GRACE));
    bench.say(2, Message::Extend { id: ItemId(7), by_ms: 1 });
    assert_eq!(bench.closed().len(), 1);
    assert_eq!((bench.queue.status().ready, bench.queue.next_timeout()), (1, None));
}

#[test]
fn what_has_gone_leaves_no_timer_behind() {
    let mut bench = held(Rules { retry_delay: Backoff { min: Duration::ZERO, max: Duration::ZERO }, ..LEASED }, &["a", "b", "c"]);
    bench.begin(2, 0);
    bench.leave(2);
    assert_eq!(bench.queue.next_timeout(), None);
    bench.consumer(3);
    bench.demand(3, 3);
    bench.begin(3, 1);
    bench.give_back(3, 0, 3, Outcome::Unstarted);
    assert_eq!(bench.queue.next_timeout(), None);
}

#[test]
fn whoever_needs_many_words_to_be_told_has_to_answer_each() {
    let items: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    let rules = Rules { capacity_items: 100_000, capacity_bytes: 10_000_000, item_bytes_max: 100_000, ..LEASED };
    let mut bench = Bench::new(rules);
    bench.producer(1);
    bench.consumer(2);
    bench.put(1, &items);
    bench.say(2, Message::Demand { items: 20_000, bytes: 10_000_000 });
    (0..20_000).step_by(2).for_each(|id| bench.ack(2, id, 1));
    bench.outputs.clear();
    bench.pass(OVER);
    let told = bench.revoked(2);
    assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [4096, 4096, 1808]);
    bench.demand(2, 1);
    bench.say(2, Message::Revoked);
    bench.say(2, Message::Revoked);
    bench.ack(2, 1, 1);
    assert_eq!(bench.delivered(), []);
    bench.say(2, Message::Revoked);
    assert_eq!(bench.delivered(), [one(2, 2, "1")]);
    assert_eq!(bench.closed(), []);
}

#[test]
fn consumers_are_told_how_long_an_attempt_may_take() {
    assert_eq!([RULES, LEASED].map(|rules| Queue::new(rules).item_timeout()), [None, Some(TIMEOUT)]);
}

#[test]
fn without_a_limit_nothing_is_ever_taken_back_and_time_can_be_asked_for_all_the_same() {
    let mut bench = held(RULES, &["a", "b"]);
    bench.begin(2, 0);
    bench.say(2, Message::Extend { id: ItemId(0), by_ms: 1 });
    assert_eq!((bench.sent(2, "Extended"), bench.queue.next_timeout()), (1, None));
    bench.pass(Duration::from_secs(1 << 40));
    assert_eq!(bench.queue.status().held, 2);
}
