//! What clients that connect here do while they wait, and when they lose their connection.

use std::time::Duration;

use super::Endpoint;

impl Endpoint {
    /// Lets clients that connect here keep looking for news for `spin` before they sleep, each time they wait: news comes sooner, for a
    /// core that is busy meanwhile. Pays only where a core is free for each that waits, the coordinator (`--spin`) included.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use common::Endpoint;
    /// let endpoint = Endpoint::from_env().with_spin(Duration::from_micros(50));
    /// # assert_eq!(endpoint.spin(), Duration::from_micros(50));
    /// ```
    pub fn with_spin(self, spin: Duration) -> Endpoint {
        Endpoint { spin, ..self }
    }

    /// See [`Endpoint::with_spin`].
    ///
    /// ```
    /// # use common::Endpoint;
    /// assert!(Endpoint::from_env().spin().is_zero());
    /// ```
    pub fn spin(&self) -> Duration {
        self.spin
    }

    /// Lets producers and consumers that connect here connect again when they lose their connection without a word, as when the
    /// coordinator is killed and started again: calls that need it wait, and fail once `within` has passed since the loss. What the
    /// coordinator says before it closes (that the queue has ended, that another producer came under the name) is final all the same.
    ///
    /// A producer then keeps what is unconfirmed, and puts again what the coordinator has not accepted: nothing twice. For that it
    /// needs a name; one without gets one that nobody else has, which the coordinator keeps. What a consumer held is delivered again, to
    /// any; to settle a delivery of the lost connection is without effect.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use common::Producer;
    /// # let queue = tests::LocalQueue::serve(&[]);
    /// # let endpoint = queue.endpoint();
    /// let endpoint = endpoint.with_reconnect(Duration::from_secs(30));
    /// let producer = Producer::<u32>::connect(&endpoint)?;
    /// producer.put(&7)?; // waits for 30 s at most should the coordinator be gone
    /// # Ok::<(), common::Error>(())
    /// ```
    pub fn with_reconnect(self, within: Duration) -> Endpoint {
        Endpoint { reconnect: within, ..self }
    }

    /// See [`Endpoint::with_reconnect`]; zero unless that was called.
    ///
    /// ```
    /// # use common::Endpoint;
    /// assert!(Endpoint::from_env().reconnect().is_zero());
    /// ```
    pub fn reconnect(&self) -> Duration {
        self.reconnect
    }

    /// Lets clients say on stderr, in this program's name, when their connection is lost and when there is one again.
    ///
    /// ```
    /// # use common::Endpoint;
    /// let endpoint = Endpoint::from_env().with_narrator("thumbnailer");
    /// # assert_eq!(endpoint.narrator(), Some("thumbnailer"));
    /// ```
    pub fn with_narrator(self, program: &'static str) -> Endpoint {
        Endpoint { narrator: Some(program), ..self }
    }

    /// See [`Endpoint::with_narrator`].
    ///
    /// ```
    /// # use common::Endpoint;
    /// assert_eq!(Endpoint::from_env().narrator(), None);
    /// ```
    pub fn narrator(&self) -> Option<&'static str> {
        self.narrator
    }
}
