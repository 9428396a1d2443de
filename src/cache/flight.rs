//! Small questions asked once for everybody who asks them at the same time.
//!
//! The work runs in a task of its own, so a leaving client neither stops nor restarts it. For manifests, tags and existence checks;
//! blobs have [fills](super::fill).

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::tasks::TaskGroup;

type Answer<V> = Shared<BoxFuture<'static, Option<V>>>;

/// By question, with the number of the flight.
type Underway<K, V> = Arc<Mutex<HashMap<K, (u64, Answer<V>)>>>;

/// The questions of one kind that are under way.
pub(super) struct Flights<K, V> {
    // A plain mutex: held for a map operation.
    underway: Underway<K, V>,
    /// How many there have been.
    flown: AtomicU64,
    tasks: TaskGroup,
}

/// What a flight brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landed<V> {
    /// `None` when the work was stopped or panicked.
    pub(super) answer: Option<V>,
    /// True for the one caller whose question started the work.
    pub(super) led: bool,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tasks: TaskGroup) -> Self {
        Self { underway: Arc::default(), flown: AtomicU64::new(0), tasks }
    }

    /// Waits for the answer to `key`, starting `work` when nobody has.
    ///
    /// # Cancel safety
    /// Dropping the call leaves the work to those who wait for it, or to itself.
    pub(super) async fn join<F>(&self, key: K, name: &'static str, work: impl FnOnce() -> F) -> Landed<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (answer, started) = {
            let mut underway = lock(&self.underway);
            if let Some((_, answer)) = underway.get(&key) {
                (answer.clone(), None)
            } else {
                let (tell, told) = oneshot::channel();
                let answer: Answer<V> = told.map(Result::ok).boxed().shared();
                let number = self.flown.fetch_add(1, Ordering::Relaxed);
                underway.insert(key.clone(), (number, answer.clone()));
                let entry = Entry { key, number, underway: Arc::clone(&self.underway) };
                (answer, Some((tell, entry, work())))
            }
        };
        let led = started.is_some();
        if let Some((tell, entry, work)) = started {
            self.tasks.spawn(name, async move {
                let value = work.await;
                // First off the list: who comes from here on asks anew.
                drop(entry);
                // Nobody may be waiting any more.
                let _unheard = tell.send(value);
            });
        }
        Landed { answer: answer.await, led }
    }

    /// Lets nobody join those whose question `is_outdated`: who waits for them already is told what they bring.
    pub(super) fn forget(&self, is_outdated: impl Fn(&K) -> bool) {
        lock(&self.underway).retain(|key, _| !is_outdated(key));
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// A place on the list; dropped, also by a panic, it is free.
struct Entry<K: Eq + Hash, V> {
    key: K,
    number: u64,
    underway: Underway<K, V>,
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        let mut underway = lock(&self.underway);
        // Not the one that was begun since this one was forgotten.
        if underway.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            underway.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_works_and_all_who_ask_meanwhile_get_its_answer() {
        let flights = Arc::new(Flights::<u8, u32>::new(TaskGroup::new()));
        let gate = Arc::new(Notify::new());
        let first = {
            let gate = Arc::clone(&gate);
            flights.join(1, "test", move || async move {
                gate.notified().await;
                42
            })
        };
        let second = flights.join(1, "test", || async { unreachable!("the first is under way") });
        let open = async { gate.notify_one() };
        let (first, second, ()) = tokio::join!(first, second, open);
        assert_eq!((first.answer, first.led, second.answer, second.led), (Some(42), true, Some(42), false));
        let third = flights.join(1, "test", || async { 43 }).await;
        assert_eq!((third.answer, third.led), (Some(43), true));
    }

    #[tokio::test]
    async fn a_leaving_caller_does_not_stop_the_work() {
        let flights = Flights::<u8, u32>::new(TaskGroup::new());
        let gate = Arc::new(Notify::new());
        let work = {
            let gate = Arc::clone(&gate);
            move || async move {
                gate.notified().await;
                7
            }
        };
        assert!(flights.join(1, "test", work).now_or_never().is_none());
        gate.notify_one();
        let joined = flights.join(1, "test", || async { unreachable!("the first is under way") }).await;
        assert_eq!((joined.answer, joined.led), (Some(7), false));
    }

    #[tokio::test]
    async fn a_panic_is_an_absent_answer_and_the_next_starts_afresh() {
        let flights = Flights::<u8, u32>::new(TaskGroup::new());
        let landed = flights.join(1, "test", || async { panic!("on purpose") }).await;
        assert_eq!(landed.answer, None);
        assert_eq!(flights.join(1, "test", || async { 1 }).await.answer, Some(1));
    }
}
