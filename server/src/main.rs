//! The command `kosmosg-server`.

use std::io::{IsTerminal, stderr};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::HeaderValue;
use clap::Parser;
use kosmosg::engine::Engine;
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg_server::app::{App, BODY_TIME, EngineName, GRACE, serve};
use kosmosg_server::bundles::Bundles;
use kosmosg_server::inference::Inference;
use kosmosg_server::jobs::{Jobs, Limits};
use kosmosg_server::page::parse_origin;
use kosmosg_server::worker::Worker;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// Value of `--store` for jobs that end with the server.
const MEMORY: &str = "memory";
/// How often late jobs are ended and old ones forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Serves the KOSMOS-G page and its models, and computes pictures for devices that cannot.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Address to listen on. With 0.0.0.0 in place of 127.0.0.1, everybody on the network may use the server; it asks for
    /// no password.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Folder of the models: a bundle (a folder with a bundle.json), or a folder with several of them.
    #[arg(long, value_name = "DIR")]
    models: PathBuf,

    /// Folder of the built page. Without it there is only the interface for programs.
    #[arg(long, value_name = "DIR")]
    page: Option<PathBuf>,

    /// How many jobs may wait. Who comes when the queue is full is told when to come again.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    queue: u16,

    /// How many jobs may step together. One takes less memory; more are done sooner together than one after the other.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    together: u8,

    /// How many minutes a job may take, its waiting included.
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    deadline: u32,

    /// File that jobs and results are kept in, so that they outlive the server; `memory` for none.
    #[arg(long, value_name = "FILE", default_value_os_t = usual_store())]
    store: PathBuf,

    /// How many finished jobs are kept, so that their pictures can be fetched.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    keep: u32,

    /// How many hours they are kept while the server runs.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    keep_hours: u32,

    /// What to compute on: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceName,

    /// Let the pages of another site use this server, such as https://example.org or http://192.168.1.5:8000. May be given
    /// several times.
    #[arg(long = "allow-origin", value_name = "URL", value_parser = parse_origin)]
    allowed_origins: Vec<HeaderValue>,
}

const EXAMPLES: &str = "\
Examples:
  kosmosg-server --models models --page dist/page
      the page, the models in models/ and the server for this computer: http://127.0.0.1:8080
  kosmosg-server --models /data/kosmosg --listen 0.0.0.0:8080 --device cuda
      a computer with a GPU for everybody at home

The log goes to standard error; RUST_LOG=debug shows more, RUST_LOG=warn less. Ctrl-C ends the server.";

/// What to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceName {
    Cpu,
    Cuda(usize),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();

    if let Some(page) = arguments.page.as_ref().filter(|page| !page.join("index.html").is_file()) {
        bail!("{} has no index.html; build the page with `cargo xtask build`", page.display());
    }
    let bundles = Arc::new(Bundles::open(&arguments.models)?);
    let device = arguments.device.open()?;
    let limits = Limits {
        waiting: arguments.queue.into(),
        finished: arguments.keep as usize,
        keep_for: Duration::from_hours(arguments.keep_hours.into()),
        deadline: Duration::from_mins(arguments.deadline.into()),
    };

    // The port comes before the worker: most often it is what fails.
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| match arguments.listen.port() {
        0 => format!("cannot listen on {}", arguments.listen),
        port => format!(
            "cannot listen on {}: is another server running there? Choose another port with --listen {}:{}",
            arguments.listen,
            arguments.listen.ip(),
            port.checked_add(1).unwrap_or(8080),
        ),
    })?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!("everybody who reaches {address} may use this server");
    }
    let jobs = Arc::new(open_jobs(limits, &arguments.store)?);
    match jobs.take_up(&bundles).await? {
        0 => {}
        count => tracing::info!("going on with {count} jobs of an earlier server"),
    }
    let worker = Worker::start(Arc::clone(&jobs), arguments.together.into(), move || Inference::<Candle>::new(device))?;
    for bundle in bundles.entries() {
        tracing::info!(id = bundle.id, bytes = bundle.bytes, "model: {}", bundle.name);
    }
    println!("http://{address}");
    tracing::info!("listening on http://{address}, computing on {}", arguments.device);

    let engine = EngineName { engine: Candle::NAME.to_owned(), device: arguments.device.to_string() };
    let Arguments { page, allowed_origins, .. } = arguments;
    let app = App { jobs: Arc::clone(&jobs), bundles, engine, page, allowed_origins, body_time: BODY_TIME };
    let tidying = tokio::spawn({
        let jobs = Arc::clone(&jobs);
        async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                jobs.tidy(TIDY_EVERY);
            }
        }
    });
    serve(listener, app, interrupted()).await?;
    tidying.abort();
    if !worker.ends_within(GRACE) {
        tracing::warn!("the step that is being computed takes long; leaving it");
    }
    Ok(jobs.flush().await?)
}

/// Opens the file of jobs.
fn open_jobs(limits: Limits, store: &Path) -> anyhow::Result<Jobs> {
    let path = (store != Path::new(MEMORY)).then_some(store);
    if let Some(folder) = path.and_then(Path::parent) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    Jobs::open(limits, path).with_context(|| format!("jobs cannot be kept in {}", store.display()))
}

/// Where jobs are kept if nothing else is said.
fn usual_store() -> PathBuf {
    let data = directories::ProjectDirs::from("", "", "kosmosg").map(|dirs| dirs.data_local_dir().to_owned());
    data.map_or_else(|| MEMORY.into(), |data| data.join("jobs.sqlite"))
}

/// Waits for Ctrl-C or, on Unix, for the polite signal to end.
async fn interrupted() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!("Ctrl-C cannot be heard: {error}");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
    tracing::info!("stopping");
}

impl DeviceName {
    fn open(self) -> anyhow::Result<CandleDevice> {
        match self {
            DeviceName::Cpu => Ok(CandleDevice::cpu()),
            DeviceName::Cuda(index) => CandleDevice::cuda(index)
                .context("--device cuda needs an NVIDIA GPU and a server built with `--features cuda`"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.split_once(':') {
            None if name == "cpu" => Ok(DeviceName::Cpu),
            None if name == "cuda" => Ok(DeviceName::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(DeviceName::Cuda).map_err(|_| format!("{index:?} is no number")),
            _ => Err("expected cpu, cuda or cuda:N".into()),
        }
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}
