//! Undoes the compression inside of archives. Sans-IO: each step takes some bytes and gives a bounded number.

#[cfg(feature = "codecs")]
mod lz4;

use bytes::BytesMut;
use stackkit_core::{Error, Result};

use super::Compression;

/// How much a step gives at most; lz4 gives a block, which is 4 MiB at most.
#[cfg(feature = "codecs")]
const STEP_BYTES: usize = 64 * 1024;

/// How the compressed bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A file of its own: gzip has the header of `gzip`, and several members or frames may follow each other. No bytes at
    /// all are a fault with gzip; with the others `pg_dump` writes an empty file then.
    File,
    /// Blocks of a custom archive: gzip is a zlib stream, and no bytes at all stand for no bytes.
    Blocks,
}

/// Undoes one compression.
pub(super) struct Decoder {
    kind: Kind,
    framing: Framing,
    is_started: bool,
}

enum Kind {
    Plain,
    #[cfg(feature = "codecs")]
    Gzip {
        inflate: flate2::Decompress,
        is_ended: bool,
    },
    #[cfg(feature = "codecs")]
    Lz4(Box<lz4::Frames>),
    #[cfg(feature = "codecs")]
    Zstd {
        decoder: zstd::stream::raw::Decoder<'static>,
        is_ended: bool,
    },
}

impl Decoder {
    /// A decoder of `compression`.
    ///
    /// # Errors
    /// `Unsupported` without the feature `codecs`, unless there is no compression.
    #[cfg(feature = "codecs")]
    pub(super) fn new(compression: Compression, framing: Framing) -> Result<Self> {
        let kind = match compression {
            Compression::None => Kind::Plain,
            Compression::Gzip => Kind::Gzip { inflate: inflate(framing), is_ended: false },
            Compression::Lz4 => Kind::Lz4(Box::default()),
            Compression::Zstd => {
                let decoder = zstd::stream::raw::Decoder::new().map_err(|e| Error::io("start zstd", e))?;
                Kind::Zstd { decoder, is_ended: false }
            }
        };
        Ok(Self { kind, framing, is_started: false })
    }

    /// A decoder of `compression`.
    ///
    /// # Errors
    /// `Unsupported` without the feature `codecs`, unless there is no compression.
    #[cfg(not(feature = "codecs"))]
    pub(super) fn new(compression: Compression, framing: Framing) -> Result<Self> {
        if compression == Compression::None {
            return Ok(Self { kind: Kind::Plain, framing, is_started: false });
        }
        let message = "the archive is compressed inside; build stackkit-postgres with the feature codecs to read it";
        Err(Error::new(stackkit_core::ErrorKind::Unsupported, message))
    }

    /// Takes bytes from `input` and appends to `output`. When it did neither, it needs more input.
    ///
    /// # Errors
    /// `Integrity` for bytes that are not so compressed.
    pub(super) fn step(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<()> {
        self.is_started |= !input.is_empty();
        match &mut self.kind {
            Kind::Plain => {
                output.unsplit(input.split());
                Ok(())
            }
            #[cfg(feature = "codecs")]
            Kind::Gzip { inflate: state, is_ended } => {
                if *is_ended && !input.is_empty() {
                    // Another member of the file follows. Behind a zlib stream nothing may.
                    if self.framing == Framing::Blocks {
                        return Err(damaged());
                    }
                    (*state, *is_ended) = (inflate(self.framing), false);
                }
                if !*is_ended {
                    *is_ended = step_gzip(state, input, output)?;
                }
                Ok(())
            }
            #[cfg(feature = "codecs")]
            Kind::Lz4(frames) => frames.step(input, output),
            #[cfg(feature = "codecs")]
            Kind::Zstd { decoder, is_ended } => step_zstd(decoder, is_ended, input, output),
        }
    }

    /// Says whether the bytes may end here.
    ///
    /// # Errors
    /// `Integrity` inside of a stream or frame.
    pub(super) fn end(&self) -> Result<()> {
        let is_ended = match &self.kind {
            Kind::Plain => true,
            #[cfg(feature = "codecs")]
            Kind::Gzip { is_ended, .. } | Kind::Zstd { is_ended, .. } => *is_ended,
            #[cfg(feature = "codecs")]
            Kind::Lz4(frames) => frames.is_ended(),
        };
        let may_be_empty = match &self.kind {
            #[cfg(feature = "codecs")]
            Kind::Lz4(_) | Kind::Zstd { .. } => true,
            _ => self.framing == Framing::Blocks,
        };
        match is_ended || (may_be_empty && !self.is_started) {
            true => Ok(()),
            false => Err(Error::integrity("the compressed data of the archive ends too early")),
        }
    }
}

#[cfg(feature = "codecs")]
fn damaged() -> Error {
    Error::integrity("the compressed data of the archive is damaged")
}

#[cfg(feature = "codecs")]
fn inflate(framing: Framing) -> flate2::Decompress {
    /// The largest window of deflate, as its logarithm.
    const WINDOW_BITS: u8 = 15;
    match framing {
        Framing::File => flate2::Decompress::new_gzip(WINDOW_BITS),
        Framing::Blocks => flate2::Decompress::new(true),
    }
}

/// One call of zlib; tells whether the stream ended.
#[cfg(feature = "codecs")]
fn step_gzip(inflate: &mut flate2::Decompress, input: &mut BytesMut, output: &mut BytesMut) -> Result<bool> {
    use bytes::Buf;
    let mut buffer = [0; STEP_BYTES];
    let (took, gave) = (inflate.total_in(), inflate.total_out());
    let status = inflate
        .decompress(input, &mut buffer, flate2::FlushDecompress::None)
        .map_err(|error| damaged().with_source(error))?;
    let count = |total: u64, before: u64| usize::try_from(total - before).unwrap_or_default();
    input.advance(count(inflate.total_in(), took));
    output.extend_from_slice(&buffer[..count(inflate.total_out(), gave)]);
    Ok(status == flate2::Status::StreamEnd)
}

#[cfg(feature = "codecs")]
fn step_zstd(
    decoder: &mut zstd::stream::raw::Decoder<'static>,
    is_ended: &mut bool,
    input: &mut BytesMut,
    output: &mut BytesMut,
) -> Result<()> {
    use bytes::Buf;
    use zstd::stream::raw::Operation;
    if *is_ended && input.is_empty() {
        return Ok(());
    }
    let mut buffer = [0; STEP_BYTES];
    let status = decoder.run_on_buffers(input, &mut buffer).map_err(|error| damaged().with_source(error))?;
    input.advance(status.bytes_read);
    output.extend_from_slice(&buffer[..status.bytes_written]);
    if status.bytes_read > 0 || status.bytes_written > 0 {
        *is_ended = status.remaining == 0;
    }
    Ok(())
}

#[cfg(all(test, feature = "codecs"))]
#[allow(clippy::expect_used, reason = "a failed expectation fails the test")]
mod tests {
    use std::io::Write;

    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces of `piece`.
    fn decoded(compression: Compression, framing: Framing, bytes: &[u8], piece: usize) -> Result<Vec<u8>> {
        let mut decoder = Decoder::new(compression, framing)?;
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        for chunk in bytes.chunks(piece) {
            input.extend_from_slice(chunk);
            loop {
                let before = (input.len(), output.len());
                decoder.step(&mut input, &mut output)?;
                if before == (input.len(), output.len()) {
                    break;
                }
            }
        }
        decoder.end()?;
        Ok(output.to_vec())
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 1).expect("memory")
    }

    /// With linked blocks and checksums, so that all of the format is used.
    fn lz4(plain: &[u8]) -> Vec<u8> {
        let info = lz4_flex::frame::FrameInfo::new()
            .block_mode(lz4_flex::frame::BlockMode::Linked)
            .block_size(lz4_flex::frame::BlockSize::Max64KB)
            .block_checksums(true)
            .content_checksum(true);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    const WAYS: [(Compression, Framing, Encode); 6] = [
        (Compression::Gzip, Framing::File, gzip),
        (Compression::Gzip, Framing::Blocks, zlib),
        (Compression::Zstd, Framing::File, zstd),
        (Compression::Zstd, Framing::Blocks, zstd),
        (Compression::Lz4, Framing::File, lz4),
        (Compression::Lz4, Framing::Blocks, lz4),
    ];

    #[test]
    fn members_and_frames_follow_each_other_in_files() {
        for (compression, framing, encode) in WAYS.into_iter().filter(|way| way.1 == Framing::File) {
            let bytes = [encode(b"one "), encode(b"two")].concat();
            assert_eq!(decoded(compression, framing, &bytes, 7).expect("two"), b"one two");
        }
        let bytes = [zlib(b"one "), zlib(b"two")].concat();
        assert!(decoded(Compression::Gzip, Framing::Blocks, &bytes, 7).is_err());
    }

    #[test]
    fn nothing_is_nothing_but_in_files_of_gzip() {
        for (compression, framing, _) in WAYS {
            let may_be_empty = framing == Framing::Blocks || compression != Compression::Gzip;
            assert_eq!(decoded(compression, framing, b"", 1).is_ok(), may_be_empty);
        }
    }

    #[test]
    fn much_of_little_stays_bounded() {
        let plain = vec![b'x'; 4 << 20];
        for (compression, framing, encode) in WAYS {
            let mut decoder = Decoder::new(compression, framing).expect("a decoder");
            let (mut input, mut output) = (BytesMut::from(encode(&plain).as_slice()), BytesMut::new());
            decoder.step(&mut input, &mut output).expect("a step");
            assert!(output.len() <= STEP_BYTES, "{compression:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            plain in proptest::collection::vec(any::<u8>(), 0..3000), copies in 1usize..60, piece in 1usize..5000
        ) {
            let plain = plain.repeat(copies);
            for (compression, framing, encode) in WAYS {
                let read = decoded(compression, framing, &encode(&plain), piece).expect("what was packed");
                prop_assert!(read == plain, "{:?}", compression);
            }
        }

        #[test]
        fn a_cut_is_told(plain in proptest::collection::vec(any::<u8>(), 1..500), cut in any::<prop::sample::Index>()) {
            for (compression, framing, encode) in WAYS {
                let bytes = encode(&plain);
                let cut = cut.index(bytes.len() - 1) + 1;
                if cut < bytes.len() {
                    let error = decoded(compression, framing, &bytes[..cut], 64).expect_err("cut");
                    prop_assert_eq!(error.kind(), stackkit_core::ErrorKind::Integrity);
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), head in 0usize..12) {
            for (compression, framing, encode) in WAYS {
                let mut hostile = encode(b"hostile");
                hostile.truncate(head);
                hostile.extend_from_slice(&bytes);
                drop(decoded(compression, framing, &hostile, 50));
            }
        }
    }
}
