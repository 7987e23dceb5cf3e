//! The words of the world as token ids.

use anyhow::Context as _;
use kosmosg::config::SpecialTokens;
use kosmosg::digest::hex;
use kosmosg::noise::Rng;
use kosmosg::tokenizer::{Piece, PieceKind, Tokenizer, Vocabulary};
use sha2::{Digest, Sha256};

use super::config::Networks;
use crate::sprites::{self, Edit, Split};

/// The published dictionary's frame, reference section 1, with the world's words in the middle.
const BEFORE: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
const AFTER: [&str; 6] = ["<mask>", "</doc>", "<image>", "</image>", "</chunk>", "</line>"];

/// One piece for each word and mark of the world, each equally likely: whatever is neither becomes `<unk>`.
///
/// Capital letters become small ones, and marks stand apart from the words around them, however they are typed.
pub fn vocabulary() -> Vocabulary {
    let special = |text: &&str| Piece { text: (*text).to_owned(), score: 0.0, kind: PieceKind::Special };
    let normal = |word: &String| Piece { text: format!("{SPACE}{word}"), score: -1.0, kind: PieceKind::Normal };
    let words = sprites::vocabulary();
    let capitals = (b'A'..=b'Z').map(|letter| (letter, char::from(letter.to_ascii_lowercase()).to_string()));
    let white = b"\t\n\r".iter().map(|&byte| (byte, " ".to_owned()));
    let marks = words.iter().filter_map(|word| match word.as_bytes() {
        &[mark] if mark.is_ascii_punctuation() => Some((mark, format!(" {} ", char::from(mark)))),
        _ => None,
    });
    Vocabulary {
        charsmap: charsmap(capitals.chain(white).chain(marks)),
        pieces: BEFORE.iter().map(special).chain(words.iter().map(normal)).chain(AFTER.iter().map(special)).collect(),
        unk: 3,
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        space: SPACE,
    }
}

const SPACE: char = '▁';

/// SentencePiece's compiled form of rules that replace one ASCII character each: a double-array trie one level deep, with
/// the characters' units at 256 and the places of their replacements at 512.
fn charsmap(rules: impl Iterator<Item = (u8, String)>) -> Vec<u8> {
    const LABELS: u32 = 256;
    const VALUES: u32 = 512;
    const IS_VALUE: u32 = 1 << 31;
    const HAS_VALUE: u32 = 1 << 8;
    // A unit marked as a value is no character's, not even NUL's.
    let mut units = [IS_VALUE; 768];
    units[0] = LABELS << 10;
    let mut replacements = Vec::new();
    for (byte, replacement) in rules {
        let label = LABELS + u32::from(byte);
        let value = VALUES + u32::from(byte);
        units[label as usize] = u32::from(byte) | HAS_VALUE | (label ^ value) << 10;
        units[value as usize] = IS_VALUE | replacements.len() as u32;
        replacements.extend(replacement.into_bytes());
        replacements.push(0);
    }
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    [&(trie.len() as u32).to_le_bytes()[..], &trie, &replacements].concat()
}

/// The world's tokenizer.
///
/// # Errors
/// `networks` count other ids than the world has.
pub fn tokenizer(networks: &Networks) -> anyhow::Result<Tokenizer> {
    let vocabulary = vocabulary();
    let size = vocabulary.pieces.len();
    let id = |text: &str| vocabulary.pieces.iter().position(|piece| piece.text == text).map(|id| id as u32);
    let at = |text: &str| id(text).with_context(|| format!("the vocabulary has no `{text}`"));
    let special = SpecialTokens {
        bos: at("<s>")?,
        pad: at("<pad>")?,
        eos: at("</s>")?,
        unk: at("<unk>")?,
        boi: at("<image>")?,
        eoi: at("</image>")?,
    };
    let config = &networks.kosmosg;
    if [config.mllm.vocab_size, networks.text.vocab_size] != [size; 2] || config.special != special {
        anyhow::bail!(
            "the world has {size} token ids, {special:?}; set vocab_size of mllm and text, and special, accordingly"
        );
    }
    Ok(Tokenizer::new(vocabulary, size, &special)?)
}

/// A hash of the world's words and of what is said with them: what a model has learned is of use in this world only.
pub(super) fn world() -> String {
    let mut hash = Sha256::new();
    hash.update(vocabulary().to_json());
    for seed in 0..200 {
        let mut rng = Rng::new(seed, 0);
        let Edit { source, instruction, .. } = Edit::sample(&mut rng, Split::Train);
        hash.update(sprites::caption(&source, &mut rng));
        hash.update(instruction);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn what_people_type_becomes_the_worlds_words() {
        let networks = TrainConfig::tiny().networks;
        let written = vocabulary().to_json();
        let special = &networks.kosmosg.special;
        let tokenizer = Tokenizer::from_json(&written, networks.text.vocab_size, special).unwrap();
        let expected = tokenizer.encode("a red ball , a blue star .");
        assert_eq!(expected.len(), 8);
        for text in ["A red Ball, a blue star.", " a RED  ball,a blue star. ", "a red ball ,\na blue\tstar ."] {
            assert_eq!(tokenizer.encode(text), expected, "{text:?}");
        }
        assert!(!expected.contains(&special.unk));
        assert_eq!(tokenizer.encode(", on the moon!"), tokenizer.encode(" ,  on the moon !"));
        assert_eq!(tokenizer.encode("a Zebra"), [expected[0], special.unk]);
        assert_eq!(tokenizer.encode("a \0A"), [expected[0], special.unk]);
    }

    #[test]
    fn the_world_says_what_models_were_trained_on() {
        assert_eq!(world(), "b0184ff84aef5654d6518d28abc9dfcf22e52e019abeba90eca0a75b23dedf66");
    }

    #[test]
    fn every_word_and_mark_is_one_token() {
        let tokenizer = tokenizer(&TrainConfig::tiny().networks).unwrap();
        for (id, word) in (BEFORE.len() as u32..).zip(sprites::vocabulary()) {
            assert_eq!(tokenizer.encode(&word), [id], "{word}");
        }
    }

    #[test]
    fn networks_of_another_vocabulary_are_refused() {
        let mut networks = TrainConfig::tiny().networks;
        networks.text.vocab_size += 1;
        let error = tokenizer(&networks).unwrap_err().to_string();
        assert!(error.contains("token ids"), "{error}");
    }
}
