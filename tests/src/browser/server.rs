//! A server of our own for each test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// One test at a time: each has a browser of its own, and several at once would starve each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// The built server with the built page; it stops when dropped.
pub struct Server {
    process: Child,
    port: u16,
    _turn: MutexGuard<'static, ()>,
}

impl Server {
    pub async fn start() -> Self {
        let dist = root().join("dist");
        let program = dist.join(format!("kosmosg-server{}", std::env::consts::EXE_SUFFIX));
        assert!(program.exists(), "`cargo xtask build` makes {}", program.display());
        let turn = TURN.lock().await;
        let port = free_port();
        let process = Command::new(program)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--models")
            .arg(root().join("models"))
            .arg("--page")
            .arg(dist.join("page"))
            .spawn()
            .unwrap();
        let server = Self { process, port, _turn: turn };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not listen");
    }

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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
