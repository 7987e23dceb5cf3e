//! How scenes are put into words: templates, what is told of a creature, and how a change is asked for.

use kosmosg::noise::Rng;

use super::background::Setting;
use super::caption::{Article, Caption, Shown, Span, fill, text};
use super::creature::{Creature, Eyes, Pattern, Topping};
use super::scene::{Scene, Style};
use super::words::{CREATURE, article, listed};

/// Seed of a generator that picks usual words.
const USUAL: u64 = 0;

/// How much a caption tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Every attribute of every creature, place and style.
    Full,
    /// Each attribute with even chances, the place nearly always; the style always.
    Partial,
}

/// A scene in one sentence, as a text-to-image model learns it: seven times of ten with everything told.
pub fn caption(scene: &Scene, rng: &mut Rng) -> String {
    let detail = if rng.bool(0.7) { Detail::Full } else { Detail::Partial };
    Caption::sample(rng, scene, detail).text()
}

const ALONE: &[&str] = &["{a}"];
const ON_STAND: &[&str] = &["{a} on {stand}", "{a} on top of {stand}", "{a} standing on {stand}"];
const PAIR: &[&str] = &[
    "{a} and {b}",
    "{a} next to {b}",
    "{a} beside {b}",
    "{a} to the left of {b}",
    "{b} to the right of {a}",
    "{a} on the left and {b} on the right",
];
const THREE: &[&str] =
    &["{a}, {b} and {c}", "{b} between {a} and {c}", "{a} on the left, {b} in the middle and {c} on the right"];
const PLAIN: &[&str] =
    &["{s} {p}", "{s} {p}", "{s} {p}", "{p}, {s}", "a picture of {s} {p}", "a photo of {s} {p}", "there is {s} {p}"];
const SKETCH: &[&str] = &[
    "a pencil sketch of {s} {p}",
    "a sketch of {s} {p}",
    "{s} {p}, pencil sketch",
    "a black and white drawing of {s} {p}",
];
const SUNSET: &[&str] = &["{s} {p} at sunset", "{s} {p} in the evening light", "a sunset picture of {s} {p}"];
const RECOLOURED: &[&str] = &["a {value} {e}", "{e} painted {value}", "{e} in {value}"];
const DRESSED: &[&str] = &["{e} with {value}", "{e} wearing {value}"];
const WITH: &[&str] = &["{e} with {value}"];

/// Words that the grammar says outside of its templates.
pub(super) const PHRASES: &[&str] = &["a", "an", "and", "with", ",", "in", "at", "on", "in front of"];

/// Every template of this module.
pub(super) fn templates() -> impl Iterator<Item = &'static str> {
    [ALONE, ON_STAND, PAIR, THREE, PLAIN, SKETCH, SUNSET, RECOLOURED, DRESSED, WITH].concat().into_iter()
}

impl Caption {
    /// Words for a scene, phrased at random. In one caption of five the place is an entity of its own.
    pub fn sample(rng: &mut Rng, scene: &Scene, detail: Detail) -> Self {
        let article = if rng.bool(0.8) { Article::Always } else { Article::BeforeWords };
        let creatures = scene.actors.iter().enumerate().map(|(actor, who)| {
            let words = describe(rng, &who.creature, detail);
            vec![Span::Entity { shown: Shown::Creature { creature: who.creature, actor }, words, article }]
        });
        let creatures: Vec<Vec<Span>> = creatures.collect();
        let told = rng.bool(if detail == Detail::Full { 1.0 } else { 0.9 });
        Self::around(rng, scene, &creatures, told)
    }

    /// Everything about a scene in the usual words, always the same ones.
    pub fn usual(scene: &Scene) -> Self {
        let creatures: Vec<_> = scene.actors.iter().map(|actor| text(&actor.creature.description())).collect();
        Self::around(&mut Rng::new(USUAL, 0), scene, &creatures, true)
    }

    /// A caption in which one creature's picture shows it before one attribute changed, and words tell the change:
    /// `a blue <i> on the beach` for a scene with a creature that is blue, but not in its picture.
    ///
    /// The pictured creature is of the same [split](Creature::split) as the scene's. `None` if the scene is empty.
    pub fn altered(rng: &mut Rng, scene: &Scene) -> Option<Self> {
        let actor = rng.below(scene.actors.len().max(1));
        let now = scene.actors.get(actor)?.creature;
        loop {
            let other = Creature::sample(rng, now.split());
            let mut before = now;
            match rng.below(4) {
                // In a sketch a new colour could not be seen.
                0 if scene.style != Style::Sketch => before.colour = other.colour,
                1 if now.topping != Topping::Nothing => before.topping = other.topping,
                2 => before.eyes = other.eyes,
                3 if now.pattern != Pattern::Plain => (before.pattern, before.second) = (other.pattern, other.second),
                _ => continue,
            }
            if before != now && before.second != Some(before.colour) && before.split() == now.split() {
                return Some(Self::changed(rng, scene, actor, before));
            }
        }
    }

    /// A caption in which creature `actor`'s picture shows it as it was `before` its colour, its topping, its eyes or its
    /// pattern became what the scene has, and words tell the change.
    ///
    /// # Panics
    /// If the scene has no such creature.
    pub fn changed(rng: &mut Rng, scene: &Scene, actor: usize, before: Creature) -> Self {
        let now = scene.actors[actor].creature;
        let worn = |worn: bool| if worn { DRESSED } else { WITH };
        let (templates, value) = if before.colour != now.colour {
            (RECOLOURED, *rng.pick(now.colour.words()))
        } else if before.topping != now.topping {
            (worn(!matches!(now.topping, Topping::Horns | Topping::Antennas)), *rng.pick(now.topping.words()))
        } else if before.eyes != now.eyes {
            (worn(now.eyes == Eyes::Sunglasses), *rng.pick(now.eyes.words()))
        } else {
            (WITH, *rng.pick(now.pattern.words()))
        };
        let second = now.second.filter(|_| (before.pattern, before.second) != (now.pattern, now.second));
        let second = second.map_or(String::new(), |second| format!("{} ", rng.pick(second.words())));
        let (template, value) = (*rng.pick(templates), format!("{second}{value}"));
        let creatures = scene.actors.iter().enumerate().map(|(other, who)| {
            if other != actor {
                let shown = Shown::Creature { creature: who.creature, actor: other };
                let words = describe(rng, &who.creature, Detail::Partial);
                return vec![Span::Entity { shown, words, article: Article::Always }];
            }
            let shown = Shown::Creature { creature: before, actor };
            let words = noun(rng, &before);
            let adjective = template == RECOLOURED[0];
            let entity =
                vec![Span::Entity { shown, words, article: if adjective { Article::Never } else { Article::Always } }];
            let template = if adjective { template.replacen('a', article(&value), 1) } else { template.into() };
            fill(&template, &[("e", entity), ("value", text(&value))])
        });
        let creatures: Vec<Vec<Span>> = creatures.collect();
        Self::around(rng, scene, &creatures, true)
    }

    /// Puts what is said of each creature together with stand, place and style.
    fn around(rng: &mut Rng, scene: &Scene, creatures: &[Vec<Span>], place_told: bool) -> Self {
        let stand = scene.actors.first().and_then(|actor| actor.stand);
        let subjects = match creatures.len() {
            1 if stand.is_some() => ON_STAND,
            0 | 1 => ALONE,
            2 => PAIR,
            _ => THREE,
        };
        let stand = stand.map_or("", |stand| *rng.pick(stand.words()));
        let mut parts = vec![("stand", text(stand))];
        parts.extend(["a", "b", "c"].into_iter().zip(creatures.iter().cloned()));
        let subject = fill(rng.pick::<&str>(subjects), &parts);
        if creatures.is_empty() {
            return Caption {
                spans: fill(
                    rng.pick::<&str>(styled(scene.style, false)),
                    &[("s", text(scene.setting.background.noun()))],
                ),
            };
        }
        let place = if !place_told {
            Vec::new()
        } else if rng.bool(0.2) {
            picture_place(rng, scene.setting)
        } else {
            text(rng.pick::<&str>(scene.setting.background.places()))
        };
        let style = styled(scene.style, !place.is_empty());
        Caption { spans: fill(rng.pick::<&str>(style), &[("s", subject), ("p", place)]) }
    }
}

/// The templates of a style; the first of each also reads well without a place.
fn styled(style: Style, with_place: bool) -> &'static [&'static str] {
    let templates = match style {
        Style::Plain => PLAIN,
        Style::Sketch => SKETCH,
        Style::Sunset => SUNSET,
    };
    if with_place { templates } else { &templates[..1] }
}

/// Which attributes are told.
struct Mentions {
    colour: bool,
    body: bool,
    pattern: bool,
    topping: bool,
    eyes: bool,
}

impl Mentions {
    fn sample(rng: &mut Rng, detail: Detail) -> Self {
        let mut told = |chance| detail == Detail::Full || rng.bool(chance);
        Mentions { colour: told(0.7), body: told(0.8), pattern: told(0.5), topping: told(0.5), eyes: told(0.5) }
    }
}

/// A creature in words, without article.
pub(super) fn describe(rng: &mut Rng, creature: &Creature, detail: Detail) -> String {
    let told = Mentions::sample(rng, detail);
    let mut words = String::new();
    let mut details = Vec::new();
    let main = told.colour.then(|| *rng.pick(creature.colour.words()));
    let second = creature.second.filter(|_| told.pattern).map(|colour| *rng.pick(colour.words()));
    match (main, second, creature.pattern.adjective()) {
        (Some(main), Some(second), Some(adjective)) if rng.bool(0.25) => {
            words += &format!("{main} and {second} {adjective} ")
        }
        (main, second, _) => {
            words += &main.map_or(String::new(), |main| format!("{main} "));
            details.extend(second.map(|second| format!("{second} {}", rng.pick(creature.pattern.words()))));
        }
    }
    words += &if told.body { noun(rng, creature) } else { rng.pick(CREATURE).to_string() };
    if told.topping && creature.topping != Topping::Nothing {
        details.push(rng.pick(creature.topping.words()).to_string());
    }
    if told.eyes {
        details.push(rng.pick(creature.eyes.words()).to_string());
    }
    rng.shuffle(&mut details);
    if details.is_empty() { words } else { format!("{words} with {}", listed(&details)) }
}

/// Its shape as a noun, nearly always the usual one.
fn noun(rng: &mut Rng, creature: &Creature) -> String {
    let nouns = creature.body.words();
    if rng.bool(0.8) { nouns[0] } else { *rng.pick(nouns) }.to_string()
}

/// The place as an entity: "in the beach" may sound odd, but so will what people write around a picture of it.
fn picture_place(rng: &mut Rng, setting: Setting) -> Vec<Span> {
    let preposition = *rng.pick(&["in", "in", "in", "at", "on", "in front of"]);
    let words = setting.background.noun().to_string();
    vec![
        Span::Text(format!("{preposition} ")),
        Span::Entity { shown: Shown::Background(setting), words, article: Article::Never },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::creature::Split;
    use super::super::words::{vocabulary, words};
    use super::*;

    #[test]
    fn captions_use_the_vocabulary_and_fit_a_text_encoder() {
        let known: HashSet<String> = vocabulary().into_iter().collect();
        for seed in 0..3000 {
            let mut rng = Rng::new(seed, 1);
            let scene = Scene::sample(&mut rng, Split::Train);
            let detail = *rng.pick(&[Detail::Full, Detail::Partial]);
            let mut captions = vec![Caption::sample(&mut rng, &scene, detail)];
            captions.extend(Caption::altered(&mut rng, &scene));
            for caption in captions {
                let words = words(&caption.text());
                assert!(words.len() <= 75, "{} words: {}", words.len(), caption.text());
                assert!(words.iter().all(|word| known.contains(word)), "{}", caption.text());
            }
        }
    }

    #[test]
    fn a_full_caption_tells_everything() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed, 2);
            let scene = Scene::sample(&mut rng, Split::Train);
            for caption in [Caption::sample(&mut rng, &scene, Detail::Full), Caption::usual(&scene)] {
                let caption = caption.text();
                let tells =
                    |options: &[&str]| options.is_empty() || options.iter().any(|option| caption.contains(option));
                for who in scene.actors.iter().map(|actor| actor.creature) {
                    assert!(tells(who.colour.words()) && tells(who.body.words()), "{caption}");
                    assert!(tells(who.topping.words()) && tells(who.eyes.words()), "{caption}");
                    assert!(who.second.is_none_or(|second| tells(second.words())), "{caption}");
                }
                let background = scene.setting.background;
                assert!(tells(&[background.places(), &[background.noun()]].concat()), "{caption}");
            }
        }
    }

    #[test]
    fn the_usual_words_for_a_scene_are_always_the_same() {
        let mut captions = HashSet::new();
        for seed in 0..200 {
            let scene = Scene::sample(&mut Rng::new(seed, 4), Split::Train);
            let caption = Caption::usual(&scene).text();
            assert_eq!(caption, Caption::usual(&scene).text());
            captions.insert(caption);
        }
        assert!(captions.len() > 190, "{}", captions.len());
    }

    #[test]
    fn an_altered_caption_pictures_one_attribute_otherwise() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed, 3);
            let scene = Scene::sample(&mut rng, Split::Train);
            let caption = Caption::altered(&mut rng, &scene).expect("someone is there");
            let mut changes = 0;
            for span in &caption.spans {
                let Span::Entity { shown: Shown::Creature { creature, actor }, .. } = span else { continue };
                let now = scene.actors[*actor].creature;
                assert!(!creature.is_held_out());
                changes += usize::from(creature.colour != now.colour) + usize::from(creature.eyes != now.eyes);
                changes += usize::from(creature.topping != now.topping) + usize::from(creature.body != now.body);
                changes += usize::from((creature.pattern, creature.second) != (now.pattern, now.second));
            }
            assert_eq!(changes, 1, "{}", caption.text());
        }
    }

    #[test]
    fn an_empty_place_is_named() {
        let mut rng = Rng::new(4, 0);
        for _ in 0..50 {
            let scene = Scene::with_creatures(&mut rng, &[]);
            let caption = Caption::sample(&mut rng, &scene, Detail::Full).text();
            assert!(caption.contains(scene.setting.background.noun()), "{caption}");
            assert_eq!(Caption::altered(&mut rng, &scene), None);
        }
    }
}
