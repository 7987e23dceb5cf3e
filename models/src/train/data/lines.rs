//! Lines of large text files: found once, read when they are wanted.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kosmosg::digest::sha256;

use crate::train::checkpoint::write_whole;

/// What a line holds, unless a filter leaves it out; or what is wrong with it.
pub(super) type Parsed<T> = Result<Option<T>, String>;

/// The lines of some shards.
#[derive(Debug)]
pub(super) struct Lines {
    pub shards: Vec<PathBuf>,
    pub lines: Vec<Line>,
}

/// Where a line is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Which of the shards it is in.
    pub shard: usize,
    /// From 1.
    pub number: u32,
    start: u64,
    pub length: u64,
}

impl Lines {
    /// The lines of these shards. A shard is read to its end only once: how long its lines are is kept in the folder
    /// `index`, by the shard's path, size and time of change.
    ///
    /// # Errors
    /// A shard is missing or cannot be read, or the index cannot be written.
    pub fn find(shards: &[PathBuf], index: &Path) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        for (shard, path) in shards.iter().enumerate() {
            let file = File::open(path).with_context(|| format!("cannot open the shard {}", path.display()))?;
            let lengths = lengths(file, path, index).with_context(|| path.display().to_string())?;
            let mut start = 0;
            for (number, length) in (1..).zip(lengths) {
                lines.push(Line { shard, number, start, length });
                start += length;
            }
        }
        Ok(Self { shards: shards.to_owned(), lines })
    }

    /// What `parse` makes of a line's cells.
    ///
    /// # Panics
    /// If the shard cannot be read any more: there is nothing to go on with.
    pub fn read<T>(&self, line: &Line, parse: impl FnOnce(&[&str]) -> Parsed<T>) -> Parsed<T> {
        let path = &self.shards[line.shard];
        let read = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(line.start))?;
            let mut bytes = Vec::with_capacity(line.length as usize);
            file.take(line.length).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        let bytes = read().unwrap_or_else(|error| panic!("{} cannot be read any more: {error}", path.display()));
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        parse(&text.trim_end_matches(['\n', '\r']).split('\t').collect::<Vec<_>>())
    }

    /// Checks that at least one line, if there are any files, can be used.
    ///
    /// # Errors
    /// None of them can, and why the first cannot.
    pub fn check<T>(&self, parse: impl Fn(&[&str]) -> Parsed<T>) -> anyhow::Result<()> {
        let mut first = None;
        for line in &self.lines {
            match self.read(line, &parse) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {}
                Err(why) => drop(first.get_or_insert(why)),
            }
        }
        match self.shards.first() {
            None => Ok(()),
            Some(shard) => {
                let why = first.unwrap_or("the filters leave out every line".into());
                anyhow::bail!("none of the lines of {} and its like can be used: {why}", shard.display())
            }
        }
    }
}

/// The lengths of a shard's lines, in bytes.
fn lengths(shard: File, path: &Path, index: &Path) -> anyhow::Result<Vec<u64>> {
    let about = shard.metadata()?;
    let state = format!("{:?} {} {:?}", path.canonicalize()?, about.len(), about.modified()?);
    let kept = index.join(sha256(state.as_bytes()));
    if let Some(lengths) = fs::read(&kept).ok().and_then(|json| serde_json::from_slice(&json).ok()) {
        return Ok(lengths);
    }
    let (mut reader, mut lengths) = (BufReader::new(shard), Vec::new());
    loop {
        let length = reader.skip_until(b'\n')? as u64;
        if length == 0 {
            break;
        }
        lengths.push(length);
    }
    fs::create_dir_all(index).with_context(|| format!("cannot create {}", index.display()))?;
    write_whole(&kept, &serde_json::to_vec(&lengths)?)?;
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_shard_is_read_to_its_end_once() {
        let dir = tempfile::tempdir().unwrap();
        let (shard, index) = (dir.path().join("shard.tsv"), dir.path().join("lines"));
        let find = |text: &str, age: u64| -> Vec<u64> {
            fs::write(&shard, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            File::options().write(true).open(&shard).unwrap().set_modified(time).unwrap();
            let lines = Lines::find(std::slice::from_ref(&shard), &index).unwrap();
            assert!(lines.lines.windows(2).all(|pair| pair[0].start + pair[0].length == pair[1].start));
            lines.lines.iter().map(|line| line.length).collect()
        };
        assert_eq!(find("a\nbcd\n", 1), [2, 4]);
        assert_eq!(find("abc\nd\n", 1), [2, 4], "nothing says that it is another one");
        assert_eq!(find("abc\nd\n", 2), [4, 2]);
        assert_eq!(find("abc\nde\n", 2), [4, 3]);
    }
}
