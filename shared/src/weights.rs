//! How weights reach a network: by name and shape, from whatever holds them.
//!
//! A network's constructor takes [`Weights`], a place in a tree of names, and asks it for what it needs:
//! `weights.at("ln_1")`, `weights.linear("q_proj", …)`. What answers is a [`Store`]: files, a page's storage, or a training
//! run's map of flat tensors. A weight that is missing, misshapen or left over is an error with its path.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::sync::Arc;

use crate::engine::{Activation, ConvOptions, Engine, Tensor};

pub use host::{DType, HostTensor};

pub mod gguf;
mod host;
pub mod lora;
pub mod safetensors;

/// A weight as a [`Store`] hands it to an engine.
#[derive(Debug, Clone)]
pub enum Parameter<E: Engine> {
    /// Numbers in host memory, possibly packed.
    Host(HostTensor),
    /// Numbers on the device already: a training run's, flat, with the shape they stand for.
    Device(E::Tensor<1>, Vec<usize>),
}

impl<E: Engine> Parameter<E> {
    /// The sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Parameter::Host(tensor) => tensor.shape(),
            Parameter::Device(_, shape) => shape,
        }
    }
}

/// Why a network could not be built from its weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The network needs a tensor that is not there.
    #[error("tensor `{name}` is missing{}", expected.as_ref().map_or(String::new(), |s| format!(" (expected shape {s:?})")))]
    Missing {
        /// Full name.
        name: String,
        /// The shape that is asked for, where one is known before.
        expected: Option<Vec<usize>>,
    },
    /// A tensor has another shape than the network asks for.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Full name.
        name: String,
        /// The shape the network asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor that is there cannot be read.
    #[error("tensor `{name}` cannot be read: {detail}")]
    Unreadable {
        /// Full name.
        name: String,
        /// Why.
        detail: String,
    },
    /// Tensors that the network does not know.
    #[error("{} unexpected: {}", if names.len() == 1 { "tensor is" } else { "tensors are" }, list(names))]
    Unexpected {
        /// Their full names.
        names: Vec<String>,
    },
    /// A file that holds no readable tensors.
    #[error("{what}: {detail}")]
    Malformed {
        /// The file or tensor.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// Something that has weights by name.
pub trait Store<E: Engine> {
    /// The weight of that full name, if there is one. `shape` is what the network expects: files do not need it, an
    /// initializer does.
    ///
    /// # Errors
    /// [`WeightError::Unreadable`].
    fn get(&self, name: &str, shape: &[usize]) -> Result<Option<Parameter<E>>, WeightError>;

    /// All full names.
    fn names(&self) -> Vec<String>;

    /// The table of that full name where its rows can be read one by one; `None` where [`get`](Self::get) is as good.
    fn table(&self, _name: &str) -> Option<Arc<dyn Rows>> {
        None
    }
}

/// A table `[entries, dim]` that is read row by row.
pub trait Rows: Send + Sync + fmt::Debug {
    /// `[entries, dim]`.
    fn shape(&self) -> [usize; 2];

    /// The numbers of some rows, one after the other.
    ///
    /// # Errors
    /// [`WeightError::Unreadable`].
    ///
    /// # Panics
    /// If a row is past the table's end.
    fn read(&self, rows: &[u32]) -> Result<Vec<f32>, WeightError>;
}

impl<E: Engine> Store<E> for BTreeMap<String, HostTensor> {
    fn get(&self, name: &str, _shape: &[usize]) -> Result<Option<Parameter<E>>, WeightError> {
        Ok(BTreeMap::get(self, name).cloned().map(Parameter::Host))
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Builds a network from all of a store: a tensor left unread is an error.
pub fn load<E: Engine, N>(
    store: &dyn Store<E>,
    device: &E::Device,
    build: impl FnOnce(&Weights<'_, E>) -> Result<N, WeightError>,
) -> Result<N, WeightError> {
    load_except(store, device, |_| false, build)
}

/// Like [`load`], but tensors that `redundant` says are known and not needed may stay unread.
pub fn load_except<E: Engine, N>(
    store: &dyn Store<E>,
    device: &E::Device,
    redundant: impl Fn(&str) -> bool,
    build: impl FnOnce(&Weights<'_, E>) -> Result<N, WeightError>,
) -> Result<N, WeightError> {
    let read = RefCell::new(BTreeSet::new());
    let network = build(&Weights { store, device, read: &read, prefix: String::new() })?;
    let read = read.into_inner();
    let names: Vec<_> = store.names().into_iter().filter(|name| !read.contains(name) && !redundant(name)).collect();
    if names.is_empty() { Ok(network) } else { Err(WeightError::Unexpected { names }) }
}

/// A place in a store's tree of names. See the [module documentation](self).
pub struct Weights<'a, E: Engine> {
    store: &'a dyn Store<E>,
    device: &'a E::Device,
    read: &'a RefCell<BTreeSet<String>>,
    prefix: String,
}

/// Whether a linear map or convolution has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// `b` is learned.
    Yes,
    /// No `b`.
    No,
}

impl<'a, E: Engine> Weights<'a, E> {
    /// The place `name` below this one.
    pub fn at(&self, name: impl Display) -> Self {
        Self { prefix: self.path(&name.to_string()), ..*self }
    }

    /// The device that the weights go to.
    pub fn device(&self) -> &'a E::Device {
        self.device
    }

    /// Whether there is a tensor of that name here.
    pub fn has(&self, name: &str) -> bool {
        let path = self.path(name);
        self.store.names().contains(&path)
    }

    /// `build` for each of `n` places `0`, `1`, … below `name`: a stack of layers.
    pub fn stack<N>(
        &self,
        name: &str,
        n: usize,
        build: impl Fn(&Weights<'a, E>) -> Result<N, WeightError>,
    ) -> Result<Vec<N>, WeightError> {
        (0..n).map(|i| build(&self.at(format_args!("{name}.{i}")))).collect()
    }

    /// The weight `name` as it is stored, once its shape is checked.
    pub fn parameter(&self, name: &str, shape: &[usize]) -> Result<Parameter<E>, WeightError> {
        let name = self.path(name);
        let Some(parameter) = self.store.get(&name, shape)? else {
            return Err(WeightError::Missing { name, expected: Some(shape.to_vec()) });
        };
        if parameter.shape() != shape {
            let found = parameter.shape().to_vec();
            return Err(WeightError::Shape { name, expected: shape.to_vec(), found });
        }
        self.read.borrow_mut().insert(name);
        Ok(parameter)
    }

    /// The weight `name` as a dense tensor.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<E, D>, WeightError> {
        Ok(Tensor(E::dense(self.parameter(name, &shape)?, shape, self.device)))
    }

    /// `name.weight` `[out, in]` and `name.bias` `[out]`.
    pub fn linear(&self, name: &str, [input, output]: [usize; 2], bias: Bias) -> Result<Linear<E>, WeightError> {
        let at = self.at(name);
        let weight = at.parameter("weight", &[output, input])?;
        Ok(Linear(E::prepare_linear(weight, at.bias(output, bias)?, self.device)))
    }

    /// `name.weight` `[out, in, kernel, kernel]` and `name.bias` `[out]`.
    pub fn conv2d(
        &self,
        name: &str,
        [input, output]: [usize; 2],
        kernel: usize,
        options: ConvOptions,
        bias: Bias,
    ) -> Result<Conv2d<E>, WeightError> {
        let at = self.at(name);
        let weight = at.parameter("weight", &[output, input, kernel, kernel])?;
        Ok(Conv2d(E::prepare_conv2d(weight, at.bias(output, bias)?, options, self.device)))
    }

    /// A 3 × 3 convolution that keeps the picture's size.
    pub fn conv3x3(&self, name: &str, channels: [usize; 2]) -> Result<Conv2d<E>, WeightError> {
        self.conv2d(name, channels, 3, ConvOptions { stride: 1, padding: 1 }, Bias::Yes)
    }

    /// A 1 × 1 convolution.
    pub fn conv1x1(&self, name: &str, channels: [usize; 2]) -> Result<Conv2d<E>, WeightError> {
        self.conv2d(name, channels, 1, ConvOptions { stride: 1, padding: 0 }, Bias::Yes)
    }

    /// A 1 × 1 convolution `name.weight` `[out, in, 1, 1]` as the linear map that it is, for pictures as tokens.
    pub fn pointwise(&self, name: &str, [input, output]: [usize; 2], bias: Bias) -> Result<Linear<E>, WeightError> {
        let at = self.at(name);
        let weight = match at.parameter("weight", &[output, input, 1, 1])? {
            Parameter::Host(tensor) => Parameter::Host(tensor.reshape(vec![output, input])?),
            Parameter::Device(flat, _) => Parameter::Device(flat, vec![output, input]),
        };
        Ok(Linear(E::prepare_linear(weight, at.bias(output, bias)?, self.device)))
    }

    /// `name.weight` and `name.bias`, `[dim]` each, with the eps 1e-5 of every LayerNorm in these models.
    pub fn layer_norm(&self, name: &str, dim: usize) -> Result<LayerNorm<E>, WeightError> {
        let at = self.at(name);
        Ok(LayerNorm { weight: at.tensor("weight", [dim])?, bias: at.tensor("bias", [dim])? })
    }

    /// `name.weight` and `name.bias`, `[channels]` each.
    pub fn group_norm(
        &self,
        name: &str,
        groups: usize,
        channels: usize,
        eps: f32,
    ) -> Result<GroupNorm<E>, WeightError> {
        let at = self.at(name);
        let (weight, bias) = (at.tensor("weight", [channels])?, at.tensor("bias", [channels])?);
        Ok(GroupNorm { groups, eps, weight, bias })
    }

    /// The table `name`, `[entries, dim]`.
    pub fn embedding(&self, name: &str, entries: usize, dim: usize) -> Result<Embedding<E>, WeightError> {
        let parameter = self.parameter(name, &[entries, dim])?;
        Ok(Embedding { table: parameter, device: self.device.clone() })
    }

    /// The table `name`, `[entries, dim]`, of which each use reads a few rows: it stays where it is, if the store can read
    /// it row by row.
    pub fn vocabulary(&self, name: &str, entries: usize, dim: usize) -> Result<Vocabulary<E>, WeightError> {
        let path = self.path(name);
        let Some(rows) = self.store.table(&path) else {
            return Ok(Vocabulary::Loaded(self.embedding(name, entries, dim)?));
        };
        let (found, expected) = (rows.shape().to_vec(), vec![entries, dim]);
        if found != expected {
            return Err(WeightError::Shape { name: path, expected, found });
        }
        self.read.borrow_mut().insert(path);
        Ok(Vocabulary::Stored(rows, self.device.clone()))
    }

    fn bias(&self, output: usize, bias: Bias) -> Result<Option<Parameter<E>>, WeightError> {
        match bias {
            Bias::Yes => self.parameter("bias", &[output]).map(Some),
            Bias::No => Ok(None),
        }
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// `y = x · Wᵀ + b`.
#[derive(Debug, Clone)]
pub struct Linear<E: Engine>(E::Linear);

impl<E: Engine> Linear<E> {
    /// `[…, in]` to `[…, out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<E, D>) -> Tensor<E, D> {
        Tensor(E::linear(x.0, &self.0))
    }
}

/// A 2-D convolution.
#[derive(Debug, Clone)]
pub struct Conv2d<E: Engine>(E::Conv2d);

impl<E: Engine> Conv2d<E> {
    /// `[B, in, H, W]` to `[B, out, H', W']`.
    pub fn forward(&self, x: Tensor<E, 4>) -> Tensor<E, 4> {
        Tensor(E::conv2d(x.0, &self.0))
    }
}

/// Layer normalisation with eps 1e-5.
#[derive(Debug, Clone)]
pub struct LayerNorm<E: Engine> {
    weight: Tensor<E, 1>,
    bias: Tensor<E, 1>,
}

impl<E: Engine> LayerNorm<E> {
    /// Normalises the last dimension.
    pub fn forward<const D: usize>(&self, x: Tensor<E, D>) -> Tensor<E, D> {
        Tensor(E::layer_norm(x.0, &self.weight.0, &self.bias.0, 1e-5))
    }
}

/// Group normalisation.
#[derive(Debug, Clone)]
pub struct GroupNorm<E: Engine> {
    groups: usize,
    eps: f32,
    weight: Tensor<E, 1>,
    bias: Tensor<E, 1>,
}

impl<E: Engine> GroupNorm<E> {
    /// Normalises each group of channels of `[B, C, H, W]`.
    pub fn forward(&self, x: Tensor<E, 4>) -> Tensor<E, 4> {
        self.apply(x, Activation::None)
    }

    /// The same, then SiLU.
    pub fn forward_silu(&self, x: Tensor<E, 4>) -> Tensor<E, 4> {
        self.apply(x, Activation::Silu)
    }

    fn apply(&self, x: Tensor<E, 4>, activation: Activation) -> Tensor<E, 4> {
        Tensor(E::group_norm(x.0, self.groups, &self.weight.0, &self.bias.0, self.eps, activation))
    }
}

/// A table of learned rows.
///
/// One that comes from a file stays in host memory, packed as it is: a prompt reads a few rows of what may be the largest
/// tensor of all. One that is being trained is on the device.
#[derive(Debug, Clone)]
pub struct Embedding<E: Engine> {
    table: Parameter<E>,
    device: E::Device,
}

impl<E: Engine> Embedding<E> {
    /// `n` row numbers to `[n, D]`.
    ///
    /// # Panics
    /// If a row is past the table's end.
    pub fn rows(&self, rows: &[u32]) -> Tensor<E, 2> {
        let dim = self.table.shape()[1];
        match &self.table {
            Parameter::Host(table) => Tensor::from_host(table.rows(rows), [rows.len(), dim], &self.device),
            Parameter::Device(..) => self.table().rows(rows),
        }
    }

    /// The whole table, `[entries, dim]`.
    pub fn table(&self) -> Tensor<E, 2> {
        let shape = [self.table.shape()[0], self.table.shape()[1]];
        Tensor(E::dense(self.table.clone(), shape, &self.device))
    }
}

/// The embeddings of a vocabulary, which may be the largest tensor of all.
#[derive(Debug, Clone)]
pub enum Vocabulary<E: Engine> {
    /// A table in memory.
    Loaded(Embedding<E>),
    /// A table that stays in its file, and the device that its rows go to.
    Stored(Arc<dyn Rows>, E::Device),
}

impl<E: Engine> Vocabulary<E> {
    /// `n` row numbers to `[n, D]`.
    ///
    /// # Errors
    /// [`WeightError::Unreadable`] where rows are read from a file.
    ///
    /// # Panics
    /// If a row is past the table's end.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor<E, 2>, WeightError> {
        match self {
            Self::Loaded(table) => Ok(table.rows(rows)),
            Self::Stored(table, device) => {
                let [_, dim] = table.shape();
                Ok(Tensor::from_host(table.read(rows)?, [rows.len(), dim], device))
            }
        }
    }

    /// The whole table, `[entries, dim]`.
    ///
    /// # Errors
    /// [`WeightError::Unreadable`].
    pub fn table(&self) -> Result<Tensor<E, 2>, WeightError> {
        match self {
            Self::Loaded(table) => Ok(table.table()),
            Self::Stored(table, _) => self.rows(&(0..table.shape()[0] as u32).collect::<Vec<_>>()),
        }
    }
}
