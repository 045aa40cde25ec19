//! procq's message format and client library: put items into a bounded queue between processes, get and acknowledge them.
//!
//! # In short
//!
//! A coordinator serves the queue: `coordinator serve`, in another process. This library puts items into it, and gets and acknowledges them.
//!
//! ```
//! use common::{Consumer, Producer};
//!
//! # fn work(_: &String) -> Result<(), std::fmt::Error> { Ok(()) }
//! # let queue = tests::LocalQueue::serve(&["--expect-producers", "1"]);
//! # let endpoint = queue.endpoint();
//! // let endpoint = common::Endpoint::from_env();
//! let producer = Producer::<String>::connect(&endpoint)?;
//! producer.put(&"a job".to_string())?; // waits while the queue is full
//! producer.finish()?;
//!
//! let consumer = Consumer::<String>::connect(&endpoint)?;
//! while let Some(delivery) = consumer.get()? { // None: Stop, there is nothing more to come
//!     work(delivery.item())?; // returned early? dropped unsettled, it is delivered again
//!     delivery.ack()?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Items
//!
//! An item is any value that serde knows, encoded by [postcard], or bytes as they are: `Producer<[u8]>` and `Consumer<[u8]>` copy
//! nothing that need not be. Both sides must mean the same type; an item that cannot be decoded counts as a failed attempt
//! ([`Error::Item`]).
//!
//! ```
//! use common::{Consumer, Producer};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Job {
//!     page: u32,
//!     words: Vec<String>,
//! }
//!
//! # let queue = tests::LocalQueue::serve(&[]);
//! # let endpoint = queue.endpoint();
//! Producer::<Job>::connect(&endpoint)?.put(&Job { page: 1, words: vec!["a".into(), "b".into()] })?;
//! let consumer = Consumer::<Job>::connect(&endpoint)?;
//! let delivery = consumer.get()?.expect("an item");
//! assert_eq!((delivery.item().page, delivery.item().words.len()), (1, 2));
//! delivery.ack()?;
//!
//! Producer::<[u8]>::connect(&endpoint)?.put(b"\x00 any bytes \xff")?;
//! let consumer = Consumer::<[u8]>::connect(&endpoint)?;
//! let delivery = consumer.get()?.expect("an item");
//! assert_eq!(delivery.item(), b"\x00 any bytes \xff");
//! delivery.ack()?;
//! # Ok::<(), common::Error>(())
//! ```
//!
//! # What becomes of an item
//!
//! A put is *accepted* once there is room, and *confirmed* to its producer ([`Producer::flush`]). From then on nothing but an acknowledgement, or
//! the dead letters, makes it go away. A consumer *holds* what was delivered to it until it settles it:
//!
//! | | |
//! |---|---|
//! | [`Delivery::ack`], [`ack_with`](Delivery::ack_with) | done; with a result that the coordinator writes, once |
//! | [`Delivery::fail`] | a failed attempt: again after a delay, a dead letter after the last |
//! | [`Delivery::reject`] | a dead letter at once |
//! | [`Delivery::retry_after`] | again after this long, not a failure |
//! | dropped, or the consumer dies | again at once, to any consumer; a failed attempt |
//!
//! Delivery is at least once: what is done twice should do no harm, or be recognised by [`Delivery::id`], which stays the same.
//!
//! # Threads and processes
//!
//! A producer or consumer is one connection, which threads may share; each process makes its own. Calls wait where they must
//! ([`Producer::put`] while the queue is full, [`Consumer::get`] while it is empty), bounded where they are given a time, and end when the queue does:
//! `get` gives `None` when all is done, in each consumer. With [`Endpoint::with_reconnect`] they outlive a coordinator that is started again.
//!
//! Each of these sends some events to [`tracing`]: connections made and lost, never anything per item.
//!
//! # Layout
//!
//! In the order in which an item passes:
//! - [`producer`]: the blocking, typed client that puts; [`payload`]: how a value becomes an item's bytes;
//! - [`batch`]: many items in one body; [`message`]: what is said; [`frame`], [`outbox`], [`transport`]: how it goes in and out of a socket;
//!   [`pool`]: the memory that large frames lie in;
//! - [`endpoint`]: which socket; [`consumer`]: the client that gets;
//! - `producer_session`, `consumer_session`: both clients' logic without any I/O; [`prefetch`]: how much a consumer asks for ahead;
//!   `unconfirmed`: what a producer that comes again puts again;
//!   `driver`: moves bytes between a session and its socket; [`spin`]: waiting for the impatient;
//! - [`status`], [`control`]: asking and steering; [`error`]; [`limits`]: every limit with its reason;
//!   [`program`], [`backoff`], and with the feature `programs` `command_line` and `log`: what the three programs share; [`checksum`]: whether an input is what it was;
//!   [`migrating`]: how `multiprocessing.Queue`'s methods map to these.

pub mod backoff;
pub mod batch;
mod biased;
pub mod checksum;
#[cfg(feature = "programs")]
pub mod command_line;
pub mod consumer;
mod consumer_session;
pub mod control;
mod driver;
pub mod endpoint;
pub mod error;
pub mod frame;
pub mod limits;
#[cfg(feature = "programs")]
pub mod log;
pub mod message;
pub mod migrating;
pub mod outbox;
pub mod payload;
pub mod pool;
pub mod prefetch;
pub mod producer;
mod producer_session;
pub mod program;
mod session;
#[doc(hidden)]
pub mod simulation;
pub mod spin;
pub mod status;
pub mod transport;
mod unconfirmed;

pub use consumer::{Consumer, Delivery};
pub use control::{Control, DeadLetter};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, GetError, PutError};
pub use message::{ItemId, Message, Position};
pub use payload::{Decode, Encode};
pub use producer::Producer;
pub use status::Status;
