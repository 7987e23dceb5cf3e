//! What the browser keeps for the page between visits: an IndexedDB database.

use js_sys::{Array, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{DomException, IdbDatabase, IdbRequest, IdbTransactionMode};

use super::dom;
use crate::js;

const NAME: &str = "kosmos";
const VERSION: u32 = 1;

/// A part of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// By key, what is known of each kept picture: JSON.
    Entries,
    /// By the same key, their PNG files with recipes, without the prompts' pictures.
    Pictures,
    /// By the same key, large ones in small.
    Thumbnails,
    /// The prompts' pictures, by a key that tells files apart: one may stand in many prompts.
    Files,
    /// By a tab's name and a word, its draft with pictures and its job.
    Tabs,
}

/// Something to be written, or with no value removed.
pub struct Change {
    /// Where.
    pub shelf: Shelf,
    /// Under which key.
    pub key: JsValue,
    /// What.
    pub value: Option<JsValue>,
}

/// The database.
pub struct Store(IdbDatabase);

impl Shelf {
    const ALL: [Self; 5] = [Self::Entries, Self::Pictures, Self::Thumbnails, Self::Files, Self::Tabs];

    fn name(self) -> &'static str {
        match self {
            Shelf::Entries => "entries",
            Shelf::Pictures => "pictures",
            Shelf::Thumbnails => "thumbnails",
            Shelf::Files => "files",
            Shelf::Tabs => "tabs",
        }
    }

    /// To write something under a key.
    pub fn put(self, key: impl Into<JsValue>, value: impl Into<JsValue>) -> Change {
        Change { shelf: self, key: key.into(), value: Some(value.into()) }
    }

    /// To remove what is under a key.
    pub fn remove(self, key: impl Into<JsValue>) -> Change {
        Change { shelf: self, key: key.into(), value: None }
    }
}

impl Store {
    /// Opens the database.
    ///
    /// # Errors
    /// What the browser says, which may be that it keeps nothing.
    pub async fn open() -> Result<IdbDatabase, JsValue> {
        let factory = dom::window().indexed_db()?.ok_or(JsValue::NULL)?;
        let request = factory.open_with_u32(NAME, VERSION)?;
        let upgrading = request.clone();
        let upgrade = Closure::<dyn FnMut(JsValue)>::new(move |_: JsValue| {
            let Ok(database) = upgrading.result() else { return };
            let database: IdbDatabase = database.unchecked_into();
            for shelf in Shelf::ALL {
                // It fails only where there is one already.
                let _ = database.create_object_store(shelf.name());
            }
        });
        request.set_onupgradeneeded(Some(upgrade.as_ref().unchecked_ref()));
        let database: IdbDatabase = result(&request).await?.unchecked_into();
        // A later version of the page in another tab is not to wait for this one.
        let closing = database.clone();
        let close = Closure::<dyn FnMut(JsValue)>::new(move |_: JsValue| closing.close());
        database.set_onversionchange(Some(close.as_ref().unchecked_ref()));
        close.forget();
        Ok(database)
    }

    /// The opened database.
    pub fn new(database: IdbDatabase) -> Self {
        Self(database)
    }

    /// Whether the browser has closed it, as it does when its disk fails, or a newer page.
    pub fn is_closed(&self) -> bool {
        self.0.transaction_with_str(Shelf::Tabs.name()).is_err()
    }

    /// Writes all of the changes, or none.
    ///
    /// # Errors
    /// What the browser says, for people.
    pub async fn write(&self, changes: &[Change]) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        self.try_write(changes).await.map_err(|error| js::text_of(&error))
    }

    async fn try_write(&self, changes: &[Change]) -> Result<(), JsValue> {
        let used = Shelf::ALL.into_iter().filter(|&shelf| changes.iter().any(|change| change.shelf == shelf));
        let names: Array = used.map(|shelf| JsValue::from(shelf.name())).collect();
        let transaction = self.0.transaction_with_str_sequence_and_mode(&names, IdbTransactionMode::Readwrite)?;
        for Change { shelf, key, value } in changes {
            let shelf = transaction.object_store(shelf.name())?;
            match value {
                Some(value) => shelf.put_with_key(value, key)?,
                None => shelf.delete(key)?,
            };
        }
        let promise = Promise::new(&mut |resolve, reject| {
            transaction.set_oncomplete(Some(&resolve));
            transaction.set_onabort(Some(&reject));
        });
        let done = JsFuture::from(promise).await;
        done.map(|_| ()).map_err(|_| transaction.error().map_or(JsValue::NULL, DomException::into))
    }

    /// What is under a key; `undefined` if nothing is.
    pub async fn get(&self, shelf: Shelf, key: impl Into<JsValue>) -> Option<JsValue> {
        let key = key.into();
        let value = self.read(shelf, |shelf| shelf.get(&key)).await.ok()?;
        (!value.is_undefined()).then_some(value)
    }

    /// The bytes under a key.
    pub async fn bytes(&self, shelf: Shelf, key: impl Into<JsValue>) -> Option<Vec<u8>> {
        Some(self.get(shelf, key).await?.dyn_into::<Uint8Array>().ok()?.to_vec())
    }

    /// Everything on a shelf.
    ///
    /// # Errors
    /// What the browser says.
    pub async fn all(&self, shelf: Shelf) -> Result<Array, JsValue> {
        self.read(shelf, web_sys::IdbObjectStore::get_all).await.map(JsCast::unchecked_into)
    }

    /// All keys on a shelf.
    pub async fn keys(&self, shelf: Shelf) -> Array {
        let keys = self.read(shelf, web_sys::IdbObjectStore::get_all_keys).await;
        keys.map_or_else(|_| Array::new(), JsCast::unchecked_into)
    }

    async fn read(
        &self,
        shelf: Shelf,
        ask: impl Fn(&web_sys::IdbObjectStore) -> Result<IdbRequest, JsValue>,
    ) -> Result<JsValue, JsValue> {
        let transaction = self.0.transaction_with_str(shelf.name())?;
        let request = ask(&transaction.object_store(shelf.name())?)?;
        result(&request).await
    }
}

async fn result(request: &IdbRequest) -> Result<JsValue, JsValue> {
    let promise = Promise::new(&mut |resolve, reject| {
        request.set_onsuccess(Some(&resolve));
        request.set_onerror(Some(&reject));
    });
    match JsFuture::from(promise).await {
        Ok(_) => request.result(),
        Err(_) => Err(request.error()?.map_or(JsValue::NULL, DomException::into)),
    }
}
