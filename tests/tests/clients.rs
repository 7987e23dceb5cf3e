//! Clients that people have already, in Python, against the built server.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use kosmosg_tests::server::Server;
use tokio::sync::OnceCell;

/// The Python that has the clients.
async fn python() -> &'static Path {
    static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
    PYTHON
        .get_or_init(async || {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
            let python = folder.join("bin/python");
            if !python.exists() {
                run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            }
            let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/requirements.txt");
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements));
            python
        })
        .await
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}; Python 3 with venv is needed"));
    assert!(status.success(), "{command:?}");
}

/// Runs a client with the server's address, to which `path` is added, and a token.
async fn client_works(script: &str, path: &str) {
    let python = python().await;
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.json");
    let tokens = tokens.to_str().unwrap();
    let token = Server::command().args(["token", "add", "test", "--tokens", tokens]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let server = Server::with(&["--store", "memory", "--access", "token", "--tokens", tokens]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let address = server.address(path);
    let mut command = Command::new(python);
    command.arg(script).arg(address).arg(token.trim());
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_own_client() {
    client_works("openai_images.py", "/v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_automatic1111() {
    client_works("a1111.py", "").await;
}
