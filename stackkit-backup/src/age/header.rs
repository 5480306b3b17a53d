//! The header: its text, and the authentication of it.

use ring::hmac::{self, HMAC_SHA256};
use stackkit_core::{Error, ErrorKind, Result, Secret};
use zeroize::Zeroizing;

use super::payload::{NONCE_BYTES, Sealer};
use super::stanza::{self, SCRYPT, Stanza, X25519};
use super::{FILE_KEY_BYTES, FileKey, base64, cut, damaged, random};
use crate::keys::{Identity, Recipient};

const VERSION_LINE: &[u8] = b"age-encryption.org/v1\n";
const STANZA_START: &[u8] = b"-> ";
const MAC_START: &[u8] = b"---";

/// Columns of the lines of a stanza's body; a shorter one ends it.
const COLUMNS: usize = 64;

/// Bytes of the header's authentication code.
const MAC_BYTES: usize = 32;

/// The longest header that is read or written: some 600 recipients.
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;

/// What opens a header.
#[derive(Debug)]
pub(crate) enum Unlock<'a> {
    /// One of the keys of an identity.
    Identity(&'a Identity),
    /// The passphrase of an identity file.
    Passphrase(&'a Secret),
}

/// A header that was opened.
pub(crate) struct Opened {
    /// How long it is: the payload's nonce follows.
    pub(crate) header_bytes: usize,
    /// What it wrapped.
    pub(crate) file_key: FileKey,
}

/// Whether bytes begin as a header does.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(VERSION_LINE)
}

/// A header for `recipients` with the payload's nonce behind it, and what seals the payload.
///
/// # Errors
/// `Config` if there is no recipient, too many, or one that is no key; `Unexpected` if the system has no randomness.
pub(crate) fn write_header(recipients: &[Recipient]) -> Result<(Vec<u8>, Sealer)> {
    if recipients.is_empty() {
        return Err(Error::config("there is no recipient to encrypt to"));
    }
    let mut file_key = Zeroizing::new([0; FILE_KEY_BYTES]);
    random(&mut *file_key)?;
    let mut stanzas = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let stanza = stanza::wrap(&file_key, recipient.as_bytes());
        stanzas.push(stanza.map_err(|e| e.with_context("recipient", recipient))?);
    }
    let mut file = write_stanzas(&stanzas, &file_key)?;
    if file.len() > HEADER_BYTES_MAX {
        return Err(Error::config("there are too many recipients").with_context("recipients", recipients.len()));
    }
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    file.extend_from_slice(&nonce);
    Ok((file, Sealer::new(&file_key, &nonce)?))
}

/// Opens the header at the start of `bytes`.
///
/// # Errors
/// `Unauthenticated` if nothing of `unlock` fits; `Integrity` if the header is damaged; `Incompatible` if it is one of
/// another version; `Unsupported` if a passphrase demands too much work.
pub(crate) fn open_header(bytes: &[u8], unlock: &Unlock<'_>) -> Result<Opened> {
    let parsed = Parsed::new(bytes)?;
    let file_key = unlock.file_key(&parsed.stanzas)?;
    let key = mac_key(&file_key)?;
    hmac::verify(&key, parsed.authenticated, &parsed.mac)
        .map_err(|ring::error::Unspecified| damaged("the header is not the one that was written"))?;
    Ok(Opened { header_bytes: parsed.header_bytes, file_key })
}

impl Unlock<'_> {
    fn file_key(&self, stanzas: &[Stanza]) -> Result<FileKey> {
        let refused = |message: &str| Error::new(ErrorKind::Unauthenticated, message);
        match self {
            Self::Passphrase(passphrase) => match stanzas {
                [stanza] if stanza.is(SCRYPT) => {
                    stanza::unwrap_scrypt(stanza, passphrase)?.ok_or_else(|| refused("the passphrase is wrong"))
                }
                _ => Err(refused("it is not protected by a passphrase")),
            },
            Self::Identity(identity) => {
                for stanza in stanzas.iter().filter(|stanza| stanza.is(X25519)) {
                    if let Some(file_key) = identity.unwrap(stanza)? {
                        return Ok(file_key);
                    }
                }
                Err(refused("none of the identities can read it"))
            }
        }
    }
}

impl Identity {
    fn unwrap(&self, stanza: &Stanza) -> Result<Option<FileKey>> {
        for (secret, public) in self.keys() {
            if let Some(file_key) = stanza::unwrap(stanza, secret, public)? {
                return Ok(Some(file_key));
            }
        }
        Ok(None)
    }
}

/// A header's text, taken apart.
struct Parsed<'a> {
    stanzas: Vec<Stanza>,
    /// The bytes that the code authenticates.
    authenticated: &'a [u8],
    mac: Vec<u8>,
    header_bytes: usize,
}

impl<'a> Parsed<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let text = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
        let mut rest = text.strip_prefix(VERSION_LINE).ok_or_else(|| not_version_1(text))?;
        let mut stanzas = Vec::new();
        loop {
            let at = text.len() - rest.len();
            let line = take_line(&mut rest)?;
            if let Some(mac) = line.strip_prefix(MAC_START) {
                let mac = mac.strip_prefix(b" ").and_then(base64::decode).filter(|mac| mac.len() == MAC_BYTES);
                let mac = mac.ok_or_else(wrong_line)?;
                check_kinds(&stanzas)?;
                let authenticated = &text[..at + MAC_START.len()];
                return Ok(Self { stanzas, authenticated, mac, header_bytes: text.len() - rest.len() });
            }
            let arguments = arguments(line.strip_prefix(STANZA_START).ok_or_else(wrong_line)?)?;
            stanzas.push(Stanza { arguments, body: take_body(&mut rest)? });
        }
    }
}

/// At least one stanza; a passphrase's is alone.
fn check_kinds(stanzas: &[Stanza]) -> Result<()> {
    let mixed = stanzas.len() > 1 && stanzas.iter().any(|stanza| stanza.is(SCRYPT));
    if stanzas.is_empty() || mixed { Err(damaged("the header has not the stanzas of one")) } else { Ok(()) }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(cut)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line)
}

fn arguments(line: &[u8]) -> Result<Vec<String>> {
    let argument = |bytes: &[u8]| {
        let visible = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
        visible.then(|| String::from_utf8_lossy(bytes).into_owned()).ok_or_else(wrong_line)
    };
    line.split(|byte| *byte == b' ').map(argument).collect()
}

fn take_body(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = take_line(rest)?;
        if line.len() > COLUMNS {
            return Err(wrong_line());
        }
        body.extend_from_slice(&base64::decode(line).ok_or_else(wrong_line)?);
        if line.len() < COLUMNS {
            return Ok(body);
        }
    }
}

fn write_stanzas(stanzas: &[Stanza], file_key: &FileKey) -> Result<Vec<u8>> {
    let mut header = VERSION_LINE.to_vec();
    for stanza in stanzas {
        header.extend_from_slice(STANZA_START);
        header.extend_from_slice(stanza.arguments.join(" ").as_bytes());
        header.push(b'\n');
        let body = base64::encode(&stanza.body);
        for line in body.as_bytes().chunks(COLUMNS) {
            header.extend_from_slice(line);
            header.push(b'\n');
        }
        if body.len().is_multiple_of(COLUMNS) {
            header.push(b'\n');
        }
    }
    header.extend_from_slice(MAC_START);
    let mac = hmac::sign(&mac_key(file_key)?, &header);
    header.push(b' ');
    header.extend_from_slice(base64::encode(mac.as_ref()).as_bytes());
    header.push(b'\n');
    Ok(header)
}

fn mac_key(file_key: &FileKey) -> Result<hmac::Key> {
    stanza::derive(&[], &file_key[..], b"header", HMAC_SHA256)
}

fn wrong_line() -> Error {
    damaged("a line of the header is not in its form")
}

/// A file of another version says so in its first line.
fn not_version_1(text: &[u8]) -> Error {
    match text.starts_with(b"age-encryption.org/") && !VERSION_LINE.starts_with(text) {
        true => Error::new(ErrorKind::Incompatible, "it is a file of another version of age, or damaged"),
        false if VERSION_LINE.starts_with(text) => cut(),
        false => damaged("they are not a file of age"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> FileKey {
        Zeroizing::new([7; FILE_KEY_BYTES])
    }

    prop_compose! {
        fn any_stanza()(
            arguments in prop::collection::vec("[!-~]{1,12}", 1..4),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) -> Stanza {
            Stanza { arguments, body }
        }
    }

    proptest! {
        #[test]
        fn every_header_survives_the_round_trip(stanzas in prop::collection::vec(any_stanza(), 1..5)) {
            prop_assume!(!stanzas.iter().any(|stanza| stanza.is(SCRYPT)));
            let mut bytes = write_stanzas(&stanzas, &key()).unwrap();
            let header_bytes = bytes.len();
            bytes.extend_from_slice(b"payload\n--- -> ");
            let parsed = Parsed::new(&bytes).unwrap();
            prop_assert_eq!(&parsed.stanzas, &stanzas);
            prop_assert_eq!(parsed.header_bytes, header_bytes);
            prop_assert!(hmac::verify(&mac_key(&key()).unwrap(), parsed.authenticated, &parsed.mac).is_ok());
        }

        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = [VERSION_LINE, &bytes].concat();
            if let Ok(parsed) = Parsed::new(&text) {
                prop_assert!(parsed.header_bytes <= text.len());
            }
            prop_assert!(Parsed::new(&bytes).is_err());
        }
    }

    #[test]
    fn the_grammar_is_strict() {
        let mac = base64::encode(&[0; MAC_BYTES]);
        let header = |stanzas: &str, end: &str| format!("age-encryption.org/v1\n{stanzas}--- {end}\n");
        assert!(Parsed::new(header("-> a\n\n", &mac).as_bytes()).is_ok());
        let full = "A".repeat(COLUMNS);
        assert!(Parsed::new(header(&format!("-> a\n{full}\n\n"), &mac).as_bytes()).is_ok());
        let wrong = [
            header("", &mac),
            header("-> a\n", &mac),
            header("->\n\n", &mac),
            header("-> \n\n", &mac),
            header("-> a  b\n\n", &mac),
            header("-> a \n\n", &mac),
            header("-> \u{e9}\n\n", &mac),
            header("-> a\n\n\n", &mac),
            header("-> a\nAB\n", &mac),
            header("-> a\nAA==\n", &mac),
            header("-> a\nA A\n", &mac),
            header("-> a\nAA\r\n", &mac),
            header(&format!("-> a\n{full}\n"), &mac),
            header(&format!("-> a\n{full}A\n\n"), &mac),
            header("-> scrypt a 1\n\n-> a\n\n", &mac),
            header("-> a\n\n", &mac[1..]),
            header("-> a\n\n", &format!(" {mac}")),
            header("-> a\n\n", &format!("{mac}=")),
            header("-> a\n\n", "").replace("--- ", "---"),
            header("-> a\n\n", &mac).replace("v1\n", "v1\r\n"),
            header("-> a\n\n", &mac).trim_end().to_owned(),
        ];
        for text in wrong {
            assert!(Parsed::new(text.as_bytes()).is_err(), "{text}");
        }
        let other = Parsed::new(b"age-encryption.org/v2\n-> a\n").err().unwrap();
        assert_eq!(other.kind(), ErrorKind::Incompatible);
    }
}
