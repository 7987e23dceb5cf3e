use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kosmosg::noise::Rng;
use kosmosg_models::sprites::{Creature, Split, portrait};

use super::check_png;

/// Draws a creature of the built-in world.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which creature; the same seed draws the same.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only creatures that no training has ever seen.
    #[arg(long)]
    held_out: bool,
    /// Side of the picture in pixels.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1024))]
    size: u32,
    /// The PNG to write, or with --palette the folder.
    #[arg(short, long)]
    output: PathBuf,
    /// Draw this many creatures, of seeds from --seed on, and a list of them (creatures.json).
    #[arg(long, value_name = "N")]
    palette: Option<u64>,
    /// Print what was drawn as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Drawn {
    id: u64,
    file: String,
    description: String,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let drawn = match self.palette {
            None => {
                check_png(&self.output)?;
                let name = self.output.file_name().context("the output has no file name")?;
                vec![self.draw(self.seed, &self.output, name.to_string_lossy().into_owned())?]
            }
            Some(n) => {
                std::fs::create_dir_all(&self.output).with_context(|| self.output.display().to_string())?;
                let draw = |id| {
                    let file = format!("{id}.png");
                    self.draw(id, &self.output.join(&file), file)
                };
                let drawn = (0..n).map(|i| draw(self.seed.wrapping_add(i))).collect::<Result<Vec<_>, _>>()?;
                std::fs::write(self.output.join("creatures.json"), serde_json::to_vec_pretty(&drawn)?)?;
                drawn
            }
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&drawn)?);
        } else {
            for Drawn { file, description, .. } in &drawn {
                println!("{file}: {description}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn draw(&self, id: u64, path: &std::path::Path, file: String) -> anyhow::Result<Drawn> {
        let split = if self.held_out { Split::HeldOut } else { Split::Train };
        let creature = Creature::sample(&mut Rng::new(id, 0), split);
        std::fs::write(path, portrait(&creature, self.size).to_png(None))
            .with_context(|| path.display().to_string())?;
        Ok(Drawn { id, file, description: creature.description() })
    }
}
