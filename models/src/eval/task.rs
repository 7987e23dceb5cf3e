//! What is asked of a model, with the truth about each answer: DreamBench's shape on the world of sprites, by seed.

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};

use super::question::{Attribute, Question};
use crate::sprites::{
    self, Backdrop, Caption, Change, Colour, Creature, Detail, Edit, Piece, Scene, Shown, Split, Stand, Style, Topping,
    Wording,
};

/// Side of the pictures in prompts and of what is drawn, in pixels.
const SIZE: u32 = 64;

/// Prompts for each subject.
pub const TEMPLATES: usize = 10;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One creature, as a picture, in [other circumstances](TEMPLATES).
    Subject,
    /// Two creatures, as pictures, in one place.
    Pair,
    /// The same with the place as a picture too.
    Trio,
    /// A change to a picture.
    Edit,
    /// A scene in words alone.
    Words,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Subject, Self::Pair, Self::Trio, Self::Edit, Self::Words];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Pair => "pair",
            Self::Trio => "three pictures",
            Self::Edit => "edit",
            Self::Words => "words",
        }
    }

    /// Tasks of this kind for a number of subjects: of 60, as many as the benchmark has.
    pub fn count(self, subjects: usize) -> usize {
        match self {
            Self::Subject | Self::Words => subjects * TEMPLATES,
            Self::Pair | Self::Trio | Self::Edit => (subjects * 10).div_ceil(3),
        }
    }
}

/// A prompt, and what it asks for.
#[derive(Debug, Clone)]
pub struct Task {
    /// What kind of prompt it is.
    pub kind: Kind,
    /// Words and picture places.
    pub prompt: PromptDocument,
    /// The pictures that the places show.
    pub pictures: Vec<Picture>,
    /// The whole scene in words: what a text-to-image model is told.
    pub caption: String,
    /// The scene that is asked for; where in it somebody stands is free.
    pub scene: Scene,
    /// What the words ask for.
    pub asked: Vec<Question>,
    /// What the pictures ask for.
    pub shown: Vec<Question>,
}

/// All tasks with `subjects` creatures that were never trained on. `longest` is how many words a text encoder reads.
pub fn tasks(seed: u64, subjects: usize, longest: usize) -> Vec<Task> {
    let maker = |kind: Kind, i: usize| {
        let stream = Kind::ALL.iter().position(|&other| other == kind).unwrap_or(0) as u64;
        let mut rng = Rng::new(seed, (stream << 32) + i as u64);
        match kind {
            Kind::Subject => {
                let subject = (i / TEMPLATES) as u64;
                let creature = Creature::sample(&mut Rng::new(seed, (9 << 32) + subject), Split::HeldOut);
                self::subject(&mut rng, creature, i % TEMPLATES, longest)
            }
            Kind::Pair | Kind::Trio => company(&mut rng, kind, longest),
            Kind::Edit => edit(&mut rng, longest),
            Kind::Words => words(&mut rng, longest),
        }
    };
    Kind::ALL.iter().flat_map(|&kind| (0..kind.count(subjects)).map(move |i| maker(kind, i))).collect()
}

/// Four new places, two stands, a new colour, a new topping, and two styles.
fn subject(rng: &mut Rng, creature: Creature, template: usize, longest: usize) -> Task {
    let mut scene = plain(rng, &[creature]);
    let actor = &mut scene.actors[0];
    actor.stand = None;
    let now = &mut actor.creature;
    let mut asked = vec![Question::Background];
    let of = |attribute| Question::Creature { count: 1, index: 0, attribute };
    match template {
        0..4 => {}
        4 | 5 => {
            actor.stand = Some(*rng.pick(Stand::ALL));
            asked.push(Question::Stand);
        }
        6 => {
            let others: Vec<_> = Colour::ALL.iter().filter(|&&c| c != now.colour && Some(c) != now.second).collect();
            now.colour = **rng.pick(&others);
            asked.push(of(Attribute::Colour));
        }
        7 => {
            let others = Topping::ALL.iter().filter(|&&t| t != now.topping && t != Topping::Nothing);
            now.topping = **rng.pick(&others.collect::<Vec<_>>());
            asked.push(of(Attribute::Topping));
        }
        8 => scene.style = Style::Sketch,
        _ => scene.style = Style::Sunset,
    }
    if scene.style != Style::Plain {
        asked.push(Question::Style);
    }
    let caption = if scene.actors[0].creature == creature {
        Caption::sample(rng, &scene, Detail::Full)
    } else {
        Caption::changed(rng, &scene, 0, creature)
    };
    let pieces = caption.interleaved(|shown| match shown {
        Shown::Creature { .. } => Wording::Picture,
        Shown::Background(_) => Wording::Words,
    });
    let shown = Attribute::ALL.map(of).into_iter().filter(|question| !asked.contains(question)).collect();
    Task::new(rng, Kind::Subject, pieces, scene, asked, shown, longest)
}

/// Two creatures in one place; of [`Kind::Trio`] the place is a picture too.
fn company(rng: &mut Rng, kind: Kind, longest: usize) -> Task {
    let creatures = [(); 2].map(|()| Creature::sample(rng, Split::HeldOut));
    let scene = plain(rng, &creatures);
    let is_place = |piece: &Piece| matches!(piece, Piece::Picture(Shown::Background(_)));
    let pieces = loop {
        let pieces = Caption::sample(rng, &scene, Detail::Full).interleaved(|shown| match shown {
            Shown::Background(_) if kind == Kind::Pair => Wording::Words,
            _ => Wording::Picture,
        });
        if kind == Kind::Pair || pieces.iter().any(is_place) {
            break pieces;
        }
    };
    let of = |index| Attribute::ALL.map(|attribute| Question::Creature { count: 2, index, attribute });
    let mut shown: Vec<_> = (0..2).flat_map(of).collect();
    let mut asked = vec![Question::Count];
    if kind == Kind::Pair {
        asked.push(Question::Background)
    } else {
        shown.push(Question::Background)
    }
    Task::new(rng, kind, pieces, scene, asked, shown, longest)
}

fn edit(rng: &mut Rng, longest: usize) -> Task {
    let Edit { source, instruction, target, change } = Edit::sample(rng, Split::HeldOut);
    let count = target.actors.len();
    let of = |index, attribute| Question::Creature { count, index, attribute };
    let asked = match change {
        Change::Colour { actor, .. } => vec![of(actor, Attribute::Colour)],
        Change::Pattern { actor, .. } => vec![of(actor, Attribute::Pattern), of(actor, Attribute::Second)],
        Change::Topping { actor, .. } => vec![of(actor, Attribute::Topping)],
        Change::Eyes { actor, .. } => vec![of(actor, Attribute::Eyes)],
        Change::Body { actor, .. } => vec![of(actor, Attribute::Body)],
        Change::Background(_) => vec![Question::Background],
        Change::Style(_) => vec![Question::Style],
        Change::Stand(_) => vec![Question::Stand],
        Change::Add { actor } => vec![Question::Count, of(actor, Attribute::Body), of(actor, Attribute::Colour)],
        Change::Remove { .. } => vec![Question::Count],
    };
    let kept = [Question::Style, Question::Background, Question::Count].into_iter();
    let kept = kept.chain((0..count).flat_map(|index| [of(index, Attribute::Body), of(index, Attribute::Colour)]));
    let shown = kept.filter(|question| !asked.contains(question)).collect();
    let prompt = [PromptItem::Image(ImageRef { picture: 0, name: String::new() }), PromptItem::Text(instruction)];
    Task {
        kind: Kind::Edit,
        prompt: PromptDocument::new(prompt),
        pictures: vec![sprites::draw(&source, SIZE)],
        caption: full_caption(rng, &target, longest),
        scene: target,
        asked,
        shown,
    }
}

fn words(rng: &mut Rng, longest: usize) -> Task {
    let scene = Scene::sample(rng, Split::HeldOut);
    let caption = full_caption(rng, &scene, longest);
    Task {
        kind: Kind::Words,
        prompt: PromptDocument::from_words(&caption),
        pictures: Vec::new(),
        caption,
        scene,
        asked: Question::all().collect(),
        shown: Vec::new(),
    }
}

impl Task {
    fn new(
        rng: &mut Rng,
        kind: Kind,
        pieces: Vec<Piece>,
        scene: Scene,
        asked: Vec<Question>,
        shown: Vec<Question>,
        longest: usize,
    ) -> Self {
        let mut pictures = Vec::new();
        let items = pieces.into_iter().map(|piece| match piece {
            Piece::Text(words) => PromptItem::Text(words),
            Piece::Picture(what) => {
                pictures.push(what.picture(&scene, Backdrop::White, SIZE));
                PromptItem::Image(ImageRef { picture: pictures.len() - 1, name: String::new() })
            }
        });
        let prompt = PromptDocument::new(items.collect::<Vec<_>>());
        Self { kind, prompt, pictures, caption: full_caption(rng, &scene, longest), scene, asked, shown }
    }
}

/// A scene in plain style in a random place.
fn plain(rng: &mut Rng, creatures: &[Creature]) -> Scene {
    let mut scene = Scene::with_creatures(rng, creatures);
    scene.style = Style::Plain;
    scene
}

/// A scene in words, with every detail, or as many as fit.
fn full_caption(rng: &mut Rng, scene: &Scene, longest: usize) -> String {
    const TRIES: usize = 20;
    let full = std::iter::repeat_n(Detail::Full, TRIES);
    let mut captions =
        full.chain(std::iter::repeat(Detail::Partial)).map(|detail| Caption::sample(rng, scene, detail).text());
    captions.find(|caption| sprites::words(caption).len() <= longest).unwrap_or_default()
}

/// An unrelated picture with as many creatures: what chance would make of a task.
pub fn unrelated(seed: u64, number: usize, scene: &Scene) -> Picture {
    let mut rng = Rng::new(seed, (8 << 32) + number as u64);
    let creatures: Vec<_> = scene.actors.iter().map(|_| Creature::sample(&mut rng, Split::HeldOut)).collect();
    sprites::draw(&Scene::with_creatures(&mut rng, &creatures), SIZE)
}

/// Pictures of the world that no task asks for, to compare the spread of generated ones with.
pub fn others(seed: u64, count: usize) -> Vec<Picture> {
    let draw = |i| sprites::draw(&Scene::sample(&mut Rng::new(seed, (7 << 32) + i), Split::HeldOut), SIZE);
    (0..count as u64).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_whole_benchmark() {
        let all = tasks(3, 60, 38);
        let count = |kind| all.iter().filter(|task| task.kind == kind).count();
        assert_eq!(Kind::ALL.map(count), [600, 200, 200, 200, 600]);
        for (task, again) in all.iter().zip(tasks(3, 60, 38)) {
            assert_eq!((&task.prompt, &task.pictures, &task.scene), (&again.prompt, &again.pictures, &again.scene));
            assert!(!task.caption.is_empty() && sprites::words(&task.caption).len() <= 38, "{}", task.caption);
            assert!(task.prompt.check_pictures(task.pictures.len()).is_ok());
            let pictures = match task.kind {
                Kind::Subject | Kind::Edit => 1,
                Kind::Pair => 2,
                Kind::Trio => 3,
                Kind::Words => 0,
            };
            assert_eq!(task.pictures.len(), pictures, "{:?}", task.prompt);
            assert!(task.asked.iter().all(|question| !task.shown.contains(question)));
        }
        assert_ne!(tasks(4, 1, 38)[0].scene, all[0].scene);
    }

    #[test]
    fn subjects_are_only_shown() {
        let text = |task: &Task| {
            let text =
                |item: &PromptItem| if let PromptItem::Text(words) = item { words.clone() } else { String::new() };
            sprites::words(&task.prompt.items().iter().map(text).collect::<Vec<_>>().join(" "))
        };
        for (i, task) in tasks(5, 30, 38).iter().enumerate().filter(|(_, task)| task.kind == Kind::Subject) {
            let (text, creature) = (text(task), task.scene.actors[0].creature);
            let tells = |word: &str| text.iter().any(|other| other == word);
            assert!(!tells(creature.body.name()), "{text:?}");
            if i % TEMPLATES < 4 {
                assert!(!tells(creature.colour.name()) && !tells(creature.topping.name()), "{text:?}");
                assert_eq!(task.shown.len(), Attribute::ALL.len());
            }
            if i % TEMPLATES == 6 {
                assert!(creature.colour.words().iter().any(|word| tells(word)), "{text:?}");
                assert_eq!(task.shown.len(), Attribute::ALL.len() - 1);
            }
        }
    }
}
