//! Reads archives: their head for plans, the whole of them for verification, and into `pg_restore`.

use bytes::{Bytes, BytesMut};
use stackkit_core::backup::{ArtifactInfo, Inspection};
use stackkit_core::process::Child;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::archive::Header;
use crate::config::PostgresConfig;
use crate::dump::FORMAT;
use crate::toc::{Contents, TocReader};
use crate::tools::{self, Version};

/// How much is moved between an artifact and a tool at a time; one buffer is all that is held.
const COPY_BYTES: usize = 256 * 1024;

/// `pg_restore` from here on reads every archive that names no other.
const VERSION_OLDEST: Version = Version(90_000);

/// Refuses artifacts of another kind.
pub(crate) fn check_format(artifact: &ArtifactInfo) -> Result<()> {
    if artifact.spec.format == FORMAT {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "the artifact is not a custom archive of pg_dump");
    Err(error.with_context("artifact", artifact.name()).with_context("format", &artifact.spec.format))
}

/// Reads as much of an archive as its table of contents takes.
pub(crate) async fn contents(mut data: impl AsyncRead + Unpin) -> Result<Contents> {
    let mut toc = TocReader::default();
    while !toc.is_complete() {
        let chunk = read(&mut data).await?;
        if chunk.is_empty() {
            break;
        }
        toc.push(&chunk)?;
    }
    toc.finish()
}

/// Lets `pg_restore` turn a whole archive into SQL that nobody keeps.
pub(crate) async fn inspect(
    config: &PostgresConfig,
    artifact: &ArtifactInfo,
    mut data: impl AsyncRead + Unpin,
) -> Result<Inspection> {
    check_format(artifact)?;
    let mut toc = TocReader::default();
    let mut head = BytesMut::new();
    while toc.header().is_none() {
        let chunk = read(&mut data).await?;
        if chunk.is_empty() {
            break;
        }
        toc.push(&chunk)?;
        head.extend_from_slice(&chunk);
    }
    let Some(need) = toc.header().map(reader_of) else {
        return Err(toc.finish().err().unwrap_or_else(|| Error::integrity("the archive has no header")));
    };
    let tool = tools::find("pg_restore", config, need).await?;
    let child = tool.offline().args(["--format=custom", "--file=/dev/null"]).stdin_piped().spawn()?;
    let stderr =
        feed(child, head.freeze(), data, |chunk| toc.push(chunk)).await.map_err(|error| match error.kind() {
            ErrorKind::ToolFailed => error.with_kind(ErrorKind::Integrity).with_context("artifact", artifact.name()),
            _ => error,
        })?;
    let contents = toc.finish()?;
    Ok(Inspection::new(contents.header.entries).with_census(contents.kinds).with_warnings(tools::lines(&stderr)))
}

/// The oldest `pg_restore` that surely reads an archive: that of the `pg_dump` which wrote it.
pub(crate) fn reader_of(header: &Header) -> Version {
    header.pg_dump.unwrap_or(VERSION_OLDEST)
}

/// Writes `head` and the rest of `data` to the child, showing each piece of `data` to `look`, reads `data` to its end,
/// and waits for the child. Gives what the child wrote to standard error.
///
/// A child that stops reading says why by its exit status, so a broken pipe is no error of its own; an error of `data`
/// goes first, because it explains the child's.
pub(crate) async fn feed(
    mut child: Child,
    head: Bytes,
    mut data: impl AsyncRead + Unpin,
    mut look: impl FnMut(&[u8]) -> Result<()>,
) -> Result<String> {
    let mut stdin = child.take_stdin();
    let mut chunk = head;
    loop {
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&chunk).await.is_err()
        {
            stdin = None;
        }
        chunk = read(&mut data).await?;
        if chunk.is_empty() {
            break;
        }
        look(&chunk)?;
    }
    drop(stdin);
    child.wait().await
}

/// The next piece; empty at the end. The storage's own error travels inside that of the reader.
async fn read(data: &mut (impl AsyncRead + Unpin)) -> Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(COPY_BYTES);
    match data.read_buf(&mut buffer).await {
        Ok(_count) => Ok(buffer.freeze()),
        Err(error) => Err(error.downcast::<Error>().unwrap_or_else(|error| Error::io("read the artifact", error))),
    }
}
