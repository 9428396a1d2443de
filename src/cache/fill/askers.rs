//! In whose name a fill asks.
//!
//! A fill begins in the name of whoever started it. Where the upstream is for callers, each follower that was let in stands ready with its
//! own: when the upstream denies the one in the middle of the fill, because its token ended or its right was taken, the fill goes on in the
//! name of the next, and nobody who follows notices. What is denied before the upstream has said yes fails the fill: its yes is one to the
//! repository that it was started for, and nobody else's stands for that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::RepositoryName;
use crate::upstream::{CallerId, Origin};

/// Somebody in whose name the upstream is asked, and about which repository.
#[derive(Debug)]
pub(in crate::cache) struct Asker {
    pub(in crate::cache) origin: Arc<dyn Origin>,
    pub(in crate::cache) repository: RepositoryName,
    /// `None` for our own name.
    pub(in crate::cache) caller: Option<CallerId>,
}

/// Those of one fill.
#[derive(Debug, Default)]
pub(super) struct Askers {
    // A plain mutex: held for a look through the list, when a transfer starts or a follower comes or goes.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whose turn it is; `None` for whoever started the fill.
    current: Option<Arc<Asker>>,
    /// Followers that stand ready, each as often as it follows.
    ready: Vec<Arc<Asker>>,
    /// Who was denied: nobody is asked for twice.
    denied: Vec<Arc<Asker>>,
}

impl Askers {
    /// Returns who has taken the place of whoever started the fill, if anybody has.
    pub(super) fn current(&self) -> Option<Arc<Asker>> {
        self.state().current.clone()
    }

    pub(super) fn enter(&self, asker: &Arc<Asker>) {
        self.state().ready.push(Arc::clone(asker));
    }

    pub(super) fn leave(&self, asker: &Arc<Asker>) {
        let mut state = self.state();
        if let Some(place) = state.ready.iter().position(|ready| Arc::ptr_eq(ready, asker)) {
            state.ready.swap_remove(place);
        }
    }

    /// Gives the turn of `denied` to the next; false when there is nobody.
    pub(super) fn pass_on(&self, denied: &Arc<Asker>) -> bool {
        let mut state = self.state();
        let has_passed = state.current.as_ref().is_some_and(|current| !Arc::ptr_eq(current, denied));
        let was_denied = state.denied.iter().any(|before| before.is_as(denied));
        if has_passed && was_denied {
            return true;
        }
        state.denied.push(Arc::clone(denied));
        let next = state.ready.iter().find(|ready| !state.denied.iter().any(|before| before.is_as(ready))).cloned();
        let passes = next.is_some();
        state.current = next.or(state.current.take());
        passes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    /// Returns true when the upstream would answer both the same.
    fn is_as(&self, other: &Self) -> bool {
        self.caller == other.caller && self.repository == other.repository
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::tests::ScriptedOrigin;
    use crate::upstream::{Caller, CallerKey};

    fn asker(origin: &Arc<ScriptedOrigin>, repository: &str, caller: Option<CallerId>) -> Arc<Asker> {
        let origin = Arc::clone(origin) as Arc<dyn Origin>;
        Arc::new(Asker { origin, repository: repository.parse().unwrap(), caller })
    }

    #[test]
    fn the_turn_goes_from_one_to_the_next_and_to_nobody_twice() {
        let origin = Arc::new(ScriptedOrigin::new(Bytes::new()));
        let ids = ["Bearer a", "Bearer b", "Bearer c"].map(|shown| {
            let shown = http::HeaderValue::from_static(shown);
            Some(Caller::new(&CallerKey::new(), Some(&shown)).unwrap().id())
        });
        let [first, second, gone] = ids.map(|id| asker(&origin, "app", id));
        // The same caller follows as well, and once more.
        let again = asker(&origin, "app", first.caller);
        let elsewhere = asker(&origin, "other", first.caller);
        let askers = Askers::default();
        for ready in [&again, &again, &gone, &second] {
            askers.enter(ready);
        }
        askers.leave(&gone);
        askers.leave(&again);
        assert!(askers.current().is_none());
        assert!(askers.pass_on(&first));
        assert!(Arc::ptr_eq(&askers.current().unwrap(), &second), "not to the same caller, nor to who has left");
        assert!(askers.pass_on(&first), "another transfer of the first one's: it has been passed on already");
        assert!(Arc::ptr_eq(&askers.current().unwrap(), &second));
        assert!(!askers.pass_on(&second), "there is nobody else");
        askers.enter(&elsewhere);
        assert!(askers.pass_on(&second), "who comes later counts");
        assert!(Arc::ptr_eq(&askers.current().unwrap(), &elsewhere), "the same caller may read it elsewhere");
    }
}
