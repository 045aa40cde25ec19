//! NATS servers to test against: each with a folder of its own, killed when dropped. The program is `nats-server`, or what `PROCQ_NATS_SERVER`
//! names; a test that finds none says that it was skipped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{DEADLINE, eventually, within};

/// The program.
pub fn program() -> PathBuf {
    std::env::var_os("PROCQ_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from)
}

/// True if it can be run; otherwise says that this test is skipped.
pub fn is_there(test: &str) -> bool {
    let asked = Command::new(program()).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = asked.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("skipped: {test} needs nats-server in PATH, or PROCQ_NATS_SERVER=/path/to/nats-server");
    }
    is_there
}

/// Where a server whose configuration is [`config`] listens, once it does: it writes that down.
pub fn address(folder: &Path) -> Option<String> {
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.into())
}

/// A configuration for a server in this folder: any free port unless one is given, JetStream on, and what else there is to say.
pub fn config(folder: &Path, port: Option<u16>, jetstream: &str, more: &str) -> String {
    let port = port.map_or(-1, i32::from);
    let store = folder.join("store");
    format!("listen: \"127.0.0.1:{port}\"\nports_file_dir: {folder:?}\njetstream {{ store_dir: {store:?}{jetstream} }}\n{more}\n")
}

/// A server that all tests of this process share; it ends with the process, however that ends.
pub fn shared_url() -> &'static str {
    static SERVER: OnceLock<(Child, String)> = OnceLock::new();
    let (_, url) = SERVER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder").keep();
        // Each queue reserves what it may hold, and none is deleted before the end. Items may be as large as on other engines.
        let config = config(&folder, None, ", max_memory_store: 1TB, max_file_store: 1TB", "max_payload: 33554432");
        std::fs::write(folder.join("config"), config).expect("a configuration");
        // Nothing is dropped when a test process ends, but its pipes are closed.
        let script = "\"$0\" --config \"$1/config\" > \"$1/log\" 2>&1 & cat > /dev/null; kill -9 $!; rm -rf \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program()).arg(&folder).stdin(Stdio::piped());
        let server = command.spawn().expect("a shell");
        let what = || format!("a NATS server (nats-server in PATH, or PROCQ_NATS_SERVER) that is ready: {}", log_in(&folder));
        let is_ready = || log_in(&folder).contains("Server is ready").then(|| address(&folder)).flatten();
        (server, within(DEADLINE, what, is_ready))
    });
    url
}

fn log_in(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A port that nobody has now, nor gets while its server is down: it lies below those that the system gives to whoever connects.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test processes that run at the same time begin in different places.
        let next = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (next % 22_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A server that runs, or did.
pub struct NatsServer {
    folder: TempDir,
    process: Option<Child>,
    port: u16,
}

impl NatsServer {
    /// Starts a server with JetStream.
    pub fn start() -> NatsServer {
        NatsServer::start_with("")
    }

    /// The same; `more` stands in its configuration.
    pub fn start_with(more: &str) -> NatsServer {
        NatsServer::start_configured("", more)
    }

    fn start_configured(jetstream: &str, more: &str) -> NatsServer {
        let folder = tempfile::tempdir().expect("a folder");
        // Another start is to find the same port.
        let port = free_port();
        std::fs::write(folder.path().join("config"), config(folder.path(), Some(port), jetstream, more)).expect("a configuration");
        let mut server = NatsServer { folder, process: None, port };
        server.run();
        server
    }

    /// Starts one without JetStream.
    pub fn start_plain() -> NatsServer {
        NatsServer::start_plain_with("")
    }

    fn start_plain_with(more: &str) -> NatsServer {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!("listen: \"127.0.0.1:-1\"\nports_file_dir: {:?}\n{more}\n", folder.path());
        std::fs::write(folder.path().join("config"), config).expect("a configuration");
        let mut server = NatsServer { folder, process: None, port: 0 };
        server.run();
        server
    }

    /// Starts one without JetStream, and as its leaf one whose JetStream is a domain: from the first, that can be reached by its name alone.
    pub fn start_with_domain(name: &str) -> [NatsServer; 2] {
        let port = free_port();
        let hub = NatsServer::start_plain_with(&format!("leafnodes {{ listen: \"127.0.0.1:{port}\" }}"));
        let remotes = format!("leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}] }}");
        let leaf = NatsServer::start_configured(&format!(", domain: {name}"), &remotes);
        eventually("a leaf", || hub.log().contains("Leafnode connection created").then_some(()));
        [hub, leaf]
    }

    /// Starts a cluster, and waits until it has a leader. Servers of 2.10 that begin at the same moment on a busy machine may never elect one;
    /// such a cluster is given up for another.
    pub fn start_cluster(count: usize) -> Vec<NatsServer> {
        for _ in 0..3 {
            let servers = NatsServer::launch_cluster(count);
            let until = Instant::now() + DEADLINE / 2;
            while Instant::now() < until {
                if servers.iter().any(|server| server.log().contains("new metadata leader")) {
                    return servers;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("three clusters of {count} servers each have elected no leader");
    }

    fn launch_cluster(count: usize) -> Vec<NatsServer> {
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let routes: Vec<String> = ports.iter().map(|(_, route)| format!("nats-route://127.0.0.1:{route}")).collect();
        let start = |(index, (port, route)): (usize, &(u16, u16))| {
            let folder = tempfile::tempdir().expect("a folder");
            let cluster = format!("cluster {{ name: procq, listen: \"127.0.0.1:{route}\", routes: {routes:?} }}");
            let more = format!("server_name: server{index}\n{cluster}");
            std::fs::write(folder.path().join("config"), config(folder.path(), Some(*port), "", &more)).expect("a configuration");
            let mut server = NatsServer { folder, process: None, port: *port };
            server.launch();
            server
        };
        let mut servers: Vec<NatsServer> = ports.iter().enumerate().map(start).collect();
        servers.iter_mut().for_each(NatsServer::wait);
        servers
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        if self.port > 0 {
            return format!("nats://127.0.0.1:{}", self.port);
        }
        address(self.folder.path()).expect("an address")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        log_in(self.folder.path())
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // One that has ended already cannot be killed, which is just as well.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            crate::signal(process.id(), Signal::TERM);
            process.wait().expect("its end");
        }
    }

    /// Starts it again where it was.
    pub fn run(&mut self) {
        self.launch();
        self.wait();
    }

    /// Stops it without a word, as if it could not be reached; or lets it go on.
    pub fn freeze(&self, is_frozen: bool) {
        let pid = self.process.as_ref().expect("a server that runs").id();
        crate::signal(pid, if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    fn launch(&mut self) {
        let log = File::create(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(program());
        command.arg("--config").arg(self.folder.path().join("config")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the log")).stderr(log);
        self.process = Some(command.spawn().expect("nats-server to start"));
    }

    fn wait(&mut self) {
        eventually("a NATS server that is ready", || {
            let process = self.process.as_mut().expect("a server");
            assert!(matches!(process.try_wait(), Ok(None)), "nats-server has ended: {}", self.log());
            let is_ready = self.log().contains("Server is ready") && (self.port > 0 || address(self.folder.path()).is_some());
            is_ready.then_some(())
        });
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
