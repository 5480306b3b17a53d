//! The tar stream of a base backup, read without I/O: POSIX ustar as `src/port/tar.c` of PostgreSQL writes it, sizes
//! beyond 8 GiB in base 256, no extended headers.

use stackkit_core::{Error, Result};

/// The unit of a tar archive.
const BLOCK_BYTES: usize = 512;

/// Where the fields of a header are: start and end.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 108);
const SIZE: (usize, usize) = (124, 136);
const CHECKSUM: (usize, usize) = (148, 156);
const KIND: usize = 156;
const MAGIC: (usize, usize) = (257, 262);
const PREFIX: (usize, usize) = (345, 500);

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A symbolic link; a base backup has them for tablespaces.
    Link,
}

/// The header of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Relative, without `./` and a slash at its end; not empty, and nothing in it leads upwards.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) size_bytes: u64,
    pub(crate) mode: u32,
}

/// What comes next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A member begins.
    Member(Member),
    /// Some of its content.
    Data(&'a [u8]),
    /// It is complete; also for members without content.
    End,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Body {
        left: u64,
        padding: usize,
    },
    Padding(usize),
    /// The first block of zeros was seen.
    Ended,
}

/// Turns pieces of any size into events.
#[derive(Debug)]
pub(crate) struct TarReader {
    state: State,
}

impl Default for TarReader {
    fn default() -> Self {
        Self { state: State::Header(Vec::with_capacity(BLOCK_BYTES)) }
    }
}

impl TarReader {
    /// The next event, taken off the front of `input`; nothing when all of `input` is taken.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        loop {
            match &mut self.state {
                State::Body { left: 0, padding } => {
                    self.state = State::Padding(*padding);
                    return Ok(Some(Event::End));
                }
                _ if input.is_empty() => return Ok(None),
                State::Body { left, .. } => {
                    let piece = take(input, usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= u64::try_from(piece.len()).unwrap_or(0);
                    return Ok(Some(Event::Data(piece)));
                }
                State::Padding(left) => {
                    *left -= take(input, *left).len();
                    if *left == 0 {
                        self.state = State::Header(Vec::with_capacity(BLOCK_BYTES));
                    }
                }
                State::Header(block) => {
                    block.extend_from_slice(take(input, BLOCK_BYTES - block.len()));
                    if block.len() == BLOCK_BYTES {
                        let block = std::mem::take(block);
                        if let Some(event) = self.header(&block)? {
                            return Ok(Some(event));
                        }
                    }
                }
                State::Ended => *input = &[],
            }
        }
    }

    /// Whether the stream may end here: between two members.
    pub(crate) fn is_between_members(&self) -> bool {
        match &self.state {
            State::Header(block) => block.is_empty(),
            State::Ended => true,
            State::Padding(left) => *left == 0,
            State::Body { .. } => false,
        }
    }

    fn header(&mut self, block: &[u8]) -> Result<Option<Event<'static>>> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::Ended;
            return Ok(None);
        }
        let member = parse(block)?;
        let block_bytes = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let over = usize::try_from(member.size_bytes % block_bytes).unwrap_or(0);
        let padding = (BLOCK_BYTES - over) % BLOCK_BYTES;
        self.state = State::Body { left: member.size_bytes, padding };
        Ok(Some(Event::Member(member)))
    }
}

/// The first bytes of `input`, `max` at most.
fn take<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    piece
}

fn damaged(what: &str) -> Error {
    Error::integrity("the tar archive is damaged").with_context("what", what)
}

fn field(block: &[u8], (start, end): (usize, usize)) -> &[u8] {
    block.get(start..end).unwrap_or_default()
}

fn text(block: &[u8], place: (usize, usize)) -> &[u8] {
    field(block, place).split(|byte| *byte == 0).next().unwrap_or_default()
}

fn parse(block: &[u8]) -> Result<Member> {
    if field(block, MAGIC) != b"ustar" {
        return Err(damaged("a header is not ustar"));
    }
    let blank = |(at, byte): (usize, &u8)| if (CHECKSUM.0..CHECKSUM.1).contains(&at) { b' ' } else { *byte };
    let sum: u64 = block.iter().enumerate().map(blank).map(u64::from).sum();
    if number(field(block, CHECKSUM))? != sum {
        return Err(damaged("the checksum of a header"));
    }
    let kind = match block.get(KIND) {
        Some(b'0' | 0) => Kind::File,
        Some(b'5') => Kind::Directory,
        Some(b'2') => Kind::Link,
        _ => return Err(damaged("a member is of a kind that base backups do not have")),
    };
    let size_bytes = if kind == Kind::File { number(field(block, SIZE))? } else { 0 };
    let mode = u32::try_from(number(field(block, MODE))?).map_err(|_too_large| damaged("a mode"))?;
    let (prefix, name) = (text(block, PREFIX), text(block, NAME));
    let whole = if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') };
    Ok(Member { path: normal(&whole)?, kind, size_bytes, mode })
}

/// A number in octal digits, or in base 256 with the highest bit set (GNU; PostgreSQL writes it for large files).
fn number(field: &[u8]) -> Result<u64> {
    let (first, rest) = field.split_first().ok_or_else(|| damaged("a number"))?;
    if *first == 0x80 {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().any(|byte| *byte != 0) {
            return Err(damaged("a number is too large"));
        }
        return Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).map_err(|_not_text| damaged("a number"))?;
    let digits = text.trim_matches(|c: char| c == '\0' || c == ' ');
    match digits.is_empty() {
        true => Ok(0),
        false => u64::from_str_radix(digits, 8).map_err(|_not_octal| damaged("a number")),
    }
}

/// The path without `.` and empty parts. One that leads upwards or is absolute is damage at best.
fn normal(name: &[u8]) -> Result<Vec<u8>> {
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(damaged("a name leads out of the directory")),
            part => parts.push(part),
        }
    }
    if parts.is_empty() || name.first() == Some(&b'/') {
        return Err(damaged("a name is empty or absolute"));
    }
    Ok(parts.join(&b'/'))
}

/// Archives for the tests of all who read them.
#[cfg(test)]
pub(crate) mod build {
    use super::*;

    /// A header as PostgreSQL writes it.
    pub(crate) fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut put = |place: (usize, usize), text: &[u8]| block[place.0..place.0 + text.len()].copy_from_slice(text);
        put(NAME, name.as_bytes());
        put(MODE, b"0000600 ");
        put((257, 265), b"ustar\x0000");
        put(CHECKSUM, b"        ");
        if size < 1 << 33 {
            put(SIZE, format!("{size:011o} ").as_bytes());
        } else {
            put(SIZE, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
        }
        block[KIND] = kind;
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[CHECKSUM.0..CHECKSUM.1].copy_from_slice(format!("{sum:07o} ").as_bytes());
        block
    }

    /// A file with its content, padded.
    pub(crate) fn file(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, b'0', content.len() as u64);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::build::{file, header};
    use super::*;

    /// Names, and the content of files, of `bytes` that come in pieces of `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<(String, Vec<u8>)>> {
        let mut reader = TarReader::default();
        let mut members = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(event) = reader.next(&mut input)? {
                match event {
                    Event::Member(member) => {
                        members.push((String::from_utf8_lossy(&member.path).into_owned(), Vec::new()));
                    }
                    Event::Data(data) => members.last_mut().expect("a member").1.extend_from_slice(data),
                    Event::End => {}
                }
            }
        }
        match reader.is_between_members() {
            true => Ok(members),
            false => Err(damaged("cut")),
        }
    }

    #[test]
    fn members_are_read_with_and_without_an_end() {
        let mut bytes = file("backup_label", b"START");
        bytes.extend(header("./pg_wal/", b'5', 0));
        bytes.extend(file("base/1/2", &[7; 1000]));
        let expected = [("backup_label", b"START".to_vec()), ("pg_wal", Vec::new()), ("base/1/2", vec![7; 1000])]
            .map(|(n, c)| (n.to_owned(), c));
        assert_eq!(read(&bytes, 100).expect("an archive"), expected);
        bytes.extend([0; 1024]);
        assert_eq!(read(&bytes, 7).expect("an archive"), expected);
    }

    #[test]
    fn sizes_beyond_eight_gibibytes_are_read() {
        let mut reader = TarReader::default();
        let block = header("base/1/2", b'0', 9 << 30);
        let Some(Event::Member(member)) = reader.next(&mut block.as_slice()).expect("a header") else { panic!("none") };
        assert_eq!(member.size_bytes, 9 << 30);
    }

    #[test]
    fn hostile_names_and_damage_are_refused() {
        for name in ["../etc/passwd", "/etc/passwd", "base/../../x", "./"] {
            assert!(read(&file(name, b"x"), 512).is_err(), "{name}");
        }
        assert!(read(&header("dev", b'3', 0), 512).is_err(), "a device");
        let whole = file("base/1", &[1; 600]);
        assert!(read(&whole[..whole.len() - 600], 512).is_err(), "cut in the content");
        let mut flipped = whole;
        flipped[130] ^= 1;
        assert!(read(&flipped, 512).is_err(), "a flipped bit in the header");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), piece in 1usize..700) {
            let _members = read(&bytes, piece);
        }

        #[test]
        fn pieces_do_not_matter(
            content in proptest::collection::vec(any::<u8>(), 0..1500),
            piece in 1usize..1500,
        ) {
            let bytes = [file("a", &content), file("b", b"end")].concat();
            let expected = vec![("a".to_owned(), content), ("b".to_owned(), b"end".to_vec())];
            prop_assert_eq!(read(&bytes, piece).expect("an archive"), expected);
        }
    }
}
