//! `Label`: the event of a callback, as the value of a metric's label.

use std::ptr;

use super::BEFORE_SEND_MESSAGE;
use super::kind::{Family, Kind};
use super::kinds::EVENTS;

/// The event of an authentic callback: one of [`EVENTS`], [`BEFORE_SEND_MESSAGE`], or any other. It
/// is determined once for each callback and stored as a position in a table, so that counting needs
/// no lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

impl Label {
    /// The callback asks whether a message may be sent.
    pub const BEFORE_SEND_MESSAGE: Self = Self(EVENTS.len());
    /// The event is unknown or cannot be read.
    pub const OTHER: Self = Self(EVENTS.len() + 1);

    /// The label of an event in [`EVENTS`].
    pub fn of(kind: &Kind) -> Self {
        let place = EVENTS.iter().position(|known| ptr::eq(*known, kind));
        place.map_or(Self::OTHER, Self)
    }

    /// Every label, in the order of [`Label::place`].
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::OTHER.0).map(Self)
    }

    /// Its place among all labels.
    pub fn place(self) -> usize {
        self.0
    }

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match EVENTS.get(self.0) {
            Some(kind) => kind.name,
            None if self == Self::BEFORE_SEND_MESSAGE => BEFORE_SEND_MESSAGE,
            None => "other",
        }
    }

    /// Its family; `None` for [`Label::OTHER`].
    pub fn family(self) -> Option<Family> {
        match EVENTS.get(self.0) {
            Some(kind) => Some(kind.family),
            None => (self == Self::BEFORE_SEND_MESSAGE).then_some(Family::Message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_event_has_a_label_of_its_own_and_its_name() {
        for kind in EVENTS {
            let label = Label::of(kind);
            assert_eq!(label.name(), kind.name);
            assert_eq!(label.family(), Some(kind.family));
        }
        let names: Vec<_> = Label::all().map(Label::name).collect();
        assert_eq!(names.len(), EVENTS.len() + 2);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert_eq!(names[EVENTS.len()..], [BEFORE_SEND_MESSAGE, "other"]);
        assert!(Label::all().map(Label::place).eq(0..names.len()));
        assert_eq!(Label::OTHER.family(), None);
        assert_eq!(Label::BEFORE_SEND_MESSAGE.family(), Some(Family::Message));
    }

    #[test]
    fn an_event_that_is_not_listed_is_another_one() {
        assert_eq!(Label::of(&Kind::USUAL), Label::OTHER);
    }
}
