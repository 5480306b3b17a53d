//! What is where in a dump of many artifacts: `contents.json`.
//!
//! The artifacts are the files of `pg_dump`'s directory format, uncompressed, so that a person with the vendor's tools
//! can put the directory together: `toc.dat`, `N.dat` (the data of the entry `N`, which ends with `\.`), `N.dat.000` and
//! on (parts of a large one: `cat` in the order of their names), `tables.000.tar` and on (many small ones),
//! `blobs.toc` or `blobs_N.toc`, `blobs.000.tar` and on (`blob_OID.dat`). Beside them `globals.sql`, and this file,
//! which saves a reader from looking for them. In a dump of several databases the names of each begin with
//! [`DatabaseLayout::prefix`].

use serde::{Deserialize, Serialize};
use stackkit_core::backup::{ArtifactName, ArtifactSource};
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;

/// The artifact that tells what is where.
pub(crate) const CONTENTS: &str = "contents.json";
/// The end of the name of a database's table of contents.
pub(crate) const TOC: &str = "toc.dat";
/// The roles and tablespaces, as SQL.
pub(crate) const GLOBALS: &str = "globals.sql";

/// The formats of the artifacts, as the manifest calls them.
pub(crate) mod formats {
    /// [`super::CONTENTS`].
    pub(crate) const CONTENTS: &str = "stackkit-postgresql-contents";
    /// A table of contents of the directory format.
    pub(crate) const TOC: &str = "postgresql-toc";
    /// The rows of one table, or of a part of it, as `COPY` writes them.
    pub(crate) const ROWS: &str = "postgresql-copy-text";
    /// Data files of many small tables, or of large objects.
    pub(crate) const FILES: &str = "tar-pax";
    /// `blobs.toc`.
    pub(crate) const BLOBS_TOC: &str = "postgresql-blobs-toc";
    /// SQL.
    pub(crate) const SQL: &str = "postgresql-sql";
}

/// The version of [`Layout`] that is written; readers refuse a higher one.
pub(crate) const LAYOUT_VERSION: u32 = 1;

/// The largest `contents.json` that is read: two million tables.
const CONTENTS_BYTES_MAX: u64 = 1 << 30;

/// What is where in a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) version: u32,
    /// The server as it calls itself: `15.18 (Debian …)`; empty if it is not known.
    pub(crate) server_version: String,
    pub(crate) databases: Vec<DatabaseLayout>,
    /// Whether there is [`GLOBALS`].
    #[serde(default)]
    pub(crate) globals: bool,
}

/// One database of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseLayout {
    pub(crate) name: String,
    /// What the names of its artifacts begin with; empty in a dump of one database, else `d1.`, `d2.`, …
    #[serde(default)]
    pub(crate) prefix: String,
    /// The position of its snapshot in the log, and the log's timeline.
    #[serde(default)]
    pub(crate) position: Option<String>,
    /// The encoding of its data files, such as `UTF8`.
    pub(crate) encoding: String,
    /// The data files of tables, in the order of the table of contents.
    pub(crate) tables: Vec<DataFile>,
    /// The archives of large objects, in the order of their numbers; each file in them is `blob_OID.dat`.
    #[serde(default)]
    pub(crate) blobs: Vec<String>,
    /// How many large objects there are in them.
    #[serde(default)]
    pub(crate) blobs_count: u64,
}

/// The data of one entry of the table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataFile {
    /// The entry; the file of the directory archive is `N.dat`.
    pub(crate) dump_id: i32,
    pub(crate) schema: String,
    pub(crate) table: String,
    /// Nothing if nobody counted them.
    #[serde(default)]
    pub(crate) rows: Option<u64>,
    /// The sum of all rows' xxh3-64, 16 hex digits: it does not depend on their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) row_hash: Option<String>,
    /// The pieces in their order. Only the last one holds the end mark `\.`.
    pub(crate) parts: Vec<Part>,
}

/// Where a piece of a data file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The artifact: `N.dat`, `N.dat.000`, or `tables.000.tar`, prefix included.
    pub(crate) artifact: String,
    /// Where it begins in the artifact's plain bytes; 0 unless it is a member of a tar.
    #[serde(default)]
    pub(crate) offset: u64,
    /// How many plain bytes it has. In a foreign archive that nobody measured it is nothing: then it is the whole
    /// artifact.
    #[serde(default)]
    pub(crate) bytes: Option<u64>,
}

impl Part {
    /// Where it ends in the artifact's plain bytes, if somebody measured it.
    pub(crate) fn end(&self) -> Option<u64> {
        self.bytes.map(|bytes| self.offset.saturating_add(bytes))
    }
}

impl Layout {
    /// Reads and checks `contents.json`.
    ///
    /// # Errors
    /// `NotFound` without one; `Unsupported` if a newer stackkit wrote it; `Integrity` if it can't be read.
    pub(crate) async fn read(source: &dyn ArtifactSource) -> Result<Self> {
        let name = ArtifactName::new(CONTENTS)?;
        if source.info(&name)?.plain_bytes > CONTENTS_BYTES_MAX {
            return Err(Error::integrity("the dump's contents.json is impossibly long"));
        }
        let mut text = Vec::new();
        let mut reader = source.open(&name).await?.take(CONTENTS_BYTES_MAX);
        let read = reader.read_to_end(&mut text).await;
        read.map_err(|e| e.downcast::<Error>().unwrap_or_else(|e| Error::io("read contents.json", e)))?;
        Self::parse(&text)
    }

    /// Reads the JSON.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let layout: Self = serde_json::from_slice(text)
            .map_err(|e| Error::integrity("the dump's contents.json can't be read").with_source(e))?;
        if layout.version > LAYOUT_VERSION {
            let error = Error::new(ErrorKind::Unsupported, "a newer stackkit wrote this dump");
            return Err(error.with_context("layout_version", layout.version));
        }
        Ok(layout)
    }

    /// The JSON.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::unexpected("contents.json can't be written").with_source(e))
    }

    /// The database of that name.
    ///
    /// # Errors
    /// `NotFound`, naming those that there are.
    pub(crate) fn database(&self, name: &str) -> Result<&DatabaseLayout> {
        self.databases.iter().find(|database| database.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.databases.iter().map(|database| database.name.as_str()).collect();
            Error::new(ErrorKind::NotFound, "the dump does not hold that database")
                .with_code(ABSENT)
                .with_context("database", name)
                .with_context("held", names.join(", "))
        })
    }
}

/// The code of an error about something that was asked for by name, and that a dump does not hold.
pub(crate) const ABSENT: &str = "postgres.dump.absent";

/// Whether a dump is of this layout, and not one archive.
pub(crate) fn is_layout(source: &dyn ArtifactSource) -> bool {
    source.artifacts().iter().any(|artifact| artifact.spec.format == formats::CONTENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_refuses_the_future() {
        let part = Part { artifact: "7.dat".into(), offset: 0, bytes: Some(12) };
        let file = DataFile {
            dump_id: 7,
            schema: "public".into(),
            table: "a\"b".into(),
            rows: Some(1),
            row_hash: None,
            parts: vec![part],
        };
        let database = DatabaseLayout {
            name: "shop".into(),
            prefix: String::new(),
            position: None,
            encoding: "UTF8".into(),
            tables: vec![file],
            blobs: Vec::new(),
            blobs_count: 0,
        };
        let mut layout = Layout {
            version: LAYOUT_VERSION,
            server_version: "15.18".into(),
            databases: vec![database],
            globals: false,
        };
        assert_eq!(Layout::parse(&layout.to_json().expect("JSON")).expect("a layout"), layout);
        assert!(layout.database("shop").is_ok());
        assert!(layout.database("x").expect_err("none").to_string().contains("shop"));
        layout.version += 1;
        let error = Layout::parse(&layout.to_json().expect("JSON")).expect_err("the future");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
