//! Lines of large text files: found once, read when they are wanted.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::Context as _;

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
    /// The lines of these shards.
    ///
    /// # Errors
    /// A shard is missing or cannot be read.
    pub fn find(shards: &[PathBuf]) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        for (shard, path) in shards.iter().enumerate() {
            let file = File::open(path).with_context(|| format!("cannot open the shard {}", path.display()))?;
            let mut reader = BufReader::new(file);
            let mut start = 0;
            for number in 1.. {
                let length = reader.skip_until(b'\n').with_context(|| path.display().to_string())? as u64;
                if length == 0 {
                    break;
                }
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
