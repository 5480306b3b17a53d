//! Frames of lz4, block by block: the codec's own reader wants to pull, and here bytes are pushed.
//!
//! Format: `lz4_Frame_format.md` of the lz4 project, version 1.6.

use bytes::{Buf, BytesMut};
use stackkit_core::{Error, ErrorKind, Result};
use xxhash_rust::xxh32::{Xxh32, xxh32};

use super::damaged;

/// What a frame begins with, and what a frame to skip does, but for its last four bits.
const MAGIC: u32 = 0x184D_2204;
const MAGIC_SKIPPABLE: u32 = 0x184D_2A50;

/// The bits of the descriptor.
const LINKED_IF_0: u8 = 0x20;
const HAS_BLOCK_CHECKSUMS: u8 = 0x10;
const HAS_SIZE: u8 = 0x08;
const HAS_CHECKSUM: u8 = 0x04;
const HAS_DICTIONARY: u8 = 0x01;

/// The bit of a block's length which says that it is not compressed.
const STORED: u32 = 1 << 31;

/// How far back a block may refer.
const WINDOW_BYTES: usize = 64 * 1024;

/// A sequence of frames.
#[derive(Default)]
pub(super) struct Frames {
    state: State,
    /// The end of what came before, for blocks that refer to it.
    window: Vec<u8>,
    checksum: Xxh32,
}

#[derive(Default)]
enum State {
    /// Before the first frame.
    #[default]
    Start,
    Blocks(Descriptor),
    /// So many bytes of a frame that is not for us are left.
    Skip(u32),
    /// Behind a frame.
    Between,
}

#[derive(Clone, Copy)]
struct Descriptor {
    flags: u8,
    block_bytes_max: usize,
}

impl Frames {
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// Reads a descriptor or a block, if it is whole.
    pub(super) fn step(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<()> {
        match self.state {
            State::Start | State::Between => self.descriptor(input),
            State::Blocks(descriptor) => self.block(descriptor, input, output),
            State::Skip(left) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                input.advance(count);
                let left = left.saturating_sub(u32::try_from(count).unwrap_or(left));
                self.state = if left == 0 { State::Between } else { State::Skip(left) };
                Ok(())
            }
        }
    }

    fn descriptor(&mut self, input: &mut BytesMut) -> Result<()> {
        let Some(magic) = number(input, 0) else { return Ok(()) };
        if magic & !0xF == MAGIC_SKIPPABLE {
            let Some(length) = number(input, 4) else { return Ok(()) };
            input.advance(8);
            self.state = if length == 0 { State::Between } else { State::Skip(length) };
            return Ok(());
        }
        if magic != MAGIC {
            return Err(damaged());
        }
        let Some(flags) = input.get(4).copied() else { return Ok(()) };
        if flags & HAS_DICTIONARY != 0 {
            return Err(Error::new(ErrorKind::Unsupported, "the archive's data needs a dictionary of lz4"));
        }
        let length = 2 + if flags & HAS_SIZE == 0 { 0 } else { 8 };
        let (Some(descriptor), Some(check)) = (input.get(4..4 + length), input.get(4 + length)) else { return Ok(()) };
        let [_, expected, ..] = xxh32(descriptor, 0).to_le_bytes();
        let block_bytes_max = match descriptor.get(1).map(|byte| byte >> 4 & 7) {
            Some(4) => 64 << 10,
            Some(5) => 256 << 10,
            Some(6) => 1 << 20,
            Some(7) => 4 << 20,
            _ => return Err(damaged()),
        };
        // The version of the format is 1.
        if flags >> 6 != 1 || *check != expected {
            return Err(damaged());
        }
        input.advance(4 + length + 1);
        self.window.clear();
        self.checksum = Xxh32::new(0);
        self.state = State::Blocks(Descriptor { flags, block_bytes_max });
        Ok(())
    }

    fn block(&mut self, descriptor: Descriptor, input: &mut BytesMut, output: &mut BytesMut) -> Result<()> {
        let Some(length) = number(input, 0) else { return Ok(()) };
        if length == 0 {
            return self.end(descriptor, input);
        }
        let bytes = usize::try_from(length & !STORED).map_err(|_too_long| damaged())?;
        if bytes > descriptor.block_bytes_max {
            return Err(damaged());
        }
        let has_checksum = descriptor.flags & HAS_BLOCK_CHECKSUMS != 0;
        let whole = 4 + bytes + if has_checksum { 4 } else { 0 };
        if input.len() < whole {
            return Ok(());
        }
        let block = input.split_to(whole);
        let data = &block[4..4 + bytes];
        if has_checksum && number(&block, 4 + bytes) != Some(xxh32(data, 0)) {
            return Err(damaged());
        }
        let start = output.len();
        if length & STORED != 0 {
            output.extend_from_slice(data);
        } else {
            output.resize(start + descriptor.block_bytes_max, 0);
            let unpacked = lz4_flex::block::decompress_into_with_dict(data, &mut output[start..], &self.window);
            output.truncate(start + unpacked.map_err(|error| damaged().with_source(error))?);
        }
        self.checksum.update(&output[start..]);
        if descriptor.flags & LINKED_IF_0 == 0 {
            self.remember(&output[start..]);
        }
        Ok(())
    }

    fn end(&mut self, descriptor: Descriptor, input: &mut BytesMut) -> Result<()> {
        let mut whole = 4;
        if descriptor.flags & HAS_CHECKSUM != 0 {
            let Some(expected) = number(input, 4) else { return Ok(()) };
            if expected != self.checksum.digest() {
                return Err(damaged());
            }
            whole += 4;
        }
        input.advance(whole);
        self.state = State::Between;
        Ok(())
    }

    /// Keeps the end of what was unpacked.
    fn remember(&mut self, unpacked: &[u8]) {
        let new = &unpacked[unpacked.len().saturating_sub(WINDOW_BYTES)..];
        let old = (self.window.len() + new.len()).saturating_sub(WINDOW_BYTES);
        self.window.drain(..old);
        self.window.extend_from_slice(new);
    }
}

/// Four bytes at `at`, little-endian.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}
