//! Reads a table of contents from a stream, entry by entry.

use stackkit_core::{Error, Result};

use super::input::{Input, cut};
use super::{Entry, Header, read};

/// The longest header or entry that is kept in memory until it is whole; a definition of more is none.
const ENTRY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A table of contents under way. One entry is in memory at a time.
pub(crate) struct TocStream {
    input: Input,
    header: Header,
    read: u64,
}

impl TocStream {
    /// Reads the header.
    ///
    /// # Errors
    /// `Integrity` if the bytes are no archive or end; `Unsupported` for a format that is not known.
    pub(crate) async fn open(mut input: Input) -> Result<Self> {
        let header = parsed(&mut input, read::header).await?;
        Ok(Self { input, header, read: 0 })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next entry; nothing behind the last one.
    ///
    /// # Errors
    /// `Integrity` if it can't be read, or is cut.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>> {
        if self.read >= self.header.entries {
            return Ok(None);
        }
        let header = &self.header;
        let entry = parsed(&mut self.input, |bytes| read::entry(header, bytes)).await?;
        self.read += 1;
        Ok(Some(entry))
    }

    /// How many bytes were read so far.
    pub(crate) fn position(&self) -> u64 {
        self.input.position()
    }

    /// What follows.
    pub(crate) fn into_input(self) -> Input {
        self.input
    }
}

/// Parses what is buffered, and after each doubling again, so that a long entry stays linear.
async fn parsed<T>(input: &mut Input, mut parse: impl FnMut(&[u8]) -> read::Parsed<T>) -> Result<T> {
    let mut wanted = 1;
    loop {
        let mut is_end = false;
        while input.buffered().len() < wanted && !is_end {
            is_end = !input.more().await?;
        }
        if let Some((value, used)) = parse(input.buffered())? {
            input.consume(used);
            return Ok(value);
        }
        if is_end {
            return Err(cut());
        }
        wanted = input.buffered().len().saturating_mul(2).max(1);
        if wanted / 2 > ENTRY_BYTES_MAX {
            return Err(Error::integrity("an entry of the archive's table of contents is impossibly long"));
        }
    }
}
