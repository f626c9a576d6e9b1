//! The one integration binary: every test from outside, against a real Apache Kafka where it takes
//! one.

#![allow(
    clippy::indexing_slicing,
    reason = "a test that indexes out of bounds fails, as it should"
)]

mod accept;
mod admin;
mod alerts;
mod audit;
mod before_send;
mod broker;
mod check;
mod commands;
mod consumers;
mod demo;
mod documents;
mod edge;
mod event_metrics;
mod events;
mod faults;
mod fixtures;
mod fuzz;
mod golden;
mod leaks;
mod limits;
mod log;
mod metrics;
mod outage;
mod partitions;
mod properties;
mod redrive;
mod refusals;
mod reject;
mod resend;
mod rules;
mod schema_registry;
mod schemas;
mod send;
mod setting_errors;
mod settings;
mod shells;
mod spool;
mod status_page;
mod stdout;
mod support;
mod tail;
mod tail_filters;
mod threads;
mod topics;
mod traces;
