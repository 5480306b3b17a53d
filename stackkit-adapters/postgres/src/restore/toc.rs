//! The whole table of contents of a dump.

use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Error, Result};

use crate::archive::{Entry, Header, Input, TocStream};

/// The longest table of contents that is read. An object takes about half a kibibyte: this is a million of them.
const TOC_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Header and entries.
#[derive(Debug)]
pub(crate) struct Toc {
    pub(crate) header: Header,
    pub(crate) entries: Vec<Entry>,
}

impl Toc {
    /// Reads as much of `data` as the table of contents takes: in a custom archive the rows follow.
    ///
    /// # Errors
    /// `Integrity` if it is no table of contents, is cut, or is longer than half a gibibyte.
    pub(crate) async fn read(data: ArtifactReader) -> Result<Self> {
        let mut toc = TocStream::open(Input::new(data, 0)).await?;
        let mut entries = Vec::new();
        while let Some(entry) = toc.next().await? {
            entries.push(entry);
            if toc.position() > TOC_BYTES_MAX {
                return Err(Error::integrity("the table of contents is impossibly long"));
            }
        }
        Ok(Self { header: toc.header().clone(), entries })
    }

    /// Whether definitions name no schema and rely on the path.
    pub(crate) fn sets_path(&self) -> bool {
        !self.entries.iter().any(|entry| entry.kind == "SEARCHPATH")
    }
}
