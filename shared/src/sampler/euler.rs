//! Euler's method for `dx/dσ = noise`, on latents `data + σ·noise` whose data keeps weight 1.

use super::{Sampler, Step};
use crate::schedule::{NoiseSchedule, TimestepSpacing};

pub(super) fn steps(steps: usize, schedule: &NoiseSchedule) -> Vec<Step> {
    // The only sampler with timesteps between whole ones; they are f32 before their noise is looked up.
    let timesteps = schedule.timesteps(schedule.config().spacing_or(TimestepSpacing::Linspace), steps);
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f32);
    super::dpmpp::chain(timesteps.map(|timestep| (timestep, schedule.sigma(timestep.into()))))
}

/// Deviation of the noise that a run starts from.
pub(super) fn init_sigma(steps: &[Step], schedule: &NoiseSchedule) -> f64 {
    let sigma = steps[0].from.sigma();
    match schedule.config().spacing_or(TimestepSpacing::Linspace) {
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => sigma,
        // The first step is not the noisiest level, so that there is data in it.
        TimestepSpacing::Leading => (sigma * sigma + 1.0).sqrt(),
    }
}

pub(super) fn advance(sampler: &Sampler, index: usize, latents: &mut [f32], output: &[f32]) {
    let Step { from, to, .. } = sampler.steps[index];
    let change = to.sigma() - from.sigma();
    for (x, &output) in latents.iter_mut().zip(output) {
        let scaled = f64::from(*x) * from.signal;
        *x = (f64::from(*x) + change * from.estimate(sampler.prediction, scaled, output.into()).noise) as f32;
    }
}
