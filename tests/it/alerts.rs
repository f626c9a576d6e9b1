//! Alerts quote only log lines that the service writes.

use crate::support::source::Source;

/// What a quote may be besides a log line.
const COMMANDS: [&str; 4] = ["zim2kafka", "kafka-topics.sh", "docker", "dmesg"];

/// Quotes in backquotes, each on one line.
fn quotes(rules: &str) -> Vec<String> {
    let lines = rules.lines().map(str::trim);
    let text: Vec<_> = lines.filter(|line| !line.starts_with('#')).collect();
    let text = text.join(" ");
    let quotes = text.split('`').skip(1).step_by(2);
    quotes.map(str::to_owned).collect()
}

fn is_command(quote: &str) -> bool {
    COMMANDS.contains(&quote.split(' ').next().unwrap_or_default())
}

/// The sources without tests and comments, which have every text that the program writes.
pub(crate) fn program() -> String {
    let sources = Source::all();
    let program = sources.iter().flat_map(|source| {
        let without_tests = source.text.split("#[cfg(test)]").next();
        without_tests.unwrap_or_default().lines()
    });
    let program = program.filter(|line| !line.trim_start().starts_with("//"));
    // `std` writes the last one.
    let lines: Vec<_> = program.chain(["panicked at"]).collect();
    lines.join("\n")
}

/// Whether each part of a quote stands in the text. `…` stands for what differs.
pub(crate) fn is_in(quote: &str, text: &str) -> bool {
    let mut parts = quote
        .split('…')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.all(|part| text.contains(part))
}

#[test]
fn every_log_line_that_an_alert_quotes_is_in_the_sources() {
    let text = program();
    let rules = include_str!("../../deploy/alerts.yml");
    let quotes = quotes(rules);
    let lines: Vec<_> = quotes.iter().filter(|quote| !is_command(quote)).collect();
    assert!(lines.len() >= 5, "{quotes:?}");
    for line in lines {
        assert!(
            is_in(line, &text),
            "no source contains the log line `{line}`, which deploy/alerts.yml quotes"
        );
    }
}

#[test]
fn every_alert_on_unauthorized_callbacks_quotes_the_line_that_each_of_them_causes() {
    let rules = include_str!("../../deploy/alerts.yml");
    let alerts = rules.split("- alert: ").skip(1);
    let unauthorized: Vec<_> = alerts
        .filter(|alert| alert.contains("outcome=\"unauthorized\""))
        .collect();
    assert_eq!(unauthorized.len(), 5, "{unauthorized:?}");
    for alert in unauthorized {
        let quotes = quotes(alert);
        let line = "answered 401 in the last minute … for example: …";
        assert!(quotes.iter().any(|quote| quote == line), "{alert}");
    }
}

#[test]
fn a_quote_of_a_line_that_is_not_in_the_sources_is_found() {
    let rules = "# `comment`\nfirst: `all … callbacks\n  were lost` and `zim2kafka check`";
    let quotes = quotes(rules);
    assert_eq!(quotes, ["all … callbacks were lost", "zim2kafka check"]);
    assert!(is_in(&quotes[0], "\"all {} callbacks were lost\""));
    assert!(!is_in(&quotes[0], "\"all {} callbacks were stored\""));
    assert!(is_command(&quotes[1]) && !is_command(&quotes[0]));
}
