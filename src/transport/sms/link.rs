//! A bound link to one centre: one connection or two.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::SmsSettings;
use super::conn::{Conn, LinkError};
use super::pdu::{CommandId, Pdu, Received, Source};
use crate::config::{BindMode, Smsc};

/// Statuses that are told once on a link, at most.
const TOLD: usize = 64;

/// Requests of unknown kinds that a centre may send on a link.
const STRANGE: u32 = 16;

/// Which connection of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that submissions go by.
    Transmitting,
    /// The other one of two.
    Receiving,
}

/// A link.
pub(super) struct Link {
    /// Where to.
    pub(super) centre: Smsc,
    /// What messages seem to come from.
    pub(super) source: Source,
    /// The connection that submissions go by.
    pub(super) transmitting: Conn,
    receiving: Option<Conn>,
    /// Whether it has carried a message or lasted: its end is no failure to bind.
    pub(super) proved: bool,
    told: BTreeSet<u32>,
    strange: u32,
}

impl Link {
    /// Connects and binds; both connections of a pair, or neither.
    pub(super) async fn bind(centre: &Smsc, settings: &SmsSettings) -> Result<Self, LinkError> {
        let kind = match settings.bind {
            BindMode::Transceiver => CommandId::BindTransceiver,
            BindMode::TransmitterReceiver => CommandId::BindTransmitter,
        };
        let mut transmitting = Conn::open(centre, settings).await?;
        let system_id = transmitting.bind(kind, settings).await?;
        let receiving = match settings.bind {
            BindMode::Transceiver => None,
            BindMode::TransmitterReceiver => {
                let mut receiving = Conn::open(centre, settings).await?;
                receiving.bind(CommandId::BindReceiver, settings).await?;
                Some(receiving)
            }
        };
        tracing::info!(smsc = %centre, %system_id, bind = %settings.bind, "bound to the short message centre");
        Ok(Self {
            centre: centre.clone(),
            source: Source::new(settings.source.as_ref()),
            transmitting,
            receiving,
            proved: false,
            told: BTreeSet::new(),
            strange: 0,
        })
    }

    /// One of the connections.
    pub(super) fn side(&mut self, side: Side) -> &mut Conn {
        match (side, &mut self.receiving) {
            (Side::Receiving, Some(receiving)) => receiving,
            _ => &mut self.transmitting,
        }
    }

    /// The next PDU of either connection. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<(Side, Received), LinkError> {
        let Some(receiving) = &mut self.receiving else {
            return Ok((Side::Transmitting, self.transmitting.next().await?));
        };
        tokio::select! {
            received = self.transmitting.next() => Ok((Side::Transmitting, received?)),
            received = receiving.next() => Ok((Side::Receiving, received?)),
        }
    }

    /// Keeps both connections alive.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), LinkError> {
        self.transmitting.tick(now)?;
        self.receiving.as_mut().map_or(Ok(()), |receiving| receiving.tick(now))
    }

    /// When to [`Self::tick`] again.
    pub(super) fn wake(&self) -> Instant {
        let receiving = self.receiving.as_ref().map(Conn::wake);
        receiving.map_or(self.transmitting.wake(), |at| at.min(self.transmitting.wake()))
    }

    /// Whether a status is new on this link, and so worth a line at `warn`.
    pub(super) fn is_new(&mut self, status: u32) -> bool {
        self.told.len() < TOLD && self.told.insert(status)
    }

    /// Counts a request of an unknown kind.
    ///
    /// # Errors
    /// There were too many.
    pub(super) fn strange(&mut self, id: CommandId) -> Result<(), LinkError> {
        self.strange += 1;
        match self.strange > STRANGE {
            true => Err(LinkError::Nonsense(format!("{STRANGE} unknown requests, then {id:?}"))),
            false => Ok(()),
        }
    }

    /// Asks both sides to unbind; gives how many answers there will be.
    pub(super) fn unbind(&mut self) -> usize {
        self.transmitting.ask(Pdu::Unbind);
        if let Some(receiving) = &mut self.receiving {
            receiving.ask(Pdu::Unbind);
        }
        1 + usize::from(self.receiving.is_some())
    }

    /// Closes both connections.
    pub(super) async fn close(self) {
        self.transmitting.close().await;
        if let Some(receiving) = self.receiving {
            receiving.close().await;
        }
    }
}
