//! What the tests stand on.

pub(crate) mod app;
pub(crate) mod ids;
pub(crate) mod kafka;
pub(crate) mod process;
pub(crate) mod schema;
pub(crate) mod source;
pub(crate) mod wire;
