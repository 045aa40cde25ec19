//! Where programs meet: sockets that are missing, taken, stale, unsafe or another user's, and peers that speak garbage.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::frame::FrameReader;
use common::limits::PROTOCOL_VERSION;
use common::message::{CloseReason, ItemId, ItemRange, Message, Role};
use rustix::process::Signal;
use tests::{DEADLINE, Process, Queue, eventually, proc_status_kib, program};

/// The user and group `nobody`, to whom nothing here belongs.
const NOBODY: u32 = 65534;

/// Each way to be a client.
const CLIENTS: [(&str, &[&str]); 4] =
    [("producer", &["--count", "1", "--pause", "none"]), ("consumer", &[]), ("coordinator", &["status"]), ("coordinator", &["stop"])];

/// Each way to be the coordinator of a socket.
const OWNERS: [(&str, &[&str]); 2] = [("coordinator", &["serve"]), ("coordinator", &["--input", "/dev/null"])];

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a file or folder of ours");
}

/// Runs a program that has to end with this code and one line on stderr, which holds these words.
fn assert_refused(socket: &Path, (name, arguments): (&str, &[&str]), code: i32, words: &[&str]) {
    let (ended, stdout, said) = Process::start(name, socket, arguments).finish();
    assert_eq!((ended, &stdout[..], said.lines().count()), (code, "", 1), "{name} {arguments:?} at {}: {said}", socket.display());
    for words in words {
        assert!(said.contains(words), "{name} {arguments:?}: {words:?} is missing in {said:?}");
    }
}

fn assert_all_refused(socket: &Path, words: &[&str]) {
    CLIENTS.into_iter().chain(OWNERS).for_each(|program| assert_refused(socket, program, 1, words));
}

/// True for root, who alone can be another user, too.
fn can_be_another_user() -> bool {
    rustix::process::geteuid().is_root()
}

/// An item passes through the queue.
fn assert_serves(queue: &Queue) {
    let accepted = queue.status().accepted;
    assert_eq!(queue.client("producer", &["--count", "1", "--pause", "none"]).finish().0, 0);
    assert_eq!(queue.status().accepted, accepted + 1);
}

#[test]
fn without_a_coordinator_every_client_ends_with_69_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("q.sock");
    let advice = ["start one with `coordinator serve`", "--socket or PROCQ_SOCKET"];
    for client in CLIENTS {
        let found = format!("no coordinator at {}: there is no such socket", socket.display());
        assert_refused(&socket, client, 69, &[&found, advice[0], advice[1]]);
        assert_refused(&folder.path().join("none/q.sock"), client, 69, &["its directory does not exist", advice[0]]);
    }
    for name in ["producer", "consumer"] {
        assert_refused(&socket, (name, &["--wait", "200ms"]), 69, &["no coordinator at", advice[0], advice[1]]);
    }
}

#[test]
fn clients_that_wait_find_a_coordinator_that_comes_up_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("made/q.sock");
    let producer = Process::start("producer", &socket, &["--wait", "1h", "--count", "3", "--pause", "none"]);
    let consumer = Process::start("consumer", &socket, &["--wait", "1h"]);
    for client in [&producer, &consumer] {
        // It goes to sleep between tries: the kernel counts that.
        let sleeps = || proc_status_kib(client.pid(), "voluntary_ctxt_switches").expect("a live process");
        let before = sleeps();
        eventually("several tries to connect", || (sleeps() >= before + 10).then_some(()));
    }
    let coordinator = Process::start("coordinator", &socket, &["serve", "--expect-producers", "1"]);
    assert_eq!(producer.finish().0, 0);
    let (code, items, _) = consumer.finish();
    assert_eq!((code, items.lines().count()), (0, 3));
    assert_eq!(coordinator.finish().0, 0);
}

#[test]
fn a_path_too_long_for_a_socket_says_its_length_and_the_limit() {
    let long = format!("/tmp/{}", "x".repeat(200));
    assert_all_refused(Path::new(&long), &["has 205 bytes", "at most 107 fit", "choose a shorter one"]);
}

#[test]
fn what_is_no_socket_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("precious");
    std::fs::write(&socket, "precious").expect("a file");
    assert_all_refused(&socket, &[&format!("{} is not a socket", socket.display()), "choose another path"]);
    assert_eq!(std::fs::read(&socket).expect("the file"), b"precious");
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for mode in [0o777, 0o770, 0o702, 0o1777] {
        chmod(folder.path(), mode);
        let found = format!("{} can be written by others (mode {mode:04o})", folder.path().display());
        assert_all_refused(&folder.path().join("q.sock"), &[&found, "chmod 700"]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn a_link_to_the_directory_or_to_the_socket_is_not_followed() {
    let queue = Queue::serve(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    symlink(queue.folder(), folder.path().join("linked")).expect("a link");
    assert_all_refused(&folder.path().join("linked/q.sock"), &["linked is a symbolic link", "give the real directory's path"]);
    for target in [queue.socket(), Path::new("/no/such/socket")] {
        let link = folder.path().join("link.sock");
        symlink(target, &link).expect("a link");
        assert_all_refused(&link, &["link.sock is a symbolic link", "give the socket's real path"]);
        assert_eq!(std::fs::read_link(&link).expect("still a link"), target);
        std::fs::remove_file(&link).expect("a link");
    }
    // Nor is a link in the lock file's place: what it leads to would be overwritten.
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "precious").expect("a file");
    symlink(&precious, folder.path().join("new.sock.lock")).expect("a link");
    OWNERS.into_iter().for_each(|owner| assert_refused(&folder.path().join("new.sock"), owner, 1, &["cannot open the lock file"]));
    assert_eq!(std::fs::read(&precious).expect("the file"), b"precious");
    assert_serves(&queue);
}

#[test]
fn a_directory_or_a_socket_of_another_user_is_refused() {
    if !can_be_another_user() {
        return eprintln!("skipped: only root can give files to another user or become one");
    }
    let mut queue = Queue::serve(&[]);
    let owned = format!("belongs to user {NOBODY}, not to you");
    chown(queue.socket(), Some(NOBODY), Some(NOBODY)).expect("root");
    CLIENTS.into_iter().for_each(|client| assert_refused(queue.socket(), client, 1, &["q.sock", &owned, "choose another path"]));
    queue.coordinator().kill();
    // Stale, too, it is not ours to remove.
    assert_all_refused(queue.socket(), &["q.sock", &owned, "choose another path"]);
    chown(queue.socket(), Some(0), Some(0)).expect("root");
    chown(queue.folder(), Some(NOBODY), Some(NOBODY)).expect("root");
    assert_all_refused(queue.socket(), &[&queue.folder().display().to_string(), &owned, "use a directory of your own"]);
    assert!(queue.socket().exists());
}

#[test]
fn a_second_coordinator_is_refused_with_the_firsts_pid_and_the_first_goes_on() {
    let queue = Queue::serve(&[]);
    for owner in OWNERS.into_iter().chain([("coordinator", &[][..])]) {
        let first = format!("a coordinator (pid {}) already listens at {}", queue.pid(), queue.socket().display());
        assert_refused(queue.socket(), owner, 73, &[&first, "give this one another --socket, or end that one with `coordinator stop`"]);
        assert_serves(&queue);
    }
}

#[test]
fn a_stale_socket_is_taken_over_by_exactly_one() {
    let mut queue = Queue::serve(&[]);
    queue.coordinator().kill();
    assert!(queue.socket().exists());
    assert_refused(queue.socket(), CLIENTS[0], 69, &["the one that made this socket is gone"]);
    let mut rivals: Vec<Process> = (0..5).map(|_| queue.client("coordinator", &["serve"])).collect();
    eventually("all but one to end", || (rivals.iter().filter(|rival| rival.is_alive()).count() <= 1).then_some(()));
    let winner = rivals.iter().position(Process::is_alive).expect("one that serves");
    let winner = rivals.swap_remove(winner);
    winner.wait_for_stderr("ready at");
    for rival in rivals {
        let (code, _, said) = rival.finish();
        assert!(code == 73 && said.contains("already listens at"), "exit {code}: {said}");
    }
    assert_eq!(queue.status().pid, winner.pid());
    assert_serves(&queue);
}

#[test]
fn an_orderly_end_leaves_no_socket_and_no_lock_file_behind() {
    type End = fn(&Queue);
    let ends: [(i32, End); 5] = [
        (0, |queue| assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0)),
        (0, |queue| assert_eq!(queue.client("coordinator", &["stop", "--now"]).finish().0, 0)),
        (130, |queue| tests::signal(queue.pid(), Signal::INT)),
        (143, |queue| tests::signal(queue.pid(), Signal::TERM)),
        (0, |queue| assert_eq!(queue.client("producer", &["--count", "0"]).finish().0, 0)),
    ];
    for (expected, end) in ends {
        let queue = Queue::serve(&["--expect-producers", "1"]);
        end(&queue);
        let (code, _, said, folder) = queue.finish();
        assert_eq!(code, expected, "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
}

#[test]
fn another_users_producer_is_refused() {
    if !can_be_another_user() {
        return eprintln!("skipped: only root can give files to another user or become one");
    }
    let queue = Queue::serve(&[]);
    let copies = tempfile::tempdir().expect("a folder");
    let copy = copies.path().join("producer");
    // Where this was built, another user may not reach it. Not copied by this process: a child that another test starts at that moment
    // would have the copy open for writing, too, and such a file cannot be run.
    assert!(Command::new("cp").arg(program("producer")).arg(&copy).status().is_ok_and(|status| status.success()));
    chmod(copies.path(), 0o755);
    for (mode, words) in [(0o700, "Permission denied"), (0o755, "belongs to user 0, not to you; use a directory of your own")] {
        chmod(queue.folder(), mode);
        let mut command = Command::new(&copy);
        command.args(["--count", "1", "--pause", "none"]).uid(NOBODY).gid(NOBODY);
        let (code, _, said) = Process::spawn(command, queue.socket()).finish();
        assert!(code == 1 && said.contains(words), "exit {code}: {said}");
    }
    assert_eq!(queue.status().accepted, 0);
    assert_serves(&queue);
}

/// Connects as another user, without the library's own checks. Prints `kept out`, or all that it hears in hexadecimal digits.
const STRANGER: &str = "
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
stream = socket.socket(socket.AF_UNIX)
try: stream.connect(sys.argv[1])
except PermissionError: sys.exit(print('kept out'))
try: stream.sendall(bytes.fromhex(sys.argv[2]))
except OSError: pass
heard = b''
try:
    while piece := stream.recv(4096): heard += piece
except ConnectionResetError: pass
print(heard.hex())
";

#[test]
fn each_of_three_locks_alone_keeps_another_user_out() {
    let has_python = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_python || !can_be_another_user() {
        return eprintln!("skipped: it takes root and python3 to play another user");
    }
    let mut queue = Queue::serve(&[]);
    let says = [hello(Role::Control), frame(&Message::Shutdown { now: true })].concat();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stranger = |directory, socket| {
        chmod(queue.folder(), directory);
        chmod(queue.socket(), socket);
        let mut command = Command::new("python3");
        command.args(["-c", STRANGER]).arg(queue.socket()).arg(hex(&says));
        let (code, heard, said) = Process::spawn(command, queue.socket()).finish();
        assert_eq!(code, 0, "{said}");
        heard.trim().to_string()
    };
    assert_eq!(stranger(0o700, 0o666), "kept out", "the directory's mode alone");
    assert_eq!(stranger(0o755, 0o600), "kept out", "the socket's mode alone");
    let refusal = Message::Close { reason: CloseReason::Forbidden, words: "this queue belongs to another user".into() };
    assert_eq!(stranger(0o755, 0o666), hex(&frame(&refusal)), "the peer's credentials alone");
    queue.coordinator().wait_for_stderr(&format!("coordinator: refused a connection of user {NOBODY}"));
    assert_serves(&queue);
}

fn frame(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(0, &mut bytes);
    bytes
}

fn hello(role: Role) -> Vec<u8> {
    frame(&Message::Hello { version: PROTOCOL_VERSION, role, name: String::new() })
}

fn connect(queue: &Queue) -> UnixStream {
    let stream = UnixStream::connect(queue.socket()).expect("a coordinator that listens");
    stream.set_read_timeout(Some(DEADLINE)).and_then(|()| stream.set_write_timeout(Some(DEADLINE))).expect("a socket");
    stream
}

/// Says these bytes, and returns why the coordinator closed the connection over them.
fn told(queue: &Queue, bytes: &[u8]) -> (CloseReason, String) {
    let mut stream = connect(queue);
    // It may have heard enough before all is said.
    let _ = stream.write_all(bytes);
    match heard_to_the_end(&mut stream).pop() {
        Some(Message::Close { reason, words }) => (reason, words),
        other => panic!("no reason was given, but {other:?}"),
    }
}

fn heard_to_the_end(stream: &mut UnixStream) -> Vec<Message> {
    let mut heard = Vec::new();
    // The end may come as a reset, when not all that we said was read.
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let (mut reader, mut bytes) = (FrameReader::new(usize::MAX), &heard[..]);
    let frames = std::iter::from_fn(|| reader.next(&mut bytes).expect("frames"));
    frames.map(|frame| Message::decode(frame).expect("messages").message).collect()
}

#[test]
fn peers_of_different_versions_tell_both() {
    let queue = Queue::serve(&[]);
    for role in [Role::Producer, Role::Consumer, Role::Control] {
        let (reason, words) = told(&queue, &frame(&Message::Hello { version: 99, role, name: String::new() }));
        assert_eq!(reason, CloseReason::Version);
        assert!(words.contains("version 99") && words.contains("version 1"), "{words}");
    }
    assert_serves(&queue);
}

/// Bytes that look like nothing, the same in every run; not a version's number first.
fn noise(count: usize) -> Vec<u8> {
    let next = |state: &u64| Some(state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    std::iter::successors(next(&99), next).map(|state| (state >> 56) as u8 | 0x80).take(count).collect()
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

#[test]
fn garbage_and_half_frames_hold_up_nobody() {
    let queue = Queue::serve(&[]);
    let consumer = queue.client("consumer", &[]);
    let mut producer = queue.client("producer", &["--input", "-"]);
    let mut count = 0;
    let mut assert_passing = || {
        let more: String = (count..count + 50).map(|n| format!("{n}\n")).collect();
        count += 50;
        producer.write(more.as_bytes());
        eventually("honest items to pass", || (consumer.stdout().lines().count() == count).then_some(()));
    };
    assert_passing();
    let put_without_body = framed(&[4, 0, 200, 1, 1]);
    let bad: [Vec<u8>; 6] = [noise(100_000), vec![0xff; 4], vec![0; 4], framed(&noise(1000)), framed(&[2, 99]), put_without_body];
    for bytes in &bad {
        assert_eq!(told(&queue, bytes).0, CloseReason::Protocol, "{bytes:.10?}");
        assert_passing();
        for role in [Role::Producer, Role::Consumer, Role::Control] {
            let (reason, words) = told(&queue, &[&hello(role)[..], bytes].concat());
            assert!(reason == CloseReason::Protocol && !words.is_empty(), "{role} {bytes:.10?}: {reason:?} {words}");
        }
        assert_passing();
    }
    // A message that this role may not send, or about an item that it does not hold.
    let ack = Message::Ack { ranges: vec![ItemRange { first: ItemId(0), count: u32::MAX }] };
    for (role, message) in [(Role::Producer, &ack), (Role::Consumer, &ack), (Role::Control, &Message::Stop)] {
        assert_eq!(told(&queue, &[hello(role), frame(message)].concat()).0, CloseReason::Protocol, "{role} {message:?}");
    }
    let mut kept = Vec::new();
    let whole = [hello(Role::Producer), framed(&noise(500))].concat();
    for cut in 1..whole.len().min(40) {
        // One goes away, one only says that it says no more, one keeps still.
        for end in 0..3 {
            let mut stream = connect(&queue);
            stream.write_all(&whole[..cut]).expect("a coordinator that reads");
            let _ = (end == 1).then(|| stream.shutdown(Shutdown::Write));
            kept.extend((end > 0).then_some(stream));
        }
    }
    assert_passing();
    drop(kept);
    queue.wait_until("the others to be gone", |status| (status.producers, status.consumers) == (1, 1));
    assert_passing();
    assert_eq!(producer.finish().0, 0);
    assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0);
    let (code, items, _) = consumer.finish();
    assert_eq!((code, items), (0, (0..count).map(|n| format!("{n}\n")).collect()));
    let (code, _, said, _folder) = queue.finish();
    assert_eq!(code, 0, "{said}");
}

#[test]
fn items_held_by_a_consumer_that_sends_garbage_go_back_at_once() {
    let queue = Queue::serve(&[]);
    let mut thief = connect(&queue);
    thief.write_all(&[hello(Role::Consumer), frame(&Message::Demand { items: 5, bytes: 1000 })].concat()).expect("a socket");
    queue.wait_until("the demand", |status| status.consumers_waiting == 1);
    assert_eq!(queue.client("producer", &["--count", "5", "--pause", "none"]).finish().0, 0);
    queue.wait_until("the thief to hold all", |status| status.held == 5);
    thief.write_all(&noise(1000)).expect("a coordinator that reads");
    let heard = heard_to_the_end(&mut thief);
    assert!(matches!(heard.last(), Some(Message::Close { reason: CloseReason::Protocol, .. })), "{heard:?}");
    queue.wait_until("the items to come back", |status| (status.ready, status.held) == (5, 0));
    let consumer = queue.client("consumer", &[]);
    assert_eq!(queue.client("coordinator", &["stop"]).finish().0, 0);
    let (code, items, _) = consumer.finish();
    assert_eq!((code, items.lines().count()), (0, 5));
}
