//! `spool status`: how many records there are, since when, and whether all can be read.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Source, lost, time};
use crate::commands::{Failure, output};
use crate::config::Faults;
use crate::delivery::StartError;
use crate::event::Routes;
use crate::log::Ago;
use crate::spool::{
    Group, Leftover, Reading, Snapshot, SnapshotError, Summary, User, leftovers, user_of,
};

/// The flags of `spool status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object, described by schemas/spool-status.schema.json
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// All that is shown.
struct Status<'a> {
    folder: &'a Path,
    user: User,
    format: Option<u8>,
    used_bytes: u64,
    max_bytes: u64,
    summary: Summary,
    reading: Reading,
    leftovers: Vec<Leftover>,
    routes: &'a Routes,
    /// Milliseconds since 1970-01-01 UTC.
    now: i64,
}

pub(super) fn run(args: &Args, faults: Faults) -> Result<(), Failure> {
    let (folder, routes) = args.source.settings(faults)?;
    let snapshot = Snapshot::take(&folder)?;
    let (format, used_bytes) = (snapshot.format(), snapshot.used_bytes());
    let mut summary = Summary::default();
    let reading = snapshot.read(&mut |spooled| {
        summary.add(&spooled);
        ControlFlow::Continue(())
    })?;
    let unreadable = |source| SnapshotError::Unreadable {
        path: folder.clone(),
        source,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let status = Status {
        folder: &folder,
        user: user_of(&folder),
        format,
        used_bytes,
        max_bytes: args.source.spool.spool_max_bytes as u64,
        summary,
        reading,
        leftovers: leftovers(&folder).map_err(unreadable)?,
        routes: &routes,
        now: now.as_millis() as i64,
    };
    let shown = match args.json {
        true => format!("{}\n", status.object()),
        false => status.text(),
    };
    output::write(&shown)?;
    match &status.reading.damage {
        Some(damage) if !damage.loses_nothing() => Err(lost(damage)),
        _ => Ok(()),
    }
}

impl Status<'_> {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name:<9}  {value}").expect("writing to a string cannot fail");
        };
        line("folder", &self.folder.display().to_string());
        line(
            "service",
            &match self.user {
                User::Nobody => "none uses it".to_owned(),
                User::Service(None) => "one is running".to_owned(),
                User::Service(Some(id)) => format!("one is running, with process id {id}"),
            },
        );
        line(
            "format",
            &match self.format {
                Some(1) => "1; the next start rewrites it in the current one".to_owned(),
                Some(format) => format.to_string(),
                None if self.reading.damage.is_some() => {
                    "unknown: the header is damaged".to_owned()
                }
                None => "none: nothing was ever spooled here".to_owned(),
            },
        );
        line("state", &match &self.reading {
            Reading { damage: Some(damage), .. } => damage.to_string(),
            Reading { has_changed: true, .. } => {
                "all records can be read; records left the spool meanwhile, so the numbers are approximate".to_owned()
            }
            Reading { .. } => "all records can be read".to_owned(),
        });
        let total = self.summary.total();
        line(
            "used",
            &format!(
                "{} of {}, the limit of ZIM2KAFKA_SPOOL_MAX_BYTES ({} %)",
                size(self.used_bytes),
                size(self.max_bytes),
                self.used_bytes.saturating_mul(100) / self.max_bytes.max(1),
            ),
        );
        line(
            "records",
            &match total.refused {
                0 => total.records.to_string(),
                refused => format!(
                    "{}; Kafka has rejected {refused} of them permanently",
                    total.records
                ),
            },
        );
        if let Some((oldest, newest)) = total.received {
            line(
                "oldest",
                &format!("received {} ago, {}", self.ago(oldest), time(oldest)),
            );
            line(
                "newest",
                &format!("received {} ago, {}", self.ago(newest), time(newest)),
            );
        }
        text + &self.table() + &self.without_topic() + &self.left()
    }

    /// The records by event.
    fn table(&self) -> String {
        if self.summary.groups.is_empty() {
            return String::new();
        }
        let row = |event: &str, topic: &str, [records, refused, bytes, oldest]: [&str; 4]| {
            format!(
                "{event:<13}  {topic:<20}  {records:>9}  {refused:>7}  {bytes:>9}  {oldest:>7}\n"
            )
        };
        let mut table = format!(
            "\n{}",
            row("event", "topic", ["records", "refused", "bytes", "oldest"])
        );
        for (event, group) in &self.summary.groups {
            let Group {
                records,
                refused,
                bytes,
                received,
            } = group;
            let oldest = received.map_or(String::new(), |(oldest, _)| self.ago(oldest).to_string());
            table += &row(
                event.as_deref().unwrap_or("(dead letter)"),
                self.topic(event.as_deref()).unwrap_or("(none)"),
                [
                    &records.to_string(),
                    &refused.to_string(),
                    &size(*bytes),
                    &oldest,
                ],
            );
        }
        table
    }

    /// What a start of the service would say of events that have no topic.
    fn without_topic(&self) -> String {
        let groups = self.summary.groups.iter();
        let lost: Vec<_> = groups
            .filter(|(event, group)| {
                self.topic(event.as_deref()).is_none() && group.records > group.refused
            })
            .map(|(event, group)| {
                let waiting = group.records - group.refused;
                (event.clone().unwrap_or_default(), waiting as usize)
            })
            .collect();
        match lost.is_empty() {
            true => String::new(),
            false => format!(
                "\nwith these settings the service does not start: {}\n",
                StartError::NoTopic(lost)
            ),
        }
    }

    fn left(&self) -> String {
        if self.leftovers.is_empty() {
            return String::new();
        }
        let mut text = "\nleft by recoveries:\n".to_owned();
        for Leftover {
            name,
            about,
            bytes,
            modified,
        } in &self.leftovers
        {
            let modified = modified.and_then(|time| time.elapsed().ok());
            let age = modified.map_or(String::new(), |age| format!(", {} ago", Ago(age)));
            text += &format!("  {name} ({}{age}): {about}\n", size(*bytes));
        }
        text
    }

    fn topic(&self, event: Option<&str>) -> Option<&str> {
        match event {
            Some(event) => self.routes.topic_of(event),
            None => Some(self.routes.dead_letter_topic()),
        }
    }

    fn ago(&self, time: i64) -> Ago {
        let age = self.now.saturating_sub(time);
        Ago(Duration::from_millis(age.try_into().unwrap_or(0)))
    }

    fn object(&self) -> Value {
        let total = self.summary.total();
        let of = |group: &Group| {
            json!({
                "records": group.records,
                "refused": group.refused,
                "bytes": group.bytes,
                "oldest_received_at": group.received.map(|(oldest, _)| oldest),
                "newest_received_at": group.received.map(|(_, newest)| newest),
            })
        };
        let with = |mut object: Value, more: Value| {
            if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
                object.extend(more);
            }
            object
        };
        let events = self.summary.groups.iter().map(|(event, group)| {
            let named = json!({
                "event": event,
                "is_dead_letter": event.is_none(),
                "topic": self.topic(event.as_deref()),
            });
            with(named, of(group))
        });
        let leftovers = self
            .leftovers
            .iter()
            .map(|left| json!({"name": left.name, "bytes": left.bytes, "about": left.about}));
        let damage = self.reading.damage.as_ref().map(|damage| {
            json!({
                "cause": damage.cause,
                "lost": damage.lost,
                "lost_is_complete": damage.lost_is_complete,
            })
        });
        json!({
            "folder": self.folder.to_string_lossy(),
            "format": self.format,
            "service": {
                "is_running": self.user != User::Nobody,
                "process_id": match self.user {
                    User::Service(id) => id,
                    User::Nobody => None,
                },
            },
            "used_bytes": self.used_bytes,
            "max_bytes": self.max_bytes,
            "damage": damage,
            "has_changed": self.reading.has_changed,
            "total": of(&total),
            "events": events.collect::<Vec<_>>(),
            "leftovers": leftovers.collect::<Vec<_>>(),
        })
    }
}

/// Bytes for people: `900 B`, `12.3 KiB`, `1.0 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"KiB");
    while size >= 1000.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}
