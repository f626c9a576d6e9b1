//! The settings of the callback port, its secrets and its certificate.

use std::time::Duration;

use super::{
    CALLBACK_SECRETS, CallbackArgs, ConfigError, ConfigErrors, ConnectionArgs, DeadlineArgs,
    Faults, NOT_SET, SecretsArgs, ServeArgs, Source, contradiction, file, invalid, omit, variable,
};
use crate::callback::Secrets;
use crate::event::Omit;
use crate::http::{
    BeforeSend, CallbackSettings, Certificate, CertificateError, ConnectionLimits, SenderSettings,
};
use crate::intake::IntakeSettings;
use crate::spool::SpoolSettings;

/// The settings of the two ports and of the spool, checked.
pub struct PortSettings {
    /// The callback port.
    pub callbacks: CallbackSettings,
    /// What is left out of records.
    pub omit: Omit,
    /// Its certificate and the certificate's files.
    pub certificate: Option<(Certificate, Source<Certificate>)>,
    /// The spool.
    pub spool: Option<SpoolSettings>,
}

/// The same settings. Those that are at fault are missing.
pub struct PortParts {
    callbacks: Option<CallbackSettings>,
    /// What is left out of records.
    pub omit: Option<Omit>,
    /// The certificate and its files; `Some(None)` for plain HTTP.
    pub certificate: Option<Option<(Certificate, Source<Certificate>)>>,
    spool: Option<Option<SpoolSettings>>,
}

impl ServeArgs {
    /// All settings but those of Kafka, and the secrets.
    pub fn ports(&self, faults: &mut Faults) -> Option<PortSettings> {
        let parts = self.port_parts(faults);
        Some(PortSettings {
            callbacks: parts.callbacks?,
            omit: parts.omit?,
            certificate: parts.certificate?,
            spool: parts.spool?,
        })
    }

    /// The same, each as far as it is valid.
    pub fn port_parts(&self, faults: &mut Faults) -> PortParts {
        faults.take(self.listen.check());
        let callbacks = (self.callback).callback_settings(&self.deadlines, &self.connections);
        let parts = PortParts {
            callbacks: faults.take(callbacks),
            omit: faults.take(self.callback.omit()),
            certificate: faults.take(self.connections.certificate()),
            spool: faults.take(self.spool.settings(&self.deadlines)),
        };
        // The faults of the routes are those of Kafka's settings.
        if let Ok(routes) = self.kafka.routes() {
            faults.take(self.check_unit(&routes));
        }
        parts
    }
}

impl CallbackArgs {
    /// The settings of the callback port.
    ///
    /// # Errors
    ///
    /// All invalid settings.
    pub fn callback_settings(
        &self,
        deadlines: &DeadlineArgs,
        connections: &ConnectionArgs,
    ) -> Result<CallbackSettings, ConfigErrors> {
        let DeadlineArgs {
            answer_deadline,
            drain_delay,
            stop_deadline,
        } = *deadlines;
        let mut faults = Faults::default();
        if stop_deadline <= drain_delay {
            faults.add(contradiction(
                "ZIM2KAFKA_STOP_DEADLINE",
                "ZIM2KAFKA_DRAIN_DELAY",
                format!(
                    "{stop_deadline:?} must be longer than ZIM2KAFKA_DRAIN_DELAY ({drain_delay:?}), which it includes; write {:?}",
                    drain_delay + Duration::from_secs(5)
                ),
            ));
        }
        faults.take(check_path(&self.callback_path));
        let before_send = faults.take(self.before_send());
        faults.finish(before_send.map(|before_send| CallbackSettings {
            path: self.callback_path.clone(),
            body_limit: self.body_limit,
            answer_deadline,
            senders: connections.senders(),
            before_send,
        }))
    }

    /// What is left out of records.
    ///
    /// # Errors
    ///
    /// Every name that cannot be left out.
    pub fn omit(&self) -> Result<Omit, ConfigErrors> {
        self.omit
            .as_deref()
            .map_or(Ok(Omit::default()), omit::parse)
    }

    fn before_send(&self) -> Result<BeforeSend, ConfigError> {
        match (&self.before_send, &self.before_send_reason) {
            (BeforeSend::Refuse { .. }, reason) => Ok(BeforeSend::Refuse {
                reason: reason.clone(),
            }),
            (policy, None) => Ok(policy.clone()),
            (_, Some(_)) => Err(contradiction(
                "ZIM2KAFKA_BEFORE_SEND_REASON",
                "ZIM2KAFKA_BEFORE_SEND",
                "has no effect without ZIM2KAFKA_BEFORE_SEND=refuse; set that, or unset the reason",
            )),
        }
    }

    /// The settings of the intake, with these secrets.
    pub fn intake(&self, secrets: Secrets, omit: Omit) -> IntakeSettings {
        IntakeSettings {
            secrets,
            timestamp_unit: self.timestamp_unit,
            timestamp_tolerance: self.timestamp_tolerance,
            omit,
        }
    }
}

/// Parses the answer to `before_send_msg`, without its reason.
pub(super) fn before_send(text: &str) -> Result<BeforeSend, String> {
    match text {
        "neutral" => Ok(BeforeSend::Neutral),
        "send" => Ok(BeforeSend::Send),
        "refuse" => Ok(BeforeSend::Refuse { reason: None }),
        _ => Err(format!(
            "{text:?} is not an answer to before_send_msg; write neutral, send or refuse"
        )),
    }
}

/// The most characters of a reason. ZEGOCLOUD's pages give no limit; a client shows one line.
const MAX_REASON_CHARACTERS: usize = 256;

/// Parses the reason of a refusal.
pub(super) fn before_send_reason(text: &str) -> Result<String, String> {
    let characters = text.chars().count();
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if characters > MAX_REASON_CHARACTERS {
        format!("has {characters} characters")
    } else if text.chars().any(char::is_control) {
        "has a line break or another control character".to_owned()
    } else {
        return Ok(text.to_owned());
    };
    Err(format!(
        "{problem}; write one line of 1 to {MAX_REASON_CHARACTERS} characters"
    ))
}

/// The path may be a secret, so the message does not show it.
fn check_path(path: &str) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let problem = if path.contains("://") {
        "is a URL; write only its path"
    } else if !path.starts_with('/') {
        "does not begin with /; write a path"
    } else if path.contains(['?', '#']) {
        "has a query or a fragment; write only the path"
    } else if !path.bytes().all(is_plain) {
        "has a character that a URL cannot have; write it percent-encoded"
    } else {
        return Ok(());
    };
    let problem = format!("{problem}, as in /callbacks/zim");
    Err(invalid("ZIM2KAFKA_CALLBACK_PATH", problem))
}

/// The callback secrets, from their variable or their file, and the file as a source of changes.
///
/// # Errors
///
/// If neither or both are set, or the secrets cannot be read.
pub fn secrets(
    arguments: &SecretsArgs,
) -> Result<(Secrets, Option<Source<Secrets>>), ConfigErrors> {
    const FILE: &str = "ZIM2KAFKA_CALLBACK_SECRETS_FILE";
    let file = arguments.callback_secrets_file.as_deref();
    match (variable(CALLBACK_SECRETS)?, file) {
        (Some(_), Some(_)) => Err(invalid(
            CALLBACK_SECRETS,
            format!("is set together with {FILE}; set one of the two"),
        )
        .into()),
        (Some(list), None) => {
            let secrets = Secrets::parse_list(&list);
            let secrets = secrets.map_err(|error| invalid(CALLBACK_SECRETS, error))?;
            Ok((secrets, None))
        }
        (None, Some(path)) => {
            let (source, secrets) = Source::open(&[(FILE, path)], |contents| {
                let text = contents
                    .first()
                    .map_or(Ok(""), |content| file::text(content));
                let text = text.map_err(|problem| invalid(FILE, problem))?;
                Secrets::parse_lines(text).map_err(|error| invalid(FILE, error))
            })?;
            Ok((secrets, Some(source)))
        }
        (None, None) => Err(contradiction(
            CALLBACK_SECRETS,
            FILE,
            format!(
                "{NOT_SET}; write appid=secret with the project's CallbackSecret from ZEGOCLOUD's console"
            ),
        )
        .into()),
    }
}

impl ConnectionArgs {
    /// How many connections there may be, and how long they may be idle.
    pub fn limits(&self) -> ConnectionLimits {
        let connections = self.max_connections as usize;
        ConnectionLimits {
            connections,
            reserved: ConnectionLimits::reserve_for(connections),
            per_address: self.max_connections_per_address,
            idle: self.idle_timeout,
        }
    }

    /// Checks that no certificate is set, for a command that serves plain HTTP only.
    ///
    /// # Errors
    ///
    /// If one is set.
    pub fn check_plain(&self) -> Result<(), ConfigError> {
        match self.tls_cert {
            None => Ok(()),
            Some(_) => Err(invalid(
                "ZIM2KAFKA_TLS_CERT",
                "cannot be used with `demo`, which sends to itself over plain HTTP; unset it",
            )),
        }
    }

    /// Which addresses may send.
    pub fn senders(&self) -> SenderSettings {
        SenderSettings {
            allowed: self.allowed_networks.clone(),
            trusted_proxies: self.trusted_proxies.clone().unwrap_or_default(),
        }
    }

    /// The certificate and its files; `None` for plain HTTP.
    ///
    /// # Errors
    ///
    /// If only one of the two files is set, or they cannot be read or used.
    pub fn certificate(&self) -> Result<Option<(Certificate, Source<Certificate>)>, ConfigErrors> {
        const CERT: &str = "ZIM2KAFKA_TLS_CERT";
        const KEY: &str = "ZIM2KAFKA_TLS_KEY";
        let (cert, key) = match (&self.tls_cert, &self.tls_key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => {
                return Err(contradiction(
                    KEY,
                    CERT,
                    format!("is not set, but {CERT} is; set both or neither"),
                )
                .into());
            }
            (None, Some(_)) => {
                return Err(contradiction(
                    CERT,
                    KEY,
                    format!("is not set, but {KEY} is; set both or neither"),
                )
                .into());
            }
        };
        let (source, certificate) = Source::open(&[(CERT, cert), (KEY, key)], |contents| {
            let [chain, key] = contents else {
                return Err(invalid(CERT, "needs two files"));
            };
            Certificate::parse(chain, key).map_err(|error| match error {
                CertificateError::NoKey(_) | CertificateError::UnusableKey(_) => {
                    invalid(KEY, error)
                }
                error => invalid(CERT, error),
            })
        })?;
        Ok(Some((certificate, source)))
    }
}
