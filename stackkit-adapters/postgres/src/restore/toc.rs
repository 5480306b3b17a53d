//! The whole table of contents of a dump.

use stackkit_core::{Error, Result};
use tokio::io::AsyncRead;

use super::session::read;
use crate::archive::{self, Entry, Header};
use bytes::{Buf, BytesMut};

/// The longest table of contents that is read. An object takes about half a kibibyte: this is a million of them.
const TOC_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Header and entries.
#[derive(Debug)]
pub(crate) struct Toc {
    pub(crate) header: Header,
    pub(crate) entries: Vec<Entry>,
}

impl Toc {
    /// Reads all of `data`.
    ///
    /// # Errors
    /// `Integrity` if it is no table of contents, is cut, or is longer than half a gibibyte.
    pub(crate) async fn read(mut data: impl AsyncRead + Unpin) -> Result<Self> {
        let mut bytes = BytesMut::new();
        loop {
            let chunk = read(&mut data).await?;
            if chunk.is_empty() {
                return Self::parse(bytes);
            }
            bytes.extend_from_slice(&chunk);
            if bytes.len() > TOC_BYTES_MAX {
                return Err(Error::integrity("the table of contents is impossibly long"));
            }
        }
    }

    fn parse(mut bytes: BytesMut) -> Result<Self> {
        let cut = || Error::integrity("the archive ends inside its table of contents");
        let (header, used) = archive::header(&bytes)?.ok_or_else(cut)?;
        bytes.advance(used);
        let mut entries = Vec::new();
        for _entry in 0..header.entries {
            let (entry, used) = archive::entry(&header, &bytes)?.ok_or_else(cut)?;
            bytes.advance(used);
            entries.push(entry);
        }
        Ok(Self { header, entries })
    }

    /// Whether definitions name no schema and rely on the path.
    pub(crate) fn sets_path(&self) -> bool {
        !self.entries.iter().any(|entry| entry.kind == "SEARCHPATH")
    }
}
