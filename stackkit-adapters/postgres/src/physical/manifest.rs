//! `backup_manifest`, read line by line: the server writes one file on one line
//! (`AddFileToBackupManifest` in `backup/backup_manifest.c`), so that a list of a million files is never held.

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use stackkit_core::{Error, ErrorKind, Result};

use crate::physical::lsn::Lsn;

/// The longest line: a path of 4 KiB, six bytes each when escaped, and the rest of the entry.
const LINE_BYTES_MAX: usize = 32 * 1024;

/// How the last line begins; all before it is under its checksum.
const LAST_LINE: &[u8] = b"\"Manifest-Checksum\"";

/// What the manifest says of one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: Vec<u8>,
    pub(crate) size_bytes: u64,
    pub(crate) crc32c: u32,
}

/// A stretch of WAL that recovery needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WalRange {
    pub(crate) timeline: u32,
    #[serde(rename = "Start-LSN")]
    pub(crate) start: Lsn,
    #[serde(rename = "End-LSN")]
    pub(crate) end: Lsn,
}

/// One line of `Files`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FileLine {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    checksum: Option<String>,
}

/// The last line, as an object.
#[derive(Deserialize)]
struct LastLine {
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

/// Takes a manifest in pieces and tells each file to a closure.
pub(crate) struct ManifestReader {
    line: Vec<u8>,
    digest: Context,
    ranges: Vec<WalRange>,
    /// An algorithm that is not read; told only when the manifest's own checksum has shown that it is no damage.
    foreign: Option<String>,
    is_complete: bool,
}

impl Default for ManifestReader {
    fn default() -> Self {
        Self { line: Vec::new(), digest: Context::new(&SHA256), ranges: Vec::new(), foreign: None, is_complete: false }
    }
}

impl ManifestReader {
    pub(crate) fn push(&mut self, bytes: &[u8], listed: &mut impl FnMut(Listed) -> Result<()>) -> Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() > LINE_BYTES_MAX {
                return Err(damaged("a line is too long"));
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.line(&line, listed)?;
            }
        }
        Ok(())
    }

    /// The WAL that recovery needs, if the manifest is whole.
    pub(crate) fn finish(self) -> Result<Vec<WalRange>> {
        match self.is_complete && self.line.is_empty() && !self.ranges.is_empty() {
            true => Ok(self.ranges),
            false => Err(damaged("it is not whole")),
        }
    }

    fn line(&mut self, line: &[u8], listed: &mut impl FnMut(Listed) -> Result<()>) -> Result<()> {
        if self.is_complete {
            return Err(damaged("something follows its checksum"));
        }
        if line.starts_with(LAST_LINE) {
            self.is_complete = true;
            return self.check(line);
        }
        self.digest.update(line);
        let object = line.trim_ascii_end();
        let object = object.strip_suffix(b",").unwrap_or(object);
        if object.starts_with(b"{ \"Path\"") || object.starts_with(b"{ \"Encoded-Path\"") {
            let file = serde_json::from_slice(object).map_err(|e| damaged("the entry of a file").with_source(e))?;
            match entry(file)? {
                Ok(file) => listed(file)?,
                Err(algorithm) => self.foreign = Some(algorithm),
            }
        } else if object.starts_with(b"{ \"Timeline\"") {
            let range = serde_json::from_slice(object).map_err(|e| damaged("a range of WAL").with_source(e))?;
            self.ranges.push(range);
        }
        Ok(())
    }

    fn check(&self, line: &[u8]) -> Result<()> {
        let object = [b"{", line].concat();
        let last: LastLine =
            serde_json::from_slice(&object).map_err(|e| damaged("the line of its checksum").with_source(e))?;
        let found = self.digest.clone().finish();
        let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != last.checksum {
            return Err(damaged("its own checksum"));
        }
        let Some(algorithm) = &self.foreign else { return Ok(()) };
        let message = "only CRC32C checksums of a backup manifest are read";
        Err(Error::new(ErrorKind::Unsupported, message).with_context("found", algorithm))
    }
}

fn damaged(what: &str) -> Error {
    Error::integrity("backup_manifest is damaged").with_context("what", what)
}

/// The file of a line, or the algorithm of its checksum where that is not read.
fn entry(line: FileLine) -> Result<Result<Listed, String>> {
    let path = match (line.path, line.encoded_path) {
        (Some(path), None) => path.into_bytes(),
        (None, Some(hex)) => unhex(&hex).ok_or_else(|| damaged("an encoded path"))?,
        _ => return Err(damaged("the path of a file")),
    };
    if line.algorithm.as_deref() != Some("CRC32C") {
        return Ok(Err(line.algorithm.unwrap_or_else(|| "none".to_owned())));
    }
    // The four bytes of the sum in the order of a little-endian machine, which all supported ones are.
    let bytes = line.checksum.as_deref().and_then(unhex).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let crc32c = bytes.map(u32::from_le_bytes).ok_or_else(|| damaged("the checksum of a file"))?;
    Ok(Ok(Listed { path, size_bytes: line.size, crc32c }))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect::<Option<_>>())?
}

/// Manifests for the tests of all who read them.
#[cfg(test)]
pub(crate) mod build {
    use super::*;

    /// The last line that makes `start` whole.
    pub(crate) fn seal(start: &str) -> String {
        let digest = ring::digest::digest(&SHA256, start.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{start}\"Manifest-Checksum\": \"{hex}\"}}\n")
    }

    /// A manifest of these files, one segment of WAL.
    pub(crate) fn manifest(files: &[(&str, &[u8])]) -> String {
        let line = |(path, content): &(&str, &[u8])| {
            let mut sum = crate::physical::crc32c::Crc32c::default();
            sum.update(content);
            let hex: String = sum.value().to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"2026-11-21 22:07:30 GMT\", \
                 \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{hex}\" }}",
                content.len()
            )
        };
        let lines: Vec<String> = files.iter().map(line).collect();
        seal(&format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n\
             {{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n",
            lines.join(",\n")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::build::{manifest, seal};
    use super::*;

    fn read(text: &str, piece: usize) -> Result<(Vec<Listed>, Vec<WalRange>)> {
        let mut reader = ManifestReader::default();
        let mut files = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            reader.push(piece, &mut |file| {
                files.push(file);
                Ok(())
            })?;
        }
        Ok((files, reader.finish()?))
    }

    #[test]
    fn files_and_ranges_are_read_from_pieces_of_any_size() {
        let text = manifest(&[("base/1/2", b"123456789"), ("a", b"")]);
        for piece in [1, 7, 4096] {
            let (files, ranges) = read(&text, piece).expect("a manifest");
            let first = Listed { path: b"base/1/2".to_vec(), size_bytes: 9, crc32c: 0xE306_9283 };
            assert_eq!((files.len(), &files[0]), (2, &first));
            assert_eq!((ranges.len(), ranges[0].timeline), (1, 1));
        }
    }

    #[test]
    fn a_cut_or_changed_manifest_is_refused() {
        let text = manifest(&[("a", b"x")]);
        assert!(read(&text[..text.len() - 1], 100).is_err());
        assert!(read(&text.replace("\"a\"", "\"b\""), 100).is_err());
        assert!(read(&text.replace("\"Size\": 1", "\"Size\": 2"), 100).is_err());
        assert!(read("", 100).is_err());
    }

    #[test]
    fn paths_that_are_no_text_and_other_checksums() {
        let line = "{ \"Encoded-Path\": \"ff61\", \"Size\": 0, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n";
        let range = "{ \"Timeline\": 1, \"Start-LSN\": \"0/1\", \"End-LSN\": \"0/2\" }\n";
        let (files, _ranges) = read(&seal(&format!("{line}{range}")), 100).expect("a manifest");
        assert_eq!(files[0].path, b"\xFFa");
        let other = line.replace("CRC32C", "SHA256");
        let error = read(&seal(&format!("{other}{range}")), 100).expect_err("another algorithm");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let flipped = seal(&format!("{line}{range}")).replace("CRC32C", "CRC32S");
        assert_eq!(read(&flipped, 100).expect_err("damage").kind(), ErrorKind::Integrity);
    }
}
