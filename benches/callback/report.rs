//! The medians, as a table and as JSON.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::load::{Figures, Load, Pace};
use super::subjects::{Kind, Subject};
use super::support::start::Start;

#[derive(Default)]
pub(crate) struct Report {
    all: BTreeMap<Kind, Vec<Figures>>,
    /// Callbacks per second against the bare handler: wrk's and ours.
    wrk: Option<[f64; 2]>,
}

/// If our load differs from wrk by more than this, the benchmark measures the load generator.
const APART: f64 = 0.15;

impl Report {
    pub(crate) fn add(&mut self, kind: Kind, figures: Figures) {
        self.all.entry(kind).or_default().push(figures);
    }

    /// Measures the bare handler with wrk and with our own load, in turn.
    pub(crate) fn compare_with_wrk(&mut self, load: &Load) {
        let subject = Subject::start(Kind::Bare, load);
        let target = subject.target().expect("it takes callbacks");
        let mut connected = load.connect(target);
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            let Some(rate) = wrk(load, &format!("http://{target}/callbacks/zim")) else {
                eprintln!("wrk is not installed, so the load generator is not compared with it");
                return;
            };
            rates[0].push(rate);
            let short = connected.run(Pace::Saturation, Duration::from_secs(3));
            rates[1].push(short.per_second());
        }
        self.wrk = Some(rates.map(median));
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.wrk
            .is_none_or(|[wrk, ours]| (ours / wrk - 1.0).abs() <= APART)
    }

    fn medians(&self) -> BTreeMap<Kind, Figures> {
        let medians = |all: &Vec<Figures>| {
            let of = |value: &dyn Fn(&Figures) -> f64| median(all.iter().map(value).collect());
            Figures {
                per_second: of(&|figures| figures.per_second),
                cpu_us: of(&|figures| figures.cpu_us),
                saturation: [0, 1, 2].map(|at| of(&|figures| figures.saturation[at])),
                half_load: [0, 1, 2].map(|at| of(&|figures| figures.half_load[at])),
                rss_mb: of(&|figures| figures.rss_mb),
                not_2xx: all.iter().map(|figures| figures.not_2xx).sum(),
            }
        };
        self.all
            .iter()
            .map(|(kind, all)| (*kind, medians(all)))
            .collect()
    }

    pub(crate) fn print(&self, load: &Load) {
        let medians = self.medians();
        println!(
            "{} connections, bodies of {} bytes, {} groups\n",
            load.connections, load.bytes, load.groups
        );
        if let Some([wrk, ours]) = self.wrk {
            println!("bare handler: wrk {wrk:.0}/s, our own load {ours:.0}/s\n");
        }
        println!(
            "| subject | callbacks/s | of a | CPU µs | of a | p50 / p99 / p99.9 ms | at half load | RSS MB | not 2xx |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        let bare = medians.get(&Kind::Bare).cloned().unwrap_or_default();
        for (kind, figures) in &medians {
            let latency = |[p50, p99, p999]: [f64; 3]| match p50 > 0.0 {
                true => format!("{p50:.2} / {p99:.2} / {p999:.2}"),
                false => String::new(),
            };
            println!(
                "| {kind} | {:.0} | {:.2} | {:.1} | {:.2} | {} | {} | {:.1} | {} |",
                figures.per_second,
                figures.per_second / bare.per_second,
                figures.cpu_us,
                figures.cpu_us / bare.cpu_us,
                latency(figures.saturation),
                latency(figures.half_load),
                figures.rss_mb,
                figures.not_2xx,
            );
        }
    }

    pub(crate) fn json(&self) -> String {
        let medians = self.medians();
        let subjects: serde_json::Map<_, _> = medians
            .iter()
            .map(|(kind, figures)| {
                let value = json!({
                    "callbacks_per_second": figures.per_second,
                    "cpu_us": figures.cpu_us,
                    "saturation_ms": figures.saturation,
                    "half_load_ms": figures.half_load,
                    "rss_mb": figures.rss_mb,
                    "not_2xx": figures.not_2xx,
                });
                (kind.to_string(), value)
            })
            .collect();
        json!({"wrk": self.wrk, "subjects": subjects}).to_string()
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// wrk's requests per second; `None` if it is not installed. One thread, as in our own load.
fn wrk(load: &Load, url: &str) -> Option<f64> {
    let script = tempfile::Builder::new()
        .suffix(".lua")
        .tempfile()
        .expect("a file");
    let body = "x".repeat(load.bytes);
    let text = format!("wrk.method = \"POST\"\nwrk.body = \"{body}\"\n");
    std::fs::write(script.path(), text).expect("it can be written");
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--duration", "3s", "--connections"])
        .arg(load.connections.to_string())
        .arg("--script")
        .arg(script.path())
        .arg(url)
        .stdin(Stdio::null());
    let said = command.finish().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    Some(
        rate.expect("wrk prints it")
            .trim()
            .parse()
            .expect("a number"),
    )
}
