//! Prepared files, as the published loaders read them: lines of cells between tabs, pictures in base64.
//!
//! | kind | cells |
//! |---|---|
//! | constructed | caption; entities, between commas; picture; then for each entity its cut-out and its cut-out with background |
//! | editing | caption; instruction; then pairs of pictures, before and after |
//! | captions | anything; caption; picture; its width and height |
//!
//! Where captions alone are read, what follows them may be missing.
//!
//! Source: *Kosmos-G*, section 3.1, and the filters of the loaders published with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kosmosg::digest::hex;
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use regex::{Regex, RegexBuilder};
use sha2::{Digest as _, Sha256};

use super::lines::{Lines, Parsed};
use super::{Constructed, Data, Item, Kind, Reader, Sample, Words, prompt};
use crate::train::config::{FileData, TrainConfig};
use crate::train::init::sample_rng;

/// Samples out of files.
#[derive(Debug)]
pub(in crate::train) struct Files {
    words: Words,
    /// Tokens that a caption may have in the text encoder.
    longest_caption: usize,
    /// Embeddings of a picture in the language model, and the tokens that it may see.
    latents: usize,
    longest: usize,
    smallest_side: u32,
    background_first: bool,
    constructed: Lines,
    editing: Lines,
    captions: Lines,
    /// Lines that could not be used, each named once.
    skipped: Mutex<BTreeSet<(PathBuf, u32)>>,
}

impl Files {
    /// Finds the lines of all shards; what was found is kept in the folder `index`.
    ///
    /// # Errors
    /// A shard is missing, or none of the lines that tell more than captions can be used.
    pub fn open(
        words: &Words,
        longest_caption: usize,
        config: &TrainConfig,
        data: &FileData,
        index: &Path,
    ) -> anyhow::Result<Self> {
        let kosmosg = &config.networks.kosmosg;
        let files = Self {
            words: words.clone(),
            longest_caption,
            latents: kosmosg.connector.latent_queries,
            longest: kosmosg.aligner.max_positions - 2,
            smallest_side: data.smallest_side,
            background_first: data.background_first,
            constructed: Lines::find(&data.constructed, index)?,
            editing: Lines::find(&data.editing, index)?,
            captions: Lines::find(&data.captions, index)?,
            skipped: Mutex::default(),
        };
        let all = Constructed { drop_words: 0.0, keep_background: 0.0, altered: 0.0 };
        files.constructed.check(|cells| files.parse_constructed(&mut Rng::new(0, 0), cells, all))?;
        files.editing.check(|cells| files.parse_edit(&mut Rng::new(0, 0), cells, 0.0))?;
        Ok(files)
    }

    /// A random line that can be used.
    fn pick<T>(&self, lines: &Lines, rng: &mut Rng, parse: impl Fn(&mut Rng, &[&str]) -> Parsed<T>) -> T {
        loop {
            let line = &lines.lines[rng.below(lines.lines.len())];
            match lines.read(line, |cells| parse(rng, cells)) {
                Ok(Some(sample)) => return sample,
                Ok(None) => {}
                Err(why) => self.skip(&lines.shards[line.shard], line.number, &why),
            }
        }
    }

    fn skip(&self, shard: &Path, number: u32, why: &str) {
        let mut skipped = self.skipped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if skipped.insert((shard.to_owned(), number)) {
            eprintln!("{}, line {number}: {why}; {} lines skipped so far", shard.display(), skipped.len());
        }
    }

    /// Whether the language model can take all of it.
    fn fits(&self, items: &[Item]) -> bool {
        let (document, _) = prompt(items.to_vec());
        self.words.tokenizer.sequence(&document, self.latents, self.longest).is_ok()
    }

    fn parse_constructed(&self, rng: &mut Rng, cells: &[&str], options: Constructed) -> Parsed<Sample> {
        let [caption, entities, target, cutouts @ ..] = cells else {
            return Err(format!("{} of at least 3 cells", cells.len()));
        };
        let entities: Vec<_> = entities.split(',').map(str::trim).collect();
        if cutouts.len() < 2 * entities.len() {
            return Err(format!("{} cut-outs for {} entities, which need 2 each", cutouts.len(), entities.len()));
        }
        let drop_words = rng.bool(options.drop_words);
        let mut used: Vec<_> = entities
            .iter()
            .enumerate()
            .filter_map(|(number, entity)| Some((number, Entity::new(entity, &entities, caption)?)))
            .collect();
        used.sort_by_key(|(_, entity)| entity.end);
        let (mut rest, mut items) = (*caption, Vec::new());
        for (number, entity) in used {
            // An entity inside of another's words is gone with them.
            let Some(found) = entity.pattern.find(rest) else { continue };
            let after = rest[found.end()..].find(ENDS).map_or(rest.len(), |length| found.end() + length);
            items.push(Item::Words(rest[..if drop_words { found.start() } else { after }].to_owned()));
            let cutout = cutouts[2 * number + usize::from(rng.bool(options.keep_background) != self.background_first)];
            items.push(Item::Picture(picture(cutout).map_err(|why| format!("entity {}: {why}", number + 1))?));
            rest = &rest[after..];
        }
        items.push(Item::Words(rest.to_owned()));
        let target = picture(target)?;
        Ok(self.fits(&items).then_some((items, target)))
    }

    fn parse_edit(&self, rng: &mut Rng, cells: &[&str], drop_caption: f64) -> Parsed<Sample> {
        let [caption, instruction, pictures @ ..] = cells else {
            return Err(format!("{} of at least 4 cells", cells.len()));
        };
        if pictures.len() < 2 {
            return Err("no picture before, or none after".into());
        }
        let caption = if rng.bool(drop_caption) { "" } else { caption };
        let pair = 2 * rng.below(pictures.len() / 2);
        let (source, target) = (picture(pictures[pair])?, picture(pictures[pair + 1])?);
        let items =
            vec![Item::Words(caption.to_owned()), Item::Picture(source), Item::Words((*instruction).to_owned())];
        Ok(self.fits(&items).then_some((items, target)))
    }

    /// Whether a caption's reader can read it to its end, with the published loader's limits.
    fn is_read(&self, caption: &str, reader: Reader) -> bool {
        let longest = if reader == Reader::Both { LONGEST_ALIGNED } else { LONGEST_PROMPT };
        let by_model =
            || self.words.tokenizer.encode(caption).len() <= longest && self.fits(&[Item::Words(caption.to_owned())]);
        let by_encoder = || self.words.for_text_encoder(caption).len() <= self.longest_caption;
        (reader == Reader::TextEncoder || by_model()) && (reader == Reader::LanguageModel || by_encoder())
    }

    fn parse_caption(&self, cells: &[&str], reader: Reader) -> Parsed<String> {
        let [_, caption, ..] = cells else {
            return Err(format!("{} of at least 2 cells", cells.len()));
        };
        Ok(self.is_read(caption, reader).then(|| (*caption).to_owned()))
    }

    /// A picture that is large enough, and its caption; of one that nobody is to read, `reader` is none.
    fn parse_captioned(&self, cells: &[&str], reader: Option<Reader>) -> Parsed<(String, Picture)> {
        let [_, caption, encoded, sides @ ..] = cells else {
            return Err(format!("{} of at least 3 cells", cells.len()));
        };
        if let [Ok(width), Ok(height), ..] = sides.iter().map(|side| side.parse::<u32>()).collect::<Vec<_>>()[..]
            && width.min(height) < self.smallest_side
        {
            return Ok(None);
        }
        if !reader.is_none_or(|reader| self.is_read(caption, reader)) {
            return Ok(None);
        }
        Ok(Some(((*caption).to_owned(), picture(encoded)?)))
    }

    fn parse_described(&self, cells: &[&str]) -> Parsed<Vec<Item>> {
        let described = self.parse_captioned(cells, Some(Reader::LanguageModel))?;
        let items = described.map(|(caption, picture)| vec![Item::Picture(picture), Item::Words(caption)]);
        Ok(items.filter(|items| self.fits(items)))
    }
}

/// Tokens of a caption in the language model, as the published loader limits them for alignment.
const LONGEST_ALIGNED: usize = 85;
/// The same for anything else.
const LONGEST_PROMPT: usize = 128;

/// What ends an entity whose word goes on: a plural's `s`, for one, belongs to it.
const ENDS: [char; 10] = [' ', ',', '.', '!', '?', ';', ':', ')', ']', '}'];

/// Words that name no thing.
const COLOURS: [&str; 16] = [
    "yellow", "blue", "red", "green", "white", "black", "brown", "grey", "gray", "purple", "pink", "orange", "cyan",
    "silver", "gold", "golden",
];

/// An entity of a caption.
struct Entity {
    pattern: Regex,
    /// Where its words end in the caption.
    end: usize,
}

impl Entity {
    /// `None` unless it stands in the caption as whole words, is more than a colour, and is in no other entity.
    fn new(entity: &str, all: &[&str], caption: &str) -> Option<Self> {
        if entity.is_empty() || COLOURS.contains(&entity) {
            return None;
        }
        let words = |ignore_case| {
            let pattern = format!(r"\b{}\b", regex::escape(entity));
            RegexBuilder::new(&pattern).case_insensitive(ignore_case).build().ok()
        };
        let (pattern, exact) = (words(true)?, words(false)?);
        let end = pattern.find(caption)?.end();
        (all.iter().filter(|other| exact.is_match(other)).count() <= 1).then_some(Self { pattern, end })
    }
}

fn picture(base64: &str) -> Result<Picture, String> {
    let bytes = STANDARD.decode(base64.trim()).map_err(|error| format!("a picture is not base64: {error}"))?;
    Picture::decode(&bytes).map_err(|error| format!("a picture cannot be read: {error}"))
}

impl Data for Files {
    fn check(&self, shares: &[(Kind, f64)]) -> anyhow::Result<()> {
        for (kind, _) in shares.iter().filter(|(_, share)| *share > 0.0) {
            let (name, lines) = match kind {
                Kind::Constructed => ("constructed", &self.constructed),
                Kind::Edit => ("editing", &self.editing),
                _ => ("captions", &self.captions),
            };
            if lines.lines.is_empty() {
                anyhow::bail!("the stage is to learn from `{name}`, but [data] names no files of that kind");
            }
            lines.check(|cells| {
                Ok(match *kind {
                    Kind::Picture => self.parse_captioned(cells, None)?.map(drop),
                    Kind::Caption(reader) => self.parse_caption(cells, reader)?.map(drop),
                    Kind::Captioned(reader) => self.parse_captioned(cells, Some(reader))?.map(drop),
                    Kind::Described => self.parse_described(cells)?.map(drop),
                    // These were checked when they were opened.
                    Kind::Constructed | Kind::Edit => Some(()),
                })
            })?;
        }
        Ok(())
    }

    /// Names and lengths of the shards: to read them all would take longer than a step.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for lines in [&self.constructed, &self.editing, &self.captions] {
            for (number, shard) in lines.shards.iter().enumerate() {
                let of_shard = lines.lines.iter().filter(|line| line.shard == number);
                hash.update(format!("{:?} {}\n", shard.file_name(), of_shard.map(|line| line.length).sum::<u64>()));
            }
            hash.update("\n");
        }
        hex(&hash.finalize())
    }

    fn picture(&self, rng: &mut Rng) -> Picture {
        self.pick(&self.captions, rng, |_, cells| self.parse_captioned(cells, None)).1
    }

    fn caption(&self, rng: &mut Rng, reader: Reader) -> String {
        self.pick(&self.captions, rng, |_, cells| self.parse_caption(cells, reader))
    }

    fn captioned(&self, rng: &mut Rng, reader: Reader) -> (String, Picture) {
        self.pick(&self.captions, rng, |_, cells| self.parse_captioned(cells, Some(reader)))
    }

    fn described(&self, rng: &mut Rng) -> Vec<Item> {
        self.pick(&self.captions, rng, |_, cells| self.parse_described(cells))
    }

    fn constructed(&self, rng: &mut Rng, options: Constructed) -> Sample {
        self.pick(&self.constructed, rng, |rng, cells| self.parse_constructed(rng, cells, options))
    }

    fn edit(&self, rng: &mut Rng, drop_caption: f64) -> Sample {
        self.pick(&self.editing, rng, |rng, cells| self.parse_edit(rng, cells, drop_caption))
    }

    fn showcase(&self, number: usize) -> Sample {
        let options = Constructed { drop_words: 1.0, keep_background: 0.0, altered: 0.0 };
        let mut rng = sample_rng(0, "instruct sheet", number as u64);
        if self.constructed.lines.is_empty() {
            return self.edit(&mut rng, 1.0);
        }
        self.constructed(&mut rng, options)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::train::vocabulary::vocabulary;

    /// A picture all in one shade, as a cell.
    fn shade(value: u8) -> String {
        STANDARD.encode(Picture::new(8, 8, vec![value; 3 * 8 * 8]).unwrap().to_png(None))
    }

    fn shade_of(picture: &Picture) -> u8 {
        picture.rgb()[0]
    }

    /// The file of a kind with these lines, and a configuration that names it.
    fn open(dir: &Path, kind: Kind, lines: &[String]) -> anyhow::Result<Files> {
        let shard = dir.join("shard.tsv");
        fs::write(&shard, lines.join("\n")).unwrap();
        let tokenizer = dir.join("tokenizer.json");
        fs::write(&tokenizer, vocabulary().to_json()).unwrap();
        let mut data = FileData {
            text_tokenizer: tokenizer.clone(),
            tokenizer,
            constructed: Vec::new(),
            editing: Vec::new(),
            captions: Vec::new(),
            smallest_side: 384,
            background_first: false,
        };
        match kind {
            Kind::Constructed => data.constructed.push(shard),
            Kind::Edit => data.editing.push(shard),
            _ => data.captions.push(shard),
        }
        let mut config = TrainConfig { data: Some(data.clone()), ..TrainConfig::tiny() };
        config.networks.kosmosg.aligner.max_positions = 128;
        Files::open(&Words::new(&config)?, 38, &config, &data, &dir.join("lines"))
    }

    const CAPTIONED: Kind = Kind::Captioned(Reader::TextEncoder);

    /// Why none of these captions with pictures can be used.
    fn refused(dir: &Path, lines: &[String]) -> String {
        open(dir, Kind::Picture, lines).unwrap().check(&[(CAPTIONED, 1.0)]).unwrap_err().to_string()
    }

    /// What a constructed sample of one line reads as, `<n>` for a picture of shade n.
    fn read(cells: &[&str], options: Constructed) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let cutouts: Vec<_> = (1..=6).map(|n| shade(n * 10)).collect();
        let line = [cells.join("\t"), shade(200), cutouts.join("\t")].join("\t");
        let files = open(dir.path(), Kind::Constructed, &[line]).ok()?;
        let (items, target) = files.constructed(&mut Rng::new(1, 0), options);
        assert_eq!(shade_of(&target), 200);
        let item = |item: &Item| match item {
            Item::Words(words) => words.clone(),
            Item::Picture(picture) => format!("<{}>", shade_of(picture)),
        };
        Some(items.iter().map(item).collect())
    }

    #[test]
    fn entities_become_pictures_in_the_captions_order() {
        const BOTH: Constructed = Constructed { drop_words: 0.0, keep_background: 0.0, altered: 0.0 };
        const PICTURES: Constructed = Constructed { drop_words: 1.0, keep_background: 1.0, altered: 0.0 };
        let caption = "A cat and two dogs, on a sofa.";
        let read_both = |caption, entities| read(&[caption, entities], BOTH);
        // A plural's ending belongs to the word; what stands first in the list does not come first.
        assert_eq!(read_both(caption, "sofa, dogs, cat").unwrap(), "A cat<50> and two dogs<30>, on a sofa<10>.");
        assert_eq!(read(&[caption, "sofa,dogs,cat"], PICTURES).unwrap(), "A <60> and two <40>, on a <20>.");
        // `dog` is no whole word of it, a colour is no thing, and `cat` is in two entities.
        assert_eq!(read_both(caption, "dog,cat,sofa").unwrap(), "A cat<30> and two dogs, on a sofa<50>.");
        assert_eq!(read_both("a red cat", "red,cat").unwrap(), "a red cat<30>");
        assert_eq!(
            read_both("a black cat on a cat tree", "black cat,cat,tree").unwrap(),
            "a black cat<10> on a cat tree<50>"
        );
        assert_eq!(read_both("A Cat.", "cat").unwrap(), "A Cat<10>.");
    }

    #[test]
    fn edits_keep_their_pairs() {
        let dir = tempfile::tempdir().unwrap();
        let pairs: Vec<_> = [10, 11, 20, 21, 30, 31].map(shade).into();
        let line = format!("a cat\tmake it red\t{}", pairs.join("\t"));
        let files = open(dir.path(), Kind::Edit, &[line]).unwrap();
        let mut sources = BTreeSet::new();
        for seed in 0..20 {
            let drop_caption = if seed % 2 == 0 { 1.0 } else { 0.0 };
            let (items, target) = files.edit(&mut Rng::new(seed, 0), drop_caption);
            let [Item::Words(caption), Item::Picture(source), Item::Words(instruction)] = &items[..] else {
                panic!("{items:?}");
            };
            assert_eq!((caption.is_empty(), instruction.as_str()), (seed % 2 == 0, "make it red"));
            assert_eq!(shade_of(&target), shade_of(source) + 1);
            sources.insert(shade_of(source));
        }
        assert_eq!(sources.into_iter().collect::<Vec<_>>(), [10, 20, 30]);
    }

    #[test]
    fn the_background_may_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let line = ["a cat", "cat", &shade(200), &shade(10), &shade(20)].join("\t");
        let mut files = open(dir.path(), Kind::Constructed, &[line]).unwrap();
        for (background_first, keep_background, shade) in
            [(false, 0.0, 10), (false, 1.0, 20), (true, 0.0, 20), (true, 1.0, 10)]
        {
            files.background_first = background_first;
            let options = Constructed { drop_words: 0.0, keep_background, altered: 0.0 };
            let (items, _) = files.constructed(&mut Rng::new(1, 0), options);
            assert!(matches!(&items[1], Item::Picture(picture) if shade_of(picture) == shade), "{items:?}");
        }
    }

    #[test]
    fn small_pictures_and_long_captions_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let line = |caption: &str, side: u32| format!("7\t{caption}\t{}\t640\t{side}", shade(9));
        let long = "a cat ".repeat(20);
        let lines = [line("a dog", 383), line(&long, 640), line("a cat", 384)];
        let files = open(dir.path(), Kind::Picture, &lines).unwrap();
        for seed in 0..20 {
            let (caption, picture) = files.captioned(&mut Rng::new(seed, 0), Reader::TextEncoder);
            assert_eq!((caption.as_str(), shade_of(&picture)), ("a cat", 9));
        }
        assert!(files.skipped.lock().unwrap().is_empty(), "what a filter leaves out is no error");
        let error = refused(dir.path(), &lines[..2]);
        assert!(error.contains("shard.tsv") && error.contains("the filters leave out every line"), "{error}");
    }

    /// The text encoder of this test reads 38 tokens, the language model 126, of which a picture takes 10.
    #[test]
    fn captions_are_as_long_as_their_readers_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [30, 60, 90, 120, 130].map(|words| format!("7\t{}\t{}", "cat ".repeat(words), shade(9)));
        let files = open(dir.path(), Kind::Picture, &lines).unwrap();
        let lengths = |make: &dyn Fn(&mut Rng) -> String| -> Vec<usize> {
            let lengths = (0..40).map(|seed| make(&mut Rng::new(seed, 0)).split_whitespace().count());
            lengths.collect::<BTreeSet<_>>().into_iter().collect()
        };
        assert_eq!(lengths(&|rng| files.caption(rng, Reader::Both)), [30]);
        assert_eq!(lengths(&|rng| files.captioned(rng, Reader::TextEncoder).0), [30]);
        assert_eq!(lengths(&|rng| files.captioned(rng, Reader::LanguageModel).0), [30, 60, 90, 120]);
        let described = |rng: &mut Rng| match &files.described(rng)[..] {
            [Item::Picture(_), Item::Words(words)] => words.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(lengths(&described), [30, 60, 90]);
    }

    #[test]
    fn captions_alone_need_no_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path(), Kind::Picture, &["7\ta cat".into(), "7\ta cat\t!\t20\t20".into()]).unwrap();
        files.check(&[(Kind::Caption(Reader::Both), 1.0), (Kind::Caption(Reader::LanguageModel), 1.0)]).unwrap();
        for seed in 0..20 {
            assert_eq!(files.caption(&mut Rng::new(seed, 0), Reader::Both), "a cat");
        }
        for kind in [Kind::Picture, CAPTIONED, Kind::Described] {
            let error = files.check(&[(kind, 1.0)]).unwrap_err().to_string();
            assert!(error.contains("2 of at least 3 cells"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let good = format!("7\ta cat\t{}\t640\t640", shade(9));
        let cut_short = good[..good.len() - 20].to_owned();
        let lines = [good, "no cells".into(), "7\ta cat\t!\t640\t640".into(), cut_short];
        let files = open(dir.path(), Kind::Picture, &lines).unwrap();
        for seed in 0..40 {
            assert_eq!(files.captioned(&mut Rng::new(seed, 0), Reader::TextEncoder).0, "a cat");
        }
        let shard = dir.path().join("shard.tsv");
        let skipped: Vec<_> = files.skipped.lock().unwrap().iter().cloned().collect();
        assert_eq!(skipped, [2, 3, 4].map(|number| (shard.clone(), number)));

        let error = refused(dir.path(), &lines[1..]);
        assert!(error.contains("shard.tsv") && error.contains("1 of at least 3 cells"), "{error}");
    }

    #[test]
    fn what_is_missing_is_an_error_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("7\ta cat\t{}\t640\t640", shade(9));
        let files = open(dir.path(), Kind::Picture, &[line]).unwrap();
        files.check(&[(CAPTIONED, 1.0), (Kind::Edit, 0.0)]).unwrap();
        let error = files.check(&[(CAPTIONED, 1.0), (Kind::Edit, 0.5)]).unwrap_err().to_string();
        assert!(error.contains("`editing`"), "{error}");
        let error = Lines::find(&[dir.path().join("shard-2.tsv")], dir.path()).unwrap_err().to_string();
        assert!(error.contains("shard-2.tsv"), "{error}");
    }
}
