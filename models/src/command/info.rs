use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use kosmosg::bundle::Folder;
use kosmosg::picture::Recipe;

/// Shows what a bundle is made of, or how a picture was made.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A bundle's folder, or a PNG file that was made here.
    #[arg(value_name = "BUNDLE|PNG")]
    path: PathBuf,
    /// Read every file and compare it with its checksum.
    #[arg(long)]
    check: bool,
    /// Print the manifest or the recipe as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.path.is_file() {
            return recipe(&self.path, self.json);
        }
        let folder = Folder::open(&self.path)?;
        let manifest = folder.manifest();
        if self.check {
            folder.check()?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(manifest)?);
            return Ok(ExitCode::SUCCESS);
        }
        println!("{}", manifest.name);
        println!("  pictures   {0} × {0} pixels", manifest.picture_size);
        let defaults = manifest.defaults;
        println!("  sampler    {}, {} steps, guidance {}", defaults.sampler, defaults.steps, defaults.guidance);
        println!("  licence    {}", manifest.licence);
        println!("  origin     {}", manifest.origin);
        println!("  {:<10} {:>10} {:>12}  files", "part", "size", "in memory");
        let mut total = 0;
        for (name, part) in &manifest.parts {
            let files: Vec<&str> = part.files.iter().map(|file| file.name.as_str()).collect();
            let (bytes, memory) = (megabytes(part.bytes), megabytes(part.memory_bytes));
            println!("  {name:<10} {bytes:>10} {memory:>12}  {}", files.join(", "));
            total += part.bytes;
        }
        println!("  {:<10} {:>10}", "all", megabytes(total));
        if self.check {
            println!("all files are as the manifest says");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn recipe(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let png = std::fs::read(path).with_context(|| path.display().to_string())?;
    let recipe = Recipe::read(&png).with_context(|| path.display().to_string())?;
    let recipe = recipe.with_context(|| format!("{} carries no recipe of this program", path.display()))?;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&recipe)?),
        false => println!("{}", recipe.parameters()),
    }
    Ok(ExitCode::SUCCESS)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
