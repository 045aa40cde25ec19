//! A client that says what it may not. It must be told off, and nobody else may suffer.

use std::time::Duration;

use bytes::Bytes;
use common::Error;
use common::batch::{Batch, BatchHeader, Layout};
use common::frame::FrameReader;
use common::limits::{PROTOCOL_VERSION, frame_bytes_max};
use common::message::{CloseReason, ItemId, ItemRange, Message, Outcome, Position, Role};
use common::outbox::Outbox;
use common::transport::{self, Came, Wire};
use coordinator::queue::ClientId;

use super::item::Tag;
use super::link::{End, Weather};
use super::network::Stage;
use super::player::{Player, Wake};

/// What it is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    SettlesTwice,
    SettlesOthers,
    SettlesTheFuture,
    SettlesNothing,
    SettlesHalfRight,
    GivesResultsOfOthers,
    ReturnsOthers,
    DemandsTooMuch,
    PutsWithoutCredit,
    PutsOutOfPlace,
    PutsAsConsumer,
    WantsTooMuch,
    GivesBackUnasked,
    AnswersUnasked,
    ExtendsOthers,
    SaysHelloTwice,
    SaysStop,
    SendsGarbage,
    SendsEmptyFrame,
    SendsLongFrame,
    SendsHalfAFrame,
    NeverSaysHello,
    NeverReads,
}

const TRICKS: [Trick; 23] = [
    Trick::SettlesTwice,
    Trick::SettlesOthers,
    Trick::SettlesTheFuture,
    Trick::SettlesNothing,
    Trick::SettlesHalfRight,
    Trick::GivesResultsOfOthers,
    Trick::ReturnsOthers,
    Trick::DemandsTooMuch,
    Trick::PutsWithoutCredit,
    Trick::PutsOutOfPlace,
    Trick::PutsAsConsumer,
    Trick::WantsTooMuch,
    Trick::GivesBackUnasked,
    Trick::AnswersUnasked,
    Trick::ExtendsOthers,
    Trick::SaysHelloTwice,
    Trick::SaysStop,
    Trick::SendsGarbage,
    Trick::SendsEmptyFrame,
    Trick::SendsLongFrame,
    Trick::SendsHalfAFrame,
    Trick::NeverSaysHello,
    Trick::NeverReads,
];

impl Trick {
    fn role(self) -> Role {
        use Trick::{GivesBackUnasked, PutsOutOfPlace, PutsWithoutCredit, WantsTooMuch};
        match self {
            PutsWithoutCredit | PutsOutOfPlace | WantsTooMuch | GivesBackUnasked => Role::Producer,
            _ => Role::Consumer,
        }
    }

    fn may_stay(self) -> bool {
        matches!(self, Trick::SendsHalfAFrame | Trick::NeverReads)
    }
}

/// The process.
#[derive(Debug)]
pub struct Rogue {
    trick: Trick,
    tag: Tag,
    weather: Weather,
    capacity_items: u64,
    wired: Option<(ClientId, End)>,
    reader: FrameReader,
    outbox: Outbox,
    raw: Vec<u8>,
    got: Vec<ItemId>,
    strikes_at: Duration,
    struck: bool,
    done: bool,
}

impl Rogue {
    /// One with some trick.
    pub fn new(tag: Tag, weather: Weather, capacity_items: u64, stage: &mut Stage) -> Rogue {
        Rogue {
            trick: stage.random.pick(&TRICKS),
            tag,
            weather,
            capacity_items,
            wired: None,
            reader: FrameReader::new(frame_bytes_max(1 << 24)),
            outbox: Outbox::default(),
            raw: Vec::new(),
            got: Vec::new(),
            strikes_at: stage.now + stage.random.micros((500, 30_000)),
            struck: false,
            done: false,
        }
    }

    fn connect(&mut self, stage: &mut Stage) {
        let (client, end) = stage.network.connect(self.weather);
        stage.network.rogues.insert(client);
        stage.oracle.connects(client, self.tag);
        let role = self.trick.role();
        if self.trick != Trick::NeverSaysHello {
            self.outbox.push(&Message::Hello { version: PROTOCOL_VERSION, role, name: String::new() });
        }
        self.wired = Some((client, end));
    }

    fn read(&mut self, stage: &mut Stage) {
        let Some((client, end)) = &self.wired else { return };
        loop {
            let (mut told, mut welcome, got, outbox) = (None, false, &mut self.got, &mut self.outbox);
            let came = transport::receive::<Error>(end, &mut self.reader, &mut stage.scratch, |frame| {
                match Message::decode(frame)?.message {
                    Message::Deliver { first, batch, .. } => got.extend((0..u64::from(batch.count)).map(|index| ItemId(first.0 + index))),
                    Message::Close { reason, .. } => told = Some(reason),
                    Message::Revoke { ranges } => {
                        let within = |id: &ItemId| {
                            ranges.iter().any(|range| (range.first.0..range.first.0 + u64::from(range.count)).contains(&id.0))
                        };
                        got.retain(|id| !within(id));
                        outbox.push(&Message::Revoked);
                    }
                    Message::Welcome { .. } => welcome = true,
                    _ => {}
                }
                Ok(())
            });
            if welcome && self.trick.role() == Role::Consumer {
                let items = stage.random.between(1, 6) as u32;
                // So few bytes as an honest client never asks for: a batch is cut by them, too.
                let bytes = stage.random.scale(1, 1 << 16);
                self.outbox.push(&Message::Demand { items, bytes });
            }
            if let Some(reason) = told {
                let fair = matches!(reason, CloseReason::Protocol | CloseReason::Limit | CloseReason::Ended);
                assert!(fair && (self.struck || reason != CloseReason::Protocol), "{client:?} is closed with {reason:?}: {:?}", self.trick);
                self.done = true;
            }
            match came {
                Ok(Came::Drained) if !end.is_at_end() => return,
                Ok(Came::More | Came::Drained) => {}
                // It may have been cut, or dropped for not reading.
                Ok(Came::End) | Err(Error::Gone(_)) => {
                    self.done = true;
                    return;
                }
                Err(error) => panic!("{client:?} is sent nonsense: {error}"),
            }
        }
    }

    fn say(&mut self, message: &Message) {
        self.outbox.push(message);
    }

    fn ack(&mut self, ranges: &[(u64, u32)]) {
        let ranges = ranges.iter().map(|&(first, count)| ItemRange { first: ItemId(first), count }).collect();
        self.say(&Message::Ack { ranges });
    }

    fn strike(&mut self, stage: &mut Stage) {
        self.struck = true;
        let own = self.got.first().map_or(0, |id| id.0);
        let others = (0..200).find(|id| !self.got.contains(&ItemId(*id))).unwrap_or(0) + stage.random.below(3) * 7;
        let others = if self.got.contains(&ItemId(others)) { u64::from(u32::MAX) } else { others };
        let of_others = ItemRange { first: ItemId(others), count: 1 };
        match self.trick {
            Trick::SettlesTwice => {
                self.ack(&[(own, 1)]);
                self.ack(&[(own, 1)]);
            }
            Trick::SettlesOthers => self.ack(&[(others, 1)]),
            Trick::SettlesTheFuture => self.ack(&[(stage.random.pick(&[1 << 40, u64::MAX - 1, u64::MAX]), 7)]),
            Trick::SettlesNothing => self.ack(&[(own, 0)]),
            Trick::SettlesHalfRight => self.ack(&[(own, 1), (others, 1)]),
            Trick::GivesResultsOfOthers => {
                self.batch(&Bytes::from_static(b"result"), |batch| Message::Result { first: ItemId(others), batch })
            }
            Trick::ReturnsOthers => self.say(&Message::Return { range: of_others, outcome: Outcome::Rejected { cause: "mine!".into() } }),
            Trick::DemandsTooMuch => self.say(&Message::Demand { items: u32::MAX, bytes: 1 }),
            Trick::PutsWithoutCredit => {
                let batch = BatchHeader { count: (self.capacity_items + 1) as u32, layout: Layout::Uniform { len: 0 } };
                self.say(&Message::Put { position: Position(0), checksum: 0, batch });
            }
            Trick::PutsOutOfPlace => {
                self.batch(&Bytes::from_static(b"an item."), |batch| Message::Put { position: Position(7), checksum: 0, batch })
            }
            Trick::PutsAsConsumer => {
                self.batch(&Bytes::from_static(b"an item."), |batch| Message::Put { position: Position(0), checksum: 0, batch })
            }
            Trick::WantsTooMuch => self.say(&Message::Want { bytes: u64::MAX }),
            Trick::GivesBackUnasked => {
                self.say(&Message::Recalled);
                self.say(&Message::Recalled);
            }
            Trick::AnswersUnasked => self.say(&Message::Revoked),
            Trick::ExtendsOthers => self.say(&Message::Extend { id: ItemId(others), by_ms: 1000 }),
            Trick::SaysHelloTwice => self.say(&Message::Hello { version: PROTOCOL_VERSION, role: Role::Control, name: String::new() }),
            Trick::SaysStop => self.say(&Message::Stop),
            Trick::SendsGarbage => self.raw = vec![3, 0, 0, 0, 200, 201, 202],
            Trick::SendsEmptyFrame => self.raw = vec![0; 4],
            Trick::SendsLongFrame => self.raw = vec![0xff; 9],
            Trick::SendsHalfAFrame => self.raw = vec![200, 0, 0, 0, 15, 1],
            Trick::NeverSaysHello | Trick::NeverReads => {}
        }
    }

    fn batch(&mut self, body: &Bytes, message: impl Fn(BatchHeader) -> Message) {
        let batch = Batch::one(body.clone());
        self.outbox.push_batch(&message(batch.header()), &batch);
    }

    fn write(&mut self) {
        let Some((_, end)) = &self.wired else { return };
        // A link that is broken is noticed by reading.
        if let Ok(true) = self.outbox.write_to(|pieces| end.write(pieces)) {
            while !self.raw.is_empty() {
                let Ok(count) = end.write(&[std::io::IoSlice::new(&self.raw)]) else { return };
                self.raw.drain(..count);
            }
        }
    }
}

impl Player for Rogue {
    fn step(&mut self, stage: &mut Stage) -> Wake {
        if self.done {
            return None;
        }
        if self.wired.is_none() {
            self.connect(stage);
        }
        if self.trick != Trick::NeverReads || self.got.is_empty() {
            self.read(stage);
        }
        if !self.struck && self.strikes_at <= stage.now && !self.done {
            self.strike(stage);
        }
        self.write();
        if self.done {
            self.wired = None;
        }
        (!self.struck && !self.done).then_some(self.strikes_at)
    }

    fn client(&self) -> Option<ClientId> {
        self.wired.as_ref().map(|(client, _)| *client)
    }

    fn crash(&mut self) {
        self.wired = None;
        self.done = true;
    }

    fn is_done(&self) -> bool {
        self.done || (self.struck && self.trick.may_stay())
    }

    fn mend(&mut self) {
        // What it holds, it would hold for ever.
        if self.trick.role() == Role::Consumer && self.trick != Trick::NeverSaysHello {
            self.crash();
        }
    }

    fn name(&self) -> String {
        format!("rogue {} that {:?}", self.tag, self.trick)
    }
}
