//! Upload sessions: any bytes are a sequence of steps of a few uploads, and after each the answer is what a model says (P-150…P-159).
//!
//! It needs a whole cache in front of a registry, over sockets: what is held to the property is what a client meets.

use cachalot::oci::Digest;

use crate::harness::{Answer, Cachalot, More};
use crate::registry::Registry;

const UPLOADS: &str = "/v2/app/blobs/uploads/";

/// Uploads under way at once.
const OPEN_MAX: usize = 3;

/// Steps of one input that are taken.
const STEPS_MAX: usize = 24;

/// A cache that takes pushes, and its registry.
pub(crate) struct World {
    registry: Registry,
    cachalot: Cachalot,
}

/// What the model knows of an upload that is under way.
struct Upload {
    location: String,
    bytes: Vec<u8>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let registry = Registry::start().await;
        let cachalot = Cachalot::configured(&registry, More::upstream("push = true")).await;
        Self { registry, cachalot }
    }

    pub(crate) async fn finish(self) {
        self.cachalot.finish().await;
    }

    /// Takes the steps that `input` stands for, two bytes each.
    pub(crate) async fn holds(&self, input: &[u8]) {
        let mut open: Vec<Upload> = Vec::new();
        let mut ended: Vec<String> = Vec::new();
        for step in input.chunks_exact(2).take(STEPS_MAX) {
            let (kind, argument) = (step[0] % 10, step[1]);
            if kind == 0 || open.is_empty() {
                if open.len() < OPEN_MAX {
                    open.push(self.open().await);
                }
                continue;
            }
            let at = usize::from(step[0] / 10) % open.len();
            match kind {
                1..=3 => self.append(&mut open[at], argument, kind == 1).await,
                4 => self.out_of_order(&open[at], argument).await,
                5 => self.tells(&open[at]).await,
                6 => ended.push(self.put(open.swap_remove(at), argument, true).await),
                7 => ended.push(self.put(open.swap_remove(at), argument, false).await),
                8 => ended.push(self.cancel(open.swap_remove(at)).await),
                _ => self.is_nobodys(ended.get(usize::from(argument) % ended.len().max(1)).map(String::as_str)).await,
            }
        }
        for upload in open {
            self.cancel(upload).await;
        }
        assert_eq!(self.registry.uploads(), 0, "P-155: nothing is left at the registry");
    }

    async fn write(&self, method: &str, path: &str, range: Option<String>, body: Vec<u8>) -> Answer {
        let range = range.unwrap_or_default();
        let headers = [("content-range", range.as_str())];
        self.cachalot.write(method, path, if range.is_empty() { &[] } else { &headers }, body).await
    }

    async fn open(&self) -> Upload {
        let answer = self.write("POST", UPLOADS, None, Vec::new()).await;
        assert_eq!((answer.status, answer.header("range")), (202, "0-0"), "P-150");
        Upload { location: answer.header("location").to_owned(), bytes: Vec::new() }
    }

    /// A chunk in its turn, with or without the range that it says itself.
    async fn append(&self, upload: &mut Upload, argument: u8, is_bare: bool) {
        let chunk = chunk(argument);
        let range = (!is_bare).then(|| range_at(upload.bytes.len(), chunk.len()));
        let answer = self.write("PATCH", &upload.location, range, chunk.clone()).await;
        upload.bytes.extend(chunk);
        assert_eq!((answer.status, answer.header("range")), (202, taken(&upload.bytes).as_str()), "P-151");
        answer.header("location").clone_into(&mut upload.location);
    }

    async fn out_of_order(&self, upload: &Upload, argument: u8) {
        let wrong = upload.bytes.len() + 1 + usize::from(argument);
        let range = Some(range_at(wrong, 3));
        let answer = self.write("PATCH", &upload.location, range, b"abc".to_vec()).await;
        assert_eq!((answer.status, answer.header("range")), (416, taken(&upload.bytes).as_str()), "P-151");
    }

    async fn tells(&self, upload: &Upload) {
        let answer = self.write("GET", &upload.location, None, Vec::new()).await;
        assert_eq!((answer.status, answer.header("range")), (204, taken(&upload.bytes).as_str()), "P-151");
    }

    /// Ends an upload, with its digest or with another.
    async fn put(&self, mut upload: Upload, argument: u8, is_right: bool) -> String {
        let last = if argument.is_multiple_of(2) { Vec::new() } else { chunk(argument) };
        upload.bytes.extend(&last);
        let digest = if is_right { Digest::sha256(&upload.bytes) } else { Digest::sha256(b"something else") };
        let answer = self.write("PUT", &format!("{}?digest={digest}", upload.location), None, last).await;
        let path = format!("/v2/app/blobs/{digest}");
        if is_right {
            assert_eq!(answer.status, 201, "P-150");
            let blob = self.cachalot.get(&path).await;
            assert_eq!((blob.status, &blob.body[..]), (200, &upload.bytes[..]), "what was taken is what is served");
        } else {
            assert_eq!((answer.status, answer.error_code().as_str()), (400, "DIGEST_INVALID"), "P-159");
            assert_eq!(self.cachalot.get(&path).await.status, 404, "P-159");
        }
        upload.location
    }

    async fn cancel(&self, upload: Upload) -> String {
        assert_eq!(self.write("DELETE", &upload.location, None, Vec::new()).await.status, 204, "P-155");
        upload.location
    }

    /// What has ended, or never was, is not there.
    async fn is_nobodys(&self, ended: Option<&str>) {
        let path = ended.unwrap_or("/v2/app/blobs/uploads/0123456789abcdef");
        for method in ["PATCH", "GET", "DELETE"] {
            assert_eq!(self.write(method, path, None, Vec::new()).await.status, 404, "P-150: {method}");
        }
    }
}

fn chunk(argument: u8) -> Vec<u8> {
    vec![argument; usize::from(argument % 13) + 1]
}

fn range_at(start: usize, len: usize) -> String {
    format!("{start}-{}", start + len - 1)
}

fn taken(bytes: &[u8]) -> String {
    format!("0-{}", bytes.len().saturating_sub(1))
}
