//! The program's own arguments: what comes before what, and the file that it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;

use kosmosg_server::access::{Role, Tokens};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};
use toml::Table;

/// Runs the program with these arguments and variables and no others, and has it print its configuration.
fn print_config(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kosmosg-server"));
    command.env_clear().envs(variables.iter().copied()).args(arguments).arg("--print-config").output().unwrap()
}

/// What it printed.
fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = print_config(arguments, variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A file of values, in a folder that lives as long.
fn file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// Runs the program with these arguments and no variables.
fn run(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kosmosg-server")).env_clear().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The program, as it runs with the built-in model and these arguments, and a folder for its data; it ends with it.
struct Running {
    process: Child,
    /// What it shows, and what of that was read.
    output: BufReader<ChildStdout>,
    shown: String,
    folder: TempDir,
    port: u16,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kosmosg-server"));
        command.env_clear().env("XDG_DATA_HOME", folder.path()).env("HOME", folder.path());
        command.args(["--models", &tiny(), "--store", "memory"]).args(arguments);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let (mut output, mut shown) = (BufReader::new(process.stdout.take().unwrap()), String::new());
        // Beside addresses of names, there is always one of the computer's own.
        let port = loop {
            assert!(output.read_line(&mut shown).unwrap() > 0, "it has ended");
            let last = shown.trim_end().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            if let Some(port) = last {
                break port;
            }
        };
        Self { process, output, shown, folder, port }
    }

    /// Ends it. Returns what it showed and what it logged.
    fn end(mut self) -> String {
        self.process.kill().unwrap();
        self.output.read_to_string(&mut self.shown).unwrap();
        std::mem::take(&mut self.shown) + &std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// What it answers to a question for what only who may use it hears.
    fn answer(stream: &mut (impl Read + Write), headers: &str) -> String {
        let request = format!("GET /api/v1/bundles HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The built-in model.
fn tiny() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny").to_str().unwrap().to_owned()
}

#[test]
fn flags_come_before_variables_before_the_file_before_what_is_usual() {
    let (_folder, path) = file("models = 'm'\nkeep = 1\nqueue = 1\nkeep-hours = 1\nname = ['a.test', 'b.test']");
    let variables = [("KOSMOSG_CONFIG", path.as_str()), ("KOSMOSG_QUEUE", "2"), ("KOSMOSG_KEEP_HOURS", "2")];
    let values: Table = printed(&["--keep-hours", "3"], &variables).parse().unwrap();
    for (name, value) in [("keep-hours", "3"), ("queue", "2"), ("keep", "1"), ("rate", "120"), ("models", "m")] {
        assert_eq!(values[name].as_str(), Some(value), "{name}");
    }
    assert_eq!(values["name"], toml::Value::from(vec!["a.test", "b.test"]));
    // Several values take the place of all that the file has.
    let values: Table = printed(&["--name", "c.test"], &variables).parse().unwrap();
    assert_eq!(values["name"], toml::Value::from(vec!["c.test"]));
}

#[test]
fn the_printed_file_says_the_same() {
    let given = [
        ["--models", "C:\\my \"models\" ≠ 'yours'\n#"],
        ["--listen", "[::1]:0"],
        ["--device", "cuda:1"],
        ["--together", "1"],
        ["--store", "memory"],
        ["--access", "token"],
        ["--tls", "on"],
        ["--cert", "chain.pem"],
        ["--key", "key.pem"],
        ["--name", "a.test"],
        ["--name", "b.test"],
        ["--allow-origin", "https://example.org"],
    ];
    for arguments in [&given.concat()[..], &["--models", "m"]] {
        let text = printed(arguments, &[]);
        let (_folder, path) = file(&text);
        assert_eq!(printed(&["--config", &path], &[]), text);
    }
}

#[test]
fn a_setting_that_does_not_exist_is_named() {
    for key in ["lisen", "config", "print-config", "help"] {
        let (_folder, path) = file(&format!("models = 'm'\n{key} = '127.0.0.1:80'"));
        let output = print_config(&["--config", &path], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{key}");
        assert!(said.contains(&format!("{path}: there is no setting `{key}`")), "{said}");
    }
}

#[test]
fn help_is_there_by_all_its_names() {
    let (_, help, _) = run(&["--help"]);
    assert!(help.contains("How many jobs and other POST requests a minute"), "{help}");
    for arguments in
        [&["help"][..], &["help", "token"], &["token", "help"], &["token", "help", "add"], &["help", "pair"]]
    {
        let (is_good, said, complaint) = run(arguments);
        assert!(
            is_good && said.contains("Usage: kosmosg-server") && complaint.is_empty(),
            "{arguments:?}: {complaint}"
        );
    }
}

#[test]
fn names_are_checked_wherever_they_are_said() {
    let (_folder, path) = file("models = 'm'\nname = 'https://box.local'");
    let outputs = [
        print_config(&["--models", "m", "--name", "https://box.local"], &[]),
        print_config(&["--models", "m"], &[("KOSMOSG_NAME", "https://box.local")]),
        print_config(&["--config", &path], &[]),
    ];
    for output in outputs {
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("\"https://box.local\" is no name of a computer"), "{said}");
    }
}

#[test]
fn what_cannot_start_says_why_before_it_says_where() {
    let models = tiny();
    let usual = ["--models", &models, "--store", "memory", "--access", "open"];
    let (_folder, path) = file("this is no PEM");
    let (_, said, complaint) =
        run(&[&usual[..], &["--listen", "127.0.0.1:0", "--cert", &path, "--key", &path]].concat());
    assert_eq!(said, "");
    assert!(complaint.contains(&format!("{path} has no certificate")), "{complaint}");
    // An address for examples, which no computer has.
    let (_, said, complaint) = run(&[&usual[..], &["--listen", "192.0.2.1:8080", "--tls", "off"]].concat());
    assert_eq!(said, "");
    assert!(complaint.contains("cannot listen on 192.0.2.1:8080: this computer has no such address"), "{complaint}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, _, complaint) = run(&[&usual[..], &["--listen", &taken.local_addr().unwrap().to_string()]].concat());
    assert!(complaint.contains("is another server running there?"), "{complaint}");
}

#[test]
fn others_need_a_token_and_an_encrypted_connection() {
    let running = Running::start(&["--listen", "0.0.0.0:0"]);
    let connect = || TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    // Without encryption it only says where to go.
    assert!(Running::answer(&mut connect(), "").starts_with("HTTP/1.1 307 "));
    let mut roots = RootCertStore::empty();
    let certificate = running.folder.path().join("kosmosg/tls/certificate.pem");
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let digits: Vec<_> = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = Arc::new(config.with_no_client_auth());
    let ask = |headers: &str| {
        let client = ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
        Running::answer(&mut StreamOwned::new(client, connect()), headers)
    };
    assert!(ask("").starts_with("HTTP/1.1 401 "));
    let mut tokens = Tokens::open(Some(&running.folder.path().join("kosmosg/tokens.json"))).unwrap();
    let token = tokens.add("laptop", Role::Use).unwrap();
    assert!(ask(&format!("authorization: Bearer {token}\r\n")).starts_with("HTTP/1.1 200 "));
    let said = running.end();
    assert!(said.contains("Nobody has a token yet.") && said.contains("/pair?code="), "{said}");
    assert!(said.contains(&format!("with fingerprint {}", digits.join(":"))), "{said}");
}

#[test]
fn who_is_behind_a_proxy_needs_a_token_too() {
    let (name, off) = (&["--name", "pictures.test"][..], &["--tls", "off"][..]);
    for (arguments, status) in [(&[][..], 200), (name, 401), (off, 401), (&[name, &["--access", "open"]].concat(), 200)]
    {
        let running = Running::start(&[&["--listen", "127.0.0.1:0"], arguments].concat());
        let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
        let answer = Running::answer(&mut stream, "");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{arguments:?}: {answer}");
        let said = running.end();
        // The name leads to the proxy, which has the usual port.
        assert_eq!(said.contains("https://pictures.test/pair?code="), arguments == name, "{arguments:?}: {said}");
    }
}

#[test]
fn what_changes_tokens_says_in_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    let path = path.to_str().unwrap();
    let token = |task: &[&str]| run(&[&["token"], task, &["--tokens", path]].concat());
    let (is_good, said, note) = token(&["list"]);
    assert!(is_good && said.is_empty() && note.contains(&format!("no tokens in {path}")), "{note}");
    let (_, said, note) = token(&["add", "laptop"]);
    assert!(said.trim().len() == 43 && note.contains(path), "{said}{note}");
    assert_eq!(token(&["list"]).1, "laptop (Use)\n");
    let (_, said, note) = token(&["remove", "laptop"]);
    assert!(said.is_empty() && note.contains(path), "{said}{note}");
}

#[test]
fn a_pairing_shows_the_address_of_the_server_that_runs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.json");
    let (_folder, path) = file(&format!("models = 'm'\nlisten = '{address}'\ntokens = {tokens:?}"));
    let (is_good, said, note) = run(&["pair", "--config", &path]);
    assert!(is_good && note.contains(tokens.to_str().unwrap()), "{note}");
    assert!(said.contains(&format!("\nhttp://{address}/pair?code=")) && said.contains('█'), "{said}");
    // The first device lets others in.
    assert!(note.contains("the device's role is Admin"), "{note}");
    run(&["token", "add", "laptop", "--config", &path]);
    for (arguments, role) in [(&[][..], "Use"), (&["--role", "admin"], "Admin")] {
        let (_, _, note) = run(&[&["pair", "--config", &path], arguments].concat());
        assert!(note.contains(&format!("the device's role is {role}")), "{note}");
    }
    drop(listener);
    let (is_good, said, note) = run(&["pair", "--config", &path]);
    assert!(is_good && said.starts_with("Open /pair at the server's address"), "{said}");
    assert!(note.contains(&format!("No server listens on {address}")), "{note}");
}

#[test]
fn certificate_and_key_go_together_wherever_they_are_said() {
    let run = |arguments: &[&str]| {
        let (is_good, _, complaint) = run(arguments);
        assert!(!is_good);
        complaint
    };
    let (_folder, chain) = file("models = 'm'\ncert = 'chain.pem'");
    let said = run(&["--config", &chain]);
    assert!(said.contains("certificate and key go together, and --key is missing"), "{said}");
    let (_folder, key) = file("models = 'm'\nkey = 'key.pem'");
    let said = run(&["--config", &key]);
    assert!(said.contains("--cert is missing"), "{said}");
    // There are no models; so far, all was right.
    let said = run(&["--config", &key, "--cert", "chain.pem"]);
    assert!(said.contains("there is no") || said.contains("No such file") || said.contains("cannot"), "{said}");
    assert!(!said.contains("missing"), "{said}");
}

#[test]
fn tokens_are_where_the_servers_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.json");
    let (_folder, path) =
        file(&format!("models = 'm'\nlisten = '0.0.0.0:80'\ntokens = {:?}", tokens.to_str().unwrap()));
    let output = Command::new(env!("CARGO_BIN_EXE_kosmosg-server"))
        .env_clear()
        .args(["token", "add", "laptop", "--config", &path])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read_to_string(tokens).unwrap().contains("laptop"));
}
