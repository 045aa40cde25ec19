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
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    first_seq: u64,
    last_seq: u64,
    /// Messages by subject.
    #[serde(default)]
    pub(super) subjects: Option<BTreeMap<String, u64>>,
}

impl StreamState {
    /// The number of the first message; if there is none, that of the next to come, which servers say only where one has been settled.
    pub(super) fn first_sequence(&self) -> u64 {
        if self.messages == 0 { self.last_seq + 1 } else { self.first_seq }
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
    data: String,
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

/// Reads a message that was asked for, and its number; none if there is none.
pub(super) fn read_message(said: &Incoming) -> Result<Option<(Bytes, u64)>, Refusal> {
    match read::<Got>(said) {
        Ok(Got { message }) => match BASE64_STANDARD.decode(message.data) {
            Ok(data) => Ok(Some((data.into(), message.seq))),
            Err(error) => Err(Refusal::Trouble(format!("a message that cannot be read: {error}"))),
        },
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
        assert_eq!(read_message(&got), Ok(Some((b"abc"[..].into(), 3))));
        assert_eq!(read_message(&said(r#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#)), Ok(None));
    }
}
