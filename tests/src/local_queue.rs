//! A queue within this process, for the examples of the documentation: there is nothing to build first, and nothing to clean up.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use clap::Parser;
use common::Endpoint;
use common::status::Phase;
use coordinator::broker::{Broker, Event, Keeping, Setup};
use coordinator::cli::{Cli, Command};
use coordinator::outputs::DeadLetters;
use coordinator::queue::Input;
use tempfile::TempDir;

/// A queue that a thread serves until this is dropped, or the queue is told to end.
pub struct LocalQueue {
    folder: TempDir,
    end: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl LocalQueue {
    /// Serves a queue as `coordinator serve` with these arguments would, those for outputs and a journal aside.
    pub fn serve(arguments: &[&str]) -> LocalQueue {
        let folder = tempfile::tempdir().expect("a folder");
        let (end, ended) = UnixStream::pair().expect("a pair");
        let cli = Cli::parse_from([&["coordinator", "serve"], arguments].concat());
        let Some(Command::Serve(args)) = cli.command else { unreachable!("it is said above") };
        let listener = endpoint_in(folder.path()).bind().expect("a socket");
        let setup = Setup {
            rules: args.queue.rules(args.expect_producers).expect("rules that go together"),
            keeping: Keeping::Nowhere,
            output: Some(&folder.path().join("results")),
            dead_letters: DeadLetters::append_to(&folder.path().join("dead")).expect("a file"),
            screen: None,
            spin: args.queue.spin,
        };
        let broker = Broker::new(listener, setup, &ended).expect("a broker");
        let thread = std::thread::spawn(move || run(broker, &ended));
        LocalQueue { folder, end, thread: Some(thread) }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> Endpoint {
        endpoint_in(self.folder.path())
    }

    /// The results so far.
    pub fn results(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("results")).expect("the results")
    }

    /// The dead letters so far, a line of JSON each.
    pub fn dead_letters(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("dead")).expect("the dead letters")
    }
}

impl Drop for LocalQueue {
    fn drop(&mut self) {
        let _ = self.end.write_all(b".");
        let _ = self.end.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn endpoint_in(folder: &Path) -> Endpoint {
    Endpoint::at(folder.join("q.sock"))
}

fn run(mut broker: Broker, _ended: &UnixStream) {
    let mut draining = false;
    loop {
        for event in broker.turn(None).expect("a loop that goes on") {
            match event {
                Event::Shutdown { now: false } => {
                    broker.feed(Input::Drain);
                    draining = true;
                }
                Event::Watched | Event::Shutdown { now: true } => return,
                Event::WriteFailed(failure) => panic!("{failure:?}"),
                Event::KeepingFailed(error) => panic!("{error}"),
            }
        }
        let status = broker.status();
        if draining && status.phase == Phase::Done && status.consumers + status.producers == 0 {
            return;
        }
    }
}
