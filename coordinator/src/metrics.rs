//! The queue's figures over HTTP, for Prometheus and the like. The only file that names `httparse`.
//!
//! A thread of its own serves a few connections at a time, none of which is waited for: each has a place for one small request, a deadline
//! and one answer. Who comes when all places are taken gets that of the one that is there for longest.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::figures::Asker;
use crate::limits::{
    FIGURES_WAIT, HTTP_ACCEPT_RETRY, HTTP_CLIENTS_MAX, HTTP_DEADLINE, HTTP_HEADERS_MAX, HTTP_REQUEST_BYTES_MAX, METRICS_FRESH,
};
use crate::status::prometheus;

/// An address of this machine that no other can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loopback(SocketAddr);

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Loopback, String> {
        let words = "give an address and a port, such as 127.0.0.1:9464; port 0 takes any that is free";
        // `localhost` is looked up, as nothing else is: a name may lead elsewhere tomorrow.
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse::<u16>().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        let address = address.ok_or(words)?;
        if !address.ip().is_loopback() {
            let advice = "let others in by a proxy that knows them, or by `ssh -L`";
            return Err(format!("{} can be reached from other machines, and anyone there could read the figures; {advice}", address.ip()));
        }
        Ok(Loopback(address))
    }
}

/// A place where figures are to be had, before there are any.
#[derive(Debug)]
pub struct Metrics {
    listener: TcpListener,
}

impl Metrics {
    /// Takes the address.
    pub fn bind(Loopback(address): Loopback) -> Result<Metrics> {
        let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener =
            bound.with_context(|| format!("cannot serve metrics at {address}; give another --metrics, or port 0 for any that is free"))?;
        Ok(Metrics { listener })
    }

    /// Where.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves what `asker` gets for as long as the program runs.
    pub fn serve(self, asker: Asker) -> io::Result<()> {
        let server = Server { listener: self.listener, asker, clients: VecDeque::new(), text: None, refused_until: None };
        thread::Builder::new().name("metrics".into()).spawn(move || server.run()).map(|_| ())
    }
}

struct Server {
    listener: TcpListener,
    asker: Asker,
    /// In the order of coming.
    clients: VecDeque<Client>,
    /// What was served last, and when that was.
    text: Option<(Instant, String)>,
    /// The system has no descriptor for another connection: looked at again then.
    refused_until: Option<Instant>,
}

struct Client {
    stream: TcpStream,
    until: Instant,
    request: Vec<u8>,
    /// What is still to be sent, once the request is there.
    answer: Option<VecDeque<u8>>,
}

/// What became of a connection.
#[derive(PartialEq)]
enum Step {
    Waits,
    IsOver,
}

impl Server {
    fn run(mut self) {
        loop {
            self.wait();
            self.accept();
            let mut clients = std::mem::take(&mut self.clients);
            clients.retain_mut(|client| client.until > Instant::now() && self.step(client) == Step::Waits);
            self.clients = clients;
        }
    }

    /// Until there is news, or somebody's time is up.
    fn wait(&self) {
        let now = Instant::now();
        let accepts = self.refused_until.is_none_or(|until| until <= now);
        let listener = accepts.then(|| PollFd::new(&self.listener, PollFlags::IN));
        let wanted = |client: &Client| if client.answer.is_some() { PollFlags::OUT } else { PollFlags::IN };
        let clients = self.clients.iter().map(|client| PollFd::new(&client.stream, wanted(client)));
        let mut watched: Vec<PollFd<'_>> = listener.into_iter().chain(clients).collect();
        let deadlines = self.clients.iter().map(|client| client.until).chain(self.refused_until.filter(|_| !accepts));
        let timeout = deadlines.min().map(|until| until.saturating_duration_since(now));
        let timeout = timeout.map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) });
        // Interrupted, it merely looks too soon.
        let _ = poll(&mut watched, timeout.as_ref());
    }

    fn accept(&mut self) {
        self.refused_until = None;
        // Some at a time: those who are there are to be heard, too.
        for _ in 0..HTTP_CLIENTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if self.clients.len() == HTTP_CLIENTS_MAX {
                        self.clients.pop_front();
                    }
                    let until = Instant::now() + HTTP_DEADLINE;
                    self.clients.push_back(Client { stream, until, request: Vec::new(), answer: None });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.refused_until = Some(Instant::now() + HTTP_ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    fn step(&mut self, client: &mut Client) -> Step {
        if client.answer.is_none() {
            match client.read() {
                Ok(true) => client.answer = Some(self.answer(&client.request).into()),
                Ok(false) => return Step::Waits,
                Err(_) => return Step::IsOver,
            }
        }
        client.write()
    }

    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        match target(request) {
            Err(status) => response(status, "text/plain", &format!("{status}\n"), true),
            Ok((method, "/metrics")) => match self.metrics() {
                Some(text) => response("200 OK", prometheus::CONTENT_TYPE, &text, method != "HEAD"),
                None => response("503 Service Unavailable", "text/plain", "the coordinator is busy; try again\n", method != "HEAD"),
            },
            Ok((method, _)) => response("404 Not Found", "text/plain", "there is only /metrics\n", method != "HEAD"),
        }
    }

    /// The figures; for many who ask at once, the same.
    fn metrics(&mut self) -> Option<String> {
        if let Some((_, text)) = self.text.as_ref().filter(|(since, _)| since.elapsed() < METRICS_FRESH) {
            return Some(text.clone());
        }
        let text = prometheus::as_text(&self.asker.ask(FIGURES_WAIT)?);
        self.text = Some((Instant::now(), text.clone()));
        Some(text)
    }
}

impl Client {
    /// Reads what has come. True once the request is whole, or no longer one.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if target(&self.request) != Err(INCOMPLETE) {
                return Ok(true);
            }
        }
    }

    fn write(&mut self) -> Step {
        let Some(answer) = &mut self.answer else { return Step::Waits };
        loop {
            let (piece, _) = answer.as_slices();
            if piece.is_empty() {
                // With what is unread in it, the socket would be reset, and the answer lost with it.
                let _ = self.stream.read(&mut [0; 16 * 1024]);
                let _ = self.stream.shutdown(std::net::Shutdown::Write);
                return Step::IsOver;
            }
            match self.stream.write(piece) {
                Ok(count) => drop(answer.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::IsOver,
            }
        }
    }
}

const INCOMPLETE: &str = "100 Continue";

/// The method and path of a request, or the status that answers what is none. [`INCOMPLETE`]: more is to come.
fn target(request: &[u8]) -> Result<(&str, &str), &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Err(httparse::Error::TooManyHeaders) => Err("431 Request Header Fields Too Large"),
        Err(_) => Err("400 Bad Request"),
        Ok(httparse::Status::Partial) if request.len() > HTTP_REQUEST_BYTES_MAX => Err("431 Request Header Fields Too Large"),
        Ok(httparse::Status::Partial) => Err(INCOMPLETE),
        Ok(httparse::Status::Complete(_)) => match (parsed.method, parsed.path) {
            (Some(method @ ("GET" | "HEAD")), Some(path)) => Ok((method, path.split('?').next().unwrap_or(path))),
            _ => Err("405 Method Not Allowed"),
        },
    }
}

fn response(status: &str, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n");
    if with_body { (head + body).into_bytes() } else { head.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_served() {
        for text in ["127.0.0.1:9464", "[::1]:0", "localhost:80", "127.8.9.1:1"] {
            text.parse::<Loopback>().unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        for text in ["0.0.0.0:9464", "[::]:9464", "192.168.1.1:80", "8.8.8.8:53"] {
            assert!(text.parse::<Loopback>().unwrap_err().contains("other machines"), "{text}");
        }
        for text in ["", "9464", "localhost", "example.org:80", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(text.parse::<Loopback>().unwrap_err().contains("127.0.0.1:9464"), "{text}");
        }
    }

    #[test]
    fn a_request_is_answered_by_what_it_is() {
        assert_eq!(target(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(("GET", "/metrics")));
        assert_eq!(target(b"GET /metrics HTTP/1.1\r\nHost: a\r\n"), Err(INCOMPLETE));
        assert_eq!(target(b""), Err(INCOMPLETE));
        assert_eq!(target(b"POST /metrics HTTP/1.0\r\n\r\n"), Err("405 Method Not Allowed"));
        assert_eq!(target(b"\x16\x03\x01\x02\x00"), Err("400 Bad Request"));
        let endless = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; HTTP_REQUEST_BYTES_MAX]].concat();
        assert_eq!(target(&endless), Err("431 Request Header Fields Too Large"));
        let many = ["GET / HTTP/1.1\r\n".to_string(), "A: b\r\n".repeat(HTTP_HEADERS_MAX + 1)].concat();
        assert_eq!(target(many.as_bytes()), Err("431 Request Header Fields Too Large"));
    }
}
