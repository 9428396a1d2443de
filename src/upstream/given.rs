//! Whether an answer gives a blob to whoever asked, as far as the registry says itself.
//!
//! | the answer | |
//! |---|---|
//! | 200, 206, and 416 for an empty blob | yes |
//! | the same with a page for people (U-71) | a failure |
//! | leads to content elsewhere that is named by the digest | yes: a registry tells only those where it is whom it gives it to |
//! | leads to the same question at another registry, or to anything else | not clear |
//! | anything else | as for every question |
//!
//! What is not clear must be asked for there, without what proves the caller: a front that sends everybody elsewhere, to `https`, to
//! another name or to a page that wants a login, lets nobody in by that.

use http::{HeaderMap, Response, StatusCode, header};
use hyper::body::Incoming;

use super::answer;
use super::error::UpstreamError;
use super::range;
use crate::oci::Digest;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Yes,
    Unclear,
}

/// Reads the answer to a question about `digest`.
pub(super) async fn read(response: Response<Incoming>, digest: &Digest) -> Result<Given, UpstreamError> {
    match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT if is_page(response.headers()) => {
            Err(UpstreamError::Protocol { reason: "a page in the place of a blob".to_owned() })
        }
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Given::Yes),
        // An empty blob has no first byte (RFC 9110 §15.5.17).
        StatusCode::RANGE_NOT_SATISFIABLE if range::unsatisfied_total(response.headers()).is_some() => Ok(Given::Yes),
        _ => match answer::location(&response) {
            Some(location) => Ok(of_location(location, digest)),
            None => Err(answer::refusal(response).await),
        },
    }
}

/// Says what it means to be sent there: to another origin.
fn of_location(location: &str, digest: &Digest) -> Given {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let digest = digest.to_string();
    let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
    let is_named = path.contains(hex);
    let is_question = path.contains("/v2/") && path.rsplit_once("/blobs/").is_some_and(|(_, rest)| !rest.contains('/'));
    if is_named && !is_question { Given::Yes } else { Given::Unclear }
}

fn is_page(headers: &HeaderMap) -> bool {
    answer::text(headers, &header::CONTENT_TYPE).is_some_and(|told| told.to_ascii_lowercase().starts_with("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_a_yes_when_it_names_the_content_and_is_no_question_to_another_registry() {
        let digest = Digest::sha256(b"x");
        let hex = digest.to_string().replace("sha256:", "");
        for (location, expected) in [
            // Docker Hub, GitHub, Quay, and the stores that distribution and Harbor write to.
            ("https://cdn.test/registry-v2/docker/registry/v2/blobs/sha256/2d/{hex}/data?verify=1", Given::Yes),
            ("https://pkg.test/ghcr1/blobs/sha256:{hex}?se=2026&sig=x", Given::Yes),
            ("https://cdn.test/quayio/sha256/2d/{hex}?Expires=1", Given::Yes),
            ("https://bucket.test/docker/registry/v2/blobs/sha256/2d/{hex}/data?X-Amz-Signature=x", Given::Yes),
            // Amazon and Google name it otherwise.
            ("https://bucket.test/6f3c-layer/0c1d?X-Amz-Signature=x", Given::Unclear),
            ("https://a.test/artifacts-downloads/namespaces/x/downloads/AB12", Given::Unclear),
            // Fronts that send everybody elsewhere.
            ("https://a.test/v2/app/blobs/sha256:{hex}", Given::Unclear),
            ("https://b.test/v2/mirror/app/blobs/sha256%3A{hex}", Given::Unclear),
            ("https://sso.test/login?rd=https://a.test/v2/app/blobs/sha256:{hex}", Given::Unclear),
            ("https://sso.test/login#/v2/app/blobs/{hex}", Given::Unclear),
        ] {
            assert_eq!(of_location(&location.replace("{hex}", &hex), &digest), expected, "{location}");
        }
    }
}
