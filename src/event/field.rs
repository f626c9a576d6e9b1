//! The table of an event's fields: the type, the presence and the description of each.

/// One field of an event, or one member of the items of a field.
#[derive(Debug)]
pub struct FieldSpec {
    /// Its name in callbacks and in records.
    pub name: &'static str,
    /// What it contains.
    pub of: Type,
    /// Whether it may be missing.
    pub presence: Presence,
    /// The group of fields with which `ZIM2KAFKA_OMIT` leaves it out.
    pub class: Class,
    /// The name and value of another field: only with that value does this field have a meaning.
    /// Otherwise it is null in the record, whatever was sent.
    pub only_with: Option<(&'static str, &'static str)>,
    /// Its description in the schema, with its unit.
    pub about: &'static str,
}

/// What a field contains. Every field may also be null in a callback.
#[derive(Debug)]
pub enum Type {
    /// An ID that the customer chooses: a string, kept as it is.
    Id(Subject),
    /// An ID that ZEGOCLOUD generates: a string, or a number whose digits become a string. Such
    /// numbers exceed 2^53.
    ServerId,
    /// A whole number, or a string of its digits. All digits are kept.
    Number {
        /// The value of a field that is missing, if the sender's page defines one.
        default: Option<&'static str>,
    },
    /// A time: 10 digits are seconds, 13 are milliseconds, 0 and the empty string are none.
    Time,
    /// Text, kept as it is.
    Text,
    /// User IDs.
    Users {
        /// Whether one string stands for a list of one, in JSON too.
        one_string: bool,
    },
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// Objects with these members, whose names are compared without case and underscores.
    Items {
        /// Their members.
        members: &'static [FieldSpec],
        /// Whether an empty list is published as null.
        empty_is_null: bool,
    },
}

/// What an ID of the customer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A user.
    User,
    /// A group.
    Group,
    /// A room.
    Room,
    /// A conversation: a group, a room, a channel or, in a one-to-one chat, the receiver.
    Conversation,
}

/// Whether a field may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// If it is missing or empty, the event is invalid.
    Required,
    /// It may be missing, null or empty, and is then null in the record.
    Optional,
    /// It may be missing or null, but not empty.
    OptionalNotEmpty,
}

/// The name with which `ZIM2KAFKA_OMIT` leaves out a group of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Can be left out by the field's own name only.
    Fact,
    /// `content`: text that people or apps wrote.
    Content,
    /// `user_name`: the nickname of a user.
    UserName,
}

/// A required field.
pub(super) const fn required(name: &'static str, of: Type, about: &'static str) -> FieldSpec {
    FieldSpec {
        name,
        of,
        presence: Presence::Required,
        class: Class::Fact,
        only_with: None,
        about,
    }
}

/// An optional field.
pub(super) const fn optional(name: &'static str, of: Type, about: &'static str) -> FieldSpec {
    FieldSpec {
        presence: Presence::Optional,
        ..required(name, of, about)
    }
}

impl FieldSpec {
    /// It contains what people or apps wrote.
    pub(super) const fn content(self) -> Self {
        Self {
            class: Class::Content,
            ..self
        }
    }

    /// It is the nickname of a user.
    pub(super) const fn user_name(self) -> Self {
        Self {
            class: Class::UserName,
            ..self
        }
    }

    /// It may be missing, but not empty.
    pub(super) const fn not_empty(self) -> Self {
        Self {
            presence: Presence::OptionalNotEmpty,
            ..self
        }
    }

    /// It is null unless another field has this value.
    pub(super) const fn only_with(self, field: &'static str, value: &'static str) -> Self {
        Self {
            only_with: Some((field, value)),
            ..self
        }
    }
}

/// A whole number without a default.
pub(super) const NUMBER: Type = Type::Number { default: None };

/// A whole number that is 0 if it is missing.
pub(super) const NUMBER_OR_ZERO: Type = Type::Number { default: Some("0") };

/// A list of user IDs.
pub(super) const USERS: Type = Type::Users { one_string: false };
