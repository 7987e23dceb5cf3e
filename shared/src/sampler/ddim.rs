//! DDIM without added noise: each step keeps the estimates of data and noise and mixes them anew.

use super::{Level, Sampler, Step, whole_timesteps};
use crate::schedule::{NoiseSchedule, TimestepSpacing};

pub(super) fn steps(steps: usize, schedule: &NoiseSchedule) -> Vec<Step> {
    let stride = stride(schedule, steps);
    let end = end(schedule, true);
    let step = |timestep: f64| Step {
        timestep: timestep as f32,
        from: level(schedule, timestep, end),
        to: level(schedule, timestep - stride, end),
    };
    whole_timesteps(schedule, TimestepSpacing::Leading, steps).into_iter().map(step).collect()
}

pub(super) fn advance(sampler: &Sampler, index: usize, latents: &mut [f32], output: &[f32]) {
    let Step { from, to, .. } = sampler.steps[index];
    for (x, &output) in latents.iter_mut().zip(output) {
        *x = to.compose(&from.estimate(sampler.prediction, f64::from(*x), output.into())) as f32;
    }
}

/// Timesteps from one step to the next, rounded down whatever the spacing, as diffusers has it.
pub(super) fn stride(schedule: &NoiseSchedule, steps: usize) -> f64 {
    (schedule.config().num_train_timesteps / steps) as f64
}

/// Where the last step leads to.
pub(super) fn end(schedule: &NoiseSchedule, to_clean_by_default: bool) -> Level {
    match schedule.config().set_alpha_to_one.unwrap_or(to_clean_by_default) {
        true => Level::CLEAN,
        false => Level::from_alpha(schedule.alphas_cumprod()[0]),
    }
}

/// The noise at a whole timestep; `end` before the first.
pub(super) fn level(schedule: &NoiseSchedule, timestep: f64, end: Level) -> Level {
    match timestep < 0.0 {
        true => end,
        false => Level::from_sigma(schedule.sigma(timestep)),
    }
}
