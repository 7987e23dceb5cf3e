//! Where a stage stands, on disk: a process that is killed loses at most what came after its last checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kosmosg::digest::sha256;
use kosmosg::weights::{HostTensor, gguf};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::loss_scale::LossScale;

/// Where a stage stands.
pub(super) struct Checkpoint {
    /// What is not a tensor.
    pub progress: Progress,
    /// The trained parameters.
    pub weights: BTreeMap<String, HostTensor>,
    /// The optimizer's.
    pub optimizer: BTreeMap<String, HostTensor>,
}

/// Where a stage stands, without its tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Batches drawn so far: the data's position.
    pub step: u64,
    /// Updates made; fewer than `step` by what was skipped.
    pub updates: u64,
    /// Time spent, in seconds.
    pub seconds: f64,
    /// What the loss is scaled with.
    #[serde(default)]
    pub loss_scale: LossScale,
    /// What the stage began with, which must be the same to go on.
    pub fingerprint: Value,
}

impl Progress {
    /// That of the newest checkpoint in `dir`, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn newest(dir: &Path) -> anyhow::Result<Option<Self>> {
        all(dir)?.pop().map(|path| Self::read(&path)).transpose()
    }

    fn read(checkpoint: &Path) -> anyhow::Result<Self> {
        let json = fs::read(checkpoint.join("progress.json")).with_context(|| in_dir("read", checkpoint))?;
        serde_json::from_slice(&json).with_context(|| in_dir("read", checkpoint))
    }

    /// Where what a stage would begin with `now` differs from what it began with.
    pub fn difference(&self, now: &Value) -> Option<String> {
        difference(now, &self.fingerprint)
    }
}

/// The path to the first value of `now` that is another one in `then`; what `now` does not have may be anything.
pub(super) fn difference(now: &Value, then: &Value) -> Option<String> {
    let Value::Object(entries) = now else { return (now != then).then(String::new) };
    entries.iter().find_map(|(key, value)| {
        let path = difference(value, &then[key])?;
        Some(if path.is_empty() { key.clone() } else { format!("{key}.{path}") })
    })
}

impl Checkpoint {
    /// Weights to begin with, before the first step.
    pub fn start(basis: Value, weights: BTreeMap<String, HostTensor>) -> Self {
        let progress = Progress { fingerprint: basis, ..Progress::default() };
        Self { progress, weights, optimizer: BTreeMap::new() }
    }

    /// Whether there was a step: otherwise it only says what to [begin](Self::start) with.
    pub fn is_underway(&self) -> bool {
        self.progress.step > 0
    }

    /// The newest checkpoint in `dir`, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn newest(dir: &Path) -> anyhow::Result<Option<Self>> {
        let Some(path) = all(dir)?.pop() else { return Ok(None) };
        Ok(Some(Self {
            progress: Progress::read(&path)?,
            weights: read_tensors(&path.join("weights.gguf"))?,
            optimizer: read_tensors(&path.join("optimizer.gguf"))?,
        }))
    }

    /// Writes it to `dir` and removes older ones.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(format!("{PREFIX}{:09}", self.progress.step));
        let unfinished = dir.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| in_dir("clear", &unfinished))?;
        }
        fs::create_dir_all(&unfinished).with_context(|| in_dir("create", &unfinished))?;
        let progress = serde_json::to_vec_pretty(&self.progress)?;
        let files = [
            ("progress.json", progress),
            ("weights.gguf", gguf::write(&self.weights)),
            ("optimizer.gguf", gguf::write(&self.optimizer)),
        ];
        for (name, bytes) in files {
            fs::write(unfinished.join(name), bytes).with_context(|| in_dir("write", &unfinished))?;
        }
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| in_dir("replace", &path))?;
        }
        fs::rename(&unfinished, &path).with_context(|| in_dir("write", &path))?;
        for older in all(dir)?.into_iter().filter(|other| *other != path) {
            fs::remove_dir_all(&older).with_context(|| in_dir("remove", &older))?;
        }
        Ok(())
    }
}

/// Reads a GGUF file.
///
/// # Errors
/// A file that is missing or damaged, with its path.
pub(super) fn read_tensors(path: &Path) -> anyhow::Result<BTreeMap<String, HostTensor>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(gguf::read(&path.display().to_string(), &bytes)?)
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// A file that is missing, with its path.
pub(super) fn file_hash(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sha256(&bytes))
}

/// Writes a file so that it is always there as a whole.
///
/// # Errors
/// A file that cannot be written, with its path.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

const PREFIX: &str = "checkpoint-";

/// The finished checkpoints in a folder, the newest last.
fn all(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).with_context(|| in_dir("read", dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.with_context(|| in_dir("read", dir))?;
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)));
    paths.sort();
    Ok(paths)
}

fn in_dir(what: &str, path: &Path) -> String {
    format!("cannot {what} checkpoint {}", path.display())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensors = |x: f32| BTreeMap::from([("a".to_owned(), HostTensor::from_f32(vec![2], &[x, step as f32]))]);
        let progress = Progress { step, updates: step - 1, ..Progress::default() };
        Checkpoint { progress, weights: tensors(1.0), optimizer: tensors(2.0) }
    }

    #[test]
    fn the_newest_one_is_read_and_older_ones_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Checkpoint::newest(dir.path()).unwrap().is_none());
        for step in [5, 90, 1000] {
            checkpoint(step).write(dir.path()).unwrap();
        }
        // A process killed while it wrote leaves this behind.
        fs::create_dir(dir.path().join("unfinished")).unwrap();
        let read = Checkpoint::newest(dir.path()).unwrap().unwrap();
        assert_eq!(read.progress, checkpoint(1000).progress);
        assert_eq!(read.weights["a"].to_f32(), [1.0, 1000.0]);
        assert_eq!(read.optimizer["a"].to_f32(), [2.0, 1000.0]);
        assert_eq!(all(dir.path()).unwrap().len(), 1);
    }
    #[test]
    fn what_differs_is_named() {
        let then = json!({"networks": {"vae": {"levels": [1, 2]}, "unet": 3}, "seed": 1});
        assert_eq!(difference(&then, &then), None);
        assert_eq!(difference(&json!({"networks": {"vae": {"levels": [1, 2]}}}), &then), None);
        assert_eq!(difference(&json!({"networks": {"vae": {"levels": [1]}}}), &then).unwrap(), "networks.vae.levels");
        assert_eq!(difference(&json!({"seed": 1, "stages": {"vae": "ab"}}), &then).unwrap(), "stages.vae");
    }
}
