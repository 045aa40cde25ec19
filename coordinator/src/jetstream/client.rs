//! The connection to the servers; `async_nats` is named only here, in `access` and in `setup`.
//!
//! What is published while there is no connection lies with the library until there is one again, and nobody learns whether it ever leaves;
//! its acknowledgement of a message is not confirmed. So everything that matters goes out as a request of ours, with a number in the subject of
//! the answer, and is repeated until that comes.

mod access;
mod setup;

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, Event, HeaderMap, ServerAddr, ServerError, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use super::message::{ITEMS_HEADER, ItemsMessage};
use super::names::Names;
use super::{ClusterError, News, Settings};
use crate::limits::{JETSTREAM_COMMANDS_MAX, JETSTREAM_OVERDUE, JETSTREAM_PING, JETSTREAM_SERVER_OLDEST, JETSTREAM_STALL};

/// Something to be published.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Bytes,
}

/// What has come as an answer, or to everybody.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) subject: String,
    /// A number that stands for an answer without content, and what the server said with it.
    pub(super) status: Option<(u16, String)>,
    pub(super) payload: Bytes,
}

/// A message of the stream.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) sequence: u64,
    pub(super) delivered: u64,
    /// Where it is acknowledged.
    pub(super) reply: String,
    pub(super) message: ItemsMessage,
}

/// Where messages come in that were asked for; closed at once, with what is on its way lost, when it is dropped.
#[derive(Debug)]
pub(super) struct Inlet {
    subject: String,
    close: oneshot::Sender<u64>,
}

impl Inlet {
    /// Has the server send nothing more through it, and loses nothing that it has sent: `rest` is what may be on its way at most. That all of it
    /// has come is told as [`News::Closed`].
    ///
    /// A server can be told after how many messages it is to stop. So we say as many as may come, and send those that do not come ourselves.
    pub(super) fn close(self, rest: u64) {
        // If nobody is there to hear it, the connection has ended.
        let _ = self.close.send(rest);
    }
}

/// The connection takes nothing in.
#[derive(Debug)]
pub(super) struct Stalled;

#[derive(Clone, Debug)]
pub(super) struct Client {
    client: async_nats::Client,
    context: Context,
    inbox: String,
    epoch: String,
    item_bytes_max: u64,
}

impl Client {
    /// Connects to the first server that lets us.
    pub(super) async fn connect(settings: &Settings, news: &UnboundedSender<News>) -> Result<Client, ClusterError> {
        let address = &settings.address;
        let servers = address.servers.iter().map(|server| server.parse::<ServerAddr>()).collect::<Result<Vec<_>, _>>();
        let servers = servers.map_err(|error| ClusterError::Address { text: address.to_string(), what: error.to_string() })?;
        let options = access::add(options(news.clone()), address, &servers)?;
        let client = options.connect(servers).await.map_err(|error| access::refusal(address, &error))?;
        let info = client.server_info();
        debug!(server = info.server_name, version = info.version, "connected to NATS");
        let builder = ContextBuilder::new().timeout(JETSTREAM_OVERDUE);
        let context = match &address.domain {
            Some(domain) => builder.domain(domain).build(client.clone()),
            None => builder.build(client.clone()),
        };
        let inbox = client.new_inbox();
        Ok(Client { client, context, inbox, epoch: String::new(), item_bytes_max: 0 })
    }

    /// Reports what comes: answers, and what machines say to all.
    pub(super) async fn listen(&self, names: &Names, news: &UnboundedSender<News>) -> Result<(), ClusterError> {
        let fail = |error: &dyn std::error::Error| ClusterError::Setup {
            action: "listen for answers".into(),
            address: names.items.clone(),
            said: error.to_string(),
        };
        let subscribe = async |subject: String| self.client.subscribe(subject).await.map_err(|error| fail(&error));
        let prefix = format!("{}.answer.", self.inbox);
        forward(subscribe(format!("{prefix}*")).await?, news.clone(), move |message| {
            let number = message.subject.strip_prefix(prefix.as_str())?.parse().ok()?;
            Some(News::Answered { number, said: incoming(message) })
        });
        forward(subscribe(names.machine_subject("*")).await?, news.clone(), |message| Some(News::Said(incoming(message))));
        forward(subscribe(names.all_claimed_subject()).await?, news.clone(), |message| Some(News::Said(incoming(message))));
        self.client.flush().await.map_err(|error| fail(&error))
    }

    /// Opens an inlet for messages, which reports those that are pulled through it. Each connection needs one of its own: it is closed by a
    /// number of messages, which servers count from the beginning of a connection.
    pub(super) async fn open_inlet(&self, number: u64, news: &UnboundedSender<News>) -> Result<Inlet, Stalled> {
        let subject = format!("{}.pull.{number}", self.inbox);
        let opening = timeout(JETSTREAM_STALL, self.client.subscribe(format!("{subject}.*"))).await;
        let Ok(Ok(mut from)) = opening else { return Err(Stalled) };
        let (close, mut closing) = oneshot::channel();
        let (client, context, news, prefix) = (self.client.clone(), self.context.clone(), news.clone(), format!("{subject}."));
        tokio::spawn(async move {
            let mut came = 0;
            loop {
                let next = match closing.is_terminated() {
                    true => from.next().await,
                    false => match select(from.next(), &mut closing).await {
                        Either::Left((next, _)) => next,
                        Either::Right((Ok(rest), _)) => {
                            // Whatever fails here shows as an end that does not come.
                            let _ = from.unsubscribe_after(came + rest).await;
                            for _ in 0..rest {
                                let _ = client.publish(format!("{prefix}none"), Bytes::new()).await;
                            }
                            continue;
                        }
                        Either::Right((Err(_), _)) => return,
                    },
                };
                let Some(message) = next else { break };
                came += 1;
                if let Some(told) = pulled(message, &prefix, &context)
                    && news.send(told).is_err()
                {
                    return;
                }
            }
            // Nobody is there to hear it after the end.
            let _ = news.send(News::Closed { inlet: number });
        });
        Ok(Inlet { subject, close })
    }

    /// Publishes something, and has the answer come under this number, if there is to be one.
    pub(super) async fn send(&self, out: Outgoing, number: Option<u64>) -> Result<(), Stalled> {
        let reply = number.map(|number| format!("{}.answer.{number}", self.inbox));
        self.publish(out, reply).await
    }

    /// Asks for messages; what becomes of that comes under this number.
    pub(super) async fn pull(&self, out: Outgoing, inlet: &Inlet, number: u64) -> Result<(), Stalled> {
        self.publish(out, Some(format!("{}.{number}", inlet.subject))).await
    }

    async fn publish(&self, out: Outgoing, reply: Option<String>) -> Result<(), Stalled> {
        let Outgoing { subject, headers, payload } = out;
        let mut map = HeaderMap::new();
        headers.into_iter().for_each(|(name, value)| map.insert(name, value.as_str()));
        let publishing = async {
            match (reply, map.is_empty()) {
                (Some(reply), true) => self.client.publish_with_reply(subject, reply, payload).await,
                (Some(reply), false) => self.client.publish_with_reply_and_headers(subject, reply, map, payload).await,
                (None, _) => self.client.publish(subject, payload).await,
            }
        };
        match timeout(JETSTREAM_STALL, publishing).await {
            Ok(Ok(())) => Ok(()),
            // The library's task is gone, or a bound was missed: either shows as an answer that never comes.
            Ok(Err(_)) | Err(_) => Err(Stalled),
        }
    }

    /// Returns once the server has taken in all that was published.
    pub(super) async fn flush(&self) {
        // Without a connection there is nothing to wait for.
        let _ = self.client.flush().await;
    }

    /// What tells the records of this queue from those of another that had its name: part of each put's id, since how far a producer has
    /// come is forgotten with them.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The version of the server that we are connected to, if it is too old to be relied upon.
    pub(super) fn old_version(&self) -> Option<String> {
        let (major, minor, patch) = JETSTREAM_SERVER_OLDEST;
        let is_old = !self.client.is_server_compatible(major.into(), minor.into(), patch.into());
        is_old.then(|| self.client.server_info().version)
    }

    /// The largest item that can be put.
    pub(super) fn item_bytes_max(&self) -> u64 {
        self.item_bytes_max
    }

    /// What a message may have in all.
    pub(super) fn payload_bytes_max(&self) -> u64 {
        self.client.max_payload() as u64
    }

    /// An id that no other machine has.
    pub(super) fn new_id(&self) -> String {
        self.client.new_inbox().rsplit('.').next().unwrap_or_default().into()
    }
}

fn options(news: UnboundedSender<News>) -> ConnectOptions {
    ConnectOptions::new()
        .name("procq")
        .ping_interval(JETSTREAM_PING)
        .client_capacity(JETSTREAM_COMMANDS_MAX)
        .max_reconnects(None)
        .reconnect_delay_callback(|tries| Duration::from_millis(50 << tries.min(5)))
        .event_callback(move |event| {
            let told = match event {
                Event::Connected => Some(News::Connected),
                Event::Disconnected => Some(News::Disconnected),
                Event::ServerError(ServerError::AuthorizationViolation) => Some(News::Unauthorized),
                _ => None,
            };
            if let Some(told) = told {
                // Nobody is there to hear it after the end.
                let _ = news.send(told);
            }
            async {}
        })
}

fn pulled(message: async_nats::Message, prefix: &str, context: &Context) -> Option<News> {
    if let Some(number) = message.subject.strip_prefix(prefix) {
        return Some(News::PullEnded { number: number.parse().ok()?, said: incoming(message) });
    }
    let message = jetstream::Message { message, context: context.clone() };
    let (sequence, delivered) = message.info().map(|info| (info.stream_sequence, info.delivered as u64)).ok()?;
    let message = message.message;
    let head = message.headers.as_ref().and_then(|headers| headers.get(ITEMS_HEADER)).map(ToString::to_string);
    let reply = message.reply?.to_string();
    let message = ItemsMessage { head: head.unwrap_or_default(), body: message.payload };
    Some(News::Delivered(Delivery { sequence, delivered, reply, message }))
}

fn forward(mut from: Subscriber, news: UnboundedSender<News>, make: impl Fn(async_nats::Message) -> Option<News> + Send + 'static) {
    tokio::spawn(async move {
        while let Some(message) = from.next().await {
            if let Some(made) = make(message)
                && news.send(made).is_err()
            {
                return;
            }
        }
    });
}

fn incoming(message: async_nats::Message) -> Incoming {
    let status = message.status.filter(|status| *status != StatusCode::OK);
    let status = status.map(|status| (status.as_u16(), message.description.unwrap_or_default()));
    Incoming { subject: message.subject.to_string(), status, payload: message.payload }
}

/// An error with what is behind it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = error.source();
    }
    said
}
