//! The ids that the schemas of events have in a schema registry, and the wire format that names them.
//!
//! Confluent's wire format: a zero byte, the id of the schema as four bytes, the most significant one
//! first, and the JSON. JSON never begins with a zero byte, so a reader can tell both forms apart.
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::event::Record;

/// The first byte of a framed value.
const MAGIC: u8 = 0;

/// The bytes in front of the JSON.
const FRAME_BYTES: usize = 5;

/// The ids of the schemas of events, once the schema registry has answered. Until then, events are
/// not published, because their values cannot be framed.
#[derive(Debug)]
pub struct SchemaIds {
    ids: OnceLock<BTreeMap<&'static str, u32>>,
    obstacle: Mutex<String>,
}

impl Default for SchemaIds {
    fn default() -> Self {
        Self {
            ids: OnceLock::new(),
            obstacle: Mutex::new("the schema registry has not answered yet".to_owned()),
        }
    }
}

impl SchemaIds {
    /// Sets the id of each event's schema; to be called once.
    pub fn set(&self, ids: BTreeMap<&'static str, u32>) {
        drop(self.ids.set(ids));
    }

    /// Why the ids are not known, as a sentence without a full stop; `None` if they are.
    pub fn obstacle(&self) -> Option<String> {
        (!self.are_known()).then(|| self.obstacle.lock().clone())
    }

    /// Sets why the ids are not known.
    pub fn set_obstacle(&self, reason: String) {
        *self.obstacle.lock() = reason;
    }

    pub(crate) fn are_known(&self) -> bool {
        self.ids.get().is_some()
    }

    /// The value of a record as it is published; `None` for a dead letter, which has no schema.
    ///
    /// # Errors
    ///
    /// If the schema of its event is not known.
    pub(super) fn frame(&self, record: &Record) -> Result<Option<Vec<u8>>, String> {
        let Some(event) = record.event.as_deref() else {
            return Ok(None);
        };
        let ids = self.ids.get();
        let id = ids
            .and_then(|ids| ids.get(event))
            .ok_or_else(|| format!("the id of the schema of {event} is not known"))?;
        let mut value = Vec::with_capacity(FRAME_BYTES + record.value.len());
        value.push(MAGIC);
        value.extend_from_slice(&id.to_be_bytes());
        value.extend_from_slice(&record.value);
        Ok(Some(value))
    }
}

/// The JSON of a value, framed or not.
pub(super) fn json(value: &[u8]) -> &[u8] {
    match value {
        [MAGIC, _, _, _, _, json @ ..] => json,
        json => json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_value_is_found_framed_or_not() {
        for (value, expected) in [
            (&b"\0\0\0\x01\x02{}"[..], &b"{}"[..]),
            (b"\0\0\0\0{", b""),
            (b"{}", b"{}"),
            (b"\0\0\0\0", b"\0\0\0\0"),
            (b"", b""),
        ] {
            assert_eq!(json(value), expected, "{value:?}");
        }
    }
}
