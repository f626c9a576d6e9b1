//! docker-compose.yml passes every setting to the service.

use std::collections::BTreeSet;

use clap::CommandFactory;
use zim2kafka::commands::Cli;
use zim2kafka::config::WITHOUT_FLAG;

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const DOCKERFILE: &str = include_str!("../../../Dockerfile");

/// The variables of the service, each with what compose gives it.
fn passed() -> Vec<(&'static str, &'static str)> {
    let lines = COMPOSE
        .lines()
        .filter_map(|line| line.strip_prefix("      ZIM2KAFKA_"));
    lines.filter_map(|line| line.split_once(':')).collect()
}

#[test]
fn the_stack_passes_every_setting_to_the_service() {
    let command = Cli::command();
    let commands = std::iter::once(&command).chain(command.get_subcommands());
    let settings = commands.flat_map(|command| command.get_arguments());
    let settings = settings.filter_map(|argument| argument.get_env()?.to_str());
    let settings: BTreeSet<_> = settings
        .chain(WITHOUT_FLAG)
        .map(|name| name.trim_start_matches("ZIM2KAFKA_"))
        .collect();
    let passed: BTreeSet<_> = passed().into_iter().map(|(name, _)| name).collect();
    assert_eq!(passed, settings);
}

#[test]
fn a_setting_that_the_stack_or_the_image_has_is_only_a_default() {
    for (name, value) in passed() {
        let value = value.trim();
        let is_default = value.starts_with(&format!("${{ZIM2KAFKA_{name}:"));
        assert!(value.is_empty() || is_default, "{name}: {value}");
        // An empty variable would replace the image's.
        if DOCKERFILE.contains(&format!("ENV ZIM2KAFKA_{name}=")) {
            assert!(value.contains(":-"), "{name}: {value}");
        }
    }
}
