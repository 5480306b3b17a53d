//! From slices of an archive to [`Event`]s.

use super::header::{Header, flag};
use super::pax::Records;
use super::sparse::MapParser;
use super::{ArchiveError, BLOCK_BYTES, EXTENDED_BYTES_MAX, Entry, EntryKind, Extent, Fault, Timestamp, padding};

/// What the next bytes of an archive mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A member begins. A file's [`Event::Data`] and [`Event::FileEnd`] follow.
    Entry(Entry),
    /// Bytes of the file, at `offset` of it; never empty, and offsets only grow.
    Data { offset: u64, bytes: &'a [u8] },
    /// The file is whole.
    FileEnd,
    /// The archive is whole. Only zeros may follow.
    End,
}

/// Reads an archive that is handed over in slices of any length.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
    /// How many bytes were taken.
    position: u64,
    /// The block that is being gathered.
    block: [u8; BLOCK_BYTES],
    filled: usize,
    global: Records,
    local: Option<Records>,
}

#[derive(Debug)]
enum State {
    /// A header comes next; the flag says whether a block of zeros stood before it.
    Header {
        zero_before: bool,
    },
    /// The content of an extended header of type `flag`: `left` bytes, then `pad`.
    Extended {
        flag: u8,
        text: Vec<u8>,
        left: usize,
        pad: usize,
    },
    /// The map of a sparse file; `left` bytes of the member are unread.
    Map {
        parser: MapParser,
        entry: Box<Entry>,
        left: u64,
    },
    /// The content of a file.
    Data(Content),
    /// Bytes to drop: padding, and the content of special members.
    Skip {
        left: u64,
    },
    Ended,
}

/// Where in a file's content the reader is.
#[derive(Debug)]
struct Content {
    extents: std::vec::IntoIter<Extent>,
    current: Extent,
    pad: usize,
}

impl Content {
    fn new(extents: Vec<Extent>, stored_bytes: u64) -> Self {
        let mut extents = extents.into_iter();
        let current = extents.next().unwrap_or(Extent { offset: 0, length: 0 });
        Self { extents, current, pad: padding(stored_bytes) }
    }

    /// Whether all bytes were handed out; moves to the next extent that holds some.
    fn is_whole(&mut self) -> bool {
        while self.current.length == 0 {
            match self.extents.next() {
                Some(next) => self.current = next,
                None => return true,
            }
        }
        false
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Header { zero_before: false },
            position: 0,
            block: [0; BLOCK_BYTES],
            filled: 0,
            global: Records::default(),
            local: None,
        }
    }
}

impl Reader {
    /// Takes bytes off the front of `input` until they mean something; `None` once all are taken.
    ///
    /// After an error the reader is not to be used again.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ArchiveError> {
        let before = input.len();
        let result = self.advance(input);
        self.position += (before - input.len()) as u64;
        result.map_err(|fault| ArchiveError { offset: self.position, fault })
    }

    /// Checks at the end of the input that the archive ended, too.
    pub(crate) fn finish(&self) -> Result<(), ArchiveError> {
        match self.state {
            State::Ended => Ok(()),
            _ => Err(ArchiveError { offset: self.position, fault: Fault::Truncated }),
        }
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Fault> {
        loop {
            match &mut self.state {
                State::Data(content) => {
                    if content.is_whole() {
                        self.state = State::Skip { left: content.pad as u64 };
                        return Ok(Some(Event::FileEnd));
                    }
                    return Ok(take_data(content, input));
                }
                State::Skip { left } => {
                    let taken = take(input, *left);
                    *left -= taken.len() as u64;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Header { zero_before: false };
                }
                State::Ended => {
                    let rest = std::mem::take(input);
                    return if rest.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(Fault::TrailingData) };
                }
                State::Extended { text, left, .. } => {
                    let taken = take(input, *left as u64);
                    text.extend_from_slice(taken);
                    *left -= taken.len();
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.end_extended()?;
                }
                State::Header { .. } | State::Map { .. } => {
                    if !self.gather(input) {
                        return Ok(None);
                    }
                    if let Some(event) = self.take_block()? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Fills the block; whether it is full.
    fn gather(&mut self, input: &mut &[u8]) -> bool {
        let wanted = BLOCK_BYTES - self.filled;
        let taken = take(input, wanted as u64);
        self.block[self.filled..self.filled + taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        if self.filled < BLOCK_BYTES {
            return false;
        }
        self.filled = 0;
        true
    }

    fn take_block(&mut self) -> Result<Option<Event<'static>>, Fault> {
        if let State::Map { .. } = self.state {
            return self.take_map_block();
        }
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(self.zero_block());
        }
        let header = Header::decode(&self.block)?;
        match header.flag {
            flag::PAX | flag::PAX_GLOBAL | flag::GNU_LONG_NAME | flag::GNU_LONG_LINK => {
                let left = usize::try_from(header.size).map_err(|_out_of_range| Fault::ExtendedTooLong)?;
                if left > EXTENDED_BYTES_MAX {
                    return Err(Fault::ExtendedTooLong);
                }
                self.state = State::Extended { flag: header.flag, text: Vec::new(), left, pad: padding(header.size) };
                Ok(None)
            }
            flag::GNU_SPARSE => Err(Fault::SparseFormat),
            b'M' | b'V' | b'N' | b'D' => Err(Fault::MemberType),
            _ => self.begin_member(header),
        }
    }

    fn zero_block(&mut self) -> Option<Event<'static>> {
        if let State::Header { zero_before: true } = self.state {
            self.state = State::Ended;
            return Some(Event::End);
        }
        self.state = State::Header { zero_before: true };
        None
    }

    fn end_extended(&mut self) -> Result<(), Fault> {
        let State::Extended { flag: kind, text, pad, .. } = std::mem::replace(&mut self.state, State::Skip { left: 0 })
        else {
            return Ok(());
        };
        self.state = State::Skip { left: pad as u64 };
        if kind == flag::PAX_GLOBAL {
            return self.global.parse(&text);
        }
        let local = self.local.get_or_insert_with(|| self.global.clone());
        // GNU closes a long name with a NUL.
        let name = || Some(text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
        match kind {
            flag::GNU_LONG_NAME => local.path = name(),
            flag::GNU_LONG_LINK => local.link = name(),
            _ => return local.parse(&text),
        }
        Ok(())
    }

    fn begin_member(&mut self, header: Header) -> Result<Option<Event<'static>>, Fault> {
        let records = self.local.take().unwrap_or_else(|| self.global.clone());
        let stored = records.size.unwrap_or(header.size);
        let path = records.sparse.name.or(records.path).unwrap_or(header.name);
        let link = records.link.unwrap_or(header.link);
        let kind = match header.flag {
            flag::FILE_V7 if path.ends_with(b"/") => EntryKind::Directory,
            flag::FILE | flag::FILE_V7 | flag::CONTIGUOUS => EntryKind::File { size: stored, extents: None },
            flag::DIRECTORY => EntryKind::Directory,
            flag::SYMLINK => EntryKind::Symlink { target: link },
            flag::HARD_LINK => EntryKind::HardLink { target: link },
            other => EntryKind::Special { flag: other },
        };
        let mut entry = Entry {
            path,
            kind,
            mode: header.mode,
            uid: records.uid.unwrap_or(header.uid),
            gid: records.gid.unwrap_or(header.gid),
            mtime: records.mtime.unwrap_or(Timestamp { seconds: header.mtime, nanoseconds: 0 }),
            xattrs: records.xattrs,
        };
        let sparse = (records.sparse.major, records.sparse.minor, records.sparse.real_size);
        let EntryKind::File { size, .. } = &mut entry.kind else {
            self.state = State::Skip { left: skipped_bytes(&entry.kind, stored) };
            return Ok(Some(Event::Entry(entry)));
        };
        match sparse {
            (Some(1), Some(0), Some(real_size)) => {
                // A file can't be larger (`off_t`).
                *size = i64::try_from(real_size).map(|_fits| real_size).map_err(|_out_of_range| Fault::Number)?;
                self.state = State::Map { parser: MapParser::default(), entry: Box::new(entry), left: stored };
                Ok(None)
            }
            (None, None, _) if !records.sparse.is_old => {
                let whole = Extent { offset: 0, length: stored };
                self.state = State::Data(Content::new(vec![whole], stored));
                Ok(Some(Event::Entry(entry)))
            }
            _ => Err(Fault::SparseFormat),
        }
    }

    fn take_map_block(&mut self) -> Result<Option<Event<'static>>, Fault> {
        let State::Map { parser, entry, left } = &mut self.state else { return Ok(None) };
        let EntryKind::File { size, extents } = &mut entry.kind else { return Ok(None) };
        *left = left.checked_sub(BLOCK_BYTES as u64).ok_or(Fault::SparseMap)?;
        let Some(map) = parser.block(&self.block, *size)? else { return Ok(None) };
        if map.iter().map(|extent| extent.length).sum::<u64>() != *left {
            return Err(Fault::SparseMap);
        }
        let data: Vec<Extent> = map.into_iter().filter(|extent| extent.length > 0).collect();
        *extents = Some(data.clone());
        let content = Content::new(data, *left);
        if let State::Map { entry, .. } = std::mem::replace(&mut self.state, State::Data(content)) {
            return Ok(Some(Event::Entry(*entry)));
        }
        Ok(None)
    }
}

/// What follows the header of a member that is no file: nothing, unless it is of an unknown type.
fn skipped_bytes(kind: &EntryKind, stored: u64) -> u64 {
    match kind {
        EntryKind::Special { flag: flag::CHARACTER | flag::BLOCK | flag::FIFO } => 0,
        EntryKind::Special { .. } => stored.saturating_add(padding(stored) as u64),
        _ => 0,
    }
}

/// Hands out what `input` holds of the current extent.
fn take_data<'a>(content: &mut Content, input: &mut &'a [u8]) -> Option<Event<'a>> {
    let bytes = take(input, content.current.length);
    if bytes.is_empty() {
        return None;
    }
    let offset = content.current.offset;
    content.current.offset += bytes.len() as u64;
    content.current.length -= bytes.len() as u64;
    Some(Event::Data { offset, bytes })
}

/// Cuts at most `most` bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(length);
    *input = rest;
    taken
}
