//! What a queue consists of at the servers: it is made, or found as it has to be.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::context::{AccountErrorKind, GetStreamErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use common::limits::ITEM_BYTES_MAX_DEFAULT;
use futures_util::StreamExt;
use serde_json::json;
use twox_hash::XxHash3_64;

use super::{Client, chain};
use crate::jetstream::names::Names;
use crate::jetstream::{ClusterError, Settings};
use crate::limits::{JETSTREAM_DUPLICATE_WINDOW, JETSTREAM_INDEX_BITS, JETSTREAM_OVERHEAD_BYTES};

impl Client {
    /// Makes what the queue consists of, or finds it as it has to be.
    pub(in crate::jetstream) async fn set_up(&mut self, settings: &Settings, names: &Names) -> Result<(), ClusterError> {
        let address = settings.address.to_string();
        let asked = self.context.query_account().await;
        asked.map_err(|error| match (&settings.address.domain, error.kind()) {
            // Nobody listens where the domain would be asked.
            (Some(domain), AccountErrorKind::JetStreamUnavailable | AccountErrorKind::TimedOut) => {
                ClusterError::NoDomain { address: address.clone(), domain: domain.clone(), said: chain(&error) }
            }
            _ => ClusterError::NoJetStream { address: address.clone(), said: chain(&error) },
        })?;
        self.item_bytes_max = self.fit_item(settings)?;
        let storage = if settings.address.in_memory { StorageType::Memory } else { StorageType::File };
        let common = || Config { num_replicas: settings.address.replicas, storage, ..Config::default() };
        // Servers that would drop the oldest message have to be told of one bound only.
        let max_messages = if self.evicts() { -1 } else { settings.capacity_items as i64 };
        let items = Config {
            name: names.items.clone(),
            subjects: vec![format!("{}.>", names.items_subject)],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages,
            max_bytes: settings.capacity_bytes as i64,
            duplicate_window: JETSTREAM_DUPLICATE_WINDOW,
            description: Some(format!("procq queue of {} items, {} bytes", settings.capacity_items, settings.capacity_bytes)),
            ..common()
        };
        let dead = Config {
            name: names.dead.clone(),
            subjects: vec![names.all_dead_subject()],
            max_messages_per_subject: 1,
            duplicate_window: JETSTREAM_DUPLICATE_WINDOW,
            description: Some("procq dead letters".into()),
            ..common()
        };
        let state = Config {
            name: names.state.clone(),
            subjects: vec![format!("{}.>", names.state_subject)],
            max_messages_per_subject: 1,
            duplicate_window: JETSTREAM_DUPLICATE_WINDOW,
            description: Some("procq records".into()),
            ..common()
        };
        let dead = self.set_up_stream(&address, dead, None).await?;
        let state = self.set_up_stream(&address, state, None).await?;
        self.epoch = format!("{:x}", XxHash3_64::oneshot(state.created.to_string().as_bytes()));
        let first = self.begin_anew(&address, names, &dead, &state).await?;
        self.set_up_stream(&address, items, first).await?;
        self.set_up_consumer(settings, names).await
    }

    /// If there are no items, though there were, forgets what was noted of them: how far producers had come, above all. Dead letters stay; gives
    /// the number of the first message whose items cannot be taken for theirs.
    async fn begin_anew(&self, address: &str, names: &Names, dead: &Info, state: &Info) -> Result<Option<u64>, ClusterError> {
        let fail = |said: String| {
            let action = format!("begin the queue {} anew", names.queue);
            ClusterError::Setup { action, address: address.into(), said }
        };
        match self.context.get_stream(&names.items).await {
            Err(error) if is_not_found(&error.kind()) => {}
            _ => return Ok(None),
        }
        // Up to what was there before it was looked: another machine may be quicker, and note something new.
        let last = state.state.last_sequence;
        let stream = self.context.get_stream_no_info(&names.state).await.map_err(|error| fail(chain(&error)))?;
        stream.purge().sequence(last + 1).await.map_err(|error| fail(chain(&error)))?;
        if dead.state.messages == 0 {
            return Ok(None);
        }
        let stream = self.context.get_stream_no_info(&names.dead).await.map_err(|error| fail(chain(&error)))?;
        let mut subjects = stream.info_with_subjects(names.all_dead_subject()).await.map_err(|error| fail(chain(&error)))?;
        let mut last = 0;
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|error| fail(chain(&error)))?;
            last = names.dead_in(&subject).map_or(last, |id| last.max(id.0 >> JETSTREAM_INDEX_BITS));
        }
        Ok(Some(last + 1))
    }

    /// How large an item may be: as is wanted, or else as large as possible.
    fn fit_item(&self, settings: &Settings) -> Result<u64, ClusterError> {
        let payload_bytes_max = self.payload_bytes_max();
        let item_bytes_max = payload_bytes_max.saturating_sub(2 * JETSTREAM_OVERHEAD_BYTES);
        let fits_queue = settings.capacity_bytes.saturating_sub(JETSTREAM_OVERHEAD_BYTES);
        let wanted = settings.item_bytes_max.unwrap_or(ITEM_BYTES_MAX_DEFAULT.min(item_bytes_max).min(fits_queue)).max(1);
        if wanted > item_bytes_max {
            return Err(ClusterError::ItemLimit { given: wanted, item_bytes_max, payload_bytes_max });
        }
        let needed = wanted + JETSTREAM_OVERHEAD_BYTES;
        if settings.capacity_bytes < needed {
            return Err(ClusterError::Capacity { given: settings.capacity_bytes, needed });
        }
        Ok(wanted)
    }

    /// Makes a stream whose first message is to have this number, or finds it.
    async fn set_up_stream(&self, address: &str, config: Config, first: Option<u64>) -> Result<Info, ClusterError> {
        let fail = |said: String| {
            let action = format!("make the stream {}", config.name);
            ClusterError::Setup { action, address: address.into(), said }
        };
        let find = async || self.context.get_stream(&config.name).await.map(|stream| stream.cached_info().clone());
        let info = match find().await {
            Ok(info) => info,
            Err(error) if is_not_found(&error.kind()) => {
                let mut request = json!(config);
                if let Some(first) = first {
                    // Servers before 2.10 know nothing of it, and begin with 1.
                    request["first_seq"] = first.into();
                }
                let created = self.context.request(format!("STREAM.CREATE.{}", config.name), &request).await;
                match created.map_err(|error| fail(chain(&error)))? {
                    Response::Ok(info) => info,
                    // Another machine was quicker.
                    Response::Err { error } if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                        find().await.map_err(|error| fail(chain(&error)))?
                    }
                    Response::Err { error } => return Err(fail(chain(&error))),
                }
            }
            Err(error) => return Err(fail(chain(&error))),
        };
        let found = &info.config;
        let differs = |what, expected: String, came: String| {
            let stream = config.name.clone();
            if expected == came { Ok(()) } else { Err(ClusterError::Settings { stream, what, expected, came }) }
        };
        let shown = |description: &Option<String>| description.clone().unwrap_or_else(|| "none of procq's".into());
        differs("the description", shown(&config.description), shown(&found.description))?;
        differs("subjects", config.subjects.join(", "), found.subjects.join(", "))?;
        differs("retention", format!("{:?}", config.retention), format!("{:?}", found.retention))?;
        differs("discard policy", format!("{:?}", config.discard), format!("{:?}", found.discard))?;
        // What is not bounded is 0 as it is asked for, and -1 as it is told.
        differs("the most messages", config.max_messages.max(0).to_string(), found.max_messages.max(0).to_string())?;
        differs("the most bytes", config.max_bytes.max(0).to_string(), found.max_bytes.max(0).to_string())?;
        differs("storage", format!("{:?}", config.storage), format!("{:?}", found.storage))?;
        differs("replicas", config.num_replicas.to_string(), found.num_replicas.to_string())?;
        Ok(info)
    }

    async fn set_up_consumer(&self, settings: &Settings, names: &Names) -> Result<(), ClusterError> {
        let fail = |said: String| {
            let action = format!("make the consumer {} of the stream {}", names.consumer, names.items);
            ClusterError::Setup { action, address: settings.address.to_string(), said }
        };
        let config = pull::Config {
            durable_name: Some(names.consumer.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: settings.timing.ack_wait,
            // A bound would strand what exceeds it; failures are counted by us.
            max_deliver: -1,
            // What machines hold is bounded by what each asks for.
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        // Making one that is there would change it.
        let known = self.context.get_consumer_from_stream::<pull::Config, _, _>(&names.consumer, &names.items).await;
        let made: Consumer<pull::Config> = match known {
            Ok(known) => known,
            Err(_) => self.context.create_consumer_on_stream(config.clone(), &names.items).await.map_err(|error| fail(chain(&error)))?,
        };
        let found = &made.cached_info().config;
        if found.ack_wait != config.ack_wait || found.max_deliver > 0 || found.max_ack_pending > 0 {
            let shown = |wait: Duration, deliver: i64| format!("{wait:?}, deliveries {}", deliver.max(-1));
            return Err(ClusterError::Settings {
                stream: names.items.clone(),
                what: "its consumer's ack_wait",
                expected: shown(config.ack_wait, config.max_deliver),
                came: shown(found.ack_wait, found.max_deliver),
            });
        }
        Ok(())
    }

    /// True if these servers drop the oldest message when there are bounds for both messages and bytes.
    fn evicts(&self) -> bool {
        let is_before_2_10_5 = !self.client.is_server_compatible(2, 10, 5);
        let is_mended_2_9 = self.client.is_server_compatible(2, 9, 24) && !self.client.is_server_compatible(2, 10, 0);
        is_before_2_10_5 && !is_mended_2_9
    }
}

fn is_not_found(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
