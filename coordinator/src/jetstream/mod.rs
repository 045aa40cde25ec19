//! A queue that many machines share: its items lie in a JetStream work queue at NATS servers, and each machine's coordinator serves its own
//! producers and consumers from there. Nothing of ours replicates, elects or stores.
//!
//! [`Cluster`] is the near end of a thread that owns the connection, and is used as a journal is: work is handed over, answers are collected,
//! `wake` is called when there are some. No call waits.
//!
//! | procq | JetStream |
//! |---|---|
//! | the queue | a stream with retention *work queue*, which forgets a message once it is acknowledged |
//! | `--capacity` | its limits with *discard new*: what does not fit is refused, waits here in order, and leaves when there is room |
//! | a batch | a message (below the server's `max_payload`); its items are numbered by its sequence and their place |
//! | a put is confirmed | its PubAck has come; put again, it has the same `Nats-Msg-Id`, and is dropped by the server |
//! | demand | a pull request for so many messages; what comes unwanted is given back at once |
//! | a consumer holds items | the message's lease is renewed (`+WPI`) several times per `ack_wait` |
//! | a consumer's connection closes | what of its message is done is marked, the message given back (`-NAK`), no timer involved |
//! | all of a batch is settled | `+ACK`, and the server's answer to that |
//! | items settled, attempts failed | *marks* beside the message, read by whom it is delivered to again |
//! | dead letters | a second stream; confirmed there before the item counts as settled |
//! | producers' names, how far they are | a record each, in a third stream; written by compare-and-set, so that a name has one owner |
//! | machines | a record each, renewed as a heartbeat; one that stays out is given up, and its producers are not waited for |
//! | `Stop` | all machines' producers have finished, and a look afterwards has found the stream empty |
//!
//! **Order.** One producer's items lie in the stream in the order in which they were put, as long as servers and connection do not fail
//! (`puts`). **Duplicates.** Nothing is delivered twice without a fault. A message whose machine dies is delivered again with those of
//! its items that were not marked as settled: at most a batch for each message held. So is one that a server had delivered in the moments
//! before it was killed, of which neither it nor its successor knows. A put whose confirmation was lost for longer than the duplicate window may lie there twice.
//!
//! - [`Address`], `names`: where the queue is, what its parts are called; `client`: the connection, the only module that names the library;
//! - `message`: the bytes of what is stored; `replies`: what servers answer; `requests`: what was asked and not answered;
//! - `puts`, `arrivals`, `leases`, `registry`, `letters`, `looks`: what is on its way there and here, what is held, who takes part, which dead
//!   letters are read, what was seen; without I/O or clock;
//! - `worker`, `news`, `producers`, `dead`: the thread: what is due, and what is done about what comes.

mod address;
mod arrivals;
mod client;
mod dead;
mod error;
mod leases;
mod letters;
mod looks;
mod message;
mod names;
mod news;
mod producers;
mod puts;
mod registry;
mod replies;
mod requests;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::ItemId;
use common::batch::Batch;
use common::limits::BATCH_ITEMS_MAX;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub use address::Address;
use client::{Client, Delivery, Incoming};
pub use error::ClusterError;
pub use message::{Marks, MessageError};
use names::Names;
pub use registry::{Lost, View};
use worker::Worker;

use crate::limits::{JETSTREAM_ACK_WAIT, JETSTREAM_HEARTBEAT, JETSTREAM_INDEX_BITS, JETSTREAM_LOOK, JETSTREAM_MACHINE_LOST};
use crate::queue::{DeadLetter, DeadPage, DeadRange, Origin};

/// Which queue, and with which bounds. All machines that share a queue have to give the same.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub address: Address,
    /// The most items in it. With batches of several, each machine may exceed it by one batch.
    pub capacity_items: u64,
    /// The most bytes in it, as the servers count them.
    pub capacity_bytes: u64,
    /// The largest item; none: as large as the servers and the capacity allow, [`common::limits::ITEM_BYTES_MAX_DEFAULT`] at most. Machines may differ in it.
    pub item_bytes_max: Option<u64>,
    /// What people call this machine: its host and our process id, say.
    pub machine: String,
    /// How long things take.
    pub timing: Timing,
}

/// How long things take; tests have less patience.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a server waits for a sign that a message is still worked on.
    pub ack_wait: Duration,
    /// How often a machine says that it is there.
    pub heartbeat: Duration,
    /// After this long without that it is given up.
    pub machine_lost: Duration,
    /// How often it is looked at least what the queue holds.
    pub look: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { ack_wait: JETSTREAM_ACK_WAIT, heartbeat: JETSTREAM_HEARTBEAT, machine_lost: JETSTREAM_MACHINE_LOST, look: JETSTREAM_LOOK }
    }
}

/// A message that was fetched, and is ours until it is settled or released.
#[derive(Debug)]
pub struct Fetched {
    /// Its number, the same at all machines and with each delivery.
    pub sequence: u64,
    /// How often it was delivered, this time included. Not how often its items failed: that is in the marks.
    pub deliveries: u64,
    /// Its items, settled ones included; item `i` has the number [`item_id`]`(sequence, i)`.
    pub batch: Batch,
    /// What became of them so far.
    pub marks: Marks,
}

/// The number of an item, the same at all machines.
pub const fn item_id(sequence: u64, index: u32) -> ItemId {
    ItemId((sequence << JETSTREAM_INDEX_BITS) | index as u64)
}

const _: () = assert!(BATCH_ITEMS_MAX as u64 <= 1 << JETSTREAM_INDEX_BITS, "a batch whose items have no numbers");

/// What has come back.
#[derive(Debug)]
pub enum Answer {
    /// A batch that was put is stored; in the order of being put. Every put is answered so in the end, unless an error ends all.
    Kept {
        /// As it was put.
        ticket: u64,
        /// The highest number of all messages put here so far: once [`View::first_sequence`] is beyond it, all of them are settled.
        sequence: u64,
    },
    /// A message that was wanted.
    Fetched(Fetched),
    /// A message is settled for good.
    Settled(u64),
    /// A dead letter is kept.
    Buried(ItemId),
    /// Dead letters that were to be loaded; in the order of being asked for.
    DeadLoaded(DeadPage),
    /// A dead letter is kept no more.
    DeadForgotten(ItemId),
    /// A name is ours.
    Claimed {
        /// Which.
        name: Arc<str>,
        /// How many items were put under it.
        position: u64,
        /// Their checksum.
        checksum: u64,
        /// Nothing more comes under it.
        finished: bool,
    },
    /// A producer has come under a name of ours at another machine, which has it now. What was put here under that name and has not left is
    /// dropped: nobody was told that it is stored, and its producer puts it again there. [`Answer::Kept`] follows for each such put all the
    /// same, in its turn, and [`Answer::Finished`] if that was waited for.
    Replaced(Arc<str>),
    /// A name's end is kept, or the name is not ours.
    Finished(Arc<str>),
    /// The queue as all machines see it has changed, or somebody has asked for it.
    Cluster(View),
    /// A machine is given up.
    Lost(Lost),
    /// Servers cannot be reached or do not answer: nothing comes and nothing is confirmed until [`Answer::Restored`]. Told once.
    Outage(String),
    /// They can again.
    Restored {
        /// After this long.
        after: Duration,
    },
    /// There is no room for another reason than the queue's bounds: told once until a put succeeds.
    NoSpace(String),
    /// The server that we are connected to is older than [`JETSTREAM_SERVER_OLDEST`](crate::limits::JETSTREAM_SERVER_OLDEST), and has this version. Told once for each.
    OldServer(String),
}

#[derive(Debug)]
enum Work {
    Put { ticket: u64, batch: Batch, origin: Origin },
    Want(u32),
    WantMore(u32),
    Settle(u64),
    Release { sequence: u64, delay: Duration },
    Mark { sequence: u64, marks: Marks },
    Bury(DeadLetter),
    LoadDead(DeadRange),
    ForgetDead(ItemId),
    Look,
    Claim(Arc<str>),
    Finish(Arc<str>),
    Announce { expected: u64, finished: u64 },
    End,
}

/// What the thread hears of: one channel for all, so that there is one order.
#[derive(Debug)]
enum News {
    Work(Work),
    Answered {
        number: u64,
        said: Incoming,
    },
    Delivered(Delivery),
    PullEnded {
        number: u64,
        said: Incoming,
    },
    /// Nothing more comes through an inlet that was to be closed.
    Closed {
        inlet: u64,
    },
    /// To all machines.
    Said(Incoming),
    Connected,
    Disconnected,
    Unauthorized,
    /// What had stalled moves again.
    Flushed,
}

type Report = Result<Answer, ClusterError>;

/// The near end of the connection's thread.
#[derive(Debug)]
pub struct Cluster {
    queue: String,
    news: UnboundedSender<News>,
    answers: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    item_bytes_max: u64,
    unanswered: u64,
    has_failed: bool,
}

impl Cluster {
    /// Connects, makes the queue at the servers or finds it there, and starts the thread. `wake` is called when there is something to
    /// collect.
    pub fn open(settings: Settings, wake: impl Fn() + Send + 'static) -> Result<Cluster, ClusterError> {
        let (news, heard) = unbounded_channel();
        let (report, answers) = channel();
        let (say_opened, opened) = channel();
        let queue = settings.address.queue.clone();
        let to_all = news.clone();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ClusterError::Thread)?;
        let body = move || {
            runtime.block_on(async {
                match open(&settings, &to_all).await {
                    Ok((client, names)) => {
                        // The caller waits for this; if it did not, the end of the channel of work would end the worker.
                        let _ = say_opened.send(Ok(client.item_bytes_max()));
                        Worker::new(client, names, settings, to_all, report, Box::new(wake)).run(heard).await;
                    }
                    Err(error) => drop(say_opened.send(Err(error))),
                }
            });
        };
        let thread = thread::Builder::new().name("jetstream".into()).spawn(body).map_err(ClusterError::Thread)?;
        let item_bytes_max = opened.recv().unwrap_or_else(|_| Err(ClusterError::Ended { queue: queue.clone() }))?;
        Ok(Cluster { queue, news, answers, thread: Some(thread), item_bytes_max, unanswered: 0, has_failed: false })
    }

    /// The largest item that can be put here.
    pub fn item_bytes_max(&self) -> u64 {
        self.item_bytes_max
    }

    /// Puts a batch; [`Answer::Kept`] tells when it is stored. A batch too large for a message becomes several.
    pub fn put(&mut self, ticket: u64, batch: Batch, origin: Origin) {
        self.unanswered += 1;
        self.work(Work::Put { ticket, batch, origin });
    }

    /// Says how many more messages are wanted from now on; each that comes as [`Answer::Fetched`] counts.
    pub fn want(&mut self, messages: u32) {
        self.work(Work::Want(messages));
    }

    /// Says that so many more are wanted than were before.
    pub fn want_more(&mut self, messages: u32) {
        self.work(Work::WantMore(messages));
    }

    /// All items of a message are settled; [`Answer::Settled`] tells when the servers know.
    pub fn settle(&mut self, sequence: u64) {
        self.unanswered += 1;
        self.work(Work::Settle(sequence));
    }

    /// Gives a message back, to be delivered again after `delay`, here or elsewhere. What has become of its items is marked before.
    pub fn release(&mut self, sequence: u64, delay: Duration) {
        self.work(Work::Release { sequence, delay });
    }

    /// Notes what has become of a message's items, in all.
    pub fn mark(&mut self, sequence: u64, marks: Marks) {
        self.work(Work::Mark { sequence, marks });
    }

    /// Keeps a dead letter; [`Answer::Buried`] tells when that is done, and only then may its item count as settled.
    pub fn bury(&mut self, letter: DeadLetter) {
        self.unanswered += 1;
        self.work(Work::Bury(letter));
    }

    /// Reads dead letters, in the order of their items' numbers: from `range.from` on and below `range.until`, as many as a page takes.
    /// [`Answer::DeadLoaded`] has them; what another machine forgets meanwhile may be among them or not. Who goes on with a page's `next` at
    /// once may not see letters that were buried since the first of the pages.
    pub fn load_dead(&mut self, range: DeadRange) {
        self.work(Work::LoadDead(range));
    }

    /// Deletes the dead letter of an item, if it is there; [`Answer::DeadForgotten`] tells when it is not.
    pub fn forget_dead(&mut self, id: ItemId) {
        self.unanswered += 1;
        self.work(Work::ForgetDead(id));
    }

    /// Asks for a look at the queue that begins after now; [`Answer::Cluster`] has what it shows, changed or not. Asked several times before
    /// it begins, there is one look. As long as nothing changes, looks come no more often than the servers can bear.
    pub fn look(&mut self) {
        self.work(Work::Look);
    }

    /// Takes a producer's name, from another machine if it has it; [`Answer::Claimed`] tells how far it has come. A second claim of a name
    /// takes the place of one that is under way.
    pub fn claim(&mut self, name: Arc<str>) {
        self.work(Work::Claim(name));
    }

    /// No more comes under a name of ours; all that was put under it is kept already. [`Answer::Finished`] tells when the servers know, at once
    /// if they did before or the name is not ours.
    pub fn finish(&mut self, name: Arc<str>) {
        self.work(Work::Finish(name));
    }

    /// Tells all machines of this one's producers.
    pub fn announce(&mut self, expected: u64, finished: u64) {
        self.work(Work::Announce { expected, finished });
    }

    /// What has come back since the last call. After an error nothing is kept any more.
    pub fn collect(&mut self) -> Result<Vec<Answer>, ClusterError> {
        let mut answers = Vec::new();
        while !self.has_failed {
            match self.answers.try_recv() {
                Ok(answer) => {
                    let answer = answer.inspect_err(|_| self.has_failed = true)?;
                    if matches!(answer, Answer::Kept { .. } | Answer::Settled(_) | Answer::Buried(_) | Answer::DeadForgotten(_)) {
                        self.unanswered = self.unanswered.saturating_sub(1);
                    }
                    answers.push(answer);
                }
                Err(TryRecvError::Empty) => return Ok(answers),
                Err(TryRecvError::Disconnected) => self.has_failed = true,
            }
        }
        Err(ClusterError::Ended { queue: self.queue.clone() })
    }

    /// True when all that was put, settled, buried and forgotten is known to be.
    pub fn is_idle(&self) -> bool {
        self.unanswered == 0
    }

    /// Gives back what is held, says goodbye to the other machines, and ends the connection.
    pub fn close(mut self) {
        self.end();
    }

    fn work(&self, work: Work) {
        // After a failure the thread is gone; that was reported, and nothing is kept any more.
        let _ = self.news.send(News::Work(work));
    }

    fn end(&mut self) {
        self.work(Work::End);
        if let Some(thread) = self.thread.take() {
            // A panic there was told on stderr, and what it held comes back by itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

async fn open(settings: &Settings, news: &UnboundedSender<News>) -> Result<(Client, Names), ClusterError> {
    let mut client = Client::connect(settings, news).await?;
    let names = Names::new(&settings.address);
    client.set_up(settings, &names).await?;
    client.listen(&names, news).await?;
    Ok((client, names))
}
