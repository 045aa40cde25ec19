//! The journal: a queue's items and what became of them, kept where they outlive the coordinator.

pub mod model;
