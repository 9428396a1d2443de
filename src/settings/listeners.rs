//! Where clients connect: the plain addresses of `[server]` and every `[[listener]]`, and that all of them can be bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use super::account::{certificates, private_key};
use super::check::Reader;
use super::defaults::LISTEN;
use super::problem::{Place, Problem};
use super::reader::Section;
use super::schema::{ClientAuthorities, Listener, ListenerTls, Server, Settings};
use super::units;
use crate::server::{ServerIdentity, expires_at};

/// Reads every `[[listener]]`, with its place among them, and settles on the plain addresses beside them.
pub(super) fn read(reader: &mut Reader<'_>, server: Server) -> (Server, Vec<(usize, Listener)>) {
    let sections = reader.sections("listener");
    let has_none = sections.is_empty();
    let listeners = sections
        .into_iter()
        .enumerate()
        .filter_map(|(index, values)| Some((index, listener(reader.part(format!("listener[{index}]"), values))?)))
        .collect::<Vec<_>>();
    let place = reader.places.value("server.listen");
    let listen = match (server.listen, has_none, place) {
        (listen, true, Place::Default) if listen.is_empty() => vec![LISTEN],
        (listen, true, place) => {
            // A list of which all elements are wrong has its own problems.
            if listen.is_empty() && !reader.problems.iter().any(|problem| problem.key == "server.listen") {
                let text =
                    format!("is empty; write at least one address, such as [\"{LISTEN}\"], or add a [[listener]]");
                reader.problems.push(Problem { place, key: "server.listen".into(), text });
            }
            listen
        }
        (listen, false, _) => listen,
    };
    (Server { listen, ..server }, listeners)
}

/// Reads one `[[listener]]`; `None` when it has no address that can be used.
fn listener(mut section: Section<'_>) -> Option<Listener> {
    if !section.has("address") {
        section.report_section(
            "has no address; write address = \"…\", an IP address with a port, such as \"0.0.0.0:5443\"".into(),
        );
    }
    let address = section.text("address", units::address);
    let tls = tls(&mut section);
    let identities = section.switch("identities").unwrap_or(true);
    Some(Listener { address: address?, tls, identities })
}

fn tls(section: &mut Section<'_>) -> Option<ListenerTls> {
    report_strays(section);
    let key_place = section.value_place("key");
    let cert = section.text("cert", |path| Ok((PathBuf::from(path), certificates(path)?)));
    let key = section.text("key", |path| Ok((PathBuf::from(path), private_key(path)?)));
    let clients = clients(section);
    let http2 = section.switch("http2").unwrap_or(true);
    let ((cert, chain), (key, der)) = (cert?, key?);
    match ServerIdentity::new(chain, der) {
        Ok(identity) => Some(ListenerTls { cert, key, identity, clients, http2 }),
        Err(error) => {
            let text = format!("{} does not fit {}: {error}", key.display(), cert.display());
            section.report_at(key_place, "key", text);
            None
        }
    }
}

/// Reports keys that mean nothing without others.
fn report_strays(section: &mut Section<'_>) {
    let (has_cert, has_key) = (section.has("cert"), section.has("key"));
    if has_cert && !has_key {
        section.report("cert", "has no key beside it; set key as well".into());
    }
    if has_key && !has_cert {
        section.report("key", "has no certificate beside it; set cert as well".into());
    }
    for key in ["client_ca", "http2"] {
        if section.has(key) && !has_cert && !has_key {
            section.report(key, "means nothing without TLS; set cert and key as well, or take it out".into());
        }
    }
    if section.has("client_certificate") && !section.has("client_ca") {
        section.report(
            "client_certificate",
            "has no authorities beside it; set client_ca, the file of those that sign clients' certificates".into(),
        );
    }
}

fn clients(section: &mut Section<'_>) -> Option<ClientAuthorities> {
    let is_required = section.text("client_certificate", |text| match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(format!("{text:?} is not known; write \"required\" or \"optional\"")),
    });
    let (path, authorities) = section.text("client_ca", |path| Ok((PathBuf::from(path), certificates(path)?)))?;
    Some(ClientAuthorities { path, authorities, is_required: is_required.unwrap_or(true) })
}

/// Finds two listeners that could not both be bound.
pub(super) fn check_addresses(
    reader: &mut Reader<'_>,
    listen: &[SocketAddr],
    listeners: &[(usize, Listener)],
    admin: SocketAddr,
) {
    let plain = listen.iter().enumerate().map(|(index, address)| (*address, "server.listen", index));
    let others = listeners.iter().map(|(index, listener)| (listener.address, "listener.address", *index));
    let all: Vec<(SocketAddr, &str, usize)> = plain.chain(others).collect();
    for (at, (address, key, index)) in all.iter().enumerate() {
        let path = match *key {
            "server.listen" => format!("server.listen[{index}]"),
            _ => format!("listener[{index}].address"),
        };
        let place = reader.places.value(&path);
        if let Some((earlier, ..)) = all.iter().take(at).find(|(earlier, ..)| clash(*earlier, *address)) {
            let text = format!("{address} cannot be listened on beside {earlier}; take one out or change a port");
            reader.problems.push(Problem { place: place.clone(), key: (*key).into(), text });
        }
        if clash(*address, admin) {
            // The blame goes to what somebody wrote.
            let (place, blamed) = match reader.places.value("admin.listen") {
                Place::Default => (place, *key),
                place => (place, "admin.listen"),
            };
            let text = format!("{key} ({address}) and admin.listen ({admin}) are the same; change a port");
            reader.problems.push(Problem { place, key: blamed.into(), text });
        }
    }
}

/// Port 0 is another port every time; an unspecified address takes the port of every address of its family.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && covers
}

/// Returns which certificates of ours, and authorities of clients, are not valid at `now`.
pub(super) fn warnings(settings: &Settings, now: SystemTime) -> Vec<String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let has_expired = |at: Option<i64>| at.filter(|at| u64::try_from(*at).is_ok_and(|at| at <= now));
    let mut warnings = Vec::new();
    for listener in &settings.listeners {
        let Some(tls) = &listener.tls else { continue };
        if let Some(at) = has_expired(tls.identity.expires_at()) {
            let (path, at) = (tls.cert.display(), date(at));
            warnings.push(format!(
                "listener {}: {path} expired on {at}, clients refuse it; put a new certificate in its place",
                listener.address
            ));
        }
        let Some(clients) = &tls.clients else { continue };
        if let Some(at) = has_expired(expires_at(&clients.authorities)) {
            let (path, at) = (clients.path.display(), date(at));
            warnings.push(format!(
                "listener {}: an authority in {path} expired on {at}, its clients are refused; put a new one in its place",
                listener.address
            ));
        }
    }
    warnings
}

fn date(seconds: i64) -> httpdate::HttpDate {
    let seconds = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    httpdate::HttpDate::from(SystemTime::UNIX_EPOCH + seconds)
}
