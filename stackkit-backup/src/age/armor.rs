//! The text form of a file: strict PEM, lines of 64 columns. It is read only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stackkit_core::Result;

use super::damaged;

const BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const END: &[u8] = b"-----END AGE ENCRYPTED FILE-----";

/// Columns of each line but the last.
const COLUMNS: usize = 64;

pub(super) fn is_armored(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(BEGIN)
}

/// The bytes of an armored file.
///
/// # Errors
/// `Integrity` if the text is not in the one form that each file has.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>> {
    let wrong = || damaged("the armor is not in its form");
    let mut lines = text.trim_ascii().split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if lines.next() != Some(BEGIN) {
        return Err(wrong());
    }
    let mut body: Vec<&[u8]> = lines.collect();
    if body.pop() != Some(END) {
        return Err(wrong());
    }
    let Some((last, full)) = body.split_last() else {
        return Err(wrong());
    };
    let columns = full.iter().all(|line| line.len() == COLUMNS) && (1..=COLUMNS).contains(&last.len());
    match columns {
        true => STANDARD.decode(body.concat()).map_err(|e| wrong().with_source(e)),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armored(lines: &str) -> Vec<u8> {
        format!("-----BEGIN AGE ENCRYPTED FILE-----\n{lines}-----END AGE ENCRYPTED FILE-----\n").into_bytes()
    }

    #[test]
    fn lines_have_64_columns_but_the_last() {
        let full = "QUJD".repeat(16);
        assert_eq!(decode(&armored(&format!("{full}\nQUJD\n"))).unwrap(), b"ABC".repeat(17));
        assert_eq!(decode(&armored(&format!("{full}\n"))).unwrap(), b"ABC".repeat(16));
        assert_eq!(decode(&armored("QQ==\n")).unwrap(), b"A");
        let windows = String::from_utf8(armored("QQ==\n")).unwrap().replace('\n', "\r\n");
        assert_eq!(decode(windows.as_bytes()).unwrap(), b"A");
        for wrong in ["", "QUJD\nQUJD\n", "QQ\n", "QR==\n", &format!("{full}A\n"), "QU JD\n", "\n"] {
            assert!(decode(&armored(wrong)).is_err(), "{wrong:?}");
        }
    }
}
