//! CRC-32C (Castagnoli), the checksum of a backup manifest, eight bytes at a step.

/// The reflected polynomial: <https://datatracker.ietf.org/doc/html/rfc3720#appendix-B.4>.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// How many bytes one step takes, and so how many tables there are.
const STEP_BYTES: usize = 8;

/// For each byte value what it does to the sum, with 0 to 7 bytes behind it.
static TABLES: [[u32; 256]; STEP_BYTES] = tables();

const fn tables() -> [[u32; 256]; STEP_BYTES] {
    let mut tables = [[0; 256]; STEP_BYTES];
    let mut value = 0;
    let mut sum_start: u32 = 0;
    while value < 256 {
        let mut sum = sum_start;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][value] = sum;
        value += 1;
        sum_start += 1;
    }
    let mut behind = 1;
    while behind < STEP_BYTES {
        let mut value = 0;
        while value < 256 {
            let before = tables[behind - 1][value];
            tables[behind][value] = before >> 8 ^ tables[0][before.to_le_bytes()[0] as usize];
            value += 1;
        }
        behind += 1;
    }
    tables
}

/// A sum in the making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32c {
    /// Adds `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let mut sum = self.0;
        let (steps, rest) = bytes.as_chunks::<STEP_BYTES>();
        for step in steps {
            let [a, b, c, d] = sum.to_le_bytes();
            let [s0, s1, s2, s3, s4, s5, s6, s7] = *step;
            sum = look(7, a ^ s0)
                ^ look(6, b ^ s1)
                ^ look(5, c ^ s2)
                ^ look(4, d ^ s3)
                ^ look(3, s4)
                ^ look(2, s5)
                ^ look(1, s6)
                ^ look(0, s7);
        }
        for byte in rest {
            sum = sum >> 8 ^ look(0, sum.to_le_bytes()[0] ^ byte);
        }
        self.0 = sum;
    }

    /// The sum of everything so far.
    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}

fn look(table: usize, byte: u8) -> u32 {
    TABLES[table][usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut sum = Crc32c::default();
        sum.update(bytes);
        sum.value()
    }

    /// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn the_sums_of_the_standard() {
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(of(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(of(b""), 0);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let (start, end) = bytes.split_at(at.min(bytes.len()));
            let mut sum = Crc32c::default();
            sum.update(start);
            sum.update(end);
            prop_assert_eq!(sum.value(), of(&bytes));
        }
    }
}
