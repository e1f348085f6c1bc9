//! The embedded store with a switch that makes it fail.

use std::sync::Mutex;

use crate::delivery::{Delivery, MessageId, Terminal};
use crate::id::{BTid, JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::keys::Catalogue;
use crate::store::cluster::Cluster;
use crate::store::{
    CatalogueWrite, Counts, Cursor, Decide, DeliveryFilter, DiskUse, EmbeddedStore, FreezeOrder,
    FreezeOutcome, Frozen, Holders, Job, Lane, Scope, Sealer, Store, StoreError, StoreFuture, Subscriber,
    TerminalFilter,
};
use crate::time::Timestamp;

pub(crate) struct Faulty {
    inner: EmbeddedStore,
    /// How everything fails.
    pub(crate) fault: Mutex<Option<StoreError>>,
    /// How updates fail while the rest works.
    pub(crate) update_fault: Mutex<Option<StoreError>>,
    /// A cluster that is shown in place of one daemon.
    pub(crate) cluster: Mutex<Option<Cluster>>,
}

impl Faulty {
    pub(crate) fn new(inner: EmbeddedStore) -> Self {
        Self { inner, fault: Mutex::new(None), update_fault: Mutex::new(None), cluster: Mutex::new(None) }
    }

    fn or_fail<'a, T: Send + 'a>(&'a self, works: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        match self.fault.lock().expect("no panic").clone() {
            Some(error) => Box::pin(async { Err(error) }),
            None => works,
        }
    }
}

impl Store for Faulty {
    fn sealer(&self) -> &Sealer {
        self.inner.sealer()
    }
    fn catalogue(&self) -> StoreFuture<'_, Catalogue> {
        self.or_fail(self.inner.catalogue())
    }
    fn write_catalogue(&self, writes: Vec<CatalogueWrite>) -> StoreFuture<'_, ()> {
        match self.fault.lock().expect("no panic").clone() {
            Some(error) => Box::pin(async { Err(error) }),
            None => self.inner.write_catalogue(writes),
        }
    }
    fn terminal<'a>(&'a self, btid: &'a BTid) -> StoreFuture<'a, Option<Terminal>> {
        self.or_fail(self.inner.terminal(btid))
    }
    fn terminals(&self, keys: Vec<TerminalKey>) -> StoreFuture<'_, Vec<Terminal>> {
        self.or_fail(self.inner.terminals(keys))
    }
    fn terminals_of_subscribers(
        &self,
        keys: Vec<TerminalKey>,
    ) -> StoreFuture<'_, Vec<(Terminal, Subscriber)>> {
        self.or_fail(self.inner.terminals_of_subscribers(keys))
    }
    fn subscriber<'a>(&'a self, id: &'a SubscriberId) -> StoreFuture<'a, Option<(Subscriber, Vec<BTid>)>> {
        self.or_fail(self.inner.subscriber(id))
    }
    fn update(&self, scope: Scope, decide: Decide) -> StoreFuture<'_, ()> {
        let fault = self.fault.lock().expect("no panic").clone();
        match fault.or_else(|| self.update_fault.lock().expect("no panic").clone()) {
            Some(error) => Box::pin(async { Err(error) }),
            None => self.inner.update(scope, decide),
        }
    }
    fn take_due(&self, lane: Lane, now: Timestamp, limit: usize) -> Vec<TerminalKey> {
        self.inner.take_due(lane, now, limit)
    }
    fn next_due(&self, lane: Lane) -> Option<Timestamp> {
        self.inner.next_due(lane)
    }
    fn due_len(&self, lane: Lane) -> usize {
        self.inner.due_len(lane)
    }
    fn disk_use(&self) -> StoreFuture<'_, DiskUse> {
        self.or_fail(self.inner.disk_use())
    }
    fn terminals_of_messages(&self, ids: Vec<MessageId>) -> StoreFuture<'_, Vec<Option<TerminalKey>>> {
        self.or_fail(self.inner.terminals_of_messages(ids))
    }
    fn list_terminals(
        &self,
        filter: TerminalFilter,
        after: Option<TerminalKey>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Terminal>> {
        self.or_fail(self.inner.list_terminals(filter, after, limit))
    }
    fn list_deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(BTid, Delivery, Cursor)>> {
        self.or_fail(self.inner.list_deliveries(filter, after, limit))
    }
    fn job(&self, id: JobId) -> StoreFuture<'_, Option<Job>> {
        self.or_fail(self.inner.job(id))
    }
    fn open_jobs(&self) -> StoreFuture<'_, Vec<Job>> {
        self.or_fail(self.inner.open_jobs())
    }
    fn jobs(&self, limit: usize) -> StoreFuture<'_, Vec<Job>> {
        self.or_fail(self.inner.jobs(limit))
    }
    fn new_job_id(&self) -> StoreFuture<'_, JobId> {
        self.or_fail(self.inner.new_job_id())
    }
    fn counts(&self) -> Counts {
        self.inner.counts()
    }
    fn cluster(&self) -> StoreFuture<'_, Cluster> {
        match self.cluster.lock().expect("no panic").clone() {
            Some(cluster) => self.or_fail(Box::pin(std::future::ready(Ok(cluster)))),
            None => self.or_fail(self.inner.cluster()),
        }
    }
    fn moment(&self) -> StoreFuture<'_, Box<dyn crate::store::backup::Moment>> {
        self.or_fail(self.inner.moment())
    }

    fn holders(&self, service: ServiceNo, number: u16) -> Holders {
        self.inner.holders(service, number)
    }
    fn probe(&self) -> StoreFuture<'_, ()> {
        self.or_fail(self.inner.probe())
    }
    fn freeze(&self, order: FreezeOrder) -> StoreFuture<'_, FreezeOutcome> {
        self.or_fail(self.inner.freeze(order))
    }
    fn frozen(&self) -> Option<Frozen> {
        self.inner.frozen()
    }
    fn take_commit_times(&self) -> Vec<f64> {
        self.inner.take_commit_times()
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        self.inner.close()
    }
}
