//! The data of one entry, decompressed piece by piece.

use bytes::{Bytes, BytesMut};
use stackkit_core::{Error, Result};

use super::Compression;
use super::codec::{Decoder, Framing};
use super::input::{Input, PIECE_BYTES, Pieces, cut};

/// Where the stored bytes come from.
enum Raw {
    /// A file or the member of one, of which so many bytes are left.
    File { left: u64 },
    /// Blocks of a custom archive: so many bytes of one are left; nothing behind the last one.
    Blocks { int_bytes: usize, left: Option<u64> },
}

/// One stream of data.
pub(super) struct Data {
    input: Input,
    raw: Raw,
    decoder: Decoder,
    stored: BytesMut,
    is_ended: bool,
}

impl Data {
    /// A file, from where `input` stands; `bytes` is how long it is.
    pub(super) fn of_file(input: Input, bytes: u64, compression: Compression) -> Result<Self> {
        Self::new(input, Raw::File { left: bytes }, Decoder::new(compression, Framing::File)?)
    }

    /// Blocks, the first of which begins where `input` stands.
    pub(super) fn of_blocks(input: Input, int_bytes: usize, compression: Compression) -> Result<Self> {
        let raw = Raw::Blocks { int_bytes, left: Some(0) };
        Self::new(input, raw, Decoder::new(compression, Framing::Blocks)?)
    }

    #[expect(clippy::unnecessary_wraps, reason = "both ways to make one can fail")]
    fn new(input: Input, raw: Raw, decoder: Decoder) -> Result<Self> {
        Ok(Self { input, raw, decoder, stored: BytesMut::new(), is_ended: false })
    }

    /// What follows the data, once all of it was read.
    pub(super) fn into_input(self) -> Input {
        self.input
    }

    /// How many bytes are left to its end.
    pub(super) async fn measure(&mut self) -> Result<u64> {
        let mut bytes = 0;
        while let Some(piece) = self.next().await? {
            bytes += piece.len() as u64;
        }
        Ok(bytes)
    }

    /// The next stored bytes; nothing at the end.
    async fn stored(&mut self) -> Result<Option<Bytes>> {
        match &mut self.raw {
            Raw::File { left: 0 } => Ok(None),
            Raw::File { left } => {
                let piece = self.input.piece(*left).await?.ok_or_else(cut)?;
                *left -= piece.len() as u64;
                Ok(Some(piece))
            }
            Raw::Blocks { int_bytes, left } => {
                if *left == Some(0) {
                    *left = Some(block_length(&mut self.input, *int_bytes).await?).filter(|length| *length > 0);
                }
                let Some(left) = left else { return Ok(None) };
                let piece = self.input.piece(*left).await?.ok_or_else(cut)?;
                *left -= piece.len() as u64;
                Ok(Some(piece))
            }
        }
    }
}

impl Pieces for Data {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.is_ended {
            let mut output = BytesMut::new();
            loop {
                let before = (self.stored.len(), output.len());
                self.decoder.step(&mut self.stored, &mut output)?;
                if output.len() >= PIECE_BYTES || before == (self.stored.len(), output.len()) {
                    break;
                }
            }
            if !output.is_empty() {
                return Ok(Some(output.freeze()));
            }
            match self.stored().await? {
                Some(piece) => self.stored.extend_from_slice(&piece),
                None => {
                    self.decoder.end()?;
                    if !self.stored.is_empty() {
                        return Err(cut());
                    }
                    self.is_ended = true;
                }
            }
        }
        Ok(None)
    }
}

/// The length of the next block; 0 behind the last one.
pub(super) async fn block_length(input: &mut Input, int_bytes: usize) -> Result<u64> {
    let length = input.int(int_bytes).await?;
    match i32::try_from(length) {
        Ok(_as_the_vendor_counts) => Ok(u64::from(length)),
        Err(_negative) => Err(Error::integrity("a block of the archive has an impossible length")),
    }
}
