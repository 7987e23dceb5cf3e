use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use kosmosg::bundle::Folder;
use kosmosg::clip_text::ClipText;
use kosmosg::engine::Engine;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::candle::Candle;
use kosmosg::picture::Picture;
use kosmosg::pipeline::Pipeline;
use kosmosg::vae::VaeEncoder;
use kosmosg_models::eval::answer::Answerer;
use kosmosg_models::eval::judge::Judge;
use kosmosg_models::eval::score::{self, Row, Seen};
use kosmosg_models::eval::task::{self, Kind, TEMPLATES, Task};
use kosmosg_models::eval::{Accuracy, accuracy};
use kosmosg_models::sprites;
use kosmosg_models::verify::On;

use super::{Computing, DeviceName};

/// Measures how good a bundle of the world of sprites is: DreamBench's shape on creatures that it was never trained on.
///
/// Every subject comes in ten prompts that name none of its attributes; then there are prompts with two creatures, with two
/// creatures and a place as pictures, edits, and prompts in words alone. A judge, which was taught by drawn pictures alone,
/// reads what came out. Beside the bundle stand drawn pictures, which show what the judge misses, and unrelated ones.
///
/// Of two creatures, shape and main colour count, each in its place. So they do of edits, with place, style, number and
/// what was asked for; an edit is exact if patterns and their colours, toppings, eyes and stand are right as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kosmosg eval sprites --bundle models/tiny --ceilings --sheet sheet.png -o table.md")]
pub struct Arguments {
    /// The benchmark, or `judge`: how often the judge is right about drawn pictures.
    #[arg(value_enum)]
    what: What,
    /// The model [default: the built-in one].
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// One more model, for a row of its own; can be given again.
    #[arg(long, value_name = "NAME=DIR", value_parser = named)]
    also: Vec<(String, PathBuf)>,
    /// Rows of what limits the bundle: drawn pictures through its autoencoder, and its U-Net with every scene told in words.
    #[arg(long)]
    ceilings: bool,
    /// Creatures; with 60 there are 600 prompts of one, 200 each of two, of three pictures and of edits, and 600 of words.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=1000))]
    subjects: u32,
    /// Seed of creatures, prompts and noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The judge's weights [default: the built-in ones].
    #[arg(long, value_name = "FILE")]
    judge: Option<PathBuf>,
    #[command(flatten)]
    computing: Computing,
    /// A PNG of subjects, pairs and edits with what the model made of them.
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Write the Markdown table to a file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Sprites,
    Judge,
}

fn named(argument: &str) -> Result<(String, PathBuf), String> {
    let (name, dir) = argument.split_once('=').ok_or("a name, `=` and a folder")?;
    Ok((name.to_owned(), dir.into()))
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let judge = JudgeInUse::load(&self.judge.clone().map_or_else(default_judge, Ok)?)?;
        match (self.what, self.computing.on()?) {
            (What::Judge, _) => self.judge(&judge),
            (What::Sprites, On::Burn(device)) => self.sprites::<Burn>(&judge, device),
            (What::Sprites, On::Candle(device)) => self.sprites::<Candle>(&judge, device),
        }
    }

    fn judge(&self, judge: &JudgeInUse) -> anyhow::Result<ExitCode> {
        let accuracies = judge.accuracy(self.seed)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&accuracies)?);
        } else {
            for Accuracy { what, right, count } in accuracies {
                println!("{what:14} {:7.3} %  of {count}", 100.0 * right as f64 / count as f64);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn sprites<E: Engine>(&self, judge: &JudgeInUse, device: E::Device) -> anyhow::Result<ExitCode>
    where
        E::Device: Sync,
        Pipeline<E>: Sync,
        ClipText<E>: Sync,
        VaeEncoder<E>: Sync,
    {
        self.sheet.iter().chain(&self.output).try_for_each(|file| super::check_place(file))?;
        self.sheet.iter().try_for_each(|file| super::check_png(file))?;
        let subjects = self.subjects as usize;
        let bundle = self.bundle.clone().map_or_else(super::default_bundle, Ok)?;
        let also = self.also.iter().map(|(name, dir)| Ok((name, open(dir)?))).collect::<anyhow::Result<Vec<_>>>()?;
        let model = Answerer::<E>::load(open(&bundle)?, &device)?;
        if self.ceilings {
            model.text_encoder()?;
        }
        let text = model.manifest().networks.text.as_ref();
        let longest = text.map_or(LONGEST_CAPTION, |text| text.max_position_embeddings - 2);
        let tasks = task::tasks(self.seed, subjects, longest);
        let drawn = judge.see(&task::others(self.seed, REFERENCES))?;
        let drawn: Vec<_> = drawn.into_iter().map(|(_, features)| features).collect();
        let threads = if self.computing.device == DeviceName::Cpu { rayon::current_num_threads() } else { 1 };
        let (mut rows, mut details) = (Vec::new(), serde_json::Map::new());
        let mut row = |name: &str, make: &dyn Fn(&ProgressBar) -> anyhow::Result<Vec<Picture>>| -> anyhow::Result<_> {
            let bar = self.progress(name, tasks.len());
            let pictures = make(&bar)?;
            bar.finish_and_clear();
            let seen = judge.see(&pictures)?;
            rows.push((name.to_owned(), Row::new(&tasks, &seen, &drawn)));
            details.insert(name.to_owned(), serde_json::to_value(score::details(&tasks, &seen))?);
            Ok(pictures)
        };

        row("oracle", &|_| Ok(tasks.iter().map(|task| sprites::draw(&task.scene, PICTURE_SIZE)).collect()))?;
        if self.ceilings {
            row("autoencoder", &|bar| model.autoencoded(&tasks, threads, || bar.inc(1)))?;
            row("captions", &|bar| model.captions(&tasks, self.seed, threads, || bar.inc(1)))?;
        }
        let pictures = row("kosmos-g", &|bar| model.prompts(&tasks, self.seed, threads, || bar.inc(1)))?;
        for (name, folder) in also {
            let model = Answerer::<E>::load(folder, &device)?;
            row(name, &|bar| model.prompts(&tasks, self.seed, threads, || bar.inc(1)))?;
        }
        let unrelated = |(i, task): (usize, &Task)| task::unrelated(self.seed, i, &task.scene);
        row("chance", &|_| Ok(tasks.iter().enumerate().map(unrelated).collect()))?;

        let tables = score::markdown(&rows);
        if self.json {
            let rows: serde_json::Map<_, _> = rows
                .into_iter()
                .map(|(name, row)| Ok((name, serde_json::to_value(row)?)))
                .collect::<anyhow::Result<_>>()?;
            let all = serde_json::json!({
                "seed": self.seed, "subjects": subjects, "engine": E::NAME, "rows": rows, "details": details,
            });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            println!("{tables}");
        }
        if let Some(path) = &self.sheet {
            let png = sheet(&tasks, &pictures).to_png(None);
            std::fs::write(path, png).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.output {
            std::fs::write(path, &tables).with_context(|| path.display().to_string())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn progress(&self, name: &str, tasks: usize) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {bar:30} picture {pos} of {len}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(tasks as u64).with_style(style).with_message(name.to_owned())
    }
}

/// Words of a caption where no text encoder sets a limit.
const LONGEST_CAPTION: usize = 75;
/// Drawn pictures that generated ones are compared with for FID.
const REFERENCES: usize = 2400;
const PICTURE_SIZE: u32 = kosmosg_models::eval::judge::PICTURE_SIZE as u32;

fn open(dir: &Path) -> anyhow::Result<Folder> {
    Folder::open(dir).with_context(|| format!("opening the bundle {}", dir.display()))
}

/// The built-in judge.
fn default_judge() -> anyhow::Result<PathBuf> {
    super::built_in("judge.gguf", "--judge FILE")
}

/// The judge on burn's CPU path.
struct JudgeInUse(Judge<Burn>);

impl JudgeInUse {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<_> { Ok(Judge::from_gguf(std::fs::read(path)?, &BurnDevice::cpu())?) };
        Ok(Self(read().with_context(|| format!("reading the judge {}", path.display()))?))
    }

    fn see(&self, pictures: &[Picture]) -> anyhow::Result<Vec<Seen>> {
        Ok(pollster::block_on(self.0.read(pictures, &BurnDevice::cpu()))?)
    }

    fn accuracy(&self, seed: u64) -> anyhow::Result<Vec<Accuracy>> {
        accuracy(seed, |pictures| self.see(pictures))
    }
}

/// Subjects with their ten pictures in rows, then pairs, then edits, each after what was shown.
fn sheet(tasks: &[Task], pictures: &[Picture]) -> Picture {
    const SUBJECTS: usize = 8;
    const COLUMNS: usize = TEMPLATES + 1;
    let mut cells = Vec::new();
    let of = |kind: Kind| tasks.iter().zip(pictures).filter(move |(task, _)| task.kind == kind);
    let subjects: Vec<_> = of(Kind::Subject).collect();
    for row in subjects.chunks(TEMPLATES).take(SUBJECTS) {
        // The last prompt shows the subject as it is.
        cells.extend(row.last().map(|(task, _)| task.pictures[0].clone()));
        cells.extend(row.iter().map(|(_, picture)| (*picture).clone()));
    }
    let blank =
        Picture::new(PICTURE_SIZE, PICTURE_SIZE, vec![255; 3 * PICTURE_SIZE.pow(2) as usize]).expect("a white square");
    for (kind, count) in [(Kind::Pair, 6), (Kind::Trio, 4), (Kind::Edit, 10)] {
        for (task, picture) in of(kind).take(count) {
            let group: Vec<_> = task.pictures.iter().chain([picture]).cloned().collect();
            if cells.len() % COLUMNS + group.len() > COLUMNS {
                cells.resize(cells.len().next_multiple_of(COLUMNS), blank.clone());
            }
            cells.extend(group);
        }
        cells.resize(cells.len().next_multiple_of(COLUMNS), blank.clone());
    }
    sprites::contact_sheet(&cells, COLUMNS, 1)
}
