//! The network between one machine and a server, to be cut.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A way to a server that can be cut and mended.
pub struct Link {
    port: u16,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Link {
    pub fn to(url: &str) -> Link {
        Link::of_version(url, None)
    }

    /// To a server that says to be of this version.
    pub fn to_version(url: &str, version: &'static str) -> Link {
        Link::of_version(url, Some(version))
    }

    fn of_version(url: &str, version: Option<&'static str>) -> Link {
        let target = url.strip_prefix("nats://").expect("an address").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let link = Link { port, is_cut: Arc::default(), streams: Arc::default() };
        let (is_cut, streams) = (Arc::clone(&link.is_cut), Arc::clone(&link.streams));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to, version) in [(&near, &far, None), (&far, &near, version)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    thread::spawn(move || carry(from, to, version));
                }
                streams.lock().expect("the sockets").extend([near, far]);
            }
        });
        link
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().expect("the sockets").drain(..) {
            // One that is closed already cannot be closed, which is just as well.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn carry(from: TcpStream, to: TcpStream, version: Option<&str>) {
    // An end or an error of either side ends both.
    let _ = carry_all(BufReader::new(from), &to, version);
    let _ = to.shutdown(Shutdown::Both);
}

fn carry_all(mut from: BufReader<TcpStream>, mut to: &TcpStream, version: Option<&str>) -> std::io::Result<()> {
    if let Some(version) = version {
        let mut greeting = String::new();
        from.read_line(&mut greeting)?;
        let (head, rest) = greeting.split_once("\"version\":\"").expect("a server's greeting");
        let (_, tail) = rest.split_once('"').expect("a version");
        write!(to, "{head}\"version\":\"{version}\"{tail}")?;
    }
    std::io::copy(&mut from, &mut to)?;
    Ok(())
}
