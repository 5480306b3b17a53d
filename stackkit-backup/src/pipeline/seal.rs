//! The encrypting stage: compressed bytes become stored bytes, in the part in which they are uploaded.

use stackkit_core::Result;

use super::parts::Upload;
use crate::age::{self, CHUNK_BYTES, Chunk, Sealer};
use crate::keys::Recipient;

/// What happens to compressed bytes on their way into the object.
pub(super) enum Seal {
    /// Nothing.
    Nothing,
    /// They are encrypted.
    Age {
        sealer: Box<Sealer>,
        /// Bytes of the chunk at the end of the part that are not sealed yet.
        open_bytes: usize,
    },
}

impl Seal {
    /// The stage for `recipients`, none of which means no encryption. The header goes into the object at once.
    pub(super) fn new(recipients: &[Recipient], upload: &mut Upload) -> Result<Self> {
        if recipients.is_empty() {
            return Ok(Self::Nothing);
        }
        let (header, sealer) = age::write_header(recipients)?;
        upload.part()?.extend_from_slice(&header);
        Ok(Self::Age { sealer: Box::new(sealer), open_bytes: 0 })
    }

    /// Appends compressed bytes.
    pub(super) async fn append(&mut self, upload: &mut Upload, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.room(upload).await?;
            let (taken, rest) = bytes.split_at(bytes.len().min(room));
            upload.part()?.extend_from_slice(taken);
            bytes = rest;
            match self {
                Self::Nothing => upload.ship_full().await?,
                Self::Age { open_bytes, .. } => *open_bytes += taken.len(),
            }
        }
        Ok(())
    }

    /// How many bytes the open chunk takes. A full one is sealed only here, when a byte follows it: the last one is
    /// sealed otherwise.
    async fn room(&mut self, upload: &mut Upload) -> Result<usize> {
        let Self::Age { sealer, open_bytes } = self else {
            return Ok(CHUNK_BYTES);
        };
        if *open_bytes == CHUNK_BYTES {
            sealer.seal(upload.part()?, CHUNK_BYTES, Chunk::Inner)?;
            *open_bytes = 0;
            upload.ship_full().await?;
        }
        Ok(CHUNK_BYTES - *open_bytes)
    }

    /// Seals what is left as the last chunk.
    pub(super) async fn close(&mut self, upload: &mut Upload) -> Result<()> {
        if let Self::Age { sealer, open_bytes } = self {
            sealer.seal(upload.part()?, *open_bytes, Chunk::Last)?;
            upload.ship_full().await?;
        }
        Ok(())
    }
}
