//! Dead letters: kept, counted, read, put again and forgotten, by several machines at once.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use common::ItemId;
use common::batch::Batch;
use common::limits::DEAD_PAGE_LETTERS_MAX;
use coordinator::jetstream::{Answer, Settings, item_id};
use coordinator::queue::{DeadLetter, DeadPage, DeadRange, Origin};
use tests::nats::NatsServer;

use crate::machine::{Machine, settings};
use crate::{needs_server, stored};

const ALL: DeadRange = DeadRange { from: 0, until: u64::MAX };

fn letter(id: u64, item: impl Into<Bytes>) -> DeadLetter {
    DeadLetter { id: ItemId(id), attempts: id as u32 + 1, cause: format!("cause {id}").into(), item: item.into() }
}

fn bury(machine: &mut Machine, letters: impl IntoIterator<Item = DeadLetter>) {
    letters.into_iter().for_each(|letter| machine.cluster.bury(letter));
    tests::eventually("all to be kept", || {
        machine.look().retain(|answer| !matches!(answer, Answer::Buried(_)));
        machine.cluster.is_idle().then_some(())
    });
}

fn load(machine: &mut Machine, range: DeadRange) -> DeadPage {
    machine.cluster.load_dead(range);
    loaded(machine)
}

fn loaded(machine: &mut Machine) -> DeadPage {
    match machine.wait("dead letters", |answer| matches!(answer, Answer::DeadLoaded(_))) {
        Answer::DeadLoaded(page) => page,
        other => panic!("{other:?}"),
    }
}

/// All of them, page by page.
fn list(machine: &mut Machine) -> Vec<DeadLetter> {
    let (mut letters, mut from) = (Vec::new(), Some(0));
    while let Some(next) = from {
        let page = load(machine, DeadRange { from: next, until: u64::MAX });
        letters.extend(page.letters);
        from = page.next;
    }
    letters
}

fn forget(machine: &mut Machine, id: ItemId) {
    machine.cluster.forget_dead(id);
    assert!(!machine.cluster.is_idle());
    machine.wait("to be told", |answer| matches!(answer, Answer::DeadForgotten(forgotten) if *forgotten == id));
}

#[test]
fn a_dead_letter_is_kept_once_with_its_cause() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    machine.put(0..1);
    let fetched = machine.fetch();
    let id = item_id(fetched.sequence, 0);
    let letter = DeadLetter { id, attempts: 5, cause: "it bröke\r\nin two".into(), item: fetched.batch.item_shared(0) };
    for _ in 0..2 {
        machine.cluster.bury(letter.clone());
        machine.wait("a confirmation", |answer| matches!(answer, Answer::Buried(buried) if *buried == id));
    }
    machine.settle(fetched.sequence);
    let letters = stored(&server.url(), "jobs_dead");
    assert_eq!(letters.len(), 1, "buried twice");
    let (headers, item) = &letters[0];
    assert_eq!(item, b"0");
    assert!(headers.contains(&("Procq-Cause".into(), "it bröke  in two".into())), "{headers:?}");
    assert!(headers.contains(&("Procq-Attempts".into(), "5".into())) && headers.contains(&("Procq-Item".into(), id.0.to_string())));
    machine.sees("it", |view| view.dead == 1);
    let page = DeadPage { letters: vec![DeadLetter { cause: "it bröke  in two".into(), ..letter }], next: None };
    assert_eq!(load(&mut machine, ALL), page);
}

#[test]
fn dead_letters_are_read_in_order_page_by_page_and_forgotten_at_all_machines() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut other) = (Machine::at(&server.url()), Machine::at(&server.url()));
    assert_eq!(load(&mut one, ALL), DeadPage::default());
    let count = DEAD_PAGE_LETTERS_MAX as u64 + 300;
    let letters: Vec<DeadLetter> = (0..count).map(|id| letter(id * 7, format!("item {id}"))).collect();
    bury(&mut one, letters.iter().rev().cloned());
    assert_eq!(list(&mut other), letters);
    other.sees("all of them", |view| view.dead == count);
    assert_eq!(load(&mut other, DeadRange { from: 15, until: 28 }).letters, letters[3..4]);
    for letter in letters.iter().step_by(2) {
        forget(&mut other, letter.id);
    }
    forget(&mut other, ItemId(3));
    one.sees("the rest", |view| view.dead == count / 2);
    assert_eq!(list(&mut one), letters.into_iter().skip(1).step_by(2).collect::<Vec<_>>());
}

#[test]
fn large_dead_letters_fill_a_page_and_empty_ones_are_letters_too() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    let large: Vec<DeadLetter> = (0..6).map(|id| letter(id, vec![id as u8; 500_000])).collect();
    bury(&mut machine, large.iter().cloned().chain([letter(6, ""), letter(u64::MAX - 1, "last")]));
    let page = load(&mut machine, ALL);
    assert_eq!((page.letters, page.next), (large[..3].to_vec(), Some(3)));
    let page = load(&mut machine, DeadRange { from: 6, until: u64::MAX });
    assert_eq!(page.letters, [letter(6, ""), letter(u64::MAX - 1, "last")]);
}

#[test]
fn what_is_read_while_another_forgets_is_there_or_skipped_and_two_questions_are_answered_in_turn() {
    needs_server!();
    let server = NatsServer::start();
    let (mut one, mut other) = (Machine::at(&server.url()), Machine::at(&server.url()));
    bury(&mut one, (0..1000).map(|id| letter(id, "x")));
    (0..1000).filter(|id| id % 3 == 0).for_each(|id| other.cluster.forget_dead(ItemId(id)));
    one.cluster.load_dead(ALL);
    one.cluster.load_dead(DeadRange { from: 1, until: 3 });
    let seen: Vec<u64> = loaded(&mut one).letters.iter().map(|letter| letter.id.0).collect();
    assert!(seen.is_sorted() && (0..1000).filter(|id| id % 3 > 0).all(|id| seen.contains(&id)), "{seen:?}");
    assert_eq!(loaded(&mut one).letters.len(), 2);
}

#[test]
fn a_dead_letter_that_two_machines_put_again_at_once_is_stored_once() {
    needs_server!();
    let server = NatsServer::start();
    let mut machines = [Machine::at(&server.url()), Machine::at(&server.url())];
    bury(&mut machines[0], (0..50).map(|id| letter(id, format!("item {id}"))));
    // Each reads them all, puts them again, and forgets each once that is kept.
    for machine in &mut machines {
        for letter in load(machine, ALL).letters {
            machine.cluster.put(letter.id.0, Batch::one(letter.item), Origin::DeadLetter(letter.id));
        }
    }
    for machine in &mut machines {
        machine.kept(0..50);
        (0..50).for_each(|id| machine.cluster.forget_dead(ItemId(id)));
    }
    let [one, _] = &mut machines;
    let mut times = BTreeMap::new();
    one.drain(50).into_iter().for_each(|item| *times.entry(item).or_insert(0) += 1);
    assert!(times.len() == 50 && times.values().all(|times| *times == 1), "{times:?}");
    one.look().clear();
    one.cluster.look();
    one.sees("nothing more, and no letter", |view| view.messages == 0 && view.dead == 0);
}

#[test]
fn the_end_of_a_run_is_told_with_all_of_its_dead_letters() {
    needs_server!();
    let server = NatsServer::start();
    let rarely = || {
        let mut settings = settings(&server.url());
        settings.timing.look = std::time::Duration::from_secs(2);
        settings
    };
    let (mut one, mut other) = (Machine::open(rarely()), Machine::open(rarely()));
    other.sees("nothing yet", |view| view.dead == 0);
    one.cluster.announce(1, 1);
    one.put(0..1);
    let fetched = one.fetch();
    bury(&mut one, [letter(fetched.sequence << 16, "0")]);
    one.settle(fetched.sequence);
    for machine in [&mut one, &mut other] {
        machine.sees("the end, with the dead letter", |view| view.is_done && view.dead == 1);
        let is_early = |answer: &Answer| matches!(answer, Answer::Cluster(view) if view.is_done && view.dead != 1);
        assert!(!machine.look().iter().any(is_early), "the end was told without it");
    }
}

#[test]
fn letters_are_found_and_forgotten_across_an_outage() {
    needs_server!();
    let mut server = NatsServer::start();
    let mut machine = Machine::at(&server.url());
    bury(&mut machine, (0..100).map(|id| letter(id, "x")));
    server.kill();
    machine.cluster.load_dead(ALL);
    machine.cluster.forget_dead(ItemId(7));
    machine.cluster.look();
    machine.wait("a warning", |answer| matches!(answer, Answer::Outage(_)));
    machine.look().clear();
    server.run();
    assert!(loaded(&mut machine).letters.len() >= 99);
    machine.wait("to be told", |answer| matches!(answer, Answer::DeadForgotten(ItemId(7))));
    machine.sees("the rest", |view| view.dead == 99);
}

#[test]
#[ignore = "a measurement"]
fn how_fast_many_dead_letters_are_listed_and_forgotten() {
    needs_server!();
    let server = NatsServer::start();
    let mut machine = Machine::open(Settings { timing: Default::default(), ..settings(&server.url()) });
    let count = 250_000;
    let started = Instant::now();
    for from in (0..count).step_by(5000) {
        bury(&mut machine, (from..from + 5000).map(|id| letter(id, "a letter")));
    }
    eprintln!("{count} buried in {:?}", started.elapsed());
    let started = Instant::now();
    let letters = list(&mut machine);
    eprintln!("listed in {:?}", started.elapsed());
    assert!(letters.iter().map(|letter| letter.id.0).eq(0..count));
    let started = Instant::now();
    let last = load(&mut machine, DeadRange { from: count - 1, until: count });
    eprintln!("the last alone in {:?}", started.elapsed());
    assert_eq!(last.letters.len(), 1);
    let started = Instant::now();
    let mut from = 0;
    for _ in 0..20 {
        let page = load(&mut machine, DeadRange { from, until: u64::MAX });
        page.letters.iter().for_each(|letter| machine.cluster.forget_dead(letter.id));
        tests::eventually("all to be forgotten", || {
            machine.look();
            machine.cluster.is_idle().then_some(())
        });
        from = page.next.expect("more");
    }
    eprintln!("{from} forgotten in {:?}", started.elapsed());
}
