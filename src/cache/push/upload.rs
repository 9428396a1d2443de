//! Uploads of blobs: opened, moved on chunk by chunk, finished, cancelled; and deletes of blobs.

use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::oneshot;
use url::form_urlencoded;

use super::session::State;
use super::spool::{Incoming, Spool, returned, tee};
use super::{Cache, PushError, Writer, may_have_changed};
use crate::oci::{Digest, RepositoryName};
use crate::store::{Grant, GrantKind};
use crate::upstream::{RequestKind, Target, UploadUrl, Written};
use crate::wire::names::CHUNK_MIN_LENGTH;

/// How an upload begins.
#[derive(Debug, Default)]
pub struct Begin {
    /// The body is all of it (P-153).
    pub digest: Option<Digest>,
    /// Ask for a blob of another repository of the same upstream first (P-154).
    pub mount: Option<Digest>,
    pub from: Option<RepositoryName>,
}

/// What became of it.
#[derive(Debug)]
pub enum Begun {
    /// The blob is there.
    Done(Digest),
    Open(UploadStatus),
}

/// An upload under way.
#[derive(Debug)]
pub struct UploadStatus {
    pub id: String,
    /// Bytes that have been taken.
    pub offset: u64,
    /// Bytes that every chunk but the last must have, as the upstream says it.
    pub chunk_min: Option<HeaderValue>,
}

/// A part of an upload.
#[derive(Debug)]
pub struct Chunk {
    /// The first and the last byte by `Content-Range`, where it came with one (P-151).
    pub range: Option<(u64, u64)>,
    pub body: Incoming,
}

impl Cache {
    /// Begins an upload: mounts, takes all of it, or opens a session.
    pub async fn begin_upload(&self, writer: &Writer, begin: Begin, body: Incoming) -> Result<Begun, PushError> {
        let query = begin.mount.map(|digest| mount_query(&digest, begin.from.as_ref())).unwrap_or_default();
        let opened = writer.ask(RequestKind::Blob, Method::POST, Target::Path("blobs/uploads/", &query)).await?;
        let opened = opened.accepted(writer)?;
        if let (StatusCode::CREATED, Some(digest)) = (opened.status, begin.mount) {
            self.blob_is_there(writer, &digest);
            return Ok(Begun::Done(digest));
        }
        let chunk_min = opened.headers.get(CHUNK_MIN_LENGTH).cloned();
        let url = opened.upload.ok_or_else(|| no_upload(writer))?;
        let id = self.0.sessions.enter(writer, url.clone(), Spool::new(self.store()));
        match begin.digest {
            Some(digest) => {
                let finished = self.finish_upload(writer, &id, &digest, Chunk { range: None, body }).await;
                if let Err(error) = finished {
                    // Nobody knows its name.
                    self.0.sessions.forget(&id);
                    give_up(writer, &url).await;
                    return Err(error);
                }
                Ok(Begun::Done(digest))
            }
            None => Ok(Begun::Open(UploadStatus { id, offset: 0, chunk_min })),
        }
    }

    /// Returns how far an upload has come.
    pub fn upload_status(&self, writer: &Writer, id: &str) -> Result<UploadStatus, PushError> {
        let session = self.0.sessions.find(writer, id)?;
        Ok(UploadStatus { id: id.to_owned(), offset: session.offset(), chunk_min: None })
    }

    /// Moves an upload on.
    pub async fn append(&self, writer: &Writer, id: &str, chunk: Chunk) -> Result<UploadStatus, PushError> {
        let session = self.0.sessions.find(writer, id)?;
        let mut taken = self.0.sessions.take(&session)?;
        check_order(taken.offset(), &chunk)?;
        let State { url, spool } = taken.state()?;
        let (headers, range, mark) = (chunk_headers(&chunk), chunk.range, spool.mark());
        let (body, spooled) = tee(chunk.body, spool);
        let written = writer.send(RequestKind::Blob, Method::PATCH, Target::Upload(&url, ""), headers, body).await?;
        if is_worth_another_try(&written) {
            taken.put_back(State { url, spool: untouched(spooled, mark) });
            return Err(PushError::Refused(Box::new(written)));
        }
        let written = written.accepted(writer)?;
        let spool = returned(spooled).ok_or_else(|| no_upload(writer))?;
        check_length(range, spool.len() - mark.len())?;
        let status = UploadStatus { id: id.to_owned(), offset: spool.len(), chunk_min: None };
        taken.put_back(State { url: written.upload.unwrap_or(url), spool });
        Ok(status)
    }

    /// Ends an upload, with its last bytes or without any.
    pub async fn finish_upload(
        &self,
        writer: &Writer,
        id: &str,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<(), PushError> {
        let session = self.0.sessions.find(writer, id)?;
        let mut taken = self.0.sessions.take(&session)?;
        check_order(taken.offset(), &chunk)?;
        let State { url, mut spool } = taken.state()?;
        if chunk.body.is_empty() && spool.matches(digest).await == Some(false) {
            // The upstream need not be trusted to notice.
            give_up(writer, &url).await;
            return Err(PushError::WrongDigest { expected: *digest });
        }
        let (headers, mark) = (chunk_headers(&chunk), spool.mark());
        let (body, spooled) = tee(chunk.body, spool);
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("digest", &digest.to_string()).finish();
        let written = writer.send(RequestKind::Blob, Method::PUT, Target::Upload(&url, &query), headers, body).await?;
        if is_worth_another_try(&written) {
            taken.put_back(State { url, spool: untouched(spooled, mark) });
            return Err(PushError::Refused(Box::new(written)));
        }
        written.accepted(writer)?;
        let Some(mut spool) = returned(spooled) else { return Err(no_upload(writer)) };
        match spool.matches(digest).await {
            Some(true) => spool.keep(*digest).await,
            Some(false) => {
                tracing::error!(%digest, upstream.name = %writer.upstream.origin.name(), "the upstream took a blob that does not match its digest");
                return Err(PushError::WrongDigest { expected: *digest });
            }
            None => {}
        }
        self.blob_is_there(writer, digest);
        Ok(())
    }

    /// Gives an upload up.
    pub async fn cancel_upload(&self, writer: &Writer, id: &str) -> Result<(), PushError> {
        let session = self.0.sessions.find(writer, id)?;
        let mut taken = self.0.sessions.take(&session)?;
        let State { url, .. } = taken.state()?;
        // Here it has ended, whatever the upstream makes of it.
        give_up(writer, &url).await;
        Ok(())
    }

    /// Deletes a blob of a repository.
    pub async fn delete_blob(&self, writer: &Writer, digest: &Digest) -> Result<(), PushError> {
        let (cache, writer, digest) = (self.clone(), writer.clone(), *digest);
        let work = async move {
            let path = format!("blobs/{digest}");
            let written = writer.ask(RequestKind::Blob, Method::DELETE, Target::Path(&path, "")).await;
            if may_have_changed(&written) {
                cache.is_written(&writer);
                let (upstream, repository) = (writer.upstream.origin.name(), &writer.repository);
                cache.0.ledger.revoke(&Grant { upstream, repository, kind: GrantKind::Blob, digest: &digest });
            }
            written?.accepted(&writer).map(drop)
        };
        self.to_its_end("delete a blob", work).await
    }

    fn blob_is_there(&self, writer: &Writer, digest: &Digest) {
        self.is_written(writer);
        if writer.is_anybody() {
            self.0.ledger.grant_blob(writer.upstream.origin.name(), &writer.repository, digest);
        }
    }
}

/// P-151: chunks come in order, and are as long as they say.
fn check_order(offset: u64, chunk: &Chunk) -> Result<(), PushError> {
    match chunk.range {
        Some((first, last)) if first != offset || last < first => Err(PushError::OutOfOrder { offset }),
        range => chunk.body.len.map_or(Ok(()), |len| check_length(range, len)),
    }
}

fn check_length(range: Option<(u64, u64)>, len_bytes: u64) -> Result<(), PushError> {
    let Some((first, last)) = range else { return Ok(()) };
    let range_bytes = last.saturating_sub(first).saturating_add(1);
    if range_bytes == len_bytes { Ok(()) } else { Err(PushError::WrongLength { range_bytes, len_bytes }) }
}

fn chunk_headers(chunk: &Chunk) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some((first, last)) = chunk.range {
        headers.extend(HeaderValue::from_str(&format!("{first}-{last}")).map(|range| (CONTENT_RANGE, range)));
    }
    headers
}

/// Returns true when the caller may send the same chunk again: with another token, or a little later.
fn is_worth_another_try(written: &Written) -> bool {
    matches!(
        written.status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Returns the spool as it was before a body of which the upstream took nothing.
fn untouched(spooled: oneshot::Receiver<Spool>, mark: Spool) -> Spool {
    returned(spooled).filter(|spool| spool.len() == mark.len()).unwrap_or(mark)
}

/// Lets the upstream forget an upload, if it will; many cannot, and forget by themselves.
async fn give_up(writer: &Writer, url: &UploadUrl) {
    let written = writer.ask(RequestKind::Blob, Method::DELETE, Target::Upload(url, "")).await;
    tracing::debug!(status = written.map(|written| written.status.as_u16()).ok(), "an upload was given up");
}

fn mount_query(digest: &Digest, from: Option<&RepositoryName>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("mount", &digest.to_string());
    if let Some(from) = from {
        query.append_pair("from", from.as_str());
    }
    query.finish()
}

fn no_upload(writer: &Writer) -> PushError {
    let reason = "an upload goes on nowhere, or ended before its body".to_owned();
    writer.upstream.error(crate::upstream::UpstreamError::Protocol { reason }).into()
}
