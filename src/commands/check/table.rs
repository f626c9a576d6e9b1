//! The report as a table: the settings, the findings, and the summary. The worst findings are last,
//! because a terminal shows the last lines.

use clap::builder::styling::{AnsiColor, Style};

use super::report::Report;
use crate::config::{KAFKA_PROPERTIES, Origin, Setting, State};
use crate::finding::{Finding, Level};

/// How the table is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The width to which lines are wrapped; `None` prints each row on one line.
    pub(super) columns: Option<usize>,
    pub(super) has_colours: bool,
}

/// The blanks between two columns.
const GAP: usize = 2;

/// The widest subject of a finding that shares a line with wrapped text.
const SUBJECT_COLUMNS: usize = 20;

/// The narrowest text, however narrow the terminal is.
const TEXT_COLUMNS_MIN: usize = 24;

struct Row {
    word: String,
    style: Style,
    name: String,
    text: String,
}

/// The table, without a line end behind its last line.
pub(super) fn of(report: &Report, layout: Layout) -> String {
    let mut settings = vec![heading("ORIGIN", "SETTING", "VALUE")];
    let all = report.settings.iter();
    settings.extend(all.flat_map(|setting| rows_of(setting, report)));
    let mut findings = vec![heading("LEVEL", "SUBJECT", "FINDING")];
    findings.extend(rows_of_findings(&report.findings));
    let style = match report.result() {
        Level::Ok => Style::new().bold(),
        level => style_of(level),
    };
    let blank = String::new();
    let mut lines = print(&settings, usize::MAX, layout);
    lines.push(blank.clone());
    lines.extend(print(&findings, SUBJECT_COLUMNS, layout));
    lines.push(blank);
    lines.push(styled(&report.summary(), style, layout));
    lines.join("\n")
}

fn heading(word: &str, name: &str, text: &str) -> Row {
    Row {
        word: word.to_owned(),
        style: Style::new().bold(),
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn rows_of(setting: &Setting, report: &Report) -> Vec<Row> {
    let row = |origin: Origin, text: &str| Row {
        word: origin.to_string(),
        style: match origin {
            Origin::Default => Style::new().dimmed(),
            _ => Style::new(),
        },
        name: setting.name.clone(),
        text: text.to_owned(),
    };
    if setting.name == KAFKA_PROPERTIES && setting.state == State::Hidden {
        let rows = [Origin::Variable, Origin::File].into_iter();
        let rows = rows.filter_map(|origin| {
            let properties = report.kafka_properties.iter();
            let properties = properties.filter(|property| property.origin == origin);
            let names: Vec<_> = properties.map(|property| property.name.as_str()).collect();
            (!names.is_empty()).then(|| row(origin, &names.join(", ")))
        });
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            return rows;
        }
    }
    let text = match setting.state {
        State::Set => setting.value.as_deref().unwrap_or_default(),
        State::Unset => "not set",
        State::Hidden => "(hidden)",
        State::Invalid => "(invalid)",
    };
    vec![row(setting.origin, text)]
}

/// One row for each finding, but for those without a problem: one for each subject.
fn rows_of_findings(findings: &[Finding]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for level in [Level::Ok, Level::Warning, Level::Error] {
        for finding in findings.iter().filter(|finding| finding.level == level) {
            let same = rows.iter_mut().find(|row| row.name == finding.subject);
            if let (Level::Ok, Some(row)) = (level, same) {
                row.text.push_str("; ");
                row.text.push_str(&finding.text);
                continue;
            }
            rows.push(Row {
                word: level.to_string(),
                style: style_of(level),
                name: finding.subject.clone(),
                text: finding.text.clone(),
            });
        }
    }
    rows
}

fn style_of(level: Level) -> Style {
    match level {
        Level::Ok => AnsiColor::Green.on_default(),
        Level::Warning => AnsiColor::Yellow.on_default().bold(),
        Level::Error => AnsiColor::Red.on_default().bold(),
    }
}

fn styled(text: &str, style: Style, layout: Layout) -> String {
    match layout.has_colours {
        true => format!("{style}{text}{style:#}"),
        false => text.to_owned(),
    }
}

/// The lines of these rows. With wrapped lines, a name wider than this has a line of its own.
fn print(rows: &[Row], widest: usize, layout: Layout) -> Vec<String> {
    let words = rows.iter().map(|row| width(&row.word)).max().unwrap_or(0);
    let widest = match layout.columns {
        Some(columns) => widest.min(columns.saturating_sub(words + 2 * GAP + TEXT_COLUMNS_MIN)),
        None => usize::MAX,
    };
    let names = rows.iter().map(|row| width(&row.name));
    let names = names.filter(|name| *name <= widest).max().unwrap_or(0);
    let indent = words + GAP + names + GAP;
    let mut lines = Vec::new();
    for row in rows {
        let text = printable(&row.text);
        let text = match layout.columns {
            Some(columns) => wrap(&text, columns.saturating_sub(indent).max(TEXT_COLUMNS_MIN)),
            None => vec![text],
        };
        let word = styled(&row.word, row.style, layout);
        let gap = words - width(&row.word) + GAP;
        let mut line = format!("{word}{:gap$}{:<names$}", "", printable(&row.name));
        let mut text = text.into_iter();
        if width(&row.name) <= names {
            line.push_str(&format!("{:GAP$}{}", "", text.next().unwrap_or_default()));
        }
        lines.push(line.trim_end().to_owned());
        lines.extend(text.map(|text| format!("{:indent$}{text}", "")));
    }
    lines
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A value or a path may contain what moves the cursor of a terminal.
fn printable(text: &str) -> String {
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text.to_owned(),
    }
}

/// Breaks text into lines of this width, between words if possible.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for mut word in text.split(' ') {
        if !line.is_empty() {
            if width(&line) + 1 + width(word) <= columns {
                line.push(' ');
                line.push_str(word);
                continue;
            }
            lines.push(std::mem::take(&mut line));
        }
        while width(word) > columns {
            let (cut, rest) = word.split_at(end_of_cut(word, columns));
            lines.push(cut.to_owned());
            word = rest;
        }
        word.clone_into(&mut line);
    }
    lines.push(line);
    lines
}

/// Where to cut a word that is too long, such as a path or a list of topics.
fn end_of_cut(word: &str, columns: usize) -> usize {
    let end = word.char_indices().nth(columns);
    let end = end.map_or(word.len(), |(at, _)| at);
    let (head, _) = word.split_at(end);
    let at = head.rfind([',', ';', '/', '=']).filter(|at| *at > 0);
    at.map_or(end, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::super::report::Property;
    use super::*;

    const WIDE: Layout = Layout {
        columns: None,
        has_colours: false,
    };
    const NARROW: Layout = Layout {
        columns: Some(64),
        has_colours: false,
    };

    fn setting(name: &str, origin: Origin, state: State, value: Option<&str>) -> Setting {
        Setting {
            name: name.to_owned(),
            origin,
            state,
            value: value.map(str::to_owned),
        }
    }

    fn report() -> Report {
        let findings = vec![
            Finding::ok("topic", "gets group_join"),
            Finding::error(
                "a-topic-with-a-long-name",
                "the topic does not exist; create it, or set ZIM2KAFKA_CREATE_TOPICS=true",
            ),
            Finding::ok("Kafka", "answers"),
            Finding::ok("topic", "12 partitions"),
            Finding::warning("topic", "replication factor 1: use 3"),
            Finding::error("spool", "\u{1b}[2Jis not writable"),
        ];
        let settings = vec![
            setting(
                "ZIM2KAFKA_LISTEN",
                Origin::Default,
                State::Set,
                Some("0.0.0.0:8080"),
            ),
            setting("ZIM2KAFKA_CALLBACK_PATH", Origin::Flag, State::Hidden, None),
            setting(KAFKA_PROPERTIES, Origin::Variable, State::Hidden, None),
            setting("ZIM2KAFKA_SPOOL_DIR", Origin::Default, State::Unset, None),
            setting(
                "ZIM2KAFKA_BODY_LIMIT",
                Origin::Variable,
                State::Invalid,
                None,
            ),
        ];
        let property = |name: &str, origin| Property {
            name: name.to_owned(),
            origin,
        };
        let properties = vec![
            property("linger.ms", Origin::Variable),
            property("sasl.password", Origin::File),
            property("sasl.username", Origin::File),
        ];
        Report::new(false, findings, settings, properties)
    }

    fn lines(table: &str) -> Vec<&str> {
        table.lines().collect()
    }

    #[test]
    fn each_finding_is_one_line_and_the_worst_are_last() {
        let expected = [
            r"ORIGIN    SETTING                     VALUE",
            r"flag      ZIM2KAFKA_CALLBACK_PATH     (hidden)",
            r"variable  ZIM2KAFKA_KAFKA_PROPERTIES  linger.ms",
            r"file      ZIM2KAFKA_KAFKA_PROPERTIES  sasl.password, sasl.username",
            r"variable  ZIM2KAFKA_BODY_LIMIT        (invalid)",
            r"default   ZIM2KAFKA_LISTEN            0.0.0.0:8080",
            r"default   ZIM2KAFKA_SPOOL_DIR         not set",
            r"",
            r"LEVEL    SUBJECT                   FINDING",
            r"ok       topic                     gets group_join; 12 partitions",
            r"ok       Kafka                     answers",
            r"warning  topic                     replication factor 1: use 3",
            r"error    a-topic-with-a-long-name  the topic does not exist; create it, or set ZIM2KAFKA_CREATE_TOPICS=true",
            r"error    spool                     \u{1b}[2Jis not writable",
            r"",
            r"2 errors, 1 warning",
        ];
        assert_eq!(lines(&of(&report(), WIDE)), expected);
    }

    #[test]
    fn long_texts_are_wrapped_under_their_column() {
        let table = of(&report(), NARROW);
        let lines = lines(&table);
        let expected = [
            r"file      ZIM2KAFKA_KAFKA_PROPERTIES  sasl.password,",
            r"                                      sasl.username",
        ];
        assert_eq!(lines[3..5], expected);
        let expected = [
            r"warning  topic    replication factor 1: use 3",
            r"error    a-topic-with-a-long-name",
            r"                  the topic does not exist; create it, or set",
            r"                  ZIM2KAFKA_CREATE_TOPICS=true",
            r"error    spool    \u{1b}[2Jis not writable",
        ];
        assert_eq!(lines[12..17], expected);
    }

    #[test]
    fn colours_change_nothing_else() {
        let coloured = of(
            &report(),
            Layout {
                has_colours: true,
                ..NARROW
            },
        );
        assert!(
            coloured.contains("\u{1b}[1m\u{1b}[31merror\u{1b}[0m    spool"),
            "{coloured:?}"
        );
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(plain, of(&report(), NARROW));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let report = report();
        for columns in 40..200 {
            let layout = Layout {
                columns: Some(columns),
                ..WIDE
            };
            let table = of(&report, layout);
            let widest = table.lines().map(width).max().expect("lines");
            assert!(widest <= columns, "{columns}: {table}");
            let is_blank = |line: &&str| line.ends_with(' ');
            assert_eq!(table.lines().find(is_blank), None, "{table}");
        }
    }

    #[test]
    fn words_that_are_too_long_are_cut_and_nothing_is_lost() {
        let list = "group=zim.group,room=zim.room";
        assert_eq!(wrap(list, 16), ["group=zim.group,", "room=zim.room"]);
        assert_eq!(wrap("/abcdefgh", 4), ["/abc", "defg", "h"]);
        assert_eq!(wrap("äöüäöü ß", 4), ["äöüä", "öü ß"]);
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn the_summary_counts_errors_and_warnings() {
        assert_eq!(report().summary(), "2 errors, 1 warning");
        let well = Report::new(
            true,
            vec![Finding::ok("spool", "is writable")],
            vec![],
            vec![],
        );
        assert_eq!(well.summary(), "no errors, no warnings");
        assert_eq!(well.result(), Level::Ok);
    }
}
