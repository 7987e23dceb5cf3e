//! The pictures that stand in the sentence, or stood there: undo may bring them back.

use std::cell::RefCell;
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use kosmosg::protocol::PictureFile;

use super::dom;

/// What kind of file keeps the place of a picture that did not come along. No picture of the person's is of that kind.
const PLACEHOLDER: &str = "image/svg+xml";

/// The pictures by number. Numbers are never used again, those that nothing can bring back are empty.
#[derive(Default)]
pub struct Pictures(RefCell<Vec<Option<Entry>>>);

struct Entry {
    file: Rc<Vec<u8>>,
    mime: String,
    address: String,
    name: String,
    /// Whether it has stood in the sentence. What waits for its place there is not to be taken away.
    was_placed: bool,
}

impl Pictures {
    /// Takes a picture's file; the same file again is the same picture.
    pub fn add(&self, name: &str, mime: &str, file: Vec<u8>) -> ImageRef {
        let mut entries = self.0.borrow_mut();
        let is_same = |entry: &Entry| *entry.file == file && entry.name == name;
        let known = entries.iter().position(|entry| entry.as_ref().is_some_and(is_same));
        let picture = known.unwrap_or_else(|| {
            let address = dom::address_of(&file, mime);
            let (name, mime) = (name.to_owned(), mime.to_owned());
            entries.push(Some(Entry { file: Rc::new(file), mime, address, name, was_placed: false }));
            entries.len() - 1
        });
        if let Some(entry) = &mut entries[picture] {
            entry.was_placed = false;
        }
        ImageRef { picture, name: name.to_owned() }
    }

    /// The picture with that number, as a place in a prompt.
    pub fn get(&self, picture: usize) -> Option<ImageRef> {
        self.with(picture, |entry| ImageRef { picture, name: entry.name.clone() })
    }

    /// Its address, for showing it.
    pub fn address(&self, picture: usize) -> Option<String> {
        self.with(picture, |entry| entry.address.clone())
    }

    /// Its file and what kind of file it is.
    pub fn file(&self, picture: usize) -> Option<(Rc<Vec<u8>>, String)> {
        self.with(picture, |entry| (entry.file.clone(), entry.mime.clone()))
    }

    /// Whether that one only keeps the place of a picture that did not come along.
    pub fn is_missing(&self, picture: usize) -> bool {
        self.with(picture, |entry| entry.mime == PLACEHOLDER).unwrap_or(false)
    }

    /// The picture of that name and file, if it is here.
    pub fn known(&self, name: &str, file: &[u8]) -> Option<ImageRef> {
        let entries = self.0.borrow();
        let is_it = |entry: &Entry| *entry.file == file && entry.name == name;
        let picture = entries.iter().position(|entry| entry.as_ref().is_some_and(is_it))?;
        Some(ImageRef { picture, name: name.to_owned() })
    }

    /// The files of some pictures.
    pub fn files(&self, numbers: &[usize]) -> Vec<PictureFile> {
        numbers.iter().filter_map(|&number| Some(PictureFile(self.file(number)?.0.to_vec()))).collect()
    }

    /// How many there have been.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Bytes of those that stand in the sentence or stood there.
    pub fn bytes(&self) -> usize {
        let entries = self.0.borrow();
        entries.iter().flatten().filter(|entry| entry.was_placed).map(|entry| entry.file.len()).sum()
    }

    /// Notes that pictures do not wait for a place in the sentence any more.
    pub fn refuse(&self, images: &[ImageRef]) {
        let mut entries = self.0.borrow_mut();
        for image in images {
            if let Some(entry) = &mut entries[image.picture] {
                entry.was_placed = true;
            }
        }
    }

    /// Lets go of the pictures that have stood in the sentence and are not among these.
    pub fn keep_only(&self, wanted: &[usize]) {
        for (number, slot) in self.0.borrow_mut().iter_mut().enumerate() {
            let Some(entry) = slot else { continue };
            if wanted.contains(&number) {
                entry.was_placed = true;
            } else if entry.was_placed {
                dom::revoke(&entry.address);
                *slot = None;
            }
        }
    }

    fn with<T>(&self, picture: usize, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.0.borrow().get(picture)?.as_ref().map(read)
    }
}
