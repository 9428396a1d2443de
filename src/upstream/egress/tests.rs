//! Addresses and names, and whether each may be dialled.

use std::str::FromStr;

use super::*;

const PUBLIC: Egress = Egress { is_internal: false };
const INTERNAL: Egress = Egress { is_internal: true };

#[test]
fn every_kind_of_address_has_its_verdict() {
    // The address; whether a public upstream may lead there, and whether an internal one may.
    for (address, public, internal) in [
        ("93.184.216.34", true, true),
        ("8.8.8.8", true, true),
        ("172.15.255.255", true, true),
        ("172.32.0.1", true, true),
        ("100.63.255.255", true, true),
        ("100.128.0.1", true, true),
        ("192.167.1.1", true, true),
        ("127.0.0.1", false, true),
        ("127.255.255.254", false, true),
        ("10.0.0.1", false, true),
        ("172.16.0.1", false, true),
        ("172.31.255.255", false, true),
        ("192.168.1.1", false, true),
        ("100.64.0.1", false, true),
        ("198.18.0.1", false, true),
        ("169.254.169.254", false, false),
        ("169.254.0.1", false, false),
        ("0.0.0.0", false, false),
        ("0.1.2.3", false, false),
        ("224.0.0.1", false, false),
        ("255.255.255.255", false, false),
        ("192.0.2.1", false, false),
        ("2606:4700::1111", true, true),
        ("::1", false, true),
        ("fd12:3456::1", false, true),
        ("fd00:ec2::254", false, false),
        ("fd20:ce::254", false, false),
        ("100.100.100.200", false, false),
        ("192.0.0.192", false, false),
        ("168.63.129.16", false, false),
        ("168.63.129.17", true, true),
        ("::ffff:168.63.129.16", false, false),
        ("fe80::1", false, false),
        ("::", false, false),
        ("ff02::1", false, false),
        ("2001:db8::1", false, false),
        ("100::1", false, false),
        ("::ffff:93.184.216.34", true, true),
        ("::ffff:127.0.0.1", false, true),
        ("::ffff:169.254.169.254", false, false),
        ("::10.0.0.1", false, true),
        ("64:ff9b::10.0.0.1", false, true),
        ("64:ff9b::169.254.169.254", false, false),
        ("64:ff9b::8.8.8.8", true, true),
        ("64:ff9b:1:7f00:1::", false, true),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", false, false),
        ("2002:7f00:1::", false, true),
        ("2002:a9fe:a9fe::", false, false),
    ] {
        for host in [address.to_owned(), format!("[{address}]")] {
            assert_eq!(PUBLIC.check_host(&host).is_ok(), public, "S-25: {host}, a public upstream");
            assert_eq!(INTERNAL.check_host(&host).is_ok(), internal, "S-25: {host}, an internal upstream");
        }
    }
}

#[test]
fn names_of_this_machine_are_known_before_they_are_looked_up() {
    for (host, public) in
        [("localhost", false), ("a.LOCALHOST.", false), ("localhost.example.com", true), ("ghcr.io", true)]
    {
        assert_eq!(PUBLIC.check_host(host).is_ok(), public, "{host}");
        assert!(INTERNAL.check_host(host).is_ok());
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let refusal =
        |egress: Egress, address: &str, host| egress.check(address.parse().unwrap(), host).unwrap_err().reason;
    assert_eq!(
        refusal(PUBLIC, "10.0.0.7", "registry.example.com"),
        "registry.example.com is 10.0.0.7, which is a private address; set internal = true for this upstream if it may lead there"
    );
    assert_eq!(
        refusal(INTERNAL, "169.254.169.254", "169.254.169.254"),
        "169.254.169.254 is link-local, where no registry is"
    );
}

#[test]
fn an_upstream_that_cannot_be_public_is_internal_unasked() {
    for (url, expected) in [
        ("https://registry-1.docker.io", false),
        ("https://harbor.company.co.uk", false),
        ("https://8.8.8.8", false),
        ("http://127.0.0.1:5000", true),
        ("http://2130706433:5000", true),
        ("http://[::1]:5000", true),
        ("http://localhost:5000", true),
        ("http://registry:5000", true),
        ("http://registry.infra.svc.cluster.local", true),
        ("https://harbor.corp", true),
        ("http://169.254.169.254", false),
    ] {
        let url = url::Url::parse(url).unwrap();
        assert_eq!(is_plainly_internal(&url.host().unwrap()), expected, "{url}");
    }
}

/// A name server that says something else each time, or many things at once.
#[derive(Clone)]
struct Scripted(std::sync::Arc<std::sync::Mutex<std::collections::VecDeque<Vec<&'static str>>>>);

impl Service<Name> for Scripted {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let answer = self.0.lock().unwrap().pop_front();
        let answer =
            answer.map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>().into_iter());
        std::future::ready(answer.ok_or_else(|| io::Error::other("no such name")))
    }
}

#[tokio::test]
async fn only_addresses_that_were_checked_are_given_out_whatever_a_name_server_says_next() {
    let answers = [vec!["8.8.8.8:0"], vec!["127.0.0.1:0"], vec!["169.254.169.254:0", "8.8.8.8:0", "[::1]:0"], vec![]];
    let scripted = Scripted(std::sync::Arc::new(std::sync::Mutex::new(answers.into())));
    let mut resolver = Resolver { inner: scripted, egress: PUBLIC };
    let mut told = Vec::new();
    for _ in 0..5 {
        let answer = resolver.call(Name::from_str("rebind.example.com").unwrap()).await;
        told.push(match answer {
            Ok(addresses) => addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        });
    }
    let refused = "rebind.example.com is 127.0.0.1, which is this machine; set internal = true for this upstream if it may lead there";
    assert_eq!(told, ["8.8.8.8:0", refused, "8.8.8.8:0", "", "the name cannot be looked up"], "S-25");
}
