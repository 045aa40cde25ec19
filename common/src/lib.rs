//! procq's message format and client library: put items into a bounded queue between processes, get and acknowledge them.
//!
//! ```no_run
//! use common::{Consumer, Endpoint, Producer};
//!
//! # fn work(_: &String) -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::from_env();
//!
//! let producer = Producer::<String>::connect(&endpoint)?;
//! producer.put(&"a job".to_string())?; // waits while the queue is full
//! producer.finish()?;
//!
//! let consumer = Consumer::<String>::connect(&endpoint)?;
//! while let Some(delivery) = consumer.get()? { // None: Stop
//!     work(delivery.item())?; // dropped unsettled: delivered again
//!     delivery.ack()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! In the order in which an item passes:
//! - [`producer`]: the blocking, typed client that puts; [`payload`]: how a value becomes an item's bytes;
//! - [`batch`]: many items in one body; [`message`]: what is said; [`frame`], [`outbox`], [`transport`]: how it goes in and out of a socket;
//!   [`pool`]: the memory that large frames lie in;
//! - [`endpoint`]: which socket; [`consumer`]: the client that gets;
//! - `producer_session`, `consumer_session`: both clients' logic without any I/O; `prefetch`: how much a consumer asks for ahead;
//!   `unconfirmed`: what a producer that comes again puts again;
//!   `driver`: moves bytes between a session and its socket; [`spin`]: waiting for the impatient;
//! - [`status`], [`control`]: asking and steering; [`error`]; [`limits`]: every limit with its reason;
//!   [`program`], [`backoff`]: what the three programs share; [`checksum`]: whether an input is what it was;
//!   [`migrating`]: how `multiprocessing.Queue`'s methods map to these.

pub mod backoff;
pub mod batch;
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
mod prefetch;
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
pub use control::Control;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, GetError, PutError};
pub use message::{ItemId, Message, Position};
pub use payload::{Decode, Encode};
pub use producer::Producer;
pub use status::Status;
