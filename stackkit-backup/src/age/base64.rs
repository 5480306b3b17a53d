//! Base64 as headers have it: standard alphabet, no padding, one encoding for each value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// The bytes; `None` if the text is not exactly what [`encode`] writes.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
}
