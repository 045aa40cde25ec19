//! What the players of a story have in common.

use std::time::Duration;

use coordinator::queue::ClientId;

use super::network::Stage;

/// When a player wants to go on though nothing comes to it.
pub type Wake = Option<Duration>;

/// A process that is a client.
pub trait Player: std::fmt::Debug {
    /// Goes on: something has come, or it is time.
    fn step(&mut self, stage: &mut Stage) -> Wake;

    /// Its connection.
    fn client(&self) -> Option<ClientId>;

    /// It dies at once. It begins again at its next step.
    fn crash(&mut self);

    /// It has come to its end, and does nothing more.
    fn is_done(&self) -> bool;

    /// How it behaves from now on, when all is to come to an end.
    fn mend(&mut self) {}

    /// For people.
    fn name(&self) -> String;
}
