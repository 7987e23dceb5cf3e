//! The pictures that stand in the sentence, or stood there: undo may bring them back.

use std::cell::RefCell;
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use kosmosg::protocol::PictureFile;

use super::dom;

/// All pictures since the page was opened, by number.
#[derive(Default)]
pub struct Pictures(RefCell<Vec<Entry>>);

struct Entry {
    file: Rc<Vec<u8>>,
    address: String,
    name: String,
}

impl Pictures {
    /// Takes a picture's file; the same file again is the same picture.
    pub fn add(&self, name: &str, mime: &str, file: Vec<u8>) -> ImageRef {
        let mut entries = self.0.borrow_mut();
        let known = entries.iter().position(|entry| *entry.file == file && entry.name == name);
        let picture = known.unwrap_or_else(|| {
            let address = dom::address_of(&file, mime);
            entries.push(Entry { file: Rc::new(file), address, name: name.to_owned() });
            entries.len() - 1
        });
        ImageRef { picture, name: name.to_owned() }
    }

    /// The picture with that number, as a place in a prompt.
    pub fn get(&self, picture: usize) -> Option<ImageRef> {
        let entries = self.0.borrow();
        entries.get(picture).map(|entry| ImageRef { picture, name: entry.name.clone() })
    }

    /// Its address, for showing it.
    pub fn address(&self, picture: usize) -> Option<String> {
        self.0.borrow().get(picture).map(|entry| entry.address.clone())
    }

    /// The files of some pictures.
    pub fn files(&self, numbers: &[usize]) -> Vec<PictureFile> {
        let entries = self.0.borrow();
        let file = |&number: &usize| Some(PictureFile(entries.get(number)?.file.to_vec()));
        numbers.iter().filter_map(file).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }
}
