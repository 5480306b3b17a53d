//! What the fuzzers in `fuzz/` call. Each function takes any bytes, and panics where a promise is broken.
#![allow(clippy::panic, reason = "a fuzzer is told by a panic that a promise is broken")]

use std::io::Cursor;
use std::ops::Range;

use stackkit_core::Result;
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, ArtifactSpec};
use tokio::io::AsyncReadExt;

use super::{Entry, Header, Input, as_layout, read, tar, write};
use crate::dump::{ARTIFACT, FORMAT};
use crate::layout::Layout;
use crate::sqltext::text::Text;

/// The most bytes that are read out of one artifact: a few compressed bytes can promise gigabytes.
const PLAIN_BYTES_MAX: u64 = 8 << 20;

/// An archive is refused, or its table of contents reads as the same again once it is written; its data is read, or
/// refused, in bounded memory; so is SQL text.
pub fn pg_archive(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 5 {
        0 => table_of_contents(rest),
        1 => data(rest),
        2 => drop(Layout::parse(rest)),
        4 => sql(rest),
        _ => rest.chunks(tar::BLOCK_BYTES).for_each(|block| drop(tar::parse(block))),
    }
}

fn table_of_contents(bytes: &[u8]) {
    let Some((header, entries)) = parse(bytes) else { return };
    // What the writer can't say it refuses.
    let Ok(written) = write::toc(&header, &entries) else { return };
    let again = parse(&written);
    let header = Header { int_bytes: 4, offset_bytes: 8, entries: entries.len() as u64, ..header };
    let same = |(read_header, read_entries): &(Header, Vec<Entry>)| {
        *read_header == header && read_entries.len() == entries.len()
    };
    assert!(again.as_ref().is_some_and(same), "an archive that was read is written as another");
}

fn parse(bytes: &[u8]) -> Option<(Header, Vec<Entry>)> {
    let (header, mut at) = read::header(bytes).ok()??;
    let mut entries = Vec::new();
    while (entries.len() as u64) < header.entries {
        let (entry, used) = read::entry(&header, bytes.get(at..)?).ok()??;
        entries.push(entry);
        at += used;
    }
    Some((header, entries))
}

/// SQL text is refused, or read to its end as statements and rows.
fn sql(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let text = Text::new(Input::new(Box::new(Cursor::new(bytes.to_vec())), 0));
    drop(runtime.block_on(text.check()));
}

/// One artifact in memory.
struct Memory {
    info: [ArtifactInfo; 1],
    bytes: Vec<u8>,
}

#[async_trait::async_trait]
impl ArtifactSource for Memory {
    fn artifacts(&self) -> &[ArtifactInfo] {
        &self.info
    }

    async fn open(&self, _name: &ArtifactName) -> Result<ArtifactReader> {
        Ok(Box::new(Cursor::new(self.bytes.clone())))
    }

    async fn open_range(&self, _name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        let range = usize::try_from(plain_bytes.start).unwrap_or(0)..usize::try_from(plain_bytes.end).unwrap_or(0);
        Ok(Box::new(Cursor::new(self.bytes.get(range).unwrap_or_default().to_vec())))
    }
}

fn data(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let Ok(name) = ArtifactName::new(ARTIFACT) else { return };
    let info = [ArtifactInfo::new(ArtifactSpec::new(name, FORMAT), bytes.len() as u64, "")];
    let memory = Memory { info, bytes: bytes.to_vec() };
    runtime.block_on(async {
        let Ok(layout_of) = as_layout(&memory).await else { return };
        let source = layout_of.source();
        for artifact in source.artifacts() {
            if let Ok(reader) = source.open(artifact.name()).await {
                drop(tokio::io::copy(&mut reader.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::pg_archive(&bytes);
        }

        #[test]
        fn no_sql_text_panics(text in "(COPY t FROM stdin;\n|[-;'\"$a-e\\\\*/() .\n]){0,60}") {
            super::pg_archive(format!("\u{4}{text}").as_bytes());
        }

        #[test]
        fn archives_with_some_bytes_changed_do_not_panic(
            (header, entries) in super::super::arbitrary::archive(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            for kind in [0, 1] {
                let mut bytes = vec![kind];
                bytes.extend(super::write::toc(&header, &entries).expect("bytes"));
                super::pg_archive(&bytes);
                let at = at.index(bytes.len());
                bytes[at] = byte;
                super::pg_archive(&bytes);
            }
        }
    }
}
