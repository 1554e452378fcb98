//! Rust source split into code, comments and strings: enough to look for words in one of them.

/// What a piece of source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Code, with each comment and each string's content left out.
    Code,
    /// The text of a comment, doc comments included.
    Comment,
    /// The content of a string literal, escapes as written.
    Text,
}

/// One line's share of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    /// From 0.
    pub(crate) line: usize,
    pub(crate) piece: Piece,
    pub(crate) text: &'a str,
}

/// Splits source into spans in order; a piece that goes over several lines gives one for each.
pub(crate) fn split(source: &str) -> Vec<Span<'_>> {
    let mut spans = Vec::new();
    let mut line = 0;
    let mut rest = source;
    while !rest.is_empty() {
        let (piece, length) = next_piece(rest);
        let (text, after) = rest.split_at(length);
        for (i, part) in text.split('\n').enumerate() {
            line += usize::from(i > 0);
            if !part.is_empty() {
                spans.push(Span {
                    line,
                    piece,
                    text: part,
                });
            }
        }
        rest = after;
    }
    spans
}

/// The kind and the length in bytes of what the source starts with; never 0.
fn next_piece(source: &str) -> (Piece, usize) {
    if source.starts_with("//") {
        return (Piece::Comment, source.find('\n').unwrap_or(source.len()));
    }
    if source.starts_with("/*") {
        return (Piece::Comment, block_comment(source));
    }
    if let Some(length) = string(source) {
        return (Piece::Text, length);
    }
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        if at > 0 && starts_other(&source[at..], &source[..at]) {
            break;
        }
        at += if c == '\'' {
            quote(&source[at..])
        } else {
            c.len_utf8()
        };
    }
    (Piece::Code, at)
}

fn starts_other(source: &str, before: &str) -> bool {
    let inside_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    source.starts_with("//")
        || source.starts_with("/*")
        || source.starts_with('"')
        || (!inside_word && string(source).is_some())
}

/// The length of a string literal with its prefix and quotes.
fn string(source: &str) -> Option<usize> {
    let prefix = source.len() - source.trim_start_matches(['b', 'c']).len();
    let raw = source[prefix..].starts_with('r');
    if prefix > 1 {
        return None;
    }
    let start = prefix + usize::from(raw);
    let hashes = source[start..].len() - source[start..].trim_start_matches('#').len();
    if !source[start + hashes..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let content = start + hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        let length = source[content..].find(&end).map(|at| at + end.len());
        return Some(length.map_or(source.len(), |length| content + length));
    }
    let mut escaped = false;
    for (at, c) in source[content..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(content + at + 1),
            _ => {}
        }
    }
    Some(source.len())
}

/// The length of a character literal, or of the quote alone where it starts a lifetime.
fn quote(source: &str) -> usize {
    let mut chars = source.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

fn block_comment(source: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < source.len() {
        if source[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if source[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += source[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(source: &str, piece: Piece) -> Vec<&str> {
        split(source)
            .into_iter()
            .filter(|s| s.piece == piece)
            .map(|s| s.text)
            .collect()
    }

    #[test]
    fn every_byte_is_in_one_span() {
        let source = include_str!("rust_text.rs");
        let joined: usize = split(source).iter().map(|span| span.text.len()).sum();
        assert_eq!(joined + source.matches('\n').count(), source.len());
    }

    #[test]
    fn comments_and_strings_are_told_apart() {
        let source =
            "let a = \"// no\"; // B1 \"x\"\n/* B2 /* B3 */ */ let b = '\"'; let c: &'a str;\n";
        assert_eq!(pieces(source, Piece::Text), ["\"// no\""]);
        assert_eq!(
            pieces(source, Piece::Comment),
            ["// B1 \"x\"", "/* B2 /* B3 */ */"]
        );
    }

    #[test]
    fn raw_strings_end_where_they_end() {
        let source = "r#\"a \" // b\"#; br\"\\\"; '\\''; for\"x\"";
        assert_eq!(
            pieces(source, Piece::Text),
            ["r#\"a \" // b\"#", "br\"\\\"", "\"x\""]
        );
        assert!(pieces(source, Piece::Comment).is_empty());
    }

    #[test]
    fn lines_are_counted_through_all_pieces() {
        let spans = split("a\n\"b\nc\"\n// d");
        let lines: Vec<_> = spans.iter().map(|s| (s.line, s.text)).collect();
        assert_eq!(lines, [(0, "a"), (1, "\"b"), (2, "c\""), (3, "// d")]);
    }
}
