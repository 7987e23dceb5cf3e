//! The command `kosmosg-server`.

use std::io::{IsTerminal, stderr};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
#[cfg(unix)]
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use kosmosg::engine::Engine;
use kosmosg::engine::candle::Candle;
use kosmosg_server::access::{Access, Role, Tokens};
use kosmosg_server::app::{App, Bounds, EngineName};
use kosmosg_server::bundles::Bundles;
use kosmosg_server::desk::Desk;
use kosmosg_server::fleet::{Fleet, Hand};
use kosmosg_server::hosts::{Hosts, reached_by};
use kosmosg_server::inference::Inference;
use kosmosg_server::jobs::{Jobs, Limits};
use kosmosg_server::loras::Loras;
use kosmosg_server::pairing;
use kosmosg_server::serving::{GRACE, listen, serve};
use kosmosg_server::tls::{Certificate, TlsListener};
use kosmosg_server::worker::{Lost, Worker};
use tracing_subscriber::EnvFilter;

use arguments::{AccessMode, Arguments, MEMORY, Task, TokenTask, Work, in_data};

mod arguments;

/// How often late jobs are ended and old ones forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How long a server may take to answer that runs on this computer.
const HERE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    match &arguments.command {
        Some(Task::Token(task)) => tokens(task, &arguments.tokens),
        Some(Task::Pair { role }) => pair(&arguments, *role),
        None => run(arguments).await,
    }
}

fn tokens(task: &TokenTask, path: &Path) -> anyhow::Result<()> {
    let mut tokens = Tokens::open(Some(path))?;
    let file = path.display();
    match task {
        TokenTask::Add { name, role } => {
            println!("{}", tokens.add(name, *role)?);
            eprintln!("Its hash is in {file}. This is the only time that the token is shown.");
            eprintln!("Send it as `Authorization: Bearer TOKEN`.");
        }
        TokenTask::List if tokens.list().is_empty() => eprintln!("no tokens in {file}"),
        TokenTask::List => tokens.list().iter().for_each(|token| println!("{} ({:?})", token.name, token.role)),
        TokenTask::Remove { name } => {
            tokens.remove(name)?;
            eprintln!("It is no longer in {file}. A server that runs with this file ends its jobs.");
        }
    }
    Ok(())
}

/// Opens a pairing at the server that runs with these values.
fn pair(arguments: &Arguments, role: Option<Role>) -> anyhow::Result<()> {
    let mut tokens = Tokens::open(Some(&arguments.tokens))?;
    // The first can let others in.
    let role = role.unwrap_or(if tokens.list().is_empty() { Role::Admin } else { Role::Use });
    let code = tokens.pair(role)?;
    eprintln!("For the server whose tokens are in {}; the device's role is {role:?}.", arguments.tokens.display());
    let (listen, is_encrypted) = (arguments.listen, arguments.is_encrypted());
    let mut addresses = reached_by(listen.ip()).into_iter().map(|ip| SocketAddr::new(ip, listen.port()));
    match addresses.find(|address| TcpStream::connect_timeout(address, HERE).is_ok()) {
        Some(address) => {
            let by_name = arguments.origin_by_name(listen.port());
            show_pairing("", &by_name.unwrap_or_else(|| origin(address, is_encrypted)), &code);
        }
        None => {
            println!("Open /pair at the server's address on the new device within ten minutes, and enter {code}");
            eprintln!(
                "No server listens on {listen}; with --config FILE of the server this would be the whole address."
            );
        }
    }
    Ok(())
}

/// Shows an address that pairs a device.
fn show_pairing(why: &str, origin: &str, code: &str) {
    let link = pairing::address(origin, code);
    println!("{why}Open this address on the device within ten minutes:\n{link}");
    if let Some(picture) = pairing::qr_code(&link) {
        println!("{picture}");
    }
}

/// What a browser calls a server at that address.
fn origin(address: SocketAddr, is_encrypted: bool) -> String {
    format!("{}://{address}", if is_encrypted { "https" } else { "http" })
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(page) = arguments.page.as_ref().filter(|page| !page.join("index.html").is_file()) {
        bail!("{} has no index.html; build the page with `cargo xtask build`", page.display());
    }
    let models = arguments.models.as_ref().context("--models is missing")?;
    let mut bundles = Bundles::open(models)?;
    if let Some(dir) = &arguments.loras {
        let loras = Loras::open(dir).with_context(|| format!("the folder of LoRAs {}", dir.display()))?;
        bundles = bundles.with_loras(loras);
    }
    let bundles = Arc::new(bundles);
    let device = arguments.device.open(arguments.precision)?;
    let limits = Limits {
        waiting: arguments.queue.into(),
        waiting_of_one: arguments.queue_of_one().into(),
        finished: arguments.keep as usize,
        keep_for: Duration::from_hours(arguments.keep_hours.into()),
        deadline: Duration::from_mins(arguments.deadline.into()),
    };
    let is_closed = arguments.asks_for_tokens();
    let access = Arc::new(match arguments.access {
        _ if is_closed => Access::with_tokens(Tokens::open(Some(&arguments.tokens))?, arguments.rate),
        AccessMode::Auto => Access::here(arguments.rate),
        _ => Access::open(arguments.rate),
    });
    let hosts = Hosts::with(&arguments.names);
    let certificate = certificate(&arguments, &hosts)?;
    let acceptor = certificate.as_ref().map(Certificate::acceptor).transpose()?;

    // The port comes before the worker: most often it is what fails.
    let listener = listen(arguments.listen).await?;
    let address = listener.local_addr()?;
    let jobs = match &arguments.redis {
        Some(address) => {
            let fleet = Fleet::join(address, limits).await.context("jobs cannot be shared through --redis")?;
            Desk::Fleet(Arc::new(fleet))
        }
        None => {
            let jobs = open_jobs(limits, &arguments.store)?;
            match jobs.take_up(&bundles).await? {
                0 => {}
                count => tracing::info!("going on with {count} jobs of an earlier server"),
            }
            Desk::Own(Arc::new(jobs))
        }
    };
    let together = arguments.together.into();
    let worker = match arguments.work {
        Work::Here => Some(Worker::start(Arc::clone(jobs.own()), together, move || Inference::<Candle>::new(device))?),
        Work::Elsewhere if arguments.redis.is_some() => None,
        Work::Elsewhere => bail!("--work elsewhere needs others to work, which --redis leads to"),
    };
    let hand = match &jobs {
        Desk::Fleet(fleet) => {
            let follower = Arc::clone(fleet);
            tokio::spawn(async move { follower.follow().await });
            let hand = Hand::new(Arc::clone(fleet), Arc::clone(&bundles), together);
            worker.is_some().then_some(hand)
        }
        Desk::Own(_) => None,
    };
    if let Some(hand) = &hand {
        tokio::spawn(Arc::clone(hand).work());
    }
    for bundle in bundles.entries() {
        tracing::info!(id = bundle.id, bytes = bundle.bytes, "model: {}", bundle.name);
    }

    let is_encrypted = certificate.is_some();
    let addresses = reached_by(address.ip()).into_iter().map(|ip| SocketAddr::new(ip, address.port()));
    // A name leads here also from where this computer's own addresses mean nothing, as those of a container.
    let by_name = arguments.origin_by_name(address.port());
    let is_reached = arguments.is_public() || by_name.is_some();
    let origins: Vec<_> = by_name.into_iter().chain(addresses.map(|address| origin(address, is_encrypted))).collect();
    println!("{}", origins.join("\n"));
    let reached_at = origins.first().filter(|_| is_reached).cloned();
    let device = match arguments.work {
        Work::Here => arguments.device.to_string(),
        Work::Elsewhere => "other computers".into(),
    };
    tracing::info!("listening on {}, computing on {device}", origin(address, is_encrypted));
    if let Some(certificate) = &certificate {
        tracing::info!("certificate {} with fingerprint {}", certificate.chain.display(), certificate.fingerprint()?);
    }
    if arguments.is_public() && !is_closed {
        tracing::warn!("everybody who reaches {address} may use this server");
    }
    let has_nobody = is_closed && access.tokens().list().is_empty();
    if let Some(origin) = origins.first().filter(|_| has_nobody) {
        let code = access.tokens().pair(Role::Admin)?;
        show_pairing("Nobody has a token yet. ", origin, &code);
    }

    let tidying = tokio::spawn({
        let (jobs, access) = (jobs.clone(), Arc::clone(&access));
        async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                jobs.tidy(TIDY_EVERY).await;
                access.dismiss_removed(&jobs).await;
                access.tidy();
            }
        }
    });
    let app = App {
        jobs: jobs.clone(),
        bundles,
        engine: EngineName { engine: Candle::NAME.to_owned(), device },
        page: arguments.page,
        allowed_origins: arguments.allowed_origins,
        bounds: Bounds::default(),
        access,
        hosts,
        is_encrypted,
        reached_at,
    };
    let loss = worker.as_ref().map(Worker::loss);
    let end = async {
        let loss = async { if let Some(loss) = loss { loss.await } else { std::future::pending().await } };
        tokio::select! {
            () = interrupted() => {}
            () = loss => {}
        }
        tracing::info!("stopping");
    };
    match acceptor {
        Some(acceptor) => serve(TlsListener::new(listener, acceptor), app, end).await,
        None => serve(listener, app, end).await,
    }
    tidying.abort();
    if let Some(hand) = hand {
        hand.rest(GRACE).await;
    }
    if worker.as_ref().is_some_and(|worker| !worker.ends_within(GRACE)) {
        tracing::warn!("the step that is being computed takes long; leaving it");
    }
    jobs.settle().await?;
    match worker.and_then(|worker| worker.lost()) {
        Some(Lost::InWork) => start_again(),
        Some(Lost::AtOnce) => {
            bail!("the device cannot be used; does the driver's own program, such as nvidia-smi, see it?")
        }
        Some(Lost::Thread) => bail!("what computes ended by a bug, which the log shows above; start the server again"),
        None => Ok(()),
    }
}

/// Puts the same program in this one's place: only a process that begins anew gets a lost GPU back.
#[cfg(unix)]
fn start_again() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    tracing::info!("starting again");
    let mut program = Command::new(std::env::current_exe()?);
    Err(program.args(std::env::args_os().skip(1)).exec())
        .context("the device was lost, and the server cannot start again")
}

/// Leaves it to whoever started this program: only a process that begins anew gets a lost GPU back.
#[cfg(not(unix))]
fn start_again() -> anyhow::Result<()> {
    bail!("the device was lost; start the server again")
}

/// The certificate to encrypt connections with, if they are to be.
fn certificate(arguments: &Arguments, hosts: &Hosts) -> anyhow::Result<Option<Certificate>> {
    if !arguments.is_encrypted() {
        return Ok(None);
    }
    if let (Some(chain), Some(key)) = (&arguments.cert, &arguments.key) {
        return Ok(Some(Certificate { chain: chain.clone(), key: key.clone() }));
    }
    let folder = in_data("tls").context("this computer has no folder for programs' data; give --cert and --key")?;
    Ok(Some(Certificate::own(&folder, &hosts.for_certificate(), &arguments.names)?))
}

/// Opens the file of jobs.
fn open_jobs(limits: Limits, store: &Path) -> anyhow::Result<Jobs> {
    let path = (store != Path::new(MEMORY)).then_some(store);
    if let Some(folder) = path.and_then(Path::parent) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    Jobs::open(limits, path).with_context(|| format!("jobs cannot be kept in {}", store.display()))
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
}
