//! What a person sees of a running stage: a bar or lines, a table of all steps, and TensorBoard's events.

use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::events::Events;

/// Shows progress and writes `log.csv` and an event file.
pub(super) struct Reporter {
    bar: Option<ProgressBar>,
    log: File,
    events: Events,
    steps: u64,
    batch: usize,
    started: (Instant, u64),
    last_line: Instant,
    /// Moving averages of loss and its parts, since single batches jump.
    smooth: Vec<f64>,
}

/// The numbers of one step.
pub(super) struct StepReport<'a> {
    /// Number of the step, from 1.
    pub step: u64,
    /// Name and value: the loss first, then its parts.
    pub numbers: &'a [(&'static str, f64)],
    /// Norm of the gradients before they are clipped.
    pub norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Time spent on the stage, over all its processes, in seconds.
    pub seconds: f64,
}

impl Reporter {
    /// Reports on a stage that stands at `step` of `steps`.
    ///
    /// # Errors
    /// `log.csv` or the event file cannot be written.
    pub fn new(dir: &Path, stage: &str, step: u64, steps: u64, batch: usize) -> anyhow::Result<Self> {
        let path = dir.join("log.csv");
        keep_until(&path, step)?;
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
            let bar = ProgressBar::new(steps).with_prefix(stage.to_owned()).with_position(step);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Ok(Self {
            bar,
            log: log.with_context(|| format!("cannot write {}", path.display()))?,
            events: Events::create(dir, step)?,
            steps,
            batch,
            started: (now, step),
            last_line: now - LINE_INTERVAL,
            smooth: Vec::new(),
        })
    }

    /// Takes note of a step.
    ///
    /// # Errors
    /// `log.csv` or the event file cannot be written.
    pub fn step(&mut self, report: &StepReport<'_>) -> anyhow::Result<()> {
        let StepReport { step, numbers, norm, lr, seconds } = report;
        if *step == 1 {
            let names: Vec<_> = numbers.iter().map(|(name, _)| *name).collect();
            writeln!(self.log, "step,samples,seconds,lr,norm,{}", names.join(",")).context("cannot write log.csv")?;
        }
        let values: Vec<_> = numbers.iter().map(|(_, value)| format!("{value:.6}")).collect();
        let samples = step * self.batch as u64;
        writeln!(self.log, "{step},{samples},{seconds:.1},{lr:.3e},{norm:.4},{}", values.join(","))
            .context("cannot write log.csv")?;
        let others = [("gradient norm", *norm), ("learning rate", *lr)];
        self.events.add(*step, numbers.iter().copied().chain(others))?;
        self.smooth.resize(numbers.len(), f64::NAN);
        for (smooth, (_, value)) in self.smooth.iter_mut().zip(*numbers) {
            *smooth = if smooth.is_nan() { *value } else { 0.98 * *smooth + 0.02 * value };
        }
        self.show(report);
        Ok(())
    }

    /// Says something above the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn show(&mut self, report: &StepReport<'_>) {
        let (since, first) = self.started;
        let per_second = (report.step - first) as f64 / since.elapsed().as_secs_f64().max(1e-3);
        let left = Duration::from_secs_f64((self.steps.saturating_sub(report.step)) as f64 / per_second.max(1e-6));
        let numbers = report.numbers.iter().zip(&self.smooth).map(|((name, _), smooth)| format!("{name} {smooth:.4}"));
        let text = format!(
            "{} · {:.1} samples/s · {} left",
            numbers.collect::<Vec<_>>().join(" "),
            per_second * self.batch as f64,
            clock(left),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(report.step);
                bar.set_message(text);
            }
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                eprintln!("step {}/{} {text}", report.step, self.steps);
            }
            None => {}
        }
    }
}

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(20);

fn clock(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    if minutes < 60 { format!("{minutes} min") } else { format!("{} h {} min", minutes / 60, minutes % 60) }
}

/// Removes the rows of steps that a resumed run repeats.
fn keep_until(path: &Path, step: u64) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let is_kept = |row: &&str| match row.split(',').next().map(str::parse::<u64>) {
        Some(Ok(row)) => row <= step,
        _ => step > 0,
    };
    let rows: String = text.lines().filter(is_kept).flat_map(|row| [row, "\n"]).collect();
    fs::write(path, rows).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_each_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let report = |step| StepReport { step, numbers: &[("loss", 0.5)], norm: 1.0, lr: 0.1, seconds: 2.0 };
        let mut first = Reporter::new(dir.path(), "vae", 0, 10, 4).unwrap();
        (1..=5).for_each(|step| first.step(&report(step)).unwrap());
        let mut resumed = Reporter::new(dir.path(), "vae", 3, 10, 4).unwrap();
        (4..=6).for_each(|step| resumed.step(&report(step)).unwrap());
        let log = fs::read_to_string(dir.path().join("log.csv")).unwrap();
        let steps: Vec<_> = log.lines().map(|row| row.split(',').next().unwrap()).collect();
        assert_eq!(steps, ["step", "1", "2", "3", "4", "5", "6"]);
    }
}
