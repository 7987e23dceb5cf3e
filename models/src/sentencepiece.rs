//! From the published checkpoint's tokenizer files, a SentencePiece model and a fairseq dictionary, to a vocabulary.
//!
//! SentencePiece cuts the text, and the dictionary gives each piece its id, so that the two must agree by spelling only.

use std::collections::{BTreeMap, BTreeSet};

use kosmosg::config::SpecialTokens;
use kosmosg::tokenizer::{Piece, PieceKind, Vocabulary};

/// What the two files make together.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// To be written as `tokenizer.json`; pieces that the dictionary lacks come after the `vocab_size` ids.
    pub vocabulary: Vocabulary,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Ids of the tokens that are not words.
    pub special: SpecialTokens,
}

/// Why the two files cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SentencePieceError {
    /// The model file is damaged or something else.
    #[error("the SentencePiece model is damaged at byte {at}: {what}")]
    Damaged {
        /// Position in the (nested) message.
        at: usize,
        /// What was found there.
        what: &'static str,
    },
    /// The model is of a kind that the published one is not.
    #[error("the SentencePiece model has {0}, which is not supported")]
    Unsupported(String),
    /// A line of the dictionary is not `piece count`, or its piece came before.
    #[error("line {line} of the dictionary, `{text}`, {what}")]
    Dictionary {
        /// Number of the line, from 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Converts the contents of `sentencepiece.bpe.model` and `dict.txt`.
///
/// # Errors
/// When one of them is damaged, or the model is no unigram model or uses byte fallback, user-defined symbols or spaces
/// as suffixes.
pub fn convert(model: &[u8], dictionary: &str) -> Result<Converted, SentencePieceError> {
    let model = ModelProto::read(model)?;
    let mut scores: BTreeMap<String, f32> = model.pieces.into_iter().collect();
    let special = |text: &str| Piece { text: text.into(), score: 0.0, kind: PieceKind::Special };
    let mut pieces: Vec<Piece> = FIRST.map(special).into();
    let mut seen: BTreeSet<&str> = FIRST.into_iter().chain(LAST).collect();
    for (index, line) in dictionary.split('\n').enumerate() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let wrong = |what| SentencePieceError::Dictionary { line: index + 1, text: line.into(), what };
        let (text, count) = line.rsplit_once(' ').ok_or_else(|| wrong("is not `piece count`"))?;
        if count.parse::<u64>().is_err() {
            return Err(wrong("is not `piece count`"));
        }
        if !seen.insert(text) {
            return Err(wrong("repeats a piece"));
        }
        pieces.push(match scores.remove(text) {
            Some(score) => Piece { text: text.into(), score, kind: PieceKind::Normal },
            None => Piece { text: text.into(), score: 0.0, kind: PieceKind::Listed },
        });
    }
    let last = pieces.len() as u32;
    pieces.extend(LAST.map(special));
    let vocab_size = pieces.len();
    pieces.extend(scores.into_iter().map(|(text, score)| Piece { text, score, kind: PieceKind::Normal }));
    let special = SpecialTokens { bos: 0, pad: 1, eos: 2, unk: 3, boi: last + 2, eoi: last + 3 };
    let vocabulary = Vocabulary {
        pieces,
        unk: special.unk,
        charsmap: model.charsmap,
        add_dummy_prefix: model.add_dummy_prefix,
        remove_extra_whitespaces: model.remove_extra_whitespaces,
        space: if model.escape_whitespaces { '▁' } else { ' ' },
    };
    Ok(Converted { vocabulary, vocab_size, special })
}

/// What fairseq puts before a dictionary's lines.
const FIRST: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];

/// What KOSMOS-G puts after them.
const LAST: [&str; 6] = ["<mask>", "</doc>", "<image>", "</image>", "</chunk>", "</line>"];

/// The fields of `sentencepiece_model.proto` that decide how a text is cut, with the schema's defaults.
struct ModelProto {
    /// Pieces that a text can be cut into, with their scores.
    pieces: Vec<(String, f32)>,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl ModelProto {
    fn read(bytes: &[u8]) -> Result<Self, SentencePieceError> {
        let mut model = Self {
            pieces: Vec::new(),
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let mut message = Message::new(bytes);
        while let Some(field) = message.next()? {
            match field {
                (1, Value::Bytes(bytes)) => model.pieces.extend(read_piece(bytes)?),
                (2, Value::Bytes(bytes)) => check_trainer(bytes)?,
                (3, Value::Bytes(bytes)) => model.read_normalizer(bytes)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(SentencePieceError::Damaged { at: bytes.len(), what: "it ends without any piece" });
        }
        Ok(model)
    }

    /// `NormalizerSpec`
    fn read_normalizer(&mut self, bytes: &[u8]) -> Result<(), SentencePieceError> {
        let mut message = Message::new(bytes);
        while let Some(field) = message.next()? {
            match field {
                (2, Value::Bytes(charsmap)) => self.charsmap = charsmap.to_vec(),
                (3, Value::Varint(value)) => self.add_dummy_prefix = value != 0,
                (4, Value::Varint(value)) => self.remove_extra_whitespaces = value != 0,
                (5, Value::Varint(value)) => self.escape_whitespaces = value != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

/// `ModelProto.SentencePiece`: nothing for one that only has a name, such as `</s>`.
fn read_piece(bytes: &[u8]) -> Result<Option<(String, f32)>, SentencePieceError> {
    const NORMAL: u64 = 1;
    const USER_DEFINED: u64 = 4;
    let (mut text, mut score, mut kind) = (&[][..], 0.0, NORMAL);
    let mut message = Message::new(bytes);
    while let Some(field) = message.next()? {
        match field {
            (1, Value::Bytes(bytes)) => text = bytes,
            (2, Value::Fixed32(bits)) => score = f32::from_le_bytes(bits),
            (3, Value::Varint(value)) => kind = value,
            _ => {}
        }
    }
    let damaged = |what| SentencePieceError::Damaged { at: 0, what };
    let text = std::str::from_utf8(text).map_err(|_| damaged("a piece is not UTF-8"))?;
    match kind {
        NORMAL if text.is_empty() || !score.is_finite() => Err(damaged("a piece has no text or no finite score")),
        NORMAL => Ok(Some((text.into(), score))),
        USER_DEFINED => Err(SentencePieceError::Unsupported(format!("the user-defined symbol `{text}`"))),
        _ => Ok(None),
    }
}

/// `TrainerSpec`: whether the model cuts as the published one does.
fn check_trainer(bytes: &[u8]) -> Result<(), SentencePieceError> {
    const UNIGRAM: u64 = 1;
    let mut message = Message::new(bytes);
    while let Some(field) = message.next()? {
        let unsupported = match field {
            (3, Value::Varint(kind)) if kind != UNIGRAM => {
                let kind = ["no type", "unigram", "BPE", "word", "char"].get(kind as usize).unwrap_or(&"unknown");
                format!("the model type {kind} instead of unigram")
            }
            (24, Value::Varint(1)) => "treat_whitespace_as_suffix".into(),
            (35, Value::Varint(1)) => "byte_fallback".into(),
            _ => continue,
        };
        return Err(SentencePieceError::Unsupported(unsupported));
    }
    Ok(())
}

/// A protobuf message, read field by field.
struct Message<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's value as it is encoded.
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl<'a> Message<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next field's number and value, nothing at the end.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, SentencePieceError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            _ => return Err(SentencePieceError::Damaged { at: start, what: "no such kind of field" }),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, SentencePieceError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SentencePieceError::Damaged { at: self.at, what: "a number of more than 64 bits" })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], SentencePieceError> {
        let rest = &self.bytes[self.at..];
        match rest.get(..usize::try_from(length).unwrap_or(usize::MAX)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(SentencePieceError::Damaged { at: self.at, what: "a field longer than the rest of the file" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use kosmosg::tokenizer::Tokenizer;

    use super::*;

    fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 128);
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let fields =
            [bytes_field(1, text.as_bytes()), vec![2 << 3 | 5], score.to_le_bytes().to_vec(), vec![3 << 3, kind]];
        bytes_field(1, &fields.concat())
    }

    fn model() -> Vec<u8> {
        let pieces = [
            piece("<unk>", 0.0, 2),
            piece("<s>", 0.0, 3),
            piece("▁a", -1.5, 1),
            piece("▁", -3.0, 1),
            piece("cat", -2.0, 1),
            piece("x", -2.5, 1),
        ];
        let trainer = bytes_field(2, &[3 << 3, 1]);
        let normalizer = bytes_field(3, &[&bytes_field(1, b"identity")[..], &[5 << 3, 1]].concat());
        [pieces.concat(), trainer, normalizer].concat()
    }

    const DICTIONARY: &str = "cat 7\n▁a 5\r\n▁ 1\n🙂 1\n";

    #[test]
    fn ids_are_the_dictionarys() {
        let Converted { vocabulary, vocab_size, special } = convert(&model(), DICTIONARY).unwrap();
        let texts: Vec<&str> = vocabulary.pieces.iter().map(|piece| piece.text.as_str()).collect();
        let expected = "<s> <pad> </s> <unk> cat ▁a ▁ 🙂 <mask> </doc> <image> </image> </chunk> </line> x";
        assert_eq!(texts.join(" "), expected);
        assert_eq!(vocab_size, 14);
        assert_eq!(special, SpecialTokens { bos: 0, pad: 1, eos: 2, unk: 3, boi: 10, eoi: 11 });
        assert_eq!(vocabulary.pieces[5].score, -1.5);
        assert_eq!(vocabulary.pieces[7].kind, PieceKind::Listed);

        let tokenizer = Tokenizer::from_json(&vocabulary.to_json(), vocab_size, &special).unwrap();
        assert_eq!(tokenizer.encode("a  cat 🙂"), [5, 6, 4, 6, 7]);
        assert_eq!(tokenizer.encode("xcatyyy"), [6, 3, 4, 3]);
    }

    #[test]
    fn settings_are_the_models() {
        let changed =
            |settings: &[u8]| convert(&[model(), bytes_field(3, settings)].concat(), DICTIONARY).unwrap().vocabulary;
        let vocabulary = changed(&[]);
        assert!(vocabulary.add_dummy_prefix && vocabulary.remove_extra_whitespaces && vocabulary.space == '▁');
        assert!(!changed(&[3 << 3, 0]).add_dummy_prefix);
        assert!(!changed(&[4 << 3, 0]).remove_extra_whitespaces);
        assert_eq!(changed(&[5 << 3, 0]).space, ' ');
        assert_eq!(changed(&bytes_field(2, b"rules")).charsmap, b"rules");
    }

    #[test]
    fn a_damaged_model_is_an_error() {
        let model = model();
        for length in 0..model.len() {
            // A cut between two fields leaves a shorter model.
            if let Err(error) = convert(&model[..length], DICTIONARY) {
                assert!(error.to_string().contains("damaged at byte"), "{error}");
            }
        }
        assert!(convert(b"not a model", DICTIONARY).is_err());
        assert!(convert(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], DICTIONARY).is_err());
        assert!(convert(&piece("a", f32::NAN, 1), DICTIONARY).is_err());
    }

    #[test]
    fn another_kind_of_model_is_named() {
        for (field, expected) in [
            (bytes_field(2, &[3 << 3, 2]), "model type BPE"),
            (bytes_field(2, &[0x98, 0x02, 1]), "byte_fallback"),
            (bytes_field(2, &[0xc0, 0x01, 1]), "treat_whitespace_as_suffix"),
            (piece("<i>", 0.0, 4), "user-defined symbol `<i>`"),
        ] {
            let error = convert(&[model(), field].concat(), DICTIONARY).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_wrong_line_of_the_dictionary_is_named() {
        for (dictionary, expected) in [
            ("a 1\nb\n", "line 2 of the dictionary, `b`, is not"),
            ("a one", "line 1 of the dictionary, `a one`, is not"),
            ("a 1\na 2", "line 2 of the dictionary, `a 2`, repeats"),
            ("<unk> 1", "line 1 of the dictionary, `<unk> 1`, repeats"),
        ] {
            let error = convert(&model(), dictionary).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
