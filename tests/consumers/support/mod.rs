//! The Kafka of the other tests.

#![allow(dead_code, unused_imports, reason = "the other tests use more of it")]

#[path = "../../it/support/distance.rs"]
pub(crate) mod distance;
#[path = "../../it/support/kafka/mod.rs"]
pub(crate) mod kafka;
#[path = "../../it/support/proxy/mod.rs"]
pub(crate) mod proxy;
#[path = "../../it/support/schema.rs"]
pub(crate) mod schema;
#[path = "../../it/support/start.rs"]
pub(crate) mod start;
