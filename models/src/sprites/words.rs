//! The words of the world: what each attribute is called, and the vocabulary of everything that the grammar can say.

use std::collections::BTreeSet;

use super::background::Background;
use super::creature::{Body, Colour, Creature, Eyes, Pattern, Topping};
use super::figure::Stand;
use super::{edit, grammar};

/// Names for any creature.
pub(super) const CREATURE: &[&str] = &["creature", "monster", "critter"];

/// Marks that a prompt may hold besides words.
const PUNCTUATION: &[&str] = &[",", ".", "!", "?", ";", ":", "'", "-"];

/// Splits a text as the vocabulary counts it: lower case, runs of letters and digits, every other sign on its own.
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in text.to_lowercase().chars() {
        match words.last_mut() {
            Some(word) if in_word && c.is_alphanumeric() => word.push(c),
            _ if !c.is_whitespace() => words.push(c.into()),
            _ => {}
        }
        in_word = c.is_alphanumeric();
    }
    words
}

/// Every word and mark that captions and instructions are made of, in alphabetical order.
pub fn vocabulary() -> Vec<String> {
    let mut phrases: Vec<&str> = [CREATURE, PUNCTUATION, grammar::PHRASES, edit::PHRASES].concat();
    phrases.extend(grammar::templates().chain(edit::templates()));
    phrases.extend(Colour::ALL.iter().flat_map(|c| c.words()));
    phrases.extend(Body::ALL.iter().flat_map(|b| b.words()));
    phrases.extend(Pattern::ALL.iter().flat_map(|p| p.words().iter().copied().chain(p.adjective())));
    phrases.extend(Topping::ALL.iter().flat_map(|t| t.words()));
    phrases.extend(Eyes::ALL.iter().flat_map(|e| e.words()));
    phrases.extend(Stand::ALL.iter().flat_map(|s| s.words()));
    phrases.extend(Background::ALL.iter().flat_map(|b| b.places().iter().copied().chain([b.noun()])));
    let vocabulary: BTreeSet<String> = phrases.into_iter().flat_map(|phrase| words(&without_places(phrase))).collect();
    vocabulary.into_iter().collect()
}

/// A template's own words, without what stands in braces.
fn without_places(template: &str) -> String {
    let mut depth = 0;
    let outside = |c: &char| {
        depth += i32::from(*c == '{');
        let keep = depth == 0;
        depth -= i32::from(*c == '}');
        keep
    };
    template.chars().filter(outside).collect()
}

/// "a" or "an", as the next words want it.
pub(super) fn article(next: &str) -> &'static str {
    if next.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

impl Colour {
    /// Words for it, the usual one first.
    pub(crate) const fn words(self) -> &'static [&'static str] {
        match self {
            Colour::Red => &["red"],
            Colour::Orange => &["orange"],
            Colour::Yellow => &["yellow"],
            Colour::Green => &["green"],
            Colour::Teal => &["teal", "turquoise"],
            Colour::Blue => &["blue"],
            Colour::Purple => &["purple", "violet"],
            Colour::Pink => &["pink"],
            Colour::Brown => &["brown"],
            Colour::White => &["white"],
        }
    }
}

impl Body {
    /// Nouns for it, the usual one first.
    pub(crate) const fn words(self) -> &'static [&'static str] {
        match self {
            Body::Ball => &["ball", "round creature"],
            Body::Ghost => &["ghost"],
            Body::Box => &["box", "cube"],
            Body::Star => &["star"],
            Body::Mushroom => &["mushroom"],
            Body::Cat => &["cat", "kitty"],
            Body::Heart => &["heart"],
            Body::Cloud => &["cloud"],
            Body::Cactus => &["cactus"],
            Body::Fish => &["fish"],
        }
    }
}

impl Pattern {
    /// What is said after the second colour; nothing for a plain coat.
    pub(crate) const fn words(self) -> &'static [&'static str] {
        match self {
            Pattern::Plain => &[],
            Pattern::Stripes => &["stripes"],
            Pattern::Spots => &["spots", "dots"],
            Pattern::Checks => &["checks", "squares"],
            Pattern::Pants => &["pants", "trousers"],
        }
    }

    /// What is said before the noun, if there is such a word.
    pub(crate) const fn adjective(self) -> Option<&'static str> {
        match self {
            Pattern::Plain | Pattern::Pants => None,
            Pattern::Stripes => Some("striped"),
            Pattern::Spots => Some("spotted"),
            Pattern::Checks => Some("checkered"),
        }
    }
}

impl Topping {
    /// What is said after "with"; nothing for a bare head.
    pub(crate) const fn words(self) -> &'static [&'static str] {
        match self {
            Topping::Nothing => &[],
            Topping::Crown => &["a crown", "a golden crown"],
            Topping::Hat => &["a hat", "a top hat"],
            Topping::Bow => &["a bow", "a big bow"],
            Topping::Horns => &["horns", "two horns"],
            Topping::Antennas => &["antennas", "two antennas"],
            Topping::Flower => &["a flower", "a daisy"],
        }
    }
}

impl Eyes {
    /// What is said after "with".
    pub(crate) const fn words(self) -> &'static [&'static str] {
        match self {
            Eyes::Round => &["round eyes", "big round eyes", "two round eyes"],
            Eyes::One => &["one eye", "one big eye", "a single eye"],
            Eyes::Sleepy => &["sleepy eyes", "tired eyes"],
            Eyes::Sunglasses => &["sunglasses", "dark sunglasses"],
        }
    }
}

impl Stand {
    /// What is said after "on".
    pub(crate) const fn words(self) -> &'static [&'static str] {
        match self {
            Stand::Rock => &["a rock", "a stone"],
            Stand::Cake => &["a cake"],
            Stand::Log => &["a log"],
            Stand::Drum => &["a drum"],
        }
    }
}

impl Background {
    /// Where a scene is, with its preposition; the usual phrase first.
    pub(crate) const fn places(self) -> &'static [&'static str] {
        match self {
            Background::Beach => &["on the beach", "at the beach"],
            Background::Forest => &["in the forest", "in the woods"],
            Background::Snow => &["in the snow", "on a snowy hill"],
            Background::Night => &["at night", "under the night sky"],
            Background::Desert => &["in the desert", "near the pyramids"],
            Background::City => &["in the city", "on the street"],
            Background::Sea => &["under the sea", "under water"],
            Background::Meadow => &["in the meadow", "under a rainbow"],
            Background::Room => &["in the room", "at home"],
            Background::Volcano => &["near the volcano", "by a volcano"],
            Background::Candy => &["in candy land"],
            Background::Moon => &["on the moon", "in space"],
        }
    }

    /// The place as a thing.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Background::Beach => "the beach",
            Background::Forest => "the forest",
            Background::Snow => "the snow",
            Background::Night => "the night",
            Background::Desert => "the desert",
            Background::City => "the city",
            Background::Sea => "the sea",
            Background::Meadow => "the meadow",
            Background::Room => "the room",
            Background::Volcano => "the volcano",
            Background::Candy => "candy land",
            Background::Moon => "the moon",
        }
    }
}

impl Creature {
    /// All of it in the usual words: "a red ball with white spots, a crown and sleepy eyes".
    pub fn description(&self) -> String {
        let mut details = Vec::new();
        if let (Some(second), Some(pattern)) = (self.second, self.pattern.words().first()) {
            details.push(format!("{} {pattern}", second.name()));
        }
        details.extend(self.topping.words().first().map(|words| words.to_string()));
        details.push(self.eyes.words()[0].into());
        let colour = self.colour.name();
        format!("{} {colour} {} with {}", article(colour), self.body.name(), listed(&details))
    }
}

/// "a", "a and b", "a, b and c".
pub(super) fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_split_into_words_and_marks() {
        assert_eq!(words("On the Beach, a <i>!"), ["on", "the", "beach", ",", "a", "<", "i", ">", "!"]);
        assert!(words(" \n").is_empty());
    }

    #[test]
    fn the_vocabulary_is_small_sorted_and_without_template_places() {
        let vocabulary = vocabulary();
        assert!(vocabulary.is_sorted() && vocabulary.len() > 100 && vocabulary.len() < 400, "{}", vocabulary.len());
        assert!(vocabulary.iter().all(|word| words(word) == [word.clone()]));
        assert!(!vocabulary.iter().any(|word| word.contains(['{', '}'])));
    }

    #[test]
    fn attributes_of_one_kind_share_no_words_for_it() {
        let all: Vec<&str> = Body::ALL.iter().flat_map(|b| b.words()).copied().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let places: Vec<&str> = Background::ALL.iter().flat_map(|b| b.places()).copied().collect();
        assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len());
    }
}
