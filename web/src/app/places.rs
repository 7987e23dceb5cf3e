//! What there is to compute on, and which of it a job uses.

use kosmosg::bundle::Manifest;
use kosmosg::placement::{
    Device, Failure, Gpu, ModelSize, Place, Placed, Placement, PlacementError, Server, Situation, Stage, Wish, place,
};
use kosmosg::protocol::Health;

use super::{Models, Processor};
use crate::report::{Browser, NoGpu};
use crate::texts;

/// What the person chose under "Where".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// Whatever works best.
    #[default]
    Auto,
    /// This device's GPU.
    Gpu,
    /// This device's processor.
    Cpu,
    /// The server, as much as it can take.
    Server,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Gpu, Self::Cpu, Self::Server];

    /// Its name in the page's elements and storage.
    pub fn name(self) -> &'static str {
        match self {
            Choice::Auto => "auto",
            Choice::Gpu => "gpu",
            Choice::Cpu => "cpu",
            Choice::Server => "server",
        }
    }

    /// The choice of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|choice| choice.name() == name)
    }
}

/// A WebGPU adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// What it can carry.
    pub limits: Gpu,
    /// Whether it is a program on the processor.
    pub is_emulated: bool,
}

/// All places.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// What the person chose.
    pub choice: Choice,
    /// Whether that was the server, which is not there.
    wants_server: bool,
    /// The GPU, if there is one.
    pub adapter: Option<Adapter>,
    /// Why there is none, once that is known.
    pub no_gpu: Option<(NoGpu, Browser)>,
    /// Whether the GPU's worker could not be started.
    pub gpu_is_broken: bool,
    /// Whether the processor's worker could not be started.
    pub cpu_is_broken: bool,
    /// Memory that the processor may use: an estimate.
    pub cpu_memory_bytes: u64,
    /// The server, if there is one.
    pub server: Option<Health>,
    /// What went wrong in this job, all of it: otherwise two places that fail would take turns for ever.
    pub failures: Vec<Failure>,
}

impl Places {
    /// The person chooses.
    pub fn choose(&mut self, choice: Choice) {
        (self.choice, self.wants_server) = (choice, false);
    }

    /// The server was asked how it is. One that was chosen on another visit and is not there now is no reason to make nothing;
    /// when it comes, it is chosen again.
    pub fn found(&mut self, server: Option<Health>, is_running: bool) {
        let is_wanted = self.choice == Choice::Server || self.wants_server;
        if is_wanted && (server.is_some() || !is_running) {
            self.wants_server = server.is_none();
            self.choice = if self.wants_server { Choice::Auto } else { Choice::Server };
        }
        self.server = server;
    }

    /// Where each stage of a job runs, and why.
    ///
    /// # Errors
    /// [`PlacementError`] if it can run nowhere that the person allows.
    pub fn of(&self, manifest: &Manifest, models: &Models) -> Result<Placement, PlacementError> {
        let model = match ModelSize::of(manifest) {
            Ok(model) => model,
            Err(error) => return Err(PlacementError::NoServer { stage: Stage::Encode, why: error.to_string() }),
        };
        let situation = Situation {
            model,
            device: Device {
                gpu: self.gpu(),
                cpu_memory_bytes: if self.cpu_is_broken { 0 } else { self.cpu_memory_bytes },
            },
            server: self
                .server
                .as_ref()
                .map(|health| Server { reachable: models.id_on_server().is_some(), device: health.device.clone() }),
            wish: match self.choice {
                // A device that failed in the middle may hand over to the person's own server.
                Choice::Gpu | Choice::Cpu if self.failures.is_empty() => Wish::ThisDevice,
                Choice::Server => Wish::Server,
                _ => Wish::Auto,
            },
            not_here: models.not_here(),
            failures: self.failures.clone(),
        };
        place(&situation)
    }

    /// The programs to load for the choice before a picture is wanted. The GPU's is large: only for those who chose it.
    pub fn processor(&self) -> Processor {
        if self.choice == Choice::Gpu && self.offers(Choice::Gpu) { Processor::Gpu } else { Processor::Cpu }
    }

    /// The choices that there are, whatever has gone wrong before.
    pub fn offers(&self, choice: Choice) -> bool {
        match choice {
            Choice::Auto => true,
            Choice::Gpu => self.adapter.is_some() && !self.gpu_is_broken,
            Choice::Cpu => !self.cpu_is_broken,
            Choice::Server => self.server.is_some(),
        }
    }

    /// Why there is no GPU, and what to do.
    pub fn no_gpu(&self) -> String {
        self.no_gpu.as_ref().map_or(texts::NO_GPU.into(), |(why, browser)| why.words(*browser))
    }

    /// The GPU to count on, or why none.
    fn gpu(&self) -> Result<Gpu, &'static str> {
        if self.choice == Choice::Cpu {
            return Err(texts::YOU_CHOSE_THE_PROCESSOR);
        }
        match (&self.adapter, &self.no_gpu) {
            (Some(_), _) if self.gpu_is_broken => Err(texts::GPU_FAILED_TO_START),
            (Some(adapter), _) if adapter.is_emulated && self.choice != Choice::Gpu => Err(texts::GPU_IS_EMULATED),
            (Some(adapter), _) => Ok(adapter.limits),
            (None, Some((NoGpu::NotSecure, _))) => Err(texts::ADDRESS_IS_INSECURE),
            (None, Some((NoGpu::NoAdapter, _))) => Err(texts::NO_GPU_FOUND),
            (None, Some((NoGpu::Failed(_), _))) => Err(texts::GPU_FAILED_TO_START),
            (None, Some((NoGpu::NotOffered, _)) | None) => Err(texts::NO_WEBGPU),
        }
    }
}

/// A placement in sentences: one if everything runs at the same place.
pub fn explain(placement: &Placement) -> Vec<String> {
    let [encode, denoise, decode] = [&placement.encode, &placement.denoise, &placement.decode];
    if encode.place == denoise.place && denoise.place == decode.place {
        // What decides is the heaviest stage, except on a server: there the later stages follow the first.
        let (stage, Placed { reason, .. }) = match encode.place {
            Place::Server => (Stage::Encode, encode),
            _ => (Stage::Denoise, denoise),
        };
        let rest = reason.strip_prefix(&stage.to_string());
        return vec![rest.map_or(reason.clone(), |rest| [texts::EVERYTHING, rest].concat())];
    }
    [encode, denoise, decode].map(|placed| placed.reason.clone()).to_vec()
}
