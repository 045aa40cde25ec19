//! Where the queue is: `nats://HOST:PORT[,HOST:PORT…]/QUEUE[?creds=FILE&…]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::ClusterError;
use crate::limits::{
    JETSTREAM_ACK_WAIT, JETSTREAM_ACK_WAIT_MAX, JETSTREAM_ACK_WAIT_MIN, JETSTREAM_MACHINE_LOST, JETSTREAM_MACHINE_LOST_MAX,
    JETSTREAM_MACHINE_LOST_MIN,
};

/// Servers, the queue's name, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Each as `nats://[USER:PASSWORD@]HOST[:PORT]` or `tls://…`.
    pub servers: Vec<String>,
    /// The queue's name, which its streams have, too.
    pub queue: String,
    /// A file with a token and its key (`.creds`).
    pub credentials: Option<PathBuf>,
    /// Certificates of the authorities that are trusted, instead of the system's.
    pub authorities: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The JetStream domain, if it is not the servers' own.
    pub domain: Option<String>,
    /// How many servers keep each item.
    pub replicas: usize,
    /// The servers keep items in memory alone.
    pub in_memory: bool,
    /// How long a server waits for a sign that a message is still worked on. All machines have to give the same.
    pub ack_wait: Duration,
    /// After this long without a sign of life a machine is given up.
    pub machine_lost: Duration,
}

/// The longest name of a queue: the servers make files of it.
const QUEUE_BYTES_MAX: usize = 64;

impl FromStr for Address {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Address, ClusterError> {
        let fail = |what: String| ClusterError::Address { text: hide_password(text), what };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fail("it does not begin with nats:// or tls://".into()))?;
        if !matches!(scheme, "nats" | "tls") {
            return Err(fail(format!("it begins with {scheme}://, not with nats:// or tls://")));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, queue) = path.rsplit_once('/').ok_or_else(|| fail("it has no /QUEUE at its end".into()))?;
        if hosts.split(',').any(|host| host.is_empty() || host.ends_with('@') || host.contains('/')) {
            return Err(fail("a server in it has no name".into()));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if queue.is_empty() || queue.len() > QUEUE_BYTES_MAX || !queue.bytes().all(is_plain) {
            return Err(fail(format!("the queue's name is 1 to {QUEUE_BYTES_MAX} letters, digits, - and _, not \"{queue}\"")));
        }
        let mut address = Address {
            servers: hosts.split(',').map(|host| format!("{scheme}://{host}")).collect(),
            queue: queue.into(),
            credentials: None,
            authorities: None,
            certificate: None,
            domain: None,
            replicas: 1,
            in_memory: false,
            ack_wait: JETSTREAM_ACK_WAIT,
            machine_lost: JETSTREAM_MACHINE_LOST,
        };
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').filter(|(_, value)| !value.is_empty()) {
                Some(("creds", path)) => address.credentials = Some(path.into()),
                Some(("ca", path)) => address.authorities = Some(path.into()),
                Some(("cert", path)) => certificate = Some(PathBuf::from(path)),
                Some(("key", path)) => key = Some(PathBuf::from(path)),
                Some(("domain", name)) if name.bytes().all(is_plain) => address.domain = Some(name.into()),
                Some(("storage", "memory")) => address.in_memory = true,
                Some(("storage", "file")) => address.in_memory = false,
                Some(("replicas", number)) => match number.parse() {
                    Ok(replicas @ 1..=5) => address.replicas = replicas,
                    _ => return Err(fail(format!("replicas is 1 to 5, not {number}"))),
                },
                Some(("ack_wait", text)) => {
                    address.ack_wait = duration(pair, text, JETSTREAM_ACK_WAIT_MIN, JETSTREAM_ACK_WAIT_MAX).map_err(fail)?
                }
                Some(("lost", text)) => {
                    address.machine_lost = duration(pair, text, JETSTREAM_MACHINE_LOST_MIN, JETSTREAM_MACHINE_LOST_MAX).map_err(fail)?;
                }
                _ => {
                    let known = "creds, ca, cert, key (files), domain, replicas, storage (file or memory), ack_wait, lost (durations)";
                    return Err(fail(format!("\"{pair}\" is none of {known}")));
                }
            }
        }
        address.certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(fail("cert and key go together".into())),
        };
        Ok(address)
    }
}

fn duration(pair: &str, text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (min..=max).contains(&duration) => Ok(duration),
        Ok(_) => {
            let shown = humantime::format_duration;
            Err(format!("\"{pair}\" is not within {} and {}", shown(min), shown(max)))
        }
        Err(error) => Err(format!("\"{pair}\" has no duration like 1.5s or 2m: {error}")),
    }
}

/// As it is shown to people: without what nobody else may know.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", hide_password(&self.servers.join(",")), self.queue)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hide_password(text: &str) -> String {
    let hide = |server: &str| match server.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}…@{host}")
        }
        None => server.to_string(),
    };
    text.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_servers_a_queue_and_how_to_get_in() {
        let address: Address =
            "nats://a:1,u:p@b:2/jobs?creds=/c&ca=/ca&cert=/x&key=/k&replicas=3&storage=memory&domain=hub".parse().unwrap();
        assert_eq!(address.servers, ["nats://a:1", "nats://u:p@b:2"]);
        assert_eq!((address.queue.as_str(), address.replicas, address.in_memory), ("jobs", 3, true));
        assert_eq!(address.credentials, Some("/c".into()));
        assert_eq!(address.certificate, Some(("/x".into(), "/k".into())));
        assert_eq!((address.authorities.clone(), address.domain.as_deref()), (Some("/ca".into()), Some("hub")));
        let shown = (address.to_string(), format!("{address:?}"));
        assert_eq!(shown, ("nats://a:1,nats://…@b:2/jobs".into(), "nats://a:1,nats://…@b:2/jobs".into()));
        assert_eq!("tls://a/jobs".parse::<Address>().unwrap().servers, ["tls://a"]);
        let address: Address = "nats://a/jobs?ack_wait=1500ms&lost=1m".parse().unwrap();
        assert_eq!((address.ack_wait, address.machine_lost), (Duration::from_millis(1500), Duration::from_secs(60)));
        let address: Address = format!("nats://a/{}?storage=file", "q".repeat(QUEUE_BYTES_MAX)).parse().unwrap();
        assert!(!address.in_memory && address.certificate.is_none());
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_password() {
        let told = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(told("a:1/jobs").contains("nats://"));
        assert!(told("http://a:1/jobs").contains("begins with http://"));
        assert!(told("nats://a:1").contains("/QUEUE"));
        assert!(told("nats:///jobs").contains("no name"));
        assert!(told("nats://u:p@/jobs").contains("no name"));
        assert!(told("nats://a,,b/jobs").contains("no name") && told("nats://a/b/jobs").contains("no name"));
        assert!(told("nats://a/jo.bs").contains("jo.bs"));
        assert!(told("nats://a/").contains("not \"\""));
        assert!(told(&format!("nats://a/{}", "q".repeat(QUEUE_BYTES_MAX + 1))).contains("1 to 64 letters"));
        assert!(told("nats://a/jobs?domain=h.b").contains("domain=h.b") && told("nats://a/jobs?ca=").contains("\"ca=\""));
        assert!(told("nats://a/jobs?storage=tape").contains("storage=tape"));
        assert!(told("nats://a/jobs?cert=/c").contains("go together") && told("nats://a/jobs?key=/k").contains("go together"));
        assert!(told("nats://a/jobs?replicas=7").contains("1 to 5"));
        assert!(told("nats://a/jobs?ack_wait=soon").contains("duration"));
        assert!(told("nats://a/jobs?ack_wait=11m").contains("not within 1s and 10m"));
        assert!(told("nats://a/jobs?lost=1s").contains("not within 6s and 10m"));
        let odd = told("nats://u:secret@a/jobs?colour=red");
        assert!(odd.contains("colour=red") && !odd.contains("secret"), "{odd}");
    }
}
