//! zim2kafka receives the signed HTTP callbacks of ZEGOCLOUD In-app Chat, proves that they are
//! authentic, and publishes each as a record keyed by its group on a Kafka topic.
//!
//! # One callback's way
//!
//! ```text
//! bytes ──► callback::decode ──► callback::authenticate ──► event::GroupJoined ──► delivery::Queue ──► Kafka
//!           RawCallback          UnverifiedCallback          VerifiedCallback        numbered, in order
//!           → Unverified…        → Verified…                 → Record                  └─► disk, when Kafka is late
//! ```
//!
//! [`intake::Intake::accept`] is that line as code. The rooms below are in reading order.
//!
//! # Who knows whom
//!
//! `main → commands → server → http → intake → {callback, event, delivery}`; `config` and `metrics`
//! are known by many and know little. The rules that keep it so are a test, `tests/it/rules.rs`:
//! only `config` and `main` read the environment, only `main` exits; only `http` and `server` know
//! axum; only `delivery::kafka` knows rdkafka, and only
//! `delivery::spool` SQLite; `callback` and `event` are pure.
//!
//! # Every bound
//!
//! | what | bound |
//! | --- | --- |
//! | connections of the callback port | `ZIM2KAFKA_MAX_CONNECTIONS`, each with hyper's buffer of one head |
//! | connections that wait to be accepted | 4,096 a port, or the system's own limit |
//! | connections of the admin port | [`http::MAX_ADMIN_CONNECTIONS`] |
//! | a callback's body | `ZIM2KAFKA_BODY_LIMIT`, at most [`event::MAX_RECORD_BYTES`] |
//! | all bodies being read or answered | [`http::MAX_BYTES_IN_FLIGHT`], and [`http::BYTES_OF_EACH`] for each connection |
//! | records of a lane that are in memory only | [`delivery::MAX_QUEUE_BYTES`], two lanes |
//! | records of a lane with the producer | [`delivery::MAX_IN_FLIGHT`] and [`delivery::MAX_IN_FLIGHT_BYTES`], copied by librdkafka |
//! | records that Kafka has acknowledged, until the feeder's next step tells who waits | as many again: the feeder takes no new ones before |
//! | records read from disk at once | [`delivery::MAX_READ_RECORDS`] and [`delivery::MAX_READ_BYTES`] |
//! | records on disk | `ZIM2KAFKA_SPOOL_MAX_BYTES`, and [`delivery::BALLAST_BYTES`] |
//! | remembered callbacks | [`intake::REMEMBERED_EVENTS`], and those on their way |

pub mod intake;

pub mod callback;
pub mod delivery;
pub mod event;

pub mod commands;
pub mod config;
pub mod health;
pub mod http;
pub mod metrics;
pub mod reload;
pub mod server;
