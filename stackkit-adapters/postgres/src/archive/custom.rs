//! The data of a custom archive: blocks behind the table of contents.

use std::collections::{HashMap, HashSet};

use stackkit_core::{Error, Result};

use super::data::block_length;
use super::input::Input;

/// What a piece of data begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// The data of a table.
    Data,
    /// Large objects: a number and blocks each, and the number 0.
    Blobs,
}

impl Block {
    fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Data),
            3 => Some(Self::Blobs),
            _ => None,
        }
    }
}

/// What begins where `input` stands, and of which entry it is; nothing at the end of the archive.
///
/// # Errors
/// `Integrity` if it is nothing known.
pub(super) async fn head(input: &mut Input, int_bytes: usize) -> Result<Option<(Block, i32)>> {
    let Some(byte) = input.byte().await? else { return Ok(None) };
    let block = Block::of_byte(byte).ok_or_else(|| Error::integrity("the archive's data is of an unknown kind"))?;
    let id = i32::try_from(input.int(int_bytes).await?);
    let id = id.map_err(|_negative| Error::integrity("the archive's data is of no entry"))?;
    Ok(Some((block, id)))
}

/// Where the data of each entry begins, found by reading it from where `input` stands: to the end, or as far as those that
/// are `wanted`.
///
/// What follows the last wanted one is not looked at: from 16 on `pg_dump -Fc > FILE` leaves a second table of contents there. It
/// opens standard output for appending (`_allocAH` in `pg_backup_archiver.c`), and then can't write the places into
/// the first one.
///
/// # Errors
/// `Integrity` if it is damaged or cut.
pub(crate) async fn scan(
    mut input: Input,
    int_bytes: usize,
    mut wanted: Option<HashSet<i32>>,
) -> Result<HashMap<i32, u64>> {
    let mut places = HashMap::new();
    while wanted.as_ref().is_none_or(|wanted| !wanted.is_empty()) {
        let place = input.position();
        let Some((block, id)) = head(&mut input, int_bytes).await? else { break };
        places.entry(id).or_insert(place);
        match block {
            Block::Data => skip(&mut input, int_bytes).await?,
            Block::Blobs => {
                while input.int(int_bytes).await? != 0 {
                    skip(&mut input, int_bytes).await?;
                }
            }
        }
        if let Some(wanted) = &mut wanted {
            wanted.remove(&id);
        }
    }
    Ok(places)
}

/// Leaves all blocks of one stream behind.
async fn skip(input: &mut Input, int_bytes: usize) -> Result<()> {
    loop {
        let mut left = block_length(input, int_bytes).await?;
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            let piece = input.piece(left).await?.ok_or_else(super::input::cut)?;
            left -= piece.len() as u64;
        }
    }
}
