//! What is said to a coordinator that runs: pause, resume, stop, and what is to be done with its dead letters.

use std::io::{BufWriter, Write};
use std::ops::Range;

use anyhow::Result;
use common::control::{DeadRemoval, PauseState};
use common::message::{ItemId, Obstacle};
use common::program::{EXIT_DONE, EXIT_ERROR, tell};
use common::{Control, DeadLetter, Endpoint, Error};

use crate::PROGRAM;
use crate::cli::{DeadArgs, DeadCommand, SocketArgs, StopArgs, WhichDead};
use crate::{outputs, queue};

/// Every number.
const ALL: Range<ItemId> = ItemId(0)..ItemId(u64::MAX);

fn connect(args: &SocketArgs) -> Result<Control, Error> {
    Control::connect(&Endpoint::named(args.socket.as_deref()))
}

/// Lets the queue hand out nothing for now.
pub fn pause(args: &SocketArgs) -> Result<u8> {
    let control = connect(args)?;
    let PauseState { paused, changed } = control.pause()?;
    if !paused {
        tell(PROGRAM, format_args!("the queue is about to end, and hands out nothing any more"));
        return Ok(EXIT_ERROR);
    }
    if !changed {
        tell(PROGRAM, format_args!("it is paused already"));
        return Ok(EXIT_DONE);
    }
    let held = control.status()?.held;
    tell(PROGRAM, format_args!("paused: nothing is handed out until `coordinator resume`; what consumers hold goes on ({held} in all)"));
    Ok(EXIT_DONE)
}

/// Lets the queue go on.
pub fn resume(args: &SocketArgs) -> Result<u8> {
    let words = if connect(args)?.resume()?.changed { "it goes on" } else { "it is not paused" };
    tell(PROGRAM, format_args!("{words}"));
    Ok(EXIT_DONE)
}

/// Ends a coordinator, and waits for its end.
pub fn stop(args: &StopArgs) -> Result<u8> {
    let control = Control::connect(&Endpoint::named(args.socket.as_deref()))?;
    let before = control.status()?;
    control.stop(args.now)?;
    if args.now {
        control.wait_for_end();
        if before.stored() > 0 {
            let left = items(before.stored());
            tell(PROGRAM, format_args!("ended; {left} not done: in its journal if it has one, else lost"));
        }
        return Ok(EXIT_DONE);
    }
    if before.paused {
        tell(PROGRAM, format_args!("it was paused; it goes on, so that it can come to its end"));
    }
    // It may have ended by now: then nothing is left.
    if let Ok(status) = control.status()
        && status.stored() > 0
    {
        let alone = if status.consumers == 0 { ", and no consumer is connected" } else { "" };
        let advice = "end this wait with Ctrl-C, or everything with `coordinator stop --now`";
        let left = items(status.stored());
        tell(PROGRAM, format_args!("waiting for its end: {left} not settled{alone}; {advice}"));
    }
    control.wait_for_end();
    Ok(EXIT_DONE)
}

fn items(count: u64) -> String {
    if count == 1 { "1 item is".into() } else { format!("{count} items are") }
}

/// Shows dead letters, puts them again, or drops them.
pub fn dead(args: &DeadArgs) -> Result<u8> {
    match &args.command {
        DeadCommand::List { json, socket } => list(&connect(socket)?, *json),
        DeadCommand::Requeue(which) => remove(which, "put again", Control::requeue_dead),
        DeadCommand::Drop(which) => remove(which, "dropped", Control::drop_dead),
    }
}

fn list(control: &Control, json: bool) -> Result<u8> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut range = ALL;
    let mut any = false;
    let unkept = loop {
        let page = control.dead_letters(range.clone())?;
        any |= !page.letters.is_empty();
        for DeadLetter { id, attempts, cause, item } in page.letters {
            let letter = queue::DeadLetter { id, attempts, cause: cause.into(), item };
            let line = if json { outputs::as_json(&letter) } else { outputs::in_words(&letter) };
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
        }
        match page.next {
            Some(next) => range.start = next,
            None => break page.unkept,
        }
    };
    out.flush()?;
    if unkept > 0 {
        tell_of_unkept(unkept);
    } else if !any {
        tell(PROGRAM, format_args!("there are no dead letters"));
    }
    Ok(EXIT_DONE)
}

fn tell_of_unkept(unkept: u64) {
    let are = if unkept == 1 { "1 more dead letter is" } else { &format!("{unkept} more dead letters are") };
    tell(PROGRAM, format_args!("{are} not kept in memory any more; see --dead-letters FILE of its coordinator, or its stderr"));
}

type Remove = fn(&Control, Range<ItemId>) -> Result<DeadRemoval, Error>;

/// What became of those that were asked for.
#[derive(Default)]
struct Sum {
    count: u64,
    obstacle: Option<Obstacle>,
}

impl Sum {
    /// Adds what is in this range; false if there is an obstacle.
    fn add(&mut self, control: &Control, mut range: Range<ItemId>, remove: Remove) -> Result<bool> {
        loop {
            let DeadRemoval { count, next, obstacle } = remove(control, range.clone())?;
            self.count += count;
            self.obstacle = obstacle;
            match next {
                Some(next) if obstacle.is_none() => range.start = next,
                _ => return Ok(obstacle.is_none()),
            }
        }
    }
}

fn remove(which: &WhichDead, done: &str, remove: Remove) -> Result<u8> {
    let control = connect(&which.socket)?;
    let (mut sum, mut missing) = (Sum::default(), Vec::new());
    let status = control.status()?;
    let asked = if which.all {
        // Not those that die from now on: nobody has seen them.
        let next_id = status.shared.map_or(status.accepted, |shared| shared.next_id);
        sum.add(&control, ItemId(0)..ItemId(next_id), remove)?;
        status.dead
    } else {
        for id in &which.ids {
            let before = sum.count;
            if !sum.add(&control, ItemId(*id)..ItemId(id.saturating_add(1)), remove)? {
                break;
            }
            if sum.count == before {
                missing.push(id.to_string());
            }
        }
        which.ids.len() as u64
    };
    let why = match sum.obstacle {
        None => "",
        Some(Obstacle::Full) => ": the queue is full; say it again once consumers have made room",
        Some(Obstacle::Ending) => ": the queue is about to end, and hands out nothing any more",
    };
    let letters = if asked == 1 { "dead letter" } else { "dead letters" };
    tell(PROGRAM, format_args!("{} of {asked} {letters} {done}{why}", sum.count));
    let unkept = control.dead_letters(ItemId(0)..ItemId(0))?.unkept;
    if !missing.is_empty() {
        let kept = if unkept > 0 { " that is kept" } else { "" };
        tell(PROGRAM, format_args!("no dead letter{kept}: {}; `coordinator dead list` shows those that there are", missing.join(", ")));
    }
    if unkept > 0 {
        tell_of_unkept(unkept);
    }
    Ok(if sum.obstacle.is_none() && missing.is_empty() { EXIT_DONE } else { EXIT_ERROR })
}
