/// Why bytes are not an RDB file that this module can vouch for. Offsets count bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file starts with neither `REDIS` nor `VALKEY` and a version.
    #[error("no rdb header at the start of the file")]
    Magic,
    /// A file of Valkey 9 or later, whose numbers mean other layouts.
    #[error("rdb file of valkey, version {version}")]
    Valkey {
        /// Version in the header.
        version: u16,
    },
    /// A version outside of [`super::MIN_VERSION`]..=[`super::MAX_VERSION`].
    #[error("rdb version {version} is not known")]
    Version {
        /// Version in the header.
        version: u16,
    },
    /// A value type that this version of the format does not have.
    #[error("value type {code} is not known in rdb version {version}, at byte {offset}")]
    Type {
        /// The type byte.
        code: u8,
        /// Version in the header.
        version: u16,
        /// Where the record starts.
        offset: u64,
    },
    /// An opcode that this version of the format does not have.
    #[error("opcode {code} is not known in rdb version {version}, at byte {offset}")]
    Opcode {
        /// The opcode.
        code: u8,
        /// Version in the header.
        version: u16,
        /// Where the record starts.
        offset: u64,
    },
    /// Bytes that no server writes.
    #[error("{what} is malformed at byte {offset}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Where it starts.
        offset: u64,
    },
    /// A length above a limit of this module.
    #[error("{what} of {size_bytes} bytes exceeds the limit of {limit_bytes}, at byte {offset}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its declared length.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// Where it starts.
        offset: u64,
    },
    /// The file ends inside a record or before its end mark.
    #[error("the file is cut off at byte {offset}")]
    Truncated {
        /// Bytes that were there.
        offset: u64,
    },
    /// Bytes follow the checksum.
    #[error("bytes after the end of the file, at byte {offset}")]
    Trailing {
        /// Where the file should have ended.
        offset: u64,
    },
    /// The CRC-64 in the file is not that of its bytes.
    #[error("checksum {found:016x} in the file, {computed:016x} computed")]
    Checksum {
        /// What the file says.
        found: u64,
        /// What its bytes give.
        computed: u64,
    },
}

impl Fault {
    /// Whether the bytes may be sound, only not understood: another version, type or opcode than this module knows.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Valkey { .. } | Self::Version { .. } | Self::Type { .. } | Self::Opcode { .. })
    }
}
