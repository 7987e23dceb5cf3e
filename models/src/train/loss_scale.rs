//! Dynamic loss scaling: in half precision, gradients of a loss that is scaled up do not vanish. Source: *Mixed Precision
//! Training*, arXiv 1710.03740, section 3.2.

use kosmosg::engine::burn::train::Precision;
use serde::{Deserialize, Serialize};

/// What a loss is multiplied with before its gradients are found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct LossScale {
    factor: f64,
    /// Updates since it changed.
    updates: u64,
}

impl LossScale {
    /// What training begins with.
    pub fn new(precision: Precision) -> Self {
        let factor = if precision == Precision::F16 { FIRST } else { 1.0 };
        Self { factor, updates: 0 }
    }

    /// What the loss is multiplied with, and the gradients are divided by.
    pub fn factor(self) -> f64 {
        self.factor
    }

    /// Raises it now and then after updates that went well.
    pub fn went_well(&mut self, precision: Precision) {
        self.updates += 1;
        if precision == Precision::F16 && self.updates == PATIENCE {
            *self = Self { factor: (self.factor * 2.0).min(HIGHEST), updates: 0 };
        }
    }

    /// Lowers it after gradients that were not finite; whether it could be lowered.
    pub fn overflowed(&mut self) -> bool {
        let can_fall = self.factor > 1.0;
        *self = Self { factor: (self.factor / 2.0).max(1.0), updates: 0 };
        can_fall
    }
}

impl Default for LossScale {
    fn default() -> Self {
        Self::new(Precision::F32)
    }
}

const FIRST: f64 = 65536.0;
const HIGHEST: f64 = 16_777_216.0;
/// Updates that have to go well before it is raised.
const PATIENCE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_at_once_and_rises_slowly() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(scale.overflowed() && scale.overflowed());
        assert_eq!(scale.factor(), FIRST / 4.0);
        (1..PATIENCE).for_each(|_| scale.went_well(Precision::F16));
        assert_eq!(scale.factor(), FIRST / 4.0);
        scale.went_well(Precision::F16);
        assert_eq!(scale.factor(), FIRST / 2.0);
    }

    #[test]
    fn with_the_range_of_f32_there_is_none() {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut scale = LossScale::new(precision);
            (0..2 * PATIENCE).for_each(|_| scale.went_well(precision));
            assert_eq!(scale.factor(), 1.0);
            assert!(!scale.overflowed());
        }
    }
}
