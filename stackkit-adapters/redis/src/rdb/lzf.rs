/// Most bytes that one compressed byte can stand for: a back reference of 3 bytes copies up to 264.
const EXPANSION_MAX: u64 = 88;

/// Whether `compressed` bytes can hold `plain` bytes at all; asked before memory is taken for them.
pub(super) const fn plausible(compressed: u64, plain: u64) -> bool {
    plain <= compressed.saturating_mul(EXPANSION_MAX)
}

/// Appends the `plain` bytes that `input` stands for; `None` if it does not hold exactly these.
pub(super) fn decompress(mut input: &[u8], plain: usize, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    out.reserve(plain);
    while let Some((&control, rest)) = input.split_first() {
        input = rest;
        if control < 32 {
            let (literals, rest) = input.split_at_checked(usize::from(control) + 1)?;
            out.extend_from_slice(literals);
            input = rest;
        } else {
            let mut length = usize::from(control >> 5) + 2;
            if length == 9 {
                let (&more, rest) = input.split_first()?;
                length += usize::from(more);
                input = rest;
            }
            let (&low, rest) = input.split_first()?;
            input = rest;
            let distance = (usize::from(control & 31) << 8 | usize::from(low)) + 1;
            copy_back(out, start, distance, length)?;
        }
        if out.len() - start > plain {
            return None;
        }
    }
    (out.len() - start == plain).then_some(())
}

/// Repeats `length` bytes from `distance` before the end; the source may overlap what it produces.
fn copy_back(out: &mut Vec<u8>, start: usize, distance: usize, length: usize) -> Option<()> {
    let from = out.len().checked_sub(distance).filter(|&from| from >= start)?;
    for at in from..from + length {
        out.push(out[at]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_overlapping_references_expand() {
        let mut out = b"kept".to_vec();
        // Literal "ab", then 5 bytes from 2 back.
        assert_eq!(decompress(&[1, b'a', b'b', 3 << 5, 1], 7, &mut out), Some(()));
        assert_eq!(out, b"keptabababa");
        let mut out = Vec::new();
        // Literal "x", then the longest reference: 9 + 255 bytes from 1 back.
        assert_eq!(decompress(&[0, b'x', 7 << 5, 255, 0], 265, &mut out), Some(()));
        assert!(out.iter().all(|&byte| byte == b'x'));
    }

    #[test]
    fn damage_is_refused() {
        for (input, plain) in [
            (&[1, b'a'][..], 2),        // literal run cut
            (&[0, b'a', 1 << 5], 4),    // reference cut
            (&[0, b'a', 1 << 5, 1], 4), // reference before the start
            (&[0, b'a'], 2),            // too short
            (&[1, b'a', b'b'], 1),      // too long
        ] {
            assert_eq!(decompress(input, plain, &mut b"before".to_vec()), None, "{input:?}");
        }
        assert!(plausible(3, 264) && !plausible(3, 265));
    }
}
