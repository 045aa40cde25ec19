//! INT and TERM: the first ends the work after the item at hand, the second at once. A parent's death counts as a second; of that, a
//! child that was stopped hears by HUP, which the kernel sends to stopped process groups that nobody is left to continue.

use std::io;
use std::thread::{Scope, ScopedJoinHandle};

use common::Consumer;
use common::program::{EXIT_SIGNAL_BASE, tell};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Caught};

use crate::PROGRAM;
use crate::command::Running;

/// Signals are caught from now on, and wait to be watched.
pub struct Signals {
    caught: Caught,
}

impl Signals {
    /// Begins to catch them.
    pub fn catch(is_child: bool) -> io::Result<Signals> {
        let caught = Caught::new([SIGINT, SIGTERM])?;
        if is_child {
            caught.add_signal(SIGHUP)?;
        }
        Ok(Signals { caught })
    }

    /// Watches for them while `consumer` works.
    pub fn watch<'scope>(
        mut self,
        scope: &'scope Scope<'scope, '_>,
        consumer: &'scope Consumer<[u8]>,
        running: &'scope Running,
        quiet: bool,
    ) -> Watch<'scope> {
        let handle = self.caught.handle();
        let parent = rustix::process::getppid();
        let thread = scope.spawn(move || {
            let mut first = None;
            for signal in self.caught.forever() {
                let orphaned = rustix::process::getppid() != parent;
                if signal == SIGHUP && !orphaned {
                    continue;
                }
                let signal = signal as u8;
                if first.is_some() || orphaned {
                    running.kill();
                    std::process::exit(i32::from(EXIT_SIGNAL_BASE + signal));
                }
                first = Some(signal);
                if running.is_busy() && !quiet {
                    tell(PROGRAM, format_args!("finishing the item at hand; signal again to end at once"));
                }
                // If the connection is broken, the work ends by that.
                let _ = consumer.stop();
            }
            first
        });
        Watch { handle, thread }
    }
}

/// A thread that waits for signals.
pub struct Watch<'scope> {
    handle: Handle,
    thread: ScopedJoinHandle<'scope, Option<u8>>,
}

impl Watch<'_> {
    /// Ends it. The signal that came first, if one came.
    pub fn end(self) -> Option<u8> {
        self.handle.close();
        self.thread.join().ok().flatten()
    }
}
