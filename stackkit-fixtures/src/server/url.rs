//! Passwords in URLs.

/// Encodes everything but letters, digits and `-._~` (RFC 3986, unreserved).
pub(crate) fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_encoded_for_urls() {
        assert_eq!(percent_encode("a b@c/ü~"), "a%20b%40c%2F%C3%BC~");
    }
}
