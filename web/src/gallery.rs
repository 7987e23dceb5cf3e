//! The finished pictures that this browser keeps: what is known of each, which are shown, and how they travel.

use std::collections::BTreeSet;
use std::ops::Range;

use kosmosg::picture::Recipe;
use serde::{Deserialize, Serialize};

use crate::composition::sentence;

/// How long a deleted picture can be brought back.
pub const UNDO_MS: f64 = 10_000.0;
/// After this, one that was deleted goes for good, also if the page that did it was closed.
pub const DELETED_MS: f64 = 60_000.0;
/// Name of the list in a zip file.
pub const LIST: &str = "gallery.json";
/// Smaller files are shown in small as they are.
pub const SMALL_BYTES: u64 = 16 << 10;

/// What is known of a kept picture; its recipe is in its file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Its key: the time at which it was made and some chance, so that two tabs do not take the same.
    pub id: u64,
    /// The prompt in words, each picture by its name.
    pub words: String,
    /// What it was steered away from.
    pub negative: String,
    /// Its seed.
    pub seed: u64,
    /// Key of its file, by which the same one is known again; empty where an earlier page kept it.
    pub file: String,
    /// Its width in pixels.
    pub width: u32,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: f64,
    /// How long that took.
    pub seconds: f64,
    /// Where, in words that follow "Made".
    pub place: String,
    /// Whether it is a favourite.
    pub favourite: bool,
    /// Bytes that it takes, the prompt's pictures left out.
    pub bytes: u64,
    /// The prompt's pictures, by their keys; an empty one for a picture that is not at hand.
    pub pictures: Vec<String>,
    /// Bytes of these.
    pub picture_bytes: Vec<u64>,
    /// When it was deleted.
    pub deleted_ms: Option<f64>,
}

impl Entry {
    /// An entry for a picture of that recipe; `png` is its file without the prompt's pictures.
    pub fn of(recipe: &Recipe, png: &[u8], made_ms: f64, chance: u64) -> Self {
        Self {
            id: made_ms.max(0.0) as u64 * 1000 + chance % 1000,
            words: sentence(&recipe.prompt),
            negative: recipe.negative.clone(),
            seed: recipe.seed,
            file: file_key(png, 0),
            width: recipe.width,
            made_ms,
            ..Self::default()
        }
    }

    fn is_found(&self, query: &[String]) -> bool {
        let (words, negative, seed) = (small(&self.words), small(&self.negative), self.seed.to_string());
        query.iter().all(|word| words.contains(word) || negative.contains(word) || seed == *word)
    }

    fn is_same(&self, other: &Self) -> bool {
        match self.file.is_empty() || other.file.is_empty() {
            false => self.file == other.file,
            true => (self.seed, self.made_ms, &self.words) == (other.seed, other.made_ms, &other.words),
        }
    }
}

/// A file's key among the prompts' pictures. Two files may have the same hash (FNV-1a) and length: `attempt` tells them apart.
pub fn file_key(file: &[u8], attempt: usize) -> String {
    let next = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = file.iter().fold(0xcbf2_9ce4_8422_2325, next);
    format!("{hash:016x}-{}-{attempt}", file.len())
}

/// Words in small letters. The browser's own know all scripts; those of the language would be a tenth of the program's data.
#[cfg(target_arch = "wasm32")]
fn small(words: &str) -> String {
    js_sys::JsString::from(words).to_lower_case().into()
}

#[cfg(not(target_arch = "wasm32"))]
fn small(words: &str) -> String {
    words.to_lowercase()
}

/// All kept pictures, and which of them are wanted.
#[derive(Debug, Default)]
pub struct Gallery {
    /// By key.
    entries: Vec<Entry>,
    /// What is searched for, in small letters.
    query: Vec<String>,
    /// Whether only favourites are shown.
    pub only_favourites: bool,
    /// Keys of those that are selected; none while nothing is being selected.
    pub selected: Option<Vec<u64>>,
}

impl Gallery {
    /// Takes over what is kept.
    pub fn set(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries.clear();
        // Which come in the order of their keys, or nearly.
        entries.into_iter().for_each(|entry| self.put(entry));
        if let Some(mut selected) = self.selected.take() {
            selected.retain(|&id| self.get(id).is_some_and(|entry| entry.deleted_ms.is_none()));
            self.selected = Some(selected);
        }
    }

    /// Adds or replaces one.
    pub fn put(&mut self, entry: Entry) {
        match self.entries.binary_search_by_key(&entry.id, |entry| entry.id) {
            Ok(at) => self.entries[at] = entry,
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Removes one for good.
    pub fn remove(&mut self, id: u64) {
        self.entries.retain(|entry| entry.id != id);
    }

    /// The entry of that key.
    pub fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok().map(|at| &self.entries[at])
    }

    /// Searches for words; all of them must be there.
    pub fn search(&mut self, query: &str) {
        self.query = query.split_whitespace().map(small).collect();
    }

    /// Whether not all are shown.
    pub fn is_filtered(&self) -> bool {
        self.only_favourites || !self.query.is_empty()
    }

    /// Those that are not deleted, oldest first.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.deleted_ms.is_none())
    }

    /// Keys of those that are shown, newest first.
    pub fn shown(&self) -> Vec<u64> {
        self.kept().rev().filter(|entry| self.is_shown(entry)).map(|entry| entry.id).collect()
    }

    fn is_shown(&self, entry: &Entry) -> bool {
        (entry.favourite || !self.only_favourites) && entry.is_found(&self.query)
    }

    /// Those that an export takes: the selected ones, or all that are shown; oldest first.
    pub fn wanted(&self) -> Vec<Entry> {
        let selected = self.selected.as_ref().filter(|selected| !selected.is_empty());
        let is_wanted = |entry: &&Entry| selected.map_or(self.is_shown(entry), |selected| selected.contains(&entry.id));
        self.kept().filter(is_wanted).cloned().collect()
    }

    /// Number and bytes of what is kept. A picture that stands in several prompts is there once.
    pub fn total(&self) -> (usize, u64) {
        let mut known = BTreeSet::new();
        let mut bytes = 0;
        for entry in &self.entries {
            bytes += entry.bytes;
            let pictures = entry.pictures.iter().zip(&entry.picture_bytes);
            bytes += pictures.filter(|(key, _)| known.insert(*key)).map(|(_, bytes)| bytes).sum::<u64>();
        }
        (self.kept().count(), bytes)
    }

    /// Those that were deleted so long ago that they go for good.
    pub fn overdue(&self, now_ms: f64, after_ms: f64) -> Vec<u64> {
        let is_over = |entry: &&Entry| entry.deleted_ms.is_some_and(|deleted| now_ms - deleted >= after_ms);
        self.entries.iter().filter(is_over).map(|entry| entry.id).collect()
    }

    /// Keys of an entry's pictures that no other prompt has.
    pub fn pictures_only_in(&self, id: u64) -> Vec<String> {
        let others = || self.entries.iter().filter(|entry| entry.id != id).flat_map(|entry| &entry.pictures);
        let own = self.get(id).map_or(&[][..], |entry| &entry.pictures);
        own.iter().filter(|key| !key.is_empty() && !others().any(|other| other == *key)).cloned().collect()
    }

    /// Whether one is here already that comes from elsewhere; a deleted one is not.
    pub fn has(&self, entry: &Entry) -> bool {
        self.kept().any(|known| known.is_same(entry))
    }
}

/// A grid of squares, of which only some rows are there. Lengths are in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Squares in a row.
    pub columns: usize,
    /// Height of a row.
    side: f64,
    /// Distance of two rows.
    gap: f64,
}

impl Grid {
    /// The grid whose `grid-template-columns` and `row-gap` a browser computes as these; none if it shows nothing.
    pub fn of(columns: &str, gap: &str) -> Option<Self> {
        let pixels = |length: &str| length.strip_suffix("px")?.parse::<f64>().ok();
        let widths: Vec<f64> = columns.split_whitespace().map(pixels).collect::<Option<_>>()?;
        let side = *widths.first().filter(|side| **side > 0.0)?;
        Some(Self { columns: widths.len(), side, gap: pixels(gap).unwrap_or(0.0) })
    }

    /// Which rows of `count` squares are between two heights, both from the grid's top.
    pub fn rows_between(&self, count: usize, top: f64, bottom: f64) -> Range<usize> {
        let (pitch, all) = (self.side + self.gap, count.div_ceil(self.columns));
        // Negative ones become 0.
        let first = ((top / pitch).floor() as usize).min(all);
        first..((bottom / pitch).ceil() as usize).clamp(first, all)
    }

    /// Which of `count` squares are in these rows.
    pub fn of_rows(&self, rows: &Range<usize>, count: usize) -> Range<usize> {
        (rows.start * self.columns).min(count)..(rows.end * self.columns).min(count)
    }

    /// The room above these rows and below them that all rows of `count` squares take.
    pub fn room_around(&self, rows: &Range<usize>, count: usize) -> (f64, f64) {
        let height = |rows: usize| (rows as f64 * (self.side + self.gap) - self.gap).max(0.0);
        let above = rows.start as f64 * (self.side + self.gap);
        (above, (height(count.div_ceil(self.columns)) - above - height(rows.len())).max(0.0))
    }
}

/// What a zip file says of a picture in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Packed {
    /// The name of its file.
    pub file: String,
    /// See [`Entry::made_ms`].
    pub made_ms: f64,
    /// See [`Entry::seconds`].
    pub seconds: f64,
    /// See [`Entry::place`].
    pub place: String,
    /// See [`Entry::favourite`].
    pub favourite: bool,
}

impl Packed {
    /// What is said of an entry, the `number`th of the file.
    pub fn of(entry: &Entry, number: usize) -> Self {
        let Entry { seed, made_ms, seconds, place, favourite, .. } = entry.clone();
        Self { file: format!("kosmos-{:04}-{seed}.png", number + 1), made_ms, seconds, place, favourite }
    }

    /// The list of a zip file; an empty one if it cannot be read, since all it says can be done without.
    pub fn list(json: &[u8]) -> Vec<Self> {
        kosmosg::json::read(json).unwrap_or_default()
    }

    /// The entry of a picture from elsewhere that the list names, or does not name.
    pub fn entry(list: &[Self], file: &str, (recipe, png): (&Recipe, &[u8]), now_ms: f64, chance: u64) -> Entry {
        let packed = list.iter().find(|packed| packed.file == file).cloned().unwrap_or_default();
        let is_time = (1.0..=now_ms).contains(&packed.made_ms);
        let made_ms = if is_time { packed.made_ms } else { now_ms };
        let seconds = if packed.seconds.is_finite() { packed.seconds.max(0.0) } else { 0.0 };
        let place = packed.place.chars().take(80).collect();
        Entry { seconds, place, favourite: packed.favourite, ..Entry::of(recipe, png, made_ms, chance) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composition::tests::recipe;

    fn entry(id: u64, words: &str) -> Entry {
        Entry { id, words: words.into(), bytes: 10, ..Entry::default() }
    }

    fn gallery() -> Gallery {
        let mut gallery = Gallery::default();
        let favourite = Entry { favourite: true, ..entry(2, "A red fox, Ärger") };
        gallery.set(vec![entry(3, "a fox on the moon"), entry(1, "a cat"), favourite]);
        gallery
    }

    #[test]
    fn files_are_told_apart() {
        assert_eq!(file_key(b"a", 0), "af63dc4c8601ec8c-1-0");
        assert_ne!(file_key(b"a", 0), file_key(b"a", 1));
    }

    #[test]
    fn the_newest_comes_first_and_words_are_found() {
        let mut gallery = gallery();
        assert_eq!(gallery.shown(), [3, 2, 1]);
        gallery.search("  FOX ");
        assert_eq!(gallery.shown(), [3, 2]);
        gallery.search("fox ärger");
        assert_eq!(gallery.shown(), [2]);
        gallery.search("");
        gallery.only_favourites = true;
        assert!(gallery.is_filtered());
        assert_eq!(gallery.shown(), [2]);
    }

    #[test]
    fn what_is_deleted_can_come_back_for_a_while() {
        let mut gallery = gallery();
        gallery.selected = Some([1, 3].into());
        let deleted = Entry { deleted_ms: Some(1000.0), ..gallery.get(3).unwrap().clone() };
        gallery.put(deleted.clone());
        assert_eq!(gallery.shown(), [2, 1]);
        assert_eq!(gallery.wanted().len(), 1, "it is not exported either");
        assert!(gallery.overdue(1000.0 + DELETED_MS - 1.0, DELETED_MS).is_empty());
        assert_eq!(gallery.overdue(1000.0 + DELETED_MS, DELETED_MS), [3]);
        gallery.put(Entry { deleted_ms: None, ..deleted });
        assert_eq!(gallery.shown(), [3, 2, 1]);
        gallery.remove(3);
        assert_eq!(gallery.get(3), None);
    }

    #[test]
    fn a_picture_of_several_prompts_is_counted_and_removed_once() {
        let mut gallery = gallery();
        for (id, keys) in [(1, &["a", "b", ""][..]), (2, &["b"])] {
            let pictures = keys.iter().map(|&key| key.to_owned()).collect();
            let entry = Entry { pictures, picture_bytes: vec![100, 1000, 0], ..gallery.get(id).unwrap().clone() };
            gallery.put(entry);
        }
        let with = |id: u64| gallery.pictures_only_in(id);
        assert_eq!((with(1), with(2), with(3)), (vec!["a".to_owned()], vec![], vec![]));
        let (pictures, bytes) = gallery.total();
        assert_eq!(pictures, 3);
        assert_eq!(bytes, 3 * 10 + 100 + 1000);
    }

    #[test]
    fn a_grid_has_the_rows_near_the_window_and_room_for_the_others() {
        let grid = Grid::of("90px 90px 90px", "10px").unwrap();
        assert_eq!(grid.columns, 3);
        // Ten rows, the last of one square; the window shows from the middle of the third to the middle of the fifth.
        let rows = grid.rows_between(28, 250.0, 450.0);
        assert_eq!((rows.clone(), grid.of_rows(&rows, 28)), (2..5, 6..15));
        assert_eq!(grid.room_around(&rows, 28), (200.0, 500.0));
        // At either end, and far from it.
        assert_eq!(grid.rows_between(28, -800.0, 100.0), 0..1);
        assert_eq!(grid.of_rows(&(9..10), 28), 27..28);
        assert_eq!(grid.room_around(&(9..10), 28), (900.0, 0.0));
        for (top, bottom, rows) in [(-900.0, -100.0, 0..0), (5000.0, 6000.0, 10..10)] {
            assert_eq!(grid.rows_between(28, top, bottom), rows);
            let (above, below) = grid.room_around(&rows, 28);
            assert!((above + below - 990.0).abs() <= 10.0, "the page keeps its height: {above} {below}");
        }
        assert_eq!(grid.room_around(&(0..0), 0), (0.0, 0.0));
        for (columns, gap) in [("none", "normal"), ("repeat(3, 1fr)", "10px"), ("0px 0px", "10px"), ("", "")] {
            assert_eq!(Grid::of(columns, gap), None, "{columns}");
        }
    }

    #[test]
    fn an_export_takes_what_is_selected_or_shown() {
        let mut gallery = gallery();
        let ids = |gallery: &Gallery| gallery.wanted().iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(&gallery), [1, 2, 3]);
        gallery.search("fox");
        assert_eq!(ids(&gallery), [2, 3]);
        gallery.selected = Some(Vec::new());
        assert_eq!(ids(&gallery), [2, 3]);
        gallery.selected = Some([1].into());
        assert_eq!(ids(&gallery), [1]);
    }

    #[test]
    fn what_was_exported_comes_back_as_it_was() {
        let now = 1.8e12;
        let made = Entry {
            seconds: 3.0,
            place: "here".into(),
            favourite: true,
            ..Entry::of(&recipe(1), b"png", now - 5.0, 7)
        };
        let list = vec![Packed::of(&made, 0)];
        let json = serde_json::to_vec(&list).unwrap();
        let read = Packed::list(&json);
        let file = (&recipe(1), &b"png"[..]);
        assert_eq!(Packed::entry(&read, "kosmos-0001-18446744073709551615.png", file, now, 7), made);
        let mut gallery = Gallery::default();
        gallery.put(made.clone());
        assert!(gallery.has(&Entry { id: 5, ..made.clone() }));
        // A file that came alone, without the time at which it was made.
        assert!(gallery.has(&Packed::entry(&[], "saved.png", file, now, 8)));
        assert!(!gallery.has(&Packed::entry(&[], "saved.png", (&recipe(1), b"other"), now, 8)));
        gallery.put(Entry { file: String::new(), ..made.clone() });
        assert!(gallery.has(&made) && !gallery.has(&Entry { seed: 5, ..made }));
        // A list from elsewhere may say anything.
        let odd = Packed {
            file: "x".into(),
            made_ms: 1e300,
            seconds: f64::INFINITY,
            place: "x".repeat(999),
            ..Packed::default()
        };
        let entry = Packed::entry(&[odd], "x", (&recipe(0), b""), now, 0);
        assert_eq!((entry.made_ms, entry.seconds, entry.place.len()), (now, 0.0, 80));
        assert_eq!(Packed::list(b"no list"), []);
    }

    #[test]
    fn keys_of_one_moment_differ_by_chance() {
        let id = |chance| Entry::of(&recipe(0), b"", 1_800_000_000_000.5, chance).id;
        assert_ne!(id(1), id(2));
        // JavaScript's numbers hold it.
        assert!(id(999) < 1 << 53);
    }
}
