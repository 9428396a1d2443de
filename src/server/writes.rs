//! Writes on the wire (P-148…P-162): uploads of blobs, manifests, deletes. There are none where the upstream takes none.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde::de::IgnoredAny;
use tokio::time::timeout;
use url::form_urlencoded;

use super::access_log::{Exchange, RequestId};
use super::admission;
use super::body::Body;
use super::headers::text;
use super::inbox::{Letter, Unreceived};
use super::limits::HEADER_BUDGET;
use super::respond::{Asked, Problem};
use super::routed::Routed;
use crate::cache::{self, Begin, Begun, Chunk, MANIFEST_BYTES_MAX, ManifestPush, PushError, UploadStatus, Writer};
use crate::oci::{Digest, DigestError, Endpoint, ErrorCode, Reference, Refusal, Tag, error_body, mount_source};
use crate::telemetry::{Kind, Shed};
use crate::upstream::Written;
use crate::wire::names::{CHUNK_MIN_LENGTH, CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG};
use crate::wire::{Outcome, chunk_range};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Tags that one manifest is given at once at the most: each may cost a request of its own (P-160).
const TAGS_MAX: usize = 32;

/// Returns true for what is answered here. None of it is held to the header budget: a body takes as long as it moves.
pub(super) fn is_write(method: &Method, endpoint: &Endpoint) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) || matches!(endpoint, Endpoint::Uploads | Endpoint::Upload(_))
}

/// Answers a write.
pub(super) async fn answer(
    routed: &Routed<'_>,
    body: Incoming,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Problem> {
    let question = routed.question;
    let writer = Writer {
        upstream: admission::as_writer(routed)?,
        repository: question.repository.clone(),
        authorization: routed.authorization.cloned(),
    };
    let (kind, asked) = match &question.endpoint {
        Endpoint::Manifest(Reference::Tag(_)) => (Kind::ManifestTag, Asked::Manifest),
        Endpoint::Manifest(Reference::Digest(_)) => (Kind::ManifestDigest, Asked::Manifest),
        _ => (Kind::Blob, Asked::Blob),
    };
    let write = Writing { routed, writer };
    let answered = write.answer(body).await;
    exchange.answered(kind, if answered.is_ok() { Outcome::Bypass } else { Outcome::Error });
    match answered {
        Ok(response) => Ok(response),
        Err(Unwritten::Problem(problem)) => Err(problem),
        Err(Unwritten::Push(PushError::Refused(written))) => Ok(refused(routed, &written)),
        Err(Unwritten::Push(PushError::OutOfOrder { offset })) => Ok(write.out_of_order(offset, exchange.request_id)),
        Err(Unwritten::Push(error)) => Err(problem(routed, &error, asked)),
    }
}

/// A write that is being answered.
struct Writing<'a> {
    routed: &'a Routed<'a>,
    writer: Writer,
}

enum Unwritten {
    Problem(Problem),
    Push(PushError),
}

impl From<Problem> for Unwritten {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<PushError> for Unwritten {
    fn from(error: PushError) -> Self {
        Self::Push(error)
    }
}

impl Writing<'_> {
    async fn answer(&self, body: Incoming) -> Result<Response<Body>, Unwritten> {
        let cache = &self.routed.server.cache;
        let writer = &self.writer;
        match (&self.routed.question.endpoint, &self.routed.request.method) {
            (Endpoint::Uploads, _) => match cache.begin_upload(writer, self.begin().await?, chunks(body)).await? {
                Begun::Done(digest) => Ok(self.created("blobs", &digest)),
                Begun::Open(status) => Ok(self.under_way(&status, StatusCode::ACCEPTED)),
            },
            (Endpoint::Upload(id), &Method::PATCH) => {
                let status = cache.append(writer, id, self.chunk(body)?).await?;
                Ok(self.under_way(&status, StatusCode::ACCEPTED))
            }
            (Endpoint::Upload(id), &Method::PUT) => {
                let digest = self.digest()?.ok_or_else(missing_digest)?;
                cache.finish_upload(writer, id, &digest, self.chunk(body)?).await?;
                Ok(self.created("blobs", &digest))
            }
            (Endpoint::Upload(id), &Method::DELETE) => {
                cache.cancel_upload(writer, id).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Endpoint::Upload(id), _) => Ok(self.under_way(&cache.upload_status(writer, id)?, StatusCode::NO_CONTENT)),
            (Endpoint::Manifest(reference), &Method::PUT) => self.push_manifest(reference, body).await,
            (Endpoint::Manifest(reference), _) => {
                cache.delete_manifest(writer, reference).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
            (Endpoint::Blob(digest), _) => {
                cache.delete_blob(writer, digest).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
            (Endpoint::Tags | Endpoint::Referrers(_), _) => Err(Problem::of_refusal(&Refusal::MethodNotAllowed).into()),
        }
    }

    async fn push_manifest(&self, reference: &Reference, body: Incoming) -> Result<Response<Body>, Unwritten> {
        let tags = self.tags()?;
        let content_type = self.routed.request.headers.get(CONTENT_TYPE).cloned();
        let letter = self.whole(body).await?;
        let push = ManifestPush { reference: reference.clone(), content_type, bytes: letter.bytes.clone(), tags };
        let pushed = self.routed.server.cache.push_manifest(&self.writer, push).await?;
        let mut response = self.created("manifests", &pushed.digest);
        if let Some(subject) = pushed.subject {
            response.headers_mut().insert(OCI_SUBJECT, text(&subject.to_string()));
        }
        for tag in pushed.tags {
            response.headers_mut().append(OCI_TAG, text(tag.as_str()));
        }
        Ok(response)
    }

    /// Reads a manifest whole; one that no client would pull is refused (P-156), and one that there is no room for is to come again.
    async fn whole(&self, body: Incoming) -> Result<Letter, Problem> {
        let Routed { server, client, .. } = *self.routed;
        match timeout(HEADER_BUDGET, server.inbox.receive(body, client)).await {
            Ok(Ok(letter)) => Ok(letter),
            Ok(Err(Unreceived::TooLarge)) => {
                let message = format!("a manifest has {MANIFEST_BYTES_MAX} bytes at the most");
                Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message))
            }
            Ok(Err(Unreceived::Full)) => {
                server.metrics.http().shed(Shed::Overload);
                Err(Problem::too_many_manifests())
            }
            Ok(Err(Unreceived::BrokenOff)) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, "the body broke off"))
            }
            Err(_elapsed) => {
                let message = format!("the manifest did not come within {HEADER_BUDGET:?}");
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::ManifestInvalid, message))
            }
        }
    }

    fn tags(&self) -> Result<Vec<Tag>, Problem> {
        let mut tags: Vec<Tag> = Vec::new();
        for text in self.routed.question.parameters("tag") {
            let tag = text.parse::<Tag>().map_err(|error| bad_tags(&error.to_string()))?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if tags.len() > TAGS_MAX { Err(bad_tags(&format!("more than {TAGS_MAX} tags at once"))) } else { Ok(tags) }
    }

    async fn begin(&self) -> Result<Begin, Problem> {
        let question = self.routed.question;
        let mount = question.parameters("mount").first().and_then(|digest| digest.parse().ok());
        let named = question.parameters("from");
        let from = named.first().and_then(|from| mount_source(&self.routed.directory.table, &question.upstream, from));
        // What is not of this upstream cannot be mounted, and so is uploaded (P-154).
        let is_elsewhere = !named.is_empty() && from.is_none();
        let mut begin = Begin { digest: self.digest()?, mount: mount.filter(|_| !is_elsewhere), from };
        // What the caller may not read cannot be mounted either, and so is uploaded (S-4).
        if let (Some(digest), Some(from)) = (begin.mount, &begin.from)
            && !admission::may_mount(self.routed, from, &digest).await
        {
            (begin.mount, begin.from) = (None, None);
        }
        Ok(begin)
    }

    fn digest(&self) -> Result<Option<Digest>, Problem> {
        let parameters = self.routed.question.parameters("digest");
        let Some(text) = parameters.first() else { return Ok(None) };
        text.parse().map(Some).map_err(|error: DigestError| {
            Problem::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, error.to_string())
        })
    }

    fn chunk(&self, body: Incoming) -> Result<Chunk, Problem> {
        let range = match self.routed.request.headers.get(CONTENT_RANGE) {
            None => None,
            Some(value) => Some(value.to_str().ok().and_then(chunk_range::parse).ok_or_else(|| {
                let message = "Content-Range of a chunk is its first and its last byte: 0-1023";
                Problem::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, message)
            })?),
        };
        Ok(Chunk { range, body: chunks(body) })
    }

    fn under_way(&self, status: &UploadStatus, code: StatusCode) -> Response<Body> {
        let mut response = empty(code);
        let headers = response.headers_mut();
        headers.insert(LOCATION, text(&self.location("blobs/uploads", &status.id)));
        headers.insert(RANGE, text(&chunk_range::taken(status.offset)));
        headers.insert(UPLOAD_UUID, text(&status.id));
        headers.extend(status.chunk_min.clone().map(|min| (CHUNK_MIN_LENGTH, min)));
        response
    }

    fn created(&self, kind: &str, digest: &Digest) -> Response<Body> {
        let mut response = empty(StatusCode::CREATED);
        response.headers_mut().insert(LOCATION, text(&self.location(kind, &digest.to_string())));
        response.headers_mut().insert(CONTENT_DIGEST, text(&digest.to_string()));
        response
    }

    /// Returns where something of the repository is, in the shape of the request.
    fn location(&self, kind: &str, name: &str) -> String {
        let repository = self.routed.repository_path();
        match &self.routed.question.namespace {
            Some(namespace) => {
                let namespace: String = form_urlencoded::byte_serialize(namespace.as_bytes()).collect();
                format!("{repository}/{kind}/{name}?ns={namespace}")
            }
            None => format!("{repository}/{kind}/{name}"),
        }
    }

    /// P-151: tells where the upload stands.
    fn out_of_order(&self, offset: u64, request_id: RequestId) -> Response<Body> {
        let message = format!("the next byte of this upload is byte {offset}");
        let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message);
        let mut response = problem.into_response(request_id, false);
        response.headers_mut().insert(RANGE, text(&chunk_range::taken(offset)));
        if let Endpoint::Upload(id) = &self.routed.question.endpoint {
            response.headers_mut().insert(LOCATION, text(&self.location("blobs/uploads", id)));
        }
        response
    }
}

/// Returns the problem that a failed write is.
fn problem(routed: &Routed<'_>, error: &PushError, asked: Asked) -> Problem {
    let message = error.to_string();
    match error {
        PushError::Failed(error) => routed.failure(error, asked),
        PushError::UnknownUpload => Problem::new(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown, message),
        PushError::WrongLength { .. } => Problem::new(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid, message),
        PushError::WrongDigest { .. } => Problem::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, message),
        PushError::OutOfOrder { .. } | PushError::Refused(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, message)
        }
    }
}

/// Tells what the upstream said, in its words, with what the caller needs to ask again. Where we give tokens, that is ours: one of the
/// upstream's own would be taken for one of ours here (P-176).
fn refused(routed: &Routed<'_>, written: &Written) -> Response<Body> {
    let is_json = serde_json::from_slice::<IgnoredAny>(&written.body).is_ok();
    let body = if is_json { written.body.clone() } else { said_nothing(written.status) };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    for value in written.headers.get_all(RETRY_AFTER) {
        headers.append(RETRY_AFTER, value.clone());
    }
    let ours = routed.visit.challenge().filter(|_| written.status == StatusCode::UNAUTHORIZED);
    match ours {
        Some(challenge) => {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        None => {
            headers.extend(
                written.headers.get_all(WWW_AUTHENTICATE).iter().map(|value| (WWW_AUTHENTICATE, value.clone())),
            );
        }
    }
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = written.status;
    *response.headers_mut() = headers;
    response
}

fn said_nothing(status: StatusCode) -> bytes::Bytes {
    let code = match status {
        StatusCode::UNAUTHORIZED => ErrorCode::Unauthorized,
        StatusCode::FORBIDDEN => ErrorCode::Denied,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::TooManyRequests,
        _ => ErrorCode::Unsupported,
    };
    error_body(code, &format!("cachalot: the upstream answered {status} and said nothing else"), None)
}

/// Returns a body chunk by chunk.
fn chunks(body: Incoming) -> cache::Incoming {
    let len = body.size_hint().exact();
    let chunks = body.into_data_stream();
    cache::Incoming { len, chunks: Box::pin(futures_util::TryStreamExt::map_err(chunks, Into::into)) }
}

fn bad_tags(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, why)
}

fn missing_digest() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        ErrorCode::DigestInvalid,
        "the upload's last request names its digest: ?digest=",
    )
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}
