//! Reads artifacts to their end as a restore would, without a server.

use stackkit_core::backup::{ArtifactInfo, ArtifactReader, Inspection};
use stackkit_core::{Census, Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::archive::tar::{self, BLOCK_BYTES};
use crate::archive::{self, Data, Input, TocStream};
use crate::dump::FORMAT;
use crate::layout::{Layout, formats};
use crate::restore::RowReader;
use crate::toc::Contents;

/// How much is read at a time; one buffer is all that is held.
const READ_BYTES: usize = 256 * 1024;

/// The longest `contents.json` that is read.
const CONTENTS_BYTES_MAX: u64 = 1 << 30;

/// How the data of a table ends: the end mark, and empty lines.
const END_LINES: &[u8; 5] = b"\\.\n\n\n";

/// What the names of large objects' files begin with.
const BLOB: &str = "blob_";

/// Refuses artifacts of another kind than an archive in one piece.
pub(crate) fn check_format(artifact: &ArtifactInfo) -> Result<()> {
    match artifact.spec.format == FORMAT {
        true => Ok(()),
        false => Err(foreign(artifact)),
    }
}

fn foreign(artifact: &ArtifactInfo) -> Error {
    let error = Error::new(ErrorKind::Unsupported, "the artifact is of no format that PostgreSQL's dumps have");
    error.with_context("artifact", artifact.name()).with_context("format", &artifact.spec.format)
}

/// Reads an artifact to its end and checks its structure.
pub(crate) async fn inspect(artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
    let inspected = match artifact.spec.format.as_str() {
        FORMAT | formats::TOC => archive(data).await,
        formats::CONTENTS => contents(data).await,
        formats::ROWS => rows(artifact.name().as_str(), data).await,
        formats::FILES => files(data).await,
        formats::BLOBS_TOC | formats::SQL => lines(data).await,
        _ => return Err(foreign(artifact)),
    };
    inspected.map_err(|error| error.with_context("artifact", artifact.name()))
}

/// A table of contents, and the data behind it in an archive in one piece.
async fn archive(data: ArtifactReader) -> Result<Inspection> {
    let mut toc = TocStream::open(Input::new(data, 0)).await?;
    let header = toc.header().clone();
    let mut contents = Contents::of(&header, std::iter::empty());
    let mut with_data = Vec::new();
    while let Some(entry) = toc.next().await? {
        if matches!(entry.data, Data::Offset { state, .. } if state != archive::NO_DATA) && entry.has_data {
            with_data.push(entry.dump_id);
        }
        contents.note(&entry);
    }
    let places = archive::scan(toc.into_input(), header.int_bytes, None).await?;
    if let Some(id) = with_data.iter().find(|id| !places.contains_key(id)) {
        return Err(Error::integrity("the archive lacks the data of an entry").with_context("toc_id", id));
    }
    Ok(Inspection::new(header.entries).with_census(contents.kinds))
}

async fn contents(data: ArtifactReader) -> Result<Inspection> {
    let mut text = Vec::new();
    data.take(CONTENTS_BYTES_MAX).read_to_end(&mut text).await.map_err(broken)?;
    let layout = Layout::parse(&text)?;
    let tables = layout.databases.iter().map(|database| database.tables.len()).sum::<usize>();
    let blobs = layout.databases.iter().map(|database| database.blobs_count).sum();
    let tables = u64::try_from(tables).unwrap_or(u64::MAX);
    let census = Census::new().with_count("tables", tables).with_count("large_objects", blobs);
    Ok(Inspection::new(tables).with_census(census))
}

/// The rows of one table, or of a part of it: only the last part ends with the end mark, which is a line of its own.
async fn rows(name: &str, data: ArtifactReader) -> Result<Inspection> {
    let rows = count(data, name.ends_with(".dat")).await?;
    Ok(Inspection::new(rows).with_census(Census::new().with_count("rows", rows)))
}

/// Counts the rows of a data file. Where `has_end` is false an end mark at the end is no fault, and no row.
async fn count(data: impl AsyncRead + Unpin, has_end: bool) -> Result<u64> {
    let mut data = RowReader::new(data, has_end);
    let mut buffer = vec![0; READ_BYTES];
    let mut tail = [0; END_LINES.len()];
    let mut rows = 0;
    loop {
        let read = data.read(&mut buffer).await.map_err(broken)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        rows += u64::try_from(piece.iter().filter(|byte| **byte == b'\n').count()).unwrap_or_default();
        let joined = [tail.as_slice(), piece].concat();
        tail.copy_from_slice(&joined[joined.len() - END_LINES.len()..]);
    }
    match (tail.ends_with(b"\n"), tail == *END_LINES) {
        (true, true) => Ok(rows - 3),
        (true, false) => Ok(rows),
        (false, _) if tail == [0; END_LINES.len()] => Ok(0),
        _ => Err(Error::integrity("the last row of a table is cut")),
    }
}

/// An archive of data files of tables, or of large objects.
async fn files(mut data: ArtifactReader) -> Result<Inspection> {
    let mut census = Census::new();
    let mut members = 0;
    loop {
        let mut block = [0; BLOCK_BYTES];
        data.read_exact(&mut block).await.map_err(broken)?;
        let Some((name, size)) = tar::parse(&block)? else { break };
        let mut member = (&mut data).take(size);
        if name.starts_with(BLOB) {
            tokio::io::copy(&mut member, &mut tokio::io::sink()).await.map_err(broken)?;
            census.add("large_objects", 1);
        } else {
            let counted = count(&mut member, true).await.map_err(|error| error.with_context("file", &name));
            census.add("rows", counted?);
        }
        if member.limit() > 0 {
            return Err(Error::integrity("an archive of files is cut"));
        }
        let mut padding = vec![0; tar::padding(size)];
        data.read_exact(&mut padding).await.map_err(broken)?;
        members += 1;
    }
    // Two empty blocks end an archive, and only whole blocks follow.
    let mut block = [0; BLOCK_BYTES];
    data.read_exact(&mut block).await.map_err(broken)?;
    let rest = tokio::io::copy(&mut data, &mut tokio::io::sink()).await.map_err(broken)?;
    if !rest.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(Error::integrity("an archive of files is cut"));
    }
    Ok(Inspection::new(members).with_census(census))
}

async fn lines(mut data: ArtifactReader) -> Result<Inspection> {
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = 0;
    loop {
        let read = data.read(&mut buffer).await.map_err(broken)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() {
            return Ok(Inspection::new(lines));
        }
        lines += u64::try_from(piece.iter().filter(|byte| **byte == b'\n').count()).unwrap_or_default();
    }
}

/// The storage's own error travels inside that of the reader.
fn broken(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::integrity("an artifact ends too early"),
        _ => error.downcast::<Error>().unwrap_or_else(|error| Error::io("read the artifact", error)),
    }
}
