//! BLAKE3 of a stream whose pieces are hashed apart, on any thread and in any order: the hash is a tree, and this puts
//! it together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{CHUNK_LEN, Hash, Hasher};

/// One piece of a stream, hashed. All pieces of a stream have one size, but the last may be shorter.
#[derive(Debug, Clone)]
pub(crate) struct Subtree {
    value: ChainingValue,
    /// What the hash is if this is the only piece; only the first can be that.
    alone: Option<Hash>,
}

impl Subtree {
    /// Hashes piece `number`, counted from 0, of a stream that is cut into pieces of `piece_bytes`. `None` if there is no
    /// such piece: it is empty or too long, or the size can't be one.
    pub(crate) fn of(piece_bytes: usize, number: u64, bytes: &[u8]) -> Option<Self> {
        let mut hasher = Self::begin(piece_bytes, number)?;
        if bytes.is_empty() || bytes.len() > piece_bytes {
            return None;
        }
        hasher.update(bytes);
        Some(Self::end(number, &hasher))
    }

    fn begin(piece_bytes: usize, number: u64) -> Option<Hasher> {
        if !is_piece_size(piece_bytes) {
            return None;
        }
        let offset = number.checked_mul(piece_bytes as u64)?;
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset);
        Some(hasher)
    }

    /// `hasher` is that of the piece and has got some bytes.
    fn end(number: u64, hasher: &Hasher) -> Self {
        Self { value: hasher.finalize_non_root(), alone: (number == 0).then(|| hasher.finalize()) }
    }
}

/// Whether pieces of this size are subtrees: a power of two of the hash's own chunks.
pub(crate) fn is_piece_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && bytes >= CHUNK_LEN
}

/// The pieces of a stream, put together in their order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Complete subtrees, the largest first; those of one size are joined when the next piece comes, because the last
    /// two are joined in another way.
    whole: Vec<ChainingValue>,
    pieces: u64,
    alone: Option<Hash>,
}

impl Tree {
    /// Appends the next piece.
    pub(crate) fn push(&mut self, piece: &Subtree) {
        while self.whole.len() > self.pieces.count_ones() as usize {
            self.join();
        }
        self.whole.push(piece.value);
        self.alone = piece.alone.filter(|_| self.pieces == 0);
        self.pieces += 1;
    }

    fn join(&mut self) {
        if let (Some(right), Some(left)) = (self.whole.pop(), self.whole.pop()) {
            self.whole.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// The hash of everything that was appended, as one hasher would give it.
    pub(crate) fn hash(mut self) -> Hash {
        while self.whole.len() > 2 {
            self.join();
        }
        match (self.alone, self.whole.as_slice()) {
            (Some(alone), _) => alone,
            (None, [left, right]) => merge_subtrees_root(left, right, Mode::Hash),
            (None, _) => blake3::hash(&[]),
        }
    }
}

/// Bytes of the pieces in which a [`SharedHash`] hashes.
const SHARED_PIECE_BYTES: usize = 256 << 10;

/// The hash of bytes that come in slices of any size: most of each is hashed wherever there is a thread for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHash(Arc<Mutex<Slices>>);

#[derive(Debug, Default)]
struct Slices {
    tree: Tree,
    /// Pieces that wait for one before them.
    early: BTreeMap<u64, Subtree>,
    /// The piece that begins in one slice and ends in another.
    open: Option<Hasher>,
    /// Bytes that came.
    bytes: u64,
}

/// The pieces that lie wholly in one slice, still to be hashed.
#[derive(Debug)]
pub(crate) struct Whole {
    hash: SharedHash,
    first: u64,
    range: Range<usize>,
}

impl SharedHash {
    /// Takes the next slice, and hashes what of it belongs to a piece that is not wholly in it. The rest is to be given
    /// to [`Whole::hash`], in any order.
    pub(crate) fn take(&self, slice: &[u8]) -> Whole {
        let mut slices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = SHARED_PIECE_BYTES as u64;
        let begun = usize::try_from(slices.bytes % size).unwrap_or(usize::MAX);
        let head = if begun == 0 { 0 } else { (SHARED_PIECE_BYTES - begun).min(slice.len()) };
        let end = head + (slice.len() - head) / SHARED_PIECE_BYTES * SHARED_PIECE_BYTES;
        slices.extend(&slice[..head]);
        let first = slices.bytes / size;
        slices.bytes += (end - head) as u64;
        slices.extend(&slice[end..]);
        Whole { hash: self.clone(), first, range: head..end }
    }

    /// The hash of all slices. What of [`take`](Self::take) was not hashed is missing in it.
    pub(crate) fn text(&self) -> String {
        let mut slices = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        slices.close();
        slices.tree.hash().to_hex().to_string()
    }
}

impl Slices {
    /// Bytes of a piece that is open or begins with them; they don't go beyond its end.
    fn extend(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let number = self.bytes / SHARED_PIECE_BYTES as u64;
        if self.open.is_none() {
            self.open = Subtree::begin(SHARED_PIECE_BYTES, number);
        }
        if let Some(open) = &mut self.open {
            open.update(bytes);
        }
        self.bytes += bytes.len() as u64;
        if self.bytes.is_multiple_of(SHARED_PIECE_BYTES as u64) {
            self.close();
        }
    }

    /// Ends the piece that is open.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let number = self.bytes.saturating_sub(1) / SHARED_PIECE_BYTES as u64;
            self.arrived(number, Subtree::end(number, &open));
        }
    }

    fn arrived(&mut self, number: u64, piece: Subtree) {
        self.early.insert(number, piece);
        while let Some(piece) = self.early.remove(&self.tree.pieces) {
            self.tree.push(&piece);
        }
    }
}

impl Whole {
    /// Hashes the pieces in the slice that was [taken](SharedHash::take).
    pub(crate) fn hash(self, slice: &[u8]) {
        let pieces = slice[self.range].chunks_exact(SHARED_PIECE_BYTES);
        for (number, piece) in (self.first..).zip(pieces) {
            if let Some(piece) = Subtree::of(SHARED_PIECE_BYTES, number, piece) {
                self.hash.0.lock().unwrap_or_else(PoisonError::into_inner).arrived(number, piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..=250_u8).cycle().take(len).collect()
    }

    fn tree(piece_bytes: usize, bytes: &[u8]) -> Hash {
        let mut tree = Tree::default();
        for (number, piece) in (0..).zip(bytes.chunks(piece_bytes)) {
            tree.push(&Subtree::of(piece_bytes, number, piece).unwrap());
        }
        tree.hash()
    }

    #[test]
    fn a_tree_is_the_hash_of_all_its_pieces() {
        let bytes = bytes(70 * CHUNK_LEN);
        for pieces in 0..70 {
            for extra in [0, 1, CHUNK_LEN - 1] {
                let bytes = &bytes[..pieces * CHUNK_LEN + extra];
                for piece_bytes in [CHUNK_LEN, 2 * CHUNK_LEN, 16 * CHUNK_LEN] {
                    assert_eq!(tree(piece_bytes, bytes), blake3::hash(bytes), "{} / {piece_bytes}", bytes.len());
                }
            }
        }
    }

    #[test]
    fn what_is_no_piece_is_refused() {
        let two = bytes(2 * CHUNK_LEN);
        assert!(Subtree::of(CHUNK_LEN, 1, &[]).is_none());
        assert!(Subtree::of(CHUNK_LEN, 1, &two).is_none());
        assert!(Subtree::of(CHUNK_LEN + 1, 1, &[1]).is_none());
        assert!(Subtree::of(CHUNK_LEN / 2, 1, &[1]).is_none());
        assert!(Subtree::of(CHUNK_LEN, u64::MAX, &[1]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn slices_of_any_size_in_any_order_give_the_hash(
            sizes in prop::collection::vec(0..3 * SHARED_PIECE_BYTES, 0..8),
            backwards in any::<bool>(),
        ) {
            let bytes = bytes(sizes.iter().sum());
            let shared = SharedHash::default();
            let mut rest = &bytes[..];
            let mut wholes = Vec::new();
            for size in sizes {
                let (slice, behind) = rest.split_at(size);
                wholes.push((shared.take(slice), slice));
                rest = behind;
            }
            if backwards {
                wholes.reverse();
            }
            for (whole, slice) in wholes {
                whole.hash(slice);
            }
            prop_assert_eq!(shared.text(), blake3::hash(&bytes).to_hex().to_string());
        }
    }

    #[test]
    fn a_piece_that_was_not_hashed_is_missed() {
        let bytes = bytes(3 * SHARED_PIECE_BYTES);
        let shared = SharedHash::default();
        drop(shared.take(&bytes));
        assert_ne!(shared.text(), blake3::hash(&bytes).to_hex().to_string());
    }
}
