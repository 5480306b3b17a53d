//! When an X.509 certificate ends, read from its DER bytes: sans-IO, and safe on any bytes.
//!
//! Structure by RFC 5280, section 4.1: `Certificate { tbsCertificate { [0] version, serialNumber, signature, issuer,
//! validity { notBefore, notAfter }, … } … }`; encoding by X.690.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version, which is left out where it is 1.
const VERSION: u8 = 0xa0;
/// The lowest bits of the first byte of a tag that has more bytes; no field before the validity has such.
const TAG_LONG: u8 = 0x1f;
/// The most bytes of a length: 4 GiB are more than a handshake carries.
const LENGTH_BYTES_MAX: u8 = 4;
/// In `UTCTime` years from here on are of the 20th century: RFC 5280, 4.1.2.5.1.
const UTC_TIME_PIVOT: i16 = 50;

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: tag and content.
    fn value(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        if tag & TAG_LONG == TAG_LONG {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            _ => long_length(first & 0x7f, rest)?,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, which must be of that tag.
    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.value().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    fn skip_if(&mut self, tag: u8) -> Option<()> {
        if self.0.first() == Some(&tag) { self.value().map(drop) } else { Some(()) }
    }
}

/// A length in `count` bytes, the highest first; an indefinite one (0 bytes) is not DER.
fn long_length(count: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    if !(1..=LENGTH_BYTES_MAX).contains(&count) {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(usize::from(count))?;
    let length =
        bytes.iter().try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add(usize::from(*byte)));
    Some((length?, rest))
}

/// The end of a certificate's validity; `None` if the bytes are no certificate.
pub(crate) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let mut certificate = Reader(Reader(certificate).expect(SEQUENCE)?);
    let mut signed = Reader(certificate.expect(SEQUENCE)?);
    signed.skip_if(VERSION)?;
    signed.expect(INTEGER)?;
    signed.expect(SEQUENCE)?;
    signed.expect(SEQUENCE)?;
    let mut validity = Reader(signed.expect(SEQUENCE)?);
    validity.value()?;
    let (tag, text) = validity.value()?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`: RFC 5280 allows no other form.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year: i16 = year.parse().ok()?;
            (year + if year < UTC_TIME_PIVOT { 2000 } else { 1900 }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let civil = DateTime::new(year, month, day, two(4)?, two(6)?, two(8)?, 0).ok()?;
    // The last day of 9999 means "no end", and is later than any timestamp.
    Some(civil.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1999, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_real_certificates_is_read() {
        // From 2050 on it is a GeneralizedTime.
        for (year, month, day) in [(2001, 2, 3), (2026, 11, 21), (2049, 12, 31), (2050, 1, 1), (4096, 1, 1)] {
            let wanted = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            let found = not_after(&certificate(year, month, day)).unwrap();
            assert_eq!(found.to_string(), wanted);
        }
    }

    #[test]
    fn times_have_one_form_each() {
        assert_eq!(time(UTC_TIME, "491231235959Z").unwrap().to_string(), "2049-12-31T23:59:59Z");
        assert_eq!(time(UTC_TIME, "500101000000Z").unwrap().to_string(), "1950-01-01T00:00:00Z");
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Some(Timestamp::MAX));
        for bad in
            ["4912312359Z", "491231235959", "491331235959Z", "49123123595+Z", "+91231235959Z", "", "Z", "é9123123595Z"]
        {
            assert_eq!(time(UTC_TIME, bad), None, "{bad:?} was read");
        }
    }

    #[test]
    fn a_cut_certificate_is_none_or_has_the_same_end() {
        let whole = certificate(2030, 1, 1);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "the outermost length is checked");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = not_after(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_read_without_a_panic(at in 0_usize..300, flip in 1_u8..) {
            use std::sync::OnceLock;
            static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
            let mut bytes = WHOLE.get_or_init(|| certificate(2030, 1, 1)).clone();
            let length = bytes.len();
            bytes[at % length] ^= flip;
            let _ = not_after(&bytes);
        }

        #[test]
        fn nothing_outside_the_bytes_is_believed(count in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..8)) {
            if let Some((_, left)) = long_length(count, &rest) {
                prop_assert!(left.len() < rest.len());
            }
        }
    }
}
