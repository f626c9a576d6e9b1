//! Reading a body within its limits: size, time, and the bytes of all bodies together.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::delivery::Full;

/// The bodies of all requests that are being read or wait for their answer have at most so many bytes,
/// and [`BYTES_OF_EACH`] besides.
pub const MAX_BYTES_IN_FLIGHT: usize = 64 * 1024 * 1024;

/// So much of each body needs no room of the others, so that a few who send large ones slowly cannot
/// keep out everybody else. A usual callback has 200 to 2,000 bytes. The number of connections bounds
/// their sum.
pub const BYTES_OF_EACH: usize = 16 * 1024;

/// A body that comes in more pieces than these, and one for each so many bytes, is cut up by intent: each
/// costs as much as a small request.
const PIECES: usize = 1024;
const BYTES_OF_A_PIECE: usize = 64;

/// The whole body has so long, however its bytes are spread over it.
const DEADLINE: Duration = Duration::from_secs(10);

/// What bounds the bodies.
pub(super) struct Bodies {
    limit: usize,
    room: Arc<Semaphore>,
}

/// A body that was read, and the room that it takes while it lives.
pub(super) struct Admitted {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Bodies of at most `limit` bytes each.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            room: Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT)),
        }
    }

    /// Reads a body to its end.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Admitted, Problem> {
        // A body that says it is too large is refused before a byte of it is read.
        if content_length(headers).is_some_and(|length| length > self.limit as u64) {
            return Err(Problem::BodyTooLarge { limit: self.limit });
        }
        tokio::time::timeout(DEADLINE, self.read_frames(body))
            .await
            .unwrap_or(Err(Problem::BodyTooSlow))
    }

    /// Room is taken as bytes come, so that who announces much and sends nothing takes none.
    async fn read_frames(&self, mut body: Incoming) -> Result<Admitted, Problem> {
        let mut room: Option<OwnedSemaphorePermit> = None;
        let mut first = Bytes::new();
        let mut all: Option<BytesMut> = None;
        let mut pieces = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Problem::BodyBroken)?.into_data() else {
                continue;
            };
            let length = all.as_ref().map_or(first.len(), BytesMut::len) + data.len();
            if length > self.limit {
                return Err(Problem::BodyTooLarge { limit: self.limit });
            }
            pieces += 1;
            if pieces > PIECES + length / BYTES_OF_A_PIECE {
                return Err(Problem::BodyBroken);
            }
            self.take_room(&mut room, length.saturating_sub(BYTES_OF_EACH))?;
            // A callback comes in one piece nearly always, and is not copied then.
            match &mut all {
                Some(all) => all.extend_from_slice(&data),
                None if first.is_empty() => first = data,
                None => all = Some([first.as_ref(), data.as_ref()].concat().as_slice().into()),
            }
        }
        Ok(Admitted {
            bytes: all.map_or(first, BytesMut::freeze),
            _room: room,
        })
    }

    /// So much room in all, of which some may be taken already.
    fn take_room(
        &self,
        room: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Problem> {
        let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.saturating_sub(taken);
        if wanted == 0 {
            return Ok(());
        }
        let wanted =
            u32::try_from(wanted).map_err(|_| Problem::BodyTooLarge { limit: self.limit })?;
        let more = Arc::clone(&self.room)
            .try_acquire_many_owned(wanted)
            .map_err(|_| Problem::Refused(Full.into()))?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
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
