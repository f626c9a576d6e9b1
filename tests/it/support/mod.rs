//! What tests share: each helper that more than one file of tests uses is here.

pub(crate) mod answers;
pub(crate) mod app;
pub(crate) mod bytes;
pub(crate) mod dead_letters;
pub(crate) mod disk;
pub(crate) mod distance;
pub(crate) mod ids;
pub(crate) mod kafka;
pub(crate) mod partitions;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod scraped;
pub(crate) mod source;
pub(crate) mod start;
pub(crate) mod tls;
pub(crate) mod unwritable;
pub(crate) mod volume;
pub(crate) mod wire;

#[cfg(test)]
mod tests;
