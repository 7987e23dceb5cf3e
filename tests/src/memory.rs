//! How much memory processes have: Linux tells, other systems do not.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Watches the memory of some processes and their descendants.
#[derive(Debug)]
pub struct MemoryWatch {
    is_over: Arc<AtomicBool>,
    peak: JoinHandle<Option<u64>>,
}

impl MemoryWatch {
    /// Begins to watch.
    pub fn of(processes: &[u32]) -> Self {
        let processes = processes.to_vec();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let watch = move || {
            let mut peak = None;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(bytes_of(&processes));
                thread::sleep(Duration::from_millis(20));
            }
            peak
        };
        Self { is_over, peak: thread::spawn(watch) }
    }

    /// Most bytes that they had at once, as far as it was seen; memory that some share counts once.
    pub fn peak(self) -> Option<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.peak.join().ok()?
    }
}

/// Bytes of some processes and all their descendants; memory that some share counts once.
pub fn bytes_of(ancestors: &[u32]) -> Option<u64> {
    let entries = fs::read_dir("/proc").ok()?;
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let belongs =
        |&process: &u32| std::iter::successors(Some(process), |&child| parent(child)).any(|p| ancestors.contains(&p));
    // A process may end while it is looked at.
    let bytes = processes.filter(belongs).filter_map(|process| Some(1024 * number(process, "smaps_rollup", "Pss:")?));
    bytes.reduce(|sum, bytes| sum + bytes)
}

fn parent(process: u32) -> Option<u32> {
    number(process, "status", "PPid:")?.try_into().ok()
}

/// The number after `name` in a file about a process.
fn number(process: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
