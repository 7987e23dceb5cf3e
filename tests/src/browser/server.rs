//! A server of our own for each test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use super::dist;

/// One test at a time: each has a browser of its own, and several at once would starve each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// The built server with the built page; it stops when dropped.
pub struct Server {
    process: Child,
    port: u16,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Server {
    /// Starts it with the built-in model and waits until it listens.
    pub async fn start() -> Self {
        Self::of(&dist().join("../models")).await
    }

    /// Starts it with the models of a folder and waits until it listens.
    pub async fn of(models: &Path) -> Self {
        let turn = TURN.lock().await;
        let mut server = Self::launch(models, &[]).await;
        server._turn = Some(turn);
        server
    }

    /// Another one, with these arguments besides, while this one runs.
    pub async fn beside(&self, models: &Path, arguments: &[&str]) -> Self {
        Self::launch(models, arguments).await
    }

    async fn launch(models: &Path, arguments: &[&str]) -> Self {
        let dist = dist();
        let program = dist.join(format!("kosmosg-server{}", std::env::consts::EXE_SUFFIX));
        assert!(program.exists(), "`cargo xtask build` makes {}", program.display());
        let port = free_port();
        let process = Command::new(program)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--store", "memory"])
            .args(arguments)
            .arg("--models")
            .arg(models)
            .arg("--page")
            .arg(dist.join("page"))
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
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

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
