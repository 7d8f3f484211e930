//! Makes text from guests safe to show: no control characters, no way to end a line or to reorder it, bounded length.

/// Characters that change the direction of the text around them, or end a line without looking like it.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with every control and direction character escaped, cut to about `most` bytes with a note of how much is gone.
pub(crate) fn shown(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, cut) = text.split_at(end);
    let mut result = String::with_capacity(kept.len());
    for c in kept.chars() {
        if c == '\t' {
            result.push(' ');
        } else if c.is_control() || is_deceptive(c) {
            result.extend(c.escape_default());
        } else {
            result.push(c);
        }
    }
    if !cut.is_empty() {
        result.push_str(&format!("…[{} more bytes]", cut.len()));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_line_ends_are_made_visible() {
        assert_eq!(shown("a\u{1b}[31mb\r\n\0\u{9b}", 100), "a\\u{1b}[31mb\\r\\n\\u{0}\\u{9b}");
        assert_eq!(shown("a\u{202e}b\u{2028}", 100), "a\\u{202e}b\\u{2028}");
        assert_eq!(shown("naïve ✓", 100), "naïve ✓");
    }

    #[test]
    fn long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(shown("aäb", 2), "a…[3 more bytes]");
        assert_eq!(shown("abc", 3), "abc");
    }
}
