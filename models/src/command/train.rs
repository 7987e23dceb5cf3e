use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kosmosg_models::train::{self, Stage, TrainConfig, TrainOptions};

use super::DeviceName;

/// Trains a model on the world of sprites: the paper's stages at the size that a configuration says.
///
/// Stages build on each other: vae, text (what captions tell), decoder (text to picture), lm (language model with eyes),
/// align (AlignerNet), instruct (through the frozen decoder). Judge needs none of them: it learns to read what is in a
/// picture, to measure with.
/// An interrupted stage goes on from its last checkpoint. At any time after align, export makes a bundle of what there is;
/// import makes a run of a bundle, to train it further.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The stage, or export, or import.
    #[arg(value_name = "STAGE", value_parser = task)]
    task: Task,
    /// The configuration, a TOML file.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tiny.toml"))]
    config: PathBuf,
    /// Folder of the run: checkpoints, logs, sample sheets [default: ~/.cache/kosmosg/train/NAME-OF-CONFIG].
    #[arg(long)]
    run: Option<PathBuf>,
    /// Where it computes: cpu; wgpu; cuda or libtorch (NVIDIA GPUs; in builds with the feature of that name).
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// Bundle that import reads.
    #[arg(long, value_name = "DIR", required_if_eq("task", "import"))]
    from: Option<PathBuf>,
    /// Folder that export writes the bundle into.
    #[arg(short, long, value_name = "DIR", required_if_eq("task", "export"))]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
enum Task {
    Train(Stage),
    Export,
    Import,
}

fn task(name: &str) -> Result<Task, String> {
    match name {
        "export" => return Ok(Task::Export),
        "import" => return Ok(Task::Import),
        _ => {}
    }
    let names = Stage::ALL.map(Stage::name).join(", ");
    let stage = Stage::ALL.into_iter().find(|stage| stage.name() == name);
    stage.map(Task::Train).ok_or(format!("the stages are {names}; and there are export and import"))
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = TrainConfig::read(&self.config)?;
        let run = match self.run {
            Some(run) => run,
            None => {
                let name = self.config.file_stem().context("the configuration has no name")?;
                train::default_run(&name.to_string_lossy())?
            }
        };
        match self.task {
            Task::Train(stage) => {
                train::run(stage, &TrainOptions { config, run, device: self.device.of_burn()?.training() })?;
            }
            Task::Import => {
                let bundle = self.from.context("import needs --from DIR")?;
                train::import(&bundle, &config, &run)?;
                println!("{}: can be trained further", run.display());
            }
            Task::Export => {
                let output = self.output.context("export needs -o DIR")?;
                let manifest = train::export(&run, &config, &output)?;
                let bytes: u64 = manifest.parts.values().map(|part| part.bytes).sum();
                println!("{}: {}, {:.1} MB", output.display(), manifest.name, bytes as f64 / 1e6);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
