//! The settings of the callback port, its secrets and its certificate.

use std::path::Path;

use super::{
    CALLBACK_SECRETS, CallbackArgs, ConfigError, ConnectionArgs, DEADLINE_MAX, DeadlineArgs,
    Source, file, invalid, variable,
};
use crate::callback::Secrets;
use crate::event::MAX_RECORD_BYTES;
use crate::http::{
    CallbackSettings, Certificate, CertificateError, ConnectionLimits, SenderSettings,
};
use crate::intake::IntakeSettings;

impl CallbackArgs {
    /// The settings of the callback port.
    ///
    /// # Errors
    ///
    /// The first invalid setting.
    pub fn callback_settings(
        &self,
        deadlines: &DeadlineArgs,
        connections: &ConnectionArgs,
    ) -> Result<CallbackSettings, ConfigError> {
        let DeadlineArgs {
            answer_deadline,
            drain_delay,
            stop_deadline,
        } = *deadlines;
        if answer_deadline.is_zero() || answer_deadline > DEADLINE_MAX {
            return Err(invalid(
                "ZIM2KAFKA_ANSWER_DEADLINE",
                "must be more than 0 and at most 1h",
            ));
        }
        if stop_deadline > DEADLINE_MAX {
            return Err(invalid("ZIM2KAFKA_STOP_DEADLINE", "must be at most 1h"));
        }
        if stop_deadline <= drain_delay {
            let problem = "must be longer than ZIM2KAFKA_DRAIN_DELAY, which it includes";
            return Err(invalid("ZIM2KAFKA_STOP_DEADLINE", problem));
        }
        let body_limit = self.body_limit;
        if !(1..=MAX_RECORD_BYTES).contains(&body_limit) {
            let problem = format!(
                "must be from 1 to {MAX_RECORD_BYTES} bytes, because a body must fit into a record"
            );
            return Err(invalid("ZIM2KAFKA_BODY_LIMIT", problem));
        }
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
        if !self.callback_path.starts_with('/') || !self.callback_path.bytes().all(plain) {
            let problem = "must be a URL path: begin with /, percent-encoded, without ? and #";
            return Err(invalid("ZIM2KAFKA_CALLBACK_PATH", problem));
        }
        Ok(CallbackSettings {
            path: self.callback_path.clone(),
            body_limit,
            answer_deadline,
            senders: connections.senders(),
        })
    }

    /// The settings of the intake, with these secrets.
    pub fn intake(&self, secrets: Secrets) -> IntakeSettings {
        IntakeSettings {
            secrets,
            timestamp_unit: self.timestamp_unit,
            timestamp_tolerance: self.timestamp_tolerance,
        }
    }
}

/// The callback secrets, from their variable or their file, and the file as a source of changes.
///
/// # Errors
///
/// If neither or both are set, or the secrets cannot be read.
pub fn secrets(file: Option<&Path>) -> Result<(Secrets, Option<Source<Secrets>>), ConfigError> {
    const FILE: &str = "ZIM2KAFKA_CALLBACK_SECRETS_FILE";
    match (variable(CALLBACK_SECRETS)?, file) {
        (Some(_), Some(_)) => Err(invalid(
            CALLBACK_SECRETS,
            format!("is set together with {FILE}; set one of the two"),
        )),
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
        (None, None) => Err(invalid(
            CALLBACK_SECRETS,
            "is not set; write appid=secret with the project's CallbackSecret from ZEGOCLOUD's console",
        )),
    }
}

impl ConnectionArgs {
    /// How many connections there may be, and how long they may be idle.
    ///
    /// # Errors
    ///
    /// The first invalid setting.
    pub fn limits(&self) -> Result<ConnectionLimits, ConfigError> {
        let idle = self.idle_timeout;
        if idle.is_zero() || idle > DEADLINE_MAX {
            return Err(invalid(
                "ZIM2KAFKA_IDLE_TIMEOUT",
                "must be more than 0 and at most 1h",
            ));
        }
        Ok(ConnectionLimits {
            connections: self.max_connections as usize,
            per_address: self.max_connections_per_address,
            idle,
        })
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
    pub fn certificate(&self) -> Result<Option<(Certificate, Source<Certificate>)>, ConfigError> {
        const CERT: &str = "ZIM2KAFKA_TLS_CERT";
        const KEY: &str = "ZIM2KAFKA_TLS_KEY";
        let (cert, key) = match (&self.tls_cert, &self.tls_key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => {
                return Err(invalid(
                    KEY,
                    format!("is not set, but {CERT} is; set both or neither"),
                ));
            }
            (None, Some(_)) => {
                return Err(invalid(
                    CERT,
                    format!("is not set, but {KEY} is; set both or neither"),
                ));
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
