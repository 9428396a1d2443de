//! Places for connections: so many in all, over every listener, and so many for one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places that there are, and who has them.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    // A plain mutex: held for one look-up, when a connection comes and when it goes.
    of_clients: Mutex<HashMap<IpAddr, u32>>,
}

impl Places {
    /// Makes so many places.
    pub fn new(connections: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(connections)), of_clients: Mutex::default() }
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Who gives up has no place, and has lost none.
    pub(super) async fn one(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives a client one of its `limit` places, or `None` when it has them all. The others' are not touched.
    pub(super) fn of_client(self: &Arc<Self>, client: IpAddr, limit: u32) -> Option<ClientPlace> {
        let mut of_clients = self.of_clients();
        let taken = of_clients.entry(client).or_default();
        if *taken >= limit {
            return None;
        }
        *taken += 1;
        Some(ClientPlace { places: Arc::clone(self), client })
    }

    fn of_clients(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.of_clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of a client; dropping it gives it back.
#[derive(Debug)]
pub(super) struct ClientPlace {
    places: Arc<Places>,
    client: IpAddr,
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut of_clients = self.places.of_clients();
        if let Some(taken) = of_clients.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                of_clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_own_places_and_gives_them_back() {
        let places = Arc::new(Places::new(10));
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let held: Vec<_> = (0..3).map(|_| places.of_client(one, 2)).collect();
        assert_eq!(held.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        assert!(places.of_client(other, 2).is_some());
        drop(held);
        assert!(places.of_clients().is_empty(), "who is gone is forgotten");
        assert!(places.of_client(one, 0).is_none());
    }
}
