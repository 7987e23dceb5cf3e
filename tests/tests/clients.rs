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

/// Runs a program with Python's clients on a server that asks for a token; `arguments` come from its address and the token.
async fn works(program: &str, arguments: impl FnOnce(&Server, &str) -> Vec<String>) {
    let program = python().await.with_file_name(program);
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.json");
    let tokens = tokens.to_str().unwrap();
    let token =
        Server::command().args(["token", "add", "test", "--role", "admin", "--tokens", tokens]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let server = Server::with(&["--store", "memory", "--access", "token", "--tokens", tokens]).await;
    let mut command = Command::new(program);
    // What a program leaves behind goes with the folder.
    command.current_dir(&folder).args(arguments(&server, token.trim()));
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_own_client() {
    works("python", |server, token| vec![script("openai_images.py"), server.address("/v1"), token.into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_automatic1111() {
    works("python", |server, token| vec![script("a1111.py"), server.address(""), token.into()]).await;
}

/// Whatever the document allows, and much that it does not, gets an answer that the document foresees.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_kept() {
    works("schemathesis", |server, token| {
        let authorization = format!("Authorization: Bearer {token}");
        // What a schema cannot say, such as which models there are, may be refused.
        let checks = ["--exclude-checks", "positive_data_acceptance"];
        let arguments = ["run", "--header", &authorization, "--max-examples", "20", "--seed", "1", "--no-color"];
        arguments.into_iter().chain(checks).map(str::to_owned).chain([server.address("/api/openapi.json")]).collect()
    })
    .await;
}
