//! Tests of the support code: what `support` promises to the other tests.

mod disk;
mod distance;
mod kafka;
mod produce;
mod proxy;
mod start;
mod volume;

use std::time::Duration;

use crate::support::kafka::publish;

const SOON: Duration = Duration::from_secs(30);
