//! Quoting: identifiers and literals that are put into SQL text.

use crate::config::IDENTIFIER_BYTES_MAX;

/// `name` as an SQL identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string, whatever `standard_conforming_strings` is.
pub(crate) fn literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

/// `base` with `suffix`, `base` cut between two characters so that the server keeps the whole suffix.
pub(crate) fn suffixed(base: &str, suffix: &str) -> String {
    let mut end = IDENTIFIER_BYTES_MAX.saturating_sub(suffix.len()).min(base.len());
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(identifier(r#"a"b'c\"#), r#""a""b'c\""#);
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
    }

    proptest! {
        #[test]
        fn suffixed_names_fit_and_keep_the_suffix(base in "\\PC{0,80}") {
            let name = suffixed(&base, "__old_1f");
            prop_assert!(name.len() <= IDENTIFIER_BYTES_MAX);
            prop_assert!(name.ends_with("__old_1f"));
        }
    }
}
