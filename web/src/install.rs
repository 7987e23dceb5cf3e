//! Bringing a model to this device: file by file from wherever it comes, byte by byte, going on where it stopped.
//!
//! What is written down and what comes over a line is behind [`Slot`] and [`Origin`], so that lines that break, bytes that are
//! wrong and storage that is full can be tried without a browser.

use std::pin::pin;

use futures::future::{Either, select};
use kosmosg::bundle::PartFile;
use kosmosg::digest::hex;
use sha2::{Digest, Sha256};

use crate::messages::Flow;
use crate::texts;

/// Pauses before a line that broke is tried again, in milliseconds; bytes that come begin them anew.
const PAUSES_MS: [i32; 6] = [500, 1000, 2000, 4000, 8000, 16_000];
/// How often a file that came whole and wrong is fetched, in all.
const WRONG_TIMES: usize = 3;
/// Bytes that are read at once of what is there.
const CHUNK: usize = 1 << 20;

/// Why a model does not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The line broke; it can go on later.
    #[error("{0}")]
    Line(String),
    /// Whoever has the files does not give them.
    #[error("{0}")]
    Refused(String),
    /// A file came whole, more than once, and is not what the manifest says.
    #[error(
        "{file} arrives with other contents than the model's manifest says; whoever offers the model has to repair it"
    )]
    Wrong {
        /// The file.
        file: String,
    },
    /// This browser's storage has no more room.
    #[error("this browser has no more room for the page's models; remove one, or free space on this device")]
    Full,
    /// There is less room than the model takes.
    #[error("{} more are needed, and this browser has room for {}; remove a model, or fetch only the part that reads", texts::size(*.needed), texts::size(*.free))]
    NoRoom {
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that there is room for.
        free: u64,
    },
    /// This browser's storage does not work.
    #[error("{0}")]
    Storage(String),
    /// The person wants to stop.
    #[error("stopped")]
    Stopped,
}

/// A file in this browser's storage, open for writing.
pub trait Slot {
    /// Bytes that are there.
    fn length(&self) -> Result<u64, Trouble>;
    /// Reads from `at` on; fewer bytes only at the end.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Trouble>;
    /// Writes at `at`, all or some and [`Trouble::Full`].
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Trouble>;
    /// Cuts it.
    fn truncate(&self, length: u64) -> Result<(), Trouble>;
    /// What was written stays even if the device goes off.
    fn flush(&self) -> Result<(), Trouble>;
}

/// Where files come from.
pub trait Origin {
    /// Contents as they arrive.
    type Stream: Stream;
    /// A file's contents from `at` on, or from the beginning if only that is to be had: where they begin, and they.
    fn open(&self, name: &str, at: u64) -> impl Future<Output = Result<(u64, Self::Stream), Trouble>>;
    /// Waits, and lets others have their turn.
    fn pause(&self, milliseconds: i32) -> impl Future<Output = ()>;
}

/// Contents as they arrive.
pub trait Stream {
    /// The next bytes; none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, Trouble>>;
}

/// Who hears how far it is, and may stop it.
pub trait Watch {
    /// So many bytes of the file are there.
    fn there(&self, file: &PartFile, bytes: u64, flow: Flow);
    /// Whether to stop.
    fn stops(&self) -> bool;
    /// Waits until it is to stop.
    fn stopped(&self) -> impl Future<Output = ()>;
}

/// What comes of `deed`, unless it is to stop before.
///
/// # Errors
/// [`Trouble::Stopped`].
pub async fn unless_stopped<T>(deed: impl Future<Output = T>, stopped: impl Future<Output = ()>) -> Result<T, Trouble> {
    match select(pin!(deed), pin!(stopped)).await {
        Either::Left((done, _)) => Ok(done),
        Either::Right(_) => Err(Trouble::Stopped),
    }
}

/// Brings `file` into `slot`, where a part of it may be, and checks it.
///
/// # Errors
/// A [`Trouble`]. What has arrived stays, and the next call goes on there, unless it was wrong.
pub async fn fill(file: &PartFile, slot: &impl Slot, origin: &impl Origin, watch: &impl Watch) -> Result<(), Trouble> {
    for _ in 0..WRONG_TIMES {
        if slot.length()? > file.bytes {
            slot.truncate(0)?;
        }
        let mut filling = Filling { file, slot, watch, hash: Sha256::new(), there: 0 };
        filling.take_up(origin).await?;
        let mut pauses = PAUSES_MS.into_iter();
        while filling.there < file.bytes {
            let before = filling.there;
            let Err(trouble) = unless_stopped(filling.append(origin), watch.stopped()).await.flatten() else {
                continue;
            };
            slot.flush()?;
            if filling.there > before {
                pauses = PAUSES_MS.into_iter();
            }
            match (trouble, pauses.next()) {
                (Trouble::Line(_), Some(pause)) => unless_stopped(origin.pause(pause), watch.stopped()).await?,
                (trouble, _) => return Err(trouble),
            }
            if watch.stops() {
                return Err(Trouble::Stopped);
            }
        }
        slot.flush()?;
        if hex(&filling.hash.finalize()) == file.sha256 {
            return Ok(());
        }
        slot.truncate(0)?;
        watch.there(file, 0, Flow::Checks);
    }
    Err(Trouble::Wrong { file: file.name.clone() })
}

/// A file on its way.
struct Filling<'a, S, W> {
    file: &'a PartFile,
    slot: &'a S,
    watch: &'a W,
    hash: Sha256,
    there: u64,
}

impl<S: Slot, W: Watch> Filling<'_, S, W> {
    /// Reads what is there already.
    async fn take_up(&mut self, origin: &impl Origin) -> Result<(), Trouble> {
        let length = self.slot.length()?;
        let mut buffer = vec![0; CHUNK];
        while self.there < length {
            let read = self.slot.read(self.there, &mut buffer)?;
            if read == 0 {
                break;
            }
            self.count(&buffer[..read], Flow::Checks);
            origin.pause(0).await;
            if self.watch.stops() {
                return Err(Trouble::Stopped);
            }
        }
        Ok(())
    }

    /// Adds what comes, until the file is whole.
    async fn append(&mut self, origin: &impl Origin) -> Result<(), Trouble> {
        let (at, mut stream) = origin.open(&self.file.name, self.there).await?;
        if at != self.there {
            if at != 0 {
                return Err(Trouble::Refused(format!(
                    "{} comes from byte {at} on instead of {}",
                    self.file.name, self.there
                )));
            }
            self.slot.truncate(0)?;
            (self.hash, self.there) = (Sha256::new(), 0);
        }
        while self.there < self.file.bytes {
            let Some(bytes) = stream.next().await? else {
                return Err(Trouble::Line(format!("{} ended early", self.file.name)));
            };
            // A longer file is another one, which its digest would not tell if only its beginning counted.
            if bytes.len() as u64 > self.file.bytes - self.there {
                return Err(Trouble::Wrong { file: self.file.name.clone() });
            }
            self.slot.write(self.there, &bytes)?;
            self.count(&bytes, Flow::Comes);
            if self.watch.stops() {
                self.slot.flush()?;
                return Err(Trouble::Stopped);
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: &[u8], flow: Flow) {
        self.hash.update(bytes);
        self.there += bytes.len() as u64;
        self.watch.there(self.file, self.there, flow);
    }
}

#[cfg(test)]
mod tests;
