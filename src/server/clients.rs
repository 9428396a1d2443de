//! Who a client is, and how often it may ask.
//!
//! A client is its address; behind proxies that the operator trusts, the address that they tell. Of IPv6 a /64 is one client: whoever has
//! one address there has them all.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::headers::lines;
use crate::identity::Turns;
use crate::wire::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What is decided about clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// Requests a second of one client; `None` is no limit.
    pub rate: Option<NonZeroU32>,
    /// Requests at once after a pause.
    pub burst: Option<NonZeroU32>,
    /// Connections of one client at once.
    pub connections: u32,
    /// Proxies whose word on the client's address counts.
    pub trusted_proxies: Vec<Network>,
}

/// The clients, as far as something must be known of them.
#[derive(Debug)]
pub struct Clients {
    trusted_proxies: Vec<Network>,
    turns: Option<Turns<IpAddr>>,
    connections: u32,
}

impl Clients {
    pub fn new(options: &ClientOptions) -> Self {
        let turns = options.rate.map(|rate| Turns::new(rate, options.burst));
        Self { trusted_proxies: options.trusted_proxies.clone(), turns, connections: options.connections }
    }

    /// Returns who counts as one client at `peer`, and how many connections it may have; `None` for a proxy, behind which are many.
    pub(super) fn connections_of(&self, peer: SocketAddr) -> Option<(IpAddr, u32)> {
        let client = peer.ip().to_canonical();
        (!self.is_trusted(client)).then(|| (key(client), self.connections))
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Returns the client's address: the peer's, or what trusted proxies say in `X-Forwarded-For`, read from its end.
    pub(super) fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.ip().to_canonical();
        let told: Vec<&str> = lines(headers, &FORWARDED_FOR).flat_map(|line| line.split(',')).collect();
        for told in told.into_iter().rev() {
            if !self.is_trusted(client) {
                break;
            }
            let Some(address) = parse(told.trim()) else { break };
            client = address;
        }
        client
    }

    /// Waits for the client's turn.
    ///
    /// # Errors
    /// How long it should wait, when that is too long to keep it here.
    pub(super) async fn turn(&self, client: IpAddr) -> Result<(), Duration> {
        match &self.turns {
            Some(turns) => turns.turn(&key(client)).await,
            None => Ok(()),
        }
    }

    /// Forgets clients that may ask freely again.
    pub fn forget_idle(&self) {
        self.turns.iter().for_each(Turns::forget_idle);
    }
}

/// Reads an address, perhaps with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// Returns whom an address stands for.
pub(super) fn key(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(rate: Option<u32>, trusted: &[&str]) -> Clients {
        Clients::new(&ClientOptions {
            rate: rate.and_then(NonZeroU32::new),
            burst: None,
            connections: 7,
            trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect(),
        })
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_are() {
        let clients = clients(None, &["10.0.0.0/8", "fd00::/8"]);
        for (peer, forwarded, expected) in [
            ("10.0.0.1:1", &["203.0.113.7"][..], "203.0.113.7"),
            ("10.0.0.1:1", &["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1:1", &["1.1.1.1", "203.0.113.7:4711"], "203.0.113.7"),
            ("[::ffff:10.0.0.1]:1", &["[2606::7]:80"], "2606::7"),
            ("[fd00::1]:1", &["2606::7"], "2606::7"),
            ("10.0.0.1:1", &["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
            ("10.0.0.1:1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1:1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1:1", &[], "10.0.0.1"),
            ("192.168.0.1:1", &["203.0.113.7"], "192.168.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let address = clients.address(peer.parse().unwrap(), &headers);
            assert_eq!(address.to_string(), expected, "P-118: {peer} {forwarded:?}");
        }
    }

    #[test]
    fn connections_are_counted_by_address_of_ipv6_by_64_bits_and_those_of_proxies_are_not() {
        let clients = clients(None, &["10.0.0.0/8"]);
        for (peer, expected) in [
            ("10.0.0.1:1", None),
            ("192.168.0.1:1", Some("192.168.0.1")),
            ("[::ffff:192.168.0.1]:1", Some("192.168.0.1")),
            ("[2606:0:0:1:2:3:4:5]:1", Some("2606:0:0:1::")),
        ] {
            let expected = expected.map(|client| (client.parse().unwrap(), 7));
            assert_eq!(clients.connections_of(peer.parse().unwrap()), expected, "S-37: {peer}");
        }
    }

    #[tokio::test]
    async fn each_client_has_its_own_turns() {
        let clients = clients(Some(1), &[]);
        let mut waits = Vec::new();
        for client in ["10.0.0.1", "10.0.0.2", "2606::1", "2606:0:0:1::1"] {
            waits.push(clients.turn(client.parse().unwrap()).await);
        }
        assert_eq!(waits, [Ok(()); 4], "S-37");
        let turns = futures_util::future::join_all((0..9).map(|_| clients.turn("2606::2".parse().unwrap()))).await;
        assert!(turns.iter().any(Result::is_ok) && turns.iter().any(Result::is_err), "a /64 is one client: {turns:?}");
        clients.forget_idle();
        assert!(clients.turn("10.0.0.3".parse().unwrap()).await.is_ok());
    }
}
