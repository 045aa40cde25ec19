//! One path, one owner: coordinators that start at the same moment, a directory that is exchanged meanwhile, files that vanish, any umask.
//!
//! `RACES=1000` sets how many races are run; by default as many as take a few seconds.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use common::endpoint::EndpointError;
use common::{Control, Endpoint};
use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with, statat};
use rustix::process::Signal;
use tests::{Process, Queue, eventually, program, signal};

/// A coordinator of which only the exit code matters. Killed when dropped.
struct Rival(Child);

impl Rival {
    fn start(socket: &Path) -> Rival {
        let mut command = Command::new(program("coordinator"));
        command.arg("serve").arg("--socket").arg(socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Rival(command.spawn().unwrap())
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    fn end_by(mut self, with: Signal) {
        signal(self.0.id(), with);
        self.0.wait().unwrap();
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_together(socket: &Path) -> [Rival; 2] {
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let start = || {
            ready.wait();
            Rival::start(socket)
        };
        let other = scope.spawn(start);
        [start(), other.join().unwrap()]
    })
}

fn owner(socket: &Path) -> Option<u32> {
    let control = Control::connect(&Endpoint::at(socket)).ok()?;
    Some(control.status().ok()?.pid)
}

#[test]
fn of_two_that_start_at_once_exactly_one_gets_the_path_and_keeps_it() {
    let races: u32 = std::env::var("RACES").map_or(200, |races| races.parse().expect("RACES is a number"));
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("q.sock");
    program("coordinator");
    for race in 0..races {
        // What they find: nothing; or, every other time, the socket and lock file of one that was killed.
        let mut rivals = start_together(&socket);
        let codes = eventually(&format!("one of two to give way in race {race}"), || {
            let codes = rivals.each_mut().map(Rival::exit_code);
            codes.iter().any(Option::is_some).then_some(codes)
        });
        let [loser, winner] = if codes[0].is_some() { [0, 1] } else { [1, 0] };
        assert_eq!((codes[loser], codes[winner]), (Some(73), None), "race {race}");
        let winner_pid = rivals[winner].0.id();
        let owned_by = eventually("a coordinator that answers", || owner(&socket));
        assert_eq!(owned_by, winner_pid, "race {race}: the winner was displaced");
        let [a, b] = rivals;
        let winner = if a.0.id() == winner_pid { a } else { b };
        winner.end_by(if race % 2 == 0 { Signal::KILL } else { Signal::TERM });
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, if race % 2 == 0 { 2 } else { 0 }, "race {race}");
    }
}

#[test]
fn two_that_start_while_the_owner_ends_never_both_own_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("q.sock");
    for round in 0..50 {
        let before = Rival::start(&socket);
        eventually("the owner", || owner(&socket).filter(|pid| *pid == before.0.id()));
        signal(before.0.id(), Signal::TERM);
        let mut rivals = start_together(&socket);
        // Each has to find its way in or out. Both may meet the owner that is about to go.
        let alive = eventually("each to own the path or give way", || {
            let codes = rivals.each_mut().map(Rival::exit_code);
            assert!(codes.iter().flatten().all(|code| *code == 73), "round {round}: {codes:?}");
            let alive: Vec<u32> = (0..2).filter(|n| codes[*n].is_none()).map(|n| rivals[n].0.id()).collect();
            match (&alive[..], owner(&socket)) {
                ([], _) => Some(alive),
                ([alone], Some(owner)) if *alone == owner => Some(alive),
                _ => None,
            }
        });
        drop(before);
        assert!(alive.is_empty() || owner(&socket) == Some(alive[0]), "round {round}: the winner was displaced");
        drop(rivals);
    }
}

#[test]
fn a_lock_file_that_is_deleted_under_a_live_coordinator_lets_no_other_in() {
    let queue = Queue::serve(&[]);
    let lock = queue.folder().join("q.sock.lock");
    for _ in 0..3 {
        let _ = std::fs::remove_file(&lock);
        let (code, _, said) = queue.client("coordinator", &["serve"]).finish();
        assert_eq!(code, 73, "{said}");
        assert!(said.contains(&format!("a coordinator (pid {}) already listens", queue.pid())), "{said}");
        assert_eq!(owner(queue.socket()), Some(queue.pid()));
    }
    assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0);
    let (code, _, said, folder) = queue.finish();
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn one_whose_files_are_all_deleted_serves_its_clients_on_and_takes_nothing_from_its_successor() {
    let mut first = Queue::serve(&[]);
    let producer = common::Producer::<[u8]>::connect(&first.endpoint()).unwrap();
    let consumer = common::Consumer::<[u8]>::connect(&first.endpoint()).unwrap();
    for name in ["q.sock", "q.sock.lock"] {
        std::fs::remove_file(first.folder().join(name)).unwrap();
    }
    let second = first.client("coordinator", &["serve"]);
    second.wait_for_stderr("ready at");
    producer.put(b"x").unwrap();
    consumer.get().unwrap().unwrap().ack().unwrap();
    first.coordinator().signal(Signal::TERM);
    assert_eq!(first.coordinator().wait(), 143);
    assert_eq!(owner(first.socket()), Some(second.pid()));
    second.signal(Signal::TERM);
    assert_eq!(second.finish().0, 143);
    assert_eq!(std::fs::read_dir(first.folder()).unwrap().count(), 0);
}

/// Says that it is enough, whichever way a test ends.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_listens_behind_a_link_that_takes_the_directorys_place_between_check_and_bind() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, link, elsewhere] = ["ours", "link", "elsewhere"].map(|name| folder.path().join(name));
    for directory in [&ours, &elsewhere] {
        std::fs::create_dir(directory).unwrap();
        std::fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    }
    symlink(&elsewhere, &link).unwrap();
    let endpoint = Endpoint::at(ours.join("q.sock"));
    // By this it is found whatever it is called at the moment.
    let checked = File::open(&ours).unwrap();
    let is_in_ours = || statat(&checked, "q.sock", AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let strayed = elsewhere.join("q.sock");
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _enough = Enough(&enough);
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                renameat_with(CWD, &ours, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (mut made, mut refused, mut exchanged) = (0, 0, 0);
        eventually("some of each of three outcomes", || {
            match endpoint.bind() {
                Ok(listener) => {
                    assert!(is_in_ours() && !strayed.exists(), "it listens elsewhere");
                    drop(listener);
                    made += 1;
                }
                Err(EndpointError::Unsafe { what, .. }) if what.contains("exchanged") => exchanged += 1,
                Err(EndpointError::Unsafe { what, .. }) if what.contains("symbolic link") => refused += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(!is_in_ours(), "a socket was left behind");
            // One to which nobody listens may be left there: it was made by a path that leads back to ours by now.
            let _ = std::fs::remove_file(&strayed);
            (made > 10 && refused > 10 && exchanged > 10).then_some(())
        });
    });
}

#[test]
fn whatever_the_umask_only_the_owner_can_get_at_the_socket() {
    for umask in ["000", "077", "0777"] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("made/q.sock");
        let mut coordinator = Process::start_after(&format!("umask {umask}"), "coordinator", &socket, &["serve"]);
        coordinator.wait_for_stderr("ready at");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(socket.parent().unwrap()), mode(&socket)), (0o700, 0o600), "umask {umask}");
        assert_eq!(mode(&socket.with_extension("sock.lock")) & 0o077, 0, "umask {umask}");
        coordinator.kill();
        let second = Process::start_after(&format!("umask {umask}"), "coordinator", &socket, &["serve"]);
        second.wait_for_stderr("ready at");
        second.signal(Signal::TERM);
        assert_eq!(second.finish().0, 143, "umask {umask}");
    }
}
