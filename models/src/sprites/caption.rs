//! What a picture shows, in words, with the places marked where a picture can stand instead of the words.

use kosmosg::picture::Picture;

use super::background::Setting;
use super::creature::Creature;
use super::scene::{Backdrop, Scene, cutout, draw};
use super::words::article;

/// Something in a caption that a picture can show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shown {
    /// A creature as its picture shows it, and whose place in the scene it takes.
    Creature {
        /// As pictured; in an [altered](Caption::altered) caption the scene's own creature differs from it.
        creature: Creature,
        /// Index in [`Scene::actors`].
        actor: usize,
    },
    /// The place, without anyone.
    Background(Setting),
}

/// A piece of a caption.
#[derive(Clone, Debug, PartialEq)]
pub enum Span {
    /// Words that stay.
    Text(String),
    /// Words that a picture can replace or accompany.
    Entity {
        /// What the picture shows.
        shown: Shown,
        /// Its words without an article: "red ball with a crown".
        words: String,
        /// Where "a" or "an" goes before it.
        article: Article,
    },
}

/// Where an entity has its article before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Article {
    /// Before its words and before a picture alone.
    Always,
    /// Before its words only: people also write `<i> on the beach`.
    BeforeWords,
    /// Nowhere: it needs none, or the text before has it.
    Never,
}

/// How an entity is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wording {
    /// "a red ball"
    Words,
    /// "a red ball" and its picture
    Both,
    /// "a" and its picture
    Picture,
}

/// A piece of a prompt in which pictures stand between words.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Words, without spaces around them.
    Text(String),
    /// A picture of this.
    Picture(Shown),
}

/// A scene in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// Its pieces in reading order.
    pub spans: Vec<Span>,
}

impl Caption {
    /// The caption in words alone.
    pub fn text(&self) -> String {
        let pieces = self.interleaved(|_| Wording::Words);
        let texts =
            pieces.into_iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None });
        texts.collect()
    }

    /// The caption with pictures in it, each entity told as `wording` says.
    pub fn interleaved(&self, mut wording: impl FnMut(&Shown) -> Wording) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        for span in &self.spans {
            match span {
                Span::Text(words) => text += words,
                Span::Entity { shown, words, article: wanted } => {
                    let wording = wording(shown);
                    match (wanted, wording) {
                        (Article::Always, Wording::Picture) => text += "a ",
                        (Article::Never, _) | (_, Wording::Picture) => {}
                        _ => text += &format!("{} ", article(words)),
                    }
                    if wording != Wording::Picture {
                        text += words;
                    }
                    if wording != Wording::Words {
                        flush(&mut text, &mut pieces);
                        pieces.push(Piece::Picture(*shown));
                    }
                }
            }
        }
        flush(&mut text, &mut pieces);
        pieces
    }
}

impl Shown {
    /// The picture that stands for this in a prompt for `scene`, `size`×`size` pixels.
    ///
    /// A creature is cut out of the scene as it looks in it, with or without what is around it.
    ///
    /// # Panics
    /// If the scene has no such creature.
    pub fn picture(&self, scene: &Scene, backdrop: Backdrop, size: u32) -> Picture {
        match *self {
            Shown::Creature { creature, actor } => {
                let mut seen = scene.clone();
                seen.actors[actor].creature = creature;
                cutout(&seen, actor, backdrop, size)
            }
            Shown::Background(setting) => draw(&Scene::empty(setting), size),
        }
    }
}

pub(super) fn text(words: &str) -> Vec<Span> {
    if words.is_empty() { Vec::new() } else { vec![Span::Text(words.into())] }
}

/// Puts parts into the places of a template that carry their names in braces; a missing part leaves nothing.
pub(super) fn fill(template: &str, parts: &[(&str, Vec<Span>)]) -> Vec<Span> {
    let mut spans = Vec::new();
    for piece in template.split_inclusive('}') {
        let (words, name) = piece.split_once('{').unwrap_or((piece, ""));
        spans.extend(text(words));
        let part = parts.iter().find(|(known, _)| name.strip_suffix('}') == Some(known));
        spans.extend(part.into_iter().flat_map(|(_, part)| part.clone()));
    }
    spans
}

/// Closes a stretch of text: single spaces, none at the ends or before a comma.
fn flush(text: &mut String, pieces: &mut Vec<Piece>) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",");
    if !words.is_empty() {
        pieces.push(Piece::Text(words));
    }
    text.clear();
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::super::creature::Split;
    use super::super::grammar::Detail;
    use super::*;

    fn captions(count: u64) -> impl Iterator<Item = (Scene, Caption)> {
        (0..count).map(|seed| {
            let mut rng = Rng::new(seed, 0);
            let scene = Scene::sample(&mut rng, Split::Train);
            let caption = Caption::sample(&mut rng, &scene, Detail::Partial);
            (scene, caption)
        })
    }

    #[test]
    fn each_creature_is_an_entity_once() {
        for (scene, caption) in captions(300) {
            let mut actors = Vec::new();
            for piece in caption.interleaved(|_| Wording::Picture) {
                match piece {
                    Piece::Picture(Shown::Creature { creature, actor }) => {
                        assert_eq!(creature, scene.actors[actor].creature);
                        actors.push(actor);
                    }
                    Piece::Picture(Shown::Background(setting)) => assert_eq!(setting, scene.setting),
                    Piece::Text(text) => assert_eq!(text, text.trim()),
                }
            }
            actors.sort_unstable();
            assert_eq!(actors, (0..scene.actors.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_picture_replaces_the_words_or_follows_them() {
        let creature = Creature::from_index(0).expect("there are creatures");
        let shown = Shown::Creature { creature, actor: 0 };
        let entity = Span::Entity { shown, words: "orange ball".into(), article: Article::Always };
        let caption = Caption { spans: vec![entity, Span::Text(" , on the beach".into())] };
        let text = |text: &str| Piece::Text(text.into());
        assert_eq!(caption.text(), "an orange ball, on the beach");
        let replaced = [text("a"), Piece::Picture(shown), text(", on the beach")];
        assert_eq!(caption.interleaved(|_| Wording::Picture), replaced);
        let both = [text("an orange ball"), Piece::Picture(shown), text(", on the beach")];
        assert_eq!(caption.interleaved(|_| Wording::Both), both);
    }

    #[test]
    fn pictures_can_be_drawn_for_every_entity() {
        for (scene, caption) in captions(40) {
            for piece in caption.interleaved(|_| Wording::Picture) {
                if let Piece::Picture(shown) = piece {
                    assert_eq!(shown.picture(&scene, Backdrop::Kept, 32).width(), 32);
                }
            }
        }
    }
}
