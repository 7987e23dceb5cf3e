//! What the server is told: flags, before variables, before a file, before what is usual.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use axum::http::HeaderValue;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use kosmosg::engine::candle::CandleDevice;
use kosmosg_server::access::Role;
use kosmosg_server::hosts::parse_name;
use kosmosg_server::page::parse_origin;

/// Value of `--store` for jobs that end with the server.
pub const MEMORY: &str = "memory";
/// What stands before a flag's name in the variable that gives its value.
const VARIABLE: &str = "KOSMOSG";

/// Serves the KOSMOS-G page and its models, and computes pictures for devices that cannot.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Task>,

    /// Address to listen on. With 0.0.0.0 in place of 127.0.0.1 others on the network reach it: then connections are encrypted
    /// and each device needs a token, unless --tls and --access say otherwise. With --name or --tls off, which say that
    /// others come through a proxy, they need one on 127.0.0.1 as well.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Folder of the models: a bundle (a folder with a bundle.json), or a folder with several of them.
    #[arg(long, value_name = "DIR", required = true)]
    pub models: Option<PathBuf>,

    /// Folder of the LoRAs that jobs may ask for by name: safetensors files in diffusers' or kohya's form. New ones are seen when
    /// the server starts again [default: a folder `loras` in --models].
    #[arg(long, value_name = "DIR")]
    pub loras: Option<PathBuf>,

    /// Folder of the built page. Without it there is only the interface for programs.
    #[arg(long, value_name = "DIR")]
    pub page: Option<PathBuf>,

    /// What to compute on: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceName,

    /// In which precision to compute.
    #[arg(long, value_enum, value_name = "PRECISION", default_value_t = Precision::Auto)]
    pub precision: Precision,

    /// How many jobs may step together. One takes less memory; more are done sooner together than one after the other.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub together: u8,

    /// How many jobs may wait; where several can come, half of them of one. Who comes when the queue is full is told when to come
    /// again.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub queue: u16,

    /// How many minutes a job may take, its waiting included; the time in which no server runs does not count.
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub deadline: u32,

    /// File that jobs and results are kept in, so that they outlive the server; `memory` for none.
    #[arg(long, value_name = "FILE", default_value_os_t = in_data("jobs.sqlite").unwrap_or_else(|| MEMORY.into()))]
    pub store: PathBuf,

    /// Share the jobs with other servers through this Redis, such as redis://:PASSWORD@192.168.1.5; --store is not used then.
    /// Give all servers the same --queue, --deadline and --keep.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,

    /// Who computes the jobs of --redis that this server takes or finds waiting.
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = Work::Here)]
    pub work: Work,

    /// How many finished jobs are kept, so that their pictures can be fetched.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keep: u32,

    /// How many hours they are kept while the server runs.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub keep_hours: u32,

    /// Who may use the server.
    #[arg(long, value_enum, value_name = "WHO", default_value_t = AccessMode::Auto)]
    pub access: AccessMode,

    /// File of the tokens' hashes.
    #[arg(long, value_name = "FILE", global = true, default_value_os_t = in_data("tokens.json").unwrap_or_else(|| "tokens.json".into()))]
    pub tokens: PathBuf,

    /// How many jobs and other POST requests a minute each token, or without tokens each address, may send; looking is free.
    #[arg(long, value_name = "N", default_value = "120")]
    pub rate: NonZeroU32,

    /// Whether connections are encrypted.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = TlsMode::Auto)]
    pub tls: TlsMode,

    /// Certificate, PEM; without one, the server makes one of its own and shows its fingerprint.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// The certificate's key, PEM.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// A name that the server is reached by, such as pictures.example.org; its addresses and this computer's name need not be
    /// given. Requests to other names are refused. May be given several times.
    #[arg(long = "name", value_name = "HOST", value_parser = parse_name)]
    pub names: Vec<String>,

    /// Let the pages of another site use this server, such as https://example.org or http://192.168.1.5:8000. May be given
    /// several times.
    #[arg(long = "allow-origin", value_name = "URL", value_parser = parse_origin)]
    pub allowed_origins: Vec<HeaderValue>,

    /// A file with values for flags that are not given, such as `listen = "0.0.0.0:8080"`.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Print the values as such a file would have them, and end.
    #[arg(long)]
    pub print_config: bool,
}

/// What else it can do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Gives and takes tokens, also while a server runs.
    #[command(subcommand)]
    Token(TokenTask),
    /// Lets a further device in, also while a server runs: shows an address to open there, also as a QR code. With `--config
    /// FILE` of the server that runs with this file.
    Pair {
        /// What the device may do [default: use; admin while nobody has a token].
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenTask {
    /// Makes a token and shows it, this once.
    Add {
        /// Whose it is.
        name: String,
        /// What it is good for.
        #[arg(long, value_enum, default_value_t = Role::Use)]
        role: Role,
    },
    /// Shows whose there are.
    List,
    /// Takes a token back.
    Remove {
        /// Whose it is.
        name: String,
    },
}

/// Who may use the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessMode {
    /// Whoever has a token; on a loopback address everybody, unless --name or --tls off says that others come through a
    /// proxy.
    Auto,
    /// Whoever has a token.
    Token,
    /// Everybody who reaches it.
    Open,
}

/// In which precision to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 16 bits on a GPU, for half the memory; 32 where 16 are too few, as in norms.
    Auto,
    /// 32 bits everywhere.
    F32,
}

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// This server, as the others do.
    Here,
    /// The others.
    Elsewhere,
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsMode {
    /// Except on a loopback address.
    Auto,
    /// Always.
    On,
    /// Never: something before the server does it.
    Off,
}

/// What to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda(usize),
}

const EXAMPLES: &str = "\
Examples:
  kosmosg-server --models models --page dist/page
      the page, the models in models/ and the server for this computer: http://127.0.0.1:8080
  kosmosg-server --models /data/kosmosg --page dist/page --listen 0.0.0.0:8080 --device cuda
      a computer with a GPU for everybody at home; it shows a code with which the first device pairs itself
  kosmosg-server token add laptop
      a token for a program; with `--config FILE` for the server that runs with this file
  kosmosg-server pair
      an address with which a further device pairs itself
  kosmosg-server --models /data/kosmosg --device cuda --redis redis://192.168.1.5
      one of several computers that share their jobs; with `--work elsewhere` one that only takes requests

Each flag's value can also come from a variable (KOSMOSG_LISTEN for --listen) or from a file (--config). The log goes to
standard error; RUST_LOG=debug shows more, RUST_LOG=warn less. Ctrl-C ends the server; jobs that are not done go on when it
starts again.";

impl Arguments {
    /// Reads all of it, and prints the configuration if that is asked for.
    ///
    /// # Errors
    /// The file cannot be read or says something that no flag is called. What is wrong on the command line ends the program.
    pub fn read() -> anyhow::Result<Self> {
        let command = with_variables(Self::command());
        let early = command.clone().ignore_errors(true).disable_help_flag(true).disable_version_flag(true);
        // Help that is asked for ends here as an error, and comes with what is read below.
        let early = early.try_get_matches_from(std::env::args_os()).unwrap_or_default();
        let command = match early.try_get_one::<PathBuf>("config").ok().flatten() {
            Some(path) => with_file(command, path)?,
            None => command,
        };
        let matches = command.clone().get_matches();
        if matches.get_flag("print_config") {
            print!("{}", as_file(&command, &matches)?);
            std::process::exit(0);
        }
        let arguments = Self::from_arg_matches(&matches)?;
        let missing = match (&arguments.cert, &arguments.key) {
            (Some(_), None) => "--key",
            (None, Some(_)) => "--cert",
            _ => return Ok(arguments),
        };
        bail!(
            "certificate and key go together, and {missing} is missing; as a flag, a variable or in the file of --config"
        )
    }

    /// Whether only who has a token may use the server. A proxy on the same computer makes everybody look as if they sat at
    /// it.
    pub fn asks_for_tokens(&self) -> bool {
        match self.access {
            AccessMode::Auto => self.is_public() || !self.names.is_empty() || self.tls == TlsMode::Off,
            AccessMode::Token => true,
            AccessMode::Open => false,
        }
    }

    /// How many jobs of one owner may wait.
    pub fn queue_of_one(&self) -> u16 {
        let is_shared = self.is_public() || self.redis.is_some() || self.asks_for_tokens();
        if is_shared { self.queue.div_ceil(2) } else { self.queue }
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        match self.tls {
            TlsMode::Auto => self.is_public() || self.cert.is_some(),
            TlsMode::On => true,
            TlsMode::Off => false,
        }
    }

    /// Whether others than this computer reach the server.
    pub fn is_public(&self) -> bool {
        !self.listen.ip().is_loopback()
    }

    /// What a browser calls a server that listens on `port`, by the first of the names that it was given.
    pub fn origin_by_name(&self, port: u16) -> Option<String> {
        let name = self.names.first()?;
        let name = if name.contains(':') { format!("[{name}]") } else { name.clone() };
        // Where it does not encrypt, or only this computer reaches it, a proxy does so on the usual port.
        let is_direct = self.is_public() && self.is_encrypted();
        Some(if is_direct { format!("https://{name}:{port}") } else { format!("https://{name}") })
    }
}

/// The same with a variable for each flag.
fn with_variables(command: Command) -> Command {
    command.mut_args(|argument| match argument.get_long() {
        Some(long) => {
            let name = format!("{VARIABLE}_{}", long.replace('-', "_").to_uppercase());
            argument.env(name).hide_env(true)
        }
        None => argument,
    })
}

/// The same with a file's values as what is usual.
fn with_file(command: Command, path: &Path) -> anyhow::Result<Command> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let mut said = HashMap::new();
    for (key, value) in text.parse::<toml::Table>().with_context(|| format!("{name} is no TOML"))? {
        let is_it = |flag: &&clap::Arg| {
            flag.get_long() == Some(key.as_str()) && !["config", "print_config"].contains(&flag.get_id().as_str())
        };
        let Some(id) = command.get_arguments().find(is_it).map(|flag| flag.get_id().clone()) else {
            bail!("{name}: there is no setting `{key}`; they are called as the flags in --help");
        };
        let values = match value {
            toml::Value::Array(values) => values,
            toml::Value::Table(_) => bail!("{name}: `{key}` has one value, or several in brackets"),
            value => vec![value],
        };
        let text = |value: toml::Value| if let toml::Value::String(text) = value { text } else { value.to_string() };
        said.insert(id, values.into_iter().map(text).collect::<Vec<_>>());
    }
    // All of them at once: each change of a single flag would move it behind the others.
    Ok(command.mut_args(|flag| match said.remove(flag.get_id()) {
        Some(values) => flag.required(false).default_values(values),
        None => flag,
    }))
}

/// The values as a file has them.
fn as_file(command: &Command, matches: &ArgMatches) -> anyhow::Result<String> {
    let mut text = String::new();
    for flag in command.get_arguments() {
        let (Some(long), id) = (flag.get_long(), flag.get_id().as_str()) else { continue };
        if ["config", "print_config", "help", "version"].contains(&id) {
            continue;
        }
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let values: Vec<_> = values.map(|value| toml::Value::String(value.to_string_lossy().into_owned())).collect();
        let value = match flag.get_action() {
            clap::ArgAction::Append => toml::Value::Array(values),
            _ => values.into_iter().next().context("a value")?,
        };
        text += &format!("{long} = {value}\n");
    }
    Ok(text)
}

/// A file in the folder of this program's data.
pub fn in_data(name: &str) -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "kosmosg").map(|dirs| dirs.data_local_dir().join(name))
}

impl DeviceName {
    /// Opens it.
    ///
    /// # Errors
    /// There is no such device, or this program cannot use it.
    pub fn open(self, precision: Precision) -> anyhow::Result<CandleDevice> {
        match self {
            DeviceName::Cpu => Ok(CandleDevice::cpu()),
            DeviceName::Cuda(index) => {
                let device = CandleDevice::cuda(index)
                    .context("--device cuda needs an NVIDIA GPU and a server that `cargo xtask cuda` built")?;
                Ok(if precision == Precision::Auto { device.in_f16() } else { device })
            }
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
