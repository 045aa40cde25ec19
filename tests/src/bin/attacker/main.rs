//! A client that means no good: `attacker SOCKET ATTACK [ARGUMENT]`. It says `begun` on stdout once it is in full swing and goes on until
//! it is killed; when the coordinator does not do what `PROTOCOL.md` says it does about such a client, it ends with what it did instead.

mod bytes;
mod crowd;
mod deaf;
mod rules;

use std::io::Write;
use std::path::{Path, PathBuf};

use common::Message;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (socket, attack) = (arguments.next().map(PathBuf::from).expect("a socket"), arguments.next().expect("an attack"));
    let argument = || arguments.next().and_then(|number| number.parse::<u64>().ok()).expect("a number");
    let socket: &Path = &socket;
    // One of the attacks takes more descriptors than a program is given.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("a soft limit up to the hard one");
    let mut argument = argument;
    match &attack[..] {
        "noise" => bytes::noise(socket, argument()),
        "messages" => bytes::messages(socket, argument()),
        "lengths" => bytes::lengths(socket),
        "cuts" => bytes::cuts(socket),
        "halves" => bytes::halves(socket, argument()),
        "silent" => crowd::silent(socket, argument()),
        "idle" => crowd::idle(socket, argument()),
        "fickle" => crowd::fickle(socket),
        "deaf" => deaf::never_reads(socket),
        "asks" => deaf::asks_and_never_reads(socket),
        "slow" => deaf::reads_a_byte_a_second(socket),
        "credit" => rules::puts_without_credit(socket),
        "settles" => rules::settles_what_it_does_not_hold(socket),
        "joins" => rules::asks_to_be_told_without_end(socket),
        "status" => rules::asks_without_end(socket, Message::StatusRequest, 10_000),
        "clients" => rules::asks_without_end(socket, Message::ClientsRequest { from: 0 }, 100),
        _ => panic!("there is no attack {attack:?}"),
    }
}

/// In full swing from here on.
fn begun() {
    println!("begun");
    std::io::stdout().flush().expect("a test that reads");
}

/// Nothing more to do but to stay.
fn stay() -> ! {
    begun();
    loop {
        std::thread::park();
    }
}
