use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use kosmosg::bundle::{Existing, Folder};
use kosmosg::engine::burn::BurnDevice;
use kosmosg_models::quantize::{Change, Quant, quantize};
use kosmosg_models::verify::{On, bundle};

use super::Replacing;

/// Writes a bundle with its weights in another form, and says what that costs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kosmosg quantize models/kosmos-g --quant mixed -o models/kosmos-g-mixed")]
pub struct Arguments {
    /// The bundle to read; what it has lost already stays lost, so take one of 16 bits.
    bundle: PathBuf,
    /// How weights are stored.
    #[arg(long, value_enum)]
    quant: Quant,
    /// Folder of the new bundle.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    replacing: Replacing,
    /// cases.safetensors of the fixture that the bundle was made of, to compare conditions with.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Go on with what an interrupted run left.
    #[arg(long)]
    resume: bool,
    /// Print a JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let from = Folder::open(&self.bundle).with_context(|| format!("opening {}", self.bundle.display()))?;
        let mut changes: Vec<Change> = Vec::new();
        let existing = Existing { resume: self.resume, ..self.replacing.existing() };
        let manifest = quantize(&from, self.quant, &self.output, existing, |change| {
            if !self.json {
                let [_, bytes] = change.bytes;
                println!("{:8} {:72} {:5} {bytes:>12} {:9.2e}", change.part, change.name, change.form, change.error);
            }
            changes.push(change);
        })?;
        let rows = match &self.cases {
            Some(cases) => bundle(&self.output, cases, &On::Burn(BurnDevice::cpu()))?,
            None => Vec::new(),
        };
        let conditions: Vec<_> =
            rows.iter().filter_map(|row| Some((row.tensor.strip_suffix(".condition")?, row.cosine?))).collect();
        if self.json {
            let parts: serde_json::Map<_, _> =
                manifest.parts.iter().map(|(name, part)| (name.clone(), part.bytes.into())).collect();
            let conditions: serde_json::Map<_, _> =
                conditions.into_iter().map(|(name, cosine)| (name.to_owned(), cosine.into())).collect();
            let all = serde_json::json!({ "tensors": changes, "parts": parts, "condition_cosine": conditions });
            println!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(ExitCode::SUCCESS);
        }
        println!();
        for (name, part) in &manifest.parts {
            let of_part = changes.iter().filter(|change| change.part == *name);
            let worst = of_part.map(|change| change.error).fold(0.0, f64::max);
            println!("{name:8} {:10.1} MB   worst tensor {worst:.2e}", part.bytes as f64 / 1e6);
        }
        for (name, cosine) in conditions {
            println!("condition of {name}: cosine {cosine:.6}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
