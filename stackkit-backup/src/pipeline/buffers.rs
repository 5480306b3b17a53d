//! Buffers that are used again and again, so that memory is constant and pages are touched once.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// A free list of buffers of one capacity.
#[derive(Debug)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    capacity_bytes: usize,
    keep: usize,
}

impl Buffers {
    /// A list that keeps up to `keep` unused buffers of `capacity_bytes` each.
    pub(crate) fn new(capacity_bytes: usize, keep: usize) -> Self {
        Self { free: Mutex::new(Vec::with_capacity(keep)), capacity_bytes, keep }
    }

    /// An empty buffer with the list's capacity.
    pub(crate) fn take(&'static self) -> Buffer {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| Vec::with_capacity(self.capacity_bytes));
        Buffer { bytes, home: self }
    }
}

/// A buffer that goes back to its list when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: &'static Buffers,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        // A buffer that grew is not kept: that would be memory without a bound.
        if free.len() < self.home.keep && bytes.capacity() <= self.home.capacity_bytes {
            free.push(bytes);
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
