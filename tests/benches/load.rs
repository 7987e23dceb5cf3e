//! Many clients on one server: `cargo xtask bench --load`.

use std::time::Duration;

use anyhow::ensure;
use kosmosg_tests::load::{quantile, run};
use kosmosg_tests::server::Server;

const CLIENTS: usize = 200;
const TIME: Duration = Duration::from_mins(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("jobs.sqlite");
    let server = Server::with(&["--store", &store.to_string_lossy(), "--rate", "1000000"]).await;
    let report = run(&server, CLIENTS, TIME).await;

    println!("| {CLIENTS} clients, {} minutes | |\n|---|--:|", TIME.as_secs() / 60);
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
    Ok(())
}
