//! The middle of a job: from noise to latents, one evaluation of the network at a time.
//!
//! A [`DenoiseState`] knows no network. Whoever has one asks it at [`DenoiseState::timestep`] about
//! [`DenoiseState::model_input`] and tells the state with [`DenoiseState::advance`]. Between any two evaluations the state
//! can be written down with serde and go on elsewhere, with the same bits.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::noise;
use crate::sampler::{History, Sampler, SamplerError, SamplerKind};
use crate::schedule::{NoiseSchedule, ScheduleError, SchedulerConfig};
use crate::wire;

/// Most channels of latents.
pub const MAX_CHANNELS: usize = 64;
/// Largest width and height of latents.
pub const MAX_SIDE: usize = 1024;
/// Most values of latents: four channels of 4096 × 4096 pixels in Stable Diffusion.
pub const MAX_VALUES: usize = 1 << 20;

/// What is decided about a picture before its first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DenoiseSettings {
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps.
    pub steps: usize,
    /// Guidance scale `g`: see [`guide`].
    pub guidance: f64,
    /// Seed of the noise.
    pub seed: u64,
    /// Which of a request's pictures this is, from 0: each has its own noise.
    #[serde(default)]
    pub picture: u64,
    /// Channels of the latents.
    pub channels: usize,
    /// Height of the latents.
    pub height: usize,
    /// Width of the latents.
    pub width: usize,
}

impl DenoiseSettings {
    /// Number of values in the latents `[C, H, W]`.
    pub fn latent_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether the network must also be asked without the condition: not for a guidance scale of at most 1.
    pub fn is_guided(&self) -> bool {
        self.guidance > 1.0
    }

    /// Checks sizes and finiteness; the steps are checked by the sampler.
    pub fn validate(&self) -> Result<(), DenoiseError> {
        if !self.guidance.is_finite() {
            return Err(DenoiseError::Guidance(self.guidance));
        }
        let (channels, height, width) = (self.channels, self.height, self.width);
        let fits = (1..=MAX_CHANNELS).contains(&channels)
            && (1..=MAX_SIDE).contains(&height)
            && (1..=MAX_SIDE).contains(&width)
            && self.latent_len() <= MAX_VALUES;
        if fits { Ok(()) } else { Err(DenoiseError::LatentSize { channels, height, width }) }
    }
}

/// A picture between two evaluations of the network.
///
/// Its serde form holds all that the rest of the run needs: settings, noise schedule, step, latents and the sampler's
/// history. Reading it checks everything, so a state is always valid, wherever it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "Saved")]
pub struct DenoiseState {
    settings: DenoiseSettings,
    schedule: SchedulerConfig,
    step: usize,
    #[serde(with = "wire::f32s")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    latents: Vec<f32>,
    history: History,
    #[serde(skip)]
    sampler: Sampler,
}

impl DenoiseState {
    /// The start of a run, from the noise of its seed.
    pub fn new(settings: DenoiseSettings, schedule: &NoiseSchedule) -> Result<Self, DenoiseError> {
        settings.validate()?;
        let noise = noise::gaussian(settings.seed, settings.picture, settings.latent_len());
        Self::from_noise(settings, schedule, &noise)
    }

    /// The start of a run from given `noise` `[C, H, W]` of standard deviation 1, whatever the seed.
    pub fn from_noise(
        settings: DenoiseSettings,
        schedule: &NoiseSchedule,
        noise: &[f32],
    ) -> Result<Self, DenoiseError> {
        let sampler = Sampler::new(settings.sampler, settings.steps, schedule)?;
        let scale = sampler.init_sigma();
        let latents = noise.iter().map(|&x| (f64::from(x) * scale) as f32).collect();
        let schedule = schedule.config().clone();
        let state = Self { settings, schedule, step: 0, latents, history: History::default(), sampler };
        state.validate()?;
        Ok(state)
    }

    /// What was decided before the first step.
    pub fn settings(&self) -> &DenoiseSettings {
        &self.settings
    }

    /// The noise schedule that it was begun under.
    pub fn schedule(&self) -> &SchedulerConfig {
        &self.schedule
    }

    /// Evaluations done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Evaluations in the whole run. PNDM has one more than steps.
    pub fn evaluations(&self) -> usize {
        self.sampler.evaluations()
    }

    /// Whether the latents are finished.
    pub fn is_done(&self) -> bool {
        self.step == self.evaluations()
    }

    /// The latents `[C, H, W]` as they are.
    pub fn latents(&self) -> &[f32] {
        &self.latents
    }

    /// The timestep of the next evaluation; 0 when done.
    pub fn timestep(&self) -> f32 {
        self.sampler.timesteps().nth(self.step).unwrap_or(0.0)
    }

    /// The latents `[C, H, W]` as the network wants to see them in the next evaluation.
    pub fn model_input(&self) -> Vec<f32> {
        if self.is_done() {
            return self.latents.clone();
        }
        let scale = self.sampler.input_scale(self.step);
        self.latents.iter().map(|&x| (f64::from(x) * scale) as f32).collect()
    }

    /// Takes the network's answer `[C, H, W]`, after guidance, to the next step. Returns the finished latents `[C, H, W]`
    /// as this answer foresees them.
    ///
    /// # Errors
    /// Wrong length, NaN or infinity, or nothing left to do. The state is as it was then, so that another engine can
    /// take it up.
    pub fn advance(&mut self, prediction: &[f32]) -> Result<Vec<f32>, DenoiseError> {
        if self.is_done() {
            return Err(DenoiseError::Done(self.step));
        }
        check("prediction", prediction, self.settings.latent_len(), self.step)?;
        let foreseen = self.sampler.data_seen(self.step, &self.model_input(), prediction);
        let mut latents = self.latents.clone();
        let mut history = self.history.clone();
        self.sampler.advance(self.step, &mut latents, &mut history, prediction);
        // A finite but absurd prediction overflows here.
        check("latents", &latents, self.settings.latent_len(), self.step + 1)?;
        (self.latents, self.history) = (latents, history);
        self.step += 1;
        Ok(foreseen)
    }

    /// Checks sizes, finiteness and step. Reading a state does this already.
    pub fn validate(&self) -> Result<(), DenoiseError> {
        self.settings.validate()?;
        let (step, evaluations) = (self.step, self.evaluations());
        if step > evaluations {
            return Err(DenoiseError::Step { step, evaluations });
        }
        let len = self.settings.latent_len();
        check("latents", &self.latents, len, step)?;
        if !self.sampler.remembers(step, len, &self.history) {
            return Err(DenoiseError::History { sampler: self.settings.sampler, step, len });
        }
        self.history.tensors().try_for_each(|tensor| check("history", tensor, len, step))
    }
}

/// Classifier-free guidance: `uncond + g · (cond − uncond)`.
pub fn guide(uncond: &[f32], cond: &[f32], g: f64) -> Vec<f32> {
    assert_eq!(uncond.len(), cond.len(), "both halves of a guided batch have the same shape");
    let guided = |(&uncond, &cond): (&f32, &f32)| {
        let (uncond, cond) = (f64::from(uncond), f64::from(cond));
        (uncond + g * (cond - uncond)) as f32
    };
    uncond.iter().zip(cond).map(guided).collect()
}

/// Why a run cannot start or go on.
#[derive(Debug, Error)]
pub enum DenoiseError {
    /// The sampler or its steps.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The noise schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Not a number to multiply with.
    #[error("guidance scale is {0}, expected a finite number")]
    Guidance(f64),
    /// Empty or too large.
    #[error(
        "latents of {channels} × {height} × {width} values; expected at most {MAX_CHANNELS} channels, \
         {MAX_SIDE} on a side and {MAX_VALUES} values in all, and none of them 0"
    )]
    LatentSize {
        /// Channels.
        channels: usize,
        /// Height.
        height: usize,
        /// Width.
        width: usize,
    },
    /// A step that the run does not have.
    #[error("the run is at step {step}, but it has only {evaluations}")]
    Step {
        /// Where it claims to be.
        step: usize,
        /// Evaluations in the run.
        evaluations: usize,
    },
    /// Another length than the settings say.
    #[error("{tensor} at step {step}: {found} values, expected {expected}")]
    Length {
        /// Which tensor.
        tensor: &'static str,
        /// Evaluations done.
        step: usize,
        /// Values in it.
        found: usize,
        /// Values that the settings ask for.
        expected: usize,
    },
    /// NaN or infinity.
    #[error("{tensor} at step {step}: {value} at position {position}, expected finite numbers")]
    NotFinite {
        /// Which tensor.
        tensor: &'static str,
        /// Evaluations done.
        step: usize,
        /// Index of the first such value.
        position: usize,
        /// The value.
        value: f32,
    },
    /// More, fewer or other tensors than the sampler remembers.
    #[error("the history does not fit: {sampler} remembers other tensors at step {step}, each of {len} values")]
    History {
        /// The sampler.
        sampler: SamplerKind,
        /// Evaluations done.
        step: usize,
        /// Values that the settings ask for.
        len: usize,
    },
    /// All steps were taken.
    #[error("the run is done after {0} steps; there is nothing to advance")]
    Done(usize),
}

fn check(tensor: &'static str, values: &[f32], expected: usize, step: usize) -> Result<(), DenoiseError> {
    let found = values.len();
    if found != expected {
        return Err(DenoiseError::Length { tensor, step, found, expected });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => Err(DenoiseError::NotFinite { tensor, step, position, value: values[position] }),
        None => Ok(()),
    }
}

/// A state as it is written down, before it is checked.
#[derive(Deserialize)]
struct Saved {
    settings: DenoiseSettings,
    schedule: SchedulerConfig,
    step: usize,
    #[serde(with = "wire::f32s")]
    latents: Vec<f32>,
    #[serde(default)]
    history: History,
}

impl TryFrom<Saved> for DenoiseState {
    type Error = DenoiseError;

    fn try_from(saved: Saved) -> Result<Self, DenoiseError> {
        let Saved { settings, schedule, step, latents, history } = saved;
        let sampler = Sampler::new(settings.sampler, settings.steps, &NoiseSchedule::from_config(&schedule)?)?;
        let state = Self { settings, schedule, step, latents, history, sampler };
        state.validate()?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{DenoiseError, DenoiseSettings, DenoiseState, guide};
    use crate::noise;
    use crate::sampler::SamplerKind;
    use crate::schedule::{NoiseSchedule, SchedulerConfig};

    fn settings(sampler: SamplerKind) -> DenoiseSettings {
        DenoiseSettings { sampler, steps: 5, guidance: 6.0, seed: 7, picture: 0, channels: 4, height: 2, width: 3 }
    }

    fn start(sampler: SamplerKind) -> DenoiseState {
        let schedule = NoiseSchedule::from_config(&SchedulerConfig::stable_diffusion()).unwrap();
        DenoiseState::new(settings(sampler), &schedule).unwrap()
    }

    #[test]
    fn starts_from_the_noise_of_its_seed() {
        assert_eq!(start(SamplerKind::Ddim).latents(), noise::gaussian(7, 0, 24));
        let euler = start(SamplerKind::Euler);
        let (latents, input) = (euler.latents()[0], euler.model_input()[0]);
        assert!((latents / noise::gaussian(7, 0, 1)[0] - 14.6146).abs() < 1e-3, "Euler starts at the largest sigma");
        assert!((latents / input - 14.6488).abs() < 1e-3, "and shows the network latents of variance 1");
    }

    #[test]
    fn a_bad_prediction_changes_nothing() {
        let mut state = start(SamplerKind::UniPc);
        state.advance(&[0.5; 24]).unwrap();
        let before = state.clone();
        let mut nan = [0.5; 24];
        nan[3] = f32::NAN;
        let error = state.advance(&nan).unwrap_err();
        assert_eq!(error.to_string(), "prediction at step 1: NaN at position 3, expected finite numbers");
        let error = state.advance(&[0.5; 23]).unwrap_err();
        assert_eq!(error.to_string(), "prediction at step 1: 23 values, expected 24");
        let error = state.advance(&[f32::MAX; 24]).unwrap_err();
        assert!(error.to_string().starts_with("latents at step 2: "), "{error}");
        assert_eq!(state, before);
    }

    /// A network that knows the data and sees the noise.
    #[test]
    fn foresees_what_the_network_sees() {
        let data = noise::gaussian(1, 0, 24);
        for kind in SamplerKind::ALL {
            let mut state = start(kind);
            while !state.is_done() {
                let alpha = NoiseSchedule::from_config(&SchedulerConfig::stable_diffusion()).unwrap();
                let alpha = alpha.alphas_cumprod()[state.timestep().round() as usize];
                let (signal, deviation) = (alpha.sqrt() as f32, (1.0 - alpha).sqrt() as f32);
                let seen: Vec<f32> =
                    state.model_input().iter().zip(&data).map(|(x, data)| (x - signal * data) / deviation).collect();
                let foreseen = state.advance(&seen).unwrap();
                let worst = foreseen.iter().zip(&data).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                // Karras' and Euler's noise levels lie between the timesteps that the network is told.
                assert!(worst < 0.05, "{kind} at step {}: {worst}", state.step());
            }
        }
    }

    #[test]
    fn a_finished_run_does_not_advance() {
        let mut state = start(SamplerKind::Pndm);
        for _ in 0..6 {
            state.advance(&[0.5; 24]).unwrap();
        }
        assert!(state.is_done());
        assert!(matches!(state.advance(&[0.5; 24]), Err(DenoiseError::Done(6))));
    }

    #[test]
    fn refuses_what_may_come_over_the_wire() {
        let mut state = start(SamplerKind::UniPc);
        state.advance(&[0.5; 24]).unwrap();
        let good = serde_json::to_value(&state).unwrap();
        assert_eq!(serde_json::from_value::<DenoiseState>(good.clone()).unwrap(), state);
        let short = "AAAAAA==";
        let nan = "AADAfwAAwH8AAMB/".repeat(8);

        for (path, value, complaint) in [
            ("/settings/sampler", json!("heun"), "unknown variant `heun`"),
            ("/settings/steps", json!(0), "choose 1 to 1000"),
            ("/settings/steps", json!(100_000), "choose 1 to 1000"),
            ("/settings/guidance", json!(null), "invalid type: null"),
            ("/settings/channels", json!(0), "latents of 0 × 2 × 3"),
            ("/settings/height", json!(u64::MAX), "latents of 4 × 18446744073709551615 × 3"),
            ("/settings/width", json!(4), "latents at step 1: 24 values, expected 32"),
            ("/schedule/num_train_timesteps", json!(u32::MAX), "num_train_timesteps is 4294967295"),
            ("/step", json!(-1), "expected usize"),
            ("/step", json!(6), "the run is at step 6, but it has only 5"),
            ("/step", json!(2), "unipc remembers other tensors at step 2"),
            ("/latents", json!(short), "latents at step 1: 1 values"),
            ("/latents", json!(nan), "latents at step 1: NaN at position 0"),
            ("/history/outputs/0", json!(nan), "history at step 1: NaN at position 0"),
            ("/history/outputs/0", json!(short), "each of 24 values"),
            ("/history/outputs", json!([]), "the history does not fit"),
            ("/history/sample", json!(null), "the history does not fit"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value;
            let error = serde_json::from_value::<DenoiseState>(bad).unwrap_err().to_string();
            assert!(error.contains(complaint), "{path}: {error}");
        }
    }

    #[test]
    fn guidance_must_be_finite() {
        let schedule = NoiseSchedule::from_config(&SchedulerConfig::stable_diffusion()).unwrap();
        for guidance in [f64::NAN, f64::INFINITY] {
            let settings = DenoiseSettings { guidance, ..settings(SamplerKind::Ddim) };
            assert!(matches!(DenoiseState::new(settings, &schedule), Err(DenoiseError::Guidance(_))));
        }
    }

    #[test]
    fn guides_away_from_the_unconditioned() {
        assert_eq!(guide(&[1.0, -2.0], &[2.0, -2.0], 7.5), [8.5, -2.0]);
        assert_eq!(guide(&[1.0], &[2.0], 1.0), [2.0]);
    }
}
