//! UniPC of order 2 with `B₂(h) = e^h − 1` on estimates of the data, arXiv 2302.04867: the estimate at the end of a step
//! first corrects that step (algorithm 1, UniC), then the next is predicted (UniP, the same as DPM-Solver++ 2M).

use super::{History, Sampler, Step, dpmpp};
use crate::wire::Floats;

pub(super) fn advance(sampler: &Sampler, index: usize, latents: &mut [f32], history: &mut History, output: &[f32]) {
    let data = sampler.data(sampler.steps[index].from, latents, output);
    if let Some(before) = history.sample.take() {
        correct(sampler, index, &before.0, &history.outputs, &data, latents);
    }
    history.sample = Some(Floats(latents.to_vec()));
    dpmpp::predict(sampler, index, latents, &data, history.outputs.last());
    if history.outputs.len() > 1 {
        history.outputs.remove(0);
    }
    history.outputs.push(Floats(data));
}

/// Takes the step that led to `index` again, from the latents `before` it, now with the estimate `data` at its end.
fn correct(sampler: &Sampler, index: usize, before: &[f32], outputs: &[Floats], data: &[f32], latents: &mut [f32]) {
    let Step { from, to, .. } = sampler.steps[index - 1];
    let keep = to.noise / from.noise;
    let h = to.log_snr() - from.log_snr();
    let phi = libm::expm1(-h);
    // Equation 12's system for ρ, with one row (where 1/2 is taken instead) or two.
    let (slope, rho) = match outputs.len() {
        1 => (0.0, 0.5),
        _ => {
            let r = (sampler.steps[index - 2].from.log_snr() - from.log_snr()) / h;
            let first = (-phi / h - 1.0) / phi;
            let second = 2.0 * ((-phi / h - 1.0) / -h - 0.5) / phi;
            let rho = (first - second) / (1.0 - r);
            (rho / r, first - rho)
        }
    };
    let start = &outputs[outputs.len() - 1].0;
    let earlier = &outputs[0].0;
    for (i, x) in latents.iter_mut().enumerate() {
        let start = f64::from(start[i]);
        let residual = slope * (f64::from(earlier[i]) - start) + rho * (f64::from(data[i]) - start);
        *x = (keep * f64::from(before[i]) - to.signal * phi * (start + residual)) as f32;
    }
}
