//! What real registries do differently, each as a registry that imitates one, in front of a whole Cachalot: what the registry and the
//! store of its blobs are asked by whom, and what a container client gets. Ids are those of the catalogue of upstreams.
//!
//! Not shown, for no answer of a registry shows them:
//!
//! * U-7: limits change, so no number of theirs stands anywhere.
//! * U-10: one account for each upstream is all that the configuration can say.
//! * U-21: forms of host names; an upstream's is configured.
//! * U-34: a mirror is configured as a further endpoint, and its 404 is another's turn.
//! * U-38: where a redirect leads depends on who asks; that it is neither kept nor shown is shown for U-8 and U-36.
//! * U-43: the account's name and its exchange of tokens are the cloud's; the rest is shown for U-45.
//! * U-47: how a cloud's credentials are renewed is no answer of a registry.

mod amazon;
mod github;
mod google;
mod hub;
mod kubernetes;
mod microsoft;
mod others;
mod quay;
mod site;

#[test]
fn every_behaviour_of_the_catalogue_is_shown_or_said_not_to_be() {
    let texts = [
        include_str!("quirks.rs"),
        include_str!("quirks/amazon.rs"),
        include_str!("quirks/github.rs"),
        include_str!("quirks/google.rs"),
        include_str!("quirks/hub.rs"),
        include_str!("quirks/kubernetes.rs"),
        include_str!("quirks/microsoft.rs"),
        include_str!("quirks/others.rs"),
        include_str!("quirks/quay.rs"),
    ];
    let is_word_end = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
    let is_cited = |id: &str| texts.iter().any(|text| text.split(id).skip(1).any(is_word_end));
    let missing: Vec<_> = (1..=58).map(|number| format!("U-{number}")).filter(|id| !is_cited(id)).collect();
    assert!(missing.is_empty(), "neither cited nor listed: {missing:?}");
}
