//! beanstalkd: a job per item, deleted when it is done. Commands are sent without waiting for the answers to those before.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{GO_ITEMS, Served};
use crate::actor::{self, Part, Role};
use crate::item::{Checker, Maker, Tally};
use crate::trips::Trips;

pub const BEANSTALKD: Served = Served {
    name: "beanstalkd",
    program: "beanstalkd",
    version: "-v",
    arguments: |folder, durable| {
        let mut arguments = vec!["-z".into(), "67108864".into(), "-l".into(), listen(folder)];
        if durable {
            arguments.extend(["-f0".into(), "-b".into(), folder.into()]);
        }
        Ok(arguments)
    },
    address: |folder| Some(folder.join("socket")).filter(|socket| UnixStream::connect(socket).is_ok()),
    producer: Role::BeanstalkdProducer,
    consumer: Role::BeanstalkdConsumer,
    ping: Role::BeanstalkdPing,
    echo: Role::BeanstalkdEcho,
};

/// Bytes put and not confirmed.
const UNANSWERED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Commands are gathered up to this size; items above are written from where they are.
const GATHER_BYTES: usize = 64 * 1024;

/// Read at once: what a socket's buffer holds.
const READ_BYTES: usize = 256 * 1024;

fn listen(folder: &Path) -> OsString {
    [OsStr::new("unix:"), folder.join("socket").as_os_str()].into_iter().collect()
}

/// Reads while it writes: else the server, whose answers nobody takes, would not read on.
struct Client {
    stream: UnixStream,
    commands: Vec<u8>,
    heard: Vec<u8>,
    /// How much of what was heard is dealt with.
    done: usize,
}

impl Client {
    fn connect(part: &Part) -> Result<Client> {
        let stream = UnixStream::connect(&part.place)?;
        stream.set_nonblocking(true)?;
        Ok(Client { stream, commands: Vec::new(), heard: Vec::new(), done: 0 })
    }

    fn put(&mut self, item: &[u8]) -> Result<()> {
        write!(self.commands, "put 0 0 600 {}\r\n", item.len())?;
        if item.len() >= GATHER_BYTES {
            self.send()?;
            self.write(item)?;
        } else {
            self.commands.extend_from_slice(item);
        }
        self.commands.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn reserve(&mut self) {
        self.commands.extend_from_slice(b"reserve\r\n");
    }

    fn delete(&mut self, id: u64) -> Result<()> {
        Ok(write!(self.commands, "delete {id}\r\n")?)
    }

    fn send(&mut self) -> Result<()> {
        let mut commands = std::mem::take(&mut self.commands);
        self.write(&commands)?;
        commands.clear();
        self.commands = commands;
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.wait(PollFlags::IN | PollFlags::OUT)?.contains(PollFlags::IN) {
                        self.read()?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn wait(&self, what: PollFlags) -> Result<PollFlags> {
        let mut descriptors = [PollFd::new(&self.stream, what)];
        let ready = poll(&mut descriptors, Some(&Timespec::try_from(tests::DEADLINE)?))?;
        ensure!(ready > 0, "beanstalkd neither reads nor says anything");
        Ok(descriptors[0].revents())
    }

    fn read(&mut self) -> Result<()> {
        self.heard.drain(..std::mem::take(&mut self.done));
        self.heard.reserve(READ_BYTES);
        match rustix::io::read(&self.stream, spare_capacity(&mut self.heard)) {
            Ok(0) => bail!("beanstalkd has hung up"),
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next answer; as long as none is here, sends what is gathered and waits.
    fn hear(&mut self) -> Result<Answer> {
        loop {
            if let Some(answer) = self.next_answer()? {
                return Ok(answer);
            }
            self.send()?;
            self.wait(PollFlags::IN)?;
            self.read()?;
        }
    }

    fn next_answer(&mut self) -> Result<Option<Answer>> {
        let rest = &self.heard[self.done..];
        let Some(line_bytes) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = std::str::from_utf8(&rest[..line_bytes])?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let mut end = self.done + line_bytes + 1;
        let answer = match words[..] {
            ["INSERTED", _] => Answer::Inserted,
            ["DELETED"] => Answer::Deleted,
            ["USING" | "WATCHING", _] => Answer::Tube,
            ["RESERVED", id, bytes] => {
                let job = end..end + bytes.parse::<usize>()?;
                end = job.end + 2;
                if end > self.heard.len() {
                    return Ok(None);
                }
                Answer::Reserved(id.parse()?, job)
            }
            _ => bail!("beanstalkd said {line:?}"),
        };
        self.done = end;
        Ok(Some(answer))
    }

    fn expect(&mut self, expected: Answer) -> Result<()> {
        let answer = self.hear()?;
        ensure!(answer == expected, "beanstalkd said {answer:?} instead of {expected:?}");
        Ok(())
    }

    /// Puts into one tube and gets from another.
    fn choose(&mut self, put: &str, get: &str) -> Result<()> {
        write!(self.commands, "use {put}\r\nwatch {get}\r\nignore default\r\n")?;
        (0..3).try_for_each(|_| self.expect(Answer::Tube))
    }

    fn reserved(&mut self) -> Result<(u64, u64)> {
        let Answer::Reserved(id, job) = self.hear()? else { bail!("beanstalkd said something else instead of a job") };
        Ok((id, u64::from_le_bytes(self.heard[job].try_into().context("a job of 8 bytes")?)))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Inserted,
    /// A job's number, and where in what was heard it stands.
    Reserved(u64, Range<usize>),
    Deleted,
    Tube,
}

pub fn produce(part: &Part) -> Result<()> {
    let mut client = Client::connect(part)?;
    let mut maker = Maker::new(part.size);
    let unanswered_max = (UNANSWERED_BYTES_MAX / part.size).clamp(2, GO_ITEMS);
    let mut unanswered = 0;
    actor::wait_for_go()?;
    for number in part.first..part.first + part.count {
        client.put(maker.make(number))?;
        unanswered += 1;
        if client.commands.len() >= GATHER_BYTES {
            client.send()?;
        }
        if unanswered == unanswered_max {
            client.expect(Answer::Inserted)?;
            unanswered -= 1;
        }
        while let Some(answer) = client.next_answer()? {
            ensure!(answer == Answer::Inserted, "beanstalkd said {answer:?} to a producer");
            unanswered -= 1;
        }
    }
    (0..unanswered).try_for_each(|_| client.expect(Answer::Inserted))?;
    actor::say_done(Tally::default());
    Ok(())
}

pub fn consume(part: &Part) -> Result<()> {
    let mut client = Client::connect(part)?;
    let mut checker = Checker::new(part.size);
    let mut reserved = part.count.min(GO_ITEMS as u64);
    let mut deleted = 0;
    (0..reserved).for_each(|_| client.reserve());
    client.send()?;
    actor::say_ready();
    while deleted < part.count {
        match client.hear()? {
            Answer::Reserved(id, job) => {
                checker.check(&client.heard[job])?;
                client.delete(id)?;
                if reserved < part.count {
                    client.reserve();
                    reserved += 1;
                }
            }
            Answer::Deleted => deleted += 1,
            other => bail!("beanstalkd said {other:?} to a consumer"),
        }
    }
    actor::say_done(checker.tally());
    Ok(())
}

pub fn ping(part: &Part) -> Result<()> {
    let mut client = Client::connect(part)?;
    client.choose("there", "back")?;
    actor::wait_for_go()?;
    let mut last = None;
    let trips = Trips::measure(part.count, |number| {
        if let Some(last) = last {
            client.delete(last)?;
        }
        client.put(&number.to_le_bytes())?;
        client.reserve();
        if last.is_some() {
            client.expect(Answer::Deleted)?;
        }
        client.expect(Answer::Inserted)?;
        let (id, number) = client.reserved()?;
        last = Some(id);
        Ok(number)
    })?;
    trips.say();
    Ok(())
}

pub fn echo(part: &Part) -> Result<()> {
    let mut client = Client::connect(part)?;
    client.choose("back", "there")?;
    client.reserve();
    client.send()?;
    actor::say_ready();
    let trips = Trips::in_all(part.count);
    for trip in 1..=trips {
        let (id, number) = client.reserved()?;
        client.put(&number.to_le_bytes())?;
        client.delete(id)?;
        if trip < trips {
            client.reserve();
        }
        client.expect(Answer::Inserted)?;
        client.expect(Answer::Deleted)?;
    }
    Ok(())
}
