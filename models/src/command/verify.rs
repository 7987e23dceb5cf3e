use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use kosmosg::bundle::MANIFEST;
use kosmosg_models::verify::{bundle, folder};

use super::Computing;

/// Compares our numbers with a folder of numbers from the public implementations.
///
/// The folder is of one of four forms: KOSMOS-G's networks (config.json, model.safetensors, cases.safetensors),
/// Stable Diffusion's (diffusers' folders and cases.safetensors), preprocessing (pictures, cases.json,
/// cases.safetensors), or a tokenizer (sentencepiece.bpe.model, dict.txt, cases.json). Or it is a bundle, with the cases of a
/// fixture that it was imported from, KOSMOS-G's for the encoder or Stable Diffusion's for the decoder; then numbers have to agree
/// as closely as its weights are kept.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder.
    dir: PathBuf,
    /// For a bundle: cases.safetensors of the fixture that it was made of.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    computing: Computing,
    /// Print a JSON list instead of a table.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let on = self.computing.on()?;
        let mut rows = match (&self.cases, self.dir.join(MANIFEST).exists()) {
            (Some(cases), _) => bundle(&self.dir, cases, &on)?,
            (None, false) => folder(&self.dir, &on)?.1,
            (None, true) => bail!("{} is a bundle: name what to compare it with by --cases", self.dir.display()),
        };
        // JSON has no infinity.
        rows.iter_mut().for_each(|row| row.error = row.error.min(f64::MAX));
        let failed = rows.iter().filter(|row| !row.passed()).count();
        if self.json {
            println!("{}", serde_json::to_string_pretty(&rows)?);
        } else {
            let width = rows.iter().map(|row| row.tensor.chars().count()).max().unwrap_or(0);
            println!("{:width$}  {:>9}  {:>9}", "tensor", "error", "tolerance");
            for row in &rows {
                let mark = if row.passed() { "" } else { "  FAILED" };
                println!("{:width$}  {:>9.2e}  {:>9.1e}{mark}", row.tensor, row.error, row.tolerance);
            }
            println!("{} passed, {failed} failed", rows.len() - failed);
        }
        if rows.is_empty() {
            bail!("{} has nothing to compare", self.dir.display());
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
