//! INT and TERM: the first ends the work after the item at hand, the second at once. A parent's death counts as a second.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::{Scope, ScopedJoinHandle};

use common::Consumer;
use common::program::EXIT_SIGNAL_BASE;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::command::Running;

/// Signals are caught from now on, and wait to be watched.
pub struct Signals {
    int: (UnixStream, UnixStream),
    term: (UnixStream, UnixStream),
}

impl Signals {
    /// Begins to catch them.
    pub fn catch() -> io::Result<Signals> {
        let (int, term) = (UnixStream::pair()?, UnixStream::pair()?);
        pipe::register(SIGINT, int.1.try_clone()?)?;
        pipe::register(SIGTERM, term.1.try_clone()?)?;
        Ok(Signals { int, term })
    }

    /// Watches for them while `consumer` works.
    pub fn watch<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        consumer: &'scope Consumer<[u8]>,
        running: &'scope Running,
    ) -> Watch<'scope> {
        let ends = [self.int.1.try_clone(), self.term.1.try_clone()];
        let parent = rustix::process::getppid();
        let thread = scope.spawn(move || {
            let mut first = None;
            while let Some(signal) = self.next() {
                let orphaned = rustix::process::getppid() != parent;
                if first.is_some() || orphaned {
                    running.kill();
                    std::process::exit(i32::from(EXIT_SIGNAL_BASE + signal));
                }
                first = Some(signal);
                // If the connection is broken, the work ends by that.
                let _ = consumer.stop();
            }
            first
        });
        Watch { ends, thread }
    }

    /// Waits for the next signal; `None` once the watch has ended.
    fn next(&self) -> Option<u8> {
        use rustix::event::{PollFd, PollFlags, poll};
        let sources = [(&self.int.0, SIGINT), (&self.term.0, SIGTERM)];
        loop {
            let mut fds = sources.map(|(stream, _)| PollFd::new(stream, PollFlags::IN));
            if let Err(error) = poll(&mut fds, None)
                && error != rustix::io::Errno::INTR
            {
                return None;
            }
            let readable = fds.map(|fd| !fd.revents().is_empty());
            for ((mut stream, signal), readable) in sources.into_iter().zip(readable) {
                if readable {
                    return matches!(stream.read(&mut [0]), Ok(1)).then_some(signal as u8);
                }
            }
        }
    }
}

/// A thread that waits for signals.
pub struct Watch<'scope> {
    ends: [io::Result<UnixStream>; 2],
    thread: ScopedJoinHandle<'scope, Option<u8>>,
}

impl Watch<'_> {
    /// Ends it. The signal that came first, if one came.
    pub fn end(self) -> Option<u8> {
        for end in self.ends.into_iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
        self.thread.join().ok().flatten()
    }
}
