//! The fills under way, by key: the only way to a fill, so that nothing is fetched twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::readers::Interest;
use super::{Fill, FillError, FillKey, Phase};

/// The fills under way; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inflight {
    // A plain mutex: held for a map operation.
    fills: Arc<Mutex<HashMap<FillKey, Arc<Fill>>>>,
}

/// What joining gave.
#[derive(Debug)]
pub(crate) enum Joined {
    /// A new fill, to be run by the caller.
    Lead(Interest, Lead),
    Follow(Interest),
}

impl Inflight {
    /// Joins the fill of `key`, or begins it with `make`.
    pub(crate) fn join(&self, key: &FillKey, make: impl FnOnce() -> Fill) -> Joined {
        let mut fills = self.fills();
        if let Some(interest) = fills.get(key).and_then(Interest::joining) {
            return Joined::Follow(interest);
        }
        let fill = Arc::new(make());
        fills.insert(key.clone(), Arc::clone(&fill));
        let interest = Interest::joining(&fill).expect("a fill that has not begun is open");
        Joined::Lead(interest, Lead { fill, inflight: self.clone() })
    }

    /// Returns the fill of `key`, if one is under way.
    pub(crate) fn find(&self, key: &FillKey) -> Option<Interest> {
        self.fills().get(key).and_then(Interest::joining)
    }

    /// Returns how many fills are under way.
    pub(crate) fn len(&self) -> usize {
        self.fills().len()
    }

    fn remove(&self, fill: &Arc<Fill>) {
        let mut fills = self.fills();
        if fills.get(&fill.key).is_some_and(|listed| Arc::ptr_eq(listed, fill)) {
            fills.remove(&fill.key);
        }
    }

    fn fills(&self) -> MutexGuard<'_, HashMap<FillKey, Arc<Fill>>> {
        self.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to run a fill. Dropped, it takes the fill off the list, and fails it when it had no ending: silence is never success.
#[derive(Debug)]
pub(crate) struct Lead {
    fill: Arc<Fill>,
    inflight: Inflight,
}

impl Lead {
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }
}

impl Lead {
    /// Takes the fill off the list at once, so that nobody joins it any more.
    pub(super) fn delist(&self) {
        self.inflight.remove(&self.fill);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.delist();
        let has_ended = matches!(self.fill.progress.borrow().phase, Phase::Verified | Phase::Failed(_));
        if !has_ended {
            self.fill.fail(Arc::new(FillError::Aborted));
        }
    }
}
