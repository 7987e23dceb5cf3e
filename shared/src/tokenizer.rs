//! From text to token ids: SentencePiece's unigram model over the `tokenizers` crate's.

use tokenizers::{Model, models::unigram::Unigram};

use crate::config::SpecialTokens;
use crate::prompt::{PromptDocument, PromptError, PromptItem, PromptSequence};

use normalizer::{Charsmap, Normalizer};
pub use vocabulary::{Piece, PieceKind, Vocabulary};

mod normalizer;
mod vocabulary;

/// Cuts text into pieces and knows their ids, exactly as SentencePiece does with the published model.
///
/// The crate's `Unigram` holds the pieces. The search for the best cut is ours: the crate adds scores in f64 where
/// SentencePiece adds in f32, and among cuts into the same pieces in another order (`zzzzz` = `zzz zz` or `zz zzz`) the
/// rounding decides. It makes 3 of 100 repetitive texts come out differently.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    normalizer: Normalizer,
    pieces: Unigram,
    /// Score of each piece; what a text cannot be cut into has none.
    scores: Vec<Option<f32>>,
    listed: Vec<u32>,
    unknown_score: f32,
    /// Bytes of the longest piece.
    longest: usize,
    vocab_size: usize,
    special: SpecialTokens,
}

/// Why a tokenizer could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is not `tokenizer.json` of a unigram model.
    #[error("tokenizer.json cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The file asks for a step that only other models have.
    #[error("tokenizer.json needs {0}, and only SentencePiece's unigram model with `▁` for spaces is supported")]
    Unsupported(String),
    /// The replacement rules are damaged.
    #[error("tokenizer.json has a damaged charsmap: {0}")]
    Charsmap(String),
    /// The pieces do not fit each other or the network.
    #[error("tokenizer.json does not fit: {0}")]
    Vocabulary(String),
}

impl Tokenizer {
    /// Reads `tokenizer.json` for a network with `vocab_size` token ids.
    ///
    /// # Errors
    /// When the file is damaged, is for another kind of model, or has fewer pieces than the network has ids.
    pub fn from_json(json: &[u8], vocab_size: usize, special: &SpecialTokens) -> Result<Self, TokenizerError> {
        Self::new(Vocabulary::from_json(json)?, vocab_size, special)
    }

    /// A tokenizer of the vocabulary for a network with `vocab_size` token ids.
    ///
    /// # Errors
    /// When the replacement rules are damaged or there are fewer pieces than the network has ids.
    pub fn new(vocabulary: Vocabulary, vocab_size: usize, special: &SpecialTokens) -> Result<Self, TokenizerError> {
        let Vocabulary { pieces, unk, charsmap, add_dummy_prefix, remove_extra_whitespaces, space } = vocabulary;
        if pieces.len() < vocab_size {
            let count = pieces.len();
            return Err(TokenizerError::Vocabulary(format!("it has {count} pieces, the network {vocab_size} ids")));
        }
        let SpecialTokens { bos, pad, eos, unk: special_unk, boi, eoi } = *special;
        if let Some(id) = [bos, pad, eos, unk, boi, eoi].into_iter().find(|&id| id as usize >= vocab_size) {
            return Err(TokenizerError::Vocabulary(format!("special id {id} is not below {vocab_size}")));
        }
        if unk != special_unk {
            let what = format!("its unknown piece is {unk}, the network's {special_unk}");
            return Err(TokenizerError::Vocabulary(what));
        }
        if let Some(piece) = pieces.iter().find(|piece| piece.text.is_empty() || !piece.score.is_finite()) {
            return Err(TokenizerError::Vocabulary(format!("piece `{}` has score {}", piece.text, piece.score)));
        }
        let normal = || pieces.iter().filter(|piece| piece.kind == PieceKind::Normal);
        let lowest_score = normal().map(|piece| piece.score).fold(f32::MAX, f32::min);
        let longest = normal().map(|piece| piece.text.len()).max().unwrap_or(0);
        let scores = pieces.iter().map(|piece| (piece.kind == PieceKind::Normal).then_some(piece.score)).collect();
        let listed =
            (0..).zip(&pieces).filter(|(_, piece)| piece.kind == PieceKind::Listed).map(|(id, _)| id).collect();
        let charsmap = match charsmap.as_slice() {
            [] => None,
            bytes => Some(Charsmap::from_bytes(bytes).map_err(TokenizerError::Charsmap)?),
        };
        let named = pieces.into_iter().map(|piece| (piece.text, f64::from(piece.score))).collect();
        Ok(Self {
            normalizer: Normalizer { charsmap, add_dummy_prefix, remove_extra_whitespaces, space },
            pieces: Unigram::from(named, Some(unk as usize), false)
                .map_err(|error| TokenizerError::Vocabulary(error.to_string()))?,
            scores,
            listed,
            unknown_score: lowest_score - UNKNOWN_PENALTY,
            longest,
            vocab_size,
            special: special.clone(),
        })
    }

    /// The ids of the text's pieces, without any special token. A run of unknown characters is one `<unk>`.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = self.normalizer.normalize(text);
        let cut = self.cut(&text);
        cut.chunk_by(|one, next| one.id.is_none() && next.id.is_none())
            .map(|run| {
                let characters = || &text[run[0].start..run[run.len() - 1].end];
                let id = run[0].id.or_else(|| self.listed_id(characters()));
                id.filter(|&id| (id as usize) < self.vocab_size).unwrap_or(self.special.unk)
            })
            .collect()
    }

    /// The words of a text that are cut into pieces of which the model knows not all, each once. What only surrounds a word,
    /// such as brackets, is not looked at.
    pub fn unknown_words(&self, text: &str) -> Vec<String> {
        let mut unknown: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let word = word.trim_matches(|c: char| c.is_ascii_punctuation());
            let is_known = !self.encode(word).contains(&self.special.unk);
            if !is_known && !unknown.iter().any(|before| before == word) {
                unknown.push(word.to_owned());
            }
        }
        unknown
    }

    /// The ids of the tokens that are not words.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The language model's input for a prompt: `<s>`, each text's pieces, and for each picture `<image>`, `latents`
    /// places for its embeddings and `</image>`. An empty document gives the null sequence, `[<s>]`.
    ///
    /// # Errors
    /// [`PromptError::TooLong`] when it has more than `longest` tokens, [`PromptError::TooMuchText`] before anything is cut.
    pub fn sequence(
        &self,
        document: &PromptDocument,
        latents: usize,
        longest: usize,
    ) -> Result<PromptSequence, PromptError> {
        document.check_length()?;
        let of_pictures = document.images().count().saturating_mul(latents + 2);
        if of_pictures > longest {
            return Err(PromptError::TooLong { tokens: of_pictures.saturating_add(1), longest });
        }
        let mut sequence = PromptSequence { tokens: vec![self.special.bos], image_mask: vec![false] };
        for item in document.items() {
            match item {
                PromptItem::Text(text) => sequence.extend(self.encode(text), false),
                PromptItem::Image(_) => {
                    sequence.extend([self.special.boi], false);
                    sequence.extend(std::iter::repeat_n(self.special.boi, latents), true);
                    sequence.extend([self.special.eoi], false);
                }
            }
        }
        match sequence.tokens.len() {
            tokens if tokens > longest => Err(PromptError::TooLong { tokens, longest }),
            _ => Ok(sequence),
        }
    }

    /// The best cut of a normalised text.
    fn cut(&self, text: &str) -> Vec<Cut> {
        let mut best = BestCuts::new(text.len());
        for (start, first) in text.char_indices() {
            let mut known = false;
            for (index, last) in text[start..].char_indices() {
                let end = start + index + last.len_utf8();
                if end - start > self.longest {
                    break;
                }
                let Some(id) = self.pieces.token_to_id(&text[start..end]) else { continue };
                if let Some(score) = self.scores[id as usize] {
                    best.offer(Cut { start, end, id: Some(id) }, score);
                    known |= index == 0;
                }
            }
            if !known {
                best.offer(Cut { start, end: start + first.len_utf8(), id: None }, self.unknown_score);
            }
        }
        best.into_cuts()
    }

    /// The id of a run of unknown characters that the dictionary lists.
    fn listed_id(&self, run: &str) -> Option<u32> {
        self.pieces.token_to_id(run).filter(|id| self.listed.contains(id))
    }
}

/// A piece of a text: its bytes and its id, none for a character that is in no piece.
#[derive(Debug, Clone, Copy)]
struct Cut {
    start: usize,
    end: usize,
    id: Option<u32>,
}

/// The best way to each byte of a text: the sum of its scores and its last piece.
struct BestCuts(Vec<(f32, Option<Cut>)>);

impl BestCuts {
    fn new(length: usize) -> Self {
        Self(vec![(0.0, None); length + 1])
    }

    /// A piece to follow the best way to its start. Of equal ways the first stays, and sums are f32, as in SentencePiece.
    fn offer(&mut self, cut: Cut, score: f32) {
        let total = score + self.0[cut.start].0;
        let (best, last) = &mut self.0[cut.end];
        if last.is_none() || total > *best {
            (*best, *last) = (total, Some(cut));
        }
    }

    fn into_cuts(self) -> Vec<Cut> {
        let last = self.0.last().and_then(|(_, cut)| *cut);
        let mut cuts: Vec<Cut> = std::iter::successors(last, |cut| self.0[cut.start].1).collect();
        cuts.reverse();
        cuts
    }
}

/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::MAX_TEXT_BYTES;

    const SPECIAL: SpecialTokens = SpecialTokens { bos: 0, pad: 1, eos: 2, unk: 3, boi: 4, eoi: 5 };

    fn vocabulary(normal: &[(&str, f32)]) -> Vocabulary {
        let special = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "</image>"];
        let special = special.map(|text| Piece { text: text.into(), score: 0.0, kind: PieceKind::Special });
        let normal = normal.iter().map(|&(text, score)| Piece { text: text.into(), score, kind: PieceKind::Normal });
        Vocabulary {
            pieces: special.into_iter().chain(normal).collect(),
            unk: 3,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            space: '▁',
        }
    }

    fn tokenizer(normal: &[(&str, f32)]) -> Tokenizer {
        let vocabulary = vocabulary(normal);
        let size = vocabulary.pieces.len();
        Tokenizer::from_json(&vocabulary.to_json(), size, &SPECIAL).unwrap()
    }

    #[test]
    fn the_cut_with_the_highest_sum_wins() {
        let tokenizer = tokenizer(&[("▁a", -1.0), ("▁", -3.0), ("b", -3.0), ("ab", -0.5), ("c", -3.0), ("bc", -2.0)]);
        assert_eq!(tokenizer.encode("ab"), [7, 9]);
        assert_eq!(tokenizer.encode("abc"), [6, 11]);
        assert_eq!(tokenizer.encode(" a  bc "), [6, 7, 11]);
        assert_eq!(tokenizer.encode(""), [0; 0]);
        assert_eq!(tokenizer.encode("  "), [0; 0]);
    }

    #[test]
    fn a_run_of_unknown_characters_is_one_token() {
        let tokenizer = tokenizer(&[("▁", -1.0), ("a", -1.0)]);
        assert_eq!(tokenizer.encode("äöüaßa"), [6, 3, 7, 3, 7]);
        assert_eq!(tokenizer.encode("猫 猫"), [6, 3, 6, 3]);
    }

    #[test]
    fn unknown_words_are_named_once_and_without_what_surrounds_them() {
        let tokenizer = tokenizer(&[("▁a", -1.0), ("▁red", -1.0), ("▁.", -1.0)]);
        assert_eq!(
            tokenizer.unknown_words("a (dragonfly), a red Dragonfly; dragonfly. 🦋 !"),
            ["dragonfly", "Dragonfly", "🦋"]
        );
        assert_eq!(tokenizer.unknown_words("a red . (red)"), [""; 0]);
    }

    #[test]
    fn special_tokens_cannot_be_typed() {
        let tokenizer = tokenizer(&[("▁", -1.0), ("s", -1.0)]);
        assert_eq!(tokenizer.encode("<s>"), [6, 3, 7, 3]);
        assert_eq!(tokenizer.encode("<image>"), [6, 3]);
    }

    #[test]
    fn listed_pieces_are_found_by_unknown_runs_and_further_pieces_become_unknown() {
        let mut vocabulary = vocabulary(&[("▁", -1.0), ("🙂🙂", -9.0), ("ab", -1.0), ("a", -2.0)]);
        vocabulary.pieces[7].kind = PieceKind::Listed;
        let tokenizer = Tokenizer::new(vocabulary, 8, &SPECIAL).unwrap();
        assert_eq!(tokenizer.encode("🙂🙂"), [6, 7]);
        assert_eq!(tokenizer.encode("🙂"), [6, 3]);
        // `ab` and `a` are no ids of the network, and still two pieces.
        assert_eq!(tokenizer.encode("aba"), [6, 3, 3]);
    }

    #[test]
    fn sums_are_rounded_as_sentencepiece_rounds_them() {
        let tokenizer = tokenizer(&[("▁", -3.935_155), ("a", -0.1), ("b", -16_777_216.0), ("ba", -0.5), ("ab", -0.6)]);
        // In f32 both ways from `b` on cost the same, so that the first stays; in f64 `ba b` would win.
        assert_eq!(tokenizer.encode("bab"), [6, 8, 10]);
    }

    #[test]
    fn a_sequence_has_places_for_each_picture() {
        let tokenizer = tokenizer(&[("▁a", -1.0), ("▁and", -1.0)]);
        let document = PromptDocument::from_text("a <i> and <i>", 2).unwrap();
        let sequence = tokenizer.sequence(&document, 2, 100).unwrap();
        assert_eq!(sequence.tokens, [0, 6, 4, 4, 4, 5, 7, 4, 4, 4, 5]);
        let places: Vec<usize> = (0..11).filter(|&index| sequence.image_mask[index]).collect();
        assert_eq!(places, [3, 4, 8, 9]);

        let null = tokenizer.sequence(&PromptDocument::default(), 2, 100).unwrap();
        assert_eq!((null.tokens, null.image_mask), (vec![0], vec![false]));
    }

    #[test]
    fn a_prompt_over_the_limit_is_told_its_length() {
        let tokenizer = tokenizer(&[("▁a", -1.0)]);
        let document = PromptDocument::from_text("a a a <i>", 1).unwrap();
        assert!(tokenizer.sequence(&document, 8, 14).is_ok());
        let error = tokenizer.sequence(&document, 8, 13).unwrap_err();
        assert_eq!(error, PromptError::TooLong { tokens: 14, longest: 13 });
        assert!(error.to_string().contains("14 tokens") && error.to_string().contains("at most 13"));
        let pictures = PromptDocument::from_text(&"<i>".repeat(1000), 1000).unwrap();
        let error = tokenizer.sequence(&pictures, usize::MAX / 2, 13).unwrap_err();
        assert_eq!(error, PromptError::TooLong { tokens: usize::MAX, longest: 13 });
        let words = PromptDocument::from_words(&"a".repeat(MAX_TEXT_BYTES + 1));
        assert!(matches!(tokenizer.sequence(&words, 8, usize::MAX), Err(PromptError::TooMuchText { .. })));
    }

    #[test]
    fn a_vocabulary_that_does_not_fit_is_refused() {
        let vocabulary = vocabulary(&[("a", -1.0)]);
        let error = |change: &dyn Fn(&mut Vocabulary), size| {
            let mut vocabulary = vocabulary.clone();
            change(&mut vocabulary);
            Tokenizer::new(vocabulary, size, &SPECIAL).unwrap_err().to_string()
        };
        assert!(error(&|_| {}, 8).contains("7 pieces, the network 8 ids"));
        assert!(error(&|_| {}, 5).contains("special id 5 is not below 5"));
        assert!(error(&|v| v.unk = 2, 7).contains("its unknown piece is 2"));
        assert!(error(&|v| v.charsmap = vec![9], 7).contains("charsmap"));
        assert!(error(&|v| v.pieces[6].score = f32::NAN, 7).contains("piece `a`"));
        assert!(error(&|v| v.pieces[6].text.clear(), 7).contains("piece ``"));
    }
}
