//! A runner that computes nothing and takes a step when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kosmosg::denoise::{DenoiseError, DenoiseState};
use kosmosg::engine::EngineError;
use kosmosg::picture::Picture;
use kosmosg::pipeline::StepError;
use kosmosg_server::inference::RunError;
use kosmosg_server::work::{Goal, Model};
use kosmosg_server::worker::Runner;

use super::PATIENCE;

/// What the runner is told.
#[derive(Debug)]
pub enum Command {
    /// Take a step.
    Step,
    /// Panic.
    Panic,
    /// Fail as a bundle does whose file is damaged.
    Fail,
    /// Answer with what is no number.
    Nan,
    /// Fail as a GPU does without memory.
    OutOfMemory,
    /// Fail as a GPU does that is gone.
    Lost,
}

/// The runner.
pub struct Puppet {
    pub commands: Receiver<Command>,
    pub ran: Arc<Mutex<Vec<u64>>>,
    pub together: Arc<Mutex<Vec<Vec<u64>>>>,
    pub begun: Arc<AtomicUsize>,
    pub released: Arc<AtomicUsize>,
}

impl Runner for Puppet {
    type Condition = ();

    fn name(&self) -> &str {
        "puppet"
    }

    fn prepare(&mut self, model: &Model, goal: &Goal) -> Result<(), RunError> {
        if let Goal::Prompt { pictures, .. } = goal {
            let size = model.bundle.manifest().networks.kosmosg.vision.image_size as u32;
            assert!(pictures.iter().all(|picture| (picture.width(), picture.height()) == (size, size)));
        }
        Ok(())
    }

    fn step(
        &mut self,
        model: &Model,
        runs: &mut [(&mut DenoiseState, &())],
    ) -> Result<Vec<Result<Vec<f32>, DenoiseError>>, RunError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let seeds: Vec<u64> = runs.iter().map(|(state, ())| state.settings().seed).collect();
        let began = |seed: &u64| !self.ran.lock().unwrap().contains(seed);
        let new: Vec<u64> = seeds.iter().copied().filter(began).collect();
        self.ran.lock().unwrap().extend(new);
        let advance = |value: f32| {
            move |(state, ()): &mut (&mut DenoiseState, &())| state.advance(&vec![value; state.latents().len()])
        };
        let oom = || EngineError::OutOfMemory { engine: "none", detail: "as told".into() };
        // What waits for it in the test fails first, and says where.
        match self.commands.recv_timeout(2 * PATIENCE) {
            Ok(Command::Step) => {
                self.together.lock().unwrap().push(seeds);
                Ok(runs.iter_mut().map(advance(0.1)).collect())
            }
            Ok(Command::Panic) => panic!("as told"),
            Ok(Command::Fail) => Err(model.bundle.folder().part("unet").unwrap_err())?,
            Ok(Command::Nan) => Ok(runs.iter_mut().map(advance(f32::NAN)).collect()),
            Ok(Command::OutOfMemory) => Err(StepError::Engine(oom()).into()),
            Ok(Command::Lost) => {
                Err(StepError::Engine(EngineError::DeviceLost { engine: "none", detail: "as told".into() }).into())
            }
            Err(RecvTimeoutError::Timeout) => panic!("the test waits for this step and never told to take it"),
            // The test is over.
            Err(RecvTimeoutError::Disconnected) => Err(StepError::Engine(oom()).into()),
        }
    }

    fn decode(&mut self, _: &Model, _: &DenoiseState) -> Result<Picture, RunError> {
        Ok(Picture::new(1, 1, vec![1, 2, 3]).unwrap())
    }

    fn release(&mut self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    fn turn_of_a_model(&self) -> Duration {
        Duration::ZERO
    }
}
