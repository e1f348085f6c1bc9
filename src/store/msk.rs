//! MSKs as they lie in a store: sealed with their salt, bound to service and number.

use zeroize::Zeroizing;

use super::record::KeyRecord;
use super::{Sealer, StoreError};
use crate::id::ServiceNo;
use crate::keys::Msk;
use crate::secret::Secret;

/// What an MSK is sealed for.
fn context(no: ServiceNo, number: u16) -> Vec<u8> {
    [&b"msk "[..], &no.0.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// A key as it is stored, its MSK and salt sealed.
pub(super) fn seal(sealer: &Sealer, key: &Msk, ordinal: u64) -> Result<KeyRecord, StoreError> {
    let mut plain = Zeroizing::new(Vec::with_capacity(30));
    plain.extend_from_slice(&*key.msk);
    if let Some(salt) = &key.salt {
        plain.extend_from_slice(&**salt);
    }
    let sealed = sealer
        .seal(&context(key.service, key.number), &plain)
        .map_err(|e| StoreError::Unavailable(format!("the system gives no randomness: {e}")))?;
    let (valid_from, valid_to, mtk_ids) = (key.valid_from, key.valid_to, key.mtk_ids);
    Ok(KeyRecord { ordinal, sealed, valid_from, valid_to, mtk_ids })
}

/// Opens what [`seal`] sealed.
pub(super) fn open(
    sealer: &Sealer,
    no: ServiceNo,
    number: u16,
    record: &KeyRecord,
) -> Result<Msk, StoreError> {
    let broken = || StoreError::Damaged(format!("key {number} of service {}", no.0));
    let plain: Secret = sealer.open(&context(no, number), &record.sealed).map_err(|_| broken())?;
    let (msk, salt) = plain.expose().split_first_chunk::<16>().ok_or_else(broken)?;
    let salt = match salt {
        [] => None,
        salt => Some(Zeroizing::new(<[u8; 14]>::try_from(salt).map_err(|_| broken())?)),
    };
    Ok(Msk {
        service: no,
        number,
        msk: Zeroizing::new(*msk),
        salt,
        valid_from: record.valid_from,
        valid_to: record.valid_to,
        mtk_ids: record.mtk_ids,
    })
}
