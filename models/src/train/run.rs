//! The loop that all stages share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::weights::{HostTensor, WeightError, Weights};
use serde_json::Value;

use super::config::Training;
use super::init::sample_rngs;
use super::prefetch::prefetch;
use super::progress::{Reporter, StepReport};
use super::trainer::Trainer;

/// Draws samples, one from each generator: a pure function.
pub(super) type Source<B> = Box<dyn Fn(Vec<Rng>) -> B + Send + Sync>;

/// What is particular about a stage.
pub(super) trait Task {
    /// The networks that are built anew for each step.
    type Networks;
    /// What a step sees, still in host memory.
    type Batch: Send + 'static;

    /// Weights that earlier stages made.
    fn known(&self) -> BTreeMap<String, HostTensor> {
        BTreeMap::new()
    }
    /// Beginnings of the names of what is trained, if it is not all; everything else stays as it is, bit by bit.
    fn trained(&self) -> Option<&[String]> {
        None
    }
    /// Whether a parameter is trained.
    fn trains(&self, name: &str) -> bool {
        self.trained().is_none_or(|trained| trained.iter().any(|beginning| name.starts_with(beginning.as_str())))
    }
    /// Builds the networks.
    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError>;
    /// What draws samples, on threads of its own.
    fn source(&self) -> Source<Self::Batch>;
    /// What a step minimises.
    fn loss(&self, networks: &Self::Networks, batch: Self::Batch) -> Loss;
    /// What shows a person how far it is, if the stage has something to show.
    fn sheet(&self, _networks: &Self::Networks) -> anyhow::Result<Option<Sheet>> {
        Ok(None)
    }
    /// What a stage leaves besides its weights: a file's name and bytes.
    fn extra(&self, _networks: &Self::Networks) -> anyhow::Result<Option<(&'static str, Vec<u8>)>> {
        Ok(None)
    }
}

/// A loss, `[1]`, and the numbers that a person wants to see with it.
pub(super) struct Loss {
    /// What is minimised.
    pub total: Tensor<Burn, 1>,
    /// Names and numbers, `[1]` each.
    pub parts: Vec<(&'static str, Tensor<Burn, 1>)>,
    /// How many things these are means over.
    pub count: usize,
}

/// A sample sheet.
pub(super) struct Sheet {
    /// Pictures in a grid.
    pub picture: Picture,
    /// What was asked for, from left to right and from top to bottom.
    pub prompts: Vec<String>,
}

/// A stage to be trained.
pub(super) struct Job {
    /// Its name.
    pub name: &'static str,
    /// Its folder, which is there.
    pub dir: PathBuf,
    /// How it is trained.
    pub training: Training,
    /// What it begins with besides its own settings: networks, words, earlier stages. A checkpoint that began with
    /// something else cannot go on.
    pub basis: Value,
    /// Where it computes.
    pub device: BurnDevice,
}

/// So many losses in a row that are not finite end a run: it will not recover by itself.
const MOST_SKIPPED: u64 = 5;

/// Trains a stage to its end.
pub(super) fn train<T: Task + Sync>(job: &Job, task: &T) -> anyhow::Result<()> {
    let Job { name, dir, training, .. } = job;
    let mut trainer = Trainer::open(job, task)?;
    let first = trainer.progress.step;
    let mut reporter = Reporter::new(dir, name, first, training.steps, training.batch)?;
    let count: usize = trainer.parameters.shapes().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    reporter.say(&format!("{name}: {count} parameters, step {first} of {}, in {}", training.steps, dir.display()));
    let mut skipped = 0;
    let (source, drawn, stage) = (task.source(), training.clone(), *name);
    let draw = move |step| {
        let rngs = sample_rngs(&drawn, stage, step);
        rngs.chunks(drawn.batch.div_ceil(drawn.parts)).map(|rngs| source(rngs.to_vec())).collect()
    };
    let (mut batches, mut waited) = (prefetch(first..training.steps, draw), Duration::ZERO);
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let Some(parts) = batches.next() else { break };
        waited += asked.elapsed();
        let report = trainer.step(task, parts)?;
        let step = trainer.progress.step;
        if report.is_finite() {
            skipped = 0;
        } else if trainer.progress.loss_scale.overflowed() {
            let scale = trainer.progress.loss_scale.factor();
            reporter.say(&format!(
                "step {step}: the gradients are not finite; skipped, the loss is now scaled with {scale}"
            ));
        } else {
            skipped += 1;
            reporter.say(&format!("step {step}: the loss or its gradients are not finite; skipped"));
            if skipped == MOST_SKIPPED {
                anyhow::bail!(
                    "{MOST_SKIPPED} steps in a row had no finite loss or gradients; lower the learning rate of stage {name} and start \
                     again from the checkpoint in {}",
                    dir.display()
                );
            }
        }
        reporter.step(&StepReport {
            step,
            numbers: &report.numbers,
            norm: report.norm,
            lr: training.learning_rate(trainer.optimizer.updates()),
            seconds: trainer.progress.seconds,
        })?;
        let is_last = step == training.steps;
        if is_last || step.is_multiple_of(training.checkpoint_every) {
            trainer.save(dir, task)?;
        }
        if training.sheet_every > 0 && (is_last || step.is_multiple_of(training.sheet_every)) {
            trainer.draw(dir, task)?;
        }
    }
    anyhow::ensure!(trainer.progress.step >= training.steps, "stage {name} has run out of samples");
    let (took, waited) = (begun.elapsed().as_secs_f64(), waited.as_secs_f64());
    reporter.say(&format!("{name}: done in {took:.0} s, of which {waited:.1} s went by waiting for samples"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use std::path::Path;

    use kosmosg::engine::burn::train::Precision;

    use super::*;
    use crate::train::TrainConfig;
    use crate::train::checkpoint::Checkpoint;
    use crate::train::config::Decay;

    /// Learns the number 3, which is not to be had in some steps.
    struct Toy {
        fails: fn(u64) -> bool,
    }

    impl Task for Toy {
        type Networks = Tensor<Burn, 1>;
        type Batch = f32;

        fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
            weights.tensor("x", [4])
        }

        fn source(&self) -> Source<f32> {
            let (fails, steps) = (self.fails, AtomicU64::new(0));
            Box::new(move |_| if fails(steps.fetch_add(1, Ordering::Relaxed)) { f32::NAN } else { 3.0 })
        }

        fn loss(&self, x: &Tensor<Burn, 1>, batch: f32) -> Loss {
            let difference = x.clone().affine(1.0, -batch);
            Loss { total: (difference.clone() * difference).mean_all(), parts: Vec::new(), count: 1 }
        }
    }

    fn job(dir: &Path, steps: u64) -> Job {
        let common = TrainConfig::tiny().vae.training;
        let training = Training {
            steps,
            parts: 1,
            lr: 0.1,
            warmup: 0,
            decay: Decay::Constant,
            ema: None,
            sheet_every: 0,
            ..common
        };
        let basis = serde_json::json!({});
        Job { name: "toy", dir: dir.to_owned(), training, basis, device: BurnDevice::cpu().training() }
    }

    #[test]
    fn a_step_without_a_finite_loss_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        train(&job(dir.path(), 200), &Toy { fails: |step| step % 3 == 1 }).unwrap();
        let checkpoint = Checkpoint::newest(dir.path()).unwrap().unwrap();
        assert_eq!((checkpoint.progress.step, checkpoint.progress.updates), (200, 133));
        let x = checkpoint.weights["x"].to_f32();
        assert!(x.iter().all(|x| (x - 3.0).abs() < 0.05), "{x:?}");
    }

    /// In half precision the scale of the loss falls until the gradients are finite again, however many steps that takes.
    #[test]
    fn gradients_that_overflow_lower_the_scale() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = job(dir.path(), 200);
        job.training.precision = Precision::F16;
        train(&job, &Toy { fails: |step| (20..30).contains(&step) }).unwrap();
        let checkpoint = Checkpoint::newest(dir.path()).unwrap().unwrap();
        assert_eq!(checkpoint.progress.updates, 190);
        assert_eq!(checkpoint.progress.loss_scale.factor(), 65536.0 / 1024.0);
        let x = checkpoint.weights["x"].to_f32();
        assert!(x.iter().all(|x| (x - 3.0).abs() < 0.05), "{x:?}");
        // They are not finite whatever the scale is.
        job.training.steps += 50;
        let error = train(&job, &Toy { fails: |_| true }).unwrap_err().to_string();
        assert!(error.contains("5 steps in a row"), "{error}");
    }

    #[test]
    fn several_in_a_row_end_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let error = train(&job(dir.path(), 200), &Toy { fails: |step| step > 20 }).unwrap_err().to_string();
        assert!(error.contains("5 steps in a row") && error.contains("stage toy"), "{error}");
    }

    /// Learns the mean of its samples.
    struct Mean;

    impl Task for Mean {
        type Networks = Tensor<Burn, 1>;
        type Batch = Vec<f32>;

        fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
            weights.tensor("x", [1])
        }

        fn source(&self) -> Source<Vec<f32>> {
            Box::new(|rngs| rngs.into_iter().map(|mut rng| rng.uniform() as f32).collect())
        }

        fn loss(&self, x: &Tensor<Burn, 1>, batch: Vec<f32>) -> Loss {
            let count = batch.len();
            let difference = Tensor::from_host(batch, [count], &x.device()) - x.clone();
            Loss { total: (difference.clone() * difference).mean_all(), parts: Vec::new(), count }
        }
    }

    #[test]
    fn parts_together_are_the_whole() {
        let results = [1, 2, 3].map(|parts| {
            let dir = tempfile::tempdir().unwrap();
            let mut job = job(dir.path(), 20);
            // Parts of 3 and 2, then of 2, 2 and 1.
            (job.training.batch, job.training.parts) = (5, parts);
            train(&job, &Mean).unwrap();
            Checkpoint::newest(dir.path()).unwrap().unwrap().weights["x"].to_f32()[0]
        });
        assert!((results[0] - 0.5).abs() < 0.2, "{results:?}");
        assert!(results.iter().all(|x| (x - results[0]).abs() < 1e-5), "{results:?}");
    }

    #[test]
    fn a_checkpoint_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let toy = Toy { fails: |_| false };
        train(&job(dir.path(), 2), &toy).unwrap();
        let other = Job { basis: serde_json::json!({"world": "new"}), ..job(dir.path(), 4) };
        let error = train(&other, &toy).unwrap_err().to_string();
        assert!(error.contains("another `world`"), "{error}");
    }
}
