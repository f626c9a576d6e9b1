//! The consumers of `examples/`, as a subscriber runs them, against a real Kafka:
//! `.ci/consumers` provides what they need, and runs this.
//!
//! Every test runs with each of them, on the same records, and compares the member lists and counts
//! in the store with the expected ones.

#![allow(
    clippy::indexing_slicing,
    reason = "a test that indexes out of bounds fails, as it should"
)]

mod instance;
mod ledger;
mod records;
mod rounds;
mod script;
mod sharing;
mod support;
mod window;

macro_rules! with_each_consumer {
    ($($module:ident: $language:expr,)*) => {
        $(mod $module {
            use crate::instance::Language;

            #[test]
            fn keeps_the_member_lists_through_kills() {
                crate::rounds::keeps_the_member_lists_through_kills($language);
            }

            #[test]
            fn takes_over_the_partitions_of_another_instance_and_gives_them_back() {
                crate::sharing::takes_over_and_gives_back($language);
            }

            #[test]
            fn ends_when_another_process_uses_its_store() {
                crate::sharing::has_one_process_for_a_store($language);
            }

            #[test]
            fn remembers_an_id_for_the_window_and_no_longer() {
                crate::window::remembers_an_id_for_the_window($language);
            }

            #[test]
            fn recognises_one_of_60_000_ids_by_a_search_of_an_index() {
                crate::window::recognises_one_of_many_ids($language);
            }
        })*
    };
}

with_each_consumer! {
    go: Language::Go,
    java: Language::Java,
    python: Language::Python,
    rust: Language::Rust,
    typescript: Language::TypeScript,
}
