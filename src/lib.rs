//! zim2kafka receives the signed HTTP callbacks of ZEGOCLOUD In-app Chat, verifies their
//! signatures, and publishes each as a record on a Kafka topic, keyed by its group, room,
//! conversation, call or user.
//!
//! # The path of a callback
//!
//! ```text
//! bytes ──► callback::decode ──► callback::authenticate ──► event::Kind ──► delivery::Queue ──► Kafka
//!           RawCallback          UnverifiedCallback          VerifiedCallback  in order per key
//!           → Unverified…        → Verified…                 → Record            └─► spool, if Kafka is late
//! ```
//!
//! [`intake::Intake::accept`] implements it.
//!
//! # Modules
//!
//! In reading order. A module imports only modules that come before it in this list: `failpoint`,
//! [`log`], `finding`, [`callback`], [`event`], [`metrics`], [`spool`], [`kafka`], [`delivery`],
//! [`intake`], [`health`], [`http`], `client`, [`schema_registry`], [`config`], [`reload`], [`server`],
//! [`commands`].
//! `tests/it/rules/imports.rs` holds this order and fails if a module imports one that comes after
//! it.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`intake`] | accepts a callback: decode, authenticate, make a record, enqueue it once |
//! | [`callback`] | pure: bytes to authenticated fields |
//! | [`event`] | pure: authenticated fields to a Kafka record, by the table of each event |
//! | [`delivery`] | makes records durable, in order per key: queues, producers, the threads that publish, write to disk and read back |
//! | [`kafka`] | librdkafka: producer, consumer, topics, properties; the only module that imports `rdkafka` |
//! | [`spool`] | SQLite: records on disk and their recovery; the only module that imports `rusqlite` |
//! | [`http`] | the callback port and the admin port; the only module that answers with status codes |
//! | [`schema_registry`] | the ids of the events' schemas in a schema registry |
//! | `client` | the HTTP client of commands and of the schema registry |
//! | [`health`] | whether the service is ready |
//! | [`metrics`] | the metrics for Prometheus |
//! | [`server`] | builds the parts above, runs and stops them |
//! | [`reload`] | reloads secrets and certificate while the service runs |
//! | [`config`] | flags and variables to the settings of `callback`, `spool`, `kafka`, `intake` and `http`; apart from `failpoint` the only reader of the environment |
//! | [`commands`] | one file or folder for each command |
//! | `finding` | the result of a check of Kafka, a topic or the spool |
//! | [`log`] | the log on stderr, which no thread waits for; log throttles, errors with their causes, times |
//! | `failpoint` | panics on demand, for tests |
//!
//! # Threads
//!
//! | thread | what it does | what it waits for | locks it takes, in this order |
//! | --- | --- | --- | --- |
//! | main | runs the command: starts the service and stops it | signals, the parts of the service | each queue; wakeups; one at a time |
//! | `worker`, one for two cores (tokio) | connections, requests, intake, reload, signals, log of outages, history of the status page | sockets, timers, tickets | dedup window → one queue, then, the queue released, wakeups; port table → connection; for the log of outages and the status page: each queue, Kafka's failures, the outage, one at a time, and Kafka's failures → its list of brokers; alone and for a moment: a tally of refusals, the last problems, the history, an application's secret check, the stale check |
//! | `log` | writes the log to stderr | lines, stderr | the queue of lines |
//! | `publisher` | hands records to the producers, takes their reports, resolves tickets | wakeup, short pauses | one queue of events, released before the queue of dead letters; wakeups |
//! | `spooler`, with a spool | writes late records to disk, deletes acknowledged ones, makes dead letters of rejected events on disk | wakeup, disk | each queue; wakeups; one at a time |
//! | `reader`, with a spool | reads records back from disk | wakeup, disk | each queue; wakeups; one at a time |
//! | `settings file` | reads a file that a setting or a Kafka property names, at start, then ends | disk, the writer of a pipe | none |
//! | `new producer`, `old producer` | creates, or ends, one of librdkafka's clients, then ends | Kafka, librdkafka's threads | as `publisher` |
//! | blocking (tokio) | the settings at start, the whole of `check` and of `spool`, `kafka::probe`, file reads of `reload` (one for the secrets, one for the certificate), topic requests, `spool::wait_until_released`, opening the spool, `Delivery::stop`, reading each topic for `tail` and `demo`, the whole of `redrive`, writing to stdout, the progress bars of `send` and `redrive` | disk, Kafka, stdout, the terminal, other threads | in `Delivery::stop`: wakeups, one at a time |
//! | unnamed, one for each leader of partitions and for each bootstrap server | asks the leader for offsets, or the server for a topic, in `check`, then ends | Kafka | none |
//! | librdkafka's, for each client: main, and one per broker | connections to Kafka | Kafka | its own |
//! | `embedded Kafka`, with `--embedded-kafka` and in `demo` | keeps librdkafka's mock cluster | its owner's end | none |
//!
//! Any thread may log, and takes the lock of the queue of lines for that moment. No thread but `log`
//! waits for stderr, and no thread holds a lock while it waits for a socket, Kafka, the disk or stderr.
//!
//! # Bounds
//!
//! | what | bound |
//! | --- | --- |
//! | a file that a setting names | [`config::MAX_FILE_BYTES`] |
//! | connections of the callback port | `ZIM2KAFKA_MAX_CONNECTIONS`, and a reserve of a sixteenth of that, at most [`http::MAX_RESERVED_CONNECTIONS`]; each with hyper's buffer for one head. The one waited for longest is closed for a new one |
//! | connections that wait to be accepted | 4,096 per port, or the system's own limit |
//! | connections of the admin port | [`http::MAX_ADMIN_CONNECTIONS`] |
//! | a callback's body | `ZIM2KAFKA_BODY_LIMIT`, at most [`event::MAX_RECORD_BYTES`] |
//! | fields of a form | [`callback::MAX_FORM_FIELDS`] |
//! | all bodies being read or answered | [`http::MAX_BYTES_IN_FLIGHT`], and [`http::UNSHARED_BODY_BYTES`] for each connection |
//! | the same on the path of `before_send_msg` | [`http::RESERVED_BODY_BYTES`], and [`http::UNSHARED_BODY_BYTES`] for each connection; the oldest body gives way |
//! | records of a lane that are in memory only | [`delivery::MAX_QUEUE_BYTES`]; a lane for each topic, that of dead letters included |
//! | the same by number, in all lanes together | [`delivery::MAX_VOLATILE_RECORDS`], an equal share for each lane |
//! | records of a lane that the producers hold | [`kafka::MAX_IN_FLIGHT_RECORDS`] and [`kafka::MAX_IN_FLIGHT_BYTES`], copied by librdkafka |
//! | records of a lane that were read from disk and wait for a producer | [`delivery::MAX_LOADED_RECORDS`] and [`delivery::MAX_LOADED_BYTES`] |
//! | records that the reader, or the spooler, reads from disk at once | [`spool::MAX_READ_RECORDS`] and [`spool::MAX_READ_BYTES`] |
//! | a spool that `spool` and `check` read at once | its WAL, and a file of up to 64 MiB; of a larger file, as the reader |
//! | distinct keys of records on disk that are tracked, for each topic | [`spool::MAX_TRACKED_KEYS`] |
//! | records on disk | `ZIM2KAFKA_SPOOL_MAX_BYTES`, and [`spool::RESERVE_BYTES`] |
//! | what is known of each application | the appids in `ZIM2KAFKA_CALLBACK_SECRETS`, and one entry for all others |
//! | the history of the status page | [`http::MAX_HISTORY_SECONDS`] seconds, of 90 bytes each |
//! | problems that the status page lists | [`metrics::MAX_PROBLEMS`] lines, and [`metrics::MAX_UNAUTHENTICATED_PROBLEMS`] for requests that are not authentic; each of at most 6 KiB |
//! | dead letters of one transaction of `redrive` | 500 records, or 8 MiB of them and one more, or 20,000 letters; and 8 MiB that librdkafka has read ahead of each partition |
//! | records that runs of `redrive` have published | the id of each that is found, and of each of this run, 16 bytes |
//! | log lines that wait for stderr | [`log::MAX_QUEUED_BYTES`]; then the oldest are dropped |
//! | the deduplication window | [`intake::MAX_DEDUP_BYTES`], pending tickets included; within that, every callback of the last [`intake::DEDUP_WINDOW`] and at least [`intake::DEDUP_WINDOW_EVENTS`] |

pub mod intake;

pub mod callback;
pub mod event;

pub mod delivery;
pub mod kafka;
pub mod spool;

pub mod health;
pub mod http;
pub mod log;
pub mod metrics;

mod client;
pub mod schema_registry;

pub mod config;
pub mod reload;
pub mod server;

pub mod commands;

mod failpoint;
mod finding;
