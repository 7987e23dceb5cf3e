use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::ValueEnum as _;
use kosmosg::bundle::Existing;
use kosmosg_models::quantize::Quant;
use kosmosg_models::train::{self, Change, Stage, TrainConfig, TrainOptions, Untrained};

use super::{DeviceName, Replacing};

/// Trains a model on the world of sprites: the paper's stages at the size that a configuration says.
///
/// Stages build on each other: vae, text (what captions tell), decoder (text to picture), vision (what pictures show), lm
/// (language model), align (AlignerNet), imitate (pictures in prompts, as words would tell them), instruct (the same through
/// the frozen decoder). Judge needs none of them: it learns to read what is in a picture, to measure with.
/// An interrupted stage goes on from its last checkpoint; one process at a time trains it. At any time after align, export
/// makes a bundle of what there is; import makes a run of a bundle, to train it further.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kosmosg train tiny -o my-bundle       all stages of the built-in configuration, then the bundle
  kosmosg train config --config paper > my.toml
  kosmosg train instruct --config my.toml --run my-run --device libtorch
  kosmosg train plot my-run")]
pub struct Arguments {
    /// The stage; or tiny, for all stages of that configuration, then export; or config, which prints a preset to
    /// begin a file with; or measure, which tells how long an
    /// update of the denoiser takes here; or export, export-judge, import, plot.
    #[arg(value_name = "STAGE", value_parser = task)]
    task: Task,
    /// Folder of the run that plot draws, as after --run.
    #[arg(value_name = "RUN", conflicts_with = "run")]
    drawn: Option<PathBuf>,
    /// The configuration: tiny, the built-in model's; paper, the published sizes and settings, to be told where your files
    /// are; or a TOML file.
    #[arg(long, default_value = TINY)]
    config: PathBuf,
    /// Another value for one setting, in TOML: instruct.training.steps=4000; or without it: imitate=
    #[arg(long, value_name = "SETTING=VALUE")]
    set: Vec<Change>,
    /// Folder of the run: checkpoints, logs, sample sheets [default: ~/.cache/kosmosg/train/NAME-OF-CONFIG].
    #[arg(long)]
    run: Option<PathBuf>,
    /// Where it computes: cpu; wgpu; cuda or libtorch (NVIDIA GPUs; in dist/kosmosg-train-cuda, which `cargo xtask cuda
    /// --training` makes, or a build with the feature libtorch).
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// Bundle that import reads.
    #[arg(long, value_name = "DIR", required_if_eq("task", "import"))]
    from: Option<PathBuf>,
    /// Folder that export writes the bundle into, or file for the judge, or of loss curves, .svg or .png [default: loss.svg in the
    /// run's folder].
    #[arg(short, long, value_name = "PATH", required_if_eq_any(["export", "export-judge", TINY].map(|task| ("task", task))))]
    output: Option<PathBuf>,
    #[command(flatten)]
    replacing: Replacing,
    /// How the weights of a bundle are stored.
    #[arg(long, value_enum, default_value = "q8_0")]
    quant: Quant,
}

const TINY: &str = "tiny";
/// So many updates are measured.
const UPDATES: usize = 25;

#[derive(Debug, Clone, Copy)]
enum Task {
    Train(Stage),
    All,
    Export,
    ExportJudge,
    Import,
    Plot,
    Config,
    Measure,
}

fn task(name: &str) -> Result<Task, String> {
    match name {
        TINY => return Ok(Task::All),
        "export" => return Ok(Task::Export),
        "export-judge" => return Ok(Task::ExportJudge),
        "import" => return Ok(Task::Import),
        "plot" => return Ok(Task::Plot),
        "config" => return Ok(Task::Config),
        "measure" => return Ok(Task::Measure),
        _ => {}
    }
    let names = Stage::ALL.map(Stage::name).join(", ");
    let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name);
    stage.map(Task::Train).ok_or(format!(
        "the stages are {names}; and there are {TINY}, config, measure, export, export-judge, import and plot"
    ))
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let result = self.perform();
        result.map(|()| ExitCode::SUCCESS).map_err(|error| match error.downcast_ref::<Untrained>() {
            Some(&Untrained { stage, .. }) => error.context(format!("`{}` comes first", self.training(stage))),
            None => error,
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        let name = if matches!(self.task, Task::All) { Path::new(TINY) } else { &self.config };
        let config = TrainConfig::read(name, &self.set)?;
        ensure!(self.drawn.is_none() || matches!(self.task, Task::Plot), "name the folder of the run with --run");
        let run = match self.run.as_ref().or(self.drawn.as_ref()) {
            Some(run) => run.clone(),
            None => {
                let name = self.config.file_stem().context("the configuration has no name")?;
                train::default_run(&name.to_string_lossy())?
            }
        };
        let output = || self.output.as_deref().context("name the output with -o");
        match self.task {
            Task::Train(stage) => {
                train::run(stage, &TrainOptions { config, run, device: self.device.of_burn()?.training() })?;
            }
            Task::All => {
                let output = output()?;
                let mut existing = self.replacing.existing();
                // Called again, the recipe goes on with what it made.
                existing.replace |= train::is_exported(&run, output);
                existing.check(output)?;
                let options = TrainOptions { config, run, device: self.device.of_burn()?.training() };
                let mut stages = Stage::ALL.into_iter().filter(|stage| options.config.training(*stage).is_some());
                stages.try_for_each(|stage| train::run(stage, &options))?;
                export(&options.run, &options.config, self.quant, output, existing)?;
            }
            Task::Import => {
                let bundle = self.from.as_deref().context("import needs --from DIR")?;
                train::import(bundle, &config, &run)?;
                println!("{}: can be trained further", run.display());
            }
            Task::Export => export(&run, &config, self.quant, output()?, self.replacing.existing())?,
            Task::Plot => {
                let output = self.output.clone().unwrap_or_else(|| run.join("loss.svg"));
                train::plot(&run, &output)?;
                println!("{}", output.display());
            }
            Task::Config => {
                let preset = self.config.to_str().and_then(TrainConfig::preset);
                print!("{}", preset.context("config prints a preset: --config tiny or --config paper")?);
            }
            Task::Measure => {
                let mut times = train::measure(&config, UPDATES, &self.device.of_burn()?.training())?;
                times.sort();
                let rows = config.decoder.training.batch * config.decoder.draws;
                let time = times[UPDATES / 2].as_secs_f64();
                println!("{:.1} ms for an update of {rows} rows, {:.1} rows/s", 1000.0 * time, rows as f64 / time);
            }
            Task::ExportJudge => train::export_judge(&run, output()?)?,
        }
        Ok(())
    }

    /// The command that trains a stage with these settings.
    fn training(&self, stage: Stage) -> String {
        let text = |path: &Path| path.display().to_string();
        let device = self.device.to_possible_value().filter(|_| self.device != DeviceName::Cpu);
        let mut options = Vec::new();
        options.extend((self.config != Path::new(TINY)).then(|| ("--config", text(&self.config))));
        options.extend(self.set.iter().map(|change| ("--set", change.to_string())));
        options.extend(self.run.iter().map(|run| ("--run", text(run))));
        options.extend(device.map(|device| ("--device", device.get_name().to_owned())));
        let options: String = options.iter().map(|(name, value)| format!(" {name} {}", quoted(value))).collect();
        format!("kosmosg train {}{options}", stage.name())
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@+".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn export(run: &Path, config: &TrainConfig, quant: Quant, output: &Path, existing: Existing) -> anyhow::Result<()> {
    let manifest = train::export(run, config, quant, output, existing)?;
    let bytes: u64 = manifest.parts.values().map(|part| part.bytes).sum();
    println!("{}: {}, {:.1} MB", output.display(), manifest.name, bytes as f64 / 1e6);
    Ok(())
}
