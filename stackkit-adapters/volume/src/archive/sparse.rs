//! The map of a sparse file in GNU's format 1.0: decimal numbers, one a line, in front of the data: how many extents,
//! then offset and length of each, filled up with NULs to whole blocks.

use super::{BLOCK_BYTES, EXTENTS_READ_MAX, Extent, Fault};

/// Appends the map of a file of `size` bytes. An empty extent at the end marks a hole there.
pub(super) fn encode_map(extents: &[Extent], size: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let end = extents.last().map_or(0, |last| last.offset + last.length);
    let closing = (end < size).then_some(Extent { offset: size, length: 0 });
    out.extend_from_slice(format!("{}\n", extents.len() + usize::from(closing.is_some())).as_bytes());
    for extent in extents.iter().chain(&closing) {
        out.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.length).as_bytes());
    }
    let length = (out.len() - start).next_multiple_of(BLOCK_BYTES);
    out.resize(start + length, 0);
}

/// Reads a map, block by block.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    number: Option<u64>,
    count: Option<u64>,
    offset: Option<u64>,
    extents: Vec<Extent>,
}

impl MapParser {
    /// Takes the next block; answers with the extents once the map is whole.
    pub(super) fn block(&mut self, block: &[u8], size: u64) -> Result<Option<Vec<Extent>>, Fault> {
        for byte in block {
            match byte {
                b'0'..=b'9' => self.digit(u64::from(byte - b'0'))?,
                b'\n' => self.line(size)?,
                _ => return Err(Fault::SparseMap),
            }
            if self.is_whole() {
                return Ok(Some(std::mem::take(&mut self.extents)));
            }
        }
        Ok(None)
    }

    fn digit(&mut self, digit: u64) -> Result<(), Fault> {
        let number = self.number.unwrap_or(0).checked_mul(10).and_then(|number| number.checked_add(digit));
        self.number = Some(number.ok_or(Fault::SparseMap)?);
        Ok(())
    }

    fn line(&mut self, size: u64) -> Result<(), Fault> {
        let number = self.number.take().ok_or(Fault::SparseMap)?;
        if self.count.is_none() {
            self.count = Some(number);
            let most = u64::try_from(EXTENTS_READ_MAX).unwrap_or(u64::MAX);
            return if number > most { Err(Fault::SparseTooFragmented) } else { Ok(()) };
        }
        let Some(offset) = self.offset.take() else {
            self.offset = Some(number);
            return Ok(());
        };
        let end = self.extents.last().map_or(0, |last| last.offset + last.length);
        let fits = offset >= end && offset.checked_add(number).is_some_and(|end| end <= size);
        self.extents.push(Extent { offset, length: number });
        if fits { Ok(()) } else { Err(Fault::SparseMap) }
    }

    fn is_whole(&self) -> bool {
        self.count.is_some_and(|count| u64::try_from(self.extents.len()).is_ok_and(|length| length == count))
    }
}
