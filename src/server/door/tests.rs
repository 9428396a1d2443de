//! Doors, what is shown at them, and who comes in.

use std::sync::Arc;

use http::Request;

use super::super::listener::ListenerRules;
use super::super::tls::ClientCertificate;
use super::*;
use crate::identity::{CertificateName, Htpasswd, IdentityOptions, Lasting, Tokens};
use crate::oci::{Entry, Table, route};
use crate::tasks::TaskGroup;
use crate::telemetry::Metrics;

const CI: &str = "0123456789abcdef";

fn entry(name: &str, push: bool) -> Entry {
    Entry {
        name: name.parse().unwrap(),
        aliases: Vec::new(),
        hosts: Vec::new(),
        library: false,
        push,
        allow: Vec::new(),
        deny: Vec::new(),
    }
}

fn directory() -> Directory {
    let entries = vec![entry("reads.test", false), entry("writes.test", true)];
    Directory::new(Table::new(entries, None).unwrap(), [])
}

fn options() -> IdentityOptions {
    IdentityOptions {
        htpasswd: None,
        tokens: None,
        token_keys: None,
        service_accounts: None,
        certificates: None,
        anonymous: false,
        token_life: Duration::from_mins(5),
        rules: Vec::new(),
    }
}

fn door(options: IdentityOptions) -> Door {
    let lasting = Lasting::new(Arc::new(Metrics::new(&[], 0).unwrap()), TaskGroup::new());
    Door::new(Identities::new(options, Arc::new(lasting)).unwrap(), None)
}

fn peer(certificate: Option<ClientCertificate>) -> Peer {
    Peer { address: ([192, 0, 2, 1], 1).into(), certificate, rules: Arc::default() }
}

fn certificate() -> ClientCertificate {
    ClientCertificate {
        common_name: Some("node-1".to_owned()),
        dns_name: Some("node-1.example".to_owned()),
        uri: Some("spiffe://cluster/node-1".to_owned()),
    }
}

/// Returns who comes in, with what is shown to the upstream, or the status of the refusal.
async fn at(door: &Door, peer: &Peer, method: Method, path: &str, shown: Option<&str>) -> String {
    let mut request = Request::builder().method(method.clone()).uri(path);
    if let Some(shown) = shown {
        request = request.header(AUTHORIZATION, shown);
    }
    let (request, ()) = request.body(()).unwrap().into_parts();
    let directory = directory();
    let asked = route(&directory.table, &method, path, None);
    let visit = Visit { door, directory: &directory, peer, client: peer.address.ip(), request: &request };
    match visit.admit(&asked).await {
        Ok(Admitted { principal, authorization: None }) => principal.to_string(),
        Ok(Admitted { principal, authorization: Some(shown) }) => format!("{principal} {}", shown.to_str().unwrap()),
        Err(problem) => problem.status.as_u16().to_string(),
    }
}

const READ: &str = "/v2/reads.test/a/manifests/1";
const WRITE: &str = "/v2/writes.test/a/blobs/uploads/";

#[tokio::test]
async fn a_certificate_is_who_it_names_if_that_counts_and_a_credential_goes_before_it() {
    let tokens = Some(Tokens::parse(&format!("ci:{CI}")).unwrap());
    for (kind, name) in [
        (Some(CertificateName::CommonName), "cert:node-1"),
        (Some(CertificateName::Dns), "cert:node-1.example"),
        (Some(CertificateName::Uri), "cert:spiffe://cluster/node-1"),
        (None, "401"),
    ] {
        let door = door(IdentityOptions { certificates: kind, tokens: tokens.clone(), ..options() });
        let ask = async |peer: &Peer, shown| at(&door, peer, Method::GET, READ, shown).await;
        let known = peer(Some(certificate()));
        assert_eq!(ask(&known, None).await, name);
        assert_eq!(ask(&known, Some("Bearer 0123456789abcdef")).await, "token:ci");
        assert_eq!(ask(&known, Some("Bearer wrong")).await, "401", "what is wrong is not forgiven for it");
        assert_eq!(ask(&peer(None), None).await, "401");
        assert_eq!(ask(&peer(Some(ClientCertificate::default())), None).await, "401", "it has no name");
    }
}

#[tokio::test]
async fn who_is_known_by_a_certificate_may_show_an_upstream_a_credential_besides() {
    let door = door(IdentityOptions { certificates: Some(CertificateName::CommonName), ..options() });
    let (known, theirs) = (peer(Some(certificate())), Some("Basic bWU6dGhlaXJz"));
    let ask = async |peer: &Peer, method, path, shown| at(&door, peer, method, path, shown).await;
    assert_eq!(ask(&known, Method::POST, WRITE, theirs).await, "cert:node-1 Basic bWU6dGhlaXJz");
    assert_eq!(ask(&known, Method::POST, WRITE, None).await, "cert:node-1");
    assert_eq!(ask(&known, Method::GET, READ, theirs).await, "401", "there it counts for nothing");
    assert_eq!(ask(&peer(None), Method::POST, WRITE, theirs).await, "anonymous Basic bWU6dGhlaXJz");
    assert_eq!(ask(&peer(None), Method::POST, WRITE, None).await, "401");
    assert_eq!(ask(&peer(None), Method::GET, "/v2/writes.test/a/manifests/1", theirs).await, "401");
}

#[tokio::test]
async fn a_door_that_asks_nobody_keeps_what_is_ours_all_the_same() {
    let file = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae";
    let htpasswd = Some(Htpasswd::parse(file).unwrap());
    let tokens = Some(Tokens::parse(&format!("ci:{CI}")).unwrap());
    let strict = door(IdentityOptions { htpasswd, tokens, ..options() });
    let open = door(IdentityOptions { anonymous: true, ..options() });
    let rules = Arc::new(ListenerRules::new(false, None));
    let nobody_asked = Peer { rules, ..peer(None) };
    for (shown, told) in [
        (None, "anonymous"),
        (Some("Basic bWU6dGhlaXJz"), "anonymous Basic bWU6dGhlaXJz"),
        (Some("Bearer theirs"), "anonymous Bearer theirs"),
        (Some("Basic YWxpY2U6c2VjcmV0"), "user:alice"),
        (Some("Basic YWxpY2U6d3Jvbmc="), "anonymous"),
        (Some("Bearer 0123456789abcdef"), "token:ci"),
        (Some("Negotiate x"), "anonymous"),
    ] {
        assert_eq!(at(&strict, &nobody_asked, Method::POST, WRITE, shown).await, told, "{shown:?}");
        let read = at(&strict, &nobody_asked, Method::GET, READ, shown).await;
        assert_eq!(read, "anonymous", "nothing is looked at: {shown:?}");
    }
    // Where nobody is known, nothing is ours.
    let shown = Some("Basic YWxpY2U6c2VjcmV0");
    assert_eq!(at(&open, &peer(None), Method::POST, WRITE, shown).await, "anonymous Basic YWxpY2U6c2VjcmV0");
    assert_eq!(at(&open, &peer(None), Method::GET, READ, shown).await, "anonymous");
}
