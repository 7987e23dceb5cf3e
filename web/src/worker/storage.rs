//! This browser's own file system for this page: a folder for each model that is kept.

use std::collections::BTreeSet;

use js_sys::Uint8Array;
use kosmosg::bundle::{MANIFEST, Manifest, Scope};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, DomException, File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions,
    FileSystemGetFileOptions, FileSystemReadWriteOptions, FileSystemRemoveOptions, FileSystemSyncAccessHandle,
    StorageEstimate, StorageManager,
};

use crate::install::{Slot, Trouble};
use crate::js;
use crate::messages::{KeptModel, Room};

/// The folder of all models.
const MODELS: &str = "models";
/// The file beside a model's own that says how far its installation is.
const RECORD: &str = "install.json";
/// How often a file that somebody else has open is tried again.
const TRIES: usize = 20;
/// Time between two of these, in milliseconds.
const PAUSE_MS: i32 = 250;
/// What the browser calls it that somebody else has a file open.
const NOT_ALLOWED: &str = "NoModificationAllowedError";

/// All models that are kept.
pub struct Storage(FileSystemDirectoryHandle);

/// A model's folder.
pub struct Folder(FileSystemDirectoryHandle);

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The address that it comes from; none if from files.
    pub address: Option<String>,
    /// What of it is wanted.
    pub scope: Scope,
    /// Files that are whole and have the right digest.
    pub checked: BTreeSet<String>,
}

impl Storage {
    /// Opens it.
    ///
    /// # Errors
    /// [`Trouble::Storage`] where the browser keeps no files, as in some private windows.
    pub async fn open() -> Result<Self, Trouble> {
        let none = || Trouble::Storage(crate::texts::NO_STORAGE.into());
        let root = JsFuture::from(manager().ok_or_else(none)?.get_directory()).await.map_err(|_| none())?;
        folder(&root.unchecked_into(), MODELS, true).await.map(Self)
    }

    /// The folder of a model.
    ///
    /// # Errors
    /// [`Trouble::Storage`], also if it is not there and not to be made.
    pub async fn folder(&self, key: &str, make: bool) -> Result<Folder, Trouble> {
        folder(&self.0, key, make).await.map(Folder)
    }

    /// All models, whole or not.
    ///
    /// # Errors
    /// [`Trouble::Storage`].
    pub async fn list(&self) -> Result<Vec<KeptModel>, Trouble> {
        let mut models = Vec::new();
        let keys = self.0.keys();
        loop {
            let next = JsFuture::from(keys.next().map_err(|error| trouble(&error))?).await;
            let next: js_sys::IteratorNext = next.map_err(|error| trouble(&error))?.unchecked_into();
            if next.done() {
                break;
            }
            let Some(key) = next.value().as_string() else { continue };
            let folder = self.folder(&key, false).await?;
            // One that was begun and has no manifest yet is none.
            if let Ok(model) = folder.model(key).await {
                models.push(model);
            }
        }
        models.sort_by(|a, b| (&a.manifest.name, &a.key).cmp(&(&b.manifest.name, &b.key)));
        Ok(models)
    }

    /// Removes a model.
    ///
    /// # Errors
    /// [`Trouble::Storage`], also while another tab installs it.
    pub async fn remove(&self, key: &str) -> Result<(), Trouble> {
        let options = FileSystemRemoveOptions::new();
        options.set_recursive(true);
        JsFuture::from(self.0.remove_entry_with_options(key, &options)).await.map_err(|error| trouble(&error))?;
        Ok(())
    }
}

/// How much the browser keeps for this page, if it says so.
pub async fn room() -> Option<Room> {
    let estimate = JsFuture::from(manager()?.estimate().ok()?).await.ok()?;
    let estimate: StorageEstimate = estimate.unchecked_into();
    Some(Room { used: estimate.get_usage()? as u64, most: estimate.get_quota()? as u64 })
}

impl Folder {
    async fn model(&self, key: String) -> Result<KeptModel, Trouble> {
        let manifest = self.manifest().await?;
        let record = self.record().await?;
        let (mut bytes, mut of, mut whole) = (0, 0, BTreeSet::new());
        for file in manifest.files(record.scope) {
            let there = match self.file(&file.name).await {
                Ok(there) => (there.size() as u64).min(file.bytes),
                Err(_) => 0,
            };
            (bytes, of) = (bytes + there, of + file.bytes);
            if there == file.bytes && record.checked.contains(&file.name) {
                whole.insert(file.name.clone());
            }
        }
        let is_here = |scope: &Scope| manifest.files(*scope).all(|file| whole.contains(&file.name));
        let here = [Scope::Picture, Scope::Encoder].into_iter().find(is_here);
        let Record { address, scope, .. } = record;
        Ok(KeptModel { key, manifest, address, scope, bytes, of, here })
    }

    /// The model's manifest.
    ///
    /// # Errors
    /// [`Trouble::Storage`].
    pub async fn manifest(&self) -> Result<Manifest, Trouble> {
        Manifest::from_json(&self.contents(MANIFEST).await?).map_err(|error| Trouble::Storage(error.to_string()))
    }

    /// How far its installation is, as it was last written down.
    async fn record(&self) -> Result<Record, Trouble> {
        let contents = self.contents(RECORD).await?;
        serde_json::from_slice(&contents).map_err(|error| Trouble::Storage(format!("{RECORD}: {error}")))
    }

    /// A file for reading.
    ///
    /// # Errors
    /// [`Trouble::Storage`].
    pub async fn file(&self, name: &str) -> Result<File, Trouble> {
        let file = JsFuture::from(self.handle(name, false).await?.get_file()).await;
        file.map(JsCast::unchecked_into).map_err(|error| trouble(&error))
    }

    async fn contents(&self, name: &str) -> Result<Vec<u8>, Trouble> {
        bytes_of(&self.file(name).await?.into()).await.map_err(Trouble::Storage)
    }

    /// A file for writing, for nobody else as long as it is open.
    ///
    /// # Errors
    /// [`Trouble::Storage`], also if another tab has it.
    pub async fn open(&self, name: &str) -> Result<OpenFile, Trouble> {
        let handle = self.handle(name, true).await?;
        let mut tries = TRIES;
        loop {
            match JsFuture::from(handle.create_sync_access_handle()).await {
                Ok(open) => return Ok(OpenFile(open.unchecked_into())),
                // A page that was left a moment ago may not have let go yet.
                Err(error) if tries > 0 && name_of(&error) == NOT_ALLOWED => tries -= 1,
                Err(error) => return Err(trouble(&error)),
            }
            js::sleep(PAUSE_MS).await;
        }
    }

    /// The record of its installation, open: who has it is the one who installs.
    ///
    /// # Errors
    /// [`Trouble::Storage`], also if another tab installs it.
    pub async fn open_record(&self) -> Result<OpenRecord, Trouble> {
        Ok(OpenRecord(self.open(RECORD).await?))
    }

    async fn handle(&self, name: &str, make: bool) -> Result<FileSystemFileHandle, Trouble> {
        let options = FileSystemGetFileOptions::new();
        options.set_create(make);
        let handle = JsFuture::from(self.0.get_file_handle_with_options(name, &options)).await;
        handle.map(JsCast::unchecked_into).map_err(|error| trouble(&error))
    }
}

/// A file that is open for writing, until this is dropped.
pub struct OpenFile(FileSystemSyncAccessHandle);

impl Slot for OpenFile {
    fn length(&self) -> Result<u64, Trouble> {
        self.0.get_size().map(|size| size as u64).map_err(|error| trouble(&error))
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let read = self.0.read_with_u8_array_and_options(buffer, &place(at));
        read.map(|read| read as usize).map_err(|error| trouble(&error))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let written = self.0.write_with_u8_array_and_options(bytes, &place(at)).map_err(|error| trouble(&error))?;
        if (written as usize) < bytes.len() { Err(Trouble::Full) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> Result<(), Trouble> {
        self.0.truncate_with_f64(length as f64).map_err(|error| trouble(&error))
    }

    fn flush(&self) -> Result<(), Trouble> {
        self.0.flush().map_err(|error| trouble(&error))
    }
}

impl OpenFile {
    /// Puts other contents into it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn replace(&self, contents: &[u8]) -> Result<(), Trouble> {
        self.truncate(0)?;
        self.write(0, contents)?;
        self.flush()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The record of an installation, for whoever is at it.
pub struct OpenRecord(OpenFile);

impl OpenRecord {
    /// What it says; none if there is nothing in it, or nothing that can be understood: then nothing counts as checked.
    ///
    /// # Errors
    /// [`Trouble::Storage`].
    pub fn read(&self) -> Result<Option<Record>, Trouble> {
        let mut contents = vec![0; self.0.length()? as usize];
        self.0.read(0, &mut contents)?;
        Ok(serde_json::from_slice(&contents).ok())
    }

    /// Writes it down.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn write(&self, record: &Record) -> Result<(), Trouble> {
        self.0.replace(&serde_json::to_vec(record).expect("a record is plain data"))
    }
}

/// The contents of a blob or file.
///
/// # Errors
/// Why it cannot be read, for people.
pub async fn bytes_of(blob: &Blob) -> Result<Vec<u8>, String> {
    let buffer = JsFuture::from(blob.array_buffer()).await.map_err(|error| js::text_of(&error))?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

async fn folder(of: &FileSystemDirectoryHandle, name: &str, make: bool) -> Result<FileSystemDirectoryHandle, Trouble> {
    let options = FileSystemGetDirectoryOptions::new();
    options.set_create(make);
    let handle = JsFuture::from(of.get_directory_handle_with_options(name, &options)).await;
    handle.map(JsCast::unchecked_into).map_err(|error| trouble(&error))
}

fn manager() -> Option<StorageManager> {
    let storage: JsValue = super::scope().navigator().storage().into();
    // Not there where the page does not come over a safe line.
    storage.is_object().then(|| storage.unchecked_into())
}

fn place(at: u64) -> FileSystemReadWriteOptions {
    let options = FileSystemReadWriteOptions::new();
    options.set_at_f64(at as f64);
    options
}

fn trouble(error: &JsValue) -> Trouble {
    match name_of(error).as_str() {
        "QuotaExceededError" => Trouble::Full,
        NOT_ALLOWED => Trouble::Storage(crate::texts::OTHER_TAB.into()),
        "NotFoundError" | "NotReadableError" => Trouble::Storage(crate::texts::MODEL_GONE.into()),
        _ => Trouble::Storage(js::text_of(error)),
    }
}

/// What the browser calls an error.
fn name_of(error: &JsValue) -> String {
    error.dyn_ref::<DomException>().map_or(String::new(), DomException::name)
}
