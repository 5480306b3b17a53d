//! Text of an archive is in the encoding of the dump. Here it is a `String` that gives every byte back.

use std::borrow::Cow;

/// The first of 128 characters, the last ones of the last private plane, that stand for bytes which are no UTF-8:
/// `ESCAPE + (byte - 0x80)`. Real ones of them are escaped too, byte by byte, so nothing is ambiguous.
const ESCAPE: u32 = 0x10_FF80;

/// `bytes` as text; bytes that are no UTF-8 become one private character each.
pub(crate) fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match u32::from(character) >= ESCAPE {
                true => character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push(escaped(byte))),
                false => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push(escaped(*byte)));
    }
    text
}

/// The bytes that [`decode`] was given.
pub(crate) fn encode(text: &str) -> Cow<'_, [u8]> {
    if !has_raw_bytes(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character).checked_sub(ESCAPE).and_then(|low| u8::try_from(low).ok()) {
            Some(low) => bytes.push(low.wrapping_add(0x80)),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// Whether text stands for bytes that are no UTF-8.
pub(crate) fn has_raw_bytes(text: &str) -> bool {
    text.chars().any(|character| u32::from(character) >= ESCAPE)
}

fn escaped(byte: u8) -> char {
    char::from_u32(ESCAPE + u32::from(byte & 0x7F)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn utf8_stays_and_other_bytes_come_back() {
        assert_eq!(decode("Größe".as_bytes()), "Größe");
        assert!(!has_raw_bytes("Größe"));
        let latin1 = b"Gr\xf6\xdfe";
        assert!(has_raw_bytes(&decode(latin1)));
        assert_eq!(encode(&decode(latin1)).as_ref(), latin1);
    }

    proptest! {
        #[test]
        fn every_byte_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(encode(&decode(&bytes)).into_owned(), bytes);
        }

        #[test]
        fn every_text_comes_back(text in "\\PC{0,20}[\u{10FF00}-\u{10FFFF}]{0,4}") {
            let bytes = text.as_bytes();
            let decoded = decode(bytes);
            prop_assert_eq!(encode(&decoded).into_owned(), bytes);
        }
    }
}
