use std::path::{Path, PathBuf};
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
use kosmosg::weights::{HostTensor, safetensors};
use kosmosg_models::verify::On;

use super::{Computing, PromptArguments, check_place};

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
        self.output.iter().try_for_each(|file| check_place(file))?;
        let others = self.against.as_deref().map(read_condition).transpose()?;
        let condition = match self.computing.on()? {
            On::Burn(device) => self.encode::<Burn>(&device)?,
            On::Candle(device) => self.encode::<Candle>(&device)?,
        };
        let shape = [condition.tokens, condition.width];
        let halves = [(HALVES[0], &condition.cond), (HALVES[1], &condition.uncond)];
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
        for ((half, ours), theirs) in halves.into_iter().zip(others.iter().flatten()) {
            ensure!(theirs.shape() == shape, "--against: {half} is {:?}, and here {shape:?}", theirs.shape());
            println!("{half:6} cosine {:.6}", cosine(ours, &theirs.to_f32()));
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

const HALVES: [&str; 2] = ["cond", "uncond"];

/// Both halves of a condition that was written before.
fn read_condition(path: &Path) -> anyhow::Result<[HostTensor; 2]> {
    let name = path.display().to_string();
    let tensors = safetensors::read(&name, std::fs::read(path).with_context(|| name.clone())?)?;
    let half = |half: &str| tensors.get(half).cloned().with_context(|| format!("{name} has no {half}"));
    Ok([half(HALVES[0])?, half(HALVES[1])?])
}
