//! Tasks with a name, an owner and a way to stop: the one place that spawns.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that is stopped together; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    abort: CancellationToken,
}

impl TaskGroup {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` as a task called `name`. Dropping the handle leaves the task running; a panic in it is logged and ends it alone.
    pub fn spawn<F>(&self, name: &'static str, work: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let abort = self.abort.clone();
        let watched = Watched(name);
        self.tracker.spawn(async move {
            let _watched = watched;
            tokio::select! {
                () = work => {}
                () = abort.cancelled() => tracing::debug!(task = name, "stopped before its end"),
            }
        })
    }

    /// Returns how many tasks run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until all tasks have ended, at most for `patience`; then stops those that remain. Returns how many that were.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_ok() {
            return 0;
        }
        let remaining = self.tracker.len();
        self.abort.cancel();
        self.tracker.wait().await;
        remaining
    }
}

/// Tells of a panic in the task that owns it.
struct Watched(&'static str);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "a task panicked; this is a bug in cachalot");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_tasks_and_stops_those_that_do_not_end() {
        let tasks = TaskGroup::new();
        tasks.spawn("short", tokio::time::sleep(Duration::from_secs(1)));
        tasks.spawn("endless", std::future::pending());
        assert_eq!(tasks.len(), 2);
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 1);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let tasks = TaskGroup::new();
        let failed = tasks.spawn("failing", async { panic!("on purpose") }).await;
        assert!(failed.is_err_and(|error| error.is_panic()));
        assert!(tasks.spawn("next", async {}).await.is_ok());
    }
}
