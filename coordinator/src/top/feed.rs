//! Asks the coordinator in a thread of its own.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use common::status::ClientStatus;
use common::{Control, Error, Status};

/// What came of it.
#[derive(Debug)]
pub(super) enum News {
    /// Figures of the queue, and who is connected.
    Figures(Box<Status>, Vec<ClientStatus>),
    /// An order was carried out; in words.
    Done(String),
    /// There is no coordinator any more, and why if that is known.
    Gone(Option<String>),
}

/// What the user wants of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To end once all is settled.
    Stop,
    /// To hand out nothing for now, or to go on.
    SetPaused(bool),
}

/// The near end of the thread.
#[derive(Debug)]
pub(super) struct Feed {
    news: Receiver<News>,
    orders: Sender<Order>,
}

impl Feed {
    /// Asks once in each interval.
    pub(super) fn start(control: Control, interval: Duration) -> io::Result<Feed> {
        let (tell, news) = channel();
        let (orders, ordered) = channel();
        // Not waited for: an answer may never come.
        thread::Builder::new().name("feed".into()).spawn(move || {
            if let Err(error) = ask(&control, interval, &tell, &ordered) {
                // Nobody listens once the user has quit.
                let why = (!matches!(error, Error::Gone(_))).then(|| error.to_string());
                let _ = tell.send(News::Gone(why));
            }
        })?;
        Ok(Feed { news, orders })
    }

    pub(super) fn news(&self) -> Result<News, TryRecvError> {
        self.news.try_recv()
    }

    pub(super) fn order(&self, order: Order) {
        // If the thread is gone, its last news say why.
        let _ = self.orders.send(order);
    }
}

fn ask(control: &Control, interval: Duration, tell: &Sender<News>, ordered: &Receiver<Order>) -> Result<(), Error> {
    loop {
        let status = control.status()?;
        let clients = control.clients()?;
        if tell.send(News::Figures(Box::new(status), clients)).is_err() {
            return Ok(());
        }
        match ordered.recv_timeout(interval) {
            Ok(order) => {
                let _ = tell.send(News::Done(carry_out(control, order)?));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn carry_out(control: &Control, order: Order) -> Result<String, Error> {
    match order {
        Order::SetPaused(true) => control.pause().map(|state| match state.paused {
            true => "paused: it hands out nothing until it is told to go on".into(),
            false => "it is ending, and is not paused any more".into(),
        }),
        Order::SetPaused(false) => control.resume().map(|_| "it goes on".into()),
        Order::Stop => control.stop(false).map(|()| "told to stop: it takes no more items, and ends once all are settled".into()),
    }
}
