//! What is left out of records: `ZIM2KAFKA_OMIT`.

use std::collections::BTreeSet;

use super::field::{Class, FieldSpec};

/// Which fields are left out of records. It changes neither which events are valid nor their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omit {
    /// What people and apps wrote, and every `extra`, which may contain text that no page describes
    /// yet.
    pub content: bool,
    /// Nicknames.
    pub user_name: bool,
    /// Every `extra`.
    pub extra: bool,
    /// Fields by their names, also in items.
    pub fields: BTreeSet<&'static str>,
}

impl Omit {
    /// Leaves out nothing.
    pub(super) const NOTHING: Self = Self {
        content: false,
        user_name: false,
        extra: false,
        fields: BTreeSet::new(),
    };

    /// Whether this field is left out.
    pub fn leaves_out(&self, field: &FieldSpec) -> bool {
        let is_of_class = match field.class {
            Class::Fact => false,
            Class::Content => self.content,
            Class::UserName => self.user_name,
        };
        is_of_class || !self.fields.is_empty() && self.fields.contains(field.name)
    }

    /// Whether every `extra` is left out.
    pub fn leaves_out_extra(&self) -> bool {
        self.content || self.extra
    }
}
