//! PAX extended header records: `"<length> <key>=<value>\n"`.

use super::{EXTENDED_BYTES_MAX, Fault, Timestamp, XATTRS_MAX, Xattr};

/// The prefix under which star, GNU tar and libarchive keep extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Nanoseconds in a second.
const NANOSECONDS: u32 = 1_000_000_000;

/// What the records of one extended header say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
}

/// The records of GNU's sparse formats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Records of the formats 0.0 and 0.1 were met.
    pub(super) is_old: bool,
}

impl Records {
    /// Takes over the records in `bytes`; a later one overrides an earlier one.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes).ok_or(Fault::Extended)?;
            self.take(key, value)?;
            bytes = rest;
        }
        // Each header is bounded, but they add up.
        match self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum::<usize>() {
            ..=EXTENDED_BYTES_MAX => Ok(()),
            _ => Err(Fault::ExtendedTooLong),
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        // An empty value takes the record back (POSIX).
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            [] => Ok(None),
            _ => decimal(value).map(Some).ok_or(Fault::Extended),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(parse_time(value).ok_or(Fault::Extended)?),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.realsize" => self.sparse.real_size = number()?,
            b"GNU.sparse.size" | b"GNU.sparse.numblocks" | b"GNU.sparse.map" => self.sparse.is_old = true,
            _ => return self.take_xattr(key, value),
        }
        Ok(())
    }

    fn take_xattr(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let Some(name) = key.strip_prefix(XATTR_PREFIX) else { return Ok(()) };
        let xattr = Xattr { name: unescape(name), value: value.to_vec() };
        match self.xattrs.iter().position(|known| known.name == xattr.name) {
            Some(known) => self.xattrs[known] = xattr,
            None if self.xattrs.len() < XATTRS_MAX => self.xattrs.push(xattr),
            None => return Err(Fault::ExtendedTooLong),
        }
        Ok(())
    }
}

/// Appends a record.
pub(super) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends an extended attribute, with `=` and `%` of its name escaped as GNU tar does.
pub(super) fn put_xattr(out: &mut Vec<u8>, xattr: &Xattr) {
    let mut key = XATTR_PREFIX.to_vec();
    for byte in &xattr.name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            _ => key.push(*byte),
        }
    }
    put(out, &key, &xattr.value);
}

/// A time as PAX writes it: a decimal number, negative before 1970.
pub(super) fn format_time(time: Timestamp) -> String {
    let Timestamp { seconds, nanoseconds } = time;
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanoseconds:09}"),
        (..0, _) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), NANOSECONDS - nanoseconds),
    }
}

fn parse_time(value: &[u8]) -> Option<Timestamp> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0;
    let mut unit = NANOSECONDS / 10;
    for digit in parts.next().unwrap_or_default() {
        nanoseconds += u32::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?) * unit;
        unit /= 10;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds: whole, nanoseconds },
        (true, 0) => Timestamp { seconds: -whole, nanoseconds },
        (true, _) => Timestamp { seconds: -whole - 1, nanoseconds: NANOSECONDS - nanoseconds },
    })
}

/// The key, the value and what follows the first record.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

/// A number of one to nineteen decimal digits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if !(1..=19).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn digits(mut number: usize) -> usize {
    let mut count = 1;
    while number >= 10 {
        number /= 10;
        count += 1;
    }
    count
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let escape = tail.get(..2).map(<[u8]>::to_ascii_uppercase);
        let (byte, tail) = match (first, escape.as_deref()) {
            (b'%', Some(b"25")) => (b'%', &tail[2..]),
            (b'%', Some(b"3D")) => (b'=', &tail[2..]),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_counts_itself() {
        for value in [0, 1, 88, 89, 90, 91, 92, 93, 985, 986, 987, 988, 989, 990, 9985] {
            let mut out = Vec::new();
            put(&mut out, b"path", &vec![b'x'; value]);
            let (key, found, rest) = split_record(&out).unwrap();
            assert_eq!((key, found.len(), rest.len()), (&b"path"[..], value, 0));
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (1, 5, "1.000000005"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 1, "-1.999999999"),
            (-3, 0, "-3"),
        ] {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(format_time(time), text);
            assert_eq!(parse_time(text.as_bytes()), Some(time));
        }
        assert_eq!(parse_time(b"1.1234567899"), Some(Timestamp { seconds: 1, nanoseconds: 123_456_789 }));
        assert_eq!(parse_time(b"1.x"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [&b"x"[..], b"5 a=b", b"6 a=b\n\n", b"99 a=b\n", b"0 a=b\n", b"5 ab\n", b"9 size=x\n"] {
            assert_eq!(Records::default().parse(bytes), Err(Fault::Extended), "{bytes:?}");
        }
    }

    #[test]
    fn attribute_names_are_escaped() {
        let xattr = Xattr { name: b"user.a=b%c%3d".to_vec(), value: b"\0\n=".to_vec() };
        let mut out = Vec::new();
        put_xattr(&mut out, &xattr);
        let mut records = Records::default();
        records.parse(&out).unwrap();
        assert_eq!(records.xattrs, [xattr]);
    }
}
