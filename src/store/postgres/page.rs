//! One page of a fan-out job: which members, decided and written like any update, and the job's cursors with it.

use std::collections::BTreeSet;

use super::commit::Guard;
use super::inner::{Inner, Tried};
use super::place::SHARDS;
use super::scope::Reading;
use super::{job, walk};
use crate::id::JobId;
use crate::store::queues::lock;
use crate::store::{Decide, Job, JobState, Scope, StoreError};

impl Inner {
    /// Decides about one page of a job and writes it, if this daemon has one to decide about.
    pub(super) async fn try_page(
        &self,
        id: JobId,
        limit: usize,
        decide: &mut Decide,
    ) -> Result<Tried, StoreError> {
        let connection = self.connection().await?;
        let (revision, job) = tokio::try_join!(self.revision(&connection), job::head(&connection, id))?;
        let Some(mut job) = job.filter(|job| job.state != JobState::Paused) else {
            connection.done();
            return Ok(Tried::Nothing);
        };
        let (mine, generation) = self.leases.shards();
        if lock(&self.walks).is_stale(&job, generation) {
            let cursors = walk::cursors(&connection, id, &mine).await?;
            lock(&self.walks).load(&job, generation, cursors);
        }
        let taken = lock(&self.walks).begin(&job, self.span(&job, limit));
        if taken.is_empty() {
            connection.done();
            return Ok(Tried::Nothing);
        }
        let shards: Vec<i32> = taken.iter().map(|(shard, _)| *shard).collect();
        // Whatever ends this page early lets go of its shards.
        let mut page = PageOf { inner: self, job: id, shards, ended: false };
        let mut reading = Reading::default();
        let (limit, first_t) = (limit.max(1), self.first_t());
        let visit =
            walk::page(&connection, &job, &taken, limit, first_t, self.distributed, &mut reading).await?;
        let (name, epoch) = self.leases.node();
        let guard = Guard {
            revision: None,
            lease: Some((name, epoch, visit.ranges())),
            job: Some((id.0 as i64, job.state)),
        };
        let goes_on = visit.moves.iter().any(|m| m.new.is_some()) || visit.moves.len() < taken.len();
        reading.view.more = goes_on || lock(&self.walks).has_more(id);
        job.cursor = taken.first().map(|(_, cursor)| *cursor);
        reading.view.job = Some(job.clone());
        reading.page = Some((job, visit.clone()));
        let tried = self
            .decide_and_write(connection, &Scope::Page(id, limit), reading, revision, guard, decide)
            .await?;
        match tried {
            Tried::Done => page.committed(&visit),
            _ => lock(&self.walks).forget(id),
        }
        Ok(tried)
    }

    /// Shards that a page of so many members looks into: one of a large service, many of a small one.
    fn span(&self, job: &Job, limit: usize) -> usize {
        if self.distributed {
            return 1;
        }
        let each = self.kept.members(job.service) as usize / SHARDS as usize;
        if each == 0 { SHARDS as usize } else { limit.div_ceil(each) }
    }

    /// Keeps the walks of these jobs alone.
    pub(super) fn keep_walks(&self, open: &BTreeSet<JobId>) {
        lock(&self.walks).retain(open);
    }
}

/// A page's hold on its shards.
struct PageOf<'a> {
    inner: &'a Inner,
    job: JobId,
    shards: Vec<i32>,
    ended: bool,
}

impl PageOf<'_> {
    fn committed(&mut self, visit: &walk::Visit) {
        lock(&self.inner.walks).committed(self.job, &self.shards, visit);
        self.ended = true;
    }
}

impl Drop for PageOf<'_> {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.inner.walks).abandoned(self.job, &self.shards);
        }
    }
}
