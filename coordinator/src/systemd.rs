//! What systemd does for a service: it may pass on the socket to listen at, and wants to know when the service is ready and when it ends.
//! The only file that names `listenfd`. Nothing of this happens unless the environment says so.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use common::Status;
use common::status::Phase;
use listenfd::ListenFd;
use tracing::debug;

use crate::limits::STATUS_NOTICE;

/// Where notices go: not to be handed on to children, whose word would be taken for ours.
pub const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// The listening socket that was passed to this process, if one was (`LISTEN_FDS`, a `.socket` unit). To be called once, while there is one
/// thread: it takes away the variables, which are meant for nobody else.
pub fn passed_listener() -> Result<Option<UnixListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        bail!("{} sockets were passed (LISTEN_FDS); a queue has one: leave a single ListenStream= in the .socket unit", passed.len());
    }
    let taken = passed.take_unix_listener(0);
    let listener = taken.context("the passed socket (LISTEN_FDS) is no local one; give ListenStream= in the .socket unit a path")?;
    match &listener {
        Some(listener) if !rustix::net::sockopt::socket_acceptconn(listener).context("cannot look at the passed socket")? => {
            bail!("the passed socket (LISTEN_FDS) does not listen; set Accept=no in the .socket unit")
        }
        _ => Ok(listener),
    }
}

/// Tells whoever supervises this process how it is, if somebody asks for that.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    said: String,
    /// When to say how things are, if something has happened since it was said last.
    due: Option<Duration>,
}

impl Notifier {
    /// Tells the one that the environment names.
    pub fn from_env() -> Notifier {
        let to = std::env::var_os(NOTIFY_VARIABLE).filter(|name| !name.is_empty()).and_then(|name| {
            let address = address(&name).inspect_err(|error| debug!(?name, %error, "cannot notify")).ok()?;
            Some((UnixDatagram::unbound().ok()?, address))
        });
        Notifier { to, said: String::new(), due: None }
    }

    /// Clients can connect.
    pub fn ready(&mut self, status: &Status) {
        self.said = in_words(status);
        self.send(&format!("READY=1\nSTATUS={}", self.said));
    }

    /// It is about to end.
    pub fn stopping(&mut self) {
        self.send("STOPPING=1\nSTATUS=ending");
        self.to = None;
    }

    /// When [`Notifier::news`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.due
    }

    /// Something may have happened. How things are is said a while later, once for all of that.
    pub fn news(&mut self, now: Duration, status: impl FnOnce() -> Status) {
        match self.due {
            _ if self.to.is_none() => self.due = None,
            None => self.due = Some(now + STATUS_NOTICE),
            Some(due) if due > now => {}
            Some(_) => {
                self.due = None;
                let words = in_words(&status());
                if words != self.said {
                    self.send(&format!("STATUS={words}"));
                    self.said = words;
                }
            }
        }
    }

    /// Nobody is waited for: what is not taken is not said.
    fn send(&self, notice: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.set_nonblocking(true).and_then(|()| socket.send_to_addr(notice.as_bytes(), address)) {
            debug!(%error, "cannot notify");
        }
    }
}

/// A path, or behind `@` a name that is none.
fn address(name: &OsStr) -> std::io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

fn in_words(status: &Status) -> String {
    let phase = if status.phase == Phase::Running { "" } else { "taking no more items; " };
    let Status { ready, delayed, held, acknowledged, dead, producers, consumers, .. } = status;
    format!(
        "{phase}{ready} ready, {delayed} delayed, {held} held; {acknowledged} done, {dead} dead; {producers} producers, {consumers} consumers"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn heard() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_nonblocking(true).unwrap();
        let to = Some((UnixDatagram::unbound().unwrap(), address(path.as_os_str()).unwrap()));
        (folder, ear, Notifier { to, said: String::new(), due: None })
    }

    fn next(ear: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 500];
        ear.recv(&mut bytes).ok().map(|count| String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[test]
    fn many_news_are_one_notice_and_no_news_are_none() {
        let (_folder, ear, mut notifier) = heard();
        let status = |ready| Status { ready, ..Status::default() };
        notifier.ready(&status(0));
        assert!(next(&ear).unwrap().starts_with("READY=1\nSTATUS=0 ready,"));
        assert_eq!(notifier.next_timeout(), None);
        notifier.news(NOW, || unreachable!());
        notifier.news(NOW, || unreachable!());
        let due = notifier.next_timeout().unwrap();
        assert!(next(&ear).is_none() && due > NOW);
        notifier.news(due, || status(3));
        assert!(next(&ear).unwrap().starts_with("STATUS=3 ready, 0 delayed"));
        assert_eq!(notifier.next_timeout(), None, "an idle service sleeps");
        notifier.news(due, || unreachable!());
        notifier.news(notifier.next_timeout().unwrap(), || status(3));
        assert_eq!(next(&ear), None, "the same is not said again");
        notifier.stopping();
        assert_eq!(next(&ear).unwrap(), "STOPPING=1\nSTATUS=ending");
        notifier.news(NOW, || unreachable!());
        assert_eq!(notifier.next_timeout(), None);
    }

    #[test]
    fn one_that_nobody_asked_for_or_that_does_not_listen_costs_nothing() {
        let mut silent = Notifier { to: None, said: String::new(), due: None };
        silent.news(NOW, || unreachable!());
        assert_eq!(silent.next_timeout(), None);
        let (folder, ear, mut deaf) = heard();
        drop((ear, folder));
        deaf.ready(&Status::default());
    }
}
