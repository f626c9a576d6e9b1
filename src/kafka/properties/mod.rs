//! The librdkafka properties that an operator may set, checked before a client is made from them.

mod errors;
mod files;
mod foreign;
mod tables;
mod text;
mod together;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::BaseProducer;

use super::{Ordering, brokers, client_config};
pub use errors::{Place, Problem, PropertyError};
pub use tables::REFUSED;
use tables::{canonical, is_pem, is_secret};
use text::Entry;
use values::{Misread, read, value_in};

/// An operator's librdkafka properties, checked against those that the promises depend on.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<String, Set>);

/// A property that is set.
#[derive(Clone)]
struct Set {
    value: String,
    place: Place,
}

impl Properties {
    /// Checks the properties of the variable and of the file, which may both be given. Names each
    /// property to `reading` before it reads the property's file, because that may wait for a disk.
    ///
    /// # Errors
    ///
    /// Every fault, in the order of their places.
    pub fn parse(
        list: Option<&str>,
        file: Option<&str>,
        brokers: &str,
        reading: impl Fn(Place, &str),
    ) -> Result<Self, Vec<PropertyError>> {
        let (mut entries, mut faults) = list.map(text::list).unwrap_or_default();
        let (more, more_faults) = file.map(text::file).unwrap_or_default();
        entries.extend(more);
        faults.extend(more_faults);
        let mut checked = Checked {
            ours: client_config::of_producer(Self::default().client(), Ordering::Relaxed),
            brokers,
            set: BTreeMap::new(),
            not_kept: BTreeSet::new(),
            may_be_secret: false,
        };
        for entry in entries {
            let place = entry.place;
            if let Err(problem) = checked.add(entry) {
                faults.push(PropertyError { place, problem });
            }
        }
        let unread = checked.unread_files(&faults, reading);
        faults.extend(together::faults(&checked.set));
        faults.extend(unread);
        if faults.is_empty() {
            let not_kept = checked.not_kept;
            let is_kept = |name: &String, _: &mut Set| !not_kept.contains(name);
            let mut set = checked.set;
            set.retain(is_kept);
            return Self(set).validated().map_err(|fault| vec![fault]);
        }
        faults.sort_by_key(|fault| match fault.place {
            Place::Entry(number) => (0, number),
            Place::Line(number) => (1, number),
        });
        Err(faults)
    }

    /// Checks the properties of a variable: `key=value`, separated by new lines or `;`.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn parse_list(text: &str) -> Result<Self, Vec<PropertyError>> {
        Self::parse(Some(text), None, "", |_, _| {})
    }

    /// The security protocol, in lower case.
    pub fn security_protocol(&self) -> String {
        let protocol = self.0.get("security.protocol");
        protocol.map_or("plaintext".to_owned(), |set| set.value.to_ascii_lowercase())
    }

    /// The names of the properties, with their places. They never hold a secret.
    pub fn names(&self) -> impl Iterator<Item = (&str, Place)> {
        self.0.iter().map(|(name, set)| (name.as_str(), set.place))
    }

    /// What has no effect, or another one than the operator may think.
    pub fn warnings(&self) -> Vec<String> {
        const TIMEOUT: &str = "socket.timeout.ms";
        let ours = client_config::of_producer(self.client(), Ordering::Relaxed);
        let raised = match (self.0.get(TIMEOUT), ours.get(TIMEOUT)) {
            (Some(set), Some(ours)) if set.value != ours => Some(format!(
                "{TIMEOUT} is raised to {ours}, so that a request can wait for those before it, \
                 each for request.timeout.ms"
            )),
            _ => None,
        };
        let secrets = self
            .0
            .iter()
            .filter(|(name, _)| is_secret(name) && !is_pem(name));
        let odd = secrets.filter_map(|(name, set)| {
            let value = set.value.as_str();
            let end = match value {
                _ if is_quoted(value) => "quotes around it",
                _ if value.ends_with(char::is_whitespace) => "a blank at its end",
                _ => return None,
            };
            Some(format!(
                "the value of {name} has {end}, taken as a part of it"
            ))
        });
        let unused = together::warning(&self.0).into_iter();
        unused.chain(raised).chain(odd).collect()
    }

    /// Creates a producer without brokers, to check that these properties are compatible with each
    /// other, with ours, with this build of librdkafka and with what is in the files they name.
    /// librdkafka's message names properties and files and shows no password.
    fn validated(self) -> Result<Self, PropertyError> {
        let Some(first) = self.0.values().next() else {
            return Ok(self);
        };
        let producer: KafkaResult<BaseProducer> =
            client_config::of_producer(self.client(), Ordering::Relaxed).create();
        match producer {
            Ok(_) => Ok(self),
            Err(error) => {
                let message = error.to_string();
                let named = self.0.iter().filter(|(name, _)| message.contains(*name));
                let named = named.max_by_key(|(name, _)| name.len());
                Err(PropertyError {
                    place: named.map_or(first.place, |(_, set)| set.place),
                    problem: Problem::Unusable(message),
                })
            }
        }
    }

    /// The configuration that all our clients share, without the brokers.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "zim2kafka")
            // NAT gateways and load balancers drop idle connections.
            .set("socket.keepalive.enable", "true")
            // The bundled OpenSSL has no default folder of certificates, so probe for the system's.
            .set("ssl.ca.location", "probe")
            // The default of 10 s would delay waiting records after an outage.
            .set("reconnect.backoff.max.ms", "2000")
            .set("enable.metrics.push", "false")
            // Otherwise looking up a topic would create it, on brokers that allow that.
            .set("allow.auto.create.topics", "false");
        for (key, set) in &self.0 {
            config.set(key, &set.value);
        }
        config
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The properties that were checked so far.
struct Checked<'a> {
    /// Our configuration.
    ours: ClientConfig,
    brokers: &'a str,
    /// All properties by their canonical names, also those with a fault.
    set: BTreeMap<String, Set>,
    /// The names of `set` whose value is ours anyway.
    not_kept: BTreeSet<String>,
    /// Whether the next entry of the list may be the rest of a secret that contains a `;`.
    may_be_secret: bool,
}

/// The value of a property that another one stands for. No name accepts it.
const STANDS_IN: &str = "\0";

impl Checked<'_> {
    /// Checks a property and adds it.
    fn add(&mut self, entry: Entry) -> Result<(), Problem> {
        let Entry { place, key, value } = entry;
        let may_be_secret = self.may_be_secret && matches!(place, Place::Entry(_));
        let name = canonical(&key).to_owned();
        let value = match is_secret(&name) {
            true => value,
            false => value.trim().to_owned(),
        };
        self.may_be_secret = true;
        let is_unknown = read(&name, "") == Err(Misread::Unknown);
        let nearest = tables::nearest(&key);
        let instead = foreign::instead_of(&key);
        let is_name_of_a_client =
            !is_unknown || nearest.is_some() || (instead.is_some() && key.contains('.'));
        if may_be_secret && !is_name_of_a_client {
            let name = None;
            return Err(Problem::Unknown { name, nearest });
        }
        let is_name = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        if key.is_empty() || !key.chars().all(is_name) {
            return Err(Problem::Name);
        }
        if let Some(reason) = tables::missing_mechanism(&key) {
            return Err(Problem::Unsupported { name: key, reason });
        }
        if let (Some(instead), None) = (instead, tables::refused(&key)) {
            if key.contains("jaas") {
                // It stands for them, so they are not missing too.
                for name in ["sasl.username", "sasl.password"] {
                    let value = STANDS_IN.to_owned();
                    self.set
                        .entry(name.to_owned())
                        .or_insert(Set { value, place });
                }
            }
            return Err(Problem::Foreign { name: key, instead });
        }
        if is_unknown {
            let name = Some(key);
            return Err(Problem::Unknown { name, nearest });
        }
        self.may_be_secret = is_secret(&name);
        let set = Set { value, place };
        if let Some(first) = self.set.get(&name).filter(|first| first.value != STANDS_IN) {
            let other = match (first.place, place) {
                (Place::Entry(number), Place::Line(_)) => {
                    format!("entry {number} of ZIM2KAFKA_KAFKA_PROPERTIES")
                }
                (first, _) => first.to_string(),
            };
            return Err(Problem::Twice { name: key, other });
        }
        self.set.insert(name.clone(), set.clone());
        self.judge(&key, &name, &set)
    }

    /// The faults of the files that TLS needs, apart from those of properties with a fault.
    fn unread_files(
        &self,
        faults: &[PropertyError],
        reading: impl Fn(Place, &str),
    ) -> Vec<PropertyError> {
        let protocol = self.set.get("security.protocol");
        let protocol = protocol.map(|set| set.value.to_ascii_lowercase());
        // librdkafka reads no file without TLS.
        if protocol.is_none_or(|name| ["plaintext", "sasl_plaintext"].contains(&name.as_str())) {
            return Vec::new();
        }
        let files = self.set.iter().filter(|(name, set)| {
            let is_at_fault = faults.iter().any(|fault| fault.place == set.place);
            files::is_path(name, &set.value) && !is_at_fault
        });
        let fault = |(name, set): (&String, &Set)| {
            reading(set.place, name);
            let instead = files::check(name, &set.value).err()?;
            Some(PropertyError {
                place: set.place,
                problem: Problem::Value {
                    name: name.clone(),
                    instead,
                },
            })
        };
        files.filter_map(fault).collect()
    }

    /// Checks the value of a property.
    fn judge(&mut self, key: &str, name: &str, set: &Set) -> Result<(), Problem> {
        let value = set.value.as_str();
        let own = || key.to_owned();
        let wrong = |instead: String| Problem::Value {
            name: own(),
            instead,
        };
        if let Some(reason) = tables::refused(key) {
            let is_ours = match name {
                "bootstrap.servers" => brokers::are_same(value, self.brokers),
                _ => read(name, value).is_ok_and(|value| value == value_in(&self.ours, name)),
            };
            self.not_kept.insert(name.to_owned());
            return match is_ours {
                true => Ok(()),
                false => Err(Problem::Refused {
                    name: own(),
                    reason,
                }),
            };
        }
        if name == "sasl.mechanism" {
            if let Some(reason) = tables::missing_mechanism(value) {
                return Err(Problem::Unsupported {
                    name: own(),
                    reason,
                });
            }
            if !tables::is_mechanism(value) {
                return Err(wrong(format!("write {}", tables::MECHANISMS)));
            }
        }
        let is_in = |(begin, end): (&str, &str)| value.starts_with(begin) && value.ends_with(end);
        if [("${", "}"), ("{{", "}}")].into_iter().any(is_in) {
            return Err(wrong(
                "placeholders are not resolved; write the value".to_owned(),
            ));
        }
        if value.contains('\0') {
            return Err(wrong("it has a NUL character; remove it".to_owned()));
        }
        if is_pem(name) {
            check_pem(set).map_err(wrong)?;
        } else if !is_secret(name) {
            check_text(name, value).map_err(wrong)?;
        }
        match read(name, value) {
            Ok(_) => Ok(()),
            Err(Misread::Write(instead)) => Err(wrong(instead)),
            Err(Misread::Unknown) => {
                let instead = "leave it out; this version of librdkafka has no such property";
                Err(wrong(instead.to_owned()))
            }
        }
    }
}

/// librdkafka would ignore a certificate that is cut off, if another one stands before it.
fn check_pem(set: &Set) -> Result<(), String> {
    let value = set.value.as_str();
    let instead = match set.place {
        _ if !text::is_pem(value) => "write the PEM text itself; the path of a file is ….location",
        _ if text::is_open_pem(value) => "the PEM text is cut off; write all of it",
        // OpenSSL ignores the line behind it, and so a certificate.
        _ if value.contains('\u{feff}') => "it has a byte order mark; write it without one",
        _ if value.contains('\n') => return Ok(()),
        Place::Entry(_) => {
            "the variable has no escapes; write the PEM text with its line ends, or put it into a file"
        }
        Place::Line(_) => "write \\n for each line end of the PEM text",
    };
    Err(instead.to_owned())
}

/// Whether a list was separated by something else than the format has.
fn holds_property(value: &str) -> bool {
    let value = value.replace("\\n", ";");
    let pieces = value.split([';', ',', ' ']).skip(1);
    let mut names = pieces.filter_map(|piece| piece.split_once('='));
    names.any(|(name, _)| tables::is_known(name))
}

fn is_quoted(value: &str) -> bool {
    ['"', '\'']
        .into_iter()
        .any(|quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote))
}

/// Checks a value that is neither a secret nor a PEM text.
fn check_text(name: &str, value: &str) -> Result<(), String> {
    let instead = match value {
        _ if is_quoted(value) => "write it without quotes",
        _ if text::is_pem(value) && name.ends_with(".location") => {
            "it is the path of a file; a PEM text belongs to ….pem"
        }
        _ if value.contains(char::is_control) => "it has a control character; remove it",
        _ if holds_property(value) => {
            "another property stands in it; write each on a line of its own, or in the variable separated by ;"
        }
        _ => return Ok(()),
    };
    Err(instead.to_owned())
}

#[cfg(test)]
mod tests;
