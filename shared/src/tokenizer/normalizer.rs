//! SentencePiece's normalisation of a text before it is cut into pieces.
//!
//! The `tokenizers` crate looks rules up per grapheme, so that a rule for several characters is missed where they form
//! no grapheme, and one for a single character where they do (a ligature with an accent, an emoji with a modifier).
//! SentencePiece takes the longest rule at each position instead, and so does this.

/// The rules of one SentencePiece model.
#[derive(Debug, Clone)]
pub(super) struct Normalizer {
    pub(super) charsmap: Option<Charsmap>,
    /// A space before the text, so that a word is the same piece at its start as further on.
    pub(super) add_dummy_prefix: bool,
    /// One space for several, none at the ends.
    pub(super) remove_extra_whitespaces: bool,
    /// What stands for a space in pieces, mostly `▁`.
    pub(super) space: char,
}

impl Normalizer {
    /// The text that the pieces are cut from.
    pub(super) fn normalize(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 8);
        if text.is_empty() {
            return out;
        }
        if self.add_dummy_prefix {
            out.push(self.space);
        }
        // Spaces at the start go when extra ones do, hence as if one had been before.
        let mut after_space = self.remove_extra_whitespaces;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (replacement, length) = match self.charsmap.as_ref().and_then(|map| map.longest_rule(rest)) {
                Some((replacement, length)) => (replacement, length),
                None => (&rest[..first.len_utf8()], first.len_utf8()),
            };
            rest = &rest[length..];
            let kept = if after_space { replacement.trim_start_matches(' ') } else { replacement };
            out.extend(kept.chars().map(|c| if c == ' ' { self.space } else { c }));
            if !kept.is_empty() {
                after_space = self.remove_extra_whitespaces && kept.ends_with(' ');
            }
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(self.space).len());
        }
        out
    }
}

/// SentencePiece's compiled rules: a double-array trie (darts-clone) from UTF-8 bytes to replacements.
#[derive(Debug, Clone)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    /// All replacements, each ended by a NUL.
    replacements: String,
}

impl Charsmap {
    /// Reads `u32 length of the trie in bytes, trie, replacements`, little-endian.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (length, rest) = bytes.split_first_chunk().ok_or("it is shorter than its header")?;
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || !length.is_multiple_of(4) || length > rest.len() {
            return Err(format!("its trie of {length} bytes does not fit into {} bytes", rest.len()));
        }
        let (trie, replacements) = rest.split_at(length);
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        let replacements = String::from_utf8(replacements.to_vec()).map_err(|_| "its replacements are not UTF-8")?;
        Ok(Self { units: units.collect(), replacements })
    }

    /// The replacement for the longest beginning of `text` that has one, and that beginning's length in bytes.
    fn longest_rule(&self, text: &str) -> Option<(&str, usize)> {
        let mut longest = None;
        let mut node = offset(*self.units.first()?);
        for (index, byte) in text.bytes().enumerate() {
            node ^= byte as usize;
            let Some(&unit) = self.units.get(node) else { break };
            // The top bit marks a unit that holds a value and no label.
            if unit & 0x8000_00ff != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                longest = self.units.get(node).map(|value| (value & 0x7fff_ffff, index + 1));
            }
        }
        let (start, length) = longest?;
        let replacement = self.replacements.get(start as usize..)?;
        // A rule that ends inside a character comes only from a damaged file.
        text.is_char_boundary(length).then(|| (replacement.split('\0').next().unwrap_or_default(), length))
    }
}

/// How far a unit's children are away from it, as a value to combine by exclusive or.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A double-array trie of the rules, every node's children placed at the first free offset.
    fn charsmap(rules: &[(&str, &str)]) -> Vec<u8> {
        let mut units: Vec<u32> = vec![0; 1 << 14];
        let mut used = vec![false; units.len()];
        used[0] = true;
        let mut replacements = Vec::new();
        let mut pending = vec![(0usize, 0usize, rules.to_vec())];
        while let Some((node, depth, rules)) = pending.pop() {
            let labels: std::collections::BTreeSet<Option<u8>> =
                rules.iter().map(|(from, _)| from.as_bytes().get(depth).copied()).collect();
            let place = |label: &Option<u8>, base: usize| base ^ label.unwrap_or(0) as usize;
            let base = (1..).find(|&base| labels.iter().all(|label| !used[place(label, node ^ base)])).unwrap();
            units[node] |= (base as u32) << 10;
            for label in labels {
                let child = place(&label, node ^ base);
                used[child] = true;
                let below: Vec<_> =
                    rules.iter().copied().filter(|(from, _)| from.as_bytes().get(depth).copied() == label).collect();
                match label {
                    None => {
                        units[node] |= 1 << 8;
                        units[child] = 1 << 31 | replacements.len() as u32;
                        replacements.extend(below[0].1.bytes().chain([0]));
                    }
                    Some(byte) => {
                        units[child] = u32::from(byte);
                        pending.push((child, depth + 1, below));
                    }
                }
            }
        }
        let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, &replacements].concat()
    }

    fn normalizer(rules: &[(&str, &str)]) -> Normalizer {
        let charsmap = Some(Charsmap::from_bytes(&charsmap(rules)).unwrap());
        Normalizer { charsmap, add_dummy_prefix: true, remove_extra_whitespaces: true, space: '▁' }
    }

    #[test]
    fn the_longest_rule_wins_wherever_graphemes_end() {
        let rules = [("ﬁ", "fi"), ("e\u{301}", "é"), ("e", "e"), ("\t", " "), ("\u{200b}", ""), ("㍿", "株式会社")];
        let normalizer = normalizer(&rules);
        for (text, expected) in [
            ("ﬁx", "▁fix"),
            // One grapheme, and still the rule of its first character applies.
            ("ﬁ\u{301}", "▁fi\u{301}"),
            ("e\u{301}e", "▁ée"),
            ("a\tb", "▁a▁b"),
            ("a\u{200b} \u{200b} b", "▁a▁b"),
            ("㍿", "▁株式会社"),
            ("\u{200b}", ""),
            ("a\0b", "▁a\0b"),
        ] {
            assert_eq!(normalizer.normalize(text), expected, "{text:?}");
        }
    }

    #[test]
    fn spaces_follow_the_settings() {
        let mut normalizer = normalizer(&[("\u{3000}", " ")]);
        for (text, expected) in
            [("", ""), ("   ", ""), ("  a  b ", "▁a▁b"), ("\u{3000}a\u{3000} b", "▁a▁b"), ("▁", ""), ("▁a", "▁▁a")]
        {
            assert_eq!(normalizer.normalize(text), expected, "{text:?}");
        }
        normalizer.remove_extra_whitespaces = false;
        assert_eq!(normalizer.normalize("  a  b "), "▁▁▁a▁▁b▁");
        normalizer.add_dummy_prefix = false;
        assert_eq!(normalizer.normalize(" a"), "▁a");
        normalizer.charsmap = None;
        assert_eq!(normalizer.normalize("\u{3000}"), "\u{3000}");
    }

    #[test]
    fn a_damaged_map_is_refused_or_harmless() {
        let map = charsmap(&[("ﬁ", "fi"), ("ab", "ﬀ")]);
        for length in [0, 3, 4, 5, 100, 1 << 16] {
            assert!(Charsmap::from_bytes(&map[..length]).is_err(), "{length}");
        }
        let mut map = map;
        for index in 4..map.len().min(4000) {
            map[index] ^= 0xff;
            if let Ok(charsmap) = Charsmap::from_bytes(&map) {
                charsmap.longest_rule("ﬁab");
                charsmap.longest_rule("ab");
            }
            map[index] ^= 0xff;
        }
    }
}
