//! Hostile clients as processes of their own, against a coordinator that honest clients keep busy: these lose no item, nor half their
//! rate, and what an attack costs the coordinator's memory is bounded. `PROTOCOL.md` lists what becomes of each.

use rustix::process::Signal;
use tests::{Load, Pace, Process, Queue, eventually, proc_status_kib};

/// A queue that honest clients keep busy.
struct Siege {
    queue: Queue,
    load: Load,
    rate: f64,
    before_kib: u64,
}

impl Siege {
    fn new(arguments: &[&str]) -> Siege {
        let queue = Queue::serve(arguments);
        let load = Load::start(queue.socket(), Pace::Steady);
        let rate = load.rate();
        let before_kib = proc_status_kib(queue.pid(), "VmHWM").unwrap();
        Siege { queue, load, rate, before_kib }
    }

    /// Starts an attack, and returns once it is in full swing.
    fn attack(&self, arguments: &[&str]) -> Process {
        let mut attacker = self.start(arguments);
        eventually(&format!("the attack {arguments:?} to begin"), || {
            assert!(attacker.is_alive(), "{arguments:?}: {}", attacker.end());
            attacker.stdout().contains("begun").then_some(())
        });
        attacker
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let socket = self.queue.socket().to_str().unwrap();
        Process::start("attacker", self.queue.socket(), &[&[socket], arguments].concat())
    }

    /// While it is attacked: honest clients work on, and new ones get in.
    fn assert_goes_on(&self) {
        self.load.wait_for_half_of(self.rate);
        for _ in 0..3 {
            assert_eq!(self.queue.client("coordinator", &["status"]).finish().0, 0);
        }
    }

    /// After the attack: no item is lost or doubled, and it has cost this much memory at most.
    fn end(self, attackers: Vec<Process>, cost_kib: u64) {
        for mut attacker in attackers {
            assert!(attacker.is_alive(), "{}", attacker.end());
            attacker.kill();
        }
        let peak_kib = proc_status_kib(self.queue.pid(), "VmHWM").unwrap();
        let cost = peak_kib - self.before_kib;
        assert!(cost <= cost_kib + LOAD_KIB, "{} KiB before, {peak_kib} KiB at most", self.before_kib);
        self.load.finish();
        self.queue.wait_until("all to be done", |status| status.stored() == 0);
    }
}

/// By how much the honest load's own memory varies: frames on their way, and up to 4 MiB of memory kept for further ones.
const LOAD_KIB: u64 = 16 * 1024;

/// One attacker, from its beginning to its end.
fn withstand(arguments: &[&str], cost_kib: u64) {
    let siege = Siege::new(&[]);
    let attacker = siege.attack(arguments);
    siege.assert_goes_on();
    siege.end(vec![attacker], cost_kib);
}

#[test]
fn random_bytes() {
    withstand(&["noise", "1"], 4 * 1024);
}

#[test]
fn messages_with_numbers_at_the_edges() {
    withstand(&["messages", "1"], 4 * 1024);
}

#[test]
fn a_length_of_four_gibibytes() {
    withstand(&["lengths"], 4 * 1024);
}

#[test]
fn frames_cut_at_each_byte() {
    withstand(&["cuts"], 8 * 1024);
}

#[test]
fn large_frames_that_are_never_finished() {
    withstand(&["halves", "4"], 4 * 17 * 1024 + 4 * 1024);
}

#[test]
fn one_that_comes_and_goes() {
    // An item that it alone holds when it goes has failed for what the coordinator knows: five times, and it is a dead letter.
    let siege = Siege::new(&["--max-attempts", "1000000000"]);
    let attacker = siege.attack(&["fickle"]);
    siege.assert_goes_on();
    siege.end(vec![attacker], 4 * 1024);
}

#[test]
fn one_that_never_reads_what_it_demands() {
    withstand(&["deaf"], 4 * 1024);
}

#[test]
fn one_that_never_reads_what_it_asks() {
    withstand(&["asks"], 8 * 1024);
}

#[test]
fn one_that_reads_a_byte_a_second() {
    withstand(&["slow"], 4 * 1024);
}

#[test]
fn one_that_puts_without_credit() {
    withstand(&["credit"], 20 * 1024);
}

#[test]
fn one_that_settles_what_it_does_not_hold() {
    withstand(&["settles"], 4 * 1024);
}

#[test]
fn one_that_asks_to_be_told_without_end() {
    withstand(&["joins"], 8 * 1024);
}

#[test]
fn one_that_asks_without_end_among_many() {
    let siege = Siege::new(&[]);
    let attackers = vec![siege.attack(&["idle", "5000"]), siege.attack(&["status"])];
    siege.assert_goes_on();
    siege.end(attackers, 32 * 1024);
}

#[test]
fn one_that_asks_without_end_who_is_connected_among_many() {
    let siege = Siege::new(&[]);
    let attackers = vec![siege.attack(&["idle", "5000"]), siege.attack(&["clients"])];
    siege.assert_goes_on();
    siege.end(attackers, 32 * 1024);
}

#[test]
fn more_clients_than_there_may_be() {
    let siege = Siege::new(&[]);
    let mut attackers = vec![siege.start(&["idle", "8500"]), siege.attack(&["idle", "8500"])];
    eventually("all places to be taken", || {
        attackers.iter().any(|attacker| attacker.stdout().contains("as many connections as it takes")).then_some(())
    });
    siege.load.wait_for_half_of(siege.rate);
    let (code, _, said) = siege.queue.client("coordinator", &["status"]).finish();
    assert!(code == 1 && said.contains("as many connections as it takes; try again later"), "exit {code}: {said}");
    attackers.remove(0).kill();
    eventually("room for another", || (siege.queue.client("coordinator", &["status"]).finish().0 == 0).then_some(()));
    siege.end(attackers, 64 * 1024);
}

#[test]
fn a_producer_that_is_stopped_while_it_holds_credit() {
    // It has reserved half of the room.
    let siege = Siege::new(&["--capacity", "1000"]);
    let stopped = siege.queue.client("producer", &["--input", "-"]);
    stopped.wait_for_stderr("connected");
    siege.queue.wait_until("its credit", |status| status.producers == 2);
    stopped.signal(Signal::STOP);
    siege.assert_goes_on();
    siege.end(vec![stopped], 4 * 1024);
}

#[test]
fn twenty_thousand_that_say_nothing() {
    let siege = Siege::new(&[]);
    let attackers = vec![siege.start(&["silent", "10000"]), siege.attack(&["silent", "10000"])];
    siege.assert_goes_on();
    siege.end(attackers, 16 * 1024);
}

#[test]
#[ignore = "a measurement, by hand: cargo test --release -p tests --test attacks -- --ignored --nocapture"]
fn what_each_attack_leaves_to_honest_clients_at_full_speed() {
    let attacks: [&[&str]; 15] = [
        &["noise", "1"],
        &["messages", "1"],
        &["lengths"],
        &["cuts"],
        &["halves", "4"],
        &["silent", "10000"],
        &["idle", "5000"],
        &["deaf"],
        &["asks"],
        &["slow"],
        &["credit"],
        &["settles"],
        &["joins"],
        &["status"],
        &["clients"],
    ];
    for attack in attacks {
        let queue = Queue::serve(&[]);
        let load = Load::start(queue.socket(), Pace::Full);
        let mean = || (0..5).map(|_| load.rate()).sum::<f64>() / 5.0;
        let before = mean();
        let socket = queue.socket().to_str().unwrap();
        let attacker = Process::start("attacker", queue.socket(), &[&[socket], attack].concat());
        attacker.wait_for_stdout("begun");
        let during = mean();
        eprintln!("{:>5.0} % of {before:>7.0} items/s under {attack:?}", 100.0 * during / before);
        drop(attacker);
        load.finish();
    }
}
