//! The store at one moment: a snapshot over all keyspaces, read by ranges.

use std::ops::Bound;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use fjall::{Keyspace, Readable, Snapshot};

use super::batch::load_totals;
use super::format::FORMAT;
use super::shared::Shared;
use super::spaces::{Spaces, small, unavailable};
use crate::id::TerminalKey;
use crate::secret::Sealed;
use crate::store::backup::{Head, Kind, Moment, Records};
use crate::store::{Sealer, StoreError};
use crate::time::Timestamp;

/// A snapshot. It does not hold the database open: one that has to be opened anew is let go.
pub(super) struct EmbeddedMoment {
    shared: Arc<Shared>,
    spaces: Weak<Spaces>,
    snapshot: Snapshot,
    taken: Timestamp,
    /// The kind that is read now, by its place, and the key behind which it goes on.
    kind: usize,
    after: Option<Vec<u8>>,
}

impl EmbeddedMoment {
    /// This moment: all commits before it and nothing of those behind it, over all keyspaces.
    pub(super) fn now(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let spaces = shared.spaces()?;
        let (snapshot, taken) = (spaces.db.snapshot(), Timestamp::now());
        let spaces = Arc::downgrade(&spaces);
        Ok(Self { shared, spaces, snapshot, taken, kind: 0, after: None })
    }

    fn spaces(&self) -> Result<Arc<Spaces>, StoreError> {
        self.spaces.upgrade().ok_or_else(|| {
            StoreError::Unavailable("the database was closed while a moment of it was read".to_owned())
        })
    }
}

/// Where records of a kind are, and what their keys begin with there.
fn place(spaces: &Spaces, kind: Kind) -> (&Keyspace, &'static [u8]) {
    match kind {
        Kind::Service => (&spaces.small, &[small::SERVICE]),
        Kind::Key => (&spaces.small, &[small::KEY]),
        Kind::Job => (&spaces.small, &[small::JOB]),
        Kind::Totals => (&spaces.small, small::TOTALS),
        Kind::Subscriber => (&spaces.subscriber, &[]),
        Kind::Credential => (&spaces.credential, &[]),
        Kind::State => (&spaces.state, &[]),
    }
}

impl Moment for EmbeddedMoment {
    fn head(&self) -> Result<Head, StoreError> {
        let spaces = self.spaces()?;
        let wrapped = self.snapshot.get(&spaces.small, small::DATA_KEY).map_err(unavailable)?;
        let wrapped = wrapped.ok_or_else(|| StoreError::Damaged("the data key is missing".to_owned()))?;
        // Estimates: replaced and deleted records that are still on disk count too.
        let about = |space: &Keyspace| space.approximate_len() as u64;
        let provisioned = about(&spaces.subscriber) + about(&spaces.credential);
        let states = load_totals(&spaces)?.terminals;
        Ok(Head {
            format: FORMAT,
            taken: self.taken,
            program: concat!("ltkmd ", env!("CARGO_PKG_VERSION")).to_owned(),
            own_key: self.shared.own_key.as_ref().map(|path| path.display().to_string()),
            wrapped: Sealed::from_octets(&wrapped),
            first_t: spaces.first_t,
            expected: provisioned + states + about(&spaces.small),
            provisioned,
        })
    }

    fn records(&mut self, octets: usize) -> Result<Option<(Kind, Records)>, StoreError> {
        let spaces = self.spaces()?;
        while let Some(kind) = Kind::ALL.get(self.kind).copied() {
            let (space, prefix) = place(&spaces, kind);
            let from = match &self.after {
                Some(key) => Bound::Excluded(key.clone()),
                None => Bound::Included(prefix.to_vec()),
            };
            let (mut records, mut filled) = (Records::new(), 0);
            for guard in self.snapshot.range::<Vec<u8>, _>(space, (from, Bound::Unbounded)) {
                let (key, value) = guard.into_inner().map_err(unavailable)?;
                if !key.starts_with(prefix) {
                    break;
                }
                filled += key.len() + value.len();
                records.push((Bytes::copy_from_slice(&key[prefix.len()..]), Bytes::copy_from_slice(&value)));
                if filled >= octets {
                    break;
                }
            }
            if let Some((last, _)) = records.last() {
                self.after = Some([prefix, last].concat());
                return Ok(Some((kind, records)));
            }
            self.kind += 1;
            self.after = None;
        }
        Ok(None)
    }

    fn state(&self, key: TerminalKey) -> Result<Option<Bytes>, StoreError> {
        let found = self.snapshot.get(&self.spaces()?.state, key.0).map_err(unavailable)?;
        Ok(found.map(|octets| Bytes::copy_from_slice(&octets)))
    }

    fn sealer(&self) -> &Sealer {
        self.shared.sealer()
    }
}
