//! The project's two commands, `cargo xtask serve` and `cargo xtask test`, and what they are made of.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

mod compress;
mod cuda;
mod files;
mod icon;
mod page;

/// Builds, serves and tests KOSMOS-G.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds page and server into dist/ and serves both.
    Serve {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
    },
    /// Builds page and server into dist/.
    Build,
    /// Builds server and command line for an NVIDIA GPU into dist/.
    Cuda {
        /// Folder of a CUDA toolkit. Without it: CUDA_HOME, CUDA_PATH, /usr/local/cuda, or NVIDIA's packages for Python, which are
        /// fetched.
        #[arg(long, value_name = "DIR")]
        toolkit: Option<PathBuf>,
        /// Compute capability of the GPU that it is for, such as 90. Without it, that of this computer's.
        #[arg(long, env = "CUDA_COMPUTE_CAP", value_parser = cuda::capability)]
        capability: Option<String>,
        /// With FlashAttention's kernels, for capability 80 or more: they take hours to compile on a few cores, and need CUTLASS,
        /// which is fetched from GitHub.
        #[arg(long)]
        flash_attention: bool,
        /// Also a command line that trains on CUDA, dist/kosmosg-train-cuda, for any kind of GPU; its build takes LLVM from
        /// GitHub.
        #[arg(long)]
        training: bool,
    },
    /// Measures load, picture and memory of every way to make one, and prints a table.
    Bench {
        /// Runs of each, of which the median counts.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// The published model at full size in the page instead, with random weights: takes 12 GB of disk in dist/full.
        #[arg(long)]
        full: bool,
        /// Two hundred clients on one server for five minutes instead.
        #[arg(long, conflicts_with = "full")]
        load: bool,
        /// How quick and light the page is for who uses it instead; npm fetches Lighthouse.
        #[arg(long, conflicts_with_all = ["full", "load"])]
        page: bool,
    },
    /// Runs all checks and tests, the fastest first; a real browser included.
    Test,
}

fn main() -> anyhow::Result<()> {
    std::env::set_current_dir(root())?;
    match Arguments::parse().task {
        Task::Serve { listen } => {
            build()?;
            let server = dist().join(format!("kosmosg-server{}", std::env::consts::EXE_SUFFIX));
            let page = dist().join("page");
            run(server, ["--listen", &listen, "--models", "models", "--page", &page.to_string_lossy()])
        }
        Task::Build => build(),
        Task::Cuda { toolkit, capability, flash_attention, training } => {
            cuda::build(toolkit, capability, flash_attention, training)
        }
        Task::Bench { runs, full, load, page } => {
            build()?;
            let bench = match () {
                () if full => "full",
                () if load => "load",
                () if page => "page",
                () => "table",
            };
            let runs = runs.to_string();
            cargo(["bench", "--workspace", "--exclude", "xtask", "--bench", bench, "--", "--runs", &runs])
        }
        Task::Test => test(),
    }
}

/// All but this command, selected the same way each time: cargo unites the features of what is selected, and another
/// selection would build burn again.
const NATIVE: [&str; 4] = ["--release", "--workspace", "--exclude", "xtask"];
/// What is made for people to run.
const PROGRAMS: [&str; 2] = ["kosmosg", "kosmosg-server"];
/// Creatures that the page offers.
const CREATURES: &str = "24";

/// Page, server and command line, in `dist/`.
fn build() -> anyhow::Result<()> {
    std::fs::create_dir_all(dist())?;
    // Two builds at once would write the same files. The lock goes with the file's last handle.
    let lock = File::create(dist().join(".lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("waiting for another build into {}", dist().display());
        lock.lock()?;
    }
    cargo([&["build"], &NATIVE[..]].concat())?;
    for program in PROGRAMS {
        to_dist(program, program)?;
    }
    // A server may be serving the page that there is.
    let (page, fresh, old) = (dist().join("page"), dist().join("page.new"), dist().join("page.old"));
    files::remove(&fresh)?;
    files::remove(&old)?;
    let creatures = fresh.join("creatures");
    let palette =
        ["sprite", "--held-out", "--seed", "1", "--palette", CREATURES, "--output", &creatures.to_string_lossy()];
    run(dist().join(format!("kosmosg{}", std::env::consts::EXE_SUFFIX)), palette)?;
    page::build(&fresh, &target_dir()?.join("compressed"))?;
    if page.exists() {
        std::fs::rename(&page, &old).with_context(|| page.display().to_string())?;
    }
    std::fs::rename(&fresh, &page).with_context(|| fresh.display().to_string())?;
    files::remove(&old)
}

/// Copies a program that was built to `dist/`, under that name.
fn to_dist(program: &str, name: &str) -> anyhow::Result<()> {
    let suffix = std::env::consts::EXE_SUFFIX;
    let built = target_dir()?.join("release").join(format!("{program}{suffix}"));
    std::fs::create_dir_all(dist())?;
    // A program that runs cannot be written to, but another can take its name.
    let fresh = dist().join(format!("{name}{suffix}.new"));
    std::fs::copy(&built, &fresh).with_context(|| built.display().to_string())?;
    std::fs::rename(&fresh, dist().join(format!("{name}{suffix}"))).with_context(|| fresh.display().to_string())
}

fn test() -> anyhow::Result<()> {
    let begin = Instant::now();
    cargo(["fmt", "--all", "--check"])?;
    cargo([&["clippy"], &NATIVE[..], &["--all-targets", "--", "--deny", "warnings"]].concat())?;
    cargo(["clippy", "--release", "--package", "xtask", "--all-targets", "--", "--deny", "warnings"])?;
    cargo(["test", "--release", "--package", "xtask"])?;
    page::install_target()?;
    for module in page::MODULES {
        let wasm = ["clippy", "--package", "kosmosg-web", "--profile", page::profile(module), "--target", page::TARGET];
        cargo([&wasm[..], &["--no-default-features", "--features", module, "--", "--deny", "warnings"]].concat())?;
    }
    build()?;
    cargo([&["test"], &NATIVE[..]].concat())?;
    println!("all checks passed in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

fn dist() -> PathBuf {
    root().join("dist")
}

/// Where cargo builds, whichever way it was told.
fn target_dir() -> anyhow::Result<PathBuf> {
    let output = cargo_command().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata has no target_directory")?.into())
}

fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> anyhow::Result<()> {
    run_command(cargo_command().args(arguments))
}

/// The cargo that runs this, without what it told this program of its package: build scripts that look at that would run
/// again, and all that needs them be built again, whenever cargo is called by hand in between.
fn cargo_command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(of_package) {
        command.env_remove(name);
    }
    command
}

/// Runs a program to its end, its output shown.
fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> anyhow::Result<()> {
    run_command(Command::new(program).args(arguments))
}

fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("starting {line}"))?;
    if !status.success() {
        bail!("{line} failed: {status}");
    }
    Ok(())
}
