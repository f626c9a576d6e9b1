//! Reads a body within its limits: size, time, and the bytes of all bodies together.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// The most bytes of all bodies that are being read or wait for their answer, apart from the
/// [`UNSHARED_BODY_BYTES`] of each.
pub const MAX_BYTES_IN_FLIGHT: usize = 64 * 1024 * 1024;

/// The first bytes of each body do not count against [`MAX_BYTES_IN_FLIGHT`], so that a few clients
/// that send large bodies slowly cannot keep out everybody else. A usual callback has 200 to 2,000
/// bytes. The number of connections bounds the sum.
pub const UNSHARED_BODY_BYTES: usize = 16 * 1024;

/// The time for the whole body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Reads bodies within the limits.
pub(super) struct BodyReader {
    limit: usize,
    /// The bytes that all bodies may still take.
    budget: Arc<Semaphore>,
}

/// A complete body. Returns its share of the budget when dropped.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl BodyReader {
    /// A reader of bodies of at most `limit` bytes each.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            budget: Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT)),
        }
    }

    /// Reads a body to its end.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<Body, Problem> {
        // A body with a Content-Length over the limit is refused before any of it is read.
        if content_length(headers).is_some_and(|length| length > self.limit as u64) {
            return Err(Problem::BodyTooLarge { limit: self.limit });
        }
        tokio::time::timeout(BODY_DEADLINE, self.read_frames(body))
            .await
            .unwrap_or(Err(Problem::BodyTooSlow))
    }

    /// Takes budget as bytes arrive, so that a client that only announces a large body takes none.
    async fn read_frames(&self, mut body: Incoming) -> Result<Body, Problem> {
        let mut share: Option<OwnedSemaphorePermit> = None;
        let mut first = Bytes::new();
        let mut all: Option<BytesMut> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Problem::BodyBroken)?.into_data() else {
                continue;
            };
            let length = all.as_ref().map_or(first.len(), BytesMut::len) + data.len();
            if length > self.limit {
                return Err(Problem::BodyTooLarge { limit: self.limit });
            }
            self.grow_share(&mut share, length.saturating_sub(UNSHARED_BODY_BYTES))?;
            // Nearly every callback arrives in one piece, which is not copied.
            match &mut all {
                Some(all) => all.extend_from_slice(&data),
                None if first.is_empty() => first = data,
                None => all = Some([first.as_ref(), data.as_ref()].concat().as_slice().into()),
            }
        }
        Ok(Body {
            bytes: all.map_or(first, BytesMut::freeze),
            _share: share,
        })
    }

    /// Grows a share of the budget to this many bytes.
    fn grow_share(
        &self,
        share: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Problem> {
        let taken = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.saturating_sub(taken);
        if wanted == 0 {
            return Ok(());
        }
        let wanted =
            u32::try_from(wanted).map_err(|_| Problem::BodyTooLarge { limit: self.limit })?;
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(wanted)
            .map_err(|_| Problem::BodiesFull)?;
        match share {
            Some(share) => share.merge(more),
            None => *share = Some(more),
        }
        Ok(())
    }
}

/// Refuses a body that is encoded. An empty list names no encoding, nor does `identity`; empty
/// elements of a list are ignored (RFC 9110, 5.6.1.2 and 8.4).
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let fields = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_encoded = fields
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    match is_encoded {
        true => Err(Problem::ContentEncoding),
        false => Ok(()),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
