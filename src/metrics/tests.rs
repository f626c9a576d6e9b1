use super::*;

#[test]
fn every_value_of_a_label_counts_its_own_series() {
    let metrics = Metrics::new();
    for outcome in Outcome::ALL {
        metrics.callback_arrived().finished(outcome);
        let counted = format!("{{outcome=\"{}\"}} 1\n", outcome.as_str());
        let series = format!("zim2kafka_callbacks_total{counted}");
        let durations = format!("zim2kafka_callback_duration_seconds_count{counted}");
        let text = metrics.text();
        assert!(
            text.contains(&series) && text.contains(&durations),
            "{text}"
        );
    }
    for reason in Reason::ALL {
        metrics.made_safe(Kind::DeadLetter(reason));
        let series = format!("zim2kafka_dead_letters_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
    for join_type in JoinType::ALL {
        let users = 3;
        metrics.made_safe(Kind::GroupJoined { join_type, users });
        let join_type = join_type.as_str();
        let series = format!("zim2kafka_group_joins_total{{join_type=\"{join_type}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{join_type}");
    }
    for why in Cut::ALL {
        metrics.connections().cut(why);
        let why = why.as_str();
        let series = format!("zim2kafka_connections_cut_total{{reason=\"{why}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{why}");
    }
}
