//! The clients' logic, for a simulator that drives it as the driver does. Not for use: it changes without notice.

pub use crate::consumer_session::{ConsumerSession, Held, Next, Settled};
pub use crate::producer_session::{ProducerSession, Put};
pub use crate::session::{Greeting, Questions, Session};
