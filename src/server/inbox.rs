//! Manifests that are being pushed: each is held whole until the upstream has answered, so there is room for so many bytes of them in
//! all, and for so many of one client.
//!
//! Bytes count as they come. What a client only announces takes no room from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::cache::{Client, MANIFEST_BYTES_MAX};

/// Bytes of all: sixteen of the largest manifests, and thousands of common ones.
const BYTES_MAX: usize = 16 * MANIFEST_BYTES_MAX;

/// Bytes of one client: a quarter, so that the others have room beside it.
const CLIENT_BYTES_MAX: usize = BYTES_MAX / 4;

/// The room that there is, and who has it.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    of_clients: HashMap<Client, usize>,
}

/// A manifest that has come; its room is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) bytes: Bytes,
    _room: Room,
}

/// Why a manifest has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreceived {
    /// It has more than [`MANIFEST_BYTES_MAX`].
    TooLarge,
    /// There is no room.
    Full,
    /// Its sender has left.
    BrokenOff,
}

/// What one manifest takes.
#[derive(Debug)]
struct Room {
    inbox: Arc<Inbox>,
    client: Client,
    bytes: usize,
}

impl Inbox {
    /// Takes a manifest from a client.
    ///
    /// # Cancel safety
    /// What has come of it is dropped, and takes no room.
    pub(super) async fn receive(self: &Arc<Self>, mut body: Incoming, client: Client) -> Result<Letter, Unreceived> {
        let mut room = Room { inbox: Arc::clone(self), client, bytes: 0 };
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| Unreceived::BrokenOff)?.into_data() else { continue };
            if bytes.len() + chunk.len() > MANIFEST_BYTES_MAX {
                return Err(Unreceived::TooLarge);
            }
            room.widen(chunk.len()).ok_or(Unreceived::Full)?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(Letter { bytes: bytes.freeze(), _room: room })
    }

    // A plain mutex: held for an addition.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Takes so much more, or `None` when there is not so much.
    fn widen(&mut self, bytes: usize) -> Option<()> {
        let mut state = self.inbox.state();
        let taken = state.of_clients.get(&self.client).copied().unwrap_or_default() + bytes;
        if state.bytes + bytes > BYTES_MAX || taken > CLIENT_BYTES_MAX {
            return None;
        }
        state.bytes += bytes;
        state.of_clients.insert(self.client, taken);
        self.bytes += bytes;
        Some(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.inbox.state();
        state.bytes -= self.bytes;
        if let Some(taken) = state.of_clients.get_mut(&self.client) {
            *taken -= self.bytes;
            if *taken == 0 {
                state.of_clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all_and_for_each_and_what_is_dropped_gives_it_back() {
        let inbox = Arc::new(Inbox::default());
        let room = |client: u8| Room { inbox: Arc::clone(&inbox), client: Client::of(&client), bytes: 0 };
        let mut rooms: Vec<Room> = (0..5).map(room).collect();
        for room in rooms.iter_mut().take(4) {
            assert_eq!(room.widen(CLIENT_BYTES_MAX), Some(()));
            assert_eq!(room.widen(1), None, "S-33: a client has its part");
        }
        assert_eq!(rooms[4].widen(1), None, "S-33: and all have theirs");
        drop(rooms);
        let state = inbox.state();
        assert_eq!((state.bytes, state.of_clients.len()), (0, 0));
    }
}
