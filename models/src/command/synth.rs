use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use indicatif::ProgressBar;
use kosmosg::config::KosmosGConfig;
use kosmosg_models::{import, synth};

/// Writes the published models' forms at full size with random weights, to test and measure with: their pictures are noise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kosmosg synth --preset kosmos-g -o kg && kosmosg synth --preset sd15 -o sd15
  kosmosg import --checkpoint kg/checkpoint_final.pt --spm kg/sentencepiece.bpe.model --dict kg/dict.txt --decoder sd15 -o bundle")]
pub struct Arguments {
    /// Which model: kosmos-g, as its authors published it (4.5 GB), or sd15, a folder of diffusers (2.1 GB).
    #[arg(long, value_enum)]
    preset: Preset,
    /// Seed of the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Other sizes of kosmos-g's networks; sd15 has the published ones.
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Folder to write into, in which nothing is yet.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Preset {
    KosmosG,
    Sd15,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let bar = ProgressBar::new_spinner();
        let progress = |name: &str| {
            bar.set_message(name.to_owned());
            bar.tick();
        };
        match self.preset {
            Preset::KosmosG => {
                let config = match &self.network {
                    Some(path) => import::network::read(path)?.config,
                    None => KosmosGConfig::published(),
                };
                synth::kosmos_g(&config, self.seed, &self.output, progress)?;
            }
            Preset::Sd15 => {
                ensure!(self.network.is_none(), "--network gives sizes of kosmos-g; sd15 has the published ones");
                synth::stable_diffusion(self.seed, &self.output, progress)?;
            }
        }
        bar.finish_and_clear();
        println!("{}", self.output.display());
        Ok(ExitCode::SUCCESS)
    }
}
