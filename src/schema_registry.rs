//! The ids of the events' schemas in a schema registry with Confluent's API.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
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
#[derive(Clone)]
pub struct SchemaRegistry {
    urls: Vec<Uri>,
    credentials: Option<HeaderValue>,
    client: HttpClient,
    registration: Registration,
}

/// What is done with a schema that the registry may not have.
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
    /// It refuses the user.
    #[error(
        "the schema registry at {url} answers {status}; check ZIM2KAFKA_SCHEMA_REGISTRY_AUTH, and that this user may {need} the subject {subject}"
    )]
    Forbidden {
        /// The URL of the registry.
        url: Uri,
        /// The status.
        status: StatusCode,
        /// What the user needs to do with the subject.
        need: &'static str,
        /// The subject.
        subject: &'static str,
    },
    /// The schema is not registered, and is only looked up.
    #[error(
        "the schema registry has not the schema {schema} under the subject {subject}; register the file of that name in schemas/, or set ZIM2KAFKA_SCHEMA_REGISTRY_REGISTER=true"
    )]
    NotRegistered {
        /// The `$id` of the schema.
        schema: &'static str,
        /// The subject.
        subject: &'static str,
    },
    /// The registry refuses the schema.
    #[error(
        "the schema registry refuses the schema of the subject {subject} ({status}: {message}); compare the versions of the subject and its compatibility level"
    )]
    Refused {
        /// The subject.
        subject: &'static str,
        /// The status.
        status: StatusCode,
        /// What it says.
        message: String,
    },
    /// The answer is not one of a schema registry.
    #[error(
        "the answer of {url} ({status}) is not one of a schema registry; check the path in ZIM2KAFKA_SCHEMA_REGISTRY"
    )]
    Unknown {
        /// The URL of the registry.
        url: Uri,
        /// The status.
        status: StatusCode,
    },
}

/// An answer of the registry: an id, or an error.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Id { id: u32 },
    Error { error_code: u32, message: String },
}

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
            credentials,
            client: HttpClient::trusting(authorities),
            registration,
        }
    }

    /// Finds the ids of all events with a topic, and sets them. Repeats that until the registry has
    /// answered for each, and logs once a minute why it has not.
    pub async fn learn(&self, routes: &Routes, ids: &Arc<SchemaIds>) {
        let throttle = LogThrottle::default();
        let mut has_failed = false;
        loop {
            let error = match self.ids(routes, self.registration).await {
                Ok(found) => {
                    if has_failed {
                        tracing::info!("the schema registry has answered; events are published");
                    }
                    ids.set(found);
                    return;
                }
                Err(error) => error,
            };
            has_failed = true;
            ids.set_obstacle(error.to_string());
            if throttle.is_due() {
                tracing::warn!("{error}. No event is published before that");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The ids of all events with a topic.
    ///
    /// # Errors
    ///
    /// Those of the first schema that has none.
    pub async fn ids(
        &self,
        routes: &Routes,
        registration: Registration,
    ) -> Result<BTreeMap<&'static str, u32>, RegistryError> {
        let published = EVENTS
            .into_iter()
            .filter(|kind| matches!(routes.target_of(kind.name), Target::Topic(_)));
        let mut ids = BTreeMap::new();
        for kind in published {
            ids.insert(kind.name, self.id(kind, registration).await?);
        }
        Ok(ids)
    }

    /// What is done with a schema that is missing.
    pub fn registration(&self) -> Registration {
        self.registration
    }

    /// The id of an event's schema, from the first URL that answers.
    async fn id(&self, kind: &Kind, registration: Registration) -> Result<u32, RegistryError> {
        let mut urls = self.urls.iter();
        loop {
            let url = urls.next().expect("the settings have a URL");
            match self.id_at(url, kind, registration).await {
                Err(RegistryError::Unreachable { .. }) if urls.len() > 0 => {}
                answer => return answer,
            }
        }
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
        match (status, serde_json::from_slice(&body)) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Err(RegistryError::Forbidden {
                    url: url.clone(),
                    status,
                    need,
                    subject,
                })
            }
            (StatusCode::OK, Ok(Answer::Id { id })) => Ok(id),
            (
                StatusCode::NOT_FOUND,
                Ok(Answer::Error {
                    error_code: NO_SUBJECT | NO_SCHEMA,
                    ..
                }),
            ) => Err(RegistryError::NotRegistered {
                schema: kind.schema,
                subject,
            }),
            (_, Ok(Answer::Error { message, .. })) => Err(RegistryError::Refused {
                subject,
                status,
                message,
            }),
            (_, _) => Err(RegistryError::Unknown {
                url: url.clone(),
                status,
            }),
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

/// The schema of an event, as JSON.
fn text_of(kind: &Kind) -> &'static str {
    let found = SCHEMAS.iter().find(|(id, _)| *id == kind.schema);
    found.map_or("", |(_, text)| text)
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
}
