//! Installing, checking and removing models, by request of the page.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use kosmosg::bundle::{MANIFEST, Manifest, PartFile, Scope};
use kosmosg::digest::{hex, sha256};
use sha2::{Digest, Sha256};
use web_sys::File;

use super::model::Failure;
use super::origin::{Chosen, Slices, Web};
use super::storage::{self, OpenRecord, Record, Storage};
use crate::install::{Origin, Slot, Stream, Trouble, Watch, fill, unless_stopped};
use crate::js;
use crate::messages::{Fault, Flow, Reply, Supply};

/// Time between two reports, in milliseconds.
const REPORT_MS: f64 = 200.0;
/// How often it is seen whether to stop while nothing else happens.
const LOOK_MS: i32 = 100;
/// After so long a time without data, that is told.
const STALL_MS: f64 = 4000.0;
/// Digits of a manifest's hash that name a model.
const KEY_DIGITS: usize = 16;
/// No manifest is longer.
const LONGEST_MANIFEST: usize = 4 << 20;

/// Carries out one request.
pub struct Keeper<'a> {
    /// Hears how far it is.
    pub report: &'a dyn Fn(Reply),
    /// Whether the person wants to stop.
    pub stops: &'a dyn Fn() -> bool,
}

impl Keeper<'_> {
    /// What is kept.
    pub async fn list(&self) -> Result<Reply, Failure> {
        Ok(Reply::Kept { models: Storage::open().await?.list().await?, room: storage::room().await })
    }

    /// Brings a model, or the rest of it, to this browser; `files` are what the person chose.
    pub async fn install(&self, supply: Supply, scope: Scope, files: Vec<File>) -> Result<(), Failure> {
        match supply {
            Supply::Address(base) => self.bring(&Web(base.clone()), Some(base), scope).await,
            Supply::Files => self.bring(&Chosen(files), None, scope).await,
        }
    }

    async fn bring(&self, origin: &impl Origin, address: Option<String>, scope: Scope) -> Result<(), Failure> {
        let unreachable = |trouble| match (trouble, &address) {
            (Trouble::Line(_), Some(address)) => Trouble::Refused(crate::texts::unreachable(address)),
            (trouble, _) => trouble,
        };
        let stopped = async {
            while !(self.stops)() {
                js::sleep(LOOK_MS).await;
            }
        };
        let json = unless_stopped(whole(origin, MANIFEST), stopped).await.flatten().map_err(unreachable)?;
        let manifest = Manifest::from_json(&json)?;
        let storage = Storage::open().await?;
        let digest = sha256(&json);
        let key = &digest[..KEY_DIGITS];
        let folder = storage.folder(key, true).await?;
        let file = folder.open_record().await?;
        let known = file.read()?;
        let is_new = known.is_none();
        let mut record = known.unwrap_or(Record { address: None, scope, checked: Default::default() });
        // What is there already is not taken away.
        if scope == Scope::Picture {
            record.scope = scope;
        }
        record.address = address.or(record.address);

        let mut there = BTreeMap::new();
        for PartFile { name, bytes, .. } in manifest.files(record.scope) {
            let length = folder.file(name).await.map_or(0, |file| file.size() as u64);
            there.insert(name.clone(), length.min(*bytes));
        }
        let tally = Tally::new(self, &manifest, record.scope, there);
        if let Err(trouble) = self.check_room(tally.of - tally.bytes()).await {
            // What was asked for is not begun, and what is there stays as it was.
            drop(file);
            if is_new {
                storage.remove(key).await?;
            }
            return Err(trouble.into());
        }
        folder.open(MANIFEST).await?.replace(&json)?;
        file.write(&record)?;
        for wanted in manifest.files(record.scope) {
            let slot = folder.open(&wanted.name).await?;
            if record.checked.contains(&wanted.name) && slot.length()? == wanted.bytes {
                continue;
            }
            record.checked.remove(&wanted.name);
            fill(wanted, &slot, origin, &tally).await?;
            self.passed(&mut record, &file, &wanted.name)?;
        }
        Ok(())
    }

    /// Reads all of a model's files and compares their digests; one that is wrong counts as missing from then on.
    pub async fn check(&self, key: &str) -> Result<(), Failure> {
        let folder = Storage::open().await?.folder(key, false).await?;
        let manifest = folder.manifest().await?;
        let file = folder.open_record().await?;
        let unreadable = || Trouble::Storage(crate::texts::MODEL_GONE.into());
        let mut record = file.read()?.ok_or_else(unreadable)?;
        let tally = Tally::new(self, &manifest, record.scope, BTreeMap::new());
        let (mut right, mut of, mut wrong) = (0, 0, Vec::new());
        for wanted in manifest.files(record.scope) {
            of += 1;
            record.checked.remove(&wanted.name);
            let Ok(there) = folder.file(&wanted.name).await else { continue };
            let (mut pieces, mut hash, mut bytes) = (Slices::of(there), Sha256::new(), 0);
            while let Some(piece) = pieces.next().await? {
                hash.update(&piece);
                bytes += piece.len() as u64;
                tally.there(wanted, bytes, Flow::Comes);
                if tally.stops() {
                    return Err(Trouble::Stopped.into());
                }
            }
            if hex(&hash.finalize()) == wanted.sha256 {
                self.passed(&mut record, &file, &wanted.name)?;
                right += 1;
            } else if bytes >= wanted.bytes {
                // A part of a file may be the right part; a whole one is wrong.
                folder.open(&wanted.name).await?.truncate(0)?;
                file.write(&record)?;
                wrong.push(wanted.name.clone());
            }
        }
        (self.report)(Reply::Checked { right, of, wrong });
        Ok(())
    }

    /// Removes a model.
    pub async fn remove(&self, key: &str) -> Result<(), Failure> {
        Ok(Storage::open().await?.remove(key).await?)
    }

    fn passed(&self, record: &mut Record, file: &OpenRecord, name: &str) -> Result<(), Trouble> {
        record.checked.insert(name.to_owned());
        file.write(record)
    }

    async fn check_room(&self, needed: u64) -> Result<(), Trouble> {
        let Some(room) = storage::room().await else { return Ok(()) };
        let free = room.most.saturating_sub(room.used);
        if needed > free { Err(Trouble::NoRoom { needed, free }) } else { Ok(()) }
    }
}

/// All of a small file.
async fn whole(origin: &impl Origin, name: &str) -> Result<Vec<u8>, Trouble> {
    let (_, mut stream) = origin.open(name, 0).await?;
    let mut contents = Vec::new();
    while let Some(bytes) = stream.next().await? {
        contents.extend(bytes);
        if contents.len() > LONGEST_MANIFEST {
            return Err(Trouble::Refused(crate::texts::no_model(name)));
        }
    }
    Ok(contents)
}

/// How much of a model is there.
struct Tally<'a> {
    keeper: &'a Keeper<'a>,
    name: String,
    files: RefCell<BTreeMap<String, u64>>,
    of: u64,
    flow: Cell<Flow>,
    reported_ms: Cell<f64>,
    /// When the last bytes came.
    came_ms: Cell<f64>,
}

impl<'a> Tally<'a> {
    fn new(keeper: &'a Keeper<'a>, manifest: &Manifest, scope: Scope, there: BTreeMap<String, u64>) -> Self {
        let of = manifest.files(scope).map(|file| file.bytes).sum();
        let (name, files, came_ms) = (manifest.name.clone(), RefCell::new(there), Cell::new(js::now_ms()));
        let tally = Self { keeper, name, files, of, flow: Cell::default(), reported_ms: Cell::default(), came_ms };
        tally.report();
        tally
    }

    fn bytes(&self) -> u64 {
        self.files.borrow().values().sum()
    }

    fn report(&self) {
        self.reported_ms.set(js::now_ms());
        let (name, bytes, of, flow) = (self.name.clone(), self.bytes(), self.of, self.flow.get());
        (self.keeper.report)(Reply::Installing { name, bytes, of, flow });
    }
}

impl Watch for Tally<'_> {
    fn there(&self, file: &PartFile, bytes: u64, flow: Flow) {
        self.files.borrow_mut().insert(file.name.clone(), bytes);
        self.came_ms.set(js::now_ms());
        let is_other = self.flow.replace(flow) != flow;
        if is_other || js::now_ms() - self.reported_ms.get() >= REPORT_MS {
            self.report();
        }
    }

    fn stops(&self) -> bool {
        (self.keeper.stops)()
    }

    async fn stopped(&self) {
        while !self.stops() {
            if js::now_ms() - self.came_ms.get() >= STALL_MS && self.flow.replace(Flow::Stalls) != Flow::Stalls {
                self.report();
            }
            js::sleep(LOOK_MS).await;
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self { fault: Fault::Bundle, message: trouble.to_string() }
    }
}
