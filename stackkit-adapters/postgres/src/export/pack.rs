//! Packs data for an exported archive. Each piece is packed as it passes.

use bytes::Bytes;
use stackkit_core::Result;
#[cfg(not(feature = "codecs"))]
use stackkit_core::{Error, ErrorKind};

use super::ExportOptions;
use crate::archive::{Compression, Header};

/// How much is packed and written at once. A block of a custom archive is not longer, and readers keep one in memory.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

/// Good enough for an archive that is made in passing: gzip's quickest is a third of the CPU of its default.
#[cfg(feature = "codecs")]
const GZIP_LEVEL: u32 = 1;

/// As the repository's own.
#[cfg(feature = "codecs")]
const ZSTD_LEVEL: i32 = 1;

/// Where the packed bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// A file of its own.
    File,
    /// Blocks of a custom archive.
    Blocks,
}

/// Refuses a packing that this build does not have.
#[cfg(feature = "codecs")]
#[expect(clippy::unnecessary_wraps, reason = "without the codecs it refuses")]
pub(super) fn check(_options: &ExportOptions, _header: &Header) -> Result<()> {
    Ok(())
}

/// Refuses a packing that this build does not have.
#[cfg(not(feature = "codecs"))]
pub(super) fn check(_options: &ExportOptions, header: &Header) -> Result<()> {
    match header.compression {
        Compression::None => Ok(()),
        _ => {
            let message = "to pack an export, build stackkit-postgres with the feature codecs";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// The end of the name of a packed file.
pub(super) fn ending(header: &Header) -> &'static str {
    match header.compression {
        Compression::None => "",
        Compression::Gzip => ".gz",
        Compression::Lz4 => ".lz4",
        Compression::Zstd => ".zst",
    }
}

/// Packs one stream.
pub(super) enum Packer {
    Plain,
    #[cfg(feature = "codecs")]
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    #[cfg(feature = "codecs")]
    Zlib(flate2::write::ZlibEncoder<Vec<u8>>),
    /// Every piece is a frame of its own: readers of a custom archive drop what follows a frame in its block.
    #[cfg(feature = "codecs")]
    Zstd {
        is_empty: bool,
    },
}

impl Packer {
    /// A packer of the header's compression.
    #[cfg(feature = "codecs")]
    pub(super) fn new(header: &Header, into: Into) -> Self {
        let level = flate2::Compression::new(GZIP_LEVEL);
        match (header.compression, into) {
            (Compression::Gzip, Into::File) => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level)),
            (Compression::Gzip, Into::Blocks) => Self::Zlib(flate2::write::ZlibEncoder::new(Vec::new(), level)),
            (Compression::Zstd, _) => Self::Zstd { is_empty: true },
            _ => Self::Plain,
        }
    }

    /// A packer of the header's compression.
    #[cfg(not(feature = "codecs"))]
    pub(super) fn new(_header: &Header, _into: Into) -> Self {
        Self::Plain
    }

    /// Packs a piece of at most [`BLOCK_BYTES`]. Gives what is ready, maybe nothing.
    #[cfg_attr(not(feature = "codecs"), expect(clippy::unnecessary_wraps, reason = "codecs can fail"))]
    pub(super) fn push(&mut self, piece: Bytes) -> Result<Bytes> {
        match self {
            Self::Plain => Ok(piece),
            #[cfg(feature = "codecs")]
            Self::Gzip(encoder) => {
                std::io::Write::write_all(encoder, &piece).map_err(failed)?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            #[cfg(feature = "codecs")]
            Self::Zlib(encoder) => {
                std::io::Write::write_all(encoder, &piece).map_err(failed)?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            #[cfg(feature = "codecs")]
            Self::Zstd { is_empty } => {
                *is_empty = false;
                Ok(zstd::bulk::compress(&piece, ZSTD_LEVEL).map_err(failed)?.into())
            }
        }
    }

    /// What ends the stream, maybe nothing.
    #[cfg_attr(not(feature = "codecs"), expect(clippy::unnecessary_wraps, reason = "codecs can fail"))]
    pub(super) fn finish(self) -> Result<Bytes> {
        match self {
            #[cfg(feature = "codecs")]
            Self::Gzip(encoder) => Ok(encoder.finish().map_err(failed)?.into()),
            #[cfg(feature = "codecs")]
            Self::Zlib(encoder) => Ok(encoder.finish().map_err(failed)?.into()),
            // A stream of nothing is a frame of nothing.
            #[cfg(feature = "codecs")]
            Self::Zstd { is_empty: true } => Ok(zstd::bulk::compress(&[], ZSTD_LEVEL).map_err(failed)?.into()),
            _ => Ok(Bytes::new()),
        }
    }
}

#[cfg(feature = "codecs")]
fn failed(error: std::io::Error) -> stackkit_core::Error {
    stackkit_core::Error::io("pack the export", error)
}
