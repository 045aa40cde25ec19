//! How clients come, are greeted, and go.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::endpoint::Accepted;
use common::limits::{CLIENTS_SHOWN_MAX, PROTOCOL_VERSION};
use common::message::{CloseReason, Message, Position, Role};
use common::program::tell;
use common::status::{ClientStatus, Work};
use common::transport::{self, Wire};
use mio::Token;
use tracing::debug;

use super::{Broker, line_up_to_write};
use crate::PROGRAM;
use crate::connection::{Connection, State};
use crate::door::Room;
use crate::limits::{ACCEPT_RETRY, ACCEPTS_PER_TURN, GREETING, LINGER};
use crate::queue::{ClientId, Input, Queue};

/// To those for whom there is no room.
const CROWD: &str = "the coordinator has as many connections as it takes; try again later";

impl Broker {
    pub(super) fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let room = self.door.room(self.now());
            match room {
                Room::At(until) => self.accept_at = Some(until),
                Room::WhenOneGoes => {
                    self.tell_of_crowd("as many are open as descriptors allow");
                    self.accept_at = Some(self.now() + ACCEPT_RETRY);
                }
                Room::Free | Room::If(_) | Room::Full => {}
            }
            if self.accept_at.is_some() {
                return;
            }
            let (stream, pid) = match self.listener.accept() {
                Ok(Accepted::Client(stream, pid)) => (stream, pid),
                Ok(Accepted::Foreign(stream, uid)) => {
                    // Once for many: it must not be able to fill a log.
                    if self.told_of_foreigner.replace(uid) != Some(uid) {
                        let who = uid.map_or("of an unknown user".into(), |uid| format!("of user {uid}"));
                        tell(PROGRAM, format_args!("refused a connection {who}"));
                    }
                    debug!(uid, "refused another user's connection");
                    refuse(&stream, CloseReason::Forbidden, "this queue belongs to another user");
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.told_of_crowd = false;
                    return;
                }
                Err(error) if matches!(error.raw_os_error(), Some(code) if is_out_of_descriptors(code)) => {
                    self.tell_of_crowd(&error.to_string());
                    self.accept_at = Some(self.now() + ACCEPT_RETRY);
                    return;
                }
                // The one who came has gone already, or the like.
                Err(_) => continue,
            };
            match room {
                Room::If(another) => self.turn_away(another),
                Room::Full => {
                    refuse(&stream, CloseReason::Limit, CROWD);
                    continue;
                }
                Room::Free | Room::At(_) | Room::WhenOneGoes => {}
            }
            let client = ClientId(self.next_client);
            self.next_client += 1;
            debug!(client = client.0, "accepted a connection");
            let deadline = self.now() + GREETING;
            match Connection::new(stream, self.poll.registry(), Token(client.0 as usize), deadline, self.pool.clone()) {
                Ok(connection) => self.connections.insert(client, connection.of_peer(pid, self.now())),
                Err(error) => {
                    tell(PROGRAM, format_args!("cannot watch a new connection, which is dropped: {error}"));
                    continue;
                }
            };
            self.deadlines.insert((deadline, client));
            self.door.came(client, self.now());
        }
        self.accept_at = Some(Duration::ZERO);
    }

    /// Drops a connection to make room, not without a word.
    fn turn_away(&mut self, client: ClientId) {
        if let Some(connection) = self.connections.get_mut(&client) {
            if connection.state == State::Greeting {
                connection.send(&Message::Close { reason: CloseReason::Limit, words: CROWD.into() }, None);
            }
            // What its buffer does not take now is not said.
            let _ = connection.flush();
        }
        self.forget(client, false);
    }

    fn tell_of_crowd(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told_of_crowd, true) {
            tell(PROGRAM, format_args!("cannot accept more connections for now: {why}; raise `ulimit -n` or use fewer clients"));
        }
    }

    pub(super) fn greet(&mut self, client: ClientId, role: Role, name: String) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        connection.open(role, self.item_bytes_max);
        debug!(client = client.0, ?role, name, "greeted");
        self.door.greeted(client);
        self.note_room();
        match role {
            Role::Producer => {
                let name = Some(name).filter(|name| !name.is_empty());
                self.queue.handle(Input::ProducerJoined { client, name }, self.now());
            }
            Role::Consumer => {
                self.welcome(client, Position(0), None, self.queue.item_timeout());
                self.queue.handle(Input::ConsumerJoined { client }, self.now());
            }
            Role::Control => self.welcome(client, Position(0), None, None),
        }
    }

    pub(super) fn welcome(&mut self, client: ClientId, position: Position, checksum: Option<u64>, item_timeout: Option<Duration>) {
        let message = Message::Welcome {
            version: PROTOCOL_VERSION,
            pid: std::process::id(),
            item_bytes_max: self.item_bytes_max,
            position,
            announce_from: self.queue.announce_from(),
            checksum,
            lease_ms: item_timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        };
        self.send(client, &message);
    }

    /// Who is connected, from a connection's number on; and from where on there are more than fit into an answer.
    pub(super) fn clients(&self, from: u64) -> (Vec<ClientStatus>, Option<u64>) {
        clients_shown(&self.connections, &self.queue, from, self.now())
    }

    /// Closes a connection after telling it why.
    pub(super) fn close(&mut self, client: ClientId, reason: CloseReason, words: String) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&client) else { return };
        match connection.state {
            State::Lingering => return,
            State::Greeting => {}
            State::Open(_) => self.queue.handle(Input::Left { client, orderly: false }, now),
        }
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, client));
        }
        debug!(client = client.0, ?reason, words, "closing a connection");
        connection.linger(reason, words, now + LINGER);
        line_up_to_write(connection, client, &mut self.unflushed);
        self.door.closed(client);
        self.deadlines.insert((now + LINGER, client));
        self.put_in_line(client);
    }

    /// Drops a connection.
    pub(super) fn forget(&mut self, client: ClientId, orderly: bool) {
        let Some(connection) = self.connections.remove(&client) else { return };
        debug!(client = client.0, orderly, "a connection is gone");
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        match connection.state {
            State::Open(_) => self.queue.handle(Input::Left { client, orderly }, self.now()),
            State::Greeting | State::Lingering => {}
        }
        self.door.gone(client);
        self.note_room();
    }

    /// There may be room for who waits to be accepted.
    fn note_room(&mut self) {
        if self.accept_at.is_some() {
            self.accept_at = Some(Duration::ZERO);
        }
    }

    pub(super) fn keep_deadlines(&mut self) {
        let now = self.now();
        if self.queue.next_timeout().is_some_and(|due| due <= now) {
            for client in self.queue.overdue(now) {
                // Results may wait to be written, or it has said more than it gets a turn for.
                if self.connections.get(&client).is_some_and(Connection::has_work) {
                    self.queue.handle(Input::Unheard { client }, now);
                }
            }
            self.queue.handle(Input::Tick, now);
        }
        while let Some(&(due, client)) = self.deadlines.first().filter(|(due, _)| *due <= now) {
            self.deadlines.remove(&(due, client));
            let greeting = self.connections.get(&client).is_some_and(|connection| connection.state == State::Greeting);
            if greeting {
                let words = format!("no Hello within {} s", GREETING.as_secs());
                self.close(client, CloseReason::Limit, words);
            } else {
                self.forget(client, false);
            }
        }
    }
}

/// The clients of a queue from a connection's number on; and from where on there are more than fit into an answer.
pub fn clients_shown<W: Wire>(
    connections: &BTreeMap<ClientId, Connection<W>>,
    queue: &Queue,
    from: u64,
    now: Duration,
) -> (Vec<ClientStatus>, Option<u64>) {
    let mut clients = Vec::new();
    for (client, connection) in connections.range(ClientId(from)..) {
        let State::Open(role) = connection.state else { continue };
        if clients.len() == CLIENTS_SHOWN_MAX {
            return (clients, Some(client.0));
        }
        let connected_ms = now.saturating_sub(connection.since).as_millis() as u64;
        let work = queue.work(*client, now).unwrap_or_else(|| work_unknown(role));
        clients.push(ClientStatus { number: client.0, pid: connection.pid, connected_ms, work });
    }
    (clients, None)
}

/// Of a client that the queue does not know, or not yet.
fn work_unknown(role: Role) -> Work {
    match role {
        Role::Producer => Work::Producer { name: String::new(), accepted: 0, parked: 0, waiting: false, finished: false },
        Role::Consumer | Role::Control => Work::Control,
    }
}

/// Says why a connection is dropped that was just made: a courtesy. Its buffer is empty and takes this, or it is not said.
fn refuse(stream: &UnixStream, reason: CloseReason, words: &str) {
    let mut frame = Vec::new();
    Message::Close { reason, words: words.into() }.encode(0, &mut frame);
    let _ = transport::send(stream, &[io::IoSlice::new(&frame)]);
}

fn is_out_of_descriptors(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|errno| errno.raw_os_error() == code)
}
