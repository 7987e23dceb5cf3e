use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use ::safetensors::tensor::{Dtype, TensorView, serialize};
use anyhow::{Context, ensure};
use kosmosg::condition::Condition;
use kosmosg::encoder::Encoder;
use kosmosg::engine::Engine;
use kosmosg::engine::burn::Burn;
use kosmosg::engine::candle::Candle;
use kosmosg::verify::cosine;
use kosmosg::weights::safetensors;
use kosmosg_models::verify::On;

use super::{Computing, PromptArguments};

/// Encodes a prompt of words and pictures, without making a picture: what the decoder would be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kosmosg encode --bundle models/kosmos-g-f16 --prompt 'a <i> in the snow' --image cat.png -o f16.safetensors
  kosmosg encode --bundle models/kosmos-g-q4 --prompt 'a <i> in the snow' --image cat.png --against f16.safetensors

The file has `cond`, and `uncond` of the negative prompt, both [tokens, width].")]
pub struct Arguments {
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    computing: Computing,
    /// The file to write.
    #[arg(short, long, value_name = "FILE", required_unless_present = "against")]
    output: Option<PathBuf>,
    /// A file that another bundle or device wrote for this prompt: tells the cosine between the two.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let condition = match self.computing.on()? {
            On::Burn(device) => self.encode::<Burn>(&device)?,
            On::Candle(device) => self.encode::<Candle>(&device)?,
        };
        let shape = [condition.tokens, condition.width];
        let halves = [("cond", &condition.cond), ("uncond", &condition.uncond)];
        if let Some(path) = &self.output {
            let bytes = halves.map(|(name, numbers)| {
                (name, numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
            });
            let views = bytes.iter().map(|(name, bytes)| {
                let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
                view.map(|view| (*name, view))
            });
            let views = views.collect::<Result<Vec<_>, _>>()?;
            std::fs::write(path, serialize(views, None)?).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.against {
            let name = path.display().to_string();
            let others = safetensors::read(&name, std::fs::read(path).with_context(|| name.clone())?)?;
            for (half, ours) in halves {
                let theirs = others.get(half).with_context(|| format!("{name} has no {half}"))?;
                ensure!(theirs.shape() == shape, "{name}: {half} is {:?}, and here {shape:?}", theirs.shape());
                println!("{half:6} cosine {:.6}", cosine(ours, &theirs.to_f32()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn encode<E: Engine>(&self, device: &E::Device) -> anyhow::Result<Condition> {
        let (document, pictures, folder) = (self.prompt.document()?, self.prompt.pictures()?, self.prompt.bundle()?);
        let begin = Instant::now();
        let encoder = Encoder::<E>::open(&folder, device)?;
        let loaded = begin.elapsed();
        let condition = pollster::block_on(encoder.encode(&document, &pictures, &self.prompt.negative))?;
        let encoded = begin.elapsed() - loaded;
        println!("loaded in {:.1} s, encoded in {:.1} s on {}", loaded.as_secs_f64(), encoded.as_secs_f64(), E::NAME);
        Ok(condition)
    }
}
