//! What the tests stand on.

pub(crate) mod app;
pub(crate) mod bytes;
pub(crate) mod disk;
pub(crate) mod ids;
pub(crate) mod kafka;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod schema;
pub(crate) mod source;
pub(crate) mod start;
pub(crate) mod tls;
pub(crate) mod volume;
pub(crate) mod wire;
