//! What can be wrong with a queue that lies at NATS servers. Each error says what to do; nothing is thrown away by itself.

use std::io;
use std::path::{Path, PathBuf};

use super::message::MessageError;

/// Why a queue at NATS servers cannot be used, or goes on no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The address cannot be read.
    #[error("{text} is no address of a queue: {what}; write it as nats://HOST:PORT/QUEUE")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file that proves who we are cannot be used.
    #[error("cannot use the credentials in {} ({said}); give a file with a token and its key, as nsc writes it", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What the system, or the file's reader, said.
        said: String,
    },
    /// A file for TLS cannot be used.
    #[error("cannot use the {what} in {} ({said}); give files in PEM form, \"-----BEGIN …\"", path.display())]
    KeyFile {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system, or the file's reader, said.
        said: String,
    },
    /// No server answers.
    #[error("no NATS server answers at {address} ({said}); start one (nats-server --jetstream), or mend the address")]
    Unreachable {
        /// Where.
        address: String,
        /// What was seen last.
        said: String,
    },
    /// It is not who we asked for, or does not speak TLS, or does not trust us.
    #[error("no TLS with the NATS server at {address}: {said}; {advice}")]
    NoTls {
        /// Where.
        address: String,
        /// What is wrong.
        said: String,
        /// What would help.
        advice: &'static str,
    },
    /// The server does not know us.
    #[error("the NATS server at {address} refuses {}", who_is_refused(credentials.as_deref()))]
    Unauthorized {
        /// Where.
        address: String,
        /// What we have shown, unless it was a password or nothing.
        credentials: Option<PathBuf>,
    },
    /// The server keeps nothing.
    #[error("the NATS server at {address} has no JetStream ({said}); start it with --jetstream, or enable it for this account")]
    NoJetStream {
        /// Where.
        address: String,
        /// What it said.
        said: String,
    },
    /// The domain is not there.
    #[error(
        "the NATS server at {address} has no JetStream domain {domain} ({said}); give domain=NAME as its configuration does \
         (jetstream {{ domain: … }}), or leave it out"
    )]
    NoDomain {
        /// Where.
        address: String,
        /// Which one.
        domain: String,
        /// What it said.
        said: String,
    },
    /// The server refused to set up a stream.
    #[error("cannot {action} at {address}: {said}")]
    Setup {
        /// What was tried.
        action: String,
        /// Where.
        address: String,
        /// What the server said.
        said: String,
    },
    /// There is a stream of this name with other properties.
    #[error(
        "the stream {stream} is there already, with {what} {came}, expected {expected}; give the same settings as on the other machines, another \
         queue's name, or, if nothing in it is needed, delete it (nats stream rm {stream})"
    )]
    Settings {
        /// The stream.
        stream: String,
        /// Which property.
        what: &'static str,
        /// What we would have made.
        expected: String,
        /// What is there.
        came: String,
    },
    /// The largest item does not fit into a message.
    #[error(
        "items of {given} bytes do not fit into the server's messages: its max_payload is {payload_bytes_max}, which leaves {item_bytes_max} for an \
         item; give --max-item {item_bytes_max}, or raise max_payload in the server's configuration"
    )]
    ItemLimit {
        /// The largest item that was asked for.
        given: u64,
        /// The largest that is possible.
        item_bytes_max: u64,
        /// What the server takes.
        payload_bytes_max: u64,
    },
    /// The queue is too small for its largest item.
    #[error(
        "a capacity of {given} bytes cannot hold one message of the largest size, {needed} bytes; raise --capacity-bytes or lower --max-item"
    )]
    Capacity {
        /// The capacity.
        given: u64,
        /// What it takes.
        needed: u64,
    },
    /// Somebody has deleted what the queue consists of.
    #[error(
        "{what} of the queue {queue} is gone from the servers: somebody has deleted it, and what it held is lost; start again for an empty queue"
    )]
    Gone {
        /// Which part.
        what: &'static str,
        /// The queue.
        queue: String,
    },
    /// What is in a stream is not what was written, or another program wrote it.
    #[error(
        "message {sequence} of the stream {stream} cannot be read: {source}; it is still there: let the program that wrote it go on, or delete it \
         (nats stream rmm {stream} {sequence})"
    )]
    Message {
        /// The stream.
        stream: String,
        /// The message's number.
        sequence: u64,
        /// What is wrong.
        source: MessageError,
    },
    /// No thread, or no runtime for it.
    #[error("cannot start a thread for the connection to NATS")]
    Thread(#[source] io::Error),
    /// It has failed before.
    #[error("the connection to the queue {queue} has failed before: nothing is kept any more")]
    Ended {
        /// The queue.
        queue: String,
    },
}

fn who_is_refused(credentials: Option<&Path>) -> String {
    match credentials {
        Some(path) => {
            let path = path.display();
            format!("the credentials in {path}; give others with creds=FILE: of an account that it knows, neither expired nor revoked")
        }
        None => "who we are; give USER:PASSWORD@ before the host or ?creds=FILE behind the queue's name".into(),
    }
}
