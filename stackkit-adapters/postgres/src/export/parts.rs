//! Reads the data of a dump in the order of the vendor's archives.

use bytes::{Bytes, BytesMut};
use stackkit_core::backup::{ArtifactName, ArtifactReader, ArtifactSource};
use stackkit_core::{Error, Result};
use tokio::io::AsyncReadExt;

use super::pack::BLOCK_BYTES;
use crate::archive::{Input, TocStream, of_io, tar};
use crate::layout::{DatabaseLayout, Part, TOC};

/// Opens the table of contents of a database.
pub(super) async fn toc(source: &dyn ArtifactSource, database: &DatabaseLayout) -> Result<TocStream> {
    let name = ArtifactName::new(format!("{}{TOC}", database.prefix))?;
    TocStream::open(Input::new(source.open(&name).await?, 0)).await
}

/// The data of one entry, all parts of it one after the other.
pub(super) struct Rows<'a> {
    source: &'a dyn ArtifactSource,
    parts: std::slice::Iter<'a, Part>,
    /// The part under way, and how many bytes of it are left, where that is known.
    current: Option<(ArtifactReader, Option<u64>)>,
    buffer: BytesMut,
}

impl<'a> Rows<'a> {
    /// The data of the entry `id`.
    ///
    /// # Errors
    /// `Integrity` if the dump does not hold it.
    pub(super) fn new(source: &'a dyn ArtifactSource, database: &'a DatabaseLayout, id: i32) -> Result<Self> {
        let file = database.tables.iter().find(|file| file.dump_id == id);
        let file =
            file.ok_or_else(|| Error::integrity("the dump lacks the rows of a table").with_context("entry", id))?;
        Ok(Self { source, parts: file.parts.iter(), current: None, buffer: BytesMut::new() })
    }

    /// The next bytes, [`BLOCK_BYTES`] of them but for the last; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.buffer.len() < BLOCK_BYTES {
            let Some((reader, left)) = &mut self.current else {
                let Some(part) = self.parts.next() else { break };
                self.current = Some((open(self.source, part).await?, part.bytes));
                continue;
            };
            self.buffer.reserve(BLOCK_BYTES);
            let read = reader.read_buf(&mut self.buffer).await.map_err(of_io)?;
            if let Some(left) = left {
                *left = left.checked_sub(read as u64).ok_or_else(other_length)?;
            }
            if read == 0 {
                if left.is_some_and(|left| left > 0) {
                    return Err(other_length());
                }
                self.current = None;
            }
        }
        let count = self.buffer.len().min(BLOCK_BYTES);
        Ok((count > 0).then(|| self.buffer.split_to(count).freeze()))
    }
}

pub(super) fn other_length() -> Error {
    Error::integrity("a part of the dump is of another length than its list of contents says")
}

async fn open(source: &dyn ArtifactSource, part: &Part) -> Result<ArtifactReader> {
    let name = ArtifactName::new(part.artifact.as_str())?;
    match part.bytes {
        Some(bytes) if part.offset > 0 || source.info(&name)?.plain_bytes != bytes => {
            let end = part.offset.checked_add(bytes).ok_or_else(other_length)?;
            source.open_range(&name, part.offset..end).await
        }
        _ => source.open(&name).await,
    }
}

/// Where a large object is in a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a> {
    /// The artifact.
    pub(super) tar: &'a str,
    /// Where its bytes begin, and how many there are.
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// The large objects of a dump, one after the other.
pub(super) struct Blobs<'a> {
    source: &'a dyn ArtifactSource,
    tars: std::slice::Iter<'a, String>,
    /// The archive under way.
    input: Option<(&'a str, Input)>,
    /// How many bytes of the one under way are left, and what fills it up.
    left: u64,
    padding: usize,
}

impl<'a> Blobs<'a> {
    pub(super) fn new(source: &'a dyn ArtifactSource, database: &'a DatabaseLayout) -> Self {
        Self { source, tars: database.blobs.iter(), input: None, left: 0, padding: 0 }
    }

    /// The number of the next one; nothing behind the last. The one before must have been read to its end.
    pub(super) async fn next(&mut self) -> Result<Option<u32>> {
        loop {
            let Some((_, input)) = &mut self.input else {
                let Some(name) = self.tars.next() else { return Ok(None) };
                let reader = self.source.open(&ArtifactName::new(name.as_str())?).await?;
                self.input = Some((name, Input::new(reader, 0)));
                continue;
            };
            let Some((name, bytes)) = tar::member(input).await? else {
                // What follows the mark of the end fills the file up; reading it checks the artifact's hash.
                while input.piece(u64::MAX).await?.is_some() {}
                self.input = None;
                continue;
            };
            let number = name.strip_prefix("blob_").and_then(|name| name.strip_suffix(".dat"));
            let number = number.and_then(|number| number.parse().ok());
            (self.left, self.padding) = (bytes, tar::padding(bytes));
            return number.map(Some).ok_or_else(|| Error::integrity("something else stands among the large objects"));
        }
    }

    /// Where the one under way is, if nothing of it was read.
    pub(super) fn place(&self) -> Option<Place<'a>> {
        let (tar, input) = self.input.as_ref()?;
        Some(Place { tar, at: input.position(), bytes: self.left })
    }

    /// The next bytes of the one under way; nothing at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some((_, input)) = &mut self.input else { return Ok(None) };
        if self.left == 0 {
            input.exact(std::mem::take(&mut self.padding)).await?;
            return Ok(None);
        }
        let piece = input.piece(self.left).await?.ok_or_else(other_length)?;
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}
