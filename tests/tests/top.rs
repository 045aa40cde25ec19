//! The live view, as a person sees it.

use common::Producer;
use rustix::process::Signal;
use tests::engine::first_item;
use tests::terminal::Terminal;
use tests::{Process, Queue, eventually};

/// A queue with ten items, of which a consumer has one at hand for long.
fn queue_at_work() -> (Queue, Producer<[u8]>, Process) {
    let queue = Queue::serve(&[]);
    let producer = Producer::<[u8]>::connect_named(&queue.endpoint(), "by hand").unwrap();
    (0..10).for_each(|n| producer.put(n.to_string().as_bytes()).unwrap());
    producer.flush().unwrap();
    let consumer = queue.client("consumer", &["--", "sleep", "1000"]);
    queue.wait_until("one to be held", |status| status.held == 1);
    (queue, producer, consumer)
}

fn top(queue: &Queue, size: (u16, u16)) -> Terminal {
    Terminal::start(size, queue.socket(), "coordinator", &["top", "--interval", "100ms"])
}

#[test]
fn it_shows_who_has_what_at_hand_and_gives_the_terminal_back_when_it_quits() {
    let (queue, _producer, consumer) = queue_at_work();
    let mut terminal = top(&queue, (24, 80));
    let working = terminal.wait_for("works");
    let words: Vec<&str> = working.split_whitespace().collect();
    assert_eq!(words[..5], ["works", &consumer.pid().to_string(), "1", &first_item().to_string(), "1"], "{working}");
    let putting = terminal.wait_for("by hand");
    let words: Vec<&str> = putting.split_whitespace().collect();
    assert_eq!(words[..3], ["puts", &std::process::id().to_string(), "10"], "{putting}");
    assert!(terminal.wait_for("procq").contains(&format!("pid {}", queue.pid())));
    terminal.wait_for("9 ready  0 delayed  1 held  0 done  0 retried  0 dead");
    // The last row is drawn last.
    eventually("all of the screen to be drawn", || (terminal.is_taken() && terminal.rows().len() == 24).then_some(()));
    terminal.resize((50, 200));
    eventually("all rows to be used", || (terminal.rows().len() == 50).then_some(()));
    terminal.resize((5, 20));
    eventually("a tiny screen to be used", || terminal.rows().iter().all(|row| row.chars().count() <= 20).then_some(()));
    terminal.press("q");
    assert_eq!(terminal.finish(), 0);
    assert!(!terminal.is_taken());
    assert_eq!(terminal.rows(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn it_stops_the_coordinator_once_that_is_confirmed_and_says_that_it_has_ended() {
    let queue = Queue::serve(&[]);
    let mut terminal = top(&queue, (24, 100));
    terminal.wait_for("NO CONSUMERS");
    terminal.press("s");
    terminal.wait_for("Stop?");
    terminal.press("n");
    terminal.wait_for("q quit");
    terminal.press("s");
    terminal.wait_for("Stop?");
    terminal.press("y");
    assert_eq!(terminal.finish(), 0);
    let rows = terminal.rows().concat();
    assert!(rows.contains(&format!("coordinator: pid {} has ended", queue.pid())), "{rows}");
    assert!(!terminal.is_taken());
    assert_eq!(queue.finish().0, 0);
}

#[test]
fn it_pauses_the_queue_and_lets_it_go_on_with_the_same_key() {
    let queue = Queue::serve(&[]);
    let mut terminal = top(&queue, (24, 100));
    terminal.wait_for("p pause");
    terminal.press("p");
    terminal.wait_for("paused: hands out nothing");
    assert!(queue.status().paused);
    // The words about what was done make room for the keys at the next one.
    terminal.press("k");
    terminal.wait_for("p go on");
    terminal.press("p");
    queue.wait_until("it goes on", |status| !status.paused);
    terminal.press("q");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn a_coordinator_that_is_killed_is_told_of_on_a_terminal_that_is_given_back() {
    let (mut queue, producer, _consumer) = queue_at_work();
    let mut terminal = top(&queue, (24, 100));
    terminal.wait_for("works");
    queue.coordinator().kill();
    assert_eq!(terminal.finish(), 0);
    let rows = terminal.rows().concat();
    assert!(rows.contains("has ended") && rows.contains("at the last look: 0 done, 0 dead, 10 left"), "{rows}");
    assert!(!terminal.is_taken());
    drop(producer);
}

#[test]
fn a_coordinator_that_does_not_answer_holds_up_no_key() {
    let (queue, _producer, _consumer) = queue_at_work();
    let mut terminal = top(&queue, (24, 80));
    terminal.wait_for("works");
    tests::signal(queue.pid(), Signal::STOP);
    terminal.wait_for("no answer for");
    terminal.press("q");
    assert_eq!(terminal.finish(), 0);
    tests::signal(queue.pid(), Signal::CONT);
}

#[test]
fn signals_and_control_c_end_it_and_give_the_terminal_back() {
    let queue = Queue::serve(&[]);
    for (signal, code) in [(Some(Signal::TERM), 143), (Some(Signal::HUP), 129), (Some(Signal::INT), 130), (None, 130)] {
        let mut terminal = top(&queue, (24, 80));
        terminal.wait_for("q quit");
        match signal {
            Some(signal) => tests::signal(terminal.pid(), signal),
            None => terminal.press("\x03"),
        }
        assert_eq!(terminal.finish(), code);
        assert!(!terminal.is_taken());
    }
}

#[test]
fn control_z_gives_the_terminal_to_the_shell_until_it_is_continued() {
    let queue = Queue::serve(&[]);
    let script = format!("set -m; {} top; echo suspended; read line; fg; echo over", tests::program("coordinator").display());
    let mut terminal = Terminal::spawn((24, 80), queue.socket(), &[], &["bash", "-c", &script]);
    terminal.wait_for("q quit");
    terminal.press("\x1a");
    terminal.wait_for("suspended");
    assert!(!terminal.is_taken());
    terminal.press("\n");
    terminal.wait_for("q quit");
    terminal.press("q");
    terminal.wait_for("over");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn it_needs_a_terminal_and_a_coordinator() {
    let queue = Queue::serve(&[]);
    let (code, stdout, stderr) = queue.client("coordinator", &["top"]).finish();
    assert_eq!((code, &stdout[..]), (1, ""));
    assert!(stderr.contains("top needs a terminal"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start((24, 80), &folder.path().join("q.sock"), "coordinator", &["top"]);
    assert_eq!(terminal.finish(), 69);
    assert!(terminal.rows().concat().contains("no coordinator at"), "{:?}", terminal.rows());
}
