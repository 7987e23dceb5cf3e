//! The published model at full size in a real browser: `cargo xtask bench --full`.
//!
//! Its weights are random, everything else is as with the real ones: both checkpoints in the published forms are written and
//! imported, the page fetches the encoder over a line that breaks, and encodes a prompt on its GPU.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kosmosg::condition::Condition;
use kosmosg::verify::{cosine, relative_error};
use kosmosg_tests::browser::{Line, Page, Where, dist};
use kosmosg_tests::memory::MemoryWatch;
use kosmosg_tests::models::{built_in, copy};
use kosmosg_tests::server::Server;
use serde_json::{Value, json};

const PROMPT: &str = "a red house on a hill";
const PATIENCE: Duration = Duration::from_secs(3600);
const FETCHING: Duration = Duration::from_secs(600);
/// What of the language model passes before the line breaks.
const BREAKS_AFTER: usize = 100_000_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = dist().join("full");
    let models = folder.join("models");
    let bundle = models.join("large");
    if !bundle.exists() {
        make(&folder, &bundle)?;
    }
    let tiny = models.join("tiny");
    if !tiny.exists() {
        copy(&built_in(), &tiny)?;
    }
    let name = manifest(&bundle)?["name"].as_str().context("a manifest without a name")?.to_owned();
    println!("| | |\n|---|--:|");

    let server = Server::of(&models).await;
    let line = Line::to(server.port()).await;
    let page = Page::open(&line.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    line.break_answers("large/mllm", BREAKS_AFTER, 2);
    let begin = Instant::now();
    page.deed(&name, "Only the part that reads").await;
    page.wait_for_text_within("#model-line", "1.1", FETCHING).await;
    page.reload().await;
    page.deed(&name, "Go on fetching").await;
    page.wait_for_deed_within(&name, "Use", FETCHING).await;
    row("fetching the encoder, two breaks and a reload", begin);
    let asked = line.asked();
    let again: usize = asked.iter().filter(|(path, _)| path.contains("/large/")).map(|(_, at)| at.len() - 1).sum();
    ensure!(again >= 2, "the line broke: {asked:?}");

    let begin = Instant::now();
    page.deed(&name, "Check").await;
    // It cannot be done twice at once.
    page.wait_for_deed_within(&name, "Check", FETCHING).await;
    row("checking it", begin);
    page.wait_for_deed(&name, "Use").await;

    page.choose(Where::Gpu).await;
    let watch = MemoryWatch::of(&[page.process()]);
    let begin = Instant::now();
    page.deed(&name, "Use").await;
    page.wait_for_text("#model-name", &name).await;
    page.wait_for_state("ready", PATIENCE).await;
    row("loading it to WebGPU", begin);
    let memory = |reply: &Value| reply["memory"]["bytes"].as_f64().context("no memory is told");
    let loaded = memory(&page.ask("gpu", r#""memory""#, &[]).await)?;

    let begin = Instant::now();
    let request = json!({ "encode": { "prompt": [{ "text": PROMPT }], "negative": "" } }).to_string();
    let reply = page.ask("gpu", &request, &[]).await;
    row("encoding a short prompt", begin);
    let condition = reply["encoded"]["condition"].clone();
    let condition: Condition = serde_json::from_value(condition).with_context(|| reply.to_string())?;
    let encoded = memory(&page.ask("gpu", r#""memory""#, &[]).await)?;
    println!("| memory of the worker's program, loaded | {:.0} MB |", loaded / 1e6);
    println!("| memory of the worker's program, after encoding | {:.0} MB |", encoded / 1e6);
    if let Some(peak) = watch.peak() {
        println!("| memory of the browser with its emulated GPU | {:.2} GB |", peak as f64 / 1e9);
    }
    page.close().await;

    let expected = command_line(&folder, &bundle)?.cond;
    let (cosine, error) = (cosine(&condition.cond, &expected), relative_error(&condition.cond, &expected));
    println!("| cosine to the command line's condition | {cosine:.7} |");
    println!("| relative error | {error:.1e} |");
    ensure!(error <= 1e-3, "the page's condition is not the command line's");
    ensure!(encoded <= 600e6, "the worker's program takes more than 600 MB");
    Ok(())
}

/// Both checkpoints with random weights, and the bundle of them in few bits.
fn make(folder: &Path, bundle: &Path) -> anyhow::Result<()> {
    let (kosmosg, decoder) = (folder.join("kosmos-g"), folder.join("sd15"));
    for (preset, to) in [("kosmos-g", &kosmosg), ("sd15", &decoder)] {
        // What an attempt that was broken off has left may be half of it.
        if to.exists() {
            std::fs::remove_dir_all(to)?;
        }
        run(Command::new(program()).args(["synth", "--preset", preset, "--seed", "1", "-o"]).arg(to))?;
    }
    let file = |name: &str| kosmosg.join(name);
    run(Command::new(program())
        .args(["import", "--quant", "mixed", "--checkpoint"])
        .arg(file("checkpoint_final.pt"))
        .arg("--spm")
        .arg(file("sentencepiece.bpe.model"))
        .arg("--dict")
        .arg(file("dict.txt"))
        .arg("--decoder")
        .arg(&decoder)
        .arg("-o")
        .arg(bundle))
}

/// What the command line makes of the prompt.
fn command_line(folder: &Path, bundle: &Path) -> anyhow::Result<Condition> {
    let output = folder.join("condition.safetensors");
    run(Command::new(program()).args(["encode", "--prompt", PROMPT, "--bundle"]).arg(bundle).arg("-o").arg(&output))?;
    let tensors = kosmosg::weights::safetensors::read("condition.safetensors", std::fs::read(&output)?)?;
    let [cond, uncond] = ["cond", "uncond"].map(|name| tensors.get(name).map(|tensor| tensor.to_f32()));
    let shape = tensors.get("cond").context("no condition")?.shape();
    let [tokens, width] = [shape[shape.len() - 2], shape[shape.len() - 1]];
    Ok(Condition { tokens, width, cond: cond.context("cond")?, uncond: uncond.context("uncond")? })
}

fn row(what: &str, begin: Instant) {
    println!("| {what} | {:.0} s |", begin.elapsed().as_secs_f64());
}

fn program() -> PathBuf {
    dist().join(format!("kosmosg{}", std::env::consts::EXE_SUFFIX))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    ensure!(command.status()?.success(), "{command:?} failed");
    Ok(())
}

fn manifest(bundle: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(bundle.join("bundle.json"))?)?)
}
