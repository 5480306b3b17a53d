use crc_fast::CrcAlgorithm::Crc64Redis;
use crc_fast::checksum;

use super::reader::EOF;

/// Appends what turns a type byte and a value, as they stand in a file, into the payload of `RESTORE`: the version of
/// the format, little-endian, and the CRC-64 over all before it. The payload is what `buffer` holds from `start` on.
pub fn append_footer(buffer: &mut Vec<u8>, start: usize, version: u16) {
    buffer.extend_from_slice(&version.to_le_bytes());
    let crc = checksum(Crc64Redis, &buffer[start..]);
    buffer.extend_from_slice(&crc.to_le_bytes());
}

/// Writes a file record by record, for tests and generators. Values are given as they stand in a file; nothing is
/// checked, so that damaged files can be made too.
#[derive(Debug, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A file of that version without records.
    #[must_use]
    pub fn new(version: u16) -> Self {
        Self { bytes: format!("REDIS{version:04}").into_bytes() }
    }

    /// An auxiliary field.
    pub fn aux(&mut self, name: &str, value: &str) -> &mut Self {
        self.bytes.push(250);
        self.string(name.as_bytes()).string(value.as_bytes())
    }

    /// The records that follow are of this database.
    pub fn select(&mut self, database: u64) -> &mut Self {
        self.bytes.push(254);
        self.length(database)
    }

    /// The next record expires then, in milliseconds since 1970.
    pub fn expires_at_ms(&mut self, at: i64) -> &mut Self {
        self.bytes.push(252);
        self.raw(&at.to_le_bytes())
    }

    /// The next record was idle that long.
    pub fn idle_seconds(&mut self, idle: u64) -> &mut Self {
        self.bytes.push(248);
        self.length(idle)
    }

    /// The next record is used that often.
    pub fn frequency(&mut self, frequency: u8) -> &mut Self {
        self.raw(&[249, frequency])
    }

    /// A function library.
    pub fn function(&mut self, source: &[u8]) -> &mut Self {
        self.bytes.push(245);
        self.string(source)
    }

    /// A key with its type byte and its value.
    pub fn record(&mut self, code: u8, key: &[u8], value: &[u8]) -> &mut Self {
        self.bytes.push(code);
        self.string(key).raw(value)
    }

    /// A string, neither compressed nor as a number.
    pub fn string(&mut self, text: &[u8]) -> &mut Self {
        self.length(u64::try_from(text.len()).unwrap_or(u64::MAX)).raw(text)
    }

    /// A length, in the shortest form.
    pub fn length(&mut self, length: u64) -> &mut Self {
        match (u8::try_from(length), u16::try_from(length), u32::try_from(length)) {
            (Ok(short @ ..64), ..) => self.raw(&[short]),
            (_, Ok(medium @ ..0x4000), _) => self.raw(&(medium | 0x4000).to_be_bytes()),
            (_, _, Ok(long)) => self.raw(&[0x80]).raw(&long.to_be_bytes()),
            _ => self.raw(&[0x81]).raw(&length.to_be_bytes()),
        }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The end opcode and the checksum.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.push(EOF);
        let crc = checksum(Crc64Redis, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}
