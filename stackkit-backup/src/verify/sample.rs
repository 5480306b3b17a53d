//! A part of a backup, so that every byte is read in a known number of runs.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, Result};

use crate::id::BackupId;
use crate::manifest::{ArtifactRecord, Manifest};

use super::VerifyLevel;

/// The most parts: a year of days. More would leave a byte unread for longer than that.
const OF_MAX: u32 = 366;

/// The day that is the first of every cycle: days since it count the parts.
const FIRST_DAY: Date = Date::constant(1970, 1, 1);

/// One part of a backup: `1/7` is the first of seven. The parts of one `of` together are the whole backup, byte for
/// byte, and no two of them share a frame.
///
/// What a part is follows from the manifest alone, so it is the same on every machine and in every run:
/// - At the level [`Stored`](VerifyLevel::Stored) a part is a set of whole artifacts, because a hash covers a whole
///   artifact: the largest artifact goes to the part with the fewest bytes, then the next one, and so on. With fewer
///   artifacts than parts some parts are empty.
/// - At the level [`Content`](VerifyLevel::Content) an artifact of at least `of` frames is cut into `of` runs of
///   neighbouring frames, of equal number to within one; each frame carries its own checksum (and its own
///   authentication if it is encrypted). Smaller artifacts are whole, and shared out as at the level `Stored`.
/// - Parts are rotated by the backup's id, so that the first day of many backups is not the longest.
///
/// The size of every object and each frame index are checked in every part.
///
/// ```
/// use stackkit_backup::Sample;
/// let sample: Sample = "3/7".parse()?;
/// assert_eq!((sample.part(), sample.of()), (3, 7));
/// assert!("8/7".parse::<Sample>().is_err());
/// // Whoever runs it every day needs to remember nothing.
/// let monday = Sample::of_day("2026-11-23".parse().unwrap(), 7)?;
/// let tuesday = Sample::of_day("2026-11-24".parse().unwrap(), 7)?;
/// assert_ne!(monday, tuesday);
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Sample {
    /// From 1.
    part: u32,
    of: u32,
}

/// The sample as JSON writes it.
#[derive(Serialize, Deserialize)]
struct Written {
    part: u32,
    of: u32,
}

impl Sample {
    /// Part `part` of `of`, counted from 1.
    ///
    /// # Errors
    /// `Config` unless 1 ≤ `part` ≤ `of` ≤ 366.
    pub fn new(part: u32, of: u32) -> Result<Self> {
        match (1..=of).contains(&part) && of <= OF_MAX {
            true => Ok(Self { part, of }),
            false => Err(Error::config(format!("a sample is a part from 1/N to N/N with N up to {OF_MAX}"))
                .with_context("sample", format!("{part}/{of}"))),
        }
    }

    /// The part of that day: `of` days in a row are all parts, wherever they begin. For a run every day.
    ///
    /// # Errors
    /// `Config` unless 1 ≤ `of` ≤ 366.
    pub fn of_day(date: Date, of: u32) -> Result<Self> {
        // A span of days between two dates of the calendar is whole; it only fails beyond the calendar's end.
        let days = FIRST_DAY.until(date).map_or(0, |span| span.get_days());
        let part = i64::from(days).rem_euclid(i64::from(of.max(1)));
        Self::new(u32::try_from(part).unwrap_or(0) + 1, of)
    }

    /// Which part, from 1.
    #[must_use]
    pub fn part(self) -> u32 {
        self.part
    }

    /// Of how many.
    #[must_use]
    pub fn of(self) -> u32 {
        self.of
    }

    /// The part as an index from 0, rotated by the backup's id.
    fn index(self, id: &BackupId) -> u64 {
        let hash = blake3::hash(id.to_string().as_bytes());
        let turn = hash.as_bytes()[..4].iter().fold(0_u32, |turn, byte| (turn << 8) | u32::from(*byte));
        u64::from((self.part - 1 + turn % self.of) % self.of)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl FromStr for Sample {
    type Err = Error;

    /// # Errors
    /// `Config` if it is not exactly what `Display` prints.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::config(format!("{text:?} is not a sample such as 1/7"));
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.parse().map_err(|e| wrong().with_source(e));
        let sample = Self::new(number(part)?, number(of)?)?;
        // The numbers' parser accepts signs and leading zeros; the round trip does not.
        if sample.to_string() == text { Ok(sample) } else { Err(wrong()) }
    }
}

impl TryFrom<Written> for Sample {
    type Error = Error;
    fn try_from(written: Written) -> Result<Self> {
        Self::new(written.part, written.of)
    }
}

impl From<Sample> for Written {
    fn from(sample: Sample) -> Self {
        Self { part: sample.part, of: sample.of }
    }
}

/// How much of one artifact is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Share {
    /// All of it.
    Whole,
    /// These frames.
    Frames(Range<u64>),
    /// Nothing but its size and its frame index.
    Nothing,
}

/// What is read of each artifact, in the order of the manifest.
pub(super) fn shares(manifest: &Manifest, level: VerifyLevel, sample: Option<Sample>) -> Vec<Share> {
    let artifacts: Vec<&ArtifactRecord> = manifest.artifacts().map(|(_, artifact)| artifact).collect();
    let Some(sample) = sample else { return vec![Share::Whole; artifacts.len()] };
    let sizes: Vec<_> = artifacts.iter().map(|artifact| (artifact.stored.bytes, artifact.frames.count)).collect();
    shares_of(&sizes, level, sample.index(&manifest.id), u64::from(sample.of))
}

/// As [`shares`], for artifacts of these stored bytes and frames.
fn shares_of(sizes: &[(u64, u64)], level: VerifyLevel, part: u64, of: u64) -> Vec<Share> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(sizes[*place].0));
    let mut loads = vec![0_u64; usize::try_from(of).unwrap_or(1)];
    let mut shares = vec![Share::Nothing; sizes.len()];
    for place in order {
        let (bytes, frames) = sizes[place];
        if level != VerifyLevel::Stored && of > 1 && frames >= of {
            shares[place] = Share::Frames(cut(frames, part, of)..cut(frames, part + 1, of));
            continue;
        }
        let emptiest = (0..loads.len()).min_by_key(|part| loads[*part]).unwrap_or(0);
        // An empty artifact is a request too.
        loads[emptiest] = loads[emptiest].saturating_add(bytes.max(1));
        if emptiest as u64 == part {
            shares[place] = Share::Whole;
        }
    }
    shares
}

/// Where part `part` of `of` begins.
fn cut(frames: u64, part: u64, of: u64) -> u64 {
    let cut = u128::from(frames) * u128::from(part) / u128::from(of);
    u64::try_from(cut).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_real_parts_are_samples() {
        for bad in ["", "1", "0/7", "8/7", "1/0", "1/367", "+1/7", "01/7", "1/7 ", "1/7/7", "a/b"] {
            assert!(bad.parse::<Sample>().is_err(), "{bad:?} was accepted");
        }
        assert!(serde_json::from_str::<Sample>(r#"{"part":8,"of":7}"#).is_err());
        let sample: Sample = serde_json::from_str(r#"{"part":2,"of":7}"#).unwrap();
        assert_eq!(sample.to_string(), "2/7");
    }

    #[test]
    fn days_in_a_row_are_all_parts() {
        let mut day: Date = "2026-12-28".parse().unwrap();
        let mut parts: Vec<u32> = Vec::new();
        for _ in 0..7 {
            parts.push(Sample::of_day(day, 7).unwrap().part());
            day = day.tomorrow().unwrap();
        }
        parts.sort_unstable();
        assert_eq!(parts, [1, 2, 3, 4, 5, 6, 7]);
        assert!(Sample::of_day(Date::MIN, 7).is_ok() && Sample::of_day(Date::MAX, 7).is_ok());
        assert!(Sample::of_day(day, 0).is_err());
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_and_share_nothing(
            sizes in prop::collection::vec((0_u64..1 << 40, 0_u64..200), 0..20),
            of in 1_u64..40,
            stored in any::<bool>(),
        ) {
            let level = if stored { VerifyLevel::Stored } else { VerifyLevel::Content };
            let parts: Vec<_> = (0..of).map(|part| shares_of(&sizes, level, part, of)).collect();
            for (place, (_, frames)) in sizes.iter().enumerate() {
                let read: Vec<&Share> = parts.iter().map(|shares| &shares[place]).collect();
                let wholes = read.iter().filter(|share| ***share == Share::Whole).count();
                let mut next = 0;
                for share in &read {
                    if let Share::Frames(range) = share {
                        prop_assert_eq!(range.start, next);
                        prop_assert!(!range.is_empty());
                        next = range.end;
                    }
                }
                match wholes {
                    0 => prop_assert_eq!(next, *frames),
                    whole => prop_assert_eq!((whole, next), (1, 0)),
                }
            }
        }

        #[test]
        fn a_turn_keeps_all_parts(random in any::<u32>(), of in 1_u32..40) {
            let id = format!("20261121T061530Z-{random:08x}").parse().unwrap();
            let mut parts: Vec<_> = (1..=of).map(|part| Sample::new(part, of).unwrap().index(&id)).collect();
            parts.sort_unstable();
            prop_assert_eq!(parts, (0..u64::from(of)).collect::<Vec<_>>());
        }
    }
}
