//! Bulk data on the wire: base64 in JSON, tensors as little-endian f32, so that they keep their bits and stay small.

use serde::{Deserialize, Serialize};

/// A tensor's values, row-major, in JSON as base64 of little-endian f32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    use serde::de::{Deserialize, Deserializer, Error as _};
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
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(|error| D::Error::custom(format_args!("not base64: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::Floats;

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
