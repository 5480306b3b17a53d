//! The artifact: magic, records (key length, value length, key, value; lengths as u32 LE), an end mark, and BLAKE3
//! of all that before it.

use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;

use crate::memory::Objects;

const MAGIC: &[u8] = b"stackkit-memory-1\n";
/// In the place of a key's length: no more records.
const END: u32 = u32::MAX;
/// A longer key or value is damage: the store is for tests.
const FIELD_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Writes an artifact piece by piece.
#[derive(Debug, Default)]
pub(super) struct Writer {
    hasher: blake3::Hasher,
}

impl Writer {
    pub(super) fn start(&mut self) -> Vec<u8> {
        self.hashed(MAGIC.to_vec())
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let mut record = Vec::with_capacity(8 + key.len() + value.len());
        for field in [key, value] {
            let length = u32::try_from(field.len()).ok().filter(|length| *length <= FIELD_BYTES_MAX);
            let length = length.ok_or_else(|| Error::new(ErrorKind::Unsupported, "a value is too long to dump"))?;
            record.extend_from_slice(&length.to_le_bytes());
        }
        record.extend_from_slice(key);
        record.extend_from_slice(value);
        Ok(self.hashed(record))
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        let mut end = self.hashed(END.to_le_bytes().to_vec());
        end.extend_from_slice(self.hasher.finalize().as_bytes());
        end
    }

    fn hashed(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.hasher.update(&bytes);
        bytes
    }
}

/// Reads an artifact to its end and checks its hash.
pub(super) async fn read(data: ArtifactReader) -> Result<Objects> {
    let mut reader = Reader { data, hasher: blake3::Hasher::new() };
    let mut objects = Objects::new();
    if reader.bytes(MAGIC.len()).await? != MAGIC {
        return Err(Error::integrity("the artifact has another magic"));
    }
    loop {
        let key_length = reader.length().await?;
        if key_length == END {
            break;
        }
        let value_length = reader.length().await?;
        let key = reader.field(key_length).await?;
        let value = reader.field(value_length).await?;
        objects.insert(key, value);
    }
    let computed = *reader.hasher.finalize().as_bytes();
    if reader.bytes(computed.len()).await? != computed {
        return Err(Error::integrity("the artifact's hash is another one"));
    }
    match reader.data.read(&mut [0]).await.map_err(unreadable)? {
        0 => Ok(objects),
        _ => Err(Error::integrity("bytes follow the artifact's end")),
    }
}

struct Reader {
    data: ArtifactReader,
    hasher: blake3::Hasher,
}

impl Reader {
    async fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.data.read_exact(&mut bytes).await.map_err(unreadable)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    async fn length(&mut self) -> Result<u32> {
        let bytes = self.bytes(size_of::<u32>()).await?;
        let length = bytes.try_into().map(u32::from_le_bytes);
        length.map_err(|_bytes| Error::unexpected("four bytes are no u32"))
    }

    async fn field(&mut self, length: u32) -> Result<Vec<u8>> {
        match usize::try_from(length) {
            Ok(bytes) if length <= FIELD_BYTES_MAX => self.bytes(bytes).await,
            _ => Err(Error::integrity("a field is longer than any that is written")),
        }
    }
}

fn unreadable(error: std::io::Error) -> Error {
    let cut = error.kind() == std::io::ErrorKind::UnexpectedEof;
    // The engine's reader hands its own errors through.
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) if cut => Error::integrity("the artifact is cut").with_source(error),
        Err(error) => Error::io("read an artifact", error),
    }
}
