//! Large objects of a foreign archive as a tar file. Their sizes, which stand before their bytes in it, are counted once.

use std::sync::Arc;

use bytes::Bytes;
use stackkit_core::{Error, Result};

use super::Compression;
use super::custom;
use super::data::Data;
use super::input::{Input, Pieces, cut};
use super::place::Folder;
use super::tar;

/// How many large objects are believed in one archive: 16 bytes are kept for each.
const BLOBS_MAX: usize = 100_000_000;

/// The longest line of a list of large objects: two numbers and a few letters.
const LINE_BYTES_MAX: usize = 128;

/// Numbers and sizes.
pub(super) type Sizes = Arc<[(u32, u64)]>;

/// The large objects of one entry, one after the other.
pub(super) enum Blobs {
    /// Of a custom archive: the stream stands before the number of the next one.
    Custom { input: Option<Input>, int_bytes: usize, compression: Compression },
    /// Files.
    Folder { folder: Arc<Folder>, numbers: std::vec::IntoIter<u32> },
}

impl Blobs {
    /// Those of a custom archive; `input` stands where the entry's data begins.
    pub(super) async fn custom(mut input: Input, id: i32, header: &super::Header) -> Result<Self> {
        match custom::head(&mut input, header.int_bytes).await? {
            Some((custom::Block::Blobs, found)) if found == id => {}
            _ => return Err(elsewhere(id)),
        }
        Ok(Self::Custom { input: Some(input), int_bytes: header.int_bytes, compression: header.compression })
    }

    /// The next one; nothing behind the last.
    async fn next(&mut self) -> Result<Option<(u32, Data)>> {
        match self {
            Self::Custom { input, int_bytes, compression } => {
                let Some(mut stream) = input.take() else { return Ok(None) };
                let number = stream.int(*int_bytes).await?;
                match number {
                    0 => Ok(None),
                    _ => Ok(Some((number, Data::of_blocks(stream, *int_bytes, *compression)?))),
                }
            }
            Self::Folder { folder, numbers } => match numbers.next() {
                Some(number) => Ok(Some((number, folder.open(&file_name(number)).await?))),
                None => Ok(None),
            },
        }
    }

    /// Gives the stream back, behind one that was read to its end.
    fn give_back(&mut self, data: Data) {
        if let Self::Custom { input, .. } = self {
            *input = Some(data.into_input());
        }
    }

    /// Numbers and sizes of all, by reading them.
    pub(super) async fn measure(mut self) -> Result<Sizes> {
        let mut sizes = Vec::new();
        while let Some((number, mut data)) = self.next().await? {
            sizes.push((number, data.measure().await?));
            check_count(sizes.len())?;
            self.give_back(data);
        }
        Ok(sizes.into())
    }
}

/// There is other data where an entry's must begin.
pub(super) fn elsewhere(id: i32) -> Error {
    Error::integrity("the archive's data is not where its table of contents says").with_context("entry", id)
}

fn check_count(count: usize) -> Result<()> {
    match count > BLOBS_MAX {
        true => Err(Error::integrity("the archive has impossibly many large objects")),
        false => Ok(()),
    }
}

/// The name of a large object's file.
pub(super) fn file_name(number: u32) -> String {
    format!("blob_{number}.dat")
}

/// Reads the list of a folder's large objects, and their sizes: of plain files the file's, else counted.
pub(super) async fn sizes_of_folder(folder: &Folder, name: &str) -> Result<Sizes> {
    let (mut data, mut list) = (folder.open(name).await?, List::default());
    while let Some(piece) = data.next().await? {
        list.push(&piece)?;
    }
    let mut sizes = Vec::new();
    for number in list.finish()? {
        sizes.push((number, size_of(folder, number).await?));
    }
    Ok(sizes.into())
}

/// A list of large objects, read piece by piece.
#[derive(Debug, Default)]
pub(crate) struct List {
    numbers: Vec<u32>,
    line: Vec<u8>,
}

impl List {
    /// Reads on.
    ///
    /// # Errors
    /// `Integrity` if it is damaged.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<()> {
        for byte in piece {
            if *byte != b'\n' {
                self.line.push(*byte);
                check_line(&self.line)?;
                continue;
            }
            self.numbers.push(number_of(&self.line)?);
            self.line.clear();
            check_count(self.numbers.len())?;
        }
        Ok(())
    }

    /// The numbers that it names.
    ///
    /// # Errors
    /// `Integrity` if it is cut, or empty: without large objects there is no list.
    pub(crate) fn finish(self) -> Result<Vec<u32>> {
        match self.line.is_empty() && !self.numbers.is_empty() {
            true => Ok(self.numbers),
            false => Err(bad_list()),
        }
    }
}

fn check_line(line: &[u8]) -> Result<()> {
    if line.len() > LINE_BYTES_MAX { Err(bad_list()) } else { Ok(()) }
}

async fn size_of(folder: &Folder, number: u32) -> Result<u64> {
    let name = file_name(number);
    match folder.plain_bytes(&name).await? {
        Some(bytes) => Ok(bytes),
        None => folder.open(&name).await?.measure().await,
    }
}

/// `16403 blob_16403.dat`.
fn number_of(line: &[u8]) -> Result<u32> {
    let text = std::str::from_utf8(line).map_err(|_not_utf8| bad_list())?;
    let (number, name) = text.split_once(' ').ok_or_else(bad_list)?;
    let number = number.parse().map_err(|_no_number| bad_list())?;
    match name == file_name(number) {
        true => Ok(number),
        false => Err(bad_list()),
    }
}

fn bad_list() -> Error {
    Error::integrity("the archive's list of large objects is damaged")
}

/// The list that the vendor keeps beside the files.
pub(super) fn list(sizes: &[(u32, u64)]) -> Bytes {
    let lines: Vec<String> = sizes.iter().map(|(number, _)| format!("{number} {}\n", file_name(*number))).collect();
    lines.concat().into()
}

/// How long the tar file is.
pub(super) fn tar_bytes(sizes: &[(u32, u64)]) -> u64 {
    let block = tar::BLOCK_BYTES as u64;
    let member = |bytes: u64| bytes.saturating_add(tar::padding(bytes) as u64).saturating_add(block);
    sizes.iter().fold(2 * block, |sum, (_, bytes)| sum.saturating_add(member(*bytes)))
}

/// The tar file.
pub(super) struct BlobTar {
    blobs: Blobs,
    sizes: Sizes,
    /// How many were begun.
    begun: usize,
    /// The one under way, and how many bytes of it are left.
    current: Option<(Data, u64)>,
    is_ended: bool,
}

impl BlobTar {
    pub(super) fn new(blobs: Blobs, sizes: Sizes) -> Self {
        Self { blobs, sizes, begun: 0, current: None, is_ended: false }
    }

    /// The header of the next one, or the mark of the end.
    async fn begin(&mut self) -> Result<Bytes> {
        let expected = self.sizes.get(self.begun).copied();
        match (self.blobs.next().await?, expected) {
            (Some((number, data)), Some((wanted, bytes))) if number == wanted => {
                self.begun += 1;
                self.current = Some((data, bytes));
                Ok(Bytes::copy_from_slice(&tar::header(&file_name(number), bytes)?))
            }
            (None, None) => {
                self.is_ended = true;
                Ok(Bytes::from_static(&[0; 2 * tar::BLOCK_BYTES]))
            }
            _ => Err(changed()),
        }
    }
}

fn changed() -> Error {
    Error::integrity("the archive's large objects changed while it was read")
}

impl Pieces for BlobTar {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.is_ended {
            let Some((data, left)) = &mut self.current else { return self.begin().await.map(Some) };
            if let Some(piece) = data.next().await? {
                *left = left.checked_sub(piece.len() as u64).ok_or_else(changed)?;
                return Ok(Some(piece));
            }
            let Some((data, left)) = self.current.take() else { return Err(cut()) };
            if left > 0 {
                return Err(changed());
            }
            self.blobs.give_back(data);
            let bytes = self.begun.checked_sub(1).and_then(|last| self.sizes.get(last)).map_or(0, |(_, bytes)| *bytes);
            let padding = tar::padding(bytes);
            if padding > 0 {
                return Ok(Some(Bytes::from_static(&[0; tar::BLOCK_BYTES]).slice(..padding)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], at_once: usize) -> Result<Vec<u32>> {
        let mut list = List::default();
        for piece in bytes.chunks(at_once) {
            list.push(piece)?;
        }
        list.finish()
    }

    #[test]
    fn damaged_lists_are_told() {
        for text in
            ["", "1 blob_1.dat", "1 blob_2.dat\n", "x blob_x.dat\n", "1\n", "\n", &"1".repeat(LINE_BYTES_MAX + 1)]
        {
            assert_eq!(read(text.as_bytes(), 7).expect_err(text).kind(), stackkit_core::ErrorKind::Integrity, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_written(numbers in proptest::collection::vec(any::<u32>(), 1..50), at_once in 1usize..100) {
            let sizes: Vec<(u32, u64)> = numbers.iter().map(|number| (*number, 0)).collect();
            prop_assert_eq!(read(&list(&sizes), at_once).expect("a list"), numbers);
        }
    }
}
