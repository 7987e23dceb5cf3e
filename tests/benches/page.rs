//! How quick and how light the page is for who uses it: `cargo xtask bench --page`.
//!
//! Every time is the median of several runs, each in a new browser. Other work on the machine disturbs all of it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kosmosg_tests::browser::Page;
use kosmosg_tests::server::Server;
use serde_json::Value;

/// Looks at the page as its makers recommend; npm fetches it.
const LIGHTHOUSE: &str = "lighthouse@12.8.2";
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a key is pressed while a picture is being made.
const KEYS: usize = 40;
/// Pictures between which the page's memory is compared.
const FEW_AND_MANY: [usize; 2] = [5, 50];

/// Takes down how long events take from the key to what is then seen, and tasks of the main thread that take 50 ms or more.
const OBSERVE: &str = "window.waits = []; window.tasks = [];
    const observe = (type, into, options) => new PerformanceObserver(list => into.push(
        ...list.getEntries().map(entry => entry.duration))).observe({ type, ...options });
    observe('event', window.waits, { durationThreshold: 16 });
    observe('longtask', window.tasks, {});";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // cargo adds an argument of its own, `--bench`.
    let runs = std::env::args().skip_while(|argument| argument != "--runs").nth(1);
    let runs: usize = runs.map_or(Ok(3), |runs| runs.parse()).context("--runs takes a number")?;
    ensure!(runs > 0, "--runs 0 measures nothing");
    let server = Server::start().await;
    let address = server.address("/?where=cpu");
    let (mut usable, mut first) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let page = Page::launch().await;
        let begin = Instant::now();
        page.visit(&address).await;
        usable.push(begin.elapsed().as_secs_f64());
        page.wait_for("#examples button").await;
        page.click("#examples button").await;
        page.wait_for_pictures(1).await;
        page.click("#generate").await;
        page.wait_for_state("done", PATIENCE).await;
        first.push(begin.elapsed().as_secs_f64());
        page.close().await;
    }
    let mut table = Table::begin();
    let (usable, first) = (median(&mut usable), median(&mut first));
    table.row("the page takes input after", &format!("{usable:.2} s"), "1.5 s", usable <= 1.5);
    table.row("the first picture of a new browser", &format!("{first:.2} s"), "6 s", first <= 6.0);

    let page = Page::open(&address).await;
    page.wait_until_kept(PATIENCE).await;
    page.run(OBSERVE).await;
    page.write_sentence(1, 100).await;
    page.start().await;
    for _ in 0..KEYS {
        page.type_keys("#prompt", "a").await;
    }
    page.wait_for_state("done", PATIENCE).await;
    let mut waits = numbers(&page.run("return window.waits").await)?;
    let tasks = numbers(&page.run("return window.tasks").await)?;
    // Events that take less than 16 ms are not told.
    waits.resize(waits.len().max(KEYS * 3), 0.0);
    let wait = quantile(&mut waits, 0.75);
    table.row("a key while a picture is made, 75 of 100", &format!("{wait:.0} ms"), "50 ms", wait <= 50.0);
    table.row("tasks of 50 ms or more meanwhile", &tasks.len().to_string(), "0", tasks.is_empty());

    page.set_steps(5).await;
    let mut memory = Vec::new();
    for picture in 1..=FEW_AND_MANY[1] {
        // Without taking it out of the page, which would leave its own garbage behind.
        page.start().await;
        page.wait_for_state("done", PATIENCE).await;
        if FEW_AND_MANY.contains(&picture) {
            memory.push(page.memory().await);
        }
    }
    let ([few, many], growth) = (FEW_AND_MANY, (memory[1] / memory[0] - 1.0) * 100.0);
    let [before, after] = [memory[0], memory[1]].map(|bytes| bytes / 1e6);
    let measured = format!("{before:.1} to {after:.1} MB, {growth:+.0} %");
    table.row(&format!("memory after {many} pictures against {few}"), &measured, "20 %", growth <= 20.0);
    page.close().await;
    lighthouse(&server.address("/"), &mut table)?;
    ensure!(table.missed.is_empty(), "not as wanted: {}", table.missed.join("; "));
    Ok(())
}

/// What was measured, as it is printed.
struct Table {
    /// What is not as it is wanted.
    missed: Vec<String>,
}

impl Table {
    fn begin() -> Self {
        println!("| what | measured | wanted |");
        println!("|---|--:|--:|");
        Self { missed: Vec::new() }
    }

    fn row(&mut self, what: &str, measured: &str, wanted: &str, is_met: bool) {
        println!("| {what} | {measured} | {wanted} |");
        if !is_met {
            self.missed.push(format!("{what}: {measured}"));
        }
    }
}

fn lighthouse(address: &str, table: &mut Table) -> anyhow::Result<()> {
    let chromium = std::env::var("CHROME_PATH").unwrap_or("/usr/bin/chromium".into());
    let output = Command::new("npx")
        .args(["--yes", LIGHTHOUSE, address, "--quiet", "--output=json", "--preset=desktop"])
        .args(["--chrome-flags=--headless=new --no-sandbox"])
        .arg("--only-categories=performance,accessibility,best-practices")
        .env("CHROME_PATH", chromium)
        .output()
        .context("npx, which comes with Node, runs Lighthouse")?;
    ensure!(output.status.success(), "Lighthouse: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    for category in ["performance", "accessibility", "best-practices"] {
        let score = report["categories"][category]["score"].as_f64().context("Lighthouse tells no score")?;
        table.row(&format!("Lighthouse, {category}"), &format!("{:.0}", score * 100.0), "95", score >= 0.95);
    }
    Ok(())
}

fn numbers(values: &Value) -> anyhow::Result<Vec<f64>> {
    serde_json::from_value(values.clone()).context("numbers")
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
