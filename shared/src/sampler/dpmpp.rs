//! DPM-Solver++ 2M, arXiv 2211.01095, algorithm 2: a second-order step in `λ` that reuses the previous estimate of the data.

use super::{History, Level, Sampler, Step, whole_timesteps};
use crate::schedule::{NoiseSchedule, TimestepSpacing};
use crate::wire::Floats;

/// Karras et al.'s exponent, arXiv 2206.00364, equation 5.
const RHO: f64 = 7.0;

pub(super) fn steps(steps: usize, schedule: &NoiseSchedule) -> Vec<Step> {
    // One point more than there are steps: the last one is the clean end.
    let points = match schedule.config().spacing_or(TimestepSpacing::Linspace) {
        TimestepSpacing::Trailing => steps,
        TimestepSpacing::Leading | TimestepSpacing::Linspace => steps + 1,
    };
    let timesteps = whole_timesteps(schedule, TimestepSpacing::Linspace, points).into_iter().take(steps);
    chain(timesteps.map(|timestep| (timestep as f32, schedule.sigma(timestep))))
}

pub(super) fn karras_steps(steps: usize, schedule: &NoiseSchedule) -> Vec<Step> {
    let root = |sigma: f64| libm::pow(sigma, 1.0 / RHO);
    let last = (schedule.config().num_train_timesteps - 1) as f64;
    let (max, min) = (root(schedule.sigma(last)), root(schedule.sigma(0.0)));
    chain((0..steps).map(|i| {
        let ramp = i as f64 / (steps.max(2) - 1) as f64;
        let sigma = libm::pow(max + ramp * (min - max), RHO);
        (schedule.timestep_of(sigma).round_ties_even() as f32, sigma)
    }))
}

/// Steps through these timesteps and sigmas to the clean end.
pub(super) fn chain(levels: impl Iterator<Item = (f32, f64)>) -> Vec<Step> {
    let levels: Vec<_> = levels.map(|(timestep, sigma)| (timestep, Level::from_sigma(sigma))).collect();
    let ends = levels.iter().skip(1).map(|&(_, level)| level).chain([Level::CLEAN]);
    levels.iter().zip(ends).map(|(&(timestep, from), to)| Step { timestep, from, to }).collect()
}

pub(super) fn advance(sampler: &Sampler, index: usize, latents: &mut [f32], history: &mut History, output: &[f32]) {
    let data = sampler.data(sampler.steps[index].from, latents, output);
    predict(sampler, index, latents, &data, history.outputs.last());
    history.outputs = vec![Floats(data)];
}

/// The step from `index` with the estimate `data` made there and the `previous` one. UniPC's predictor is the same.
pub(super) fn predict(sampler: &Sampler, index: usize, latents: &mut [f32], data: &[f32], previous: Option<&Floats>) {
    let Step { from, to, .. } = sampler.steps[index];
    let keep = to.noise / from.noise;
    let gain = to.signal * (1.0 - to.sigma() / from.sigma()); // α (1 − e^−h)
    // The last step goes to no noise, λ = ∞, so it has no slope.
    let last = index + 1 == sampler.steps.len();
    let previous = previous.filter(|_| !last).map(|previous| {
        let before = sampler.steps[index - 1].from.log_snr();
        let slope = 0.5 * (to.log_snr() - from.log_snr()) / (from.log_snr() - before);
        (slope, &previous.0)
    });
    for (i, x) in latents.iter_mut().enumerate() {
        let now = f64::from(data[i]);
        let midway = previous.map_or(now, |(slope, previous)| now + slope * (now - f64::from(previous[i])));
        *x = (keep * f64::from(*x) + gain * midway) as f32;
    }
}
