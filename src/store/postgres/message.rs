//! Which terminal a short message went to, whichever daemon submitted it: the table `message` has the ids of the deliveries,
//! and changes in the commits that change these.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::ClientWrapper as Client;

use super::scope;
use super::sql;
use crate::delivery::{MessageId, Terminal};
use crate::id::TerminalKey;
use crate::store::StoreError;
use crate::time::Timestamp;

/// The ids that a terminal's deliveries name, each once: what waited for one turn went out in one message.
pub(super) fn ids(terminal: &Terminal) -> BTreeSet<&MessageId> {
    terminal.deliveries.iter().filter_map(|d| d.sms.as_deref()).flat_map(|leg| &leg.ids).collect()
}

/// The terminals of those messages that the database knows.
pub(super) async fn terminals(
    client: &Client,
    ids: &[MessageId],
    first_t: u64,
    distributed: bool,
) -> Result<HashMap<MessageId, TerminalKey>, StoreError> {
    let statement = client.prepare_cached(sql::READ_MESSAGES).await?;
    let names: Vec<&str> = ids.iter().map(MessageId::as_str).collect();
    let damaged = || StoreError::Damaged("a row of ltkmd.message".to_owned());
    let (mut found, mut again) = (HashMap::with_capacity(ids.len()), Vec::new());
    for row in client.query(&statement, &[&names]).await? {
        let id = MessageId::new(row.get(0)).ok_or_else(damaged)?;
        let key = row.get::<_, &[u8]>(1).try_into().map(TerminalKey).map_err(|_| damaged())?;
        if let Some(other) = found.insert(id.clone(), key) {
            again.extend([(id.clone(), other), (id, key)]);
        }
    }
    if !again.is_empty() {
        found.extend(newest(client, again, first_t, distributed).await?);
    }
    Ok(found)
}

/// Of the terminals that have a message of the same id, those whose delivery changed last. Centres begin anew with their
/// ids, or there are several.
async fn newest(
    client: &Client,
    candidates: Vec<(MessageId, TerminalKey)>,
    first_t: u64,
    distributed: bool,
) -> Result<HashMap<MessageId, TerminalKey>, StoreError> {
    let keys: BTreeSet<TerminalKey> = candidates.iter().map(|(_, key)| *key).collect();
    let keys: Vec<TerminalKey> = keys.into_iter().collect();
    let mut terminals = HashMap::with_capacity(keys.len());
    for (key, raw) in scope::terminals(client, &keys, distributed).await? {
        terminals.insert(key, raw.terminal(key, first_t)?);
    }
    let mut found: HashMap<MessageId, (Timestamp, TerminalKey)> = HashMap::new();
    for (id, key) in candidates {
        let deliveries = terminals.get(&key).into_iter().flat_map(|t| &t.deliveries);
        let of = deliveries.filter(|d| d.sms.as_ref().is_some_and(|leg| leg.ids.contains(&id)));
        let Some(changed) = of.map(|d| d.updated).max() else { continue };
        let newest = found.entry(id).or_insert((changed, key));
        *newest = (*newest).max((changed, key));
    }
    Ok(found.into_iter().map(|(id, (_, key))| (id, key)).collect())
}
