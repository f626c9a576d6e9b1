//! The auditor: what was answered 2xx, against what is in Kafka.
//!
//! It plays ZEGOCLOUD's side and a consumer's, and judges the service by nothing but what these two
//! see. It imports nothing of the service, signs and retries by ZEGOCLOUD's pages, and knows the
//! record from the contract alone: an error that both shared would be invisible. That it catches
//! what it is there to catch is shown by `tests.rs`, with records lost, altered, invented and put
//! out of order.

mod plan;
mod reader;
mod sender;
mod verdict;

pub(crate) use plan::Plan;
pub(crate) use reader::{Contents, Found, Taken, read, take};
pub(crate) use sender::{Durable, Load, Log, SCHEDULE, Sender, group_name};
pub(crate) use verdict::{Report, audit};

#[cfg(test)]
mod tests;
