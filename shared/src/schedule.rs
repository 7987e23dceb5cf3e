//! Noise schedules: how much of a picture and how much noise there is at each timestep.
//!
//! A schedule is read from diffusers' `scheduler_config.json`, whichever scheduler class wrote it: the class only says
//! which values were its defaults, the sampler is the person's choice.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::wire;

/// Most timesteps a schedule may have been trained with; published models have 1000.
pub const MAX_TRAIN_TIMESTEPS: usize = 10_000;
/// How much of an unknown class's name a message repeats: it may come from anyone.
const SHOWN_CHARS: usize = 64;

/// diffusers' `scheduler_config.json`, as far as it describes the noise. Fields that a file lacks have diffusers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SchedulerConfig {
    /// The scheduler class that the file was written by.
    #[serde(rename = "_class_name", default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Number of timesteps `T` in training.
    #[serde(default = "thousand")]
    pub num_train_timesteps: usize,
    /// Variance added at the first timestep.
    #[serde(default = "default_beta_start")]
    pub beta_start: f64,
    /// Variance added at the last timestep.
    #[serde(default = "default_beta_end")]
    pub beta_end: f64,
    /// How the variances run between the two.
    #[serde(default)]
    pub beta_schedule: BetaSchedule,
    /// All `T` variances, in place of the three fields above.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_list::<_, _, MAX_TRAIN_TIMESTEPS>"
    )]
    pub trained_betas: Option<Vec<f64>>,
    /// Added to each timestep of [`TimestepSpacing::Leading`].
    #[serde(default)]
    pub steps_offset: usize,
    /// Whether DDIM and PNDM end at the clean picture (true) or at the first timestep's noise; `None` is the sampler's
    /// own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_alpha_to_one: Option<bool>,
    /// How a sampler's steps are spread over the timesteps; see [`SchedulerConfig::spacing_or`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// What the network predicts.
    #[serde(default)]
    pub prediction_type: PredictionType,
    /// Whether the schedule was shifted to end in pure noise: not supported, an error.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rescale_betas_zero_snr: bool,
    /// Whether pixel values were thresholded, which has no meaning for latents: not supported, an error.
    #[serde(default, skip_serializing_if = "is_false")]
    pub thresholding: bool,
}

/// How the variances run from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// In a straight line.
    #[default]
    Linear,
    /// Their square roots in a straight line: latent diffusion's.
    ScaledLinear,
    /// From a squared cosine, each at most 0.999.
    SquaredcosCapV2,
}

/// How a sampler's steps are spread over the timesteps: Table 2 of arXiv 2305.08891.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of a whole stride, from `steps_offset`.
    Leading,
    /// Evenly from the last timestep to the first.
    Linspace,
    /// Evenly back from the last timestep, without the first.
    Trailing,
}

/// What the network predicts from `x = √ᾱ·data + √(1−ᾱ)·noise`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// `√ᾱ·noise − √(1−ᾱ)·data`, arXiv 2202.00512.
    VPrediction,
    /// The data.
    Sample,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, ScheduleError> {
        serde_json::from_slice(json).map_err(ScheduleError::Json)
    }

    /// Stable Diffusion 1.5's, reference section 8.
    pub fn stable_diffusion() -> Self {
        Self {
            class_name: Some("PNDMScheduler".into()),
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            trained_betas: None,
            steps_offset: 1,
            set_alpha_to_one: Some(false),
            timestep_spacing: None,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
            thresholding: false,
        }
    }

    /// The spacing for a sampler whose own default is `default`.
    ///
    /// diffusers writes its class's default into a file as if someone had chosen it, and forgets it when another class is
    /// made from the scheduler in memory. So a spacing counts as chosen only if it differs from the default of the class
    /// that wrote it.
    pub fn spacing_or(&self, default: TimestepSpacing) -> TimestepSpacing {
        let unchosen = self.class_name.as_deref().and_then(class_spacing);
        self.timestep_spacing.filter(|&spacing| Some(spacing) != unchosen).unwrap_or(default)
    }

    fn betas(&self) -> Vec<f32> {
        let (start, end, n) = (self.beta_start, self.beta_end, self.num_train_timesteps);
        match (&self.trained_betas, self.beta_schedule) {
            (Some(betas), _) => betas.iter().map(|&beta| beta as f32).collect(),
            (None, BetaSchedule::Linear) => linspace_f32(start as f32, end as f32, n),
            (None, BetaSchedule::ScaledLinear) => {
                linspace_f32(start.sqrt() as f32, end.sqrt() as f32, n).iter().map(|root| root * root).collect()
            }
            (None, BetaSchedule::SquaredcosCapV2) => {
                let remaining = |i: usize| {
                    let cosine = libm::cos((i as f64 / n as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2);
                    cosine * cosine
                };
                (0..n).map(|i| (1.0 - remaining(i + 1) / remaining(i)).min(0.999) as f32).collect()
            }
        }
    }
}

/// How much noise there is at each of a model's timesteps.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    config: SchedulerConfig,
    alphas_cumprod: Vec<f64>,
    sigmas: Vec<f64>,
}

impl NoiseSchedule {
    /// The schedule that `config` describes.
    ///
    /// # Errors
    /// What diffusers cannot sample either, and what this project does not support: see [`ScheduleError`].
    pub fn from_config(config: &SchedulerConfig) -> Result<Self, ScheduleError> {
        if let Some(class) = config.class_name.as_deref().filter(|class| class_spacing(class).is_none()) {
            return Err(ScheduleError::Class(class.chars().take(SHOWN_CHARS).collect()));
        }
        if config.rescale_betas_zero_snr {
            return Err(ScheduleError::Unsupported("rescale_betas_zero_snr"));
        }
        if config.thresholding {
            return Err(ScheduleError::Unsupported("thresholding"));
        }
        let train = config.num_train_timesteps;
        if train == 0 || train > MAX_TRAIN_TIMESTEPS {
            return Err(ScheduleError::TrainTimesteps(train));
        }
        if let Some(betas) = config.trained_betas.as_ref().filter(|betas| betas.len() != train) {
            return Err(ScheduleError::TrainedBetas { found: betas.len(), expected: train });
        }

        let mut product = 1.0;
        let mut alphas_cumprod = Vec::with_capacity(train);
        for (timestep, beta) in config.betas().into_iter().enumerate() {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(ScheduleError::Beta { timestep, beta });
            }
            product *= f64::from(1.0 - beta);
            // Models were trained on tables in f32. Near the clean end 1 − ᾱ keeps only four of its digits, so that
            // exact tables would be other noise levels.
            alphas_cumprod.push(f64::from(product as f32));
        }
        if alphas_cumprod[train - 1] <= 0.0 {
            return Err(ScheduleError::Vanishes);
        }
        let sigmas = alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
        Ok(Self { config: config.clone(), alphas_cumprod, sigmas })
    }

    /// What it was made from.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// `ᾱ` of each timestep: the share of the data in the variance of a noised picture.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// Standard deviation of the noise at `timestep` where the data has weight 1, `√((1−ᾱ)/ᾱ)`, in a straight line
    /// between whole timesteps.
    pub fn sigma(&self, timestep: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let below = (timestep.max(0.0) as usize).min(last);
        let above = (below + 1).min(last);
        let weight = (timestep - below as f64).clamp(0.0, 1.0);
        self.sigmas[below] + weight * (self.sigmas[above] - self.sigmas[below])
    }

    /// The timestep at which the noise is `sigma`: the inverse of [`Self::sigma`], but in a straight line over `ln σ`.
    pub fn timestep_of(&self, sigma: f64) -> f64 {
        let above = self.sigmas.partition_point(|&level| level <= sigma);
        match above {
            0 => 0.0,
            above if above == self.sigmas.len() => (above - 1) as f64,
            above => {
                let (low, high) = (libm::log(self.sigmas[above - 1]), libm::log(self.sigmas[above]));
                (above - 1) as f64 + (libm::log(sigma) - low) / (high - low)
            }
        }
    }

    /// `points` timesteps from the noisy end to the clean one; those of [`TimestepSpacing::Linspace`] are not rounded.
    pub fn timesteps(&self, spacing: TimestepSpacing, points: usize) -> Vec<f64> {
        let train = self.config.num_train_timesteps;
        let ascending = (0..points).rev();
        match spacing {
            TimestepSpacing::Leading => {
                let stride = train / points;
                ascending.map(|i| (i * stride + self.config.steps_offset) as f64).collect()
            }
            TimestepSpacing::Linspace => {
                let last = (train - 1) as f64;
                let stride = last / (points.max(2) - 1) as f64;
                // The last point is set rather than computed, as numpy does.
                ascending.map(|i| if i > 0 && i == points - 1 { last } else { i as f64 * stride }).collect()
            }
            TimestepSpacing::Trailing => {
                let train = train as f64;
                // numpy's `arange` steps by the rounded difference of its first two values.
                let stride = train - (train - train / points as f64);
                (0..points).map(|i| (train - i as f64 * stride).round_ties_even() - 1.0).collect()
            }
        }
    }
}

/// Why a noise schedule cannot be used.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// Not JSON, or a field with an impossible value.
    #[error("scheduler_config.json cannot be read: {0}")]
    Json(#[source] serde_json::Error),
    /// Another kind of diffusion.
    #[error(
        "scheduler class {0} has no noise schedule that these samplers know; \
         use a model for DDIM, PNDM, Euler, DPM-Solver or UniPC"
    )]
    Class(String),
    /// A setting that would change the samples and is not implemented.
    #[error("scheduler setting {0} is not supported; remove it or use a model without it")]
    Unsupported(&'static str),
    /// No timesteps, or too many.
    #[error("num_train_timesteps is {0}, expected 1 to {MAX_TRAIN_TIMESTEPS}")]
    TrainTimesteps(usize),
    /// One variance a timestep is needed.
    #[error("trained_betas has {found} values, but num_train_timesteps is {expected}")]
    TrainedBetas {
        /// Values in the file.
        found: usize,
        /// Timesteps in the file.
        expected: usize,
    },
    /// A variance out of range.
    #[error("beta of timestep {timestep} is {beta}, expected more than 0 and less than 1")]
    Beta {
        /// Where.
        timestep: usize,
        /// The value.
        beta: f32,
    },
    /// Nothing of the data is left at the last timestep.
    #[error("the schedule leaves no signal at its last timestep; check beta_start, beta_end and num_train_timesteps")]
    Vanishes,
}

/// The scheduler classes whose schedule is made of betas, by their default `timestep_spacing`.
const LEADING: [&str; 8] = [
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
];
const LINSPACE: [&str; 13] = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
];

/// The default `timestep_spacing` of a scheduler class; none if its schedule is not made of betas.
fn class_spacing(class: &str) -> Option<TimestepSpacing> {
    if LEADING.contains(&class) {
        Some(TimestepSpacing::Leading)
    } else {
        LINSPACE.contains(&class).then_some(TimestepSpacing::Linspace)
    }
}

/// `n` values from `start` to `end`, rounded as torch does in f32: from both ends to the middle.
fn linspace_f32(start: f32, end: f32, n: usize) -> Vec<f32> {
    let stride = (end - start) / (n.max(2) - 1) as f32;
    (0..n).map(|i| if i < n / 2 { start + stride * i as f32 } else { end - stride * (n - 1 - i) as f32 }).collect()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn thousand() -> usize {
    1000
}

fn default_beta_start() -> f64 {
    0.0001
}

fn default_beta_end() -> f64 {
    0.02
}

#[cfg(test)]
mod tests {
    use super::{NoiseSchedule, SchedulerConfig, TimestepSpacing};

    fn config(json: &str) -> SchedulerConfig {
        SchedulerConfig::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_a_file_lacks_is_as_in_diffusers() {
        let empty = config("{}");
        assert_eq!((empty.num_train_timesteps, empty.beta_start, empty.beta_end), (1000, 0.0001, 0.02));
        let schedule = NoiseSchedule::from_config(&empty).unwrap();
        assert_eq!(schedule.alphas_cumprod()[0], f64::from(1.0 - 0.0001_f32));
        assert_eq!(config(&serde_json::to_string(&empty).unwrap()), empty);
    }

    #[test]
    fn trained_betas_come_before_the_others() {
        let json = r#"{"num_train_timesteps": 2, "trained_betas": [0.25, 0.5], "beta_schedule": "linear"}"#;
        let schedule = NoiseSchedule::from_config(&config(json)).unwrap();
        assert_eq!(schedule.alphas_cumprod(), [0.75, 0.375]);
    }

    #[test]
    fn a_spacing_counts_only_if_its_class_did_not_write_it_by_default() {
        use TimestepSpacing::{Leading, Linspace, Trailing};
        for (class, spacing, chosen) in [
            ("PNDMScheduler", "leading", None),
            ("PNDMScheduler", "trailing", Some(Trailing)),
            ("EulerDiscreteScheduler", "leading", Some(Leading)),
            ("UniPCMultistepScheduler", "linspace", None),
        ] {
            let config = config(&format!(r#"{{"_class_name": "{class}", "timestep_spacing": "{spacing}"}}"#));
            for default in [Leading, Linspace] {
                assert_eq!(config.spacing_or(default), chosen.unwrap_or(default), "{class} {spacing}");
            }
        }
        assert_eq!(config(r#"{"timestep_spacing": "leading"}"#).spacing_or(Linspace), Leading);
    }

    #[test]
    fn a_sigma_has_its_timestep() {
        let schedule = NoiseSchedule::from_config(&SchedulerConfig::stable_diffusion()).unwrap();
        for timestep in [0.0, 1.0, 500.0, 998.0, 999.0] {
            assert!((schedule.timestep_of(schedule.sigma(timestep)) - timestep).abs() < 1e-9, "{timestep}");
        }
        assert_eq!(schedule.timestep_of(0.0), 0.0);
        assert_eq!(schedule.timestep_of(1e9), 999.0);
        assert_eq!(schedule.sigma(5000.0), schedule.sigma(999.0));
    }

    #[test]
    fn says_what_it_cannot_use() {
        for (json, complaint) in [
            (r#"{"beta_schedule": "sigmoid"}"#, "unknown variant `sigmoid`, expected one of `linear`, `scaled_linear`"),
            (r#"{"prediction_type": "flow_prediction"}"#, "unknown variant `flow_prediction`"),
            (r#"{"timestep_spacing": "even"}"#, "unknown variant `even`"),
            ("[", "cannot be read"),
            (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, "FlowMatchEulerDiscreteScheduler has no noise"),
            (r#"{"_class_name": "DDPMWuerstchenScheduler"}"#, "DDPMWuerstchenScheduler has no noise"),
            (r#"{"_class_name": "PNDMScheduler and much more"}"#, "PNDMScheduler and much more has no noise"),
            (r#"{"rescale_betas_zero_snr": true}"#, "rescale_betas_zero_snr is not supported"),
            (r#"{"thresholding": true}"#, "thresholding is not supported"),
            (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps is 0, expected 1 to 10000"),
            (r#"{"trained_betas": [0.1]}"#, "trained_betas has 1 values, but num_train_timesteps is 1000"),
            (r#"{"beta_end": 1.0}"#, "beta of timestep 999 is 1,"),
            (r#"{"beta_start": -1.0}"#, "beta of timestep 0 is -1,"),
            (r#"{"beta_start": -1.0, "beta_schedule": "scaled_linear"}"#, "beta of timestep 0 is NaN,"),
            (r#"{"beta_start": 0.5, "beta_end": 0.9}"#, "no signal at its last timestep"),
        ] {
            let result = SchedulerConfig::from_json(json.as_bytes()).and_then(|c| NoiseSchedule::from_config(&c));
            let error = result.expect_err(json).to_string();
            assert!(error.contains(complaint), "{json}: {error}");
        }
        let long = SchedulerConfig { class_name: Some("PNDM".repeat(1000)), ..SchedulerConfig::stable_diffusion() };
        assert!(NoiseSchedule::from_config(&long).unwrap_err().to_string().len() < 300);
    }
}
