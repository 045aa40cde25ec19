//! What streams, subjects and messages are called.
//!
//! ```text
//! stream QUEUE        procq.QUEUE.items.COUNT.SOURCE     a message of COUNT items; SOURCE is a producer's name or a machine
//! stream QUEUE_dead   procq.QUEUE.dead.ID                the dead letter of the item ID, in twenty digits
//! stream QUEUE_state  procq.QUEUE.state.machine.ID       the last record of each
//!                     procq.QUEUE.state.producer.SOURCE
//!                     procq.QUEUE.state.marks.SEQUENCE
//! no stream           procq.QUEUE.claimed.SOURCE         whose a name is now, once its record says so
//! ```
//!
//! The count is in the subject so that servers can say how many items there are: they count messages by subject. A dead letter has one of its
//! own so that it can be found and deleted by its number; all have as many digits, because servers list subjects in alphabetical order.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use common::ItemId;

use super::Address;

/// The names of one queue.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) queue: String,
    pub(super) items: String,
    pub(super) dead: String,
    pub(super) state: String,
    pub(super) consumer: String,
    pub(super) items_subject: String,
    dead_subject: String,
    pub(super) state_subject: String,
    claimed_subject: String,
    /// What requests to JetStream begin with.
    api: String,
}

impl Names {
    pub(super) fn new(address: &Address) -> Names {
        let queue = &address.queue;
        Names {
            queue: queue.clone(),
            items: queue.clone(),
            dead: format!("{queue}_dead"),
            state: format!("{queue}_state"),
            consumer: "procq".into(),
            items_subject: format!("procq.{queue}.items"),
            dead_subject: format!("procq.{queue}.dead"),
            state_subject: format!("procq.{queue}.state"),
            claimed_subject: format!("procq.{queue}.claimed"),
            api: address.domain.as_ref().map_or_else(|| "$JS.API".into(), |domain| format!("$JS.{domain}.API")),
        }
    }

    /// Items of a producer with a name, or of a machine.
    pub(super) fn items_subject(&self, count: u32, source: &str) -> String {
        format!("{}.{count}.{source}", self.items_subject)
    }

    /// How many items each message under a subject has.
    pub(super) fn count_in(&self, subject: &str) -> Option<u64> {
        subject.strip_prefix(&self.items_subject)?.strip_prefix('.')?.split('.').next()?.parse().ok()
    }

    /// The dead letter of an item.
    pub(super) fn dead_subject(&self, id: ItemId) -> String {
        format!("{}.{:020}", self.dead_subject, id.0)
    }

    pub(super) fn all_dead_subject(&self) -> String {
        format!("{}.*", self.dead_subject)
    }

    /// The item whose dead letter it is.
    pub(super) fn dead_in(&self, subject: &str) -> Option<ItemId> {
        subject.strip_prefix(&self.dead_subject)?.strip_prefix('.')?.parse().ok().map(ItemId)
    }

    pub(super) fn machine_subject(&self, id: &str) -> String {
        format!("{}.machine.{id}", self.state_subject)
    }

    pub(super) fn machine_in<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.state_subject)?.strip_prefix(".machine.")
    }

    pub(super) fn producer_subject(&self, name: &str) -> String {
        format!("{}.producer.{}", self.state_subject, source_of_name(name))
    }

    /// Where it is told who has claimed a name.
    pub(super) fn claimed_subject(&self, name: &str) -> String {
        format!("{}.{}", self.claimed_subject, source_of_name(name))
    }

    pub(super) fn all_claimed_subject(&self) -> String {
        format!("{}.*", self.claimed_subject)
    }

    /// The name that was claimed.
    pub(super) fn claimed_in(&self, subject: &str) -> Option<String> {
        let source = subject.strip_prefix(&self.claimed_subject)?.strip_prefix(".n")?;
        String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(source).ok()?).ok()
    }

    pub(super) fn marks_subject(&self, sequence: u64) -> String {
        format!("{}.marks.{sequence}", self.state_subject)
    }

    /// A request to JetStream.
    pub(super) fn api(&self, request: &str) -> String {
        format!("{}.{request}", self.api)
    }
}

/// What stands in subjects for a producer's name, which may have any characters.
pub(super) fn source_of_name(name: &str) -> String {
    format!("n{}", BASE64_URL_SAFE_NO_PAD.encode(name))
}

/// What stands in subjects for producers without a name.
pub(super) fn source_of_machine(id: &str) -> String {
    format!("m{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_subject_is_found_again() {
        let names = Names::new(&"nats://a/jobs".parse().unwrap());
        let subject = names.items_subject(17, &source_of_name("a.b *>"));
        assert_eq!(subject, "procq.jobs.items.17.nYS5iICo-");
        assert_eq!((names.count_in(&subject), names.count_in("procq.jobs.itemsx.1")), (Some(17), None));
        assert_eq!(names.claimed_in(&names.claimed_subject("a.b *>")).as_deref(), Some("a.b *>"));
        assert_eq!(names.machine_in(&names.machine_subject("x1")), Some("x1"));
        assert_eq!(names.dead_subject(ItemId(65_537)), "procq.jobs.dead.00000000000000065537");
        assert_eq!(names.dead_in(&names.dead_subject(ItemId(u64::MAX))), Some(ItemId(u64::MAX)));
        assert_eq!(names.api("STREAM.INFO.jobs"), "$JS.API.STREAM.INFO.jobs");
    }

    #[test]
    fn subjects_are_those_that_all_machines_know() {
        let names = Names::new(&"nats://a/jobs?domain=hub".parse().unwrap());
        assert_eq!((names.all_dead_subject(), names.all_claimed_subject()), ("procq.jobs.dead.*".into(), "procq.jobs.claimed.*".into()));
        assert_eq!(names.machine_subject("x1"), "procq.jobs.state.machine.x1");
        assert_eq!(names.producer_subject("a.b *>"), "procq.jobs.state.producer.nYS5iICo-");
        assert_eq!(names.claimed_subject("a.b *>"), "procq.jobs.claimed.nYS5iICo-");
        assert_eq!(names.marks_subject(7), "procq.jobs.state.marks.7");
        assert_eq!(source_of_machine("x1"), "mx1");
        assert_eq!(names.api("INFO"), "$JS.hub.API.INFO");
    }
}
