//! The gateway: binds, keeps the link, and brings together what the engine hands over and what a centre says.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mikey::payload::Payload;
use mikey::{DataType, Message};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::SmsSettings;
use super::conn::{LinkError, MAX_OUT};
use super::flow::{Flow, Room};
use super::link::{Link, Side};
use super::pdu::{self, CommandId, Pdu, Received};
use super::rate::Reconnect;
use super::receipt::{Inbound, Spellings};
use super::status::{RINVCMDID, ROK, RX_R_APPN, RX_T_APPN, Verdict, shown};
use crate::delivery::MessageId;
use crate::engine::{ShortMessage, SmsEvent, SmsOutbox};
use crate::metrics::{Metrics, SmsOutcome};

/// Events that wait for their reader in the channel.
const EVENTS: usize = 256;

/// How long the answer to an unbind is awaited.
const UNBIND: Duration = Duration::from_secs(1);

/// A link that lasted so long was good, whether it carried a message or not.
const PROVED: Duration = Duration::from_secs(10);

/// How long a link that has much to send waits before it is looked at again.
const WHEN_FULL: Duration = Duration::from_millis(5);

/// A generic_nack without a status still refuses something: ESME_RSYSERR.
const NACK: u32 = 0x08;

/// Where triggers leave by SMS: an ESME with one link at a time.
pub struct Gateway {
    flow: Mutex<Flow>,
    spellings: Mutex<Spellings>,
    settings: watch::Sender<Arc<SmsSettings>>,
    events: mpsc::Sender<SmsEvent>,
    metrics: Arc<Metrics>,
    /// The link has something to do.
    work: Notify,
    /// There may be room.
    change: Notify,
    /// There may be something to tell.
    told: Notify,
    ended: AtomicBool,
}

/// Why a link came to its end.
enum End {
    Shutdown,
    Reload,
    Lost(LinkError),
}

impl Gateway {
    /// A gateway that [`Self::run`] brings to life, and what it tells. While 1,024 events
    /// wait for their reader, there is no room and the centre has to keep its receipts.
    pub fn new(settings: SmsSettings, metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::Receiver<SmsEvent>) {
        let (events, reader) = mpsc::channel(EVENTS);
        let gateway = Self {
            flow: Mutex::new(Flow::new(settings.bounds())),
            spellings: Mutex::default(),
            settings: watch::Sender::new(Arc::new(settings)),
            events,
            metrics,
            work: Notify::new(),
            change: Notify::new(),
            told: Notify::new(),
            ended: AtomicBool::new(false),
        };
        (Arc::new(gateway), reader)
    }

    /// Keeps a link until the shutdown: binds, and binds anew when it is lost. Then takes nothing new, waits up to
    /// [`SmsSettings::drain`] for the answers of what is under way, unbinds, and tells the rest as not sent.
    pub async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let keeping = async {
            self.keep_link(shutdown).await;
            self.ended.store(true, Ordering::Release);
            self.told.notify_one();
        };
        tokio::join!(keeping, self.forward());
    }

    /// Takes new settings over. When they change anything about the link, it is drained as for a shutdown, unbound
    /// and bound anew.
    pub fn reload(&self, settings: SmsSettings) {
        self.settings.send_if_modified(|old| {
            let changed = **old != settings;
            if changed {
                *old = Arc::new(settings);
            }
            changed
        });
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().expect("no holder of this lock panics")
    }

    /// Tells events in order, whatever the link does.
    async fn forward(&self) {
        loop {
            // Read before the events: what was noted before the end is told.
            let ended = self.ended.load(Ordering::Acquire);
            let event = self.flow().next_event();
            match event {
                Some(event) => {
                    // Without a reader nobody wants to know.
                    let _ = self.events.send(event).await;
                    self.change.notify_waiters();
                }
                None if ended => return,
                None => self.told.notified().await,
            }
        }
    }

    async fn keep_link(&self, mut shutdown: watch::Receiver<bool>) {
        let mut reload = self.settings.subscribe();
        let mut settings = Arc::clone(&reload.borrow_and_update());
        let (first, longest) = settings.reconnect;
        let mut reconnect = Reconnect::new(first, longest);
        loop {
            let bound = tokio::select! {
                biased;
                () = stopped(&mut shutdown) => return,
                new = reloaded(&mut reload) => {
                    settings = new;
                    continue;
                }
                bound = self.bind_first(&settings) => bound,
            };
            if let Some(mut link) = bound {
                let since = Instant::now();
                let end = self.drive(&mut link, &settings, &mut shutdown, &mut reload).await;
                self.metrics.smsc_up(false);
                if let End::Lost(error) = &end {
                    self.metrics.smsc_fault(error.fault());
                    tracing::warn!(smsc = %link.centre, "the short message centre {error}");
                } else {
                    self.unbind(&mut link).await;
                }
                let unanswered = self.flow().lost();
                (0..unanswered).for_each(|_| self.metrics.sms_submitted(SmsOutcome::Failed));
                self.metrics.sms_in_flight(0);
                self.told.notify_one();
                if link.proved || since.elapsed() >= PROVED {
                    reconnect.reset();
                }
                link.close().await;
                match end {
                    End::Shutdown => return,
                    End::Reload => {
                        settings = Arc::clone(&reload.borrow_and_update());
                        continue;
                    }
                    End::Lost(_) => {}
                }
            }
            let wait = reconnect.next(chance());
            tracing::warn!("no short message centre is bound; trying again in {:.1} s", wait.as_secs_f32());
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                new = reloaded(&mut reload) => {
                    settings = new;
                    let (first, longest) = settings.reconnect;
                    reconnect = Reconnect::new(first, longest);
                }
                () = sleep(wait) => {}
            }
        }
    }

    /// Binds to the first centre that lets it.
    async fn bind_first(&self, settings: &SmsSettings) -> Option<Link> {
        for centre in &settings.smsc {
            match Link::bind(centre, settings).await {
                Ok(link) => return Some(link),
                Err(error) => {
                    self.metrics.smsc_fault(error.fault());
                    tracing::error!(smsc = %centre, "the short message centre {error}");
                }
            }
        }
        None
    }

    /// Keeps a bound link until it is lost, or drained for a shutdown or other settings.
    async fn drive(
        &self,
        link: &mut Link,
        settings: &SmsSettings,
        shutdown: &mut watch::Receiver<bool>,
        reload: &mut watch::Receiver<Arc<SmsSettings>>,
    ) -> End {
        self.flow().open(settings.bounds());
        self.metrics.smsc_up(true);
        self.change.notify_waiters();
        let mut draining: Option<(Instant, End)> = None;
        loop {
            let now = Instant::now();
            self.submit_ready(link, now);
            if let Err(error) = link.tick(now) {
                return End::Lost(error);
            }
            let wake = {
                let flow = self.flow();
                if flow.is_stalled(now) {
                    let timeout = settings.response_timeout;
                    return End::Lost(LinkError::Silent { what: "submit_sm", timeout });
                }
                if let Some((_, end)) = draining.take_if(|(until, _)| flow.is_empty() || now >= *until) {
                    return end;
                }
                flow.wake(now)
            };
            // While much waits to be sent nothing is submitted, and what could be must not wake the link all the time.
            let full = link.transmitting.out.len() >= MAX_OUT;
            let wake = wake.map(|at| if full { at.max(now + WHEN_FULL) } else { at });
            let drained = draining.as_ref().map(|(until, _)| *until);
            let wake = wake.into_iter().chain(drained).fold(link.wake(), Instant::min);
            tokio::select! {
                received = link.next() => {
                    let handled = received.and_then(|(side, pdu)| self.handle(link, side, &pdu));
                    if let Err(error) = handled {
                        return End::Lost(error);
                    }
                }
                () = self.work.notified() => {}
                () = sleep_until(wake) => {}
                () = stopped(shutdown), if draining.is_none() => {
                    draining = Some((now + settings.drain, End::Shutdown));
                    self.close_flow();
                }
                _ = reload.changed(), if draining.is_none() => {
                    draining = Some((now + settings.drain, End::Reload));
                    self.close_flow();
                }
            }
        }
    }

    fn close_flow(&self) {
        self.flow().close();
        self.told.notify_one();
    }

    /// Submits what may go now.
    fn submit_ready(&self, link: &mut Link, now: Instant) {
        let mut flow = self.flow();
        let mut any = false;
        while link.transmitting.out.len() < MAX_OUT
            && let Some(piece) = flow.next(now)
        {
            let sequence = link.transmitting.next_sequence();
            if let Some((to, user_data)) = flow.part(piece) {
                pdu::submit(&mut link.transmitting.out, sequence, &link.source, to, user_data);
                flow.sent(piece, sequence, now);
                any = true;
            }
        }
        if any {
            self.metrics.sms_in_flight(flow.in_flight());
            self.change.notify_waiters();
        }
    }

    /// Unbinds, and hears what the centre still has to say.
    async fn unbind(&self, link: &mut Link) {
        let mut answers = link.unbind();
        let until = Instant::now() + UNBIND;
        while answers > 0 {
            match timeout_at(until, link.next()).await {
                Ok(Ok((_, pdu))) if pdu.id == CommandId::UnbindResp => answers -= 1,
                Ok(Ok((side, pdu))) if self.handle(link, side, &pdu).is_ok() => {}
                // One connection of a pair may be closed before the other has answered: both are over.
                _ => break,
            }
        }
        tracing::info!(smsc = %link.centre, "unbound from the short message centre");
    }

    /// Does what a PDU asks for.
    ///
    /// # Errors
    /// The link is of no use any more.
    fn handle(&self, link: &mut Link, side: Side, pdu: &Received) -> Result<(), LinkError> {
        let nonsense = |what: &str| Err(LinkError::Nonsense(what.to_owned()));
        match pdu.id {
            CommandId::SubmitSmResp => match self.answered(link, pdu, pdu.status, pdu.message_id())? {
                true => Ok(()),
                false => nonsense("the answer to a submit_sm that it was not sent"),
            },
            CommandId::EnquireLinkResp => match link.side(side).answers_enquiry(pdu) {
                true => Ok(()),
                false => nonsense("the answer to an enquire_link that it was not sent"),
            },
            // Who does not know enquire_link is there all the same.
            CommandId::GenericNack if link.side(side).answers_enquiry(pdu) => Ok(()),
            CommandId::GenericNack => {
                let status = if pdu.status == ROK { NACK } else { pdu.status };
                match side == Side::Transmitting && self.answered(link, pdu, status, None)? {
                    true => Ok(()),
                    false => nonsense(&format!("generic_nack with {}", shown(pdu.status))),
                }
            }
            CommandId::EnquireLink => {
                link.side(side).answer(pdu, ROK, Pdu::EnquireLinkResp);
                Ok(())
            }
            CommandId::Unbind => {
                link.side(side).answer(pdu, ROK, Pdu::UnbindResp);
                Err(LinkError::Unbound)
            }
            CommandId::DeliverSm => {
                let status = self.delivered(link, pdu);
                link.side(side).answer(pdu, status, pdu::deliver_resp());
                Ok(())
            }
            CommandId::DataSm => {
                let status = self.delivered(link, pdu);
                link.side(side).answer(pdu, status, pdu::data_resp());
                Ok(())
            }
            // It has no answer (SMPP 3.4 §4.12), and nobody asked for it.
            CommandId::AlertNotification => Ok(()),
            id if id.is_response() => nonsense(&format!("{id:?}, which answers nothing")),
            id => {
                link.side(side).answer(pdu, RINVCMDID, Pdu::GenericNack);
                link.strange(id)
            }
        }
    }

    /// The answer to a submission; whether there was one of that number.
    fn answered(
        &self,
        link: &mut Link,
        pdu: &Received,
        status: u32,
        id: Option<MessageId>,
    ) -> Result<bool, LinkError> {
        let (verdict, in_flight) = {
            let mut flow = self.flow();
            let verdict = flow.answered(pdu.sequence, status, id.clone(), Instant::now());
            (verdict, flow.in_flight())
        };
        let Some(verdict) = verdict else { return Ok(false) };
        self.metrics.sms_in_flight(in_flight);
        self.metrics.sms_submitted(match verdict {
            Verdict::Accepted => SmsOutcome::Accepted,
            Verdict::Throttled | Verdict::Full => SmsOutcome::Throttled,
            Verdict::Again | Verdict::Refused | Verdict::Broken => SmsOutcome::Failed,
        });
        match (verdict, id) {
            (Verdict::Accepted, id) => {
                link.proved = true;
                if let Some(id) = id {
                    self.spellings.lock().expect("no holder of this lock panics").remember(&id);
                }
            }
            (Verdict::Broken, _) => return Err(LinkError::Unusable(status)),
            _ if link.is_new(status) => {
                let (smsc, status) = (&link.centre, shown(status));
                tracing::warn!(%smsc, status, "the short message centre does not accept a message");
            }
            _ => {}
        }
        self.told.notify_one();
        self.change.notify_waiters();
        Ok(true)
    }

    /// deliver_sm or data_sm: a receipt, or a message that nobody here reads. Gives the status to answer with.
    fn delivered(&self, link: &Link, pdu: &Received) -> u32 {
        let smsc = &link.centre;
        let Some(carried) = pdu.carried() else {
            tracing::debug!(%smsc, "a delivery that cannot be read");
            self.metrics.sms_receipt(None);
            return RX_R_APPN;
        };
        match carried.read() {
            Inbound::Receipt(id, state) => {
                let id = self.spellings.lock().expect("no holder of this lock panics").accepted_as(id);
                if !self.flow().receipt(id, state) {
                    return RX_T_APPN;
                }
                self.metrics.sms_receipt(Some(state));
                self.told.notify_one();
            }
            Inbound::Unreadable => {
                tracing::debug!(%smsc, "a receipt that cannot be read");
                self.metrics.sms_receipt(None);
            }
            Inbound::Message => tracing::debug!(%smsc, "a message to the daemon: not read"),
        }
        ROK
    }
}

impl SmsOutbox for Gateway {
    fn room(&self) -> Pin<Box<dyn Future<Output = usize> + Send + '_>> {
        Box::pin(async {
            loop {
                let mut change = pin!(self.change.notified());
                // Listening before looking: no change is missed.
                change.as_mut().enable();
                let room = self.flow().room(Instant::now());
                match room {
                    Room::Now(room) => return room,
                    Room::At(at) => tokio::select! {
                        () = change => {}
                        () = sleep_until(at) => {}
                    },
                    Room::Later => change.await,
                }
            }
        })
    }

    fn submit(&self, message: ShortMessage) {
        let mut flow = self.flow();
        if is_trigger(&message.ltkm) {
            flow.take(message, Instant::now());
        } else {
            tracing::error!(tag = ?message.tag, "no trigger: an LTKM with a key never goes by SMS");
            flow.refuse(message.tag);
        }
        if self.ended.load(Ordering::Acquire) {
            while let Some(event) = flow.next_event() {
                // The process is about to end; who still listens is told.
                let _ = self.events.try_send(event);
            }
        }
        drop(flow);
        self.work.notify_one();
        self.told.notify_one();
    }
}

/// Whether this is an LTKM with empty key data (LTKM profile §5): the only one that may go by SMS.
fn is_trigger(octets: &[u8]) -> bool {
    let Ok(message) = Message::parse(octets) else { return false };
    let mut kemacs = 0;
    let no_key = message.payloads().all(|placed| match placed.payload {
        Payload::Kemac(kemac) => {
            kemacs += 1;
            kemac.encr_data.is_empty()
        }
        Payload::Pke(_) | Payload::Dh(_) => false,
        _ => true,
    });
    message.header().data_type == DataType::PRE_SHARED && kemacs == 1 && no_key
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Whoever could say otherwise is gone: that is the end as well.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Waits for other settings.
async fn reloaded(reload: &mut watch::Receiver<Arc<SmsSettings>>) -> Arc<SmsSettings> {
    match reload.changed().await {
        Ok(()) => Arc::clone(&reload.borrow_and_update()),
        Err(_) => std::future::pending().await,
    }
}

/// Some randomness, so that daemons that lost the same centre do not come back at the same moment.
fn chance() -> u8 {
    let mut octet = [0];
    // Without randomness the wait is as long as all others'.
    let _ = getrandom::fill(&mut octet);
    octet[0]
}
