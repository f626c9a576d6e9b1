//! The ids that the schemas of events have in a schema registry, and the wire format that names them.
//!
//! Confluent's wire format: a zero byte, the id of the schema as four bytes, the most significant one
//! first, and the JSON. JSON never begins with a zero byte, so a reader can tell both forms apart.
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::event::Record;

/// The first byte of a framed value.
const MAGIC: u8 = 0;

/// The bytes in front of the JSON.
const FRAME_BYTES: usize = 5;

/// The ids of the schemas of events, as far as the schema registry has answered. The events of a topic
/// are published once all of them have one: values cannot be framed before, and the order of events
/// with the same key must not depend on that.
#[derive(Debug)]
pub struct SchemaIds {
    ids: ArcSwap<BTreeMap<&'static str, u32>>,
    /// Why ids are missing; `None` if none is.
    obstacle: ArcSwapOption<String>,
}

impl Default for SchemaIds {
    fn default() -> Self {
        let reason = "the schema registry has not answered yet".to_owned();
        Self {
            ids: ArcSwap::default(),
            obstacle: ArcSwapOption::from_pointee(reason),
        }
    }
}

impl SchemaIds {
    /// Sets the ids that are known, by the names of events, and why others are missing, as a sentence
    /// without a full stop.
    pub fn set(&self, ids: BTreeMap<&'static str, u32>, obstacle: Option<String>) {
        self.ids.store(Arc::new(ids));
        self.obstacle.store(obstacle.map(Arc::new));
    }

    /// Why ids are missing; `None` if none is.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.load().as_deref().cloned()
    }

    pub(crate) fn are_complete(&self) -> bool {
        self.obstacle.load().is_none()
    }

    pub(crate) fn has(&self, event: &str) -> bool {
        self.ids.load().contains_key(event)
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
        let ids = self.ids.load();
        let id = (ids.get(event))
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
