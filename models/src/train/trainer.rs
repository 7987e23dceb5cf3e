//! A stage at some step: its weights and optimizer, and how a step changes them.

use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::train::{Precision, backward, checkpointing, in_precision, plain};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::weights::{WeightError, gguf};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::WEIGHTS;
use super::checkpoint::{Checkpoint, Progress, write_whole};
use super::config::Training;
use super::loss_scale::LossScale;
use super::optimizer::{AdamW, Step};
use super::parameters::Parameters;
use super::run::{Job, Loss, Sheet, Task};

/// A stage at some step.
pub(super) struct Trainer {
    pub parameters: Parameters,
    pub optimizer: AdamW,
    pub progress: Progress,
    device: BurnDevice,
    workers: Workers,
    checkpointing: bool,
    precision: Precision,
}

/// The numbers of a step.
pub(super) struct Outcome {
    /// The loss, then its parts.
    pub numbers: Vec<(&'static str, f64)>,
    /// Norm of the gradients.
    pub norm: f64,
}

impl Outcome {
    /// Whether the step could be taken.
    pub fn is_finite(&self) -> bool {
        self.norm.is_finite() && self.numbers[0].1.is_finite()
    }
}

impl Trainer {
    /// Goes on from the newest checkpoint, or starts.
    pub fn open<T: Task>(job: &Job, task: &T) -> anyhow::Result<Self> {
        let Job { name, dir, training, basis, device } = job;
        if !training.precision.is_on(device) {
            anyhow::bail!(
                "stage {name} is to be trained in {:?}, which this device does not compute with; take `precision` out of \
                 [{name}.training], or choose another device",
                training.precision
            );
        }
        let mut fingerprint = basis.clone();
        fingerprint["seed"] = training.seed.into();
        fingerprint["batch"] = training.batch.into();
        let mut tensors = Parameters::create(training.seed, task.known(), device, |weights| task.networks(weights))?;
        let is_idle = |beginning: &&String| !tensors.keys().any(|name| name.starts_with(beginning.as_str()));
        let idle: Vec<_> = task.trained().unwrap_or_default().iter().filter(is_idle).collect();
        if !idle.is_empty() {
            anyhow::bail!("stage {name} is to train {idle:?}, but no parameter's name begins like that");
        }
        let checkpoint = Checkpoint::newest(dir)?;
        if let Some(checkpoint) = &checkpoint {
            if checkpoint.is_underway()
                && let Some(what) = checkpoint.progress.difference(&fingerprint)
            {
                anyhow::bail!(
                    "stage {name} began with another `{what}`: put that back, or remove {} to begin again",
                    dir.display()
                );
            }
            tensors.extend(checkpoint.weights.clone().into_iter().filter(|(name, _)| task.trains(name)));
        }
        let parameters = Parameters::new(&tensors, device, |name| task.trains(name));
        let mut optimizer = AdamW::new(training, &parameters, |name| task.trains(name));
        let precision = training.precision;
        let loss_scale = LossScale::new(precision);
        let mut progress = Progress { fingerprint, loss_scale, ..Progress::default() };
        if let Some(checkpoint) = checkpoint.filter(Checkpoint::is_underway) {
            optimizer
                .restore(checkpoint.progress.updates, &checkpoint.optimizer, device)
                .with_context(|| format!("the checkpoint in {} does not fit", dir.display()))?;
            progress = checkpoint.progress;
        }
        let workers = Workers::new(training, device)?;
        let checkpointing = training.checkpointing;
        Ok(Self { parameters, optimizer, progress, device: device.clone(), workers, checkpointing, precision })
    }

    /// One update, unless the loss is not finite, by samples in `parts`.
    pub fn step<T: Task + Sync>(&mut self, task: &T, parts: Vec<T::Batch>) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let whole = self.workers.reduce(parts, |batch| self.differentiate(task, batch), |a, b| Ok(a?.join(b?)));
        let Part { step, names, numbers, .. } = whole.context("a batch of no samples")??;
        // One read-back for all numbers: each costs a wait for the device.
        let numbers = Tensor::cat(vec![step.squared_norm(), numbers], 0);
        let numbers = pollster::block_on(numbers.to_host()).context("cannot read a loss")?;
        let outcome = Outcome {
            numbers: names.into_iter().zip(numbers[1..].iter().map(|&x| f64::from(x))).collect(),
            norm: f64::from(numbers[0]).sqrt(),
        };
        if outcome.is_finite() {
            self.optimizer.update(&mut self.parameters, step, outcome.norm);
            self.progress.loss_scale.went_well(self.precision);
        }
        self.progress.step += 1;
        self.progress.updates = self.optimizer.updates();
        self.progress.seconds += start.elapsed().as_secs_f64();
        Ok(outcome)
    }

    fn differentiate<T: Task>(&self, task: &T, batch: T::Batch) -> Result<Part, WeightError> {
        let parameters = self.parameters.tracked();
        let networks = parameters.build(|weights| task.networks(weights))?;
        let scale = self.progress.loss_scale.factor();
        let differentiate = || {
            let loss = task.loss(&networks, batch);
            let gradients = backward(&loss.total.clone().affine(scale as f32, 0.0));
            (loss, gradients)
        };
        let (Loss { total, parts, count }, mut gradients) = in_precision(self.precision, || {
            if self.checkpointing { checkpointing(differentiate) } else { differentiate() }
        });
        let step = self.optimizer.gather(&parameters, &mut gradients).scaled(scale.recip());
        let (names, numbers): (Vec<_>, Vec<_>) = [("loss", total)].into_iter().chain(parts).unzip();
        Ok(Part { step, names, numbers: Tensor::cat(numbers.into_iter().map(plain).collect(), 0), count })
    }

    /// Writes the stage's result, then where it stands: what a killed process leaves unfinished is written again.
    pub fn save<T: Task>(&self, dir: &Path, task: &T) -> anyhow::Result<()> {
        let averages = self.optimizer.averages(&self.parameters)?;
        write_whole(&dir.join(WEIGHTS), &gguf::write(&averages))?;
        if let Some((name, bytes)) = task.extra(&self.averaged(task)?)? {
            write_whole(&dir.join(name), &bytes)?;
        }
        let mut weights = self.parameters.to_host()?;
        weights.retain(|name, _| task.trains(name));
        Checkpoint { progress: self.progress.clone(), weights, optimizer: self.optimizer.state()? }.write(dir)
    }

    /// Draws the sample sheet, if the stage has one.
    pub fn draw<T: Task>(&self, dir: &Path, task: &T) -> anyhow::Result<()> {
        let Some(Sheet { picture, prompts }) = task.sheet(&self.averaged(task)?)? else { return Ok(()) };
        let sheets = dir.join("sheets");
        fs::create_dir_all(&sheets).with_context(|| format!("cannot create {}", sheets.display()))?;
        write_whole(&sheets.join(format!("{:07}.png", self.progress.step)), &picture.to_png(None))?;
        if !prompts.is_empty() {
            write_whole(&sheets.join("prompts.txt"), (prompts.join("\n") + "\n").as_bytes())?;
        }
        Ok(())
    }

    /// The networks with their averaged weights.
    fn averaged<T: Task>(&self, task: &T) -> anyhow::Result<T::Networks> {
        let averages = self.optimizer.averages(&self.parameters)?;
        let parameters = Parameters::new(&averages, &self.device, |_| false);
        Ok(parameters.build(|weights| task.networks(weights))?)
    }
}

/// What some of a step's samples say.
struct Part {
    step: Step,
    names: Vec<&'static str>,
    /// The loss, then its parts.
    numbers: Tensor<Burn, 1>,
    /// How many things these are means over.
    count: usize,
}

impl Part {
    fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        let share = self.count as f64 / count as f64;
        let share_of = |numbers: Tensor<Burn, 1>, share: f64| numbers.affine(share as f32, 0.0);
        Self {
            step: self.step.join(other.step, share),
            names: self.names,
            numbers: share_of(self.numbers, share) + share_of(other.numbers, 1.0 - share),
            count,
        }
    }
}

/// What computes the parts of a step: with several on the CPU, a pool of threads for each. Between the small operations of
/// one graph, threads would mostly wait for each other.
struct Workers(Vec<ThreadPool>);

impl Workers {
    fn new(training: &Training, device: &BurnDevice) -> anyhow::Result<Self> {
        let parts = if device.is_cpu() && training.parts > 1 { training.parts } else { 0 };
        let threads = rayon::current_num_threads().checked_div(parts).unwrap_or(0).max(1);
        let pool = |_| ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads");
        Ok(Self((0..parts).map(pool).collect::<anyhow::Result<_>>()?))
    }

    /// `f` of each part, joined in order. Without threads of their own, a part's is joined before the next one's is
    /// computed, so that there are never more than two.
    fn reduce<B: Send, R: Send>(
        &self,
        parts: Vec<B>,
        f: impl Fn(B) -> R + Sync,
        join: impl Fn(R, R) -> R,
    ) -> Option<R> {
        if self.0.is_empty() {
            return parts.into_iter().map(f).reduce(join);
        }
        let f = &f;
        thread::scope(|scope| {
            let work = parts.into_iter().zip(&self.0);
            let handles: Vec<_> = work.map(|(part, pool)| scope.spawn(move || pool.install(|| f(part)))).collect();
            handles.into_iter().map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic))).reduce(join)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn one_after_the_other_parts_are_joined_as_they_come() {
        let (computed, joined) = (AtomicUsize::new(0), Cell::new(0));
        let join = |a: String, b: String| {
            joined.set(joined.get() + 1);
            assert_eq!(computed.load(Ordering::Relaxed), joined.get() + 1);
            a + &b
        };
        let f = |part: usize| {
            computed.fetch_add(1, Ordering::Relaxed);
            part.to_string()
        };
        assert_eq!(Workers(Vec::new()).reduce((0..5).collect(), f, join).unwrap(), "01234");
        let training = Training { parts: 5, ..TrainConfig::tiny().vae.training };
        let side_by_side = Workers::new(&training, &BurnDevice::cpu()).unwrap();
        assert_eq!(side_by_side.0.len(), 5);
        assert_eq!(side_by_side.reduce((0..5).collect(), f, |a, b| a + &b).unwrap(), "01234");
    }
}
