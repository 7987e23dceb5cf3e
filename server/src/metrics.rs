//! Numbers about the server, for Prometheus.

use std::time::Duration;

use kosmosg::protocol::JobEvent;
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What `GET /metrics` answers with.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The numbers.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ended: Family<Ended, Counter>,
    waiting: Gauge,
    running: Gauge,
    memory: Gauge,
    wait: Histogram,
    step: Histogram,
    together: Histogram,
    job: Histogram,
}

/// How jobs ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("kosmosg");
        let ended = Family::default();
        registry.register("jobs", "Jobs that have ended", ended.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let waiting = gauge("jobs_waiting", "Jobs in the queue, which is the same for all servers that share a Redis");
        let running = gauge("jobs_running", "Jobs that this server computes");
        let memory = gauge("memory_bytes", "Memory of the server that is in use");
        let mut histogram = |name: &str, help: &str, from: f64, buckets: u16| {
            let histogram = Histogram::new(exponential_buckets(from, 2.0, buckets));
            registry.register(name, help, histogram.clone());
            histogram
        };
        let wait = histogram("wait_seconds", "From a job's coming to its first step", 0.05, 16);
        let step = histogram("step_seconds", "One step of the jobs that take it together", 0.005, 14);
        let together = histogram("step_jobs", "Jobs that take a step together", 1.0, 7);
        let job = histogram("job_seconds", "From a job's first step to its picture", 0.05, 16);
        Self { registry, ended, waiting, running, memory, wait, step, together, job }
    }
}

impl Metrics {
    /// A job began after waiting.
    pub fn began(&self, waited: Duration) {
        self.wait.observe(waited.as_secs_f64());
    }

    /// So many jobs took a step together.
    pub fn stepped(&self, seconds: f64, jobs: usize) {
        self.step.observe(seconds);
        self.together.observe(jobs as f64);
    }

    /// A job ended with that event.
    pub fn ended(&self, event: &JobEvent) {
        let outcome = match event {
            JobEvent::Done { seconds } => {
                self.job.observe(*seconds);
                "done"
            }
            JobEvent::Cancelled => "cancelled",
            _ => "failed",
        };
        self.ended.get_or_create(&Ended { outcome }).inc();
    }

    /// All of it in Prometheus' text form.
    ///
    /// # Errors
    /// Never, as long as there is memory.
    pub fn encode(&self, waiting: usize, running: usize) -> Result<String, std::fmt::Error> {
        self.waiting.set(waiting as i64);
        self.running.set(running as i64);
        self.memory.set(memory_bytes().unwrap_or(0) as i64);
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Bytes of this process that are in memory; Linux tells.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.split_whitespace().next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_number() {
        let metrics = Metrics::default();
        metrics.began(Duration::from_millis(70));
        metrics.stepped(0.02, 3);
        metrics.ended(&JobEvent::Done { seconds: 2.0 });
        metrics.ended(&JobEvent::Cancelled);
        let text = metrics.encode(4, 2).unwrap();
        for line in [
            "kosmosg_jobs_waiting 4",
            "kosmosg_jobs_running 2",
            "kosmosg_jobs_total{outcome=\"done\"} 1",
            "kosmosg_jobs_total{outcome=\"cancelled\"} 1",
            "kosmosg_wait_seconds_count 1",
            "kosmosg_step_jobs_sum 3.0",
            "kosmosg_job_seconds_sum 2.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
