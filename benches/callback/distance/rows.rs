//! The rows of the table, and their targets.

use std::fmt;

/// Which rows are measured, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// Only rows with these round trips, in ms, as `2,10`
    #[arg(long, value_delimiter = ',')]
    round_trip: Vec<u64>,
    /// Only rows with these numbers of partitions
    #[arg(long, value_delimiter = ',')]
    partitions: Vec<i32>,
    /// Only rows with these callbacks per second
    #[arg(long, value_delimiter = ',')]
    rate: Vec<u64>,
    /// Only rows that have a target for their latency, and the one with TLS and SASL
    #[arg(long, conflicts_with_all = ["round_trip", "partitions", "rate"])]
    targets: bool,
    /// Only the row with TLS and SASL, which the other filters leave out
    #[arg(long, conflicts_with_all = ["round_trip", "partitions", "rate"])]
    tls: bool,
    /// Run the service without a spool
    #[arg(long)]
    no_spool: bool,
    /// Brokers of the Kafka; each replicates all partitions
    #[arg(long, default_value = "1")]
    pub(super) brokers: usize,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// In ms. 0 is a connection without a proxy.
    pub(super) round_trip: u64,
    pub(super) partitions: i32,
    /// Callbacks per second.
    pub(super) rate: u64,
    /// Whether the service connects with TLS and SASL, and is quiet before the measurement for
    /// longer than the broker keeps an idle connection.
    pub(super) is_tls: bool,
}

pub(super) struct Target {
    /// p50 and p99, in ms.
    pub(super) latency: Option<[f64; 2]>,
    pub(super) cpu_us: Option<f64>,
}

impl Selection {
    pub(super) fn rows(&self, is_tls: bool) -> Vec<Row> {
        let has_filter =
            !(self.round_trip.is_empty() && self.partitions.is_empty() && self.rate.is_empty());
        if is_tls {
            return if has_filter {
                Vec::new()
            } else {
                vec![Row::TLS]
            };
        }
        if self.tls {
            return Vec::new();
        }
        fn has<T: PartialEq>(wanted: &[T], value: &T) -> bool {
            wanted.is_empty() || wanted.contains(value)
        }
        let mut rows = Row::all();
        rows.retain(|row| {
            has(&self.round_trip, &row.round_trip)
                && has(&self.partitions, &row.partitions)
                && has(&self.rate, &row.rate)
                && (!self.targets || row.target().latency.is_some())
        });
        // So that other values can be tried out too.
        if let (true, [round_trip], [partitions], [rate]) = (
            rows.is_empty(),
            &self.round_trip[..],
            &self.partitions[..],
            &self.rate[..],
        ) {
            rows.push(Row::new(*round_trip, *partitions, *rate));
        }
        rows
    }

    pub(super) fn has_spool(&self, row: Row) -> bool {
        // A spool would hide that Kafka was not reached in time.
        !self.no_spool && !row.is_tls
    }
}

impl Row {
    const TLS: Self = Self {
        is_tls: true,
        ..Self::new(10, 12, 1_000)
    };

    const fn new(round_trip: u64, partitions: i32, rate: u64) -> Self {
        Self {
            round_trip,
            partitions,
            rate,
            is_tls: false,
        }
    }

    /// All rows without TLS.
    fn all() -> Vec<Self> {
        const PARTITIONS: [i32; 3] = [12, 48, 192];
        let mut rows = Vec::new();
        for (round_trip, rate) in [
            (0, 1_000),
            (2, 1_000),
            (10, 1_000),
            (10, 5_000),
            (50, 1_000),
        ] {
            rows.extend(PARTITIONS.map(|partitions| Self::new(round_trip, partitions, rate)));
        }
        rows.push(Self::new(200, 12, 1_000));
        rows
    }

    pub(super) fn target(self) -> Target {
        if self.is_tls {
            return Target {
                latency: None,
                cpu_us: None,
            };
        }
        let latency = match (self.round_trip, self.partitions, self.rate) {
            (0, 12, 1_000) => Some([1.5, 3.0]),
            (2, 48, 1_000) => Some([5.0, 10.0]),
            (10, 12 | 48, 1_000) => Some([13.0, 22.0]),
            (10, 192, 1_000) => Some([14.0, 30.0]),
            (10, 48, 5_000) => Some([20.0, 50.0]),
            (50, 12, 1_000) => Some([75.0, 120.0]),
            (50, 48, 1_000) => Some([80.0, 160.0]),
            (200, 12, 1_000) => Some([300.0, 600.0]),
            _ => None,
        };
        let cpu_us = match (self.round_trip, self.rate) {
            (0, 1_000) => Some(130.0),
            (10, 1_000) => Some(200.0),
            _ => None,
        };
        Target { latency, cpu_us }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            round_trip,
            partitions,
            rate,
            is_tls,
        } = self;
        write!(f, "{round_trip} ms, {partitions}, {rate}/s")?;
        if *is_tls {
            f.write_str(", TLS and SASL, after a quiet time")?;
        }
        Ok(())
    }
}
