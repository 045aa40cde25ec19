//! What servers answer, as JetStream's API has it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::Incoming;

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// There is no such stream.
    #[error("there is no such stream")]
    NoStream,
    /// There is no such consumer.
    #[error("there is no such consumer")]
    NoConsumer,
    /// There is no such message.
    #[error("there is no such message")]
    NoMessage,
    /// Another record has been written since.
    #[error("another record has been written since")]
    NotNext,
    /// Nobody can answer now: no leader, no JetStream, or another reason that may pass.
    #[error("{0}")]
    Trouble(String),
}

#[derive(Debug, Deserialize)]
struct Envelope {
    error: Option<ApiError>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What was published is stored.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    pub(super) seq: u64,
}

/// What a stream holds.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) created: String,
    pub(super) state: StreamState,
    /// Subjects in all, of which this has some: servers tell 100,000 at a time.
    #[serde(default)]
    pub(super) total: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    first_seq: u64,
    /// The number of the last message ever stored.
    #[serde(rename = "last_seq")]
    pub(super) last_sequence: u64,
    /// Messages by subject.
    #[serde(default)]
    pub(super) subjects: Option<BTreeMap<String, u64>>,
}

impl StreamState {
    /// The number of the first message; if there is none, that of the next to come, which servers say only where one has been settled.
    pub(super) fn first_sequence(&self) -> u64 {
        if self.messages == 0 { self.last_sequence + 1 } else { self.first_seq }
    }
}

/// Whatever is there, as long as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Present {}

#[derive(Debug, Deserialize)]
struct Got {
    message: GotMessage,
}

#[derive(Debug, Deserialize)]
struct GotMessage {
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// A message that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    headers: Vec<u8>,
}

impl Message {
    /// What stands in a header, if it is there.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.headers.split(|byte| *byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
        Some(String::from_utf8_lossy(value.trim_ascii()).into_owned())
    }
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(said: &Incoming) -> Result<T, Refusal> {
    if let Some((code, words)) = &said.status {
        return Err(Refusal::Trouble(match code {
            503 => "nobody answers for the stream".into(),
            _ => format!("status {code} {words}"),
        }));
    }
    let odd = |error: serde_json::Error| Refusal::Trouble(format!("an answer that cannot be read: {error}"));
    let envelope: Envelope = serde_json::from_slice(&said.payload).map_err(odd)?;
    match envelope.error {
        Some(error) => Err(refusal(error)),
        None => serde_json::from_slice(&said.payload).map_err(odd),
    }
}

/// Reads a message that was asked for; none if there is none.
pub(super) fn read_message(said: &Incoming) -> Result<Option<Message>, Refusal> {
    match read::<Got>(said) {
        Ok(Got { message }) => {
            let odd = |error| Refusal::Trouble(format!("a message that cannot be read: {error}"));
            let payload = BASE64_STANDARD.decode(message.data).map_err(odd)?.into();
            let headers = BASE64_STANDARD.decode(message.hdrs).map_err(odd)?;
            Ok(Some(Message { sequence: message.seq, payload, headers }))
        }
        Err(Refusal::NoMessage) => Ok(None),
        Err(other) => Err(other),
    }
}

fn refusal(ApiError { err_code, description }: ApiError) -> Refusal {
    match err_code {
        10077 if description.contains("maximum") => Refusal::Full(description),
        // Insufficient resources of the account or of the server: memory, disk.
        10002 | 10023 | 10028 | 10047 => Refusal::Full(description),
        10059 => Refusal::NoStream,
        10014 => Refusal::NoConsumer,
        10037 => Refusal::NoMessage,
        10071 | 10164 => Refusal::NotNext,
        _ => Refusal::Trouble(description),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(payload: &'static str) -> Incoming {
        Incoming { subject: String::new(), status: None, payload: payload.into() }
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(read::<Stored>(&said(r#"{"stream":"a","seq":7,"duplicate":true}"#)).unwrap().seq, 7);
        let error = |code: u64, words: &str| {
            let payload = format!(r#"{{"error":{{"code":503,"err_code":{code},"description":"{words}"}},"stream":"a","seq":0}}"#);
            read::<Stored>(&Incoming { subject: String::new(), status: None, payload: payload.into() }).unwrap_err()
        };
        assert_eq!(error(10077, "maximum bytes exceeded"), Refusal::Full("maximum bytes exceeded".into()));
        assert_eq!(error(10077, "store failed"), Refusal::Trouble("store failed".into()));
        assert_eq!([error(10059, ""), error(10014, ""), error(10071, "")], [Refusal::NoStream, Refusal::NoConsumer, Refusal::NotNext]);
        let nobody = Incoming { status: Some((503, String::new())), ..said("") };
        assert!(matches!(read::<Stored>(&nobody), Err(Refusal::Trouble(_))));
        assert!(matches!(read::<Stored>(&said("{")), Err(Refusal::Trouble(_))));
    }

    #[test]
    fn a_message_that_is_asked_for_is_there_or_not() {
        let got = said(r#"{"type":"x","message":{"subject":"a","seq":3,"data":"YWJj","time":"t"}}"#);
        let message = read_message(&got).unwrap().unwrap();
        assert_eq!((message.sequence, &message.payload[..], message.header("A")), (3, &b"abc"[..], None));
        assert_eq!(read_message(&said(r#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#)), Ok(None));
    }

    #[test]
    fn headers_are_found_by_their_whole_name() {
        let headers = "NATS/1.0\r\nProcq-Cause-Of: x\r\nProcq-Cause: it: broké \r\n\r\n".into();
        let message = Message { sequence: 1, payload: Bytes::new(), headers };
        assert_eq!((message.header("Procq-Cause").as_deref(), message.header("Procq")), (Some("it: broké"), None));
    }
}
