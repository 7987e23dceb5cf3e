//! A Redis of our own for a test.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::server::free_port;

/// Debian's `redis-server` on a port of its own; it stops when dropped.
pub struct Redis {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts an empty one, and waits until it listens.
    pub async fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let redis = Self { process: launch(port, &folder), port, folder };
        redis.listens().await;
        redis
    }

    /// Its address for `--redis`.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it; what it knows is kept.
    pub fn stop(&mut self) {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(killed.success());
        self.process.wait().unwrap();
    }

    /// Starts it again after it was stopped.
    pub async fn again(&mut self) {
        self.process = launch(self.port, &self.folder);
        self.listens().await;
    }

    async fn listens(&self) {
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("redis-server does not listen");
    }
}

fn launch(port: u16, folder: &tempfile::TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("these tests need redis-server: apt-get install redis-server")
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            self.process.wait().unwrap();
        }
    }
}
