//! Why a batch is refused, in a form that can be counted, and in words that name the place.

use std::fmt;

use crate::scalar::Fault;

macro_rules! reasons {
    ($($name:ident = $label:literal, $doc:literal;)*) => {
        /// Why a message or a batch is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Reason { $(#[doc = $doc] $name,)* }

        impl Reason {
            /// Every reason, in the order of their discriminants.
            pub const ALL: [Self; [$($label,)*].len()] = [$(Self::$name,)*];

            /// Short name under which refusals are counted. Stable: dashboards depend on it.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    Truncated = "truncated", "The message ends early, or claims more than it holds.";
    UnknownVersion = "unknown version", "The envelope has another schema version.";
    OutOfRange = "out of range", "A number is outside its field's range, or infinite.";
    NanWhereRequired = "NaN where required", "NaN in a field that cannot be missing.";
    DuplicateKey = "duplicate key", "A map has a key twice.";
    ExtensionType = "extension type", "A msgpack extension type.";
    TooLarge = "too large", "A message, name or map is larger than allowed.";
    UnknownTopic = "unknown topic", "No signals travel on this topic.";
    WrongType = "wrong type", "A value is not of the type its key calls for.";
    MissingField = "missing field", "A required key or column is absent.";
    TrailingBytes = "trailing bytes", "Bytes follow the end of the message.";
    TooDeep = "too deep", "Values are nested too deeply.";
    LengthMismatch = "length mismatch", "The body does not hold `n` signals.";
    Overlap = "overlapping sequence", "Part of the batch was seen before in another batch.";
    TooManyKeys = "too many keys", "The batch has new layers or seeds and the table is full.";
    ForeignRun = "foreign run", "The message belongs to another run.";
    TooManyProducers = "too many producers", "A new producer, and there are too many already.";
}

/// A refused message: the reason and, where there is one, the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The field, column or envelope key.
    pub field: Option<&'static str>,
    /// Index of the signal in its batch.
    pub index: Option<usize>,
}

impl Refusal {
    /// Names the field, unless a more exact place is known already.
    #[must_use]
    pub fn in_field(mut self, field: &'static str) -> Self {
        self.field.get_or_insert(field);
        self
    }

    /// Names the signal.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, field: None, index: None }
    }
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::OutOfRange => Self::OutOfRange,
            Fault::NanWhereRequired => Self::NanWhereRequired,
            Fault::WrongType => Self::WrongType,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::from(Reason::from(fault))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.reason.label())?;
        if let Some(field) = self.field {
            write!(out, ": {field}")?;
        }
        match (self.field, self.index) {
            (Some(_), Some(index)) => write!(out, ", {index}"),
            (None, Some(index)) => write!(out, ": {index}"),
            (_, None) => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_reason_field_and_index() {
        let refusal = Refusal::from(Fault::OutOfRange).in_field("health_score").at(17);
        assert_eq!(refusal.to_string(), "out of range: health_score, 17");
        assert_eq!(Refusal::from(Reason::TooDeep).at(3).to_string(), "too deep: 3");
        assert_eq!(Refusal::from(Reason::Truncated).to_string(), "truncated");
    }

    #[test]
    fn reasons_are_listed_by_discriminant() {
        for (position, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
    }
}
