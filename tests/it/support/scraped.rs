//! What a scrape of `/metrics` holds.

use std::collections::BTreeMap;

/// `/metrics`, taken apart.
pub(crate) struct Scraped {
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) help: BTreeMap<String, String>,
    /// By name and labels, as they stand there.
    pub(crate) series: BTreeMap<String, f64>,
}

impl Scraped {
    pub(crate) fn of(text: &str) -> Self {
        let mut scraped = Self {
            types: BTreeMap::new(),
            help: BTreeMap::new(),
            series: BTreeMap::new(),
        };
        for line in text.lines() {
            let (meta, about) = match (line.strip_prefix("# TYPE "), line.strip_prefix("# HELP ")) {
                (Some(kind), _) => (&mut scraped.types, kind),
                (_, Some(help)) => (&mut scraped.help, help),
                _ => {
                    let (name, value) = line.rsplit_once(' ').expect("a series and its value");
                    let value = value.parse().expect("a number");
                    assert_eq!(
                        scraped.series.insert(name.to_owned(), value),
                        None,
                        "{name}"
                    );
                    continue;
                }
            };
            let (name, about) = about
                .split_once(' ')
                .expect("a name and what is said of it");
            assert_eq!(
                meta.insert(name.to_owned(), about.to_owned()),
                None,
                "{name}"
            );
        }
        scraped
    }
}
