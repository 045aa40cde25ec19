//! A connection's bytes: written at one end, some time on their way, read at the other; and what may befall them there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::rc::Rc;
use std::time::Duration;

use common::transport::Wire;

use crate::random::Random;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A producer or consumer.
    Client,
    /// The broker.
    Coordinator,
}

/// How a link carries what is given to it.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Microseconds on the way, from and to.
    pub delay_us: (u64, u64),
    /// Bytes that fit into one direction.
    pub room: usize,
    /// Pieces are torn on the way in so many of a hundred cases.
    pub torn_percent: u64,
}

/// Both directions.
#[derive(Debug)]
pub struct Link {
    weather: Weather,
    /// Something has happened since the last departure.
    touched: bool,
    cut: bool,
    pipes: [Pipe; 2],
}

/// One end; closed when dropped, as by a process's death.
#[derive(Debug)]
pub struct End {
    link: Rc<RefCell<Link>>,
    side: Side,
}

/// One direction, named by who reads.
#[derive(Debug, Default)]
struct Pipe {
    staged: VecDeque<Vec<u8>>,
    flying: VecDeque<(Duration, Vec<u8>)>,
    arrived: VecDeque<Vec<u8>>,
    read_of_front: usize,
    bytes: usize,
    /// The link breaks when so many bytes more were carried.
    cut_after: Option<usize>,
    stalled_until: Duration,
    ended: bool,
    end_at: Option<Duration>,
    end_arrived: bool,
    reader_gone: bool,
    found_full: bool,
}

/// What became of a link in a step.
#[derive(Debug, Default)]
pub struct News {
    /// Something arrives then.
    pub arrivals: Vec<(Duration, Side)>,
    /// Who found no room to write has some again.
    pub writable: Vec<Side>,
    /// Pieces that were torn.
    pub torn: u64,
    /// It broke, some of what was written never to arrive.
    pub cut: bool,
}

impl Link {
    /// A link and its two ends: the client's, the coordinator's.
    pub fn new(weather: Weather) -> (Rc<RefCell<Link>>, End, End) {
        let link = Rc::new(RefCell::new(Link { weather, touched: true, cut: false, pipes: Default::default() }));
        let end = |side| End { link: Rc::clone(&link), side };
        let (client, coordinator) = (end(Side::Client), end(Side::Coordinator));
        (link, client, coordinator)
    }

    fn pipe_to(&mut self, reader: Side) -> &mut Pipe {
        self.touched = true;
        &mut self.pipes[reader as usize]
    }

    /// Sends on its way what was written since the last time.
    pub fn depart(&mut self, now: Duration, random: &mut Random) -> Option<News> {
        if !std::mem::take(&mut self.touched) {
            return None;
        }
        let weather = self.weather;
        let mut news = News { cut: std::mem::take(&mut self.cut), ..News::default() };
        for (reader, writer) in [(Side::Client, Side::Coordinator), (Side::Coordinator, Side::Client)] {
            let pipe = &mut self.pipes[reader as usize];
            while let Some(mut piece) = pipe.staged.pop_front() {
                while piece.len() > 1 && random.chance(weather.torn_percent) {
                    news.torn += 1;
                    let rest = piece.split_off(random.between(1, piece.len() as u64 - 1) as usize);
                    let at = pipe.arrival(now, weather, random);
                    pipe.flying.push_back((at, std::mem::replace(&mut piece, rest)));
                    news.arrivals.push((at, reader));
                }
                let at = pipe.arrival(now, weather, random);
                pipe.flying.push_back((at, piece));
                news.arrivals.push((at, reader));
            }
            if pipe.ended && pipe.end_at.is_none() {
                let at = pipe.arrival(now, weather, random);
                pipe.end_at = Some(at);
                news.arrivals.push((at, reader));
            }
            let has_room = pipe.bytes < weather.room || pipe.reader_gone || pipe.ended;
            if pipe.found_full && has_room {
                pipe.found_full = false;
                news.writable.push(writer);
            }
        }
        Some(news)
    }

    /// Takes in what has arrived by now. True if `reader` has news by it.
    pub fn arrive(&mut self, reader: Side, now: Duration) -> bool {
        let pipe = self.pipe_to(reader);
        let mut news = false;
        while pipe.flying.front().is_some_and(|(at, _)| *at <= now) {
            pipe.arrived.extend(pipe.flying.pop_front().map(|(_, piece)| piece));
            news = true;
        }
        if pipe.flying.is_empty() && !pipe.end_arrived && pipe.end_at.is_some_and(|at| at <= now) {
            pipe.end_arrived = true;
            news = true;
        }
        news
    }

    /// True when `reader` can read the end.
    pub fn has_ended(&mut self, reader: Side) -> bool {
        self.pipe_to(reader).end_arrived
    }

    /// True while nothing is lost on it.
    pub fn is_whole(&self) -> bool {
        self.pipes.iter().all(|pipe| !pipe.ended)
    }

    /// Nothing arrives before `until`; returns when there is news then.
    pub fn stall(&mut self, until: Duration) -> Vec<(Duration, Side)> {
        for pipe in &mut self.pipes {
            pipe.stalled_until = until;
            pipe.flying.iter_mut().for_each(|(at, _)| *at = (*at).max(until));
            pipe.end_at = pipe.end_at.map(|at| at.max(until));
        }
        vec![(until, Side::Client), (until, Side::Coordinator)]
    }

    /// What was stalled goes on, and no cut comes any more.
    pub fn heal(&mut self, now: Duration) -> Vec<(Duration, Side)> {
        for pipe in &mut self.pipes {
            pipe.stalled_until = now;
            pipe.cut_after = None;
            pipe.flying.iter_mut().for_each(|(at, _)| *at = now);
            pipe.end_at = pipe.end_at.map(|at| at.min(now));
        }
        vec![(now, Side::Client), (now, Side::Coordinator)]
    }

    /// Breaks the link once `bytes` more have been written towards `reader`.
    pub fn cut_after(&mut self, reader: Side, bytes: usize) {
        self.pipe_to(reader).cut_after = Some(bytes);
        if bytes == 0 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.cut = true;
        for pipe in &mut self.pipes {
            pipe.ended = true;
            pipe.cut_after = Some(0);
        }
    }
}

impl Pipe {
    fn arrival(&self, now: Duration, weather: Weather, random: &mut Random) -> Duration {
        let last = self.flying.back().map_or(Duration::ZERO, |(at, _)| *at);
        (now + random.micros(weather.delay_us)).max(last).max(self.stalled_until)
    }
}

impl End {
    /// True when the next that is read is the end. A client that asks the system for news would be told; a short read does not say so.
    pub fn is_at_end(&self) -> bool {
        let mut link = self.link.borrow_mut();
        let pipe = link.pipe_to(self.side);
        pipe.end_arrived && pipe.arrived.is_empty()
    }
}

impl Wire for End {
    fn read(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        let pipe = link.pipe_to(self.side);
        let mut count = 0;
        for place in places {
            let mut filled = 0;
            while filled < place.len() {
                let Some(front) = pipe.arrived.front() else { break };
                let piece = &front[pipe.read_of_front..];
                let taken = piece.len().min(place.len() - filled);
                place[filled..filled + taken].copy_from_slice(&piece[..taken]);
                filled += taken;
                pipe.read_of_front += taken;
                if pipe.read_of_front == front.len() {
                    pipe.arrived.pop_front();
                    pipe.read_of_front = 0;
                }
            }
            count += filled;
        }
        pipe.bytes -= count;
        if count == 0 && !pipe.end_arrived { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        let room = link.weather.room;
        let reader = if self.side == Side::Client { Side::Coordinator } else { Side::Client };
        let pipe = link.pipe_to(reader);
        if pipe.reader_gone || pipe.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(room.saturating_sub(pipe.bytes));
        if count == 0 {
            pipe.found_full = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut staged: Vec<u8> = Vec::with_capacity(count);
        for piece in pieces {
            staged.extend_from_slice(&piece[..piece.len().min(count - staged.len())]);
        }
        let mut breaks = false;
        if let Some(left) = &mut pipe.cut_after {
            breaks = *left <= count;
            staged.truncate(*left);
            *left -= staged.len();
        }
        pipe.bytes += staged.len();
        if !staged.is_empty() {
            pipe.staged.push_back(staged);
        }
        if breaks {
            link.cut();
        }
        Ok(count)
    }

    fn end_writing(&self) -> io::Result<()> {
        let reader = if self.side == Side::Client { Side::Coordinator } else { Side::Client };
        self.link.borrow_mut().pipe_to(reader).ended = true;
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // end_writing cannot fail here.
        let _ = self.end_writing();
        self.link.borrow_mut().pipe_to(self.side).reader_gone = true;
    }
}
