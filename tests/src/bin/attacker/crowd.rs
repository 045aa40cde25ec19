//! Many connections.

use std::collections::VecDeque;
use std::path::Path;

use common::message::{Message, Role};
use tests::raw::{Raw, frames, hello};

use crate::{begun, stay};

/// So many connections at once that say nothing; new ones all the time in place of the oldest.
pub fn silent(socket: &Path, count: u64) {
    let mut kept = VecDeque::new();
    for round in 0u64.. {
        kept.push_back(Raw::silent(socket));
        if round == count {
            begun();
        }
        if kept.len() as u64 > count {
            kept.pop_front();
        }
    }
}

/// So many consumers that do nothing.
pub fn idle(socket: &Path, count: u64) {
    let mut kept: Vec<Raw> = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::silent(socket);
        raw.send(&frames(&[hello(Role::Consumer, "")]));
        match raw.hear().expect("an answer").message {
            Message::Welcome { .. } => kept.push(raw),
            Message::Close { words, .. } => {
                println!("refused with {} kept: {words}", kept.len());
                break;
            }
            other => panic!("{other:?} in answer to Hello"),
        }
    }
    stay()
}

/// Consumers and producers that come, ask, and go without an answer.
pub fn fickle(socket: &Path) {
    for round in 0u64.. {
        let (role, says) = match round % 3 {
            0 => (Role::Consumer, Message::Demand { items: 1, bytes: 1 }),
            1 => (Role::Producer, Message::Want { bytes: 1 << 20 }),
            _ => (Role::Control, Message::StatusRequest),
        };
        Raw::silent(socket).send(&frames(&[hello(role, &format!("{round:0>200}")), says]));
        if round == 1000 {
            begun();
        }
    }
}
