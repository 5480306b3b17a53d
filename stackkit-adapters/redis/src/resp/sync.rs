use bytes::{Bytes, BytesMut};

use super::reply::{Invalid, ServerError, server_error};

/// Length of the random mark that ends a body of unknown length (`RDB_EOF_MARK_SIZE`).
const MARK_BYTES: usize = 40;
/// Longest line before the body: the master's answers are below 100 bytes.
const LINE_BYTES_MAX: usize = 4 << 10;

/// How the end of the RDB is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `$n`: this many bytes.
    Length(u64),
    /// `$EOF:` and a mark, which follows the last byte.
    Mark([u8; MARK_BYTES]),
}

/// What the lines before the RDB say, one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Preamble {
    /// Replication id and offset of the dump that comes.
    FullResync { id: String, offset: u64 },
    /// The RDB follows.
    Body(Framing),
    /// The server refuses.
    Refused(ServerError),
}

impl Preamble {
    /// Takes the next meaningful line from the front of `buffer`, or `None` while there is none. The bare line feeds
    /// that a master sends to keep the connection alive are dropped.
    pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Self>, Invalid> {
        let alive = buffer.iter().take_while(|&&byte| byte == b'\n').count();
        drop(buffer.split_to(alive));
        let Some(end) = buffer.iter().position(|&byte| byte == b'\n') else {
            return if buffer.len() > LINE_BYTES_MAX { Err(Invalid("line too long")) } else { Ok(None) };
        };
        let line = buffer.split_to(end + 1);
        let line = line.trim_ascii_end();
        Self::parse(line).map(Some)
    }

    fn parse(line: &[u8]) -> Result<Self, Invalid> {
        if let Some(refusal) = line.strip_prefix(b"-") {
            return Ok(Self::Refused(server_error(refusal)));
        }
        if let Some(mark) = line.strip_prefix(b"$EOF:") {
            let mark = mark.try_into().map_err(|_length| Invalid("end mark"))?;
            return Ok(Self::Body(Framing::Mark(mark)));
        }
        let text = std::str::from_utf8(line).map_err(|_utf8| Invalid("line before the rdb"))?;
        if let Some(length) = text.strip_prefix('$') {
            let length = length.parse().map_err(|_digits| Invalid("length of the rdb"))?;
            return Ok(Self::Body(Framing::Length(length)));
        }
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next().and_then(|offset| offset.parse().ok())) {
            (Some("+FULLRESYNC"), Some(id), Some(offset)) => Ok(Self::FullResync { id: id.to_owned(), offset }),
            _ => Err(Invalid("answer to psync")),
        }
    }
}

/// The bytes of the RDB, cut out of the stream that carries them.
#[derive(Debug)]
pub(crate) struct Body {
    framing: Framing,
    buffer: BytesMut,
    ended: bool,
}

impl Body {
    /// A body of which `buffer` holds what came with the preamble.
    pub(crate) fn new(framing: Framing, buffer: BytesMut) -> Self {
        let ended = framing == Framing::Length(0);
        Self { framing, buffer, ended }
    }

    /// Where the next bytes of the stream are appended.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether [`Self::take`] handed out the last byte.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether all bytes of the RDB are there.
    pub(crate) fn complete(&self) -> bool {
        match &self.framing {
            Framing::Length(left) => usize::try_from(*left).is_ok_and(|left| left <= self.buffer.len()),
            Framing::Mark(mark) => ends_with_mark(&self.buffer, mark).is_some(),
        }
    }

    /// How many bytes of the RDB are there and certain.
    pub(crate) fn ready(&self) -> usize {
        let here = self.buffer.len();
        match &self.framing {
            Framing::Length(left) => usize::try_from(*left).map_or(here, |left| left.min(here)),
            // Unless the mark is complete it may have begun, and line feeds may follow it.
            Framing::Mark(mark) => ends_with_mark(&self.buffer, mark).unwrap_or(here.saturating_sub(2 * MARK_BYTES)),
        }
    }

    /// Takes bytes of the RDB that are certain, `most` at most; empty if there are none.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        let complete = self.complete();
        let ready = self.ready();
        let taken = self.buffer.split_to(ready.min(most)).freeze();
        self.ended = complete && taken.len() == ready;
        if let Framing::Length(left) = &mut self.framing {
            *left -= u64::try_from(taken.len()).unwrap_or(*left);
        }
        taken
    }
}

/// Where the mark starts, if the bytes end with it. Servers 7.0.0 to 7.0.4 may send line feeds after it.
fn ends_with_mark(bytes: &[u8], mark: &[u8; MARK_BYTES]) -> Option<usize> {
    let feeds = bytes.iter().rev().take(MARK_BYTES).take_while(|&&byte| byte == b'\n').count();
    bytes[..bytes.len() - feeds].strip_suffix(mark).map(<[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: [u8; 40] = *b"0123456789abcdef0123456789abcdef01234567";

    fn collect(framing: &Framing, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut body = Body::new(framing.clone(), BytesMut::new());
        let mut rdb = Vec::new();
        for piece in pieces {
            assert!(!body.ended());
            body.buffer().extend_from_slice(piece);
            while body.ready() > 0 && !body.ended() {
                rdb.extend_from_slice(&body.take(33));
            }
        }
        (rdb, body.ended())
    }

    #[test]
    fn a_mark_is_found_wherever_the_stream_is_cut() {
        // The content holds line feeds and half a mark on purpose.
        let content = [&b"REDIS0010\n\n"[..], &MARK[..39], &[b'\n'; 50], &[7; 60]].concat();
        let stream = [&content[..], &MARK].concat();
        let framing = Framing::Mark(MARK);
        for cut in 1..stream.len() {
            for next in cut + 1..=stream.len() {
                let (rdb, ended) = collect(
                    &framing,
                    &[&stream[..cut], &stream[cut..next], &stream[next..]][..if next == stream.len() { 2 } else { 3 }],
                );
                assert!(ended && rdb == content, "cut at {cut} and {next}");
            }
        }
        let one_by_one: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(collect(&framing, &one_by_one), (content.clone(), true));
        let (rdb, ended) = collect(&framing, &[&stream[..stream.len() - 1]]);
        assert!(!ended && content.starts_with(&rdb));
        assert_eq!(collect(&framing, &[&[&stream[..], b"\n\n"].concat()]), (content, true));
    }

    #[test]
    fn a_length_takes_exactly_that_many_bytes() {
        let framing = Framing::Length(5);
        assert_eq!(collect(&framing, &[b"ab", b"cdeXY"]), (b"abcde".to_vec(), true));
        assert_eq!(collect(&framing, &[b"abcd"]), (b"abcd".to_vec(), false));
    }

    #[test]
    fn lines_before_the_body() {
        let mut buffer = BytesMut::from(&b"\n\n+FULLRESYNC 8de1 14\r\n\n\n$12\r\n\nREDIS"[..]);
        let resync = Preamble::FullResync { id: "8de1".into(), offset: 14 };
        assert_eq!(Preamble::take(&mut buffer), Ok(Some(resync)));
        assert_eq!(Preamble::take(&mut buffer), Ok(Some(Preamble::Body(Framing::Length(12)))));
        // The first byte of the body is the body's, be it a line feed.
        assert_eq!(&buffer[..], b"\nREDIS");
        let mut marked = BytesMut::from(&[b"$EOF:", &MARK[..], b"\r\nR"].concat()[..]);
        assert_eq!(Preamble::take(&mut marked), Ok(Some(Preamble::Body(Framing::Mark(MARK)))));
        let take = |line: &[u8]| Preamble::take(&mut BytesMut::from(line));
        assert_eq!(take(b"\n\n+FULLRES"), Ok(None));
        let refused = ServerError { code: "NOMASTERLINK".into(), text: "Can't SYNC".into() };
        assert_eq!(take(b"-NOMASTERLINK Can't SYNC\r\n"), Ok(Some(Preamble::Refused(refused))));
        for line in [&b"+CONTINUE\r\n"[..], b"$EOF:short\r\n", b"$x\r\n", b"\xff\r\n", &[b'x'; LINE_BYTES_MAX + 1]] {
            assert!(take(line).is_err());
        }
    }
}
