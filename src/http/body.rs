//! Reads a body within its limits: size, time, and the bytes of all bodies together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

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

/// The bytes that are reserved for bodies on the path of `before_send_msg`, apart from the
/// [`UNSHARED_BODY_BYTES`] of each.
pub const RESERVED_BODY_BYTES: usize = 8 * 1024 * 1024;

/// How long a body waits for the memory of an older one that gives way, before it asks the next
/// one.
const GIVE_WAY_TIME: Duration = Duration::from_millis(5);

/// Reads bodies within the limits.
pub(super) struct BodyReader {
    limit: usize,
    /// The bytes that all bodies may still take.
    budget: Arc<Semaphore>,
    /// In the reserve, the bodies with a share of the budget.
    places: Option<Arc<Places>>,
}

/// A complete body. Returns its share of the budget when dropped.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _share: Share,
}

/// The part of the budget that a body has taken.
#[derive(Default)]
struct Share {
    permit: Option<OwnedSemaphorePermit>,
    place: Option<Place>,
}

/// Bodies by age. If the budget is used up, the oldest body gives way, so that clients that send
/// large bodies slowly cannot keep it.
#[derive(Default)]
struct Places {
    next: AtomicU64,
    by_age: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

struct Place {
    number: u64,
    gives_way: Arc<Notify>,
    places: Arc<Places>,
}

impl Place {
    fn in_places(places: &Arc<Places>) -> Self {
        let place = Self {
            number: places.next.fetch_add(1, Ordering::Relaxed),
            gives_way: Arc::default(),
            places: Arc::clone(places),
        };
        let notify = Arc::clone(&place.gives_way);
        places.by_age.lock().insert(place.number, notify);
        place
    }

    /// Asks the oldest body to give way. False if that is this one.
    fn displace_oldest(&self) -> bool {
        let by_age = self.places.by_age.lock();
        let oldest = by_age.first_key_value();
        let other = oldest.filter(|(number, _)| **number != self.number);
        other.inspect(|(_, oldest)| oldest.notify_one()).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.by_age.lock().remove(&self.number);
    }
}

impl Share {
    /// Completes if the body has to give way to another one.
    async fn gives_way(&self) {
        match &self.place {
            Some(place) => place.gives_way.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl BodyReader {
    /// A reader of bodies of at most `limit` bytes each.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            budget: Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT)),
            places: None,
        }
    }

    /// A reader with a budget that clients cannot keep by sending slowly.
    pub(super) fn reserve(limit: usize) -> Self {
        Self {
            limit,
            budget: Arc::new(Semaphore::new(RESERVED_BODY_BYTES)),
            places: Some(Arc::default()),
        }
    }

    /// Whether the oldest body gives way if the budget is used up.
    pub(super) fn is_reserve(&self) -> bool {
        self.places.is_some()
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
        let mut share = Share::default();
        let mut first = Bytes::new();
        let mut all: Option<BytesMut> = None;
        loop {
            let frame = tokio::select! {
                biased;
                () = share.gives_way() => return Err(Problem::BodiesFull),
                frame = body.frame() => frame,
            };
            let Some(frame) = frame else {
                break;
            };
            let Ok(data) = frame.map_err(|_| Problem::BodyBroken)?.into_data() else {
                continue;
            };
            let length = all.as_ref().map_or(first.len(), BytesMut::len) + data.len();
            if length > self.limit {
                return Err(Problem::BodyTooLarge { limit: self.limit });
            }
            self.grow_share(&mut share, length.saturating_sub(UNSHARED_BODY_BYTES))
                .await?;
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

    /// Grows a share of the budget to this many bytes. In the reserve, older bodies give way.
    async fn grow_share(&self, share: &mut Share, bytes: usize) -> Result<(), Problem> {
        let taken = (share.permit.as_ref()).map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.saturating_sub(taken);
        if wanted == 0 {
            return Ok(());
        }
        let wanted =
            u32::try_from(wanted).map_err(|_| Problem::BodyTooLarge { limit: self.limit })?;
        if let (Some(places), None) = (&self.places, &share.place) {
            share.place = Some(Place::in_places(places));
        }
        let budget = || Arc::clone(&self.budget);
        let more = loop {
            if let Ok(more) = budget().try_acquire_many_owned(wanted) {
                break more;
            }
            if !share.place.as_ref().is_some_and(Place::displace_oldest) {
                return Err(Problem::BodiesFull);
            }
            tokio::select! {
                biased;
                () = share.gives_way() => return Err(Problem::BodiesFull),
                Ok(more) = budget().acquire_many_owned(wanted) => break more,
                () = tokio::time::sleep(GIVE_WAY_TIME) => {}
            }
        };
        match &mut share.permit {
            Some(permit) => permit.merge(more),
            None => share.permit = Some(more),
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
