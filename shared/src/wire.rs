//! Bulk data on the wire: base64 in JSON, tensors as little-endian f32, so that they keep their bits and stay small.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A tensor's values, row-major, in JSON as base64 of little-endian f32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, content_encoding = "base64"))]
#[serde(transparent)]
pub struct Floats(#[serde(with = "f32s")] pub Vec<f32>);

/// For fields of type `Vec<f32>`: `#[serde(with = "wire::f32s")]`.
pub mod f32s {
    use serde::de::{Deserializer, Error as _};
    use serde::ser::Serializer;

    /// Writes `values` as base64.
    pub fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        super::bytes::serialize(&bytes, serializer)
    }

    /// Reads base64 back. Whether the values make sense is for the reader to check: they may be NaN.
    ///
    /// # Errors
    /// Not base64, or not a whole number of values.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        let bytes = super::bytes::deserialize(deserializer)?;
        let (values, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(D::Error::custom(format_args!("{} bytes are not a whole number of f32 values", bytes.len())));
        }
        Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }
}

/// For fields of type `Vec<u8>`: `#[serde(with = "wire::bytes")]`.
pub mod bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    /// Writes `bytes` as base64.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    /// Reads base64 back.
    ///
    /// # Errors
    /// Not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_str(Base64)
    }

    /// Decodes the text where it lies: a copy of a photograph's would take as much memory again.
    struct Base64;

    impl Visitor<'_> for Base64 {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string of base64")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            STANDARD.decode(text).map_err(|error| E::custom(format_args!("not base64: {error}")))
        }
    }
}

/// A list of at most `MOST` entries, refused at the first one more. In memory a list may be ten times as large as its text
/// in JSON, so that a list from anyone needs a limit of its own besides that of the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtMost<T, const MOST: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

struct Entries<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Entries<T, MOST> {
    type Value = AtMost<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AtMost<T, MOST>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() == MOST {
                return Err(A::Error::custom(format_args!("a list has more entries than allowed; at most {MOST} are")));
            }
            entries.push(entry);
        }
        Ok(AtMost(entries))
    }
}

/// For fields of type `Vec<T>`: `#[serde(deserialize_with = "wire::list::<_, _, MOST>")]`. See [`AtMost`].
///
/// # Errors
/// No list, or too long a one.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    AtMost::<T, MOST>::deserialize(deserializer).map(|list| list.0)
}

/// The same for fields of type `Option<Vec<T>>`.
///
/// # Errors
/// No list, or too long a one.
pub fn optional_list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Option::<AtMost<T, MOST>>::deserialize(deserializer).map(|list| list.map(|list| list.0))
}

#[cfg(test)]
mod tests {
    use super::{AtMost, Floats};

    #[test]
    fn keeps_every_bit() {
        let floats = Floats(vec![0.0, -0.0, 1.5, f32::MIN_POSITIVE / 2.0, f32::MAX, f32::NEG_INFINITY]);
        let json = serde_json::to_string(&floats).unwrap();
        let back: Floats = serde_json::from_str(&json).unwrap();
        let bits = |floats: &Floats| floats.0.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&floats), bits(&back));
        assert_eq!(serde_json::to_string(&Floats(vec![1.0])).unwrap(), r#""AACAPw==""#);
    }

    #[test]
    fn a_list_ends_at_its_limit() {
        let read = serde_json::from_str::<AtMost<u8, 3>>;
        assert_eq!(read("[1, 2, 3]").unwrap(), AtMost(vec![1, 2, 3]));
        // What comes after one too many is not even looked at.
        let error = read("[1, 2, 3, 4, and no JSON").unwrap_err().to_string();
        assert!(error.contains("at most 3 are"), "{error}");
    }

    #[test]
    fn refuses_what_is_not_a_tensor() {
        for (json, complaint) in [
            ("[1.0]", "expected a string"),
            (r#""AACAP""#, "not base64"),
            (r#""AACA""#, "3 bytes are not a whole number"),
        ] {
            let error = serde_json::from_str::<Floats>(json).unwrap_err().to_string();
            assert!(error.contains(complaint), "{json}: {error}");
        }
    }
}
