//! Resends: what is due is looked at again, in batches, several times a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Engine;
use super::fanout::decide_all;
use crate::store::{Lane, Scope, StoreError};

/// Terminals looked at in one commit.
const BATCH: usize = 1000;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(100);

impl Engine {
    /// Looks at what is due until the shutdown.
    pub async fn run_resends(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        while !*shutdown.borrow() {
            if self.rests(&mut shutdown).await {
                continue;
            }
            match self.resend().await {
                // More is due: the store gives what it can change at once.
                Ok(taken)
                    if taken > 0 && self.store.next_due(Lane::Look).is_some_and(|at| at <= self.now()) => {}
                Ok(_) | Err(StoreError::Moved) => tokio::select! {
                    () = tokio::time::sleep(TICK) => {}
                    _ = shutdown.changed() => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "resends wait for the store");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Looks at one batch; gives how many terminals were in it.
    async fn resend(self: &Arc<Self>) -> Result<usize, StoreError> {
        let keys = self.store.take_due(Lane::Look, self.now(), BATCH);
        let taken = keys.len();
        if taken == 0 {
            return Ok(0);
        }
        let (work, failed) = self
            .update(Scope::Due(keys), |view, ctx| {
                decide_all(view, ctx, |terminal, ctx, orders| terminal.due(ctx, orders))
            })
            .await?;
        for reason in failed {
            self.metrics.failed(reason, 1);
        }
        if !work.is_empty() {
            let engine = Arc::clone(self);
            let sent = tokio::task::spawn_blocking(move || engine.push_held(&work)).await;
            if let Err(error) = sent {
                tracing::error!(%error, "making LTKMs failed");
            }
        }
        Ok(taken)
    }
}
