//! A SentencePiece model and a dictionary of made-up words.

use std::fmt::Write as _;

use prost::Message;

/// Frame of the dictionary, reference section 1: ids that no line stands for.
const FRAME: usize = 10;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(float, tag = "2")]
    score: f32,
    /// 1 is normal, 2 unknown, 3 control.
    #[prost(int32, tag = "3")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    /// 1 is unigram.
    #[prost(int32, tag = "3")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(string, tag = "1")]
    name: String,
}

/// `sentencepiece.bpe.model` and `dict.txt` that make `vocabulary` ids: letters and marks, then words of syllables.
pub(super) fn files(vocabulary: usize) -> (Vec<u8>, String) {
    let letters = ('!'..='~').flat_map(|letter| [letter.to_string(), format!("▁{letter}")]);
    let pieces: Vec<String> = ["▁".to_owned()]
        .into_iter()
        .chain(letters)
        .chain((0..).map(word))
        .take(vocabulary.saturating_sub(FRAME))
        .collect();
    let mut dictionary = String::new();
    pieces.iter().for_each(|piece| writeln!(dictionary, "{piece} 1").expect("a text takes all"));
    let control = ["<unk>", "<s>", "</s>"].into_iter().zip([2, 3, 3]);
    let control = control.map(|(text, kind)| Piece { text: text.to_owned(), score: 0.0, kind });
    let normal = pieces.into_iter().enumerate().map(|(rank, text)| {
        // Longer pieces are likelier than what they are made of.
        let score = -(rank as f32 + 1.0).ln() - if text.chars().count() > 2 { 0.0 } else { 12.0 };
        Piece { text, score, kind: 1 }
    });
    let model = Model {
        pieces: control.chain(normal).collect(),
        trainer: Some(Trainer { kind: 1 }),
        normalizer: Some(Normalizer { name: "identity".to_owned() }),
    };
    (model.encode_to_vec(), dictionary)
}

/// The made-up word of a number: syllables in base 85.
fn word(mut number: usize) -> String {
    let mut word = "▁".to_owned();
    number += SYLLABLES;
    while number > 0 {
        let (consonant, vowel) = (number % 17, number / 17 % 5);
        word.push(char::from(b"bcdfghjklmnprstvw"[consonant]));
        word.push(char::from(b"aeiou"[vowel]));
        number /= SYLLABLES;
    }
    word
}

const SYLLABLES: usize = 17 * 5;
