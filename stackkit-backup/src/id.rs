//! The name of a backup.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, Result};

/// The length of the time `20261121T061530Z` in an id.
const TIME_BYTES: usize = 16;

/// The name of a backup: when it started, to the second in UTC, and 32 random bits.
///
/// Ids sort by time. Two of the same second are told apart, but not ordered, by the random part.
///
/// ```
/// use stackkit_backup::BackupId;
/// let id: BackupId = "20261121T061530Z-9f3a1c02".parse().unwrap();
/// assert_eq!(id.time().to_string(), "2026-11-21T06:15:30Z");
/// assert_eq!(id.to_string(), "20261121T061530Z-9f3a1c02");
/// assert!("latest".parse::<BackupId>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    second: i64,
    random: u32,
}

impl BackupId {
    /// A fresh id for a backup that starts at `time`.
    pub(crate) fn generate(time: Timestamp) -> Self {
        Self { second: time.as_second(), random: fastrand::u32(..) }
    }

    /// When the backup started, to the second.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap_or_default()
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.time().strftime("%Y%m%dT%H%M%SZ"), self.random)
    }
}

impl FromStr for BackupId {
    type Err = Error;

    /// # Errors
    /// `Config` if it is not exactly what `Display` prints.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::config(format!("{text:?} is not a backup id such as 20261121T061530Z-9f3a1c02"));
        let (time, random) = text.split_at_checked(TIME_BYTES).ok_or_else(wrong)?;
        let random = random.strip_prefix('-').and_then(|hex| u32::from_str_radix(hex, 16).ok()).ok_or_else(wrong)?;
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).map_err(|e| wrong().with_source(e))?;
        let time = jiff::tz::TimeZone::UTC.to_timestamp(time).map_err(|e| wrong().with_source(e))?;
        let id = Self { second: time.as_second(), random };
        // The parsers above accept signs, short numbers and capital digits; the round trip does not.
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for BackupId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_exact_form_is_an_id() {
        for bad in [
            "",
            "latest",
            "20261121T061530Z",
            "20261121T061530Z-",
            "20261121T061530Z-9F3A1C02",
            "20261121T061530Z-9f3a1c",
            "20261121T061530Z-+f3a1c02",
            "20261321T061530Z-9f3a1c02",
            "20261121T061530Z-9f3a1c02/..",
            "20261121T06153üZ-9f3a1c02",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_id_survives_the_round_trip(second in 0_i64..253_402_207_200, random in any::<u32>()) {
            let id = BackupId { second, random };
            prop_assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
        }

        #[test]
        fn text_order_is_time_order(a in 0_i64..253_402_207_200, b in 0_i64..253_402_207_200) {
            let (a, b) = (BackupId { second: a, random: 0 }, BackupId { second: b, random: 0 });
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
