//! What operators do with fan-out jobs: hold them, let them go on, end them.

use super::{Engine, EngineError};
use crate::id::JobId;
use crate::store::{CatalogueWrite, Job, JobKind, JobState};

/// What an operator wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// Nobody more is visited until it is resumed. What is under way goes on to its end, resends included.
    Pause,
    /// It goes on where it was paused.
    Resume,
    /// Nobody more is visited, and what waits for its turn does not go out. What went out goes on to its end.
    Cancel,
}

impl JobAction {
    /// The state that it leads to.
    fn state(self) -> JobState {
        match self {
            Self::Pause => JobState::Paused,
            Self::Resume => JobState::Running,
            Self::Cancel => JobState::Cancelled,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
        }
    }
}

impl Engine {
    /// Pauses, resumes or cancels a job, durable when it returns; gives the job as it is then. Pausing a paused
    /// job and resuming a running one is harmless.
    ///
    /// # Errors
    /// Unknown; it is done or cancelled already; the end of a deleted service's registrations cannot be cancelled.
    pub async fn act_on_job(&self, id: JobId, action: JobAction) -> Result<Job, EngineError> {
        let job = self.known_job(id).await?;
        if job.state.is_over() {
            return Err(over(&job, action));
        }
        if job.kind == JobKind::Retire && action == JobAction::Cancel {
            return Err(EngineError::Conflict(format!(
                "job {id} ends the registrations of a service that is deleted already: it can be paused, but not \
                 cancelled"
            )));
        }
        if job.state == action.state() {
            return Ok(job);
        }
        let finished = (action == JobAction::Cancel).then(|| self.now());
        let written = Job { state: action.state(), finished, ..job };
        let write = vec![CatalogueWrite::Job(written)];
        self.store.write_catalogue(write).await.inspect_err(|_| self.metrics.store_failed())?;
        self.jobs.notify_one();
        // It may have come to its end before the write, and stays so then.
        let job = self.known_job(id).await?;
        match job.state {
            JobState::Cancelled if action == JobAction::Cancel => Ok(job),
            // A resumed job whose last answer came while it was paused.
            JobState::Done if action == JobAction::Resume => Ok(job),
            state if state.is_over() => Err(over(&job, action)),
            _ => Ok(job),
        }
    }

    async fn known_job(&self, id: JobId) -> Result<Job, EngineError> {
        let found = self.store.job(id).await.inspect_err(|_| self.metrics.store_failed())?;
        found.ok_or_else(|| EngineError::NotFound(format!("there is no job {id}")))
    }
}

fn over(job: &Job, action: JobAction) -> EngineError {
    let (id, state, action) = (job.id, job.state.as_str(), action.as_str());
    EngineError::Conflict(format!("job {id} is {state} already: it cannot be {action} any more"))
}
