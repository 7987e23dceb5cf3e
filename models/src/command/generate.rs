use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kosmosg::bundle::Manifest;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::engine::Engine;
use kosmosg::engine::burn::Burn;
use kosmosg::engine::candle::Candle;
use kosmosg::picture::Recipe;
use kosmosg::pipeline::{Pipeline, Request};
use kosmosg::protocol::GenerateSettings;
use kosmosg::sampler::SamplerKind;
use kosmosg_models::verify::On;

use super::{Computing, PromptArguments, check_place, check_png};
use adapters::Adapters;

mod adapters;

/// Makes a picture from a prompt of words and pictures.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kosmosg generate --prompt 'a <i> next to a <i> in the snow' --image cat.png --image dog.png -o out.png

Each <i> in the prompt is the place of one --image, in order. The picture carries its recipe: kosmosg info out.png shows \
it, and most tools show the PNG's `parameters`.")]
pub struct Arguments {
    #[command(flatten)]
    prompt: PromptArguments,
    /// The PNG to write; with --count above 1, a number is added to its name.
    #[arg(short, long)]
    output: PathBuf,
    /// Seed of the noise: the same seed makes the same picture, on every engine.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Denoising steps [default: the bundle's].
    #[arg(long)]
    steps: Option<usize>,
    /// Guidance scale: how closely to follow the prompt; 1 or less is off [default: the bundle's].
    #[arg(long)]
    guidance: Option<f64>,
    /// dpmpp-2m, dpmpp-2m-karras, ddim, pndm, euler or unipc [default: the bundle's].
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// Pixels in a row: a multiple of what the bundle's autoencoder takes as one, mostly 8 [default: the bundle's, which it
    /// makes best].
    #[arg(long)]
    width: Option<u32>,
    /// Number of rows: such a multiple too [default: the bundle's].
    #[arg(long)]
    height: Option<u32>,
    /// How many pictures.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    count: u64,
    /// Number of the first picture: the third of several (2) is made again alone with --picture 2.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 32))]
    picture: u64,
    #[command(flatten)]
    adapters: Adapters,
    #[command(flatten)]
    computing: Computing,
    /// Print what was made, and in which times, as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.computing.on()? {
            On::Burn(device) => self.run_on::<Burn>(device),
            On::Candle(device) => self.run_on::<Candle>(device),
        }
    }

    fn run_on<E: Engine>(self, device: E::Device) -> anyhow::Result<ExitCode> {
        check_place(&self.output)?;
        check_png(&self.output)?;
        let request = self.request()?;
        let folder = self.prompt.bundle()?;
        self.check_size(folder.manifest())?;
        let begin = Instant::now();
        let mut pipeline = Pipeline::<E>::load_with(&folder, &device, |unet| self.adapters.merge(unet))?;
        let &DenoiseSettings { height, width, .. } = pipeline.start(&request.settings, self.picture)?.settings();
        if let Some(control) = self.adapters.control(folder.manifest(), [height, width], &device)? {
            pipeline.denoiser = pipeline.denoiser.with_control(control);
        }
        let load_secs = begin.elapsed().as_secs_f64();
        let mut begin = Instant::now();
        let Request { prompt, pictures, negative, settings } = &request;
        let condition = pollster::block_on(pipeline.encoder.encode(prompt, pictures, negative))?;
        let mut made = Vec::new();
        for number in 0..self.count {
            let index = self.picture + number;
            let bar = self.progress(number, pipeline.start(settings, index)?.evaluations());
            let (mut last, mut step_secs) = (Instant::now(), Vec::new());
            let on_step = |state: &DenoiseState, _: &[f32]| {
                bar.set_position(state.step() as u64);
                step_secs.push(last.elapsed().as_secs_f64());
                last = Instant::now();
            };
            let picture = pollster::block_on(pipeline.generate_from(&condition, settings, index, on_step))?;
            let decode_secs = last.elapsed().as_secs_f64();
            bar.finish_and_clear();
            let path = self.path(number);
            let recipe = Recipe { adapters: self.adapters.names(), ..pipeline.recipe(&request, index, &picture) };
            std::fs::write(&path, picture.to_png(Some(&recipe))).with_context(|| path.display().to_string())?;
            let secs = begin.elapsed().as_secs_f64();
            if !self.json {
                println!("{} ({secs:.1} s on {})", path.display(), E::NAME);
            }
            made.push(serde_json::json!({
                "file": path,
                "seconds": secs,
                "step_seconds": step_secs,
                "decode_seconds": decode_secs,
                "recipe": recipe,
            }));
            begin = Instant::now();
        }
        if self.json {
            let all = serde_json::json!({ "load_seconds": load_secs, "pictures": made });
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn request(&self) -> anyhow::Result<Request> {
        Ok(Request {
            prompt: self.prompt.document()?,
            pictures: self.prompt.pictures()?,
            negative: self.prompt.negative.clone(),
            settings: GenerateSettings {
                seed: self.seed,
                picture: 0,
                sampler: self.sampler,
                steps: self.steps,
                guidance: self.guidance,
                width: self.width,
                height: self.height,
            },
        })
    }

    /// Says before the work that there are no pictures of that size.
    fn check_size(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let unit = manifest.networks.vae.downscale() as u32;
        for (name, pixels) in [("width", self.width), ("height", self.height)] {
            let Some(pixels) = pixels else { continue };
            let nearest = (pixels / unit).max(1) * unit;
            ensure!(pixels == nearest, "--{name} is {pixels}; choose a multiple of {unit}, such as {nearest}");
        }
        Ok(())
    }

    fn progress(&self, index: u64, evaluations: usize) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {bar:30} step {pos} of {len}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(evaluations as u64).with_style(style);
        bar.set_message(format!("picture {} of {}", index + 1, self.count));
        bar
    }

    /// `out.png`, or `out-2.png` for the second of several.
    fn path(&self, index: u64) -> PathBuf {
        if self.count == 1 {
            return self.output.clone();
        }
        let stem = self.output.file_stem().unwrap_or_default().to_string_lossy();
        let extension = self.output.extension().unwrap_or("png".as_ref()).to_string_lossy();
        let parent = self.output.parent().unwrap_or(Path::new(""));
        parent.join(format!("{stem}-{}.{extension}", index + 1))
    }
}
