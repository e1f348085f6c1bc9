//! What operators put in, as a moment has it: subscribers and credentials, to be put in elsewhere.

use super::{Kind, Moment};
use crate::gba::Credential;
use crate::id::{SubscriberId, TerminalKey};
use crate::store::codec::Damaged;
use crate::store::{StoreError, Subscriber, record};

/// One thing that an operator put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provisioned {
    /// A subscriber.
    Subscriber(Subscriber),
    /// A terminal's credential with the highest T that was used so far, 0 when none was.
    Credential(Box<Credential>, u64),
}

/// A moment's subscribers, and then its credentials, page by page.
pub struct ProvisionedStream {
    moment: Box<dyn Moment>,
    first_t: u64,
    expected: u64,
}

fn damaged(what: &'static str) -> impl FnOnce(Damaged) -> StoreError {
    move |Damaged| StoreError::Damaged(what.to_owned())
}

impl ProvisionedStream {
    /// All that a moment has.
    ///
    /// # Errors
    /// See [`Moment::head`].
    pub fn new(moment: Box<dyn Moment>) -> Result<Self, StoreError> {
        let head = moment.head()?;
        Ok(Self { moment, first_t: head.first_t, expected: head.provisioned })
    }

    /// About how many come, for progress.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// The next page, of about so many octets in the store; never empty. `None`: there are no more.
    ///
    /// # Errors
    /// See [`Moment::head`]; a damaged record.
    pub fn page(&mut self, octets: usize) -> Result<Option<Vec<Provisioned>>, StoreError> {
        while let Some((kind, records)) = self.moment.records(octets)? {
            let mut page = Vec::with_capacity(records.len());
            for (key, value) in records {
                match kind {
                    Kind::Subscriber => page.extend(subscriber(&key, &value)?),
                    Kind::Credential => page.push(self.credential(&key, &value)?),
                    // What a terminal did is nobody's to put in elsewhere.
                    Kind::State => return Ok(None),
                    Kind::Service | Kind::Key | Kind::Job | Kind::Totals => {}
                }
            }
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    fn credential(&self, key: &[u8], value: &[u8]) -> Result<Provisioned, StoreError> {
        let credential = record::read_credential(value).map_err(damaged("a credential"))?;
        let key = <[u8; 16]>::try_from(key).map(TerminalKey);
        let key = key.map_err(|_| StoreError::Damaged("a terminal's key".to_owned()))?;
        let next_t = match self.moment.state(key)? {
            Some(octets) => record::read_state(key, &octets).map_err(damaged("a terminal's state"))?.next_t,
            None => self.first_t,
        };
        Ok(Provisioned::Credential(Box::new(credential), next_t.saturating_sub(1)))
    }
}

/// `None`: only credentials speak of it.
fn subscriber(key: &[u8], value: &[u8]) -> Result<Option<Provisioned>, StoreError> {
    let id = std::str::from_utf8(key).ok().and_then(|text| SubscriberId::new(text).ok());
    let id = id.ok_or_else(|| StoreError::Damaged("a subscriber's id".to_owned()))?;
    let read = record::read_subscriber(&id, value).map_err(damaged("a subscriber"))?;
    Ok(read.subscriber.map(Provisioned::Subscriber))
}
