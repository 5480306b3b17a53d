//! The text form of keys: Bech32 of BIP 173, without its limit of 90 characters, for exactly 32 bytes.

use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];

/// Characters of the checksum.
const CHECKSUM: usize = 6;

/// Characters of a key: 256 bits in groups of five.
const DATA: usize = (KEY_BYTES * 8).div_ceil(5);

fn step(sum: u32, value: u8) -> u32 {
    let top = sum >> 25;
    let sum = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
    GENERATOR.iter().enumerate().filter(|(bit, _)| (top >> bit) & 1 == 1).fold(sum, |sum, (_, word)| sum ^ word)
}

/// The checksum of a prefix and what follows it.
fn checksum(prefix: &str, values: impl Iterator<Item = u8>) -> u32 {
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    high.chain([0]).chain(low).chain(values).fold(1, step)
}

/// The text of a key, in lower case.
pub(super) fn encode(prefix: &str, key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut values = Zeroizing::new([0_u8; DATA]);
    for (at, value) in values.iter_mut().enumerate() {
        let bit = |offset: usize| {
            let position = at * 5 + offset;
            key.get(position / 8).map_or(0, |byte| (byte >> (7 - position % 8)) & 1)
        };
        *value = (0..5).fold(0, |value, offset| (value << 1) | bit(offset));
    }
    let sum = checksum(prefix, values.iter().copied().chain([0; CHECKSUM])) ^ 1;
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 1 + DATA + CHECKSUM));
    text.push_str(prefix);
    text.push('1');
    values.iter().for_each(|value| text.push(letter(u32::from(*value))));
    (0..CHECKSUM).rev().for_each(|at| text.push(letter(sum >> (5 * at))));
    text
}

fn letter(value: u32) -> char {
    ALPHABET[(value & 31) as usize].into()
}

/// The key of a text with that prefix, given in lower case; `None` if it is none. The text is in one case.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let (lower, upper) = (text.bytes().any(|c| c.is_ascii_lowercase()), text.bytes().any(|c| c.is_ascii_uppercase()));
    if lower && upper || !text.is_ascii() {
        return None;
    }
    let text = Zeroizing::new(text.to_ascii_lowercase());
    let data = text.strip_prefix(prefix)?.strip_prefix('1')?;
    if data.len() != DATA + CHECKSUM {
        return None;
    }
    let mut values = Zeroizing::new([0_u8; DATA + CHECKSUM]);
    for (value, character) in values.iter_mut().zip(data.bytes()) {
        *value = u8::try_from(ALPHABET.iter().position(|letter| *letter == character)?).ok()?;
    }
    if checksum(prefix, values.iter().copied()) != 1 {
        return None;
    }
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    let (mut bits, mut held, mut at) = (0_u32, 0_u32, 0);
    for value in &values[..DATA] {
        (bits, held) = (((bits << 5) | u32::from(*value)) & 0xfff, held + 5);
        if held >= 8 {
            held -= 8;
            key[at] = u8::try_from((bits >> held) & 0xff).ok()?;
            at += 1;
        }
    }
    // The bits that fill the last group up are zero: each key has one text.
    let filled = bits & ((1 << held) - 1) == 0;
    bits.zeroize();
    filled.then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_that_of_the_specification() {
        // From the page of the format: c2sp.org/age.
        let text = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
        let key = decode("age", text).unwrap();
        assert_eq!(encode("age", &key).as_str(), text);
        assert!(decode("agf", text).is_none());
        assert!(decode("age", &text.replace("zvky", "Zvky")).is_none());
        assert!(decode("age", "age1\u{e9}").is_none());
    }

    proptest! {
        #[test]
        fn every_key_survives_the_round_trip(key: [u8; KEY_BYTES]) {
            for prefix in ["age", "age-secret-key-"] {
                let text = encode(prefix, &key);
                prop_assert_eq!(*decode(prefix, &text).unwrap(), key);
                prop_assert_eq!(*decode(prefix, &text.to_uppercase()).unwrap(), key);
            }
        }

        #[test]
        fn every_typing_error_is_found(key: [u8; KEY_BYTES], at in 4_usize..62, letter in 0_usize..32) {
            let mut text = encode("age", &key).as_bytes().to_vec();
            prop_assume!(text[at] != ALPHABET[letter]);
            text[at] = ALPHABET[letter];
            prop_assert!(decode("age", std::str::from_utf8(&text).unwrap()).is_none());
        }

        #[test]
        fn any_text_is_a_key_or_none(text in ".{0,80}") {
            if let Some(key) = decode("age", &text) {
                prop_assert!(*encode("age", &key) == text.to_ascii_lowercase());
            }
        }
    }
}
