//! The program's own arguments: what comes before what, and the file that it prints.

use std::process::{Command, Output};

use tempfile::TempDir;
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
fn certificate_and_key_go_together_wherever_they_are_said() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kosmosg-server")).env_clear().args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
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
