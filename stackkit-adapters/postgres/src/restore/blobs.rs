//! Large objects on their way from an archive of files to the server.

use stackkit_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::archive::tar::{self, BLOCK_BYTES};
use crate::wire::Wire;

/// How much of a large object is sent at once: 128 of the server's pages of 2 KiB.
const PIECE_BYTES: usize = 256 * 1024;

/// The digits of bytes in SQL.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Fills the large objects of one archive, which exist and are empty. Gives how many there were.
/// Within a transaction that is under way, or in one of its own.
pub(crate) async fn load(
    wire: &mut Wire,
    in_transaction: bool,
    mut data: impl AsyncRead + Unpin + Send,
) -> Result<u64> {
    if !in_transaction {
        wire.execute(b"BEGIN").await?;
    }
    let mut puts = Puts { wire, sql: Vec::new() };
    let mut count = 0;
    loop {
        let mut block = [0; BLOCK_BYTES];
        data.read_exact(&mut block).await.map_err(broken)?;
        let Some((name, size)) = tar::parse(&block)? else { break };
        let oid = number(&name).ok_or_else(|| {
            Error::integrity("an archive of large objects holds something else").with_context("name", &name)
        })?;
        puts.fill(oid, (&mut data).take(size), size).await?;
        let mut padding = vec![0; tar::padding(size)];
        data.read_exact(&mut padding).await.map_err(broken)?;
        count += 1;
    }
    if !in_transaction {
        puts.sql.extend_from_slice(b"COMMIT");
    }
    puts.flush().await?;
    Ok(count)
}

/// The number in `blob_OID.dat`.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix("blob_")?.strip_suffix(".dat")?.parse().ok()
}

/// Gathers what is written to large objects, until it is worth a round trip.
struct Puts<'a> {
    wire: &'a mut Wire,
    sql: Vec<u8>,
}

impl Puts<'_> {
    async fn fill(&mut self, oid: u32, mut data: impl AsyncRead + Unpin + Send, size: u64) -> Result<()> {
        let (mut offset, mut left) = (0_u64, size);
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let mut piece = vec![0; length];
            data.read_exact(&mut piece).await.map_err(broken)?;
            self.sql.extend_from_slice(format!("SELECT pg_catalog.lo_put({oid}, {offset}, E'\\\\x").as_bytes());
            for byte in &piece {
                self.sql.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            self.sql.extend_from_slice(b"');");
            if self.sql.len() >= PIECE_BYTES {
                self.flush().await?;
            }
            let length = u64::try_from(length).unwrap_or_default();
            left = left.saturating_sub(length);
            offset += length;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.wire.execute(&self.sql).await?;
        self.sql.clear();
        Ok(())
    }
}

fn broken(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::integrity("an archive of large objects is cut"),
        _ => error.downcast::<Error>().unwrap_or_else(|error| Error::io("read large objects", error)),
    }
}
