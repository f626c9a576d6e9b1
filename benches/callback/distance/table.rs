//! The figures of the rows, and how they are printed.

use std::fmt;

use super::super::load::{Answers, Load};
use super::super::report::median;
use super::rows::{Row, Target};

/// The results of one run, or the medians of several with the answers of all.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) latency: [f64; 3],
    pub(super) cpu_us: f64,
    pub(super) answers: Answers,
    /// Answers with another status.
    pub(super) other: u64,
}

/// Prints what holds for all rows, and the head of the table.
pub(super) fn print_header(brokers: usize, load: &Load, rounds: usize) {
    println!(
        "Apache Kafka, brokers: {brokers}, {} groups, bodies of {} bytes. Medians of {rounds} runs of {} s; answers are \
         those of all runs. Round trip 0 is without a proxy.\n",
        load.groups,
        load.bytes,
        load.duration.as_secs()
    );
    println!(
        "| round trip, partitions, rate | p50 / p99 / p99.9 ms | CPU µs | published | spooled | duplicate | 503 | target | |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |");
}

pub(super) fn print_row(row: Row, figures: &Figures, has_spool: bool) {
    let (mut targets, mut missed) = (Vec::new(), Vec::new());
    let mut compare = |name: &'static str, is_missed: bool| {
        if is_missed {
            missed.push(name);
        }
    };
    let Target { latency, cpu_us } = row.target();
    if let Some([p50, p99]) = latency {
        targets.push(format!("{p50} / {p99} ms"));
        compare("p50", figures.latency[0] > p50);
        compare("p99", figures.latency[1] > p99);
    }
    if let Some(cpu_us) = cpu_us {
        targets.push(format!("{cpu_us} µs"));
        compare("CPU", figures.cpu_us > cpu_us);
    }
    let Answers {
        published,
        spooled,
        duplicate,
        unavailable,
    } = figures.answers;
    if latency.is_some() && has_spool {
        targets.push("none spooled".to_owned());
        compare("spooled", spooled > 0);
    }
    if latency.is_some() || row.is_tls {
        targets.push("no 503".to_owned());
        compare("503", unavailable > 0);
    }
    let verdict = match (targets.is_empty(), missed.is_empty()) {
        (true, _) => String::new(),
        (false, true) => "reached".to_owned(),
        (false, false) => format!("**missed**: {}", missed.join(", ")),
    };
    let [p50, p99, p999] = figures.latency;
    let spooled = match has_spool {
        true => spooled.to_string(),
        false => "no spool".to_owned(),
    };
    println!(
        "| {row} | {p50:.1} / {p99:.1} / {p999:.1} | {:.0} | {published} | {spooled} | {duplicate} | {unavailable} | {} | {verdict} |",
        figures.cpu_us,
        targets.join(", "),
    );
    if figures.other > 0 {
        eprintln!("{row}: {} answers with another status", figures.other);
    }
}

impl Figures {
    pub(super) fn median(runs: &[Self]) -> Self {
        let of = |value: &dyn Fn(&Self) -> f64| median(runs.iter().map(value).collect());
        let sum = |value: &dyn Fn(&Self) -> u64| runs.iter().map(value).sum();
        Self {
            latency: [0, 1, 2].map(|at| of(&|figures| figures.latency[at])),
            cpu_us: of(&|figures| figures.cpu_us),
            answers: Answers {
                published: sum(&|figures| figures.answers.published),
                spooled: sum(&|figures| figures.answers.spooled),
                duplicate: sum(&|figures| figures.answers.duplicate),
                unavailable: sum(&|figures| figures.answers.unavailable),
            },
            other: sum(&|figures| figures.other),
        }
    }
}

/// For the progress, on stderr.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = self.latency;
        write!(
            f,
            "p50 / p99 / p99.9 {p50:.2} / {p99:.2} / {p999:.2} ms, CPU {:.0} µs, published {}, spooled {}, 503 {}",
            self.cpu_us, self.answers.published, self.answers.spooled, self.answers.unavailable
        )
    }
}
