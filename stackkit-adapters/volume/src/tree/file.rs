//! What a file holds: attributes, holes, content.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, fgetxattr, flistxattr, seek};
use rustix::io::{Errno, pread};

use super::{CHUNK_BYTES, Meta};
use crate::archive::{EXTENTS_WRITE_MAX, Extent, Xattr};
use crate::error::{Result, os_at};
use crate::worker::Cancel;

/// The longest list of attribute names, and the longest value, in bytes (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` of Linux).
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Room for the list of names that nearly every file gets along with, in bytes.
const XATTR_LIST_BYTES: usize = 256;

/// Zeros, to stand for holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The extended attributes of an open file or directory, sorted by name; none where the file system has no such thing.
pub(crate) fn file_xattrs(file: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Xattr>> {
    let mut short = [0u8; XATTR_LIST_BYTES];
    let mut long;
    let list: &[u8] = match flistxattr(file, &mut short[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => &short[..length],
        Err(Errno::RANGE) => {
            long = vec![0; XATTR_BYTES_MAX];
            let length = flistxattr(file, &mut long[..]).map_err(os_at("list attributes", path))?;
            &long[..length]
        }
        Err(errno) => return Err(os_at("list attributes", path)(errno)),
    };
    let mut value = vec![0; XATTR_BYTES_MAX];
    let mut xattrs = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => xattrs.push(Xattr { name: name.to_vec(), value: value[..length].to_vec() }),
            // Removed since the list was read, or one that the kernel lists but does not show.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(os_at("read an attribute", path)(errno)),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Where a file holds data, if it has holes. After [`EXTENTS_WRITE_MAX`] extents the rest counts as one.
pub(crate) fn holes(file: BorrowedFd<'_>, meta: &Meta) -> Option<Vec<Extent>> {
    if meta.allocated_bytes >= meta.size {
        return None;
    }
    let mut extents = Vec::new();
    let mut position = 0;
    while position < meta.size {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) if start < meta.size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            // The file system knows no holes.
            Err(_) => return None,
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) if extents.len() + 1 < EXTENTS_WRITE_MAX => end.min(meta.size),
            _ => meta.size,
        };
        extents.push(Extent { offset: start, length: end - start });
        position = end;
    }
    let whole = Extent { offset: 0, length: meta.size };
    (extents != [whole]).then_some(extents)
}

/// Fills `buffer` from `offset`; less only at the end of the file.
pub(crate) fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// BLAKE3 of the content of a file, holes counted as the zeros that they read as.
pub(crate) fn hash_file(
    file: &impl AsFd,
    meta: &Meta,
    buffer: &mut Vec<u8>,
    path: &[u8],
    cancel: &Cancel,
) -> Result<blake3::Hash> {
    let file = file.as_fd();
    buffer.resize(CHUNK_BYTES, 0);
    let mut hasher = blake3::Hasher::new();
    let mut position = 0;
    let extents = holes(file, meta).unwrap_or_else(|| vec![Extent { offset: 0, length: meta.size }]);
    for extent in extents {
        hash_zeros(&mut hasher, extent.offset - position, cancel)?;
        position = extent.offset;
        while position < extent.offset + extent.length {
            cancel.check()?;
            let wanted = extent.offset + extent.length - position;
            let wanted = usize::try_from(wanted).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let length = read_at(file, &mut buffer[..wanted], position).map_err(os_at("read", path))?;
            if length == 0 {
                return Ok(hasher.finalize());
            }
            hasher.update(&buffer[..length]);
            position += length as u64;
        }
    }
    hash_zeros(&mut hasher, meta.size - position, cancel)?;
    Ok(hasher.finalize())
}

/// Adds `length` zeros to a hash.
pub(crate) fn hash_zeros(hasher: &mut blake3::Hasher, mut length: u64, cancel: &Cancel) -> Result<()> {
    while length > 0 {
        cancel.check()?;
        let step = usize::try_from(length).unwrap_or(ZEROS.len()).min(ZEROS.len());
        hasher.update(&ZEROS[..step]);
        length -= step as u64;
    }
    Ok(())
}
