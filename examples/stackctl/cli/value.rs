//! What single arguments mean.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use stackkit::backup::{BackupId, Recipient, Sample, TrustedKey};
use stackkit::{Error, Secret, ServiceId};

use crate::location::{Location, variable};

/// A backup that is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// The newest complete one.
    Latest,
    /// This one.
    Id(BackupId),
}

impl FromStr for Wanted {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "latest" => Ok(Self::Latest),
            id => id.parse().map(Self::Id),
        }
    }
}

/// `[ID=]LOCATION`.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) id: Option<ServiceId>,
    pub(crate) location: Location,
}

impl From<&str> for Named {
    fn from(text: &str) -> Self {
        // A URL may hold an equals sign too, but what stands before it is no id then.
        let named = text.split_once('=').and_then(|(id, rest)| Some((ServiceId::new(id).ok()?, rest)));
        match named {
            Some((id, location)) => Self { id: Some(id), location: location.into() },
            None => Self { id: None, location: text.into() },
        }
    }
}

/// `ID=ID,ID`: a service, and those that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) id: ServiceId,
    pub(crate) after: Vec<ServiceId>,
}

impl FromStr for Needs {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (id, after) = text.split_once('=').ok_or_else(|| Error::config("what a service needs is ID=ID,ID"))?;
        let after = after.split(',').map(ServiceId::new).collect::<Result<_, Error>>()?;
        Ok(Self { id: ServiceId::new(id)?, after })
    }
}

/// Who a backup is encrypted to: the recipient itself, or a file with one in each line.
///
/// It is read later: what the parser of the command line refuses, it repeats, and this may be a private key.
#[derive(Clone)]
pub(crate) struct RecipientSource(Secret);

impl RecipientSource {
    /// # Errors
    /// `Config` if it, or a line of the file, is no recipient; `NotFound`, `Io`.
    pub(crate) fn recipients(&self) -> Result<Vec<Recipient>, Error> {
        let text = self.0.expose();
        if text.starts_with("age1") || is_private(text) {
            return Ok(vec![text.parse()?]);
        }
        let named = |error: Error| error.with_operation("read the recipients").with_context("path", text);
        let file = std::fs::read_to_string(text).map_err(|error| named(Error::io("read", error)))?;
        let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let found = lines.map(str::parse).collect::<Result<Vec<Recipient>, Error>>().map_err(named)?;
        match found.is_empty() {
            true => Err(named(Error::config("the file names no recipient"))),
            false => Ok(found),
        }
    }
}

impl From<&str> for RecipientSource {
    fn from(text: &str) -> Self {
        Self(Secret::new(text))
    }
}

impl fmt::Debug for RecipientSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecipientSource")
    }
}

/// Whose signature is believed: the key itself, or its file.
#[derive(Debug, Clone)]
pub(crate) enum TrustSource {
    Key(TrustedKey),
    File(PathBuf),
}

impl From<&str> for TrustSource {
    fn from(text: &str) -> Self {
        // What is no key may still be the name of a file.
        text.parse().map_or_else(|_no_key| Self::File(text.into()), Self::Key)
    }
}

/// One of equal parts of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Portion {
    /// This one.
    Fixed(Sample),
    /// The one of the day, of so many.
    Today(u32),
}

impl Portion {
    /// # Errors
    /// `Config`, if there are too many parts.
    pub(crate) fn on(self, day: Date) -> Result<Sample, Error> {
        match self {
            Self::Fixed(sample) => Ok(sample),
            Self::Today(of) => Sample::of_day(day, of),
        }
    }
}

impl FromStr for Portion {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("today/").map(str::parse) {
            Some(Ok(of)) => Ok(Self::Today(of)),
            _ => text.parse().map(Self::Fixed),
        }
    }
}

/// The variable that holds a passphrase; read later, for it may be the passphrase itself.
#[derive(Clone)]
pub(crate) struct Passphrase(Location);

impl Passphrase {
    /// # Errors
    /// `Config` if it is no variable, or one that is not set or no text.
    pub(crate) fn read(&self) -> Result<Secret, Error> {
        match &self.0 {
            Location::Env(name) => variable(name),
            Location::Url(_) => {
                Err(Error::config("say --passphrase env:NAME: every user of this machine can read an argument"))
            }
        }
    }
}

impl From<&str> for Passphrase {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Whether somebody mistook a private key for its public half.
fn is_private(text: &str) -> bool {
    text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-")
}

/// A tag that can be seen, and stays on its line.
pub(crate) fn tag(text: &str) -> Result<String, &'static str> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("a tag is a word"),
        false => Ok(text.to_owned()),
    }
}

/// A whole number with one of the units `ms`, `s`, `m`, `h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is not a time such as 500ms, 60s, 5m or 1h");
    let number: u64 = number.parse().map_err(|_not_a_number| wrong())?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "60", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_ends_at_the_first_equals_sign() {
        let id = |text| Named::from(text).id.map(String::from);
        assert_eq!(id("cache=redis://db?db=1").as_deref(), Some("cache"));
        assert_eq!(id("cache=env:REDIS_URL").as_deref(), Some("cache"));
        assert_eq!(id("redis://db?db=1"), None);
        assert_eq!(id("file:///srv/a=b"), None);
    }

    #[test]
    fn a_service_needs_others_by_their_ids() {
        let needs: Needs = "web=postgres,cache".parse().unwrap();
        assert_eq!((needs.id.as_str(), needs.after.len()), ("web", 2));
        for bad in ["", "web", "web=", "=postgres", "web=a,,b", "w b=a"] {
            assert!(bad.parse::<Needs>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_portion_is_a_fixed_one_or_the_day_s() {
        let day = Date::constant(2026, 11, 21);
        let on = |text: &str| text.parse::<Portion>().and_then(|portion| portion.on(day));
        assert_eq!(on("2/7").unwrap().to_string(), "2/7");
        assert_eq!(on("today/7").unwrap(), Sample::of_day(day, 7).unwrap());
        for bad in ["", "today", "today/0", "today/x", "today/9999", "8/7"] {
            assert!(on(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_passphrase_stands_in_a_variable_and_nowhere_else() {
        for text in ["hunter2", "env:hunter 2", "env:"] {
            let error = Passphrase::from(text).read().unwrap_err();
            assert!(!error.chain().to_string().contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_secret_key_is_no_recipient_and_no_file_name() {
        let error = RecipientSource::from("age-secret-key-1hunter2").recipients().unwrap_err();
        assert!(!error.chain().to_string().contains("hunter2"), "{error}");
    }
}
