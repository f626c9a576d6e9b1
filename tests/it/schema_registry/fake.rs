//! A schema registry that answers as a test wants.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// How it answers.
#[derive(Debug, Clone)]
pub(super) enum Answers {
    /// As a registry does.
    Well,
    /// With this status and this body, whatever is asked.
    With(StatusCode, String),
    /// The same for this subject only.
    WithFor(&'static str, StatusCode, String),
}

/// It runs until the runtime ends.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<Known>>,
}

struct Known {
    answers: Answers,
    /// The header that it demands.
    authorization: Option<String>,
    /// The registered schemas with their ids, by subject.
    subjects: BTreeMap<String, (u32, Value)>,
    /// The paths of all requests.
    asked: Vec<String>,
}

impl Fake {
    pub(super) fn start() -> Self {
        Self::start_by(|listener, router| {
            let service = router.into_make_service();
            tokio::spawn(async move {
                axum_server::from_tcp(listener)
                    .expect("it listens")
                    .serve(service)
                    .await
            });
        })
    }

    /// With TLS.
    pub(super) fn start_with(cert: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(cert).expect("PEM");
        let chain = chain.map(|certificate| certificate.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_file(key).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        let tls = RustlsConfig::from_config(Arc::new(config));
        Self::start_by(|listener, router| {
            let service = router.into_make_service();
            tokio::spawn(async move {
                axum_server::from_tcp_rustls(listener, tls)
                    .expect("it listens")
                    .serve(service)
                    .await
            });
        })
    }

    fn start_by(serve: impl FnOnce(TcpListener, Router)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        listener.set_nonblocking(true).expect("a socket can");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(Known {
            answers: Answers::Well,
            authorization: None,
            subjects: BTreeMap::new(),
            asked: Vec::new(),
        }));
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        serve(listener, router);
        Self { address, state }
    }

    pub(super) fn answer(&self, answers: Answers) {
        self.state.lock().answers = answers;
    }

    /// From now on it demands this header.
    pub(super) fn demand(&self, authorization: &str) {
        self.state.lock().authorization = Some(authorization.to_owned());
    }

    /// Registers all schemas of the repository, with ids from this one on.
    pub(super) fn register_all(&self, first: u32) {
        for (id, kind) in (first..).zip(zim2kafka::event::EVENTS) {
            let name = kind.schema.trim_start_matches("urn:zim2kafka:schema:");
            let name = name.replace(':', ".");
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");
            let text = std::fs::read_to_string(format!("{folder}/{name}.schema.json"));
            let schema = serde_json::from_str(&text.expect("it is there")).expect("JSON");
            let subject = kind.ce_type.to_owned();
            self.state.lock().subjects.insert(subject, (id, schema));
        }
    }

    /// The id of a subject's schema.
    pub(super) fn id(&self, subject: &str) -> u32 {
        self.state.lock().subjects[subject].0
    }

    /// The paths of all requests.
    pub(super) fn asked(&self) -> Vec<String> {
        self.state.lock().asked.clone()
    }
}

async fn answer(State(state): State<Arc<Mutex<Known>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    let body: Bytes = to_bytes(request.into_body(), 1 << 20).await.expect("short");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = state.lock();
    state.asked.push(path.clone());
    match &state.answers {
        Answers::Well => {}
        Answers::WithFor(subject, ..) if !path.contains(subject) => {}
        Answers::With(status, text) | Answers::WithFor(_, status, text) => {
            return (*status, text.clone()).into_response();
        }
    }
    let is_allowed = (state.authorization.as_ref())
        .is_none_or(|wanted| authorization.is_some_and(|given| given == wanted.as_str()));
    if !is_allowed {
        let text = json!({"error_code": 40101, "message": "Unauthorized"}).to_string();
        return (StatusCode::UNAUTHORIZED, text).into_response();
    }
    assert_eq!(body["schemaType"], "JSON");
    let schema: Value = serde_json::from_str(body["schema"].as_str().expect("text")).expect("JSON");
    let rest = path.strip_prefix("/subjects/").expect("only subjects");
    let (subject, registers) = match rest.strip_suffix("/versions") {
        Some(subject) => (subject, true),
        None => (rest, false),
    };
    let known = state.subjects.get(subject).cloned();
    let id = match known {
        Some((id, known)) if known == schema => id,
        _ if registers => {
            let id = 1000 + state.subjects.len() as u32;
            state.subjects.insert(subject.to_owned(), (id, schema));
            id
        }
        _ => {
            let text = json!({"error_code": 40403, "message": "Schema not found"}).to_string();
            return (StatusCode::NOT_FOUND, text).into_response();
        }
    };
    json!({"id": id}).to_string().into_response()
}
