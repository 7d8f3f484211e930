//! Where the identifiers in a text are.
//!
//! A *word* is a longest run of ASCII letters, digits and underscores. An *identifier* is a word that does not begin
//! with a digit. So `0xff` and `1u32` are none, `r#type` are two, and every byte above 127 separates, whether the text
//! is UTF-8 or not. Comments and strings count as code does. No word contains a line break: a text can be cut at lines.

/// Bytes that are classified together.
const BLOCK: usize = 64;

/// Calls `found` with the place of every identifier in `text`, from its first byte to behind its last.
pub fn each_identifier(text: &[u8], mut found: impl FnMut(usize, usize)) {
    let mut state = State::default();
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut base = 0;
    for block in blocks {
        state.block(text, base, word_bits(block), &mut found);
        base += BLOCK;
    }
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    state.block(text, base, word_bits(&last), &mut found);
    // The padding ends a word in every block but one that the text fills.
    state.finish(text, &mut found);
}

/// What is known between two blocks.
#[derive(Default)]
struct State {
    /// Where the word began that the last block ended in.
    open: Option<usize>,
}

impl State {
    /// Goes through one block that starts at `base`. Bit i of `words` says whether its byte i is part of a word.
    fn block(&mut self, text: &[u8], base: usize, words: u64, found: &mut impl FnMut(usize, usize)) {
        // A word begins or ends wherever a byte is of another kind than the one before it.
        let mut borders = words ^ ((words << 1) | u64::from(self.open.is_some()));
        while borders != 0 {
            let place = base + borders.trailing_zeros() as usize;
            borders &= borders - 1;
            match self.open.take() {
                None => self.open = Some(place),
                Some(begin) => report(text, begin, place, found),
            }
        }
    }

    fn finish(&mut self, text: &[u8], found: &mut impl FnMut(usize, usize)) {
        if let Some(begin) = self.open.take() {
            report(text, begin, text.len(), found);
        }
    }
}

fn report(text: &[u8], begin: usize, end: usize, found: &mut impl FnMut(usize, usize)) {
    if !text[begin].is_ascii_digit() {
        found(begin, end);
    }
}

/// Bit i is set if byte i of the block is part of a word.
fn word_bits(block: &[u8; BLOCK]) -> u64 {
    let (words, _) = block.as_chunks::<8>();
    let mut bits = 0;
    for (number, word) in words.iter().enumerate() {
        bits |= word_bits_of_8(u64::from_le_bytes(*word)) << (8 * number);
    }
    bits
}

/// As [`word_bits`] for eight bytes in a register, all at once: plain integer arithmetic, because a portable guest
/// cannot count on vector instructions.
fn word_bits_of_8(bytes: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    /// The high bit of each byte says whether the byte, which is below 128, is at least `least`.
    const fn at_least(low: u64, least: u8) -> u64 {
        low + ONES * (0x80 - least as u64)
    }
    let low = bytes & !HIGH;
    let lower_case = low | (ONES * 0x20);
    let letter = at_least(lower_case, b'a') & !at_least(lower_case, b'z' + 1);
    let digit = at_least(low, b'0') & !at_least(low, b'9' + 1);
    let underscore = at_least(low, b'_') & !at_least(low, b'_' + 1);
    let high = (letter | digit | underscore) & !bytes & HIGH;
    // Gathers the eight high bits in the top byte: bit 7 of byte i moves to bit 56 + i.
    (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifiers(text: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        each_identifier(text, |begin, end| all.push(String::from_utf8(text[begin..end].to_vec()).unwrap()));
        all
    }

    #[test]
    fn identifiers_are_runs_that_do_not_begin_with_a_digit() {
        let text = "fn f1(_x: &'a r#type) -> u8 { 0xff_u8 + 1u32 + x2.0 } // Größe";
        assert_eq!(identifiers(text.as_bytes()), ["fn", "f1", "_x", "a", "r", "type", "u8", "x2", "Gr", "e"]);
    }

    #[test]
    fn bytes_that_are_no_text_only_separate() {
        assert_eq!(identifiers(b"ab\xffcd\x00ef\x80"), ["ab", "cd", "ef"]);
        assert!(identifiers(b"").is_empty());
        assert!(identifiers(b" \n7 ").is_empty());
    }

    #[test]
    fn every_byte_is_classified_as_the_definition_says() {
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || byte == b'_';
            for place in 0..8 {
                let bits =
                    word_bits_of_8(u64::from(byte) << (8 * place) | (0x2020_2020_2020_2020 & !(0xff << (8 * place))));
                assert_eq!(bits, u64::from(expected) << place, "byte {byte} at {place}");
            }
        }
    }

    #[test]
    fn words_across_the_borders_of_blocks_stay_whole() {
        for lead in 50..140 {
            for length in [1, 2, 63, 64, 65, 130] {
                let mut text = vec![b' '; lead];
                text.extend(std::iter::repeat_n(b'w', length));
                assert_eq!(identifiers(&text), ["w".repeat(length)], "{length} at the end, after {lead}");
                text.push(b' ');
                assert_eq!(identifiers(&text), ["w".repeat(length)], "{length} after {lead}");
            }
        }
    }

    #[test]
    fn the_same_as_by_splitting_at_other_bytes() {
        let mut random = partita::Random::seeded(3);
        for _ in 0..500 {
            let length = usize::try_from(random.next_u64() % 300).unwrap();
            let text: Vec<u8> =
                (0..length).map(|_| b"ab_9 \n.\xc3Z0"[usize::try_from(random.next_u64() % 10).unwrap()]).collect();
            let expected: Vec<String> = text
                .split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))
                .filter(|word| word.first().is_some_and(|first| !first.is_ascii_digit()))
                .map(|word| String::from_utf8(word.to_vec()).unwrap())
                .collect();
            assert_eq!(identifiers(&text), expected);
        }
    }
}
