//! What must be true of any bytes whatever: the bodies of the fuzz targets in `fuzz/`, and of the test that runs them over the kept
//! corpus and over random bytes (`tests/fuzz_corpus.rs`), for which any toolchain will do.
//!
//! Each takes bytes and panics when something is not as it must be.

mod codec;
mod input;
mod journaled;
mod queue;
mod said;
mod steering;
mod steps;
mod watched;

pub use codec::{batch, frame, message};
pub use input::{input, options};
pub use queue::{queue, revokes_in};

/// A target: bytes in, a panic when something is wrong.
pub type Target = fn(&[u8]);

/// Every target, by the name of its program in `fuzz/fuzz_targets` and its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 6] =
    [("frame", frame), ("message", message), ("batch", batch), ("queue", queue), ("input", input), ("options", options)];
