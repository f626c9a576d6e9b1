//! Inspects the spool's folder without changing anything in it.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, StatFs, access, statfs};

use super::folder::RESERVE_FILE;
use super::snapshot::{Snapshot, SnapshotError, Summary, User, user_of};
use super::{DATABASE_FILE, RESERVE_BYTES, SpoolSettings, WAL_FILE};
use crate::finding::Finding;
use crate::log::{Ago, count};

const SUBJECT: &str = "spool";

/// File systems by their magic numbers (statfs(2), linux/magic.h).
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
const ON_A_NETWORK: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x6573_5546, "FUSE"),
];
const OVERLAY: u64 = 0x794c_7630;

/// Finds what about the folder, or the records in it, weakens or breaks a promise. Reads all
/// records, and changes nothing. Not for the process that has the spool open: closing a file ends
/// the locks that the process holds on it.
pub fn inspect(settings: &SpoolSettings) -> Vec<Finding> {
    let mut findings = inspect_folder(settings);
    if settings.folder.is_dir() {
        findings.push(inspect_records(&settings.folder));
    }
    findings
}

/// Finds what about the records weakens or breaks a promise.
fn inspect_records(folder: &Path) -> Finding {
    let mut summary = Summary::default();
    let read = Snapshot::take(folder).and_then(|snapshot| {
        let format = snapshot.format();
        let reading = snapshot.read(&mut |spooled| {
            summary.add(&spooled);
            ControlFlow::Continue(())
        })?;
        Ok((format, reading))
    });
    let (format, reading) = match read {
        Ok(read) => read,
        Err(error @ SnapshotError::Busy(_)) => return Finding::warning(SUBJECT, error.to_string()),
        Err(error) => return Finding::error(SUBJECT, error.to_string()),
    };
    let total = summary.total();
    let mut text = format!("holds {}", count(total.records, "record"));
    if let Some((oldest, _)) = total.received {
        text += &format!(", the oldest received {} ago", Ago(age(oldest)));
    }
    if total.refused > 0 {
        text += &format!("; Kafka has rejected {} of them permanently", total.refused);
    }
    if let Some(damage) = reading.damage {
        let text = format!("{text}; {damage}");
        return match damage.loses_nothing() {
            true => Finding::warning(SUBJECT, text),
            false => Finding::error(SUBJECT, text),
        };
    }
    if let Some(1) = format {
        text += "; it has format 1, which the next start rewrites";
    }
    Finding::ok(SUBJECT, text)
}

/// How long ago this time was, in milliseconds since 1970-01-01 UTC.
fn age(time: i64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(Duration::from_millis(time.try_into().unwrap_or(0)))
}

/// Finds what about the folder weakens or breaks a promise. Changes nothing.
pub fn inspect_folder(settings: &SpoolSettings) -> Vec<Finding> {
    let folder = settings.folder.as_path();
    let shown = folder.display();
    let is_there = folder.exists();
    if is_there && !folder.is_dir() {
        return vec![Finding::error(
            SUBJECT,
            format!("{shown} is not a folder; set ZIM2KAFKA_SPOOL_DIR to a folder"),
        )];
    }
    // The folder itself or, if it does not exist yet, the nearest one that does.
    let Some(holder) = folder
        .ancestors()
        .find(|path| path.exists())
        .or(Some(Path::new(".")))
    else {
        return Vec::new();
    };
    let mut findings = vec![match access(holder, Access::WRITE_OK | Access::EXEC_OK) {
        Err(error) if has_records(folder) => Finding::error(
            SUBJECT,
            format!(
                "{shown} can only be read ({}): a start publishes what is there and goes on with Kafka alone; make the user of the service its owner, on a disk that is not read-only",
                std::io::Error::from(error)
            ),
        ),
        Err(error) => Finding::error(
            SUBJECT,
            format!(
                "cannot write to {}: {}; make the user of the service its owner, on a disk that is not read-only",
                holder.display(),
                std::io::Error::from(error)
            ),
        ),
        Ok(()) if !is_there => Finding::ok(SUBJECT, format!("{shown} will be created")),
        Ok(()) if user_of(folder) != User::Nobody => {
            Finding::ok(SUBJECT, format!("{shown} is in use by a running service"))
        }
        Ok(()) => Finding::ok(SUBJECT, format!("{shown} is writable")),
    }];
    match statfs(holder) {
        Ok(disk) => findings.extend(judge(&disk, folder, settings.max_bytes)),
        Err(error) => findings.push(Finding::warning(
            SUBJECT,
            format!(
                "cannot examine its disk: {}; check that it is mounted",
                std::io::Error::from(error)
            ),
        )),
    }
    findings
}

fn has_records(folder: &Path) -> bool {
    fs::metadata(folder.join(DATABASE_FILE)).is_ok_and(|file| file.len() > 0)
}

fn judge(disk: &StatFs, folder: &Path, max_bytes: u64) -> Vec<Finding> {
    let mut findings = kind(disk.f_type as u64).into_iter().collect::<Vec<_>>();
    let used: u64 = [DATABASE_FILE, WAL_FILE, RESERVE_FILE]
        .iter()
        .map(|name| fs::metadata(folder.join(name)).map_or(0, |file| file.len()))
        .sum();
    let free = disk.f_bavail * disk.f_bsize as u64;
    let wanted = max_bytes + RESERVE_BYTES as u64;
    let mib = |bytes: u64| bytes >> 20;
    findings.push(if free + used < wanted {
        Finding::warning(
            SUBJECT,
            format!(
                "{} MiB are free, but ZIM2KAFKA_SPOOL_MAX_BYTES and the reserve file may need {} MiB; free space on the disk, or lower the limit",
                mib(free),
                mib(wanted - used.min(wanted))
            ),
        )
    } else {
        Finding::ok(SUBJECT, format!("{} MiB are free", mib(free)))
    });
    findings
}

fn kind(kind: u64) -> Option<Finding> {
    // Some systems sign-extend the number.
    let is = |number: u64| kind == number || kind as u32 == number as u32;
    let named = |list: &[(u64, &'static str)]| {
        list.iter()
            .find(|(number, _)| is(*number))
            .map(|(_, name)| *name)
    };
    if let Some(name) = named(&IN_MEMORY) {
        let text = format!(
            "{name} is in memory: acknowledged events are lost when the machine stops; use a disk"
        );
        return Some(Finding::error(SUBJECT, text));
    }
    if let Some(name) = named(&ON_A_NETWORK) {
        let text = format!(
            "{name} may be a network file system, on which locks and syncs may not hold; use a local disk or a block volume"
        );
        return Some(Finding::warning(SUBJECT, text));
    }
    is(OVERLAY).then(|| {
        let text = "the folder is in the container's own layer, which is deleted with the container; mount a volume there";
        Finding::warning(SUBJECT, text)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::super::Spool;
    use super::*;
    use crate::finding::Level;

    fn settings(folder: impl Into<PathBuf>) -> SpoolSettings {
        SpoolSettings {
            folder: folder.into(),
            max_bytes: 1 << 20,
            after: Duration::ZERO,
        }
    }

    fn first(settings: &SpoolSettings) -> (Level, String) {
        let finding = inspect(settings).into_iter().next().expect("one at least");
        (finding.level, finding.text)
    }

    #[test]
    fn the_folder_is_described_and_not_changed() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("deep/er");
        let (level, text) = first(&settings(&folder));
        assert_eq!(
            (level, text.ends_with("will be created")),
            (Level::Ok, true),
            "{text}"
        );
        assert!(!root.path().join("deep").exists());
        let spool = Spool::open(&settings(&folder), &|_| {}).expect("it opens");
        assert!(first(&settings(&folder)).1.contains("in use"));
        drop(spool);
        assert!(first(&settings(&folder)).1.ends_with("is writable"));
        fs::write(root.path().join("file"), b"").expect("it can be written");
        let (level, text) = first(&settings(root.path().join("file")));
        assert_eq!(level, Level::Error, "{text}");
        assert!(text.contains("ZIM2KAFKA_SPOOL_DIR"), "{text}");
    }

    #[test]
    fn memory_is_an_error_and_networks_and_container_layers_are_warnings() {
        for (number, level) in [
            (0x0102_1994, Some(Level::Error)),
            (0x6969, Some(Level::Warning)),
            (0xffff_ffff_ff53_4d42, Some(Level::Warning)),
            (0x794c_7630, Some(Level::Warning)),
            (0xef53, None),
        ] {
            assert_eq!(
                kind(number).map(|finding| finding.level),
                level,
                "{number:x}"
            );
        }
        let shared = Path::new("/dev/shm");
        if shared.is_dir() {
            let findings = inspect(&settings(shared.join("zim2kafka")));
            assert!(
                findings
                    .iter()
                    .any(|finding| finding.text.contains("in memory")),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn too_little_free_space_is_a_warning() {
        let root = tempfile::tempdir().expect("a folder");
        let mut settings = settings(root.path());
        let has = |settings: &SpoolSettings, level| {
            let findings = inspect(settings);
            findings
                .iter()
                .any(|finding| finding.level == level && finding.text.contains("MiB are free"))
        };
        assert!(has(&settings, Level::Ok));
        settings.max_bytes = 1 << 60;
        assert!(has(&settings, Level::Warning));
    }
}
