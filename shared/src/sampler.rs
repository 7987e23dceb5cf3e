//! Samplers: from noise to latents in a few evaluations of the network.
//!
//! A [`Sampler`] is a table of steps, made once for a number of steps and a noise schedule. What a running request
//! remembers between two steps is its [`History`]. All arithmetic is f64 on the host; what is remembered is f32, so that
//! a history that was written down continues with the same bits.

mod ddim;
mod dpmpp;
mod euler;
mod pndm;
mod unipc;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::schedule::{NoiseSchedule, PredictionType, TimestepSpacing};
use crate::wire::{self, Floats};

/// Most steps that a run may have.
pub const MAX_STEPS: usize = 1000;
/// Most outputs that a sampler remembers: PNDM's.
const MAX_OUTPUTS: usize = 3;

/// The samplers, each as diffusers has it by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SamplerKind {
    /// DPM-Solver++ 2M, arXiv 2211.01095: good pictures in 10 to 20 steps.
    #[default]
    #[serde(rename = "dpmpp-2m")]
    DpmppTwoM,
    /// The same over the noise levels of Karras et al., arXiv 2206.00364.
    #[serde(rename = "dpmpp-2m-karras")]
    DpmppTwoMKarras,
    /// DDIM without added noise (eta 0), arXiv 2010.02502.
    Ddim,
    /// PNDM's linear multistep method (PLMS), arXiv 2202.09778: one more evaluation than steps.
    Pndm,
    /// Euler's method over the noise levels.
    Euler,
    /// UniPC of order 2 with `B₂(h)` and corrector, arXiv 2302.04867.
    #[serde(rename = "unipc")]
    UniPc,
}

impl SamplerKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::DpmppTwoM, Self::DpmppTwoMKarras, Self::Ddim, Self::Pndm, Self::Euler, Self::UniPc];

    /// Its name on the command line and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpmppTwoM => "dpmpp-2m",
            Self::DpmppTwoMKarras => "dpmpp-2m-karras",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::UniPc => "unipc",
        }
    }

    /// Its name in AUTOMATIC1111's web interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::DpmppTwoM => "DPM++ 2M",
            Self::DpmppTwoMKarras => "DPM++ 2M Karras",
            Self::Ddim => "DDIM",
            Self::Pndm => "PLMS",
            Self::Euler => "Euler",
            Self::UniPc => "UniPC",
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = SamplerError;

    fn from_str(name: &str) -> Result<Self, SamplerError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| SamplerError::Name(name.into()))
    }
}

/// A sampler's steps through a noise schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    kind: SamplerKind,
    prediction: PredictionType,
    init_sigma: f64,
    steps: Vec<Step>,
}

impl Sampler {
    /// The steps of `kind` through `schedule`, `steps` as people count them.
    ///
    /// # Errors
    /// No steps, or so many that two of them would fall on the same noise level or outside of the schedule.
    pub fn new(kind: SamplerKind, steps: usize, schedule: &NoiseSchedule) -> Result<Self, SamplerError> {
        let most = schedule.config().num_train_timesteps.min(MAX_STEPS);
        if steps == 0 || steps > most {
            return Err(SamplerError::Steps { kind, steps, most });
        }
        let table = match kind {
            SamplerKind::DpmppTwoM | SamplerKind::UniPc => dpmpp::steps(steps, schedule),
            SamplerKind::DpmppTwoMKarras => dpmpp::karras_steps(steps, schedule),
            SamplerKind::Ddim => ddim::steps(steps, schedule),
            SamplerKind::Pndm => pndm::steps(steps, schedule),
            SamplerKind::Euler => euler::steps(steps, schedule),
        };
        let last = (schedule.config().num_train_timesteps - 1) as f32;
        for (index, step) in table.iter().enumerate() {
            if !(0.0..=last).contains(&step.timestep) {
                return Err(SamplerError::Timestep { kind, steps, timestep: step.timestep, last });
            }
            // DDIM and PNDM may end at the first timestep's noise, where they already are.
            let may_stand = matches!(kind, SamplerKind::Ddim | SamplerKind::Pndm);
            if !may_stand && step.from.sigma() <= step.to.sigma() {
                return Err(SamplerError::Standstill { kind, steps, index });
            }
        }
        let init_sigma = match kind {
            SamplerKind::Euler => euler::init_sigma(&table, schedule),
            _ => 1.0,
        };
        Ok(Self { kind, prediction: schedule.config().prediction_type, init_sigma, steps: table })
    }

    /// Evaluations of the network in a run.
    pub fn evaluations(&self) -> usize {
        self.steps.len()
    }

    /// The timestep that the network is given at each evaluation.
    pub fn timesteps(&self) -> impl ExactSizeIterator<Item = f32> {
        self.steps.iter().map(|step| step.timestep)
    }

    /// What unit noise is multiplied with before the first step.
    pub fn init_sigma(&self) -> f64 {
        self.init_sigma
    }

    /// What the latents are multiplied with before the network sees them, at evaluation `index`.
    pub fn input_scale(&self, index: usize) -> f64 {
        match self.kind {
            SamplerKind::Euler => self.steps[index].from.signal,
            _ => 1.0,
        }
    }

    /// Whether `history` is what is remembered before evaluation `index`, each tensor of `len` values.
    pub fn remembers(&self, index: usize, len: usize, history: &History) -> bool {
        let (outputs, sample) = match self.kind {
            SamplerKind::Ddim | SamplerKind::Euler => (0, false),
            SamplerKind::DpmppTwoM | SamplerKind::DpmppTwoMKarras => (index.min(1), false),
            SamplerKind::Pndm => (if index < 2 { index } else { (index - 1).min(MAX_OUTPUTS) }, index == 1),
            SamplerKind::UniPc => (index.min(2), index > 0),
        };
        history.outputs.len() == outputs
            && history.sample.is_some() == sample
            && history.tensors().all(|tensor| tensor.len() == len)
    }

    /// Goes from evaluation `index` to the next: `latents` and `history` as they were when the network was asked,
    /// `output` what it said (after guidance), of the same length.
    pub fn advance(&self, index: usize, latents: &mut [f32], history: &mut History, output: &[f32]) {
        assert_eq!(latents.len(), output.len(), "a network's output is as large as its latents");
        match self.kind {
            SamplerKind::Ddim => ddim::advance(self, index, latents, output),
            SamplerKind::DpmppTwoM | SamplerKind::DpmppTwoMKarras => {
                dpmpp::advance(self, index, latents, history, output)
            }
            SamplerKind::Pndm => pndm::advance(self, index, latents, history, output),
            SamplerKind::Euler => euler::advance(self, index, latents, output),
            SamplerKind::UniPc => unipc::advance(self, index, latents, history, output),
        }
    }

    /// The data that the network sees in its `input` at evaluation `index` when it says `output` (after guidance).
    pub fn data_seen(&self, index: usize, input: &[f32], output: &[f32]) -> Vec<f32> {
        let Step { from, to, .. } = self.steps[index];
        // PNDM's second evaluation looks at the end of its first step, which is then taken again.
        let level = if self.kind == SamplerKind::Pndm && index == 1 { to } else { from };
        self.data(level, input, output)
    }

    /// The data in `latents` of a noise level when the network says `output` to them.
    fn data(&self, at: Level, latents: &[f32], output: &[f32]) -> Vec<f32> {
        let estimate = |(&x, &output): (&f32, &f32)| at.estimate(self.prediction, x.into(), output.into()).data as f32;
        latents.iter().zip(output).map(estimate).collect()
    }
}

/// What a request remembers between two evaluations, in f32 like its latents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct History {
    /// What the network said before, the newest last: its outputs (PNDM) or the data in them (DPM-Solver++, UniPC).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list::<_, _, MAX_OUTPUTS>")]
    outputs: Vec<Floats>,
    /// Latents that the next step starts from again (PNDM) or corrects (UniPC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<Floats>,
}

impl History {
    /// All that is remembered.
    pub fn tensors(&self) -> impl Iterator<Item = &[f32]> {
        self.outputs.iter().chain(&self.sample).map(|tensor| tensor.0.as_slice())
    }
}

/// Why a sampler cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SamplerError {
    /// No such sampler.
    #[error("there is no sampler {0:?}; choose one of dpmpp-2m, dpmpp-2m-karras, ddim, pndm, euler, unipc")]
    Name(String),
    /// None or too many.
    #[error("{kind} was asked for {steps} steps; choose 1 to {most}")]
    Steps {
        /// The sampler.
        kind: SamplerKind,
        /// Steps asked for.
        steps: usize,
        /// Most that it can do.
        most: usize,
    },
    /// A step outside of the schedule.
    #[error(
        "{steps} steps of {kind} would go to timestep {timestep}, but the schedule ends at {last}; take fewer steps"
    )]
    Timestep {
        /// The sampler.
        kind: SamplerKind,
        /// Steps asked for.
        steps: usize,
        /// Where one of them falls.
        timestep: f32,
        /// Last timestep of the schedule.
        last: f32,
    },
    /// A step that removes no noise.
    #[error("step {index} of {steps} steps of {kind} would remove no noise; take fewer steps")]
    Standstill {
        /// The sampler.
        kind: SamplerKind,
        /// Steps asked for.
        steps: usize,
        /// The first such step, from 0.
        index: usize,
    },
}

/// One evaluation of the network and where it leads.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    /// What the network is told.
    timestep: f32,
    /// Noise of the latents that the step starts from.
    from: Level,
    /// Noise of the latents that it leads to.
    to: Level,
}

/// A noise level: latents are `signal·data + noise·ε` with `signal² + noise² = 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Level {
    signal: f64,
    noise: f64,
}

/// What the network's output means for one value of the latents.
struct Estimate {
    data: f64,
    noise: f64,
}

impl Level {
    const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    fn from_alpha(alpha_cumprod: f64) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }

    fn from_sigma(sigma: f64) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, noise: sigma * signal }
    }

    /// Standard deviation of the noise where the data has weight 1.
    fn sigma(self) -> f64 {
        self.noise / self.signal
    }

    /// `λ = ln(signal / noise)`, in which the solvers take their steps.
    fn log_snr(self) -> f64 {
        libm::log(self.signal / self.noise)
    }

    fn estimate(self, prediction: PredictionType, x: f64, output: f64) -> Estimate {
        let Self { signal, noise } = self;
        match prediction {
            PredictionType::Epsilon => Estimate { data: (x - noise * output) / signal, noise: output },
            PredictionType::VPrediction => {
                Estimate { data: signal * x - noise * output, noise: signal * output + noise * x }
            }
            PredictionType::Sample => Estimate { data: output, noise: (x - signal * output) / noise },
        }
    }

    /// The latents at this level.
    fn compose(self, estimate: &Estimate) -> f64 {
        self.signal * estimate.data + self.noise * estimate.noise
    }
}

/// Whole timesteps of `points` points, spaced as the schedule says or else by `default`.
fn whole_timesteps(schedule: &NoiseSchedule, default: TimestepSpacing, points: usize) -> Vec<f64> {
    let spacing = schedule.config().spacing_or(default);
    schedule.timesteps(spacing, points).into_iter().map(f64::round_ties_even).collect()
}

#[cfg(test)]
mod tests {
    use super::SamplerKind;

    #[test]
    fn a_sampler_has_one_name() {
        for kind in SamplerKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let error = "heun".parse::<SamplerKind>().unwrap_err().to_string();
        assert!(SamplerKind::ALL.iter().all(|kind| error.contains(kind.name())), "{error}");
    }
}
