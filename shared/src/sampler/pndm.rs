//! PNDM's linear multistep method (PLMS), arXiv 2202.09778, equations 9 and 12: DDIM's step with an output extrapolated
//! from the last four.

use super::{History, MAX_OUTPUTS, Sampler, Step, ddim, whole_timesteps};
use crate::schedule::{NoiseSchedule, TimestepSpacing};
use crate::wire::Floats;

pub(super) fn steps(steps: usize, schedule: &NoiseSchedule) -> Vec<Step> {
    let stride = ddim::stride(schedule, steps);
    let end = ddim::end(schedule, false);
    let step = |timestep: f64, from: f64, to: f64| Step {
        timestep: timestep as f32,
        from: ddim::level(schedule, from, end),
        to: ddim::level(schedule, to, end),
    };
    let timesteps = whole_timesteps(schedule, TimestepSpacing::Leading, steps);
    let mut table: Vec<Step> = timesteps.iter().map(|&t| step(t, t, t - stride)).collect();
    if let Some(&second) = timesteps.get(1) {
        // The first step is taken twice: to look at its end, and then with the mean of both outputs.
        table.insert(1, step(second, second + stride, second));
    }
    table
}

pub(super) fn advance(sampler: &Sampler, index: usize, latents: &mut [f32], history: &mut History, output: &[f32]) {
    let outputs = &mut history.outputs;
    if index == 0 {
        history.sample = Some(Floats(latents.to_vec()));
    }
    if index != 1 {
        outputs.push(Floats(output.to_vec()));
    }
    let newest_first: Vec<&[f32]> = match index {
        1 => vec![output, &outputs[0].0],
        _ => outputs.iter().rev().map(|output| output.0.as_slice()).collect(),
    };
    let weights: &[f64] = match (index, newest_first.len()) {
        (0, _) => &[1.0],
        (1, _) => &[1.0 / 2.0, 1.0 / 2.0],
        (_, 2) => &[3.0 / 2.0, -1.0 / 2.0],
        (_, 3) => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    };
    let mixed: Vec<f32> = (0..latents.len())
        .map(|i| weights.iter().zip(&newest_first).map(|(w, output)| w * f64::from(output[i])).sum::<f64>() as f32)
        .collect();

    if index == 1
        && let Some(first) = history.sample.take()
    {
        latents.copy_from_slice(&first.0);
    }
    ddim::advance(sampler, index, latents, &mixed);
    if outputs.len() > MAX_OUTPUTS {
        outputs.remove(0);
    }
}
