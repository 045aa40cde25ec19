//! The coordinator as a service, with systemd's part played by the test: a socket that is passed on, and notices that are read.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::{DEADLINE, Process, eventually, program};

/// systemd, for one service.
struct Systemd {
    folder: TempDir,
    socket: PathBuf,
    notices: UnixDatagram,
}

impl Systemd {
    fn new() -> Systemd {
        let folder = tempfile::tempdir().expect("a folder");
        let notices = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        notices.set_read_timeout(Some(DEADLINE)).expect("a socket");
        Systemd { socket: folder.path().join("q.sock"), folder, notices }
    }

    fn listen(&self) -> UnixListener {
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        chmod(&self.socket, 0o600);
        listener
    }

    /// Starts the coordinator with this for its descriptor 3.
    fn start(&self, passed: impl Into<OwnedFd>, arguments: &[&str]) -> Process {
        let mut command = Command::new("sh");
        // It comes as 0, since a test can pass on no other.
        command.args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""]);
        command.arg(program("coordinator")).args(arguments).env_remove("PROCQ_SOCKET").env_remove("XDG_RUNTIME_DIR");
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        Process::spawn_reading(command, passed.into())
    }

    fn next_notice(&self) -> String {
        let mut bytes = [0; 1000];
        let count = self.notices.recv(&mut bytes).expect("a notice in time");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn client(&self, name: &str, arguments: &[&str]) -> Process {
        Process::start(name, &self.socket, arguments)
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a file of ours");
}

#[test]
fn a_socket_that_is_passed_is_served_with_what_waits_in_it_and_left_where_it_is() {
    let systemd = Systemd::new();
    let listener = systemd.listen();
    let made = std::fs::metadata(&systemd.socket).expect("the socket").ino();
    // It has come before there was a coordinator: that is what the socket is there for.
    let producer = systemd.client("producer", &["--count", "3", "--pause", "none"]);
    // Our socket, and the one for the client that nobody has accepted.
    let place = format!(" {}\n", systemd.socket.display());
    let ends = || std::fs::read_to_string("/proc/net/unix").expect("the kernel's list").matches(&place).count();
    eventually("a client that waits", || (ends() >= 2).then_some(()));
    let mut coordinator = systemd.start(listener.try_clone().expect("a socket"), &["serve"]);
    assert!(systemd.next_notice().starts_with("READY=1\nSTATUS=0 ready, "));
    coordinator.wait_for_stderr(&format!("ready at {} (pid {})", systemd.socket.display(), coordinator.pid()));
    assert_eq!(producer.finish().0, 0);
    let status = systemd.next_notice();
    assert!(status.starts_with("STATUS=3 ready, 0 delayed, 0 held; 0 done, 0 dead; "), "{status}");
    coordinator.signal(Signal::TERM);
    assert_eq!(systemd.next_notice(), "STOPPING=1\nSTATUS=ending");
    assert_eq!(coordinator.wait(), 143);
    assert_eq!(std::fs::metadata(&systemd.socket).expect("the socket, which is not the coordinator's").ino(), made);
    assert!(!systemd.socket.with_extension("sock.lock").exists());
    // The next one takes it up.
    let second = systemd.start(listener, &["serve", "--expect-producers", "1"]);
    assert!(systemd.next_notice().starts_with("READY=1"));
    let consumer = systemd.client("consumer", &[]);
    assert_eq!(systemd.client("producer", &["--count", "2", "--pause", "none"]).finish().0, 0);
    assert_eq!(consumer.finish().1.lines().count(), 2);
    assert_eq!(second.finish().0, 0);
}

#[test]
fn a_run_listens_at_a_passed_socket_too_and_its_children_pass_for_none_of_it() {
    let systemd = Systemd::new();
    let input = systemd.folder.path().join("input");
    std::fs::write(&input, "1\n").expect("a file");
    let show = "echo \"$NOTIFY_SOCKET|$LISTEN_FDS|$LISTEN_PID|$PROCQ_SOCKET\"; readlink /proc/self/fd/* || true";
    let arguments = ["--input", input.to_str().expect("text"), "--consumers", "1", "--", "sh", "-c", show];
    let listener = systemd.listen();
    let kernel_name = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("a descriptor");
    let (code, out, said) = systemd.start(listener, &arguments).finish();
    assert_eq!((code, &said[..]), (0, ""));
    assert_eq!(out.lines().next(), Some(&format!("|||{}", systemd.socket.display())[..]));
    assert!(out.contains("pipe:[") && !out.contains(kernel_name.to_str().expect("text")), "{out}");
}

#[test]
fn whoever_passes_a_socket_that_others_can_come_to_is_refused_with_what_to_set() {
    type Passed<'a> = &'a dyn Fn(&Systemd) -> OwnedFd;
    let cases: [(&str, Passed<'_>, &[&str]); 6] = [
        (
            "SocketMode=0600",
            &|systemd| {
                let listener = systemd.listen();
                chmod(&systemd.socket, 0o666);
                listener.into()
            },
            &[],
        ),
        (
            "can be written by others (mode 0777)",
            &|systemd| {
                chmod(systemd.folder.path(), 0o777);
                systemd.listen().into()
            },
            &[],
        ),
        ("leave out --socket", &|systemd| systemd.listen().into(), &["--socket", "/tmp/another/q.sock"]),
        ("Accept=no", &|_| UnixStream::pair().expect("a pair").0.into(), &[]),
        ("ListenStream= in the .socket unit a path", &|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a socket").into(), &[]),
        (
            "restart the .socket unit",
            &|systemd| {
                let listener = systemd.listen();
                std::fs::remove_file(&systemd.socket).expect("the socket");
                listener.into()
            },
            &[],
        ),
    ];
    for (words, passed, arguments) in cases {
        let systemd = Systemd::new();
        let (code, _, said) = systemd.start(passed(&systemd), &[&["serve"], arguments].concat()).finish();
        assert_eq!((code, said.lines().count()), (1, 1), "{said}");
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
}

#[test]
fn another_user_is_refused_at_a_passed_socket_too() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let systemd = Systemd::new();
    let coordinator = systemd.start(systemd.listen(), &["serve"]);
    coordinator.wait_for_stderr("ready at");
    // The modes would keep it out: here the credentials are to do that alone.
    chmod(systemd.folder.path(), 0o755);
    chmod(&systemd.socket, 0o666);
    let mut command = Command::new("python3");
    let connect = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(30); print(s.recv(1000))";
    command.args(["-c", connect]).arg(&systemd.socket);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    match command.output() {
        Ok(output) => {
            let heard = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(heard.contains("another user"), "{heard}{}", String::from_utf8_lossy(&output.stderr));
            coordinator.wait_for_stderr("refused a connection of user 65534");
        }
        Err(_) => eprintln!("skipped: there is no python3"),
    }
}

#[test]
fn notices_go_to_an_abstract_socket_as_well_and_to_nobody_unless_asked_for() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("procq-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let ear = UnixDatagram::bind_addr(&address).expect("a socket");
    ear.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program("coordinator"));
    command.arg("serve").env("NOTIFY_SOCKET", format!("@{name}"));
    let coordinator = Process::spawn(command, &folder.path().join("q.sock"));
    let mut bytes = [0; 1000];
    let count = ear.recv(&mut bytes).expect("a notice in time");
    assert!(bytes[..count].starts_with(b"READY=1\nSTATUS="));
    coordinator.signal(Signal::TERM);
    let count = ear.recv(&mut bytes).expect("a notice in time");
    assert!(bytes[..count].starts_with(b"STOPPING=1"));
    assert_eq!(coordinator.finish().0, 143);
    ear.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
    assert!(ear.recv(&mut bytes).is_err(), "an end is told of once");
}

#[test]
fn the_example_units_are_units_that_systemd_takes() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples/systemd");
    let folder = tempfile::tempdir().expect("a folder");
    let read = |name: &str| std::fs::read_to_string(units.join(name)).expect("an example");
    let (service, socket) = (read("procq.service"), read("procq.socket"));
    // What it starts is not installed here.
    let installed = "%h/.cargo/bin/coordinator";
    assert!(service.contains(&format!("ExecStart={installed} serve ")));
    let coordinator = program("coordinator");
    std::fs::write(folder.path().join("procq.service"), service.replace(installed, coordinator.to_str().expect("text"))).expect("a file");
    std::fs::write(folder.path().join("procq.socket"), &socket).expect("a file");
    // Its line is one that the coordinator takes.
    let line = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a line");
    let line = line.replace("%S", folder.path().to_str().expect("text"));
    std::fs::create_dir(folder.path().join("procq")).expect("a folder");
    let arguments: Vec<&str> = line.split(' ').skip(1).collect();
    let systemd = Systemd::new();
    let served = systemd.start(systemd.listen(), &arguments);
    assert!(systemd.next_notice().starts_with("READY=1"));
    drop(served);
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).args([folder.path().join("procq.service"), folder.path().join("procq.socket")]);
    match verify.env("XDG_RUNTIME_DIR", folder.path()).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("procq")).collect();
            assert!(about_ours.is_empty(), "{said}");
        }
        Err(_) => eprintln!("skipped in part: there is no systemd-analyze"),
    }
}
