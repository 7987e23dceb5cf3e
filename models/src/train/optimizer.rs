//! AdamW (arXiv 1711.05101) on the device, and a moving average of what it arrives at.

use std::collections::BTreeMap;
use std::ops::{Add, Div, Mul, Sub};

use kosmosg::engine::Unary;
use kosmosg::engine::burn::train::{Gradients, plain, squared_norm, update};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::{EngineError, Tensor};
use kosmosg::weights::HostTensor;

use super::config::Training;
use super::parameters::{Parameters, constant, to_host};

/// The optimizer of some parameters.
pub(super) struct AdamW {
    training: Training,
    groups: Vec<Group>,
    /// Updates so far.
    updates: u64,
}

/// Parameters that are updated as one flat tensor: on a GPU, what counts is how many operations there are.
struct Group {
    /// In the order in which they follow one another.
    members: Vec<Member>,
    weight_decay: f64,
    first: Tensor<Burn, 1>,
    second: Tensor<Burn, 1>,
    average: Option<Tensor<Burn, 1>>,
}

/// A parameter's place in its [`Group`].
struct Member {
    name: String,
    shape: Vec<usize>,
    start: usize,
}

impl Member {
    /// Its part of its group's values, or of something that belongs to them.
    fn of(&self, flat: &Tensor<Burn, 1>) -> Tensor<Burn, 1> {
        flat.clone().narrow(0, self.start, self.shape.iter().product())
    }
}

impl Group {
    fn new<'a>(
        training: &Training,
        parameters: &Parameters,
        weight_decay: f64,
        chosen: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Self {
        let mut start = 0;
        let members = chosen.map(|(name, shape)| {
            let member = Member { name: name.to_owned(), shape: shape.to_vec(), start };
            start += shape.iter().product::<usize>();
            member
        });
        let members: Vec<_> = members.collect();
        let values = values(&members, parameters);
        let zeros = values.clone().affine(0.0, 0.0);
        Self { members, weight_decay, first: zeros.clone(), second: zeros, average: training.ema.map(|_| values) }
    }

    /// The members' parts of `flat` in host memory, by name.
    fn to_host(&self, flat: &Tensor<Burn, 1>) -> Result<Vec<(&str, HostTensor)>, EngineError> {
        let part = |member: &Member| to_host(&member.of(flat), &member.shape);
        self.members.iter().map(|member| Ok((member.name.as_str(), part(member)?))).collect()
    }

    /// What is remembered besides the values, by kind.
    fn state(&self) -> impl Iterator<Item = (&'static str, &Tensor<Burn, 1>)> {
        let average = self.average.as_ref().map(|average| ("average", average));
        [("first", &self.first), ("second", &self.second)].into_iter().chain(average)
    }
}

/// The values of a group's parameters.
fn values(members: &[Member], parameters: &Parameters) -> Tensor<Burn, 1> {
    Tensor::cat(members.iter().map(|member| parameters.value(&member.name).clone()).collect(), 0)
}

/// Gradients of some samples' mean loss, one tensor for each of an optimizer's groups.
pub(super) struct Step(Vec<Tensor<Burn, 1>>);

impl Step {
    /// The gradients of both steps' samples together, of which `share` are this step's.
    pub fn join(self, other: Self, share: f64) -> Self {
        let join = |(a, b)| {
            let [mean, _] = update([a, b], |x| mean(x, share), |x| mean(x, share));
            mean
        };
        Self(self.0.into_iter().zip(other.0).map(join).collect())
    }

    /// All gradients times a factor.
    pub fn scaled(self, factor: f64) -> Self {
        let scaled = |x: Tensor<Burn, 1>| if factor == 1.0 { x } else { x.times(factor) };
        Self(self.0.into_iter().map(scaled).collect())
    }

    /// The squared norm of all gradients together, `[1]`, still on the device.
    pub fn squared_norm(&self) -> Tensor<Burn, 1> {
        Tensor::cat(self.0.iter().cloned().map(squared_norm).collect(), 0).sum(0)
    }
}

impl AdamW {
    /// The optimizer of those of `parameters` that `trained` names, before its first update.
    pub fn new(training: &Training, parameters: &Parameters, trained: impl Fn(&str) -> bool) -> Self {
        let (matrices, rest): (Vec<_>, Vec<_>) =
            parameters.shapes().filter(|(name, _)| trained(name)).partition(|(name, shape)| decays(name, shape));
        let groups = [(matrices, training.weight_decay), (rest, 0.0)].into_iter();
        let groups = groups.filter(|(chosen, _)| !chosen.is_empty());
        let groups = groups.map(|(chosen, decay)| Group::new(training, parameters, decay, chosen.into_iter()));
        Self { training: training.clone(), groups: groups.collect(), updates: 0 }
    }

    /// Picks this optimizer's gradients, which were found for [tracked](Parameters::tracked) parameters. What the loss does
    /// not depend on has gradient 0.
    pub fn gather(&self, parameters: &Parameters, gradients: &mut Gradients) -> Step {
        let mut gradient = |member: &Member| {
            let value = parameters.value(&member.name);
            gradients.take(value).unwrap_or_else(|| plain(value.clone()).affine(0.0, 0.0))
        };
        let groups = self.groups.iter();
        Step(groups.map(|group| Tensor::cat(group.members.iter().map(&mut gradient).collect(), 0)).collect())
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
        let groups = std::mem::take(&mut self.groups);
        let updated = groups.into_iter().zip(step.0).map(|(group, gradient)| {
            let Group { members, weight_decay, first, second, average } = group;
            let tensors = [values(&members, parameters), gradient, first, second];
            let [values, _, first, second] =
                update(tensors, |x| rule.apply(x, weight_decay), |x| rule.apply(x, weight_decay));
            for member in &members {
                parameters.set(&member.name, member.of(&values));
            }
            let average = average.zip(keep).map(|(average, keep)| {
                let [average, _] = update([average, values], |x| mean(x, keep), |x| mean(x, keep));
                average
            });
            Group { members, weight_decay, first, second, average }
        });
        self.groups = updated.collect();
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
        for group in &self.groups {
            if let Some(average) = &group.average {
                tensors.extend(group.to_host(average)?.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)));
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
        for group in &self.groups {
            for (kind, flat) in group.state() {
                let parts = group.to_host(flat)?.into_iter();
                state.extend(parts.map(|(name, tensor)| (format!("{kind}.{name}"), tensor)));
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
        let read = |kind: &str, members: &[Member]| {
            let mut numbers = Vec::new();
            for Member { name, shape, .. } in members {
                match state.get(&format!("{kind}.{name}")) {
                    Some(tensor) if tensor.shape() == shape => numbers.extend(tensor.to_f32()),
                    Some(tensor) => anyhow::bail!("`{kind}.{name}` has shape {:?}", tensor.shape()),
                    None => anyhow::bail!("`{kind}.{name}` is missing"),
                }
            }
            Ok(plain(constant(numbers, device)))
        };
        for Group { members, first, second, average, .. } in &mut self.groups {
            *first = read("first", members)?;
            *second = read("second", members)?;
            if let Some(average) = average {
                *average = read("average", members)?;
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
    /// Value, gradient and moments after the update.
    #[inline(always)]
    fn apply<T: Arithmetic>(&self, [value, gradient, first, second]: [T; 4], decay: f64) -> [T; 4] {
        let [b1, b2] = self.betas;
        let square = gradient.clone() * gradient.clone();
        let first = first.times(b1) + gradient.clone().times((1.0 - b1) * self.scale);
        let second = second.times(b2) + square.times((1.0 - b2) * self.scale * self.scale);
        let root = second.clone().sqrt().times(self.bias[1].sqrt().recip()).plus(self.eps);
        let change = (first.clone() / root).times(self.lr / self.bias[0]);
        [value.times(1.0 - self.lr * decay) - change, gradient, first, second]
    }
}

/// A moving average after it saw a value, and that value.
#[inline(always)]
fn mean<T: Arithmetic>([average, value]: [T; 2], keep: f64) -> [T; 2] {
    [average.times(keep) + value.clone().times(1.0 - keep), value]
}

/// A number, or a tensor of them.
trait Arithmetic: Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    fn times(self, factor: f64) -> Self;
    fn plus(self, summand: f64) -> Self;
    fn sqrt(self) -> Self;
}

impl Arithmetic for f32 {
    #[inline(always)]
    fn times(self, factor: f64) -> Self {
        self * factor as f32
    }

    #[inline(always)]
    fn plus(self, summand: f64) -> Self {
        self + summand as f32
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
}

impl Arithmetic for Tensor<Burn, 1> {
    fn times(self, factor: f64) -> Self {
        self.affine(factor as f32, 0.0)
    }

    fn plus(self, summand: f64) -> Self {
        self.affine(1.0, summand as f32)
    }

    fn sqrt(self) -> Self {
        self.map(Unary::Sqrt)
    }
}

/// Whether weight decay applies: not to norms and biases, which have one dimension, nor to tables of which a step sees a few
/// rows.
fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() > 1 && name.ends_with(".weight") && !name.contains("embed")
        || name.ends_with("encoder_proj.embed_tokens.weight")
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::gaussian;

    use super::*;

    /// On the CPU numbers are updated one by one, elsewhere tensors as a whole.
    #[test]
    fn both_ways_to_update_agree() {
        let rule = Rule { lr: 0.01, betas: [0.9, 0.99], bias: [0.5, 0.2], eps: 1e-8, scale: 0.7 };
        let device = BurnDevice::cpu();
        let n = 70_001;
        let tensors: [_; 4] = std::array::from_fn(|i| {
            let numbers = gaussian(1, i as u64, n);
            constant(if i == 3 { numbers.iter().map(|x| x * x).collect() } else { numbers }, &device)
        });
        let host = |x: &Tensor<Burn, 1>| pollster::block_on(x.to_host()).unwrap();
        let by_number = update(tensors.clone(), |x| rule.apply(x, 0.1), |_| unreachable!("on the CPU"));
        let by_tensor = rule.apply(tensors.clone(), 0.1);
        for (ours, theirs) in by_number.iter().zip(&by_tensor) {
            for (ours, theirs) in host(ours).iter().zip(host(theirs)) {
                assert!((ours - theirs).abs() <= 1e-5 * (1.0 + theirs.abs()), "{ours} {theirs}");
            }
        }
        let squares: f64 = host(&tensors[0]).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let norm = host(&squared_norm(tensors[0].clone()))[0];
        assert!((f64::from(norm) / squares - 1.0).abs() < 1e-5, "{norm} {squares}");
    }
}
