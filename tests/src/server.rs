//! The built server, one of our own for each test.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::models::built_in;

/// One test at a time: several servers and browsers at once would starve each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// The built server with the built page; it stops when dropped.
pub struct Server {
    process: Child,
    port: u16,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Server {
    /// Starts it with page and built-in model, and waits until it listens. Its jobs end with it.
    pub async fn start() -> Self {
        Self::of(&built_in()).await
    }

    /// The same with the models of a folder.
    pub async fn of(models: &Path) -> Self {
        let turn = TURN.lock().await;
        let mut server = Self::launch(Self::command(), free_port(), models, &IN_MEMORY).await;
        server._turn = Some(turn);
        server
    }

    /// The program itself.
    pub fn command() -> Command {
        Command::new(program())
    }

    /// Starts it with page and built-in model, and these arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        Self::by(Self::command(), arguments).await
    }

    /// The same with a disk that has no room for files of more than so many KiB.
    pub async fn with_disk_of(kib: usize, arguments: &[&str]) -> Self {
        let mut shell = Command::new("bash");
        // The signal would end it; without the signal, writing fails as on a full disk.
        shell.args(["-c", &format!("ulimit -f {kib}; trap '' XFSZ; exec \"$@\""), "bash"]).arg(program());
        Self::by(shell, arguments).await
    }

    async fn by(command: Command, arguments: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let mut server = Self::launch(command, free_port(), &built_in(), arguments).await;
        server._turn = Some(turn);
        server
    }

    /// Another one, with these arguments besides, while this one runs.
    pub async fn beside(&self, models: &Path, arguments: &[&str]) -> Self {
        Self::launch(Self::command(), free_port(), models, &[&IN_MEMORY, arguments].concat()).await
    }

    /// Asks it to end, and waits until it has.
    pub fn end(mut self) {
        let asked = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(asked.success());
        self.process.wait().unwrap();
    }

    /// Kills it and starts another in its place, on the same port, with these arguments.
    pub async fn again(mut self, arguments: &[&str]) -> Self {
        self.stop();
        let turn = self._turn.take();
        let mut server = Self::launch(Self::command(), self.port, &built_in(), arguments).await;
        server._turn = turn;
        server
    }

    async fn launch(mut command: Command, port: u16, models: &Path, arguments: &[&str]) -> Self {
        command.args(["--listen", &format!("127.0.0.1:{port}")]).args(arguments).arg("--models").arg(models);
        if !arguments.contains(&"--page") {
            command.arg("--page").arg(crate::browser::dist().join("page"));
        }
        let process = command.env("RUST_LOG", "warn").stdout(Stdio::null()).spawn().unwrap();
        let server = Self { process, port, _turn: None };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not listen");
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a path on it.
    pub fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Kills it: no request is answered any more.
    pub fn stop(&mut self) {
        // It may have ended already.
        if self.process.kill().is_ok() {
            self.process.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

const IN_MEMORY: [&str; 2] = ["--store", "memory"];

fn program() -> PathBuf {
    let program = crate::browser::dist().join(format!("kosmosg-server{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "`cargo xtask build` makes {}", program.display());
    program
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
