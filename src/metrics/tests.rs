use super::*;

#[test]
fn every_value_of_a_label_counts_its_own_series() {
    let metrics = Metrics::new();
    for &outcome in Outcome::VARIANTS {
        metrics.callback_arrived().finished(outcome);
        let counted = format!("{{outcome=\"{}\"}} 1\n", <&str>::from(outcome));
        let series = format!("zim2kafka_callbacks_total{counted}");
        let durations = format!("zim2kafka_callback_duration_seconds_count{counted}");
        let text = metrics.text();
        assert!(
            text.contains(&series) && text.contains(&durations),
            "{text}"
        );
    }
    for &reason in Reason::VARIANTS {
        metrics.record_durable(Counted::DeadLetter(reason));
        let series = format!("zim2kafka_dead_letters_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
    for &join_type in JoinType::VARIANTS {
        let users = 3;
        metrics.record_durable(Counted::Event {
            joined: Some(Joined { join_type, users }),
        });
        let join_type: &str = join_type.into();
        let series = format!("zim2kafka_group_joins_total{{join_type=\"{join_type}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{join_type}");
    }
    for &reason in CloseReason::VARIANTS {
        metrics.connections().closed_by_us(reason);
        let reason: &str = reason.into();
        let series = format!("zim2kafka_connections_cut_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
    for &reason in RefusalReason::VARIANTS {
        metrics.connections().request_refused(reason);
        let reason: &str = reason.into();
        let series = format!("zim2kafka_requests_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
}

#[test]
fn an_application_has_its_series_from_when_it_is_configured_until_it_is_not() {
    let metrics = Metrics::new();
    let series = || -> Vec<String> {
        let text = metrics.text();
        let lines = (text.lines()).filter(|line| line.starts_with("zim2kafka_app_callbacks_total"));
        lines.map(str::to_owned).collect()
    };
    let of = |appid: &str, accepted: u32, unauthorized: u32| {
        let name = format!("zim2kafka_app_callbacks_total{{appid=\"{appid}\",outcome=");
        [
            format!("{name}\"accepted\"}} {accepted}"),
            format!("{name}\"unauthorized\"}} {unauthorized}"),
        ]
    };
    assert_eq!(series(), of("other", 0, 0));
    let first = metrics.apps().of(Some("1"));
    assert_eq!(series(), [of("1", 0, 0), of("other", 0, 0)].concat());
    first.accepted.inc();
    metrics.apps().of(Some("1")).unauthorized.inc();
    metrics.apps().of(None).unauthorized.inc();
    assert_eq!(series(), [of("1", 1, 1), of("other", 0, 1)].concat());
    metrics.apps().remove("1");
    assert_eq!(series(), of("other", 0, 1));
}
