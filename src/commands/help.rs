//! What the help of several commands shares.

use clap::Arg;

/// The width of help in characters. Narrower terminals get narrower help.
pub(super) const HELP_WIDTH: usize = 80;

/// The settings that `-h` shows; `--help` shows all. So does `-h` with flags that are not settings.
const FIRST_SETTINGS: [&str; 10] = [
    "listen",
    "admin_listen",
    "callback_secrets_file",
    "tls_cert",
    "tls_key",
    "kafka_brokers",
    "topic",
    "topics",
    "create_topics",
    "spool_dir",
];

/// The command and its own commands, of which `-h` shows the first settings.
pub(super) fn with_short_help(command: clap::Command) -> clap::Command {
    command
        .mut_args(in_short_help)
        .mut_subcommands(with_short_help)
}

/// Hides a setting from `-h` that is not one of the first.
fn in_short_help(arg: Arg) -> Arg {
    let is_first = FIRST_SETTINGS.contains(&arg.get_id().as_str());
    let is_setting = arg.get_env().is_some();
    arg.hide_short_help(is_setting && !is_first)
}

/// The settings that no command has as a flag.
pub(super) const ENVIRONMENT: &str = "\
Secrets and Kafka properties are set by variables only, because every user of
a machine can read the flags of its processes:
  ZIM2KAFKA_CALLBACK_SECRETS  appid=secret,appid=secret with the CallbackSecret
                              from ZEGOCLOUD's console; the same appid twice =
                              rotation; *=secret for other appids
  ZIM2KAFKA_KAFKA_PROPERTIES  librdkafka properties, key=value, separated by
                              new lines or ; and besides those in the file of
                              ZIM2KAFKA_KAFKA_PROPERTIES_FILE
  ZIM2KAFKA_SCHEMA_REGISTRY_AUTH
                              user:password for the schema registry, or in the
                              file of ZIM2KAFKA_SCHEMA_REGISTRY_AUTH_FILE

`zim2kafka serve --help` explains every setting of the service.";

pub(super) const EXIT_CODES: &str =
    "Exit codes: 0 success, 1 failure, 2 wrong usage or configuration.";
