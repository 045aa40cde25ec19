//! A simulator of everything between the queue and the applications: the real queue, the coordinator's real connections and the clients'
//! real sessions, under a clock, over links and among players that exist only here. All chance comes from a seed, so that what goes
//! wrong once goes wrong again.
//!
//! In the order in which a story comes about:
//! - [`random`](crate::random): chance; [`scenario`]: what a seed makes of it;
//! - [`world`]: what happens when, `trouble`: what goes wrong; [`network`], [`link`]: bytes on their way;
//! - [`producer`], [`consumer`], [`looker`], [`rogue`]: processes ([`player`]), whose connections [`wired`] drives; [`item`]: what they pass on;
//! - [`broker`]: the coordinator's loop around the queue; [`journal`], [`writer`]: what it leaves behind when it dies;
//! - [`oracle`]: what must be true.
//!
//! Where the queue lies in a journal, the coordinator dies, too, with all that it had in memory; what was confirmed before is there after it,
//! and what was settled does not come again.
//!
//! First a story is as bad as it can be, and nothing may be lost, invented, out of order or beyond the bounds. Then nothing goes wrong any
//! more, and all must come to an end.

pub mod broker;
pub mod consumer;
pub mod item;
pub mod journal;
pub mod link;
pub mod looker;
pub mod network;
pub mod oracle;
pub mod player;
pub mod producer;
pub mod rogue;
pub mod scenario;
mod trouble;
pub mod wired;
pub mod world;
pub mod writer;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

pub use world::Facts;
use world::World;

thread_local! {
    static PLAYING: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Tells the story of a seed; with `trace`, step by step on stderr. An error says what was not as it must be, and how to see it again.
pub fn play(seed: u64, trace: bool) -> Result<Facts, String> {
    keep_panics();
    PLAYING.set(true);
    let told = catch_unwind(AssertUnwindSafe(|| World::new(seed, trace).play()));
    PLAYING.set(false);
    told.map_err(|_| {
        let words = LAST_PANIC.take();
        format!("seed {seed}: {words}\nto see it again: cargo run --release -p tests --bin simulate -- --seed {seed}")
    })
}

/// The panic that ends a story is kept for [`play`]'s error instead of being told at once.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| if PLAYING.get() { LAST_PANIC.set(panic.to_string()) } else { before(panic) }));
    });
}
