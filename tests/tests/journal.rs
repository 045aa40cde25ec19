//! Runs with a journal whose processes are killed at any instant, and started again with the same line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tests::random::Random;
use tests::{Process, children_of, eventually, is_alive, name_of, program};

/// How often something is killed in all, unless `JOURNAL_KILLS` says otherwise.
const KILLS: u32 = 40;

fn kills() -> u32 {
    std::env::var("JOURNAL_KILLS").ok().map_or(KILLS, |kills| kills.parse().expect("JOURNAL_KILLS: a number"))
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().map_or(1, |seed| seed.parse().expect("SEED: a number"));
    eprintln!("SEED={seed}");
    seed
}

struct Place {
    folder: TempDir,
    input: PathBuf,
}

impl Place {
    /// A folder with an input of so many lines, none like another.
    fn new(lines: u32) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input");
        std::fs::write(
            &input,
            (0..lines).fold(String::new(), |mut text, n| {
                writeln!(text, "line {n} {}", "x".repeat(n as usize % 60)).unwrap();
                text
            }),
        )
        .unwrap();
        Place { folder, input }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The run, from a file or a pipe.
    fn start(&self, piped: bool, more: &[&str]) -> Process {
        let program = program("coordinator");
        let line = format!(
            "exec {} {} --journal {} --output {} \"$@\"",
            program.display(),
            if piped { "--input -".into() } else { format!("--input {}", self.input.display()) },
            self.path("journal").display(),
            self.path("output").display(),
        );
        let line = if piped { format!("cat {} | ({line})", self.input.display()) } else { line };
        let mut command = Command::new("bash");
        command.args(["-c", &line, "bash"]).args(more);
        Process::spawn(command, &self.path("q.sock"))
    }

    /// Every line of the input is in the output, once.
    fn check(&self, seen: &str) {
        let sorted = |path: &Path| {
            let mut lines: BTreeMap<String, u32> = BTreeMap::new();
            for line in std::fs::read_to_string(path).unwrap().lines() {
                *lines.entry(line.into()).or_default() += 1;
            }
            lines
        };
        let (put, came) = (sorted(&self.input), sorted(&self.path("output")));
        let wrong: Vec<_> = put.iter().filter(|(line, times)| came.get(*line) != Some(times)).take(5).collect();
        assert!(wrong.is_empty(), "not there once: {wrong:?}; {seen}");
        assert_eq!(put.len(), came.len(), "{seen}");
    }
}

/// The coordinator that runs under `process`: itself, or a child of the shell that a pipe needs.
fn coordinator_of(process: &Process) -> Option<u32> {
    let mut all = vec![process.pid()];
    all.extend(children_of(process.pid()));
    all.into_iter().find(|pid| name_of(*pid) == "coordinator")
}

/// Starts the run again and again, killing something each time, until it comes to its end.
fn run_and_kill(place: &Place, piped: bool, more: &[&str], random: &mut Random) -> u32 {
    let mut kills = 0;
    let mut longest = Duration::from_millis(400);
    loop {
        let mut process = place.start(piped, more);
        let until = Instant::now() + Duration::from_micros(random.below(longest.as_micros() as u64));
        while process.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        if process.is_alive()
            && let Some(coordinator) = coordinator_of(&process)
        {
            let mut victims = children_of(coordinator);
            match random.below(4) {
                // A child: the run goes on.
                0 if !victims.is_empty() && !piped => {
                    let victim = random.pick(&victims);
                    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(victim as i32).unwrap(), Signal::KILL);
                    kills += 1;
                    let _ = process.wait();
                }
                // All of them at once.
                1 => {
                    victims.push(coordinator);
                    for victim in &victims {
                        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(*victim as i32).unwrap(), Signal::KILL);
                    }
                    kills += 1;
                }
                _ => {
                    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(coordinator as i32).unwrap(), Signal::KILL);
                    kills += 1;
                }
            }
            eventually("the end of a coordinator that was killed", || (!is_alive(coordinator)).then_some(()));
        }
        let end = process.end();
        if end.starts_with("exit 0") {
            place.check(&end);
            return kills;
        }
        assert!(end.starts_with("exit 137") || end.starts_with("exit 1:") || end.contains("started again"), "{end}");
        assert!(!end.contains("damaged"), "{end}");
        // However slow the machine, it gets somewhere in the end.
        longest = (longest * 5 / 4).min(Duration::from_secs(10));
    }
}

#[test]
fn a_run_that_is_killed_at_any_instant_ends_with_each_result_once() {
    let mut random = Random::new(seed());
    let (mut killed, wanted) = (0, kills());
    while killed < wanted {
        let place = Place::new(60_000);
        let piped = random.chance(40);
        let fsync = if random.chance(50) { "--fsync=always" } else { "--fsync=never" };
        killed += run_and_kill(&place, piped, &[fsync], &mut random);
    }
}

#[test]
fn commands_whose_coordinator_is_killed_run_again_and_each_result_is_there_once() {
    let mut random = Random::new(seed());
    let place = Place::new(300);
    run_and_kill(&place, false, &["--", "printf", "%s\\n", "{}"], &mut random);
}

#[test]
fn a_run_that_was_done_is_done_at_once_when_started_again() {
    let place = Place::new(100);
    for before in [None, Some("going on with 0 items from the journal")] {
        let (code, _, stderr) = place.start(false, &[]).finish();
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stderr.contains("100 were done before"), before.is_some_and(|words| stderr.contains(words)), "{stderr}");
        assert_eq!(before.is_none(), stderr.is_empty(), "{stderr}");
        place.check(&stderr);
    }
    std::fs::write(&place.input, std::fs::read_to_string(&place.input).unwrap() + "one more\n").unwrap();
    let (code, _, stderr) = place.start(false, &[]).finish();
    assert_eq!(code, 0, "{stderr}");
    place.check("what was added is done");
}

#[test]
fn an_input_that_is_not_what_it_was_is_refused_with_the_place() {
    let place = Place::new(100);
    assert_eq!(place.start(false, &[]).finish().0, 0);
    let changed = std::fs::read_to_string(&place.input).unwrap().replace("line 7 ", "line 8 ");
    std::fs::write(&place.input, &changed).unwrap();
    let (code, _, stderr) = place.start(false, &[]).finish();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("100") && stderr.contains("input"), "{stderr}");
    let lines = std::fs::read_to_string(place.path("output")).unwrap().lines().count();
    assert_eq!(lines, 100, "nothing is mixed in");
}

#[test]
fn an_output_that_this_journal_did_not_write_is_left_alone() {
    let place = Place::new(10);
    std::fs::write(place.path("output"), "somebody's\n").unwrap();
    let (code, _, stderr) = place.start(false, &[]).finish();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("output has 11 bytes in it"), "{stderr}");
    assert_eq!(std::fs::read_to_string(place.path("output")).unwrap(), "somebody's\n");
}

/// A small file system of its own for the journal; none where that takes rights that we have not.
fn small_disk(place: &Place) -> Option<PathBuf> {
    let path = place.path("journal");
    std::fs::create_dir(&path).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=700", "none"]).arg(&path).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: mounting a small disk takes root");
        return None;
    }
    Some(path)
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_under_the_journal_ends_the_run_with_its_cause_and_with_room_it_goes_on() {
    let place = Place::new(60_000);
    let Some(disk) = small_disk(&place) else { return };
    let _unmount = Unmount(disk.clone());
    // Nobody takes items, so that all of them stay.
    let (code, _, stderr) = place.start(false, &["--consumers", "1", "--", "sleep", "60"]).finish();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("No space left") && stderr.contains("journal"), "{stderr}");
    assert!(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status().unwrap().success());
    let (code, _, stderr) = place.start(false, &[]).finish();
    assert_eq!(code, 0, "{stderr}");
    place.check(&stderr);
}

#[test]
fn a_second_coordinator_is_kept_from_the_journal_and_told_who_has_it() {
    let place = Place::new(10);
    let mut first = place.start(false, &["--", "sleep", "60"]);
    eventually("the journal to be taken", || place.path("journal/lock").exists().then_some(()));
    let mut command = Command::new(program("coordinator"));
    command.args(["serve", "--journal"]).arg(place.path("journal"));
    let (code, _, stderr) = Process::spawn(command, &place.path("another.sock")).finish();
    assert_eq!(code, 73, "{stderr}");
    assert!(stderr.contains(&first.pid().to_string()) && stderr.contains("another --journal"), "{stderr}");
    let mut look = Command::new(program("coordinator"));
    look.args(["journal", "inspect"]).arg(place.path("journal"));
    let (code, _, stderr) = Process::spawn_plain(look).finish();
    assert!(code == 73 && stderr.contains("`coordinator status`"), "{code}: {stderr}");
    first.kill();
}
