use super::lzf;
use super::{Fault, MAX_STRING_BYTES};

/// Why a step could not finish.
#[derive(Debug)]
pub(super) enum Stop {
    /// The step needs this many bytes, counted from where it started.
    Need(usize),
    /// The bytes are wrong; offsets inside are relative to where the step started.
    Fault(Fault),
}

/// A cursor over the bytes at hand.
#[derive(Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A length field.
enum Length {
    Plain(u64),
    /// A string in a special encoding.
    Encoded(u8),
}

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn position(&self) -> usize {
        self.at
    }

    pub(super) const fn rewind(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Need(end))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let end = self.at + N;
        let taken = self.bytes[self.at..].first_chunk().ok_or(Stop::Need(end))?;
        self.at = end;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn i32_le(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn i64_le(&mut self) -> Result<i64, Stop> {
        self.array().map(i64::from_le_bytes)
    }

    /// Steps over at most `count` bytes and returns how many there were.
    pub(super) fn skip(&mut self, count: u64) -> u64 {
        let left = self.bytes.len() - self.at;
        let step = usize::try_from(count).map_or(left, |count| count.min(left));
        self.at += step;
        u64::try_from(step).unwrap_or(count)
    }

    fn length_or_encoding(&mut self) -> Result<Length, Stop> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(u64::from(first)),
            (1, _) => Length::Plain(u64::from(first & 63) << 8 | u64::from(self.byte()?)),
            (2, 0x80) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (2, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (2, _) => return Err(self.malformed("length")),
            _ => Length::Encoded(first & 63),
        })
    }

    /// A length that is no string encoding.
    pub(super) fn length(&mut self) -> Result<u64, Stop> {
        match self.length_or_encoding()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(self.malformed("length")),
        }
    }

    /// Reads the head of a string and returns how many bytes of body follow.
    pub(super) fn string_head(&mut self) -> Result<u64, Stop> {
        Ok(match self.length_or_encoding()? {
            Length::Plain(length) => length,
            Length::Encoded(0) => 1,
            Length::Encoded(1) => 2,
            Length::Encoded(2) => 4,
            Length::Encoded(3) => self.lzf_head()?.0,
            Length::Encoded(_) => return Err(self.malformed("string encoding")),
        })
    }

    /// Compressed and plain length.
    fn lzf_head(&mut self) -> Result<(u64, u64), Stop> {
        let (compressed, plain) = (self.length()?, self.length()?);
        if lzf::plausible(compressed, plain) {
            Ok((compressed, plain))
        } else {
            Err(self.malformed("compressed string"))
        }
    }

    /// Reads a whole string, decoded; `scratch` holds it when it is not stored as is.
    pub(super) fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Stop>
    where
        'a: 's,
    {
        scratch.clear();
        let number = match self.length_or_encoding()? {
            Length::Plain(length) => {
                let length = self.bounded(length)?;
                return self.take(length);
            }
            Length::Encoded(0) => i32::from(i8::from_le_bytes(self.array()?)),
            Length::Encoded(1) => i32::from(i16::from_le_bytes(self.array()?)),
            Length::Encoded(2) => self.i32_le()?,
            Length::Encoded(3) => {
                let (compressed, plain) = self.lzf_head()?;
                let (compressed, plain) = (self.bounded(compressed)?, self.bounded(plain)?);
                let body = self.take(compressed)?;
                lzf::decompress(body, plain, scratch).ok_or_else(|| self.malformed("compressed string"))?;
                return Ok(scratch);
            }
            Length::Encoded(_) => return Err(self.malformed("string encoding")),
        };
        scratch.extend_from_slice(number.to_string().as_bytes());
        Ok(scratch)
    }

    fn bounded(&self, size_bytes: u64) -> Result<usize, Stop> {
        usize::try_from(size_bytes).ok().filter(|_| size_bytes <= MAX_STRING_BYTES).ok_or(Stop::Fault(
            Fault::TooLarge { what: "string", size_bytes, limit_bytes: MAX_STRING_BYTES, offset: self.offset() },
        ))
    }

    pub(super) fn malformed(&self, what: &'static str) -> Stop {
        Stop::Fault(Fault::Malformed { what, offset: self.offset() })
    }

    pub(super) fn offset(&self) -> u64 {
        u64::try_from(self.at).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_each_width() {
        for (bytes, length) in [
            (&[0x3f][..], 63),
            (&[0x41, 0x02], 258),
            (&[0x80, 0, 1, 0, 0], 65_536),
            (&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
        ] {
            assert_eq!(Input::new(bytes).length().unwrap(), length);
            for cut in 0..bytes.len() {
                assert!(
                    matches!(Input::new(&bytes[..cut]).length(), Err(Stop::Need(need)) if need > cut && need <= bytes.len())
                );
            }
        }
        assert!(matches!(Input::new(&[0x82]).length(), Err(Stop::Fault(_))));
        assert!(matches!(Input::new(&[0xc0, 1]).length(), Err(Stop::Fault(_))));
    }

    #[test]
    fn strings_of_each_encoding() {
        for (bytes, text) in [
            (&[2, b'h', b'i'][..], &b"hi"[..]),
            (&[0xc0, 0x85], b"-123"),
            (&[0xc1, 0x39, 0x30], b"12345"),
            (&[0xc2, 0, 0, 0, 0x80], b"-2147483648"),
            (&[0xc3, 5, 7, 1, b'a', b'b', 3 << 5, 1], b"abababa"),
        ] {
            let mut input = Input::new(bytes);
            assert_eq!(input.string(&mut Vec::new()).unwrap(), text);
            assert_eq!(input.position(), bytes.len());
            let mut input = Input::new(bytes);
            let body = input.string_head().unwrap();
            assert_eq!(input.skip(body), body);
            assert_eq!(input.position(), bytes.len());
        }
        assert!(matches!(Input::new(&[0xc4]).string_head(), Err(Stop::Fault(_))));
        assert!(matches!(Input::new(&[0xc3, 1, 0x41, 0]).string_head(), Err(Stop::Fault(_))));
        let huge = [0x81, 0, 0, 1, 0, 0, 0, 0, 0];
        assert!(matches!(Input::new(&huge).string(&mut Vec::new()), Err(Stop::Fault(Fault::TooLarge { .. }))));
    }
}
