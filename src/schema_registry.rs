//! The ids of the events' schemas in a schema registry with Confluent's API.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Authorities, HttpClient};
use crate::event::{EVENTS, Kind, Routes, Target};
use crate::kafka::SchemaIds;
use crate::log::LogThrottle;

/// The media type of requests and answers.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// The time for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before the registry is asked again after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The text of each schema, by its `$id`. Made by `build.rs` from the files in `schemas/`.
const SCHEMAS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// A schema registry, and how its subjects are used. The subject of an event is its `ce_type`, so
/// it is the same whatever the topic is.
pub struct SchemaRegistry {
    urls: Vec<Uri>,
    /// The place of the URL that has answered last.
    at: AtomicUsize,
    credentials: Option<HeaderValue>,
    client: HttpClient,
    registration: Registration,
}

/// Whether a schema that the registry does not have is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// It is registered.
    Register,
    /// It is only looked up.
    LookUp,
}

/// Why the id of a schema is not known.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There was no answer.
    #[error(
        "the schema registry at {url} does not answer ({reason}); check ZIM2KAFKA_SCHEMA_REGISTRY and the network"
    )]
    Unreachable {
        /// The URL of the registry.
        url: Uri,
        /// Why.
        reason: String,
    },
    /// It has trouble of its own.
    #[error("the schema registry at {url} answers {status} ({message}); check its log")]
    Unavailable {
        /// The URL of the registry.
        url: Uri,
        /// The status.
        status: StatusCode,
        /// The message in its answer.
        message: String,
    },
    /// It refuses the user.
    #[error(
        "the schema registry at {url} answers {status}; check ZIM2KAFKA_SCHEMA_REGISTRY_AUTH, and that this user may {need} the subject {subject}"
    )]
    Forbidden {
        /// The URL of the registry.
        url: Uri,
        /// The status.
        status: StatusCode,
        /// The right that the user needs on the subject, as a verb.
        need: &'static str,
        /// The subject.
        subject: &'static str,
    },
    /// The schema is not registered, and is only looked up.
    #[error(
        "the schema registry does not have the schema {schema} under the subject {subject}; register its file in schemas/, or set ZIM2KAFKA_SCHEMA_REGISTRY_REGISTER=true"
    )]
    NotRegistered {
        /// The `$id` of the schema.
        schema: &'static str,
        /// The subject.
        subject: &'static str,
    },
    /// The registry refuses the schema.
    #[error(
        "the schema registry refuses the schema of the subject {subject} ({status}: {message}); compare the versions of the subject with the file in schemas/, and its compatibility level"
    )]
    Refused {
        /// The subject.
        subject: &'static str,
        /// The status.
        status: StatusCode,
        /// The message in its answer.
        message: String,
    },
    /// The answer is not one of a schema registry.
    #[error(
        "the answer of {url} ({status}) is not one of a schema registry; check the host and the path in ZIM2KAFKA_SCHEMA_REGISTRY"
    )]
    Unknown {
        /// The URL of the registry.
        url: Uri,
        /// The status.
        status: StatusCode,
    },
}

/// An answer of the registry: an id, or an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    id: Option<u32>,
    error_code: Option<u32>,
    message: Option<String>,
}

impl RegistryError {
    /// Whether another server of the registry may answer, or this one later, whatever the schema is.
    fn is_of_server(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. })
    }
}

/// The most characters of a message of the registry that are shown.
const MAX_MESSAGE_CHARS: usize = 300;

/// Confluent's codes for a subject, and for a schema of a subject, that does not exist.
const NO_SUBJECT: u32 = 40401;
const NO_SCHEMA: u32 = 40403;

impl SchemaRegistry {
    /// A registry with these URLs, which are tried in their order.
    pub fn new(
        urls: Vec<Uri>,
        credentials: Option<&str>,
        authorities: Authorities,
        registration: Registration,
    ) -> Self {
        let credentials = credentials.map(|pair| {
            let text = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let mut value = HeaderValue::try_from(text).expect("Base64 is visible ASCII");
            value.set_sensitive(true);
            value
        });
        Self {
            urls,
            at: AtomicUsize::new(0),
            credentials,
            client: HttpClient::trusting(authorities),
            registration,
        }
    }

    /// Sets the ids of all events with a topic, each once the registry has answered for it, and logs
    /// once a minute, and for each new reason, why some are missing.
    pub async fn learn(&self, routes: &Routes, ids: &SchemaIds) {
        if let Some(warning) = self.warning() {
            tracing::warn!("schema registry: {warning}");
        }
        let throttle = LogThrottle::default();
        let mut known = BTreeMap::new();
        let mut has_failed = false;
        loop {
            let errors = self.ids(routes, self.registration, &mut known).await;
            let obstacle = summary(&errors);
            ids.set(known.clone(), obstacle.clone());
            let Some(obstacle) = obstacle else {
                if has_failed {
                    tracing::info!("the schema registry has answered; events are published");
                }
                return;
            };
            has_failed = true;
            if throttle.is_due_for(obstacle.clone()) {
                tracing::warn!("{obstacle}. Events of topics without ids wait until then");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Adds the ids of all events with a topic to those that are known. Returns why others are missing:
    /// one error for each, or a single one if the registry cannot be asked now.
    pub async fn ids(
        &self,
        routes: &Routes,
        registration: Registration,
        known: &mut BTreeMap<&'static str, u32>,
    ) -> Vec<RegistryError> {
        let mut errors = Vec::new();
        for kind in EVENTS {
            let is_published = matches!(routes.target_of(kind.name), Target::Topic(_));
            if !is_published || known.contains_key(kind.name) {
                continue;
            }
            match self.id(kind, registration).await {
                Ok(id) => drop(known.insert(kind.name, id)),
                Err(error) if error.is_of_server() => return vec![error],
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// A warning if the password is sent to another machine without TLS.
    pub fn warning(&self) -> Option<String> {
        self.credentials.as_ref()?;
        let is_open = |url: &&Uri| url.scheme_str() == Some("http") && !is_loopback(url);
        let open = self.urls.iter().filter(is_open).map(ToString::to_string);
        let open: Vec<_> = open.collect();
        (!open.is_empty()).then(|| {
            format!(
                "the password is sent unencrypted to {}, so others on the network path can read it; write https:// in ZIM2KAFKA_SCHEMA_REGISTRY, or connect through a TLS proxy on this machine",
                open.join(", ")
            )
        })
    }

    /// Whether missing schemas are registered.
    pub fn registration(&self) -> Registration {
        self.registration
    }

    /// The id of an event's schema, from the URL that has answered last, or the next one that does.
    async fn id(&self, kind: &Kind, registration: Registration) -> Result<u32, RegistryError> {
        let first = self.at.load(Ordering::Relaxed);
        let places = (0..self.urls.len()).map(|step| (first + step) % self.urls.len());
        let mut last = None;
        for at in places {
            let Some(url) = self.urls.get(at) else {
                continue;
            };
            match self.id_at(url, kind, registration).await {
                Err(error) if error.is_of_server() => last = last.or(Some(error)),
                answer => {
                    self.at.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last.expect("the settings have a URL"))
    }

    async fn id_at(
        &self,
        url: &Uri,
        kind: &Kind,
        registration: Registration,
    ) -> Result<u32, RegistryError> {
        let subject = kind.ce_type;
        let (versions, need) = match registration {
            Registration::Register => ("/versions", "write to"),
            Registration::LookUp => ("", "read"),
        };
        let base = url.to_string();
        let base = base.trim_end_matches('/');
        let mut request = Request::post(format!("{base}/subjects/{subject}{versions}"))
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header(ACCEPT, MEDIA_TYPE);
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        let body = json!({"schemaType": "JSON", "schema": text_of(kind)}).to_string();
        let answer = self.client.request(request, Bytes::from(body), TIMEOUT);
        let (status, body) = answer.await.map_err(|reason| RegistryError::Unreachable {
            url: url.clone(),
            reason,
        })?;
        let answer = serde_json::from_slice::<Answer>(&body).unwrap_or_default();
        let message = || {
            let text = answer.message.as_deref().unwrap_or("no reason given");
            let text: String = text.chars().take(MAX_MESSAGE_CHARS).collect();
            text.escape_debug().to_string()
        };
        let url = url.clone();
        match (status.as_u16(), answer.id, answer.error_code) {
            (200, Some(id), _) => Ok(id),
            (401 | 403, ..) => Err(RegistryError::Forbidden {
                url,
                status,
                need,
                subject,
            }),
            (429 | 500..=599, ..) => Err(RegistryError::Unavailable {
                url,
                status,
                message: message(),
            }),
            (404, _, Some(NO_SUBJECT | NO_SCHEMA)) => Err(RegistryError::NotRegistered {
                schema: kind.schema,
                subject,
            }),
            (409 | 422, _, Some(_)) => Err(RegistryError::Refused {
                subject,
                status,
                message: message(),
            }),
            _ => Err(RegistryError::Unknown { url, status }),
        }
    }
}

/// Without the credentials.
impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistry")
            .field("urls", &self.urls)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

/// The reason why ids are missing; `None` if there is no error.
pub fn summary(errors: &[RegistryError]) -> Option<String> {
    match errors {
        [] => None,
        [only] => Some(only.to_string()),
        [first, others @ ..] => Some(format!("{first} (and {} more)", others.len())),
    }
}

/// Whether the host of the URL is this machine, as far as its name shows that.
fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// The schema of an event, as JSON.
fn text_of(kind: &Kind) -> &'static str {
    let found = SCHEMAS.iter().find(|(id, _)| *id == kind.schema);
    let (_, text) = found.expect("a test checks that every event has a file in schemas/");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_event_has_the_text_of_its_schema() {
        for kind in EVENTS {
            let schema: Value = serde_json::from_str(text_of(kind)).expect("it is JSON");
            assert_eq!(schema["$id"], kind.schema);
        }
    }

    /// The warning about these URLs.
    fn warning(urls: &str, credentials: Option<&str>) -> Option<String> {
        let urls = urls.split(',').map(|url| url.parse().expect("it is a URL"));
        let authorities = Authorities {
            roots: rustls::RootCertStore::empty(),
            setting: "",
        };
        let urls = urls.collect();
        SchemaRegistry::new(urls, credentials, authorities, Registration::LookUp).warning()
    }

    #[test]
    fn a_password_without_tls_is_warned_of_unless_it_stays_on_this_machine() {
        let password = Some("u:geheim");
        for url in [
            "http://registry:8081",
            "HTTP://10.0.0.7/apis/ccompat/v7",
            "http://[fd00::1]:8081",
            "http://0.0.0.0:8081",
            "http://localhost.example.com:8081",
            "http://127.0.0.1.example.com:8081",
        ] {
            let text = warning(url, password).expect(url);
            let host = url.split('/').nth(2).expect("a host");
            assert!(
                text.contains(&format!("unencrypted to http://{host}/")),
                "{text}"
            );
            assert!(!text.contains("geheim"), "{text}");
            assert_eq!(warning(url, None), None);
        }
        for url in [
            "https://registry:8081",
            "http://127.0.0.1:8081",
            "http://127.9.9.9:8081",
            "http://[::1]:8081",
            "http://[::ffff:127.0.0.1]:8081",
            "http://LocalHost:8081",
            "http://localhost.:8081",
            "http://registry.localhost:8081",
        ] {
            assert_eq!(warning(url, password), None, "{url}");
        }
        let several = "https://a,http://b,http://localhost,http://c";
        let text = warning(several, password).expect("two of them");
        assert!(
            text.contains("unencrypted to http://b/, http://c/, so"),
            "{text}"
        );
    }
}
