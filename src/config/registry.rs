//! The settings of the schema registry.

use std::path::PathBuf;

use clap::Args;
use hyper::Uri;

use super::authorities::AuthoritiesSettings;
use super::environment::variable;
use super::faults::{ConfigError, ConfigErrors, Faults, contradiction, invalid};
use super::file::read_text;
use super::values::{boolean, path, value};
use crate::schema_registry::{Registration, SchemaRegistry};

/// The URLs of the registry.
const REGISTRY: &str = "ZIM2KAFKA_SCHEMA_REGISTRY";

/// `user:password` for the registry.
pub const SCHEMA_REGISTRY_AUTH: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_AUTH";

const AUTH_FILE: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_AUTH_FILE";

const CA: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_CA";

/// A schema registry, whose ids stand in front of values.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Schema registry")]
pub struct RegistryArgs {
    /// URLs of a schema registry with Confluent's API. The value of each event then begins with the
    /// id of its schema, in Confluent's wire format [default: none, values are plain JSON]
    #[arg(long, env = "ZIM2KAFKA_SCHEMA_REGISTRY", value_name = "URL,…", value_parser = value(urls))]
    pub schema_registry: Option<Urls>,
    /// File with user:password for the schema registry, instead of ZIM2KAFKA_SCHEMA_REGISTRY_AUTH
    #[arg(long, env = "ZIM2KAFKA_SCHEMA_REGISTRY_AUTH_FILE", value_name = "FILE", value_parser = path())]
    pub schema_registry_auth_file: Option<PathBuf>,
    /// PEM file with the authority of the schema registry's certificate [default: the system's
    /// authorities]
    #[arg(long, env = "ZIM2KAFKA_SCHEMA_REGISTRY_CA", value_name = "FILE", value_parser = path())]
    pub schema_registry_ca: Option<PathBuf>,
    /// Register schemas that are missing; with false they are only looked up
    #[arg(
        long,
        env = "ZIM2KAFKA_SCHEMA_REGISTRY_REGISTER",
        value_name = "true|false",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set,
        value_parser = value(boolean)
    )]
    pub schema_registry_register: bool,
}

/// URLs of HTTP servers, at least one. clap would take a list for a flag that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls(Vec<Uri>);

impl RegistryArgs {
    /// The schema registry; `None` if no URL is set.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or used, or another setting of the registry is set without the URLs.
    pub fn settings(&self) -> Result<Option<SchemaRegistry>, ConfigErrors> {
        let mut faults = Faults::default();
        let credentials = faults.take(self.credentials());
        let urls = self.schema_registry.as_ref().map(|urls| urls.0.as_slice());
        let names = AuthoritiesSettings {
            url: REGISTRY,
            file: CA,
        };
        let authorities = urls.map(|urls| names.read(urls, self.schema_registry_ca.as_deref()));
        let authorities = authorities.and_then(|read| faults.take(read));
        let credentials_set = credentials.as_ref().is_some_and(Option::is_some);
        if urls.is_none() {
            let unused = [
                (
                    SCHEMA_REGISTRY_AUTH,
                    credentials_set && self.schema_registry_auth_file.is_none(),
                ),
                (AUTH_FILE, self.schema_registry_auth_file.is_some()),
                (CA, self.schema_registry_ca.is_some()),
            ];
            for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
                faults.add(contradiction(
                    name,
                    REGISTRY,
                    format!("is set, but {REGISTRY} is not; set it too, or unset this"),
                ));
            }
        }
        let registry = urls.zip(authorities).zip(credentials.as_ref());
        let registry = registry.map(|((urls, authorities), credentials)| {
            SchemaRegistry::new(
                urls.to_vec(),
                credentials.as_deref(),
                authorities,
                match self.schema_registry_register {
                    true => Registration::Register,
                    false => Registration::LookUp,
                },
            )
        });
        faults.finish(Some(registry))
    }

    /// `user:password`, if the registry needs that.
    fn credentials(&self) -> Result<Option<String>, ConfigError> {
        let list = variable(SCHEMA_REGISTRY_AUTH)?;
        let (name, text) = match (list, &self.schema_registry_auth_file) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    SCHEMA_REGISTRY_AUTH,
                    format!("is set together with {AUTH_FILE}; set one of the two"),
                ));
            }
            (Some(text), None) => (SCHEMA_REGISTRY_AUTH, text),
            (None, Some(path)) => (AUTH_FILE, read_text(AUTH_FILE, path)?.trim().to_owned()),
            (None, None) => return Ok(None),
        };
        match text.split_once(':') {
            Some((user, _)) if !user.is_empty() && !text.contains(char::is_control) => {
                Ok(Some(text))
            }
            _ => Err(invalid(name, "is not user:password in one line")),
        }
    }
}

/// Parses URLs. A value may hold a password, so no part of it is repeated.
fn urls(text: &str) -> Result<Urls, String> {
    const WRITE: &str =
        "write http://host:8081 or https://host:8081, or several, separated by commas";
    // Anywhere, because a password may contain what ends a host.
    if text.contains('@') {
        return Err(format!(
            "has a user in it; set {SCHEMA_REGISTRY_AUTH}=user:password instead"
        ));
    }
    let url = |text: &str| {
        let url: Uri = text.trim().parse().ok()?;
        let is_http = ["http", "https"].map(Some).contains(&url.scheme_str());
        let is_plain = url.query().is_none() && !text.contains('#');
        (is_http && is_plain).then_some(url)
    };
    let urls = text.split(',').map(url).collect::<Option<Vec<_>>>();
    urls.map(Urls)
        .ok_or_else(|| format!("is not a list of HTTP URLs; {WRITE}"))
}
