//! Panics on demand, so that tests can check how a panic is handled.

/// Panics if `ZIM2KAFKA_TEST_PANIC` names this place. Compiled into debug builds only.
pub(crate) fn hit(place: &str) {
    #[cfg(debug_assertions)]
    {
        static PLACE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let wanted = PLACE.get_or_init(|| std::env::var("ZIM2KAFKA_TEST_PANIC").ok());
        assert!(
            wanted.as_deref() != Some(place),
            "failpoint {place}: ZIM2KAFKA_TEST_PANIC is set"
        );
    }
    #[cfg(not(debug_assertions))]
    let _ = place;
}
