//! The one place that says which addresses may be dialled: for an upstream, where it redirects to, and its token service (S-25).
//!
//! A registry, or whoever answers for its name, could otherwise have us ask the machine's own services or the cloud's metadata for it.
//!
//! | address | upstream | `internal` upstream |
//! |---|---|---|
//! | public | yes | yes |
//! | loopback, private, shared, benchmark, unique local | no | yes |
//! | link-local, and the metadata services of clouds wherever they are | no | no |
//! | unspecified, multicast, broadcast, reserved, documentation | no | no |
//!
//! An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) is what it carries. A name is looked up once; the addresses are
//! checked, and those that were checked are dialled: there is no second look-up that could say something else. What goes through a proxy
//! is looked up by the proxy: only hosts that are addresses themselves, and `localhost`, can be checked then.
//!
//! Source: RFC 6890 and the IANA special-purpose address registries; RFC 6052, RFC 3056.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;
use url::Host;

/// The metadata services of AWS and Google by IPv6, which stand among unique local addresses.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The metadata services that are not link-local: Alibaba's, Oracle's, and Azure's wire server, which stands among public addresses.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Where one upstream may lead us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Egress {
    /// Also to private addresses and to this machine.
    pub(super) is_internal: bool,
}

/// Why a host is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Forbidden {
    pub(super) reason: String,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name cannot be looked up")]
pub(super) struct LookupError(#[source] pub(super) io::Error);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    /// What an internal upstream may use.
    Internal(&'static str),
    /// What nobody may.
    Never(&'static str),
}

impl Egress {
    /// Checks a host before it is looked up, or handed to a proxy.
    pub(super) fn check_host(self, host: &str) -> Result<(), Forbidden> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => self.check(address, host),
            Err(_) if is_localhost(bare) => self.judge(Reach::Internal("this machine"), host),
            Err(_) => Ok(()),
        }
    }

    fn check(self, address: IpAddr, host: &str) -> Result<(), Forbidden> {
        let is_itself = host.trim_matches(['[', ']']) == address.to_string();
        let subject = if is_itself { host.to_owned() } else { format!("{host} is {address}, which") };
        self.judge(reach(address), &subject)
    }

    fn judge(self, reach: Reach, subject: &str) -> Result<(), Forbidden> {
        match reach {
            Reach::Public => Ok(()),
            Reach::Internal(_) if self.is_internal => Ok(()),
            Reach::Internal(what) => Err(Forbidden {
                reason: format!("{subject} is {what}; set internal = true for this upstream if it may lead there"),
            }),
            Reach::Never(what) => Err(Forbidden { reason: format!("{subject} is {what}, where no registry is") }),
        }
    }
}

/// Returns true for a host that no public registry has: an address that is not public, `localhost`, a single label, or a name under a
/// suffix that is not registered.
pub fn is_plainly_internal(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => matches!(reach(IpAddr::V4(*address)), Reach::Internal(_)),
        Host::Ipv6(address) => matches!(reach(IpAddr::V6(*address)), Reach::Internal(_)),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            !name.contains('.') || !psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known())
        }
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => carried(address).map_or_else(|| reach_v6(address), reach_v4),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        _ if METADATA_V4.contains(&address) => Reach::Never("the metadata service"),
        [0, ..] => Reach::Never("unspecified"),
        [127, ..] => Reach::Internal("this machine"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reach::Internal("a private address"),
        [100, 64..=127, ..] => Reach::Internal("a shared address"),
        [169, 254, ..] => Reach::Never("link-local"),
        [192, 0, 0, _] | [198, 18 | 19, ..] => Reach::Internal("a special-purpose address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Never("for documentation"),
        [224..=239, ..] => Reach::Never("multicast"),
        [240..=255, ..] => Reach::Never("reserved"),
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    match address.segments() {
        _ if address.is_unspecified() => Reach::Never("unspecified"),
        _ if address.is_loopback() => Reach::Internal("this machine"),
        _ if METADATA_V6.contains(&address) => Reach::Never("the metadata service"),
        [0xfc00..=0xfdff, ..] => Reach::Internal("a unique local address"),
        [0xfe80..=0xfebf, ..] => Reach::Never("link-local"),
        [0xfec0..=0xfeff, ..] => Reach::Internal("a site-local address"),
        [0xff00..=0xffff, ..] => Reach::Never("multicast"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Never("for documentation"),
        // Teredo, and NAT64 prefixes of a network's own: what is behind them depends on the network.
        [0x2001, 0, ..] => Reach::Never("a tunnel"),
        [0x64, 0xff9b, 1, ..] => Reach::Internal("a translated address"),
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Never("reserved"),
    }
}

/// Returns the IPv4 address that an IPv6 address stands for.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        // Mapped, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, .., high, low] | [0x2002, high, low, ..] => {
            Some(bits(high, low))
        }
        // The deprecated compatible ones; ::1 and :: are what they are.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(bits(high, low)),
        _ => None,
    }
}

/// Looks names up and gives out only addresses that may be dialled.
#[derive(Debug, Clone)]
pub(super) struct Resolver<R = GaiResolver> {
    inner: R,
    egress: Egress,
}

impl Resolver {
    pub(super) fn new(egress: Egress) -> Self {
        Self { inner: GaiResolver::new(), egress }
    }
}

impl<R> Service<Name> for Resolver<R>
where
    R: Service<Name, Error = io::Error>,
    R::Response: Iterator<Item = SocketAddr>,
    R::Future: Send + 'static,
{
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(|error| LookupError(error).into())
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (egress, host) = (self.egress, name.as_str().to_owned());
        let found = self.inner.call(name);
        Box::pin(async move {
            let (mut allowed, mut forbidden) = (Vec::new(), None);
            for address in found.await.map_err(LookupError)? {
                match egress.check(address.ip(), &host) {
                    Ok(()) => allowed.push(address),
                    Err(why) => forbidden = Some(why),
                }
            }
            match forbidden {
                Some(why) if allowed.is_empty() => Err(why.into()),
                _ => Ok(allowed.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
