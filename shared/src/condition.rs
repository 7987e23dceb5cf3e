//! What the decoder is told: the encoder's result, small enough to be sent anywhere.

use serde::{Deserialize, Serialize};

/// A prompt in the decoder's own space, and its opposite for guidance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// Number of tokens: 77 in Stable Diffusion 1.5.
    pub tokens: usize,
    /// Width of a token: 768 in Stable Diffusion 1.5.
    pub width: usize,
    /// The prompt's, `[tokens, width]` row-major.
    #[serde(with = "crate::wire::f32s")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub cond: Vec<f32>,
    /// The negative prompt's, or the null condition: `[tokens, width]` row-major.
    #[serde(with = "crate::wire::f32s")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub uncond: Vec<f32>,
}

/// Why a condition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// It was made for another decoder.
    #[error("the condition is {found:?} (tokens, width), but this model's decoder takes {expected:?}")]
    Shape {
        /// Tokens and width that the decoder takes.
        expected: [usize; 2],
        /// Tokens and width of the condition.
        found: [usize; 2],
    },
    /// One half does not have `tokens × width` numbers.
    #[error("the condition's `{half}` has {found} numbers, expected {expected}")]
    Length {
        /// `cond` or `uncond`.
        half: &'static str,
        /// `tokens × width`.
        expected: usize,
        /// Numbers that are there.
        found: usize,
    },
    /// A number is NaN or infinite.
    #[error("the condition's `{half}` has a number that is not finite at position {position}")]
    NotFinite {
        /// `cond` or `uncond`.
        half: &'static str,
        /// Index of the first such number.
        position: usize,
    },
}

impl Condition {
    /// Checks a condition from elsewhere against a decoder that takes `[tokens, width]`.
    ///
    /// # Errors
    /// A [`ConditionError`] that says which half is wrong and how.
    pub fn validate(&self, expected: [usize; 2]) -> Result<(), ConditionError> {
        let found = [self.tokens, self.width];
        if found != expected {
            return Err(ConditionError::Shape { expected, found });
        }
        for (half, numbers) in [("cond", &self.cond), ("uncond", &self.uncond)] {
            let expected = self.tokens * self.width;
            if numbers.len() != expected {
                return Err(ConditionError::Length { half, expected, found: numbers.len() });
            }
            if let Some(position) = numbers.iter().position(|x| !x.is_finite()) {
                return Err(ConditionError::NotFinite { half, position });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition() -> Condition {
        Condition { tokens: 2, width: 3, cond: vec![0.5; 6], uncond: vec![0.0; 6] }
    }

    #[test]
    fn wrong_conditions_are_told_apart() {
        assert_eq!(condition().validate([2, 3]), Ok(()));
        assert_eq!(condition().validate([77, 768]), Err(ConditionError::Shape { expected: [77, 768], found: [2, 3] }));
        let short = Condition { uncond: vec![0.0; 5], ..condition() };
        assert_eq!(short.validate([2, 3]), Err(ConditionError::Length { half: "uncond", expected: 6, found: 5 }));
        let mut nan = condition();
        nan.cond[4] = f32::NAN;
        assert_eq!(nan.validate([2, 3]), Err(ConditionError::NotFinite { half: "cond", position: 4 }));
    }

    #[test]
    fn it_survives_the_wire() {
        let json = serde_json::to_string(&condition()).unwrap();
        assert_eq!(serde_json::from_str::<Condition>(&json).unwrap(), condition());
    }
}
