//! A kept model's files, for reading while its stages load and its vocabulary is looked up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use js_sys::{ArrayBuffer, Uint8Array};
use kosmosg::bundle::{BundleError, Manifest, ReadAt, Scope};
use wasm_bindgen::prelude::*;
use web_sys::{File, FileReaderSync};

use super::storage::Storage;
use crate::install::Trouble;
use crate::js;

thread_local! {
    /// The browser's handles, which stay in their worker, by the number of who holds them.
    static OPEN: RefCell<BTreeMap<usize, Open>> = const { RefCell::new(BTreeMap::new()) };
    static NUMBERS: Cell<usize> = const { Cell::new(0) };
}

struct Open {
    files: BTreeMap<String, File>,
    heard: Option<Rc<dyn Fn(u64)>>,
}

/// The files of a kept model.
pub struct KeptFiles {
    number: usize,
}

impl KeptFiles {
    /// Opens those that are there.
    ///
    /// # Errors
    /// [`Trouble::Storage`].
    pub async fn open(key: &str, manifest: &Manifest) -> Result<Arc<Self>, Trouble> {
        let folder = Storage::open().await?.folder(key, false).await?;
        let mut files = BTreeMap::new();
        for wanted in manifest.files(Scope::Picture) {
            match folder.file(&wanted.name).await {
                Ok(file) if file.size() as u64 == wanted.bytes => drop(files.insert(wanted.name.clone(), file)),
                _ => {}
            }
        }
        let number = NUMBERS.replace(NUMBERS.get() + 1);
        OPEN.with_borrow_mut(|open| open.insert(number, Open { files, heard: None }));
        Ok(Arc::new(Self { number }))
    }

    /// Whether all files of a part are there.
    pub fn have(&self, manifest: &Manifest, part: &str) -> bool {
        let has = |name: &String| OPEN.with_borrow(|open| open[&self.number].files.contains_key(name));
        manifest.part(part).is_ok_and(|part| part.files.iter().all(|file| has(&file.name)))
    }

    /// Tells `heard` from now on how many bytes each reading took.
    pub fn tell(&self, heard: Option<Rc<dyn Fn(u64)>>) {
        OPEN.with_borrow_mut(|open| {
            if let Some(open) = open.get_mut(&self.number) {
                open.heard = heard;
            }
        });
    }
}

impl ReadAt for KeptFiles {
    fn read_at(&self, name: &str, start: u64, length: u64) -> Result<Vec<u8>, BundleError> {
        let failed = |detail: &str| BundleError::Io { path: name.into(), source: std::io::Error::other(detail) };
        let open = OPEN
            .with_borrow(|open| open.get(&self.number).map(|open| (open.files.get(name).cloned(), open.heard.clone())));
        let (Some(file), heard) = open.unwrap_or_default() else { return Err(failed(crate::texts::MODEL_GONE)) };
        let read = || -> Result<Vec<u8>, JsValue> {
            let slice = file.slice_with_f64_and_f64(start as f64, (start + length) as f64)?;
            let buffer: ArrayBuffer = FileReaderSync::new()?.read_as_array_buffer(&slice)?.unchecked_into();
            Ok(Uint8Array::new(&buffer).to_vec())
        };
        let bytes = read().map_err(|error| failed(&js::text_of(&error)))?;
        if bytes.len() as u64 != length {
            return Err(failed(crate::texts::MODEL_GONE));
        }
        if let Some(heard) = heard {
            heard(length);
        }
        Ok(bytes)
    }
}

impl Drop for KeptFiles {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| open.remove(&self.number));
    }
}
