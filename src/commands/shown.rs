//! The settings in force, for the status page.

use crate::config::{KAFKA_PROPERTIES, Setting, State};
use crate::http::ShownSetting;
use crate::kafka::Properties;

/// Without secrets. Kafka properties are shown by name only.
pub(super) fn shown(settings: Vec<Setting>, properties: &Properties) -> Vec<ShownSetting> {
    let names: Vec<&str> = properties.names().map(|(name, _)| name).collect();
    let names = names.join(", ");
    let show = |setting: Setting| ShownSetting {
        value: match setting.state {
            State::Hidden if setting.name == KAFKA_PROPERTIES => names.clone(),
            State::Hidden => "hidden".to_owned(),
            State::Set | State::Unset | State::Invalid => setting.value.unwrap_or_default(),
        },
        name: setting.name,
        origin: setting.origin.to_string(),
    };
    settings.into_iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CALLBACK_SECRETS, Origin};

    #[test]
    fn no_secret_and_no_value_of_a_kafka_property_is_shown() {
        let setting = |name: &str, state, value: Option<&str>| Setting {
            name: name.to_owned(),
            origin: Origin::Variable,
            state,
            value: value.map(str::to_owned),
        };
        let settings = vec![
            setting(CALLBACK_SECRETS, State::Hidden, None),
            setting(KAFKA_PROPERTIES, State::Hidden, None),
            setting("ZIM2KAFKA_TOPICS", State::Set, Some("all")),
            setting("ZIM2KAFKA_SPOOL_DIR", State::Unset, None),
        ];
        let properties = Properties::parse_list("linger.ms=7;client.id=hidden-value");
        let shown = shown(settings, &properties.expect("valid"));
        let values: Vec<_> = shown.iter().map(|setting| setting.value.as_str()).collect();
        assert_eq!(values, ["hidden", "client.id, linger.ms", "all", ""]);
        assert!(shown.iter().all(|setting| setting.origin == "variable"));
    }
}
