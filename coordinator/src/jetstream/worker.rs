//! The thread's loop: takes in what comes, does what is due, sleeps until there is more. What is done about each piece of news: `news`.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant as Moment, timeout, timeout_at};
use tracing::debug;

use super::arrivals::Arrivals;
use super::client::{Client, Inlet, Outgoing, Stalled};
use super::leases::{Act, Leases};
use super::letters::Letters;
use super::looks::Looks;
use super::message::{ITEMS_HEADER, ItemsMessage, MarksRecord, write_record};
use super::names::Names;
use super::puts::{Amount, Puts};
use super::registry::{Machines, Names as Producers};
use super::requests::{Kind, Pulls, Requests};
use super::{Answer, ClusterError, News, Report, Settings};
use crate::limits::{JETSTREAM_GOODBYE, JETSTREAM_OVERDUE, JETSTREAM_PULL, JETSTREAM_RENEWALS, JETSTREAM_RETRY};

/// The thread's state.
pub(super) struct Worker {
    pub(super) client: Client,
    pub(super) names: Names,
    pub(super) settings: Settings,
    pub(super) news: UnboundedSender<News>,
    report: Sender<Report>,
    wake: Box<dyn Fn() + Send>,
    started: Instant,
    pub(super) puts: Puts,
    pub(super) leases: Leases,
    pub(super) pulls: Pulls,
    pub(super) requests: Requests,
    pub(super) machines: Machines,
    /// How often something had changed about them when that was last looked at.
    changes: u64,
    pub(super) producers: Producers,
    pub(super) looks: Looks,
    pub(super) letters: Letters,
    /// The highest number of all that was put here.
    pub(super) kept_until: u64,
    pub(super) arrivals: Arrivals,
    pub(super) inlet: Option<Inlet>,
    inlets: u64,
    /// How often in a row a look was not told of, since what it has seen might be on its way here, or gone.
    pub(super) looks_again: u32,
    /// Messages settled so far.
    pub(super) settled: u64,
    /// The inlet that is being closed: what was asked for through it and is not wanted any more may still come.
    pub(super) closing: Option<u64>,
    pub(super) is_connected: bool,
    /// Since when the servers do not answer, if it was told.
    pub(super) outage: Option<Duration>,
    /// The last reason for which something could not be done now.
    pub(super) trouble: Option<String>,
    pub(super) told_of_space: bool,
    /// The version of a server too old that was told last.
    old_version: Option<String>,
    pub(super) created: Option<String>,
    check_at: Duration,
    pub(super) beat_at: Duration,
    sweep_at: Duration,
    has_reported: bool,
}

/// Why the loop ends.
pub(super) enum End {
    Wanted,
    Failed(ClusterError),
}

impl From<ClusterError> for End {
    fn from(error: ClusterError) -> End {
        End::Failed(error)
    }
}

impl Worker {
    pub(super) fn new(
        client: Client,
        names: Names,
        settings: Settings,
        news: UnboundedSender<News>,
        report: Sender<Report>,
        wake: Box<dyn Fn() + Send>,
    ) -> Worker {
        let id = client.new_id();
        let bounds = Amount { items: settings.capacity_items, bytes: settings.capacity_bytes };
        Worker {
            puts: Puts::new(bounds),
            looks: Looks::new(settings.timing.look),
            letters: Letters::default(),
            leases: Leases::new(settings.timing.ack_wait / JETSTREAM_RENEWALS),
            machines: Machines::new(id, settings.machine.clone(), settings.timing.machine_lost),
            client,
            names,
            settings,
            news,
            report,
            wake,
            started: Instant::now(),
            pulls: Pulls::default(),
            requests: Requests::default(),
            changes: 0,
            producers: Producers::default(),
            kept_until: 0,
            arrivals: Arrivals::default(),
            inlet: None,
            inlets: 0,
            looks_again: 0,
            settled: 0,
            closing: None,
            is_connected: true,
            outage: None,
            trouble: None,
            told_of_space: false,
            old_version: None,
            created: None,
            check_at: Duration::ZERO,
            beat_at: Duration::ZERO,
            sweep_at: Duration::ZERO,
            has_reported: false,
        }
    }

    pub(super) async fn run(mut self, mut heard: UnboundedReceiver<News>) {
        self.note_version();
        self.ask_for_machines().await;
        let end = loop {
            if let Err(end) = self.turn(&mut heard).await {
                break end;
            }
        };
        match end {
            End::Wanted => {
                // Whatever is not said within this time shows by itself, only later.
                let _ = timeout(JETSTREAM_GOODBYE, self.say_goodbye(&mut heard)).await;
            }
            End::Failed(error) => {
                // If nobody collects any more, nobody is to know.
                let _ = self.report.send(Err(error));
                (self.wake)();
            }
        }
    }

    /// Does what is due, then waits for news and takes in all that there is.
    async fn turn(&mut self, heard: &mut UnboundedReceiver<News>) -> Result<(), End> {
        if self.is_connected {
            self.do_what_is_due().await;
        }
        self.note_outage();
        if std::mem::take(&mut self.has_reported) {
            (self.wake)();
        }
        let wake_at = Moment::from_std(self.started + self.next_due());
        let Ok(news) = timeout_at(wake_at, heard.recv()).await else { return Ok(()) };
        let mut news = news;
        while let Some(next) = news {
            self.hear(next).await?;
            news = heard.try_recv().ok();
        }
        Ok(())
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.has_reported = true;
        // If nobody collects any more, the end is near.
        let _ = self.report.send(Ok(answer));
    }

    async fn do_what_is_due(&mut self) {
        let now = self.now();
        if std::mem::replace(&mut self.changes, self.machines.changes()) != self.machines.changes() {
            self.note_end();
        }
        for reply in self.leases.renewals(now) {
            self.say(Outgoing { subject: reply, payload: Bytes::from_static(b"+WPI"), ..Outgoing::default() }).await;
        }
        self.publish().await;
        if self.look_due() <= now && !self.requests.any(|kind| matches!(kind, Kind::Look { .. })) {
            self.look().await;
        }
        let is_counting =
            |requests: &Requests, ends| requests.any(|kind| matches!(kind, Kind::CountLetters { ends: asked } if *asked == ends));
        if let Some(ends) = self.looks.begin_count(|ends| is_counting(&self.requests, ends), now) {
            let request = format!("STREAM.INFO.{}", self.names.dead);
            self.ask_api(Kind::CountLetters { ends }, &request, Value::Null).await;
        }
        if self.pulls.expire(now) {
            self.check().await;
        }
        if self.inlet.is_none() && self.closing.is_none() {
            self.open_inlet().await;
        }
        if self.may_pull()
            && let Some(inlet) = &self.inlet
            && let Some((number, messages)) = self.pulls.next(now)
        {
            let request = json!({ "batch": messages, "expires": JETSTREAM_PULL.as_nanos() as u64 });
            let subject = self.names.api(&format!("CONSUMER.MSG.NEXT.{}.{}", self.names.items, self.names.consumer));
            let out = Outgoing { subject, payload: request.to_string().into(), ..Outgoing::default() };
            if self.client.pull(out, inlet, number).await.is_err() {
                self.stall();
            }
        }
        if self.beat_at <= now {
            self.beat_at = now + self.settings.timing.heartbeat;
            if !self.requests.any(|kind| matches!(kind, Kind::Beat)) {
                self.beat(false).await;
            }
        }
        for (id, lost) in self.machines.expire(now) {
            self.forget(self.names.machine_subject(&id)).await;
            self.answer(Answer::Lost(lost));
        }
        if self.sweep_at <= now {
            self.sweep_at = now + JETSTREAM_RETRY;
            self.pulls.want_again(self.requests.unheard_settlements(now));
            let due = self.requests.due(now);
            if !due.is_empty() {
                // A record of a stream that is gone goes to whoever listens, and nobody says that it is not kept.
                self.check().await;
            }
            for (number, out) in due {
                self.send(out, Some(number)).await;
            }
        }
    }

    /// Something has ended: if all producers have finished, it may have been the last.
    pub(super) fn note_end(&mut self) {
        if self.machines.have_finished() {
            self.looks.near_end(self.leases.len() == 0 && self.puts.is_empty());
        }
    }

    /// What is about to go back is to come first to whoever asks, ourselves as well.
    fn may_pull(&self) -> bool {
        let is_releasing = || self.leases.is_releasing() || self.requests.any(|kind| matches!(kind, Kind::Release));
        self.inlet.is_some() && !(self.pulls.is_lacking() && is_releasing())
    }

    fn look_due(&self) -> Duration {
        let due = self.looks.due();
        self.puts.look_at().map_or(due, |at| at.min(due))
    }

    fn next_due(&self) -> Duration {
        if !self.is_connected {
            return self.now() + JETSTREAM_RETRY;
        }
        let is_looking = self.requests.any(|kind| matches!(kind, Kind::Look { .. }));
        let due = [
            (!is_looking).then(|| self.look_due()),
            self.leases.renew_at(),
            if self.may_pull() { self.pulls.next_at() } else { None },
            Some(self.beat_at),
            self.machines.expire_at(),
            (!self.requests.is_empty()).then_some(self.sweep_at),
        ];
        due.into_iter().flatten().min().unwrap_or(Duration::MAX).min(self.now() + JETSTREAM_OVERDUE)
    }

    /// Which server it is shows with each connection.
    fn note_version(&mut self) {
        if let Some(version) = self.client.old_version()
            && self.old_version.as_ref() != Some(&version)
        {
            self.answer(Answer::OldServer(version.clone()));
            self.old_version = Some(version);
        }
    }

    /// An outage is told when it begins. A server that is connected and does not answer shows by what it was asked long ago.
    fn note_outage(&mut self) {
        let now = self.now();
        if self.outage.is_none() && self.requests.oldest().is_some_and(|since| since + 2 * JETSTREAM_OVERDUE <= now) {
            let said = self.trouble.take().unwrap_or_else(|| "it may have no leader, or its disk may not follow".into());
            self.begin_outage(format!("JetStream does not do what it is asked: {said}"));
        }
    }

    pub(super) fn begin_outage(&mut self, said: String) {
        debug!(said, "trouble with NATS");
        if self.outage.is_none() {
            self.outage = Some(self.now());
            self.answer(Answer::Outage(said));
        }
    }

    pub(super) fn end_outage(&mut self) {
        let now = self.now();
        if self.requests.oldest().is_some_and(|since| since + 2 * JETSTREAM_OVERDUE <= now) {
            return;
        }
        if let Some(since) = self.outage.take() {
            self.answer(Answer::Restored { after: now - since });
        }
    }

    /// Publishes what may leave.
    async fn publish(&mut self) {
        self.puts.note_machines(self.machines.count());
        while self.is_connected
            && let Some((number, put)) = self.puts.next()
        {
            let ItemsMessage { head, body } = put.message();
            let headers = vec![("Nats-Msg-Id", put.id.clone()), (ITEMS_HEADER, head)];
            let out = Outgoing { subject: put.subject.clone(), headers, payload: body };
            self.ask(Kind::Put(number), out).await;
        }
    }

    async fn look(&mut self) {
        let now = self.now();
        let is_wanted = self.looks.begin(self.machines.have_finished(), now);
        self.puts.asked();
        let payload = json!({ "subjects_filter": format!("{}.>", self.names.items_subject) });
        let request = format!("STREAM.INFO.{}", self.names.items);
        self.ask_api(Kind::Look { changes: self.machines.changes(), settled: self.settled, is_wanted }, &request, payload).await;
    }

    /// Something could not be done: finds out whether that is for good.
    pub(super) async fn check(&mut self) {
        let now = self.now();
        if now < self.check_at {
            return;
        }
        self.check_at = now + JETSTREAM_RETRY;
        let names = &self.names;
        let parts = [
            ("the stream of items", format!("STREAM.INFO.{}", names.items)),
            ("the stream of records", format!("STREAM.INFO.{}", names.state)),
            ("the stream of dead letters", format!("STREAM.INFO.{}", names.dead)),
            ("the consumer", format!("CONSUMER.INFO.{}.{}", names.items, names.consumer)),
        ];
        for (part, request) in parts {
            if !self.requests.any(|kind| matches!(kind, Kind::Check(asked) if *asked == part)) {
                self.ask_api(Kind::Check(part), &request, Value::Null).await;
            }
        }
    }

    pub(super) async fn ask_for_machines(&mut self) {
        let payload = json!({ "subjects_filter": self.names.machine_subject("*") });
        let request = format!("STREAM.INFO.{}", self.names.state);
        self.ask_api(Kind::Machines, &request, payload).await;
    }

    /// Asks for the last record under a subject.
    pub(super) async fn ask_for_last(&mut self, kind: Kind, stream: &str, subject: String) {
        let request = format!("STREAM.MSG.GET.{stream}");
        self.ask_api(kind, &request, json!({ "last_by_subj": subject })).await;
    }

    /// Deletes all records under a subject.
    pub(super) async fn forget(&mut self, subject: String) {
        let request = format!("STREAM.PURGE.{}", self.names.state);
        self.ask_api(Kind::Forget, &request, json!({ "filter": subject })).await;
    }

    async fn beat(&mut self, leaving: bool) {
        let subject = self.names.machine_subject(self.machines.ours());
        let payload = write_record(&self.machines.beat(leaving));
        self.ask(Kind::Beat, Outgoing { subject, payload, ..Outgoing::default() }).await;
    }

    pub(super) async fn act(&mut self, act: Option<Act>) {
        match act {
            Some(Act::Settle { sequence, reply }) => {
                let out = Outgoing { subject: reply, payload: Bytes::from_static(b"+ACK"), ..Outgoing::default() };
                self.ask(Kind::Settle(sequence), out).await;
            }
            Some(Act::Release { reply, delay }) => self.release(reply, delay).await,
            Some(Act::Mark { sequence, message_hash, marks }) => {
                let payload = write_record(&MarksRecord { message_hash, marks });
                let out = Outgoing { subject: self.names.marks_subject(sequence), payload, ..Outgoing::default() };
                self.ask(Kind::Mark(sequence), out).await;
            }
            None => {}
        }
    }

    /// Gives back what may go now. Not while servers have a request of ours that nobody wants answered any more: what they try to serve it with, or
    /// would, comes behind all that was given back with it.
    pub(super) async fn release_in_order(&mut self) {
        if self.leases.is_releasing() && self.pulls.is_in_vain() {
            self.close_inlet();
        }
        while self.closing.is_none()
            && let Some(act) = self.leases.next_release()
        {
            self.act(Some(act)).await;
        }
    }

    pub(super) async fn release(&mut self, reply: String, delay: Duration) {
        let payload = match delay.as_nanos() {
            0 => "-NAK".into(),
            nanos => format!("-NAK {}", json!({ "delay": nanos as u64 })),
        };
        self.ask(Kind::Release, Outgoing { subject: reply, payload: payload.into(), ..Outgoing::default() }).await;
    }

    pub(super) async fn ask_api(&mut self, kind: Kind, request: &str, payload: Value) {
        let payload = if payload.is_null() { Bytes::new() } else { payload.to_string().into() };
        self.ask(kind, Outgoing { subject: self.names.api(request), payload, ..Outgoing::default() }).await;
    }

    /// Publishes what has to be answered.
    pub(super) async fn ask(&mut self, kind: Kind, out: Outgoing) {
        let number = self.requests.add(kind, out.clone(), self.now());
        self.send(out, Some(number)).await;
    }

    /// Publishes what need not be.
    pub(super) async fn say(&mut self, out: Outgoing) {
        self.send(out, None).await;
    }

    async fn send(&mut self, out: Outgoing, number: Option<u64>) {
        // Without a connection it would lie with the library; what has to be answered is asked again when there is one.
        if self.is_connected
            && let Err(Stalled) = self.client.send(out, number).await
        {
            self.stall();
        }
    }

    /// The connection takes nothing in any more. It moves again, or the library finds it dead and makes another.
    fn stall(&mut self) {
        self.is_connected = false;
        self.begin_outage("the connection takes nothing in any more".into());
        let (client, news) = (self.client.clone(), self.news.clone());
        tokio::spawn(async move {
            client.flush().await;
            // Nobody is there to hear it after the end.
            let _ = news.send(News::Flushed);
        });
    }

    /// There is a connection, through which messages are to come.
    async fn open_inlet(&mut self) {
        self.inlets += 1;
        match self.client.open_inlet(self.inlets, &self.news).await {
            Ok(inlet) => self.inlet = Some(inlet),
            Err(Stalled) => self.stall(),
        }
    }

    /// There is a connection again. What was not answered may have come through or not.
    pub(super) async fn resume(&mut self) {
        let now = self.now();
        self.is_connected = true;
        self.note_version();
        let dropped = self.puts.lost();
        if self.requests.any(|kind| matches!(kind, Kind::Look { is_wanted: true, .. })) {
            self.looks.want();
        }
        self.looks.resume(now);
        self.requests.lost(now);
        self.pulls.lost();
        self.leases.renew_all();
        self.machines.excuse(now);
        (self.beat_at, self.sweep_at) = (now, now);
        self.kept(dropped).await;
        self.ask_for_machines().await;
        self.release_in_order().await;
    }

    /// Lets nothing more come of what was asked for; [`News::Closed`] says when all is here that was on its way.
    fn close_inlet(&mut self) {
        if let Some(inlet) = self.inlet.take() {
            inlet.close(self.pulls.rest() + 1);
            self.closing = Some(self.inlets);
        }
    }

    async fn say_goodbye(&mut self, heard: &mut UnboundedReceiver<News>) {
        if !self.is_connected {
            return;
        }
        // First of all: what is given back must not come here again.
        self.pulls.want(0);
        self.close_inlet();
        if !self.hear_while(heard, |worker| worker.closing.is_some()).await {
            return;
        }
        for sequence in self.leases.sequences() {
            self.leases.release(sequence, Duration::ZERO);
        }
        self.release_in_order().await;
        self.beat(true).await;
        self.forget(self.names.machine_subject(self.machines.ours())).await;
        // Marks have to be kept before their message can be given back.
        let is_last = |kind: &Kind| matches!(kind, Kind::Beat | Kind::Forget | Kind::Release);
        let waits = |worker: &Worker| worker.leases.len() > 0 || worker.requests.any(is_last);
        if self.hear_while(heard, waits).await {
            self.client.flush().await;
        }
    }

    /// False if it makes no sense to go on.
    async fn hear_while(&mut self, heard: &mut UnboundedReceiver<News>, waits: impl Fn(&Worker) -> bool) -> bool {
        while waits(self) {
            let Some(news) = heard.recv().await.filter(|_| self.is_connected) else { return false };
            if let Err(End::Failed(_)) = self.hear(news).await {
                return false;
            }
        }
        self.is_connected
    }
}
