//! Many clients on one server: `cargo xtask bench --load`.

use std::time::Duration;

use anyhow::{Context, ensure};
use kosmosg_tests::load::{quantile, run};
use kosmosg_tests::server::Server;

const CLIENTS: usize = 200;
/// Whose they are.
const OWNERS: usize = 20;
const TIME: Duration = Duration::from_mins(5);
/// Seconds in which `/health` is to answer nearly always.
const HEALTH: f64 = 0.05;
/// By how many bytes the server's memory may grow: the results that it keeps, and no more with time.
const GROWTH: u64 = 256 << 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("jobs.sqlite");
    let file = folder.path().join("tokens.json");
    let file = file.to_str().context("a plain path")?;
    let tokens: Vec<_> = (0..OWNERS).map(|owner| token(file, &format!("owner {owner}"))).collect::<Result<_, _>>()?;
    let known = ["--access", "token", "--tokens", file, "--rate", "1000000"];
    let server = Server::with(&[&["--store", &store.to_string_lossy()], &known[..]].concat()).await;
    let report = run(&server, CLIENTS, TIME, &tokens).await;

    println!("| {CLIENTS} clients of {OWNERS} owners, {} minutes | |\n|---|--:|", TIME.as_secs() / 60);
    for (name, count) in [
        ("jobs taken", report.taken),
        ("done", report.done),
        ("cancelled by their clients", report.cancelled),
        ("failed", report.failed.len()),
        ("lost", report.lost),
        ("done twice", report.doubled),
        ("told to come again later", report.refused),
    ] {
        println!("| {name} | {count} |");
    }
    for (steps, seconds) in &report.seconds {
        let [median, late] = [0.5, 0.95].map(|share| quantile(seconds, share));
        println!("| {steps} steps: median, 95 % | {median:.1} s, {late:.1} s |");
    }
    let by_client: Vec<f64> = report.by_client.iter().map(|&count| count as f64).collect();
    let [fewest, median, most] = [0.0, 0.5, 1.0].map(|share| quantile(&by_client, share));
    println!("| pictures of a client: fewest, median, most | {fewest}, {median}, {most} |");
    let [median, late] = [0.5, 0.99].map(|share| 1e3 * quantile(&report.health, share));
    println!("| `/health`: median, 99 % | {median:.1} ms, {late:.1} ms |");
    let [before, after] = report.memory.map(|bytes| bytes as f64 / 1e6);
    println!("| memory: after the first picture, at the end | {before:.0} MB, {after:.0} MB |");
    ensure!(report.failed.is_empty(), "{:?}", report.failed);
    ensure!(report.lost == 0 && report.doubled == 0, "jobs were lost or doubled");
    ensure!(quantile(&report.health, 0.99) <= HEALTH, "/health took longer than {HEALTH} s");
    let [before, after] = report.memory;
    ensure!(after <= before + GROWTH, "the memory grew from {before} to {after} bytes");
    Ok(())
}

/// Has the program make a token.
fn token(file: &str, name: &str) -> anyhow::Result<String> {
    let output = Server::command().args(["token", "add", name, "--tokens", file]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
