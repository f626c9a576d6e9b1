//! What the callback port is to be like: its settings, its secrets, its certificate.

use std::path::Path;

use super::{
    AtMost, CALLBACK_SECRETS, CallbackArgs, ConfigError, ConnectionArgs, DeadlineArgs, LONGEST,
    Size, Source, Time, Tolerance, variable, wrong,
};
use crate::callback::Secrets;
use crate::event::MAX_RECORD_BYTES;
use crate::http::{
    CallbackSettings, Certificate, CertificateError, ConnectionLimits, SenderSettings,
};
use crate::intake::IntakeSettings;

impl CallbackArgs {
    /// What the callback port answers to.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be taken.
    pub fn edge(
        &self,
        deadlines: &DeadlineArgs,
        connections: &ConnectionArgs,
    ) -> Result<CallbackSettings, ConfigError> {
        let DeadlineArgs {
            answer_deadline: Time(answer_deadline),
            drain_delay: Time(drain_delay),
            stop_deadline: Time(stop_deadline),
        } = *deadlines;
        if answer_deadline.is_zero() || answer_deadline > LONGEST {
            return Err(wrong(
                "ZIM2KAFKA_ANSWER_DEADLINE",
                "must be longer than nothing, and at most 1h",
            ));
        }
        if stop_deadline > LONGEST {
            return Err(wrong("ZIM2KAFKA_STOP_DEADLINE", "must be at most 1h"));
        }
        if stop_deadline <= drain_delay {
            let problem = "must be longer than ZIM2KAFKA_DRAIN_DELAY, which is a part of it";
            return Err(wrong("ZIM2KAFKA_STOP_DEADLINE", problem));
        }
        let Size(body_limit) = self.body_limit;
        if !(1..=MAX_RECORD_BYTES).contains(&body_limit) {
            let problem = format!(
                "must be from 1 to {MAX_RECORD_BYTES} bytes: a body must fit into a record"
            );
            return Err(wrong("ZIM2KAFKA_BODY_LIMIT", problem));
        }
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
        if !self.callback_path.starts_with('/') || !self.callback_path.bytes().all(plain) {
            let problem = "must be a path as in a URL, from its first / on, percent-encoded and without ? and #";
            return Err(wrong("ZIM2KAFKA_CALLBACK_PATH", problem));
        }
        Ok(CallbackSettings {
            path: self.callback_path.clone(),
            body_limit,
            answer_deadline,
            senders: connections.senders(),
        })
    }

    /// Whose callbacks are accepted, with these secrets.
    pub fn intake(&self, secrets: Secrets) -> IntakeSettings {
        let Tolerance(timestamp_tolerance) = self.timestamp_tolerance;
        IntakeSettings {
            secrets,
            timestamp_unit: self.timestamp_unit,
            timestamp_tolerance,
        }
    }
}

/// The callback secrets, from their variable or their file; and their file as what may change.
///
/// # Errors
///
/// Where there are none, or they cannot be read, or both are set.
pub fn secrets(file: Option<&Path>) -> Result<(Secrets, Option<Source<Secrets>>), ConfigError> {
    const FILE: &str = "ZIM2KAFKA_CALLBACK_SECRETS_FILE";
    match (variable(CALLBACK_SECRETS)?, file) {
        (Some(_), Some(_)) => Err(wrong(
            CALLBACK_SECRETS,
            format!("set it or {FILE}, not both"),
        )),
        (Some(list), None) => {
            let secrets = Secrets::parse_list(&list);
            let secrets = secrets.map_err(|error| wrong(CALLBACK_SECRETS, error))?;
            Ok((secrets, None))
        }
        (None, Some(path)) => {
            let (source, secrets) = Source::open(&[(FILE, path)], |contents| {
                let text = contents.first().map_or(Ok(""), |text| str::from_utf8(text));
                let text = text.map_err(|_| wrong(FILE, "the file is not valid UTF-8"))?;
                Secrets::parse_lines(text).map_err(|error| wrong(FILE, error))
            })?;
            Ok((secrets, Some(source)))
        }
        (None, None) => Err(wrong(
            CALLBACK_SECRETS,
            "is not set: write appid=secret with the project's CallbackSecret from ZEGOCLOUD's console",
        )),
    }
}

impl ConnectionArgs {
    /// Who may hold a connection, and for how long.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be taken.
    pub fn limits(&self) -> Result<ConnectionLimits, ConfigError> {
        let Time(idle) = self.idle_timeout;
        if idle.is_zero() || idle > LONGEST {
            return Err(wrong(
                "ZIM2KAFKA_IDLE_TIMEOUT",
                "must be longer than nothing, and at most 1h",
            ));
        }
        let AtMost(per_address) = self.max_connections_per_address;
        Ok(ConnectionLimits {
            connections: self.max_connections as usize,
            per_address,
            idle,
        })
    }

    /// Who may send.
    pub fn senders(&self) -> SenderSettings {
        SenderSettings {
            allowed: self.allowed_networks.clone(),
            trusted_proxies: self.trusted_proxies.clone().unwrap_or_default(),
        }
    }

    /// The certificate and its files; none for plain HTTP.
    ///
    /// # Errors
    ///
    /// Where one of the two is set alone, or they cannot be read, or not be served.
    pub fn certificate(&self) -> Result<Option<(Certificate, Source<Certificate>)>, ConfigError> {
        const CERT: &str = "ZIM2KAFKA_TLS_CERT";
        const KEY: &str = "ZIM2KAFKA_TLS_KEY";
        let (cert, key) = match (&self.tls_cert, &self.tls_key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(wrong(KEY, format!("is not set, but {CERT} is"))),
            (None, Some(_)) => return Err(wrong(CERT, format!("is not set, but {KEY} is"))),
        };
        let (source, certificate) = Source::open(&[(CERT, cert), (KEY, key)], |contents| {
            let [chain, key] = contents else {
                return Err(wrong(CERT, "two files are read"));
            };
            Certificate::parse(chain, key).map_err(|error| match error {
                CertificateError::NoKey => wrong(KEY, error),
                error => wrong(CERT, error),
            })
        })?;
        Ok(Some((certificate, source)))
    }
}
