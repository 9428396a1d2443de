//! What the store knows a client by: enough to tell that it is not the one that asked first.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU16;
use std::sync::LazyLock;

/// One client among others; two bytes, because there is one for each stored object. Of 65,000 clients two look alike now and then: then
/// a third one has to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientPrint(NonZeroU16);

/// Keys that nobody outside knows: who could choose how to look could look like two.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl ClientPrint {
    /// Returns what a client is known by, by whatever tells clients apart.
    pub fn of(client: &impl Hash) -> Self {
        let [low, high, ..] = KEYS.hash_one(client).to_le_bytes();
        Self(NonZeroU16::new(u16::from_le_bytes([low, high])).unwrap_or(NonZeroU16::MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart() {
        let one = ClientPrint::of(&"10.0.0.1");
        assert_eq!(one, ClientPrint::of(&"10.0.0.1"));
        let others = (2..100).filter(|number| ClientPrint::of(&format!("10.0.0.{number}")) != one);
        assert!(others.count() > 90);
    }
}
