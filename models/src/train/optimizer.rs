//! AdamW (arXiv 1711.05101) on the device, and a moving average of what it arrives at.

use std::collections::BTreeMap;

use kosmosg::engine::Unary;
use kosmosg::engine::burn::train::{Gradients, plain, track_again};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::{EngineError, Tensor};
use kosmosg::weights::HostTensor;

use super::config::Training;
use super::parameters::{Parameters, constant, to_host};

/// The optimizer of some parameters.
pub(super) struct AdamW {
    training: Training,
    moments: Vec<Moments>,
    /// Updates so far.
    updates: u64,
}

/// What is remembered of a parameter, flat.
struct Moments {
    name: String,
    shape: Vec<usize>,
    /// Whether it is a matrix or a kernel.
    decays: bool,
    first: Tensor<Burn, 1>,
    second: Tensor<Burn, 1>,
    average: Option<Tensor<Burn, 1>>,
}

/// Gradients of one step, with their norm.
pub(super) struct Step {
    gradients: Vec<Option<Tensor<Burn, 1>>>,
    /// Squared norm of all of them, `[1]`, still on the device.
    pub norm_squared: Tensor<Burn, 1>,
}

impl AdamW {
    /// The optimizer of those of `parameters` that `trained` names, before its first update.
    pub fn new(training: &Training, parameters: &Parameters, trained: impl Fn(&str) -> bool) -> Self {
        let moments = parameters.shapes().filter(|(name, _)| trained(name)).map(|(name, shape)| {
            let value = plain(parameters.value(name).clone());
            let zeros = value.clone().affine(0.0, 0.0);
            Moments {
                name: name.to_owned(),
                shape: shape.to_vec(),
                decays: decays(name, shape),
                first: zeros.clone(),
                second: zeros,
                average: training.ema.map(|_| value),
            }
        });
        Self { training: training.clone(), moments: moments.collect(), updates: 0 }
    }

    /// Picks this optimizer's gradients.
    pub fn gather(&self, parameters: &Parameters, gradients: &mut Gradients, device: &BurnDevice) -> Step {
        let gradients: Vec<_> =
            self.moments.iter().map(|moments| gradients.take(parameters.value(&moments.name))).collect();
        let squares = gradients.iter().flatten().map(|g| (g.clone() * g.clone()).sum(0)).collect::<Vec<_>>();
        let norm_squared = match squares.is_empty() {
            true => plain(constant(vec![0.0], device)),
            false => Tensor::cat(squares, 0).sum(0),
        };
        Step { gradients, norm_squared }
    }

    /// Updates the parameters, with the gradients scaled down if their `norm` is above the clip.
    pub fn update(&mut self, parameters: &mut Parameters, step: Step, norm: f64) {
        let training = &self.training;
        let lr = training.learning_rate(self.updates);
        self.updates += 1;
        let rule = Rule {
            lr,
            betas: training.betas,
            bias: training.betas.map(|beta| 1.0 - beta.powf(self.updates as f64)),
            eps: training.eps,
            scale: (training.clip / norm).min(1.0),
        };
        // An average over more updates than there were would mostly be the start.
        let keep = training.ema.map(|ema| ema.min((1.0 + self.updates as f64) / (10.0 + self.updates as f64)));
        let moments = std::mem::take(&mut self.moments);
        let updated = moments.into_iter().zip(step.gradients).map(|(moments, gradient)| {
            let mut value = plain(parameters.value(&moments.name).clone());
            let Moments { first, second, average, .. } = moments;
            let (first, second) = match gradient {
                Some(gradient) => {
                    let decay = if moments.decays { training.weight_decay } else { 0.0 };
                    let (next, first, second) = rule.apply(value, gradient, first, second, decay);
                    value = next;
                    parameters.set(&moments.name, track_again(value.clone()));
                    (first, second)
                }
                None => (first, second),
            };
            let average = average
                .zip(keep)
                .map(|(average, keep)| average.affine(keep as f32, 0.0) + value.affine((1.0 - keep) as f32, 0.0));
            Moments { first, second, average, ..moments }
        });
        self.moments = updated.collect();
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The moving averages, or the parameters themselves if none are kept; those that are not trained as they are.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn averages(&self, parameters: &Parameters) -> Result<BTreeMap<String, HostTensor>, EngineError> {
        let mut tensors = parameters.to_host()?;
        for Moments { name, shape, average, .. } in &self.moments {
            if let Some(average) = average {
                tensors.insert(name.clone(), to_host(average, shape)?);
            }
        }
        Ok(tensors)
    }

    /// What the next updates need: `first.NAME`, `second.NAME` and `average.NAME`.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn state(&self) -> Result<BTreeMap<String, HostTensor>, EngineError> {
        let mut state = BTreeMap::new();
        for Moments { name, shape, first, second, average, .. } in &self.moments {
            state.insert(format!("first.{name}"), to_host(first, shape)?);
            state.insert(format!("second.{name}"), to_host(second, shape)?);
            if let Some(average) = average {
                state.insert(format!("average.{name}"), to_host(average, shape)?);
            }
        }
        Ok(state)
    }

    /// Goes on from a [`state`](Self::state) after `updates` updates.
    ///
    /// # Errors
    /// The name of a tensor that is missing or has another shape.
    pub fn restore(
        &mut self,
        updates: u64,
        state: &BTreeMap<String, HostTensor>,
        device: &BurnDevice,
    ) -> anyhow::Result<()> {
        let read = |kind: &str, moments: &Moments| match state.get(&format!("{kind}.{}", moments.name)) {
            Some(tensor) if tensor.shape() == moments.shape => Ok(plain(constant(tensor.to_f32(), device))),
            Some(tensor) => anyhow::bail!("`{kind}.{}` has shape {:?}", moments.name, tensor.shape()),
            None => anyhow::bail!("`{kind}.{}` is missing", moments.name),
        };
        for moments in &mut self.moments {
            moments.first = read("first", moments)?;
            moments.second = read("second", moments)?;
            if moments.average.is_some() {
                moments.average = Some(read("average", moments)?);
            }
        }
        self.updates = updates;
        Ok(())
    }
}

/// The numbers of one update.
struct Rule {
    lr: f64,
    betas: [f64; 2],
    /// `1 − βᵗ`
    bias: [f64; 2],
    eps: f64,
    /// What the gradient is multiplied with.
    scale: f64,
}

impl Rule {
    /// Value and moments after the update.
    fn apply(
        &self,
        value: Tensor<Burn, 1>,
        gradient: Tensor<Burn, 1>,
        first: Tensor<Burn, 1>,
        second: Tensor<Burn, 1>,
        decay: f64,
    ) -> (Tensor<Burn, 1>, Tensor<Burn, 1>, Tensor<Burn, 1>) {
        let [b1, b2] = self.betas;
        let times = |x: Tensor<Burn, 1>, factor: f64| x.affine(factor as f32, 0.0);
        let square = gradient.clone() * gradient.clone();
        let first = times(first, b1) + times(gradient, (1.0 - b1) * self.scale);
        let second = times(second, b2) + times(square, (1.0 - b2) * self.scale * self.scale);
        let root = second.clone().map(Unary::Sqrt).affine(self.bias[1].sqrt().recip() as f32, self.eps as f32);
        let change = times(first.clone() / root, self.lr / self.bias[0]);
        (times(value, 1.0 - self.lr * decay) - change, first, second)
    }
}

/// Whether weight decay applies: not to norms and biases, which have one dimension, nor to tables of which a step sees a few
/// rows.
fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() > 1 && name.ends_with(".weight") && !name.contains("embed")
        || name.ends_with("encoder_proj.embed_tokens.weight")
}
