//! The frame index that closes an artifact: zstd's seekable format.
//!
//! Source: `contrib/seekable_format/zstd_seekable_compression_format.md` in zstd. All numbers are little-endian:
//! magic of a skippable frame, its size, for each frame its compressed and its plain size, then the footer: how many
//! frames, a descriptor byte, the magic of the format. `zstd -d` skips it.

use std::ops::Range;

use stackkit_core::{Error, Result};

/// The magic of skippable frame number 14, which the format uses.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;

/// The magic at the very end.
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

/// The descriptor of an index without checksums: the frames have their own.
const DESCRIPTOR: u8 = 0;

/// Magic and size of the skippable frame.
const HEADER_BYTES: usize = 8;

/// Compressed and plain size of one frame.
const ENTRY_BYTES: usize = 8;

/// Number of frames, descriptor, magic.
const FOOTER_BYTES: usize = 9;

/// The most frames that the format allows: 128 TiB of 1 MiB frames.
const FRAMES_MAX: usize = 0x0800_0000;

/// The sizes of an artifact's frames, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FrameIndex {
    sizes: Vec<(u32, u32)>,
}

/// Where one frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameSpan {
    /// Its compressed bytes, counted from the start of the first frame.
    pub(crate) stored: Range<u64>,
    /// Its bytes in the plain stream.
    pub(crate) plain: Range<u64>,
}

impl FrameSpan {
    /// How many plain bytes the frame holds.
    pub(crate) fn plain_bytes(&self) -> usize {
        usize::try_from(self.plain.end - self.plain.start).unwrap_or(usize::MAX)
    }
}

impl FrameIndex {
    /// Appends a frame.
    ///
    /// # Errors
    /// `Unsupported` if there are more frames, or larger ones, than the format can hold.
    pub(crate) fn push(&mut self, stored_bytes: usize, plain_bytes: usize) -> Result<()> {
        let sizes = (u32::try_from(stored_bytes), u32::try_from(plain_bytes));
        match sizes {
            (Ok(stored), Ok(plain)) if self.sizes.len() < FRAMES_MAX => {
                self.sizes.push((stored, plain));
                Ok(())
            }
            _ => Err(Error::new(
                stackkit_core::ErrorKind::Unsupported,
                "an artifact can't have more frames than zstd's seekable format allows",
            )
            .with_context("frames_max", FRAMES_MAX)),
        }
    }

    /// How many frames there are.
    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The size of an encoded index of `frames` frames.
    pub(crate) fn encoded_bytes(frames: u64) -> u64 {
        let fixed = (HEADER_BYTES + FOOTER_BYTES) as u64;
        frames.saturating_mul(ENTRY_BYTES as u64).saturating_add(fixed)
    }

    /// The index as the frame that closes an artifact.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // `push` keeps the number of frames far below what 32 bits hold.
        let frames = u32::try_from(self.sizes.len()).unwrap_or(u32::MAX);
        let content_bytes = self.sizes.len() * ENTRY_BYTES + FOOTER_BYTES;
        let mut out = Vec::with_capacity(HEADER_BYTES + content_bytes);
        out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        out.extend_from_slice(&u32::try_from(content_bytes).unwrap_or(u32::MAX).to_le_bytes());
        for (stored, plain) in &self.sizes {
            out.extend_from_slice(&stored.to_le_bytes());
            out.extend_from_slice(&plain.to_le_bytes());
        }
        out.extend_from_slice(&frames.to_le_bytes());
        out.push(DESCRIPTOR);
        out.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        out
    }

    /// Reads an encoded index.
    ///
    /// # Errors
    /// `Integrity` if the bytes are anything but exactly what [`encode`](Self::encode) writes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let body = bytes.len().checked_sub(HEADER_BYTES + FOOTER_BYTES).filter(|body| body % ENTRY_BYTES == 0);
        let Some(body) = body else {
            return Err(malformed());
        };
        let number = |word: &[u8]| word.iter().rev().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
        let (entries, _) = bytes[HEADER_BYTES..HEADER_BYTES + body].as_chunks::<ENTRY_BYTES>();
        let sizes = entries.iter().map(|entry| (number(&entry[..4]), number(&entry[4..]))).collect();
        let index = Self { sizes };
        if index.len() <= FRAMES_MAX && index.encode() == bytes { Ok(index) } else { Err(malformed()) }
    }

    /// The frames, in order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = FrameSpan> + '_ {
        self.sizes.iter().scan((0_u64, 0_u64), |(stored, plain), sizes| {
            let start = (*stored, *plain);
            *stored += u64::from(sizes.0);
            *plain += u64::from(sizes.1);
            Some(FrameSpan { stored: start.0..*stored, plain: start.1..*plain })
        })
    }

    /// The size of all frames together: stored, plain.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.sizes
            .iter()
            .fold((0, 0), |(stored, plain), sizes| (stored + u64::from(sizes.0), plain + u64::from(sizes.1)))
    }

    /// The size of the largest frame: stored, plain.
    pub(crate) fn largest(&self) -> (u32, u32) {
        self.sizes.iter().fold((0, 0), |(stored, plain), sizes| (stored.max(sizes.0), plain.max(sizes.1)))
    }
}

fn malformed() -> Error {
    Error::integrity("the frame index is damaged")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_index_is_the_bytes_of_the_specification() {
        let expected = [0x5E, 0x2A, 0x4D, 0x18, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0xB1, 0xEA, 0x92, 0x8F];
        assert_eq!(FrameIndex::default().encode(), expected);
    }

    #[test]
    fn spans_follow_each_other() {
        let mut index = FrameIndex::default();
        index.push(10, 100).unwrap();
        index.push(20, 50).unwrap();
        let spans: Vec<_> = index.spans().collect();
        assert_eq!(spans[1], FrameSpan { stored: 10..30, plain: 100..150 });
        assert_eq!(index.totals(), (30, 150));
        assert_eq!(index.largest(), (20, 100));
    }

    proptest! {
        #[test]
        fn every_index_survives_the_round_trip(sizes in prop::collection::vec((any::<u32>(), any::<u32>()), 0..64)) {
            let index = FrameIndex { sizes };
            let bytes = index.encode();
            prop_assert_eq!(u64::try_from(bytes.len()).unwrap(), FrameIndex::encoded_bytes(index.len() as u64));
            prop_assert_eq!(FrameIndex::decode(&bytes).unwrap(), index);
        }

        #[test]
        fn any_bytes_are_an_index_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(index) = FrameIndex::decode(&bytes) {
                prop_assert_eq!(index.encode(), bytes);
            }
        }

        #[test]
        fn cut_indexes_are_refused(frames in 0_usize..8, cut in 1_usize..8) {
            let bytes = FrameIndex { sizes: vec![(7, 9); frames] }.encode();
            prop_assert!(FrameIndex::decode(&bytes[..bytes.len() - cut]).is_err());
        }
    }
}
