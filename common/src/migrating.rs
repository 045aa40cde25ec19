//! From Python's queues to this library: what each method is called here, and where ours is stricter.
//!
//! | `multiprocessing.Queue`, `JoinableQueue` | here | difference |
//! |---|---|---|
//! | `Queue(maxsize)` | `coordinator serve --capacity N` | bounded in bytes, too; an item counts until it is acknowledged, so that redelivery never exceeds the bound |
//! | `put(x)` | [`Producer::put`](crate::Producer::put) | an item that cannot be encoded is refused here, not lost in a feeder thread |
//! | `put(x, timeout=t)` | [`Producer::put_timeout`](crate::Producer::put_timeout) | the time bounds the whole call |
//! | `put(x, block=False)`, `put_nowait(x)` | [`Producer::try_put`](crate::Producer::try_put) | |
//! | `get()` | [`Consumer::get`](crate::Consumer::get) | gives a delivery that must be settled; `None` when the queue has ended |
//! | `get(timeout=t)` | [`Consumer::get_timeout`](crate::Consumer::get_timeout) | the time bounds the whole call |
//! | `get(block=False)`, `get_nowait()` | [`Consumer::try_get`](crate::Consumer::try_get) | an item confirmed before the call is found: "empty" is not a guess |
//! | `qsize()` | [`Producer::len`](crate::Producer::len), [`Consumer::len`](crate::Consumer::len) | exact at the moment of the answer, on every system |
//! | `empty()`, `full()` | `is_empty`, `is_full` | likewise; `is_full` counts what consumers hold |
//! | `task_done()` | [`Delivery::ack`](crate::Delivery::ack) | per item: it cannot be called too often, nor for another's item |
//! | `join()` | [`Producer::join`](crate::Producer::join), [`Consumer::join`](crate::Consumer::join) | a worker's death does not make it hang: its items are delivered again |
//! | `close()` | [`Producer::finish`](crate::Producer::finish), or drop | `finish` returns once all is confirmed |
//! | `join_thread()` | [`Producer::flush`](crate::Producer::flush) | no need to drain the queue first |
//! | `cancel_join_thread()` | – | would lose items that were put |
//! | a sentinel item per consumer | Stop: [`Consumer::get`](crate::Consumer::get) gives `None` | the queue's state: no dying consumer can swallow it, and late ones get it |
//!
//! | `queue.Queue` | here | difference |
//! |---|---|---|
//! | `shutdown()` | `coordinator stop`, [`Control::stop(false)`](crate::Control::stop) | puts are refused with a reason, at `flush` at the latest; what is queued is still handed out; a producer's `join` is refused like its puts, a consumer's is not |
//! | `shutdown(immediate=True)` | `coordinator stop --now`, [`Control::stop(true)`](crate::Control::stop) | how much was left unsettled is said on stderr |
//! | `ShutDown` from `put` | [`Error::Closed`](crate::Error::Closed) with [`CloseReason::Ended`](crate::message::CloseReason::Ended) | |
//! | `ShutDown` from `get` | `Ok(None)` | an end is no error |
//! | `Full`, `Empty` | [`PutError::Full`](crate::PutError::Full), [`GetError::Empty`](crate::GetError::Empty) | |
