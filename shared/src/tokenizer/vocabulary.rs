//! A vocabulary of scored pieces and its file, `tokenizer.json` in the form of Hugging Face's `tokenizers`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::TokenizerError;

/// Everything that a tokenizer is made of: the pieces in the order of their ids and how text is normalised before.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// The piece of each id. Pieces past the model's own vocabulary take part in cutting a text and then become unknown.
    pub pieces: Vec<Piece>,
    /// Id of what is in no piece.
    pub unk: u32,
    /// SentencePiece's compiled replacement rules (`precompiled_charsmap`); empty for none.
    pub charsmap: Vec<u8>,
    /// A space before every text, so that a word is the same piece at its start as further on.
    pub add_dummy_prefix: bool,
    /// One space for several, none at the ends.
    pub remove_extra_whitespaces: bool,
    /// What stands for a space in pieces, mostly `▁`.
    pub space: char,
}

/// One entry of a [`Vocabulary`].
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its characters, with [`Vocabulary::space`] for a space.
    pub text: String,
    /// Logarithm of its probability; a text is cut where the sum is highest.
    pub score: f32,
    /// Whether a text can be cut into it.
    pub kind: PieceKind,
}

/// Whether a text can be cut into a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// It can.
    Normal,
    /// Never: its characters in a text are just characters, such as `<image>`.
    Special,
    /// No, but a run of unknown characters that reads the same gets its id: in the dictionary, not in SentencePiece's model.
    Listed,
}

impl Vocabulary {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// When it is no JSON of that form or names a model or step that is not SentencePiece's unigram.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        let file: File = serde_json::from_slice(json)?;
        let ModelFile::Unigram { unk_id, vocab, byte_fallback } = file.model;
        if byte_fallback {
            return Err(TokenizerError::Unsupported("byte_fallback".into()));
        }
        let mut vocabulary = Self {
            pieces: vocab
                .into_iter()
                .map(|(text, score)| Piece { text, score: score as f32, kind: PieceKind::Normal })
                .collect(),
            unk: unk_id,
            charsmap: Vec::new(),
            add_dummy_prefix: false,
            remove_extra_whitespaces: false,
            space: ' ',
        };
        for token in file.added_tokens {
            let piece = vocabulary.pieces.get_mut(token.id as usize).filter(|piece| piece.text == token.content);
            let piece = piece.ok_or_else(|| {
                TokenizerError::Vocabulary(format!("added token `{}` is not piece {}", token.content, token.id))
            })?;
            piece.kind = if token.special { PieceKind::Special } else { PieceKind::Listed };
        }
        match file.pre_tokenizer {
            Some(PreTokenizerFile::Metaspace { replacement, prepend_scheme, split: false }) => {
                vocabulary.space = replacement;
                vocabulary.add_dummy_prefix = prepend_scheme == PrependScheme::Always;
            }
            Some(_) => return Err(TokenizerError::Unsupported("pre_tokenizer Metaspace with split".into())),
            None => {}
        }
        for step in file.normalizer.map_or_else(Vec::new, NormalizerFile::steps) {
            match step {
                NormalizerFile::Precompiled { precompiled_charsmap } => {
                    vocabulary.charsmap = STANDARD
                        .decode(precompiled_charsmap)
                        .map_err(|error| TokenizerError::Charsmap(error.to_string()))?;
                }
                step if step == NormalizerFile::strip() => {}
                step if step == NormalizerFile::one_space() => vocabulary.remove_extra_whitespaces = true,
                step => return Err(TokenizerError::Unsupported(format!("normalizer {step:?}"))),
            }
        }
        Ok(vocabulary)
    }

    /// Writes `tokenizer.json`; [`Vocabulary::from_json`] reads the same back.
    pub fn to_json(&self) -> Vec<u8> {
        let mut normalizers = Vec::new();
        if !self.charsmap.is_empty() {
            normalizers.push(NormalizerFile::Precompiled { precompiled_charsmap: STANDARD.encode(&self.charsmap) });
        }
        if self.remove_extra_whitespaces {
            normalizers.extend([NormalizerFile::strip(), NormalizerFile::one_space()]);
        }
        let added = self.pieces.iter().enumerate().filter(|(_, piece)| piece.kind != PieceKind::Normal);
        let prepend_scheme = if self.add_dummy_prefix { PrependScheme::Always } else { PrependScheme::Never };
        let file = File {
            version: "1.0".into(),
            added_tokens: added
                .map(|(id, piece)| AddedToken {
                    id: id as u32,
                    content: piece.text.clone(),
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: false,
                    special: piece.kind == PieceKind::Special,
                })
                .collect(),
            normalizer: Some(NormalizerFile::Sequence { normalizers }),
            pre_tokenizer: Some(PreTokenizerFile::Metaspace { replacement: self.space, prepend_scheme, split: false }),
            model: ModelFile::Unigram {
                unk_id: self.unk,
                vocab: self.pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score))).collect(),
                byte_fallback: false,
            },
        };
        serde_json::to_vec(&file).expect("strings, numbers and lists are always JSON")
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<NormalizerFile>,
    pre_tokenizer: Option<PreTokenizerFile>,
    model: ModelFile,
}

#[derive(Serialize, Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum NormalizerFile {
    Sequence { normalizers: Vec<NormalizerFile> },
    Precompiled { precompiled_charsmap: String },
    Strip { strip_left: bool, strip_right: bool },
    Replace { pattern: Pattern, content: String },
}

impl NormalizerFile {
    fn steps(self) -> Vec<Self> {
        match self {
            NormalizerFile::Sequence { normalizers } => normalizers,
            step => vec![step],
        }
    }

    fn strip() -> Self {
        NormalizerFile::Strip { strip_left: true, strip_right: true }
    }

    fn one_space() -> Self {
        NormalizerFile::Replace { pattern: Pattern::Regex(" {2,}".into()), content: " ".into() }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type")]
enum PreTokenizerFile {
    Metaspace { replacement: char, prepend_scheme: PrependScheme, split: bool },
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrependScheme {
    Always,
    Never,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type")]
enum ModelFile {
    Unigram {
        unk_id: u32,
        vocab: Vec<(String, f64)>,
        #[serde(default)]
        byte_fallback: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let piece = |text: &str, score, kind| Piece { text: text.into(), score, kind };
        Vocabulary {
            pieces: vec![
                piece("<s>", 0.0, PieceKind::Special),
                piece("<unk>", 0.0, PieceKind::Special),
                piece("▁a", -0.068_628_676, PieceKind::Normal),
                piece("🙂", -1.0, PieceKind::Listed),
            ],
            unk: 1,
            charsmap: vec![4, 0, 0, 0, 1, 2, 3, 4],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            space: '▁',
        }
    }

    #[test]
    fn the_file_holds_everything() {
        let mut vocabulary = vocabulary();
        assert_eq!(Vocabulary::from_json(&vocabulary.to_json()).unwrap(), vocabulary);
        vocabulary.charsmap.clear();
        vocabulary.add_dummy_prefix = false;
        vocabulary.remove_extra_whitespaces = false;
        vocabulary.space = ' ';
        assert_eq!(Vocabulary::from_json(&vocabulary.to_json()).unwrap(), vocabulary);
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let json = String::from_utf8(vocabulary().to_json()).unwrap();
        for (from, to, expected) in [
            ("\"Unigram\"", "\"BPE\"", "unknown variant `BPE`"),
            ("\"split\":false", "\"split\":true", "Metaspace with split"),
            ("\"byte_fallback\":false", "\"byte_fallback\":true", "byte_fallback"),
            ("\"id\":3", "\"id\":9", "added token `🙂` is not piece 9"),
            (" {2,}", "a+", "normalizer Replace"),
            ("BAAAAAECAwQ=", "?", "charsmap"),
        ] {
            let other = json.replacen(from, to, 1);
            assert_ne!(other, json, "{from}");
            let error = Vocabulary::from_json(other.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Vocabulary::from_json(b"").is_err());
        assert!(Vocabulary::from_json(&json.as_bytes()[..json.len() / 2]).is_err());
    }
}
