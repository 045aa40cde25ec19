//! A simulator of everything between the queue and the applications: the real queue, the coordinator's real connections and the clients'
//! real sessions, under a clock, over links and among players that exist only here. All chance comes from a seed, so that what goes
//! wrong once goes wrong again.
//!
//! In the order in which a story comes about:
//! - [`random`]: chance; [`scenario`]: what a seed makes of it;
//! - [`world`]: what happens when; [`network`], [`link`]: bytes on their way;
//! - [`producer`], [`consumer`], [`rogue`]: processes ([`player`]), whose connections [`wired`] drives; [`item`]: what they pass on;
//! - [`broker`]: the coordinator's loop around the queue; [`oracle`]: what must be true.
//!
//! First a story is as bad as it can be, and nothing may be lost, invented, out of order or beyond the bounds. Then nothing goes wrong any
//! more, and all must come to an end.

pub mod broker;
pub mod consumer;
pub mod item;
pub mod link;
pub mod network;
pub mod oracle;
pub mod player;
pub mod producer;
pub mod random;
pub mod rogue;
pub mod scenario;
pub mod wired;
pub mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use world::Facts;
use world::World;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Tells the story of a seed; with `trace`, step by step on stderr. An error says what was not as it must be, and how to see it again.
pub fn play(seed: u64, trace: bool) -> Result<Facts, String> {
    let told = catch_unwind(AssertUnwindSafe(|| World::new(seed, trace).play()));
    told.map_err(|_| {
        let words = LAST_PANIC.take();
        format!("seed {seed}: {words}\nto see it again: cargo run --release -p tests --bin simulate -- --seed {seed}")
    })
}

/// From now on a panic is not told on stderr at once, but kept for [`play`]'s error.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|panic| LAST_PANIC.set(panic.to_string())));
}
