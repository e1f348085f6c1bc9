//! Rows on their way into the database, a few thousand at a time.

use std::collections::BTreeMap;
use std::pin::pin;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper as Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use crate::delivery::MessageId;
use crate::id::{ServiceNo, SubscriberId, TerminalKey};
use crate::store::StoreError;
use crate::store::postgres::message;
use crate::store::postgres::place::{shard, subscriber_shard};
use crate::store::postgres::scope::{shards, terminals};
use crate::store::postgres::sql;

/// Rows that are written at once, at most, and their octets.
const ROWS: usize = 5_000;
const OCTETS: usize = 4 << 20;

/// A terminal's row.
pub(super) struct TerminalRow {
    pub(super) key: TerminalKey,
    pub(super) credential: Option<Vec<u8>>,
    pub(super) state: Option<Bytes>,
    pub(super) look: Option<i64>,
    pub(super) turn: Option<i64>,
    pub(super) services: Vec<ServiceNo>,
    pub(super) messages: Vec<MessageId>,
}

/// Rows that wait, and keys of rows that go first.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) terminals: Vec<TerminalRow>,
    pub(super) subscribers: Vec<(SubscriberId, Bytes)>,
    pub(super) gone_terminals: Vec<TerminalKey>,
    pub(super) gone_subscribers: Vec<SubscriberId>,
    pub(super) octets: usize,
}

/// Copies rows into a table.
pub(super) async fn copy<'a, R, const N: usize>(
    client: &Client,
    into: &str,
    types: [Type; N],
    rows: impl IntoIterator<Item = R>,
    columns: impl Fn(&R) -> [&(dyn ToSql + Sync); N],
) -> Result<(), StoreError>
where
    R: 'a,
{
    let sink = client.copy_in::<_, Bytes>(&format!("COPY ltkmd.{into} FROM STDIN BINARY")).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for row in rows {
        writer.as_mut().write(&columns(&row)).await?;
    }
    writer.finish().await?;
    Ok(())
}

impl Batch {
    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        let rows = self.terminals.len() + self.subscribers.len();
        let gone = self.gone_terminals.len() + self.gone_subscribers.len();
        rows >= ROWS || gone >= ROWS || self.octets >= OCTETS
    }

    fn is_empty(&self) -> bool {
        let rows = self.terminals.len() + self.subscribers.len();
        rows + self.gone_terminals.len() + self.gone_subscribers.len() == 0
    }

    /// Writes what waits, as one commit.
    pub(super) async fn write(&mut self, client: &Client, distributed: bool) -> Result<(), StoreError> {
        let batch = std::mem::take(self);
        if batch.is_empty() {
            return Ok(());
        }
        client.batch_execute("BEGIN; SET LOCAL synchronous_commit = off").await?;
        batch.write_subscribers(client).await?;
        batch.write_terminals(client, distributed).await?;
        client.batch_execute("COMMIT").await?;
        Ok(())
    }

    async fn write_subscribers(&self, client: &Client) -> Result<(), StoreError> {
        if !self.gone_subscribers.is_empty() {
            let gone = &self.gone_subscribers;
            let mut in_shards: Vec<i32> = gone.iter().map(subscriber_shard).collect();
            in_shards.sort_unstable();
            in_shards.dedup();
            let ids: Vec<&str> = gone.iter().map(SubscriberId::as_str).collect();
            let text = "DELETE FROM ltkmd.subscriber WHERE shard = ANY($1::int[]) AND id = ANY($2::text[])";
            client.execute(text, &[&in_shards, &ids]).await?;
        }
        if self.subscribers.is_empty() {
            return Ok(());
        }
        let rows =
            self.subscribers.iter().map(|(id, record)| (subscriber_shard(id), id.as_str(), &record[..]));
        let types = [Type::INT4, Type::TEXT, Type::INT8, Type::BYTEA];
        copy(client, "subscriber (shard, id, version, record)", types, rows, |(shard, id, record)| {
            [shard, id, &1i64, record]
        })
        .await
    }

    async fn write_terminals(&self, client: &Client, distributed: bool) -> Result<(), StoreError> {
        if !self.gone_terminals.is_empty() {
            self.remove_terminals(client, distributed).await?;
        }
        if self.terminals.is_empty() {
            return Ok(());
        }
        let rows = self.terminals.iter().map(|row| {
            let (credential, state) = (row.credential.as_deref(), row.state.as_deref());
            (shard(row.key), &row.key.0[..], credential, state, row.look, row.turn)
        });
        let types = [Type::INT4, Type::BYTEA, Type::INT8, Type::BYTEA, Type::BYTEA, Type::INT8, Type::INT8];
        let into = "terminal (shard, key, version, credential, state, look, turn)";
        copy(client, into, types, rows, |(shard, key, credential, state, look, turn)| {
            [shard, key, &1i64, credential, state, look, turn]
        })
        .await?;
        let members = self
            .terminals
            .iter()
            .flat_map(|row| row.services.iter().map(|no| (shard(row.key), i64::from(no.0), &row.key.0[..])));
        let types = [Type::INT4, Type::INT8, Type::BYTEA];
        copy(client, "member (shard, service, key)", types, members, |(shard, service, key)| {
            [shard, service, key]
        })
        .await?;
        self.write_messages(client).await
    }

    /// Terminals may have messages of one id, in this batch or in others: no COPY.
    async fn write_messages(&self, client: &Client) -> Result<(), StoreError> {
        let messages = self.terminals.iter().flat_map(|row| row.messages.iter().map(|id| (id, &row.key)));
        let messages: BTreeMap<(i32, &str), &[u8]> =
            messages.map(|(id, key)| ((shard(*key), id.as_str()), &key.0[..])).collect();
        if messages.is_empty() {
            return Ok(());
        }
        let (places, ids): (Vec<i32>, Vec<&str>) = messages.keys().copied().unzip();
        let keys: Vec<&[u8]> = messages.into_values().collect();
        client.execute(sql::PUT_MESSAGES, &[&places, &ids, &keys]).await?;
        Ok(())
    }

    /// Removes terminals, and their membership and messages as their rows have them.
    async fn remove_terminals(&self, client: &Client, distributed: bool) -> Result<(), StoreError> {
        let gone = &self.gone_terminals;
        let (mut members, mut services) = (Vec::new(), Vec::new());
        let (mut named, mut messages) = (Vec::new(), Vec::new());
        for (key, raw) in terminals(client, gone, distributed).await? {
            if raw.state.is_none() {
                continue;
            }
            let terminal = raw.terminal(key, 1)?;
            for no in terminal.registration.iter().flat_map(|r| &r.services) {
                members.push(key);
                services.push(i64::from(no.0));
            }
            for id in message::ids(&terminal) {
                named.push(key);
                messages.push(id.as_str().to_owned());
            }
        }
        let octets = |keys: &[TerminalKey]| keys.iter().map(|key| key.0.to_vec()).collect::<Vec<_>>();
        if !members.is_empty() {
            let in_shards = shards(members.iter().copied());
            let each: Vec<i32> = members.iter().map(|key| shard(*key)).collect();
            client.execute(sql::DELETE_MEMBERS, &[&in_shards, &each, &services, &octets(&members)]).await?;
        }
        if !named.is_empty() {
            let in_shards = shards(named.iter().copied());
            let each: Vec<i32> = named.iter().map(|key| shard(*key)).collect();
            client.execute(sql::DELETE_MESSAGES, &[&in_shards, &each, &messages, &octets(&named)]).await?;
        }
        let text = "DELETE FROM ltkmd.terminal WHERE shard = ANY($1::int[]) AND key = ANY($2::bytea[])";
        client.execute(text, &[&shards(gone.iter().copied()), &octets(gone)]).await?;
        Ok(())
    }
}
