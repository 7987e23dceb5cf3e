//! What a judge is asked about a picture, and what its answers say.

use crate::sprites::scene::MAX_ACTORS;
use crate::sprites::{Background, Body, Colour, Creature, Eyes, Pattern, Scene, Stand, Style, Topping};

/// Something that a picture shows, with a few possible answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// How it is painted.
    Style,
    /// Where it is.
    Background,
    /// How many creatures are there.
    Count,
    /// What a single creature stands on: nothing, then each stand.
    Stand,
    /// An attribute of creature `index`, from left to right, if there are `count`.
    Creature {
        /// Creatures in the picture.
        count: usize,
        /// Which of them.
        index: usize,
        /// Which attribute.
        attribute: Attribute,
    },
}

/// An attribute of a creature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Its silhouette.
    Body,
    /// Its main colour.
    Colour,
    /// Its pattern.
    Pattern,
    /// The pattern's colour.
    Second,
    /// What it wears.
    Topping,
    /// Its eyes.
    Eyes,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Body, Self::Colour, Self::Pattern, Self::Second, Self::Topping, Self::Eyes];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "shape",
            Self::Colour => "colour",
            Self::Pattern => "pattern",
            Self::Second => "second colour",
            Self::Topping => "topping",
            Self::Eyes => "eyes",
        }
    }

    /// Whether a sketch hides it.
    fn is_of_colour(self) -> bool {
        matches!(self, Self::Colour | Self::Pattern | Self::Second)
    }

    /// The number of a creature's value among the answers; `None` for the second colour of a plain coat.
    pub fn of(self, creature: &Creature) -> Option<usize> {
        Some(match self {
            Self::Body => creature.body.index(),
            Self::Colour => creature.colour.index(),
            Self::Pattern => creature.pattern.index(),
            Self::Second => creature.second?.index(),
            Self::Topping => creature.topping.index(),
            Self::Eyes => creature.eyes.index(),
        })
    }

    fn answers(self) -> usize {
        match self {
            Self::Body => Body::ALL.len(),
            Self::Colour | Self::Second => Colour::ALL.len(),
            Self::Pattern => Pattern::ALL.len(),
            Self::Topping => Topping::ALL.len(),
            Self::Eyes => Eyes::ALL.len(),
        }
    }
}

impl Question {
    /// All questions, in the order of a judge's answers.
    pub fn all() -> impl Iterator<Item = Self> {
        let creatures = (1..=MAX_ACTORS).flat_map(|count| (0..count).map(move |index| (count, index)));
        let of_creatures = creatures
            .flat_map(|(count, index)| Attribute::ALL.map(|attribute| Self::Creature { count, index, attribute }));
        [Self::Style, Self::Background, Self::Count, Self::Stand].into_iter().chain(of_creatures)
    }

    /// What is asked, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Background => "place",
            Self::Count => "number",
            Self::Stand => "stand",
            Self::Creature { attribute, .. } => attribute.name(),
        }
    }

    /// How many answers there are.
    pub fn answers(self) -> usize {
        match self {
            Self::Style => Style::ALL.len(),
            Self::Background => Background::ALL.len(),
            Self::Count => MAX_ACTORS + 1,
            Self::Stand => 1 + Stand::ALL.len(),
            Self::Creature { attribute, .. } => attribute.answers(),
        }
    }

    /// The number of the right answer; `None` if the picture does not tell.
    pub fn answer(self, scene: &Scene) -> Option<usize> {
        match self {
            Self::Style => Some(scene.style.index()),
            Self::Background => Some(scene.setting.background.index()),
            Self::Count => Some(scene.actors.len()),
            Self::Stand => match &scene.actors[..] {
                [actor] => Some(actor.stand.map_or(0, |stand| 1 + stand.index())),
                _ => None,
            },
            Self::Creature { count, index, attribute } => {
                let is_seen =
                    scene.actors.len() == count && !(scene.style == Style::Sketch && attribute.is_of_colour());
                if is_seen { attribute.of(&scene.actors[index].creature) } else { None }
            }
        }
    }
}

/// What a judge sees in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// How it is painted.
    pub style: Style,
    /// Where it is.
    pub background: Background,
    /// How many creatures there are.
    pub count: usize,
    /// What a single creature stands on.
    pub stand: Option<Stand>,
    /// By number of creatures: who they are if there are that many, from left to right.
    creatures: [Vec<Creature>; MAX_ACTORS],
}

impl Reading {
    /// From the scores of all answers to [all questions](Question::all).
    pub(super) fn new(scores: &[f32]) -> Self {
        let mut rest = scores;
        let mut answers = Question::all().map(|question| {
            let (scores, after) = rest.split_at(question.answers());
            rest = after;
            scores
        });
        let mut next = || answers.next().expect("scores of all questions");
        let (style, background) = (Style::ALL[best(next())], Background::ALL[best(next())]);
        let count = best(next());
        let stand = best(next()).checked_sub(1).map(|stand| Stand::ALL[stand]);
        let mut creature = || {
            let (body, colour, pattern) =
                (Body::ALL[best(next())], Colour::ALL[best(next())], Pattern::ALL[best(next())]);
            let mut second = next().to_vec();
            second[colour.index()] = f32::NEG_INFINITY; // it is never the main one
            Creature {
                body,
                colour,
                pattern,
                second: (pattern != Pattern::Plain).then(|| Colour::ALL[best(&second)]),
                topping: Topping::ALL[best(next())],
                eyes: Eyes::ALL[best(next())],
            }
        };
        let creatures = std::array::from_fn(|i| (0..=i).map(|_| creature()).collect());
        Self { style, background, count, stand, creatures }
    }

    /// Who is there, from left to right, if there are `count` creatures.
    ///
    /// # Panics
    /// If there are never that many.
    pub fn creatures(&self, count: usize) -> &[Creature] {
        if count == 0 { &[] } else { &self.creatures[count - 1] }
    }

    /// The number of the answer that this gives to a question; `None` for the second colour of a plain coat.
    pub fn answer(&self, question: Question) -> Option<usize> {
        match question {
            Question::Style => Some(self.style.index()),
            Question::Background => Some(self.background.index()),
            Question::Count => Some(self.count),
            Question::Stand => Some(self.stand.map_or(0, |stand| 1 + stand.index())),
            Question::Creature { count, index, attribute } => attribute.of(&self.creatures(count)[index]),
        }
    }
}

fn best(scores: &[f32]) -> usize {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;
    use crate::sprites::Split;

    #[test]
    fn the_right_answers_read_as_the_scene() {
        for seed in 0..300 {
            let scene = Scene::sample(&mut Rng::new(seed, 0), Split::HeldOut);
            let mut scores = Vec::new();
            for question in Question::all() {
                let start = scores.len();
                scores.resize(start + question.answers(), 0.0);
                question.answer(&scene).into_iter().for_each(|answer| scores[start + answer] = 1.0);
            }
            let reading = Reading::new(&scores);
            assert_eq!((reading.style, reading.background), (scene.style, scene.setting.background));
            assert_eq!(reading.count, scene.actors.len());
            for question in Question::all() {
                if let Some(answer) = question.answer(&scene) {
                    assert_eq!(reading.answer(question), Some(answer), "{question:?}");
                }
            }
            if scene.style != Style::Sketch {
                let creatures: Vec<_> = scene.actors.iter().map(|actor| actor.creature).collect();
                assert_eq!(reading.creatures(scene.actors.len()), creatures);
            }
        }
    }
}
