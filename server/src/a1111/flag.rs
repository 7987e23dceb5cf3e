//! Fields of which only one thing matters: whether they ask for something.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Whether a field asks for something, and does not only say that it is off. What it asks for is not kept: a value may need
/// far more memory than its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IsSet).map(Self)
    }
}

struct IsSet;

impl<'de> Visitor<'de> for IsSet {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, is_on: bool) -> Result<bool, E> {
        Ok(is_on)
    }

    fn visit_u64<E>(self, number: u64) -> Result<bool, E> {
        Ok(number > 0)
    }

    fn visit_i64<E>(self, number: i64) -> Result<bool, E> {
        Ok(number > 0)
    }

    fn visit_f64<E>(self, number: f64) -> Result<bool, E> {
        Ok(number > 0.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(!text.is_empty() && !text.eq_ignore_ascii_case("none"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut is_set = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_set = true;
        }
        Ok(is_set)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        let mut is_set = false;
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_set = true;
        }
        Ok(is_set)
    }
}
