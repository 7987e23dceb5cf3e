use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use kosmosg::bundle::Existing;
use kosmosg_models::import::{Event, ImportOptions, import};
use kosmosg_models::quantize::Quant;

use super::Replacing;

/// Makes a bundle of the published KOSMOS-G checkpoint and Stable Diffusion 1.5.
///
/// Nothing in the files is run: of a pickle, only tensors and settings are read, and what names anything else is refused. One
/// tensor at a time is in memory. The bundle is there as a whole or not at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kosmosg import --checkpoint checkpoint_final.pt --spm sentencepiece.bpe.model --dict dict.txt \\
    --decoder stable-diffusion-v1-5 -o models/kosmos-g")]
pub struct Arguments {
    /// KOSMOS-G's checkpoint, of stage 2 or the final one: .pt, or .safetensors in the same names.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// SentencePiece's model.
    #[arg(long, value_name = "FILE")]
    spm: PathBuf,
    /// fairseq's dictionary.
    #[arg(long, value_name = "FILE")]
    dict: PathBuf,
    /// Stable Diffusion 1.5: a folder of diffusers, or one .safetensors or .ckpt file.
    #[arg(long, value_name = "PATH")]
    decoder: PathBuf,
    /// Folder of the bundle.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    replacing: Replacing,
    /// How weights are stored.
    #[arg(long, value_enum, default_value = "q8_0")]
    quant: Quant,
    /// Sizes of the networks, where they are not the published ones and the files do not say them: {"config": {"mllm": …}},
    /// and for a decoder in one file its parts' config.json as "unet", "vae" and "text".
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Go on with what an interrupted import left.
    #[arg(long)]
    resume: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { checkpoint, spm, dict, decoder, output, replacing, quant, network, resume } = self;
        let existing = Existing { resume, ..replacing.existing() };
        let options =
            ImportOptions { checkpoint, sentencepiece: spm, dictionary: dict, decoder, network, quant, existing };
        let style = ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {eta} left  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style);
        let mut last = 0;
        let manifest = import(&options, &output, |event| match event {
            Event::Unused(names) => {
                if !names.is_empty() {
                    bar.suspend(|| eprintln!("not needed, left out: {}", in_groups(names)));
                }
            }
            Event::Total(bytes) => bar.set_length(bytes),
            Event::Tensor(name, bytes) => {
                bar.inc(std::mem::replace(&mut last, bytes));
                bar.set_message(name.to_owned());
            }
        })?;
        bar.finish_and_clear();
        let bytes: u64 = manifest.parts.values().map(|part| part.bytes).sum();
        println!("{}: {}, {:.1} MB", output.display(), manifest.name, bytes as f64 / 1e6);
        Ok(ExitCode::SUCCESS)
    }
}

/// Names, those that begin with the same two words as one.
fn in_groups(names: &[String]) -> String {
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let words: Vec<&str> = name.split('.').collect();
        let group = if words.len() > 2 { format!("{}.{}…", words[0], words[1]) } else { name.clone() };
        *groups.entry(group).or_default() += 1;
    }
    let group = |(group, count): (String, usize)| if count > 1 { format!("{group} ({count} tensors)") } else { group };
    groups.into_iter().map(group).collect::<Vec<_>>().join(", ")
}
