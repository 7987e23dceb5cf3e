//! The weights of a training run, by name.

use std::collections::BTreeMap;

use kosmosg::engine::burn::train::{plain, track_again};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::{EngineError, Tensor};
use kosmosg::weights::{HostTensor, Parameter, Store, WeightError, Weights, load_except};

use super::init::Initializer;

/// Flat tensors on the device, each with the shape that it stands for.
#[derive(Debug, Clone)]
pub(super) struct Parameters {
    tensors: BTreeMap<String, Leaf>,
    device: BurnDevice,
}

#[derive(Debug, Clone)]
struct Leaf {
    shape: Vec<usize>,
    /// On the device without gradients if it is trained.
    value: Tensor<Burn, 1>,
    is_trained: bool,
}

impl Parameters {
    /// All that `build` asks for: `known` weights as they are, others freshly drawn.
    ///
    /// # Errors
    /// A [`WeightError`] if a known weight has another shape.
    pub fn create<N>(
        seed: u64,
        known: BTreeMap<String, HostTensor>,
        device: &BurnDevice,
        build: impl FnOnce(&Weights<'_, Burn>) -> Result<N, WeightError>,
    ) -> Result<BTreeMap<String, HostTensor>, WeightError> {
        let store = Initializer::new(seed, known);
        load_except(&store, device, |_| true, build)?;
        Ok(store.into_tensors())
    }

    /// These weights on a device; gradients will be asked for those that `trained` names.
    pub fn new(tensors: &BTreeMap<String, HostTensor>, device: &BurnDevice, trained: impl Fn(&str) -> bool) -> Self {
        let leaf = |(name, tensor): (&String, &HostTensor)| {
            let is_trained = trained(name);
            let value = constant(tensor.to_f32(), device);
            let value = if is_trained { plain(value) } else { value };
            (name.clone(), Leaf { shape: tensor.shape().to_vec(), value, is_trained })
        };
        Self { tensors: tensors.iter().map(leaf).collect(), device: device.clone() }
    }

    /// The same for one graph: those that are trained are [tracked](track_again).
    pub fn tracked(&self) -> Self {
        let leaf = |(name, leaf): (&String, &Leaf)| {
            let value = leaf.value.clone();
            (name.clone(), Leaf { value: if leaf.is_trained { track_again(value) } else { value }, ..leaf.clone() })
        };
        Self { tensors: self.tensors.iter().map(leaf).collect(), device: self.device.clone() }
    }

    /// A network built from them.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn build<N>(&self, build: impl FnOnce(&Weights<'_, Burn>) -> Result<N, WeightError>) -> Result<N, WeightError> {
        load_except(self, &self.device, |_| true, build)
    }

    /// The flat tensor of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn value(&self, name: &str) -> &Tensor<Burn, 1> {
        &self.tensors[name].value
    }

    /// Puts another flat tensor of the same length in its place.
    ///
    /// # Panics
    /// If there is none.
    pub fn set(&mut self, name: &str, value: Tensor<Burn, 1>) {
        self.tensors.get_mut(name).expect("a parameter that is there").value = value;
    }

    /// Names and shapes.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, leaf)| (name.as_str(), leaf.shape.as_slice()))
    }

    /// All of them in host memory.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn to_host(&self) -> Result<BTreeMap<String, HostTensor>, EngineError> {
        self.tensors.iter().map(|(name, leaf)| Ok((name.clone(), to_host(&leaf.value, &leaf.shape)?))).collect()
    }
}

impl Store<Burn> for Parameters {
    fn get(&self, name: &str, _shape: &[usize]) -> Result<Option<Parameter<Burn>>, WeightError> {
        let parameter = |leaf: &Leaf| Parameter::Device(leaf.value.0.clone(), leaf.shape.clone());
        Ok(self.tensors.get(name).map(parameter))
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }
}

/// A flat tensor without gradient.
pub(super) fn constant(numbers: Vec<f32>, device: &BurnDevice) -> Tensor<Burn, 1> {
    let n = numbers.len();
    Tensor::from_host(numbers, [n], device)
}

/// A flat tensor in host memory, with its shape.
///
/// # Errors
/// What went wrong on the device.
pub(super) fn to_host(flat: &Tensor<Burn, 1>, shape: &[usize]) -> Result<HostTensor, EngineError> {
    let numbers = pollster::block_on(plain(flat.clone()).to_host())?;
    Ok(HostTensor::from_f32(shape.to_vec(), &numbers))
}
