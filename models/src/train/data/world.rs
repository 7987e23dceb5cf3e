//! The world of sprites: see [`crate::sprites`].

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;

use super::{Constructed, Data, Item, Kind, Reader, Sample, Words};
use crate::sprites::{
    self, Backdrop, Background, Caption, Creature, Detail, Edit, Piece, Scene, Setting, Shown, Split, Wording,
};
use crate::train::init::sample_rng;
use crate::train::vocabulary::world;

/// Samples that are drawn as they are asked for.
#[derive(Debug, Clone)]
pub(in crate::train) struct World {
    words: Words,
    /// Tokens that a caption may have.
    longest: usize,
    /// Side of the pictures.
    size: u32,
}

impl World {
    /// The world in pictures of `size` × `size` pixels; captions have at most `longest` tokens.
    pub fn new(words: &Words, longest: usize, size: u32) -> Self {
        Self { words: words.clone(), longest, size }
    }

    /// A caption of a scene. One that takes too many words is told in fewer details.
    pub fn caption_of(&self, scene: &Scene, rng: &mut Rng) -> String {
        loop {
            let caption = strange(&sprites::caption(scene, rng), rng);
            if self.words.tokenizer.encode(&caption).len() <= self.longest {
                return caption;
            }
        }
    }

    /// A sample's prompt, and the scene that it asks for.
    pub fn constructed_scene(&self, rng: &mut Rng, options: Constructed) -> (Vec<Item>, Scene) {
        let scene = Scene::sample(rng, Split::Train);
        let altered = if rng.bool(options.altered) { Caption::altered(rng, &scene) } else { None };
        let caption = altered.unwrap_or_else(|| Caption::sample(rng, &scene, Detail::Partial));
        let wording = |_: &Shown| if rng.bool(options.drop_words) { Wording::Picture } else { Wording::Both };
        let pieces = caption.interleaved(wording);
        let mut items = self.illustrate(pieces, &scene, || backdrop(rng, options.keep_background));
        for item in &mut items {
            if let Item::Words(words) = item {
                *words = strange(words, rng);
            }
        }
        (items, scene)
    }

    /// A sample's picture and instruction, and the scene that they ask for.
    pub fn edited_scene(&self, rng: &mut Rng, drop_caption: f64) -> (Vec<Item>, Scene) {
        let edit = Edit::sample(rng, Split::Train);
        let caption = if rng.bool(drop_caption) { String::new() } else { self.caption_of(&edit.source, rng) };
        let source = Item::Picture(sprites::draw(&edit.source, self.size));
        (vec![Item::Words(caption), source, Item::Words(edit.instruction)], edit.target)
    }

    /// All of a scene in the usual words; none if there are too many.
    pub fn told(&self, scene: &Scene) -> Option<String> {
        let caption = Caption::usual(scene).text();
        (self.words.tokenizer.encode(&caption).len() <= self.longest).then_some(caption)
    }

    /// The pieces of a caption with what they show.
    fn illustrate(&self, pieces: Vec<Piece>, scene: &Scene, mut backdrop: impl FnMut() -> Backdrop) -> Vec<Item> {
        let item = |piece| match piece {
            Piece::Text(words) => Item::Words(words),
            Piece::Picture(shown) => Item::Picture(shown.picture(scene, backdrop(), self.size)),
        };
        pieces.into_iter().map(item).collect()
    }
}

impl Data for World {
    fn check(&self, _: &[(Kind, f64)]) -> anyhow::Result<()> {
        Ok(())
    }

    fn fingerprint(&self) -> String {
        world()
    }

    /// A scene, sometimes an empty one.
    fn picture(&self, rng: &mut Rng) -> Picture {
        let scene = Scene::sample(rng, Split::Train);
        match rng.below(20) {
            0 => sprites::draw(&Scene::empty(scene.setting), self.size),
            _ => sprites::draw(&scene, self.size),
        }
    }

    /// Everybody can read it to its end.
    fn caption(&self, rng: &mut Rng, _: Reader) -> String {
        let scene = Scene::sample(rng, Split::Train);
        self.caption_of(&scene, rng)
    }

    fn captioned(&self, rng: &mut Rng, _: Reader) -> (String, Picture) {
        let scene = Scene::sample(rng, Split::Train);
        (self.caption_of(&scene, rng), sprites::draw(&scene, self.size))
    }

    /// What a prompt will show are single creatures, so half of the pictures are such.
    fn described(&self, rng: &mut Rng) -> Vec<Item> {
        if rng.bool(0.5) {
            let creature = Creature::sample(rng, Split::Train);
            let scene = Scene::with_creatures(rng, &[creature]);
            let picture = sprites::cutout(&scene, 0, backdrop(rng, 0.5), self.size);
            return vec![Item::Picture(picture), Item::Words(creature.description())];
        }
        let (caption, picture) = self.captioned(rng, Reader::LanguageModel);
        vec![Item::Picture(picture), Item::Words(caption)]
    }

    fn constructed(&self, rng: &mut Rng, options: Constructed) -> Sample {
        let (items, scene) = self.constructed_scene(rng, options);
        (items, sprites::draw(&scene, self.size))
    }

    fn edit(&self, rng: &mut Rng, drop_caption: f64) -> Sample {
        let (items, scene) = self.edited_scene(rng, drop_caption);
        (items, sprites::draw(&scene, self.size))
    }

    /// A creature that was never trained on, in a place told in words.
    fn showcase(&self, number: usize) -> Sample {
        let mut rng = sample_rng(0, "instruct sheet", number as u64);
        let creature = Creature::sample(&mut rng, Split::HeldOut);
        let mut scene = Scene::with_creatures(&mut rng, &[creature]);
        scene.setting = Setting::sample(&mut rng, Background::ALL[number % Background::ALL.len()]);
        let caption = Caption::sample(&mut rng, &scene, Detail::Full);
        // Only the creature is a picture: its words are gone, and those of the place stay.
        let pieces = caption.interleaved(|shown| match shown {
            Shown::Creature { .. } => Wording::Picture,
            Shown::Background(_) => Wording::Words,
        });
        (self.illustrate(pieces, &scene, || Backdrop::White), sprites::portrait(&creature, self.size))
    }
}

/// What is around a cut-out, which is kept with probability `keep`.
pub(in crate::train) fn backdrop(rng: &mut Rng, keep: f64) -> Backdrop {
    if rng.bool(keep) { Backdrop::Kept } else { Backdrop::White }
}

/// Words among which there is sometimes one that this world does not have: people will use such words, and a model that
/// never met `<unk>` could be led anywhere by it.
fn strange(text: &str, rng: &mut Rng) -> String {
    const SHARE: f64 = 0.05;
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if !words.is_empty() && rng.bool(SHARE) {
        words.insert(rng.below(words.len() + 1), "~");
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn captions_are_whole_sentences_that_fit() {
        let words = Words::new(&TrainConfig::tiny()).unwrap();
        let world = World::new(&words, 38, 64);
        let (mut crowds, mut shortened, mut unknown) = (0, 0, 0);
        for seed in 0..2000 {
            let mut rng = Rng::new(seed, 0);
            let scene = Scene::sample(&mut rng, Split::Train);
            let first = sprites::caption(&scene, &mut rng.clone());
            let caption = world.caption_of(&scene, &mut rng);
            let tokens = words.for_text_encoder(&caption);
            assert_eq!(tokens.len(), sprites::words(&caption).len());
            assert!(tokens.len() <= 38 && tokens.iter().all(|token| (3..153).contains(token)), "{caption}");
            unknown += usize::from(tokens.contains(&3));
            crowds += usize::from(scene.actors.len() == 3);
            shortened += usize::from(sprites::words(&first).len() > 38);
        }
        assert!(crowds > 120 && shortened > 30 && shortened < 500, "{crowds} {shortened}");
        assert!(unknown > 50 && unknown < 200, "{unknown}");
    }
}
