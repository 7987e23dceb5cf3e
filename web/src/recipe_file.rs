//! A picture's recipe in its PNG file, with the pictures of its prompt: the file alone makes the picture again.
//!
//! [`Recipe`] is two texts in the file. The prompt's pictures stand beside them in chunks of our own, before the end:
//!
//! | chunk `kgPi` | |
//! |---|---|
//! | 2 bytes | the picture's number in the prompt, big-endian |
//! | 2 bytes | the number of a picture before it that has the same file, or its own |
//! | the rest | its file, byte by byte; nothing where another has it |
//!
//! What a person calls it stands in the prompt. As PNG says it, the name of the chunk means that programs may ignore it
//! (`k`), that no standard knows it (`g`), and that it stays valid when the pixels change (`i`), as texts do.

use std::ops::Range;

use kosmosg::picture::Recipe;
use kosmosg::protocol::{MAX_REQUEST_BYTES, MAX_REQUEST_PICTURES, PictureFile};

use crate::checksum::crc32;
use crate::composition::{Composition, TooMuch};
use crate::texts;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const PICTURE: [u8; 4] = *b"kgPi";
const TEXT: [u8; 4] = *b"iTXt";
const LATIN: [u8; 4] = *b"tEXt";
const END: [u8; 4] = *b"IEND";
/// How an uncompressed text of ours begins: name, no compression, no language.
const OURS: &[u8] = b"kosmosg\0\0\0\0\0";
const PARAMETERS: &[u8] = b"parameters\0";
/// Longest recipe that is read: twice the longest text in letters of six bytes, and then some.
const MAX_RECIPE_BYTES: usize = 1 << 20;
/// Bytes of a chunk beside its data: length, kind and checksum.
const FRAME: usize = 12;

/// A recipe and the pictures that travel with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// The recipe.
    pub recipe: Recipe,
    /// The pictures' files by number.
    pub pictures: Vec<Option<PictureFile>>,
}

impl Carried {
    /// What makes the picture again.
    ///
    /// # Errors
    /// [`TooMuch`] for what no person composes.
    pub fn composition(&self) -> Result<Composition, TooMuch> {
        Composition::of(&self.recipe, |number| self.pictures.get(number).cloned().flatten())
    }
}

/// A recipe is there, and cannot be read: for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", texts::RECIPE_DAMAGED)]
pub struct Damaged;

/// What a file carries; nothing where it is no PNG file or none with a recipe of ours.
///
/// # Errors
/// [`Damaged`] if recipe or pictures are damaged or more than there may be.
pub fn read(png: &[u8]) -> Result<Option<Carried>, Damaged> {
    let Some(recipe) = recipe_of(png) else { return Ok(None) };
    let recipe: Recipe = kosmosg::json::read(recipe?).map_err(|_| Damaged)?;
    let mut pictures: Vec<Option<PictureFile>> = Vec::new();
    let mut bytes = 0;
    for chunk in chunks(png).filter(|chunk| chunk.kind == PICTURE) {
        let data = chunk.checked(png)?;
        let (&[a, b, c, d], file) = data.split_first_chunk().ok_or(Damaged)?;
        let number = usize::from(u16::from_be_bytes([a, b]));
        let same = usize::from(u16::from_be_bytes([c, d]));
        if number >= MAX_REQUEST_PICTURES {
            return Err(Damaged);
        }
        let file =
            if same == number { Some(PictureFile(file.to_vec())) } else { pictures.get(same).cloned().flatten() };
        bytes += file.as_ref().map_or(0, |file| file.0.len());
        if bytes > MAX_REQUEST_BYTES {
            return Err(Damaged);
        }
        if pictures.len() <= number {
            pictures.resize(number + 1, None);
        }
        pictures[number] = file;
    }
    Ok(Some(Carried { recipe, pictures }))
}

/// Whether a file carries a recipe.
pub fn has_recipe(png: &[u8]) -> bool {
    recipe_of(png).is_some()
}

/// The file with the recipe, unless it has one, and with these pictures in the place of those it has. What is no PNG file
/// stays as it is.
pub fn write(png: &[u8], recipe: &Recipe, pictures: &[Option<PictureFile>]) -> Vec<u8> {
    let (mut texts, mut added) = (Vec::new(), Vec::new());
    if !has_recipe(png) {
        let parameters = recipe.parameters().replace('\0', " ");
        // As the recipe's own module writes it.
        if parameters.chars().all(|c| u32::from(c) < 256) {
            let latin: Vec<u8> = parameters.chars().map(|c| c as u8).collect();
            push_chunk(&mut texts, LATIN, &[PARAMETERS, &latin]);
        } else {
            push_chunk(&mut texts, TEXT, &[PARAMETERS, b"\0\0\0\0", parameters.as_bytes()]);
        }
        let json = serde_json::to_vec(recipe).expect("strings and numbers are always JSON");
        push_chunk(&mut texts, TEXT, &[OURS, &json]);
    }
    for (number, picture) in (0_u16..).zip(pictures) {
        let Some(file) = picture else { continue };
        let same = (0_u16..).zip(pictures).find(|(_, other)| *other == picture).map_or(number, |(first, _)| first);
        let bytes = if same == number { file.0.as_slice() } else { &[] };
        push_chunk(&mut added, PICTURE, &[&number.to_be_bytes(), &same.to_be_bytes(), bytes]);
    }
    rewrite(png, &texts, &added)
}

/// The file without the pictures.
pub fn without_pictures(png: &[u8]) -> Vec<u8> {
    rewrite(png, &[], &[])
}

/// The file with `texts` behind its header, where readers look for them before they unpack pixels, `added` before its end, and
/// without the pictures that it has.
fn rewrite(png: &[u8], texts: &[u8], added: &[u8]) -> Vec<u8> {
    let Some(end) = chunks(png).find(|chunk| chunk.kind == END) else { return png.to_vec() };
    let mut written = SIGNATURE.to_vec();
    for chunk in chunks(png).filter(|chunk| chunk.kind != PICTURE && chunk.whole.start < end.whole.start) {
        written.extend_from_slice(&png[chunk.whole.clone()]);
        if chunk.whole.start == SIGNATURE.len() {
            written.extend_from_slice(texts);
        }
    }
    written.extend_from_slice(added);
    written.extend_from_slice(&png[end.whole]);
    written
}

/// The recipe's text, if there is one.
fn recipe_of(png: &[u8]) -> Option<Result<&[u8], Damaged>> {
    chunks(png).filter(|chunk| chunk.kind == TEXT).find_map(|chunk| {
        let name = png[chunk.data.clone()].strip_prefix(&OURS[..8])?;
        let checked = || {
            let text = chunk.checked(png)?.strip_prefix(OURS).ok_or(Damaged)?;
            if text.len() <= MAX_RECIPE_BYTES { Ok(text) } else { Err(Damaged) }
        };
        (!name.is_empty()).then(checked)
    })
}

fn push_chunk(png: &mut Vec<u8>, kind: [u8; 4], data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    let parts = [&[&kind[..]], data].concat();
    png.extend((length as u32).to_be_bytes());
    parts.iter().for_each(|part| png.extend_from_slice(part));
    png.extend(crc32(&parts).to_be_bytes());
}

/// A stretch of a PNG file.
struct Chunk {
    kind: [u8; 4],
    /// Where its data is.
    data: Range<usize>,
    /// Where all of it is.
    whole: Range<usize>,
}

impl Chunk {
    /// Its data, if its checksum is right.
    fn checked<'a>(&self, png: &'a [u8]) -> Result<&'a [u8], Damaged> {
        let data = &png[self.data.clone()];
        let crc = png[self.data.end..self.whole.end].first_chunk().map(|&crc| u32::from_be_bytes(crc));
        if crc == Some(crc32(&[&self.kind, data])) { Ok(data) } else { Err(Damaged) }
    }
}

/// The chunks of a PNG file up to its end, or to where it is torn.
fn chunks(png: &[u8]) -> impl Iterator<Item = Chunk> {
    let mut at = if png.starts_with(SIGNATURE) { SIGNATURE.len() } else { png.len() };
    std::iter::from_fn(move || {
        let (&[a, b, c, d, e, f, g, h], _) = png.get(at..)?.split_first_chunk()?;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let whole = at..at.checked_add(FRAME)?.checked_add(length)?;
        let data = at + 8..whole.end - 4;
        png.get(whole.clone())?;
        let kind = [e, f, g, h];
        at = if kind == END { png.len() } else { whole.end };
        Some(Chunk { kind, data, whole })
    })
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;
    use kosmosg::picture::Picture;

    use super::*;
    use crate::composition::tests::recipe;

    fn picture() -> Picture {
        Picture::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap()
    }

    fn files(files: &[&[u8]]) -> Vec<Option<PictureFile>> {
        files.iter().map(|file| Some(PictureFile(file.to_vec()))).collect()
    }

    #[test]
    fn a_file_brings_recipe_and_pictures() {
        for made in [picture().to_png(Some(&recipe(3))), picture().to_png(None)] {
            let pictures = files(&[b"one", b"", b"one"]);
            let png = write(&made, &recipe(3), &pictures);
            assert_eq!(read(&png), Ok(Some(Carried { recipe: recipe(3), pictures })));
            assert_eq!(Picture::decode(&png).unwrap(), picture(), "every reader still reads it");
            assert_eq!(Recipe::read(&png).unwrap(), Some(recipe(3)));
            // What is the same is there once.
            assert_eq!(png.windows(3).filter(|window| window == b"one").count(), 1);
            assert!(png.windows(18).any(|window| window == b"tEXtparameters\0a <"));
            assert_eq!(write(&png, &recipe(0), &files(&[b"two"])).len(), without_pictures(&png).len() + FRAME + 7);
        }
        let made = picture().to_png(Some(&recipe(1)));
        assert_eq!(without_pictures(&write(&made, &recipe(1), &files(&[b"file"]))), made);
    }

    #[test]
    fn names_beyond_latin_are_written() {
        let recipe = Recipe { negative: "猫 \0".into(), ..recipe(0) };
        let png = write(&picture().to_png(None), &recipe, &[]);
        assert_eq!(Recipe::read(&png).unwrap(), Some(recipe));
    }

    #[test]
    fn other_files_carry_nothing() {
        let jpeg = [0xff, 0xd8, 0xff];
        for file in [&b""[..], b"text", &jpeg, SIGNATURE, &picture().to_png(None)] {
            assert_eq!(read(file), Ok(None));
            assert!(!has_recipe(file));
        }
        assert_eq!(write(&jpeg, &recipe(0), &[]), jpeg);
        let torn = &picture().to_png(None)[..50];
        assert_eq!(write(torn, &recipe(0), &[]), torn);
    }

    #[test]
    fn a_damaged_recipe_is_refused() {
        let png = write(&picture().to_png(None), &recipe(1), &files(&[b"file"]));
        let with = |data: &[&[u8]], kind| {
            let mut added = Vec::new();
            push_chunk(&mut added, kind, data);
            rewrite(&picture().to_png(Some(&recipe(1))), &[], &added)
        };
        assert_eq!(read(&with(&[b"\0\0\0"], PICTURE)), Err(Damaged), "too short");
        assert_eq!(read(&with(&[b"\xff\xff\xff\xfffile"], PICTURE)), Err(Damaged), "far too many");
        let missing = read(&with(&[b"\0\0\0\x05file"], PICTURE)).unwrap().unwrap();
        assert_eq!(missing.pictures, [None], "the one that has it is not there");
        let bare = |data: &[&[u8]]| {
            let mut added = Vec::new();
            push_chunk(&mut added, TEXT, data);
            read(&rewrite(&picture().to_png(None), &added, &[]))
        };
        assert_eq!(bare(&[OURS, b"{}"]), Err(Damaged));
        assert_eq!(bare(&[b"kosmosg\0\x01\0\0\0", b"compressed"]), Err(Damaged));
        assert_eq!(bare(&[OURS, &vec![b' '; MAX_RECIPE_BYTES + 1]]), Err(Damaged));
        // Whatever happens to the file, it is read or refused, and what is read of our own is right.
        let mut rng = Rng::new(3, 0);
        for _ in 0..2000 {
            let mut changed = png.clone();
            changed[rng.below(png.len())] ^= 1 << rng.below(8);
            changed.truncate(changed.len() - rng.below(3) * rng.below(40));
            if let Ok(Some(carried)) = read(&changed) {
                assert_eq!(carried.recipe, recipe(1));
                assert!(carried.pictures.is_empty() || carried.pictures == files(&[b"file"]));
            }
            write(&changed, &recipe(0), &[]);
        }
    }
}
