//! Who has how many connections open: one client cannot take all the room.
//!
//! From three quarters of the limit on, a client certificate that holds more than half of all open connections gets no
//! more of them, so that the rest is left for the others. A client alone may have three quarters of the limit.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections past their handshake, by the thumbprint of the client certificate.
#[derive(Default)]
pub(super) struct Peers(Mutex<Open>);

#[derive(Default)]
struct Open {
    all: usize,
    by_peer: HashMap<[u8; 32], usize>,
}

/// A connection's place; given back when dropped.
pub(super) struct Place<'a> {
    peers: &'a Peers,
    peer: [u8; 32],
}

impl Peers {
    /// A place for one more connection of `peer` where `limit` may be open; `None` when what is left is for others.
    pub(super) fn enter(&self, peer: [u8; 32], limit: usize) -> Option<Place<'_>> {
        let mut open = self.lock();
        let own = open.by_peer.get(&peer).copied().unwrap_or(0);
        if open.all >= limit - limit / 4 && own > open.all / 2 {
            return None;
        }
        open.all += 1;
        open.by_peer.insert(peer, own + 1);
        Some(Place { peers: self, peer })
    }

    // Every update leaves the counts consistent.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.peers.lock();
        open.all = open.all.saturating_sub(1);
        if let Entry::Occupied(mut own) = open.by_peer.entry(self.peer) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_a_quarter_to_the_others_and_gets_its_places_back() {
        let peers = Peers::default();
        let mut greedy: Vec<_> = std::iter::from_fn(|| peers.enter([1; 32], 100)).collect();
        assert_eq!(greedy.len(), 75);
        let others: Vec<_> = (0..25).map_while(|n| peers.enter([n + 2; 32], 100)).collect();
        assert_eq!(others.len(), 25);
        assert!(peers.enter([1; 32], 100).is_none());
        drop(others);
        greedy.truncate(10);
        assert_eq!(peers.lock().by_peer, HashMap::from([([1; 32], 10)]));
        assert!(peers.enter([1; 32], 100).is_some());
        greedy.clear();
        let open = peers.lock();
        assert_eq!((open.all, open.by_peer.len()), (0, 0));
    }

    #[test]
    fn two_clients_share_the_whole_room() {
        let peers = Peers::default();
        let both: Vec<_> = (0..100).map_while(|n| peers.enter([n % 2; 32], 100)).collect();
        assert_eq!(both.len(), 100);
    }
}
