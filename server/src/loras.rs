//! The LoRAs of a folder, which jobs ask for by name. No name from outside becomes a path: it is looked up in the list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kosmosg::bundle::Tensors;
use kosmosg::digest::sha256;
use kosmosg::protocol::{Lora, MAX_LORAS};
use kosmosg::weights::{WeightError, lora};

use crate::error::Error;

/// Largest strength, in either direction.
pub const MAX_SCALE: f32 = 10.0;
/// Ending of a LoRA's file.
const EXTENSION: &str = "safetensors";

/// The LoRAs that a server has, by name.
#[derive(Debug, Default)]
pub struct Loras(BTreeMap<String, LoraFile>);

#[derive(Debug)]
struct LoraFile {
    path: PathBuf,
    /// Known once a job has asked for it: reading many large files would make a server's start long.
    sha256: OnceLock<String>,
}

/// A LoRA as a job asks for it, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    asked: Lora,
    path: PathBuf,
    sha256: String,
}

/// Why a LoRA cannot change a U-Net.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// The file cannot be read.
    #[error("its file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is another one.
    #[error("its file was changed after a job had asked for it; start the server again")]
    Changed,
    /// It fits another network, or none.
    #[error(transparent)]
    Weights(#[from] WeightError),
}

impl Loras {
    /// The LoRAs in the folder `dir`, as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        let mut loras = BTreeMap::new();
        for entry in dir.read_dir()? {
            let path = entry?.path();
            let is_one = path.extension().is_some_and(|extension| extension == EXTENSION) && path.is_file();
            match path.file_stem().and_then(|name| name.to_str()).filter(|_| is_one) {
                Some(name) => loras.insert(name.to_owned(), LoraFile { sha256: OnceLock::new(), path }),
                None => continue,
            };
        }
        Ok(Self(loras))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What is asked for, in the order of the names.
    ///
    /// # Errors
    /// 400 for too many, for a name that is unknown or there twice, and for a strength out of range.
    pub fn choose(&self, asked: Vec<Lora>) -> Result<Vec<Chosen>, Error> {
        if asked.len() > MAX_LORAS {
            return Err(Error::invalid(format!("{} LoRAs; at most {MAX_LORAS} are allowed", asked.len())));
        }
        let mut chosen = asked.into_iter().map(|lora| self.find(lora)).collect::<Result<Vec<_>, _>>()?;
        chosen.sort_by(|one, other| one.asked.name.cmp(&other.asked.name));
        match chosen.windows(2).find(|pair| pair[0].asked.name == pair[1].asked.name) {
            Some(pair) => Err(Error::invalid(format!("the LoRA {:?} is asked for twice", pair[0].asked.name))),
            None => Ok(chosen),
        }
    }

    fn find(&self, asked: Lora) -> Result<Chosen, Error> {
        let Lora { name, scale } = &asked;
        let Some(file) = self.0.get(name) else {
            let names: Vec<_> = self.names().collect();
            let known = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(Error::invalid(format!("there is no LoRA {name:?}; there is {known}")));
        };
        if !(-MAX_SCALE..=MAX_SCALE).contains(scale) {
            let message = format!("the strength of the LoRA {name:?} is {scale}; choose -{MAX_SCALE} to {MAX_SCALE}");
            return Err(Error::invalid(message));
        }
        let sha256 = file.sha256().map_err(|error| Error::internal(format!("the LoRA {name}: {error}")))?.to_owned();
        Ok(Chosen { path: file.path.clone(), sha256, asked })
    }
}

impl LoraFile {
    fn sha256(&self) -> std::io::Result<&str> {
        if self.sha256.get().is_none() {
            // If two jobs are the first at once, both find the same.
            self.sha256.set(sha256(&std::fs::read(&self.path)?)).ok();
        }
        Ok(self.sha256.get().expect("it was set"))
    }
}

impl Chosen {
    /// The request for it.
    pub fn asked(&self) -> &Lora {
        &self.asked
    }

    /// What a recipe says of it.
    pub fn label(&self) -> String {
        lora::label(&format!("{}.{EXTENSION}", self.asked.name), self.asked.scale)
    }

    /// What tells the U-Net that it makes from any other.
    pub fn version(&self) -> String {
        format!("{} × {}", self.sha256, self.asked.scale)
    }

    /// Merges it into a U-Net's weights.
    ///
    /// # Errors
    /// [`LoraError`].
    pub fn merge(&self, unet: &mut Tensors) -> Result<(), LoraError> {
        let file = std::fs::read(&self.path)?;
        if sha256(&file) != self.sha256 {
            return Err(LoraError::Changed);
        }
        Ok(lora::merge_file(unet, file, self.asked.scale)?)
    }
}
