//! How long a picture takes and what it needs, everywhere: `cargo xtask bench`.
//!
//! Every figure is the median of several runs of the built programs, each run from nothing: a new process or a new browser.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kosmosg_tests::browser::{Page, Where, creature, dist};
use kosmosg_tests::memory::MemoryWatch;
use kosmosg_tests::server::Server;
use serde_json::Value;

const STEPS: usize = 20;
const SEED: u64 = 1;
/// Chromium's WebGPU may run on the processor.
const PATIENCE: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // cargo adds an argument of its own, `--bench`.
    let runs = std::env::args().skip_while(|argument| argument != "--runs").nth(1);
    let runs: usize = runs.map_or(Ok(3), |runs| runs.parse()).context("--runs takes a number")?;
    ensure!(runs > 0, "--runs 0 measures nothing");
    println!("one picture of {STEPS} steps, guidance 4; median of {runs} runs\n");
    println!("| where | from the start to a finished picture | loading | a picture | peak memory |");
    println!("|---|--:|--:|--:|--:|");
    // Watching costs time, so what is watched is not timed.
    for engine in ["burn", "candle"] {
        let timed = (0..runs).map(|_| command_line(engine, false)).collect::<anyhow::Result<Vec<_>>>()?;
        print_row(&format!("command line, {engine}, CPU"), &timed, command_line(engine, true)?.memory);
    }
    let mut shown = Vec::new();
    for (name, place) in [("page, CPU", Where::Cpu), ("page, WebGPU", Where::Gpu), ("page, server", Where::Server)] {
        let mut timed = Vec::new();
        for _ in 0..runs {
            let (seconds, run) = page(place, false).await;
            shown.push(seconds);
            timed.push(run);
        }
        print_row(name, &timed, page(place, true).await.1.memory);
    }
    println!("\nThe page takes input {:.2} s after navigation.\n", median(&shown));
    sizes(&dist().join("page/app"))
}

/// One run.
struct Run {
    /// Seconds from starting a program, or from navigating to the page, to the finished picture.
    total: f64,
    /// Seconds until the model is there.
    load: f64,
    /// Seconds from the request to the picture.
    picture: f64,
    /// Most bytes that the program, or the whole browser and the server, had in memory at once, if it was watched and the
    /// system tells.
    memory: Option<u64>,
}

fn command_line(engine: &str, watched: bool) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let (image, output) = (folder.path().join("creature.png"), folder.path().join("out.png"));
    std::fs::write(&image, creature().to_png(None))?;
    let begin = Instant::now();
    let program = dist().join(format!("kosmosg{}", std::env::consts::EXE_SUFFIX));
    let child = Command::new(program)
        .args(["generate", "--json", "--prompt", "a <i> on the beach", "--guidance", "4", "--engine", engine])
        .args(["--steps", &STEPS.to_string(), "--seed", &SEED.to_string()])
        .arg("--image")
        .arg(image)
        .arg("--output")
        .arg(output)
        .stdout(Stdio::piped())
        .spawn()?;
    let watch = watched.then(|| MemoryWatch::of(&[child.id()]));
    let output = child.wait_with_output()?;
    let total = begin.elapsed().as_secs_f64();
    let memory = watch.and_then(MemoryWatch::peak);
    ensure!(output.status.success(), "kosmosg generate failed");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let seconds = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).context("kosmosg generate --json");
    Ok(Run { total, load: seconds("/load_seconds")?, picture: seconds("/pictures/0/seconds")?, memory })
}

/// Seconds until the page takes input, and the rest.
async fn page(place: Where, watched: bool) -> (f64, Run) {
    let server = Server::start().await;
    let page = Page::launch().await;
    let watch = watched.then(|| MemoryWatch::of(&[page.process(), server.process()]));
    let begin = Instant::now();
    page.visit(&server.address(&format!("/?where={}", place.name()))).await;
    let shown = begin.elapsed().as_secs_f64();
    page.wait_for_state("ready", PATIENCE).await;
    let mut load = begin.elapsed().as_secs_f64();
    // What is kept for another visit is fetched now, and not while the picture is timed.
    page.wait_until_kept(PATIENCE).await;
    page.choose(place).await;
    // A program types faster than a person, but not in no time.
    page.write_sentence(SEED, STEPS).await;
    if place == Where::Server {
        // A server loads its model with the first job.
        let begin = Instant::now();
        page.generate(PATIENCE).await;
        load += begin.elapsed().as_secs_f64();
    }
    let begin = Instant::now();
    page.generate(PATIENCE).await;
    let picture = begin.elapsed().as_secs_f64();
    if place == Where::Server {
        load -= picture;
    }
    let memory = watch.and_then(MemoryWatch::peak);
    page.close().await;
    (shown, Run { total: load + picture, load, picture, memory })
}

fn print_row(name: &str, runs: &[Run], memory: Option<u64>) {
    let seconds = |part: fn(&Run) -> f64| median(&runs.iter().map(part).collect::<Vec<_>>());
    let memory = memory.map_or("unknown".to_owned(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
    let (total, load, picture) = (seconds(|run| run.total), seconds(|run| run.load), seconds(|run| run.picture));
    println!("| {name} | {total:.2} s | {load:.2} s | {picture:.2} s | {memory} |");
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// Sizes of the page's modules, as they are and as they travel.
fn sizes(app: &Path) -> anyhow::Result<()> {
    println!("| module | wasm | brotli |");
    println!("|---|--:|--:|");
    let version = std::fs::read_dir(app)?.next().with_context(|| format!("{} is empty", app.display()))??.path();
    for module in ["ui", "worker-cpu", "worker-gpu"] {
        let bytes = |suffix: &str| -> anyhow::Result<u64> {
            let file = version.join(format!("{module}_bg.wasm{suffix}"));
            Ok(std::fs::metadata(&file).with_context(|| file.display().to_string())?.len())
        };
        println!("| {module} | {:.2} MB | {:.2} MB |", bytes("")? as f64 / 1e6, bytes(".br")? as f64 / 1e6);
    }
    Ok(())
}
