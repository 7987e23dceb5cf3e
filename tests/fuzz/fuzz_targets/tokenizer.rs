//! A dictionary and, after a byte of 0, a SentencePiece model, down to the words of a text.
#![no_main]

use kosmosg::prompt::PromptDocument;
use kosmosg::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

// Without the rest of its crate, which would take both engines along.
#[path = "../../../models/src/sentencepiece.rs"]
#[allow(dead_code, unreachable_pub, reason = "an import asks for more")]
mod sentencepiece;

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = bytes.iter().position(|&byte| byte == 0) else { return };
    let (dictionary, model) = (&bytes[..end], &bytes[end + 1..]);
    let Ok(dictionary) = std::str::from_utf8(dictionary) else { return };
    let Ok(converted) = sentencepiece::convert(model, dictionary) else { return };
    let json = converted.vocabulary.to_json();
    if let Ok(tokenizer) = Tokenizer::from_json(&json, converted.vocab_size, &converted.special) {
        let document =
            PromptDocument::from_text("a <i> on the béach\n🟣", 1).expect("a text with a place for its picture");
        if let Ok(sequence) = tokenizer.sequence(&document, 2, 100) {
            assert!(sequence.tokens.iter().all(|&token| (token as usize) < converted.vocab_size));
        }
    }
});
