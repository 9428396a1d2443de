//! A range of addresses as operators write it: `10.0.0.0/8`, `fd00::/8`, or one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Leading bits that an address of the range has in common with it.
    bits: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("is no IP address, nor one with a prefix length such as 10.0.0.0/8")]
    Address,
    #[error("has a prefix length that its address does not have room for")]
    Bits,
}

impl Network {
    /// Returns true when `address` is in the range; an IPv4 address mapped into IPv6 is what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => agree(own.to_bits().into(), other.to_bits().into(), 32, self.bits),
            (IpAddr::V6(own), IpAddr::V6(other)) => agree(own.to_bits(), other.to_bits(), 128, self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn agree(one: u128, other: u128, width: u32, bits: u8) -> bool {
    // A shift by the whole width is no shift: no bit is compared then.
    (one ^ other).checked_shr(width.saturating_sub(bits.into())).is_none_or(|rest| rest == 0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(NetworkError::Bits)?,
        };
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_agrees_with_its_prefix() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..], &["11.0.0.0", "::a00:0"][..]),
            ("192.168.1.128/25", &["192.168.1.200"], &["192.168.1.127"]),
            ("10.0.0.7", &["10.0.0.7"], &["10.0.0.8"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1"]),
            ("fd00::/8", &["fdff::1"], &["fc00::1", "10.0.0.1"]),
            ("::/0", &["::1", "2606::1"], &["1.2.3.4"]),
            ("::1", &["::1"], &["::2"]),
        ] {
            let network: Network = range.parse().expect("a range");
            for address in inside {
                assert!(network.contains(address.parse().expect("an address")), "{range} holds {address}");
            }
            for address in outside {
                assert!(!network.contains(address.parse().expect("an address")), "{range} does not hold {address}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (text, expected) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("10.0.0/8", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Bits),
            ("10.0.0.0/", NetworkError::Bits),
            ("10.0.0.0/-1", NetworkError::Bits),
            ("::/129", NetworkError::Bits),
        ] {
            assert_eq!(text.parse::<Network>(), Err(expected), "{text}");
        }
    }
}
